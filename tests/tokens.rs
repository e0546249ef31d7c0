//! Tokens of clients at the real binary: they name their bearers, and they show nowhere. What is refused, and how, is tested
//! at the gateway (`gateway/tests/auth.rs`).

mod support;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use support::{Api, Client, Ending, Metrics, Raw, Server, get_request, masked, until};

const SECRET: &str = "the secret of this test, long enough for HS256";

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

fn mint(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("HMAC signs anything")
}

/// A gateway and a logic node that say all they ever say.
async fn talkative() -> (Server, Server) {
    let keys = format!("[{{algorithm=\"HS256\", secret=\"{SECRET}\"}}]");
    let env = [
        ("TIDEGATE_GATEWAY__AUTH__MODE", "jwt"),
        ("TIDEGATE_GATEWAY__AUTH__KEYS", keys.as_str()),
        ("TIDEGATE_LOG__LEVEL", "trace"),
    ];
    let gateway = Server::gateway("g1", &env).await;
    let logic = Server::logic(&[&gateway], &[("TIDEGATE_LOG__LEVEL", "trace")]).await;
    (gateway, logic)
}

/// What a request that is refused is told.
async fn refusal(server: &Server, path: &str, headers: &str) -> String {
    let mut raw = Raw::connect(server.clients()).await;
    raw.write(get_request(path, headers).as_bytes()).await.expect("the socket is open");
    let head = raw.head().await.expect("an answer");
    let length =
        head.to_lowercase().split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    let body = raw.body(length.expect("a length")).await.expect("a body");
    head + &String::from_utf8_lossy(&body)
}

/// What a client hears that says this first.
async fn heard(server: &Server, text: &str) -> String {
    let mut raw = Raw::connect(server.clients()).await;
    raw.write(get_request("/ws", "").as_bytes()).await.expect("the socket is open");
    raw.head().await.expect("a 101");
    raw.write(&masked(0x81, text.as_bytes())).await.expect("the socket is open");
    let mut said = String::new();
    while let Some((opcode, payload)) = raw.frame(support::PATIENCE).await {
        said.push_str(&String::from_utf8_lossy(&payload));
        if opcode == 8 {
            break;
        }
    }
    said
}

/// Rule C-4: token in query, header, AUTH and REFRESH, good and bad ones, and then everything that anyone can read.
#[tokio::test]
async fn a_token_shows_nowhere() {
    let (gateway, logic) = talkative().await;
    let good = mint(&json!({"sub": "ann", "exp": now_s() + 600, "rooms": ["*"], "canary": "C-A-N-A-R-Y"}));
    let stale = mint(&json!({"sub": "ann", "exp": 5, "canary": "C-A-N-A-R-Y"}));
    let forged = format!("{}forged", &good[..good.len() - 6]);
    let cut = good[..good.len() / 2].to_owned();
    let say = |kind: &str, token: &str| json!({"type": kind, "id": 1, "data": {"token": token}}).to_string();

    let mut seen = Vec::new();
    let by_query = Client::open(gateway.clients(), &format!("/ws?token={good}"), None).await;
    assert_eq!(by_query.hello["user"], "ann");
    for bad in [&stale, &forged, &cut] {
        let in_query = refusal(&gateway, &format!("/ws?token={bad}"), "").await;
        let in_header = refusal(&gateway, "/ws", &format!("Authorization: Bearer {bad}\r\n")).await;
        assert!(in_query.starts_with("HTTP/1.1 401") && in_header.starts_with("HTTP/1.1 401"), "{in_query}{in_header}");
        let first = heard(&gateway, &say("AUTH", bad)).await;
        assert!(first.contains("unauthorized"), "{first}");
        // Also where it is no token's place.
        let astray = heard(&gateway, &json!({"type": "JOIN", "data": {"room": bad}}).to_string()).await;
        seen.extend([in_query, in_header, first, astray]);
    }
    seen.push(refusal(&gateway, &format!("/other?token={good}"), "").await);
    seen.push(refusal(&gateway, &format!("/ws?token={good}&user=a&token={good}"), "").await);
    let mut named = by_query;
    for token in [&good, &stale, &forged] {
        named.send(&say("REFRESH", token)).await;
        seen.push(named.next_json().await.to_string());
    }
    named.send(&say("AUTH", &good)).await;
    seen.push(named.next_json().await.to_string());
    let mut api = logic.connect_api().await;
    for path in ["/v1/connections", "/v1/users/ann", "/v1/gateways", "/metrics"] {
        seen.push(api.get(path).await.text());
    }
    let metrics = Api::connect(gateway.health()).await.get("/metrics").await.text();
    let refused = Metrics::parse(&metrics).sum("tidegate_gateway_tokens_refused_total");
    seen.push(metrics);
    seen.extend([gateway.log_text(), logic.log_text()]);

    assert!(refused >= 3 * 3 + 2, "{refused} were refused");
    for token in [&good, &stale, &forged, &cut] {
        for part in token.split('.').filter(|part| part.len() > 20) {
            // Any stretch of it, not only all of it.
            let middle = &part[part.len() / 2 - 8..part.len() / 2 + 8];
            let shown = seen.iter().find(|text| text.contains(part) || text.contains(middle));
            assert_eq!(shown, None, "a part of a token");
        }
    }
    assert!(
        !seen.iter().any(|text| text.contains("C-A-N-A-R-Y") || text.contains(SECRET)),
        "what is in it, or its key"
    );
}

/// Rule C-4: by the whole way, logic included.
#[tokio::test]
async fn a_push_reaches_whom_the_token_names_and_the_nameless_are_sent_away() {
    let (gateway, logic) = talkative().await;
    let token = mint(&json!({"sub": "ann", "exp": now_s() + 600, "plat": "ios"}));
    let mut client = Client::open(gateway.clients(), &format!("/ws?token={token}"), None).await;
    let mut raw = Raw::connect(gateway.clients()).await;
    raw.write(get_request("/ws", "").as_bytes()).await.expect("the socket is open");
    raw.head().await.expect("a 101");
    raw.write(&masked(0x81, br#"{"type":"PING"}"#)).await.expect("the socket is open");

    let receipt = logic.connect_api().await.push(json!({"to": {"user": "ann"}, "messages": ["hello"]})).await;
    let ending = raw.ending().await;

    assert_eq!(receipt["matched"], 1, "{receipt}");
    assert_eq!(client.next_json().await["data"]["items"][0], "hello");
    assert_eq!(ending, Ending::Closed(3500, r#"{"reason":"token_missing"}"#.into()));
}

/// Rule C-4: keys change hands by SIGHUP, and what cannot be used changes nothing.
#[tokio::test]
async fn keys_for_tokens_are_exchanged_by_a_reload() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("tidegate.toml");
    let write = |mode: &str, secret: &str| {
        let text = format!(
            "[gateway.auth]\nmode = \"{mode}\"\n[[gateway.auth.keys]]\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\n"
        );
        std::fs::write(&path, text).expect("a scratch file");
    };
    write("jwt", "another secret, which is long enough too");
    let server = Server::serve(&[("TIDEGATE_CONFIG", path.to_str().expect("a plain path"))]).await;
    let reload = async |word: &str| {
        let before = server.log_text().matches(word).count();
        server.hang_up();
        until(word, support::PATIENCE, async || (server.log_text().matches(word).count() > before).then_some(())).await;
    };
    let door = format!("Authorization: Bearer {}\r\n", mint(&json!({"sub": "ann", "exp": now_s() + 600})));

    let before = refusal(&server, "/ws", &door).await;
    write("jwt", "too short");
    reload("stays as it was").await;
    let broken = refusal(&server, "/ws", &door).await;
    write("none", SECRET);
    reload("only a restart").await;
    let other_mode = refusal(&server, "/ws", &door).await;
    write("jwt", SECRET);
    reload("configuration reloaded").await;
    let mut raw = Raw::connect(server.clients()).await;
    raw.write(get_request("/ws", &door).as_bytes()).await.expect("the socket is open");

    for refused in [before, broken, other_mode] {
        assert!(refused.contains("token_signature"), "{refused}");
    }
    assert_eq!(raw.status().await, Some(101));
    let log = server.log_text();
    assert!(
        log.contains("gateway.auth.keys[0]") && log.contains("keys=\"gateway.auth.keys, gateway.auth.mode\""),
        "{log}"
    );
    assert!(!log.contains("too short") && !log.contains(SECRET), "{log}");
}
