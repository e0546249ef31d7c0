//! The handshake on the real socket: what becomes a session, what is refused and how, and who does not get to wait.
//! The decisions themselves are tested on a desk in the protocol crate; here the whole path counts.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::{Client, PATIENCE, Raw, Server, get_request, until};
use tokio::task::JoinSet;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The answer's status, or none when the socket just ended.
async fn status_of(address: SocketAddr, request: &str) -> Option<u16> {
    let mut raw = Raw::connect(address).await;
    // The server may refuse before it has read everything.
    let _ = raw.write(request.as_bytes()).await;
    raw.status().await
}

fn good() -> String {
    get_request("/ws", "")
}

/// Rule C-1.
#[tokio::test]
async fn only_a_correct_upgrade_becomes_a_session() {
    let server = Server::serve(&[]).await;
    let short = good().replace("dGhlIHNhbXBsZSBub25jZQ==", "AQID");
    let body = good().replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello");
    let chunked = good().replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    let two_hosts = good().replace("Host: localhost\r\n", "Host: localhost\r\nHost: evil.example\r\n");
    let cases = [
        ("good", good(), &[101][..]),
        ("good, go-push's path", good().replace("/ws", "/connect"), &[101]),
        (
            "good, header case and lists",
            good().replace("Connection: Upgrade", "connection: keep-alive, UPGRADE"),
            &[101],
        ),
        ("plain GET", "GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[426]),
        ("POST", good().replace("GET", "POST"), &[400, 405, 426]),
        ("HTTP/1.0", good().replace("HTTP/1.1", "HTTP/1.0"), &[400, 426, 505]),
        ("body", body, &[400, 413]),
        ("chunked body", chunked, &[400]),
        ("no Host", good().replace("Host: localhost\r\n", ""), &[400]),
        ("two Hosts", two_hosts, &[400]),
        ("no key", good().replace(KEY, ""), &[400]),
        ("3-byte key", short, &[400]),
        ("two keys", good().replace(KEY, &KEY.repeat(2)), &[400]),
        ("no version", good().replace("Sec-WebSocket-Version: 13\r\n", ""), &[400, 426]),
        ("version 8", good().replace("Version: 13", "Version: 8"), &[426]),
        ("no Connection", good().replace("Connection: Upgrade\r\n", ""), &[400, 426]),
        ("other path", good().replace("/ws", "/other"), &[404]),
        ("header of 20,000 bytes", get_request("/ws", &format!("X-Long: {}\r\n", "x".repeat(20_000))), &[431]),
        ("1,000 headers", get_request("/ws", &"X-Many: x\r\n".repeat(1_000)), &[400, 431]),
        ("target of 20,000 bytes", good().replace("/ws", &format!("/ws?user={}", "x".repeat(20_000))), &[414, 431]),
        ("no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".into(), &[400]),
    ];

    let mut wrong = Vec::new();
    for (name, request, allowed) in cases {
        let status = status_of(server.clients(), &request).await;
        if !status.is_some_and(|status| allowed.contains(&status)) {
            wrong.push(format!("{name}: {status:?}, not one of {allowed:?}"));
        }
    }

    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Rule C-1: the request may be there when the socket is accepted, or come later.
#[tokio::test]
async fn refused_handshakes_leave_the_door_open() {
    let server = Server::serve(&[]).await;
    let refused = [
        good().replace("/ws", "/other"),
        "\x16\x03\x01\r\n\r\n".into(),
        // More than one read takes.
        get_request("/ws", &format!("X-Long: {}\r\n", "x".repeat(20_000))),
    ];

    for request in refused.iter().cycle().take(60) {
        let mut at_once = Raw::connect_saying(server.clients(), request.as_bytes());
        let mut later = Raw::connect(server.clients()).await;
        later.write(request.as_bytes()).await.expect("a fresh socket takes a request");
        for raw in [&mut at_once, &mut later] {
            let status = raw.status().await;
            assert!(status.is_some_and(|status| (400..500).contains(&status)), "{status:?} for {request}");
        }
    }

    assert_eq!(status_of(server.clients(), &good()).await, Some(101));
}

/// Rule C-1, RFC 6455 section 4.2.2: the answer says which version would do.
#[tokio::test]
async fn a_wrong_version_is_told_the_right_one() {
    let server = Server::serve(&[]).await;
    let mut raw = Raw::connect(server.clients()).await;

    raw.write(good().replace("Version: 13", "Version: 8").as_bytes()).await.expect("the socket is open");

    let head = raw.head().await.expect("the refusal is answered").to_lowercase();
    assert!(head.contains("sec-websocket-version: 13\r\n"), "{head}");
}

/// Rule C-1: the RFC's own example (RFC 6455 section 1.3).
#[tokio::test]
async fn the_accept_header_is_the_rfcs() {
    let server = Server::serve(&[]).await;
    let mut raw = Raw::connect(server.clients()).await;

    raw.write(good().as_bytes()).await.expect("the socket is open");

    let head = raw.head().await.expect("a good handshake is answered").to_lowercase();
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
}

/// Rule C-2.
#[tokio::test]
async fn a_known_subprotocol_is_chosen_and_an_unknown_one_is_not() {
    let server = Server::serve(&[]).await;
    let offers = [
        ("Sec-WebSocket-Protocol: tidegate.v1.json\r\n", true),
        ("Sec-WebSocket-Protocol: mqtt, tidegate.v1.json\r\n", true),
        ("Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Protocol: tidegate.v1.json\r\n", true),
        ("Sec-WebSocket-Protocol: mqtt\r\n", false),
        ("", false),
    ];

    for (offer, is_chosen) in offers {
        let mut raw = Raw::connect(server.clients()).await;
        raw.write(get_request("/ws", offer).as_bytes()).await.expect("the socket is open");
        let head = raw.head().await.expect("a good handshake is answered").to_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{offer}: {head}");
        assert_eq!(head.contains("sec-websocket-protocol: tidegate.v1.json\r\n"), is_chosen, "{offer}: {head}");
        assert_eq!(head.contains("sec-websocket-protocol"), is_chosen, "{offer}: {head}");
    }
}

/// Rule C-3.
#[tokio::test]
async fn foreign_origins_are_refused() {
    let config = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    let text = "[gateway]\nallowed_origins = [\"https://good.example\", \"https://*.trusted.example\"]\n";
    std::fs::write(config.path(), text).expect("the temporary folder is writable");
    let path = config.path().to_str().expect("temporary paths are UTF-8");
    let server = Server::serve(&[("TIDEGATE_CONFIG", path)]).await;
    let origins = [
        ("https://good.example", 101),
        ("https://a.trusted.example", 101),
        ("https://evil.example", 403),
        ("https://good.example.evil.com", 403),
        ("https://evilgood.example", 403),
        ("http://good.example", 403),
        ("https://good.example:8443", 403),
        ("https://trusted.example.evil.com", 403),
        ("https://eviltrusted.example", 403),
        ("null", 403),
    ];

    for (origin, due) in origins {
        let request = get_request("/ws", &format!("Origin: {origin}\r\n"));
        assert_eq!(status_of(server.clients(), &request).await, Some(due), "{origin}");
    }
    let twice = get_request("/ws", "Origin: https://good.example\r\nOrigin: https://evil.example\r\n");
    assert!(matches!(status_of(server.clients(), &twice).await, Some(400 | 403)), "two origins");
}

/// Rule C-3: what a page served by a developer's machine needs.
#[tokio::test]
async fn by_default_only_local_pages_may_connect() {
    let server = Server::serve(&[]).await;

    for (origin, due) in [("http://localhost:5173", 101), ("https://evil.example", 403), ("null", 403)] {
        let request = get_request("/ws", &format!("Origin: {origin}\r\n"));
        assert_eq!(status_of(server.clients(), &request).await, Some(due), "{origin}");
    }
}

/// Rule C-1: bytes behind the request are the first frames, not lost with the handshake's buffers.
#[tokio::test]
async fn frames_sent_along_with_the_handshake_are_answered() {
    let server = Server::serve(&[]).await;
    let mut raw = Raw::connect(server.clients()).await;
    let mut bytes = good().into_bytes();
    bytes.extend(support::masked(0x81, br#"{"type":"PING","id":1}"#));

    raw.write(&bytes).await.expect("the socket is open");

    assert_eq!(raw.status().await, Some(101));
    let (_, hello) = raw.frame(PATIENCE).await.expect("HELLO comes first");
    let (_, pong) = raw.frame(PATIENCE).await.expect("PONG comes second");
    assert!(hello.starts_with(br#"{"type":"HELLO""#));
    assert!(pong.starts_with(br#"{"type":"PONG""#), "{}", String::from_utf8_lossy(&pong));
}

/// Issue 2, point 6, and rule C-1's deadline.
#[tokio::test]
async fn half_open_and_slow_header_sockets_are_gone_within_six_seconds() {
    const EACH: usize = 200;
    let server = Server::serve(&[]).await;
    let address = server.clients();
    let started = Instant::now();
    let mut sockets = JoinSet::new();
    for number in 0..EACH {
        sockets.spawn(async move {
            let mut silent = Raw::connect(address).await;
            silent.is_gone_within(Duration::from_secs(6)).await.then_some(()).ok_or(format!("silent {number}"))
        });
        sockets.spawn(async move {
            let mut slow = Raw::connect(address).await;
            // A byte every 300 ms: a deadline for each read would never pass, one for the whole head does.
            for byte in good().bytes() {
                if slow.write(&[byte]).await.is_err() || slow.is_gone_within(Duration::from_millis(300)).await {
                    return Ok(());
                }
                if started.elapsed() > Duration::from_secs(6) {
                    break;
                }
            }
            Err(format!("slow header {number}"))
        });
    }
    let mut healthy = Client::connect(address).await;
    healthy.join("meanwhile").await;

    let left: Vec<String> = sockets.join_all().await.into_iter().filter_map(Result::err).collect();

    assert!(left.is_empty(), "{} of {} are still there: {:?}", left.len(), 2 * EACH, &left[..left.len().min(5)]);
    // The time is what is promised: the deadline is 5 s by default, and nothing but it ends these sockets.
    assert!(started.elapsed() < Duration::from_secs(8), "it took {:?}", started.elapsed());
    until("the healthy client to be served", PATIENCE, async || {
        let answer = healthy.ask(serde_json::json!({"type": "PING"})).await;
        (answer["type"] == "PONG").then_some(())
    })
    .await;
}
