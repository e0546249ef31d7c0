//! A go-push client and go-push's two curl lines, unchanged (issue 2, point 11).
//! A go-push client knows PING, PONG, JOIN, LEAVE and PUSH with `data.items`, and passes over what it does not know.

mod support;

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::{Api, PATIENCE, Raw, Server, get_request, masked, until};

/// A client written to go-push's protocol: it connects to `/connect` and switches on `type`.
struct GoPush {
    raw: Raw,
}

impl GoPush {
    async fn connect(address: SocketAddr) -> Self {
        let mut raw = Raw::connect(address).await;
        let request = get_request("/connect", "Origin: http://localhost:8080\r\n");
        raw.write(request.as_bytes()).await.expect("a fresh socket takes a request");
        assert_eq!(raw.status().await, Some(101), "the path of go-push (rule C-1)");
        Self { raw }
    }

    async fn send(&mut self, text: &str) {
        self.raw.write(&masked(0x81, text.as_bytes())).await.expect("the connection is open");
    }

    /// The next message whose type go-push knows.
    async fn next(&mut self) -> Value {
        loop {
            let (opcode, payload) = self.raw.frame(PATIENCE).await.expect("a message was due");
            assert_eq!(opcode, 1, "go-push reads texts");
            let message: Value = serde_json::from_slice(&payload).expect("a message is JSON");
            if matches!(message["type"].as_str(), Some("PING" | "PONG" | "JOIN" | "LEAVE" | "PUSH")) {
                return message;
            }
        }
    }
}

/// Runs curl with these arguments; none when curl is not installed.
async fn curl(args: &[&str]) -> Option<String> {
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--fail-with-body"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let status = until("curl to end", PATIENCE, async || child.try_wait().expect("the child is ours")).await;
    let mut body = String::new();
    let mut stdout = child.stdout.take().expect("stdout is piped");
    std::io::Read::read_to_string(&mut stdout, &mut body).expect("curl prints text");
    assert!(status.success(), "{args:?}: {status} {body}");
    Some(body)
}

/// The line as go-push's README has it, with the port; the same bytes where there is no curl.
async fn curl_line(api: SocketAddr, path: &str, form: &str) {
    let url = format!("http://{api}{path}");
    let body = match curl(&[&url, "-d", form]).await {
        Some(body) => body,
        None => {
            let kind = "application/x-www-form-urlencoded";
            let answer = Api::connect(api).await.send("POST", path, kind, form.to_owned()).await;
            assert!((200..300).contains(&answer.status), "{} {}", answer.status, answer.text());
            answer.text()
        }
    };
    let receipt: Value = serde_json::from_str(&body).expect("the answer is a receipt");
    assert_eq!(receipt["matched"], 1, "{receipt}");
}

/// Issue 2, point 11.
#[tokio::test]
async fn a_go_push_client_works_unchanged() {
    let server = Server::serve(&[]).await;
    let mut client = GoPush::connect(server.clients()).await;

    client.send(r#"{"type": "PING", "data": {}}"#).await;
    assert_eq!(client.next().await["type"], "PONG");
    client.send(r#"{"type": "JOIN", "data": {"room": "default"}}"#).await;
    // go-push does not answer JOIN, so its clients wait for nothing; the PONG behind it shows that it was taken.
    client.send(r#"{"type": "PING", "data": {}}"#).await;
    assert_eq!(client.next().await["type"], "PONG");

    curl_line(server.api(), "/push/all", r#"items=[{"msg": "hi"}]"#).await;
    let to_all = client.next().await;
    curl_line(server.api(), "/push/room", r#"room=default&items=[{"msg": "hi"}]"#).await;
    let to_room = client.next().await;
    client.send(r#"{"type": "LEAVE", "data": {"room": "default"}}"#).await;
    client.send(r#"{"type": "PING", "data": {}}"#).await;
    assert_eq!(client.next().await["type"], "PONG");

    for push in [to_all, to_room] {
        assert_eq!(push["type"], "PUSH");
        assert_eq!(push["data"]["items"], json!([{"msg": "hi"}]));
    }
    let mut api = server.connect_api().await;
    assert_eq!(api.push_room("default", json!(1)).await["matched"], 0, "LEAVE was understood");
}

/// go-push answers an empty 200 to a form it cannot read; Tidegate says what is wrong.
#[tokio::test]
async fn a_bad_form_gets_a_real_status() {
    let server = Server::serve(&[]).await;

    for (path, form) in [("/push/all", "items=[1"), ("/push/all", "item=[]"), ("/push/room", "items=[1]")] {
        let kind = "application/x-www-form-urlencoded";
        let answer = server.connect_api().await.send("POST", path, kind, form).await;
        let (status, code) = answer.problem();
        assert!((400..500).contains(&status) && !code.is_empty(), "{path} {form}: {status} {code}");
    }
}
