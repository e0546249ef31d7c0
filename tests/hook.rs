//! The connect hook (rule C-8) over the whole way: a client, a gateway, a logic node, and an HTTP service on loopback that says
//! who comes in. What the door does with each verdict is tested at the gateway (`gateway/tests/hook.rs`).

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use support::{Api, Client, Hook, Raw, Server, get_request, tokens};

/// Base64 of 24 bytes.
const KEY: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const TIMEOUT_MS: u32 = 500;
const CACHE_MS: u32 = 60_000;

/// A gateway that wants tokens and a hook's word, and a logic node that asks the service at this address.
async fn fleet(service: SocketAddr, cache_ms: u32) -> (Server, Server) {
    let mut env = tokens::required().to_vec();
    env.push(("TIDEGATE_GATEWAY__HOOK__REQUIRED", "true"));
    let gateway = Server::gateway("g1", &env).await;
    let (url, secrets) = (format!("http://{service}/connect"), format!("[\"whsec_{KEY}\"]"));
    let (timeout_ms, cache_ms) = (TIMEOUT_MS.to_string(), cache_ms.to_string());
    let asks = [
        ("TIDEGATE_LOGIC__HOOK__URL", url.as_str()),
        ("TIDEGATE_LOGIC__HOOK__ALLOW_PRIVATE", "true"),
        ("TIDEGATE_LOGIC__HOOK__SECRETS", &secrets),
        ("TIDEGATE_LOGIC__HOOK__TIMEOUT_MS", &timeout_ms),
        ("TIDEGATE_LOGIC__HOOK__CACHE_MS", &cache_ms),
        ("TIDEGATE_LOGIC__HOOK__HEADERS", "[\"cookie\"]"),
    ];
    let logic = Server::logic(&[&gateway], &asks).await;
    (gateway, logic)
}

fn token(user: &str) -> String {
    tokens::mint(
        json!({"sub": user, "plat": "web", "dev": "laptop", "rooms": ["lobby"], "attrs": {"lang": "de", "tier": "free"}}),
    )
}

/// Status and problem of a handshake that is refused.
async fn refused(gateway: &Server, token: &str) -> (u16, Value) {
    let mut raw = Raw::connect(gateway.clients()).await;
    raw.write(get_request(&format!("/ws?token={token}"), "").as_bytes()).await.expect("a fresh socket takes a request");
    let head = raw.head().await.expect("an answer").to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    let body = raw.body(length.expect("a length")).await.expect("a body");
    (status, serde_json::from_slice(&body).expect("errors are JSON"))
}

/// What the service would compute over what it got.
fn signed(id: &str, timestamp: &str, body: &[u8]) -> String {
    let key = STANDARD.decode(KEY).expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// Rule C-8.
#[tokio::test]
async fn the_services_word_makes_the_connection() {
    let hook = Hook::start(|_, _| {
        let word = json!({
            "accept": true, "user": "alice-of-acme", "join": ["acme:all"],
            "grant": {"rooms": ["acme:*"], "speak": ["acme:*"]}, "attributes": {"tier": "pro"},
        });
        (200, word.to_string())
    })
    .await;
    let (gateway, logic) = fleet(hook.address, 0).await;

    let path = format!("/ws?token={}", token("alice"));
    let mut client = Client::open_with(gateway.clients(), &path, &[("Cookie", "session=7")]).await;
    let joined = client.expect("JOINED").await;
    client.join("acme:sales").await;
    client.join("lobby").await;
    let forbidden = client.ask(json!({"type": "JOIN", "id": 2, "data": {"room": "other"}})).await;
    let mut api = logic.connect_api().await;
    let receipt = api
        .push(json!({"to": {"user": "alice-of-acme", "attributes": {"tier": "pro", "lang": "de"}}, "message": 1}))
        .await;

    assert_eq!(client.hello["user"], "alice-of-acme");
    assert_eq!(joined["rooms"][0]["room"], "acme:all");
    assert!(forbidden.to_string().contains("forbidden"), "{forbidden}");
    assert_eq!(receipt["matched"], 1, "{receipt}");
    assert_eq!(client.items(1).await, [json!(1)]);
}

/// Rules C-6 and C-8: a renamed user refreshes with the token of its own `sub`, and the service's rights stay.
#[tokio::test]
async fn a_refresh_keeps_the_services_word() {
    let word = json!({"accept": true, "user": "alice-of-acme", "grant": {"rooms": ["acme:*"]}}).to_string();
    let hook = Hook::start(move |_, _| (200, word.clone())).await;
    let (gateway, _logic) = fleet(hook.address, 0).await;
    let path = format!("/ws?token={}", token("alice"));
    let mut client = Client::open_with(gateway.clients(), &path, &[]).await;
    assert_eq!(client.hello["user"], "alice-of-acme");

    client.say(json!({"type": "REFRESH", "id": 1, "data": {"token": token("alice")}})).await;
    let refreshed = client.expect("REFRESHED").await;

    assert!(refreshed["expires_ms"].is_u64(), "{refreshed}");
    client.join("acme:sales").await;
    client.join("lobby").await;
    assert_eq!(hook.got().len(), 1, "the service is not asked again");
}

/// Rule C-8: the question is signed, says who asks for what, and holds no token.
#[tokio::test]
async fn the_question_is_signed_and_holds_no_token() {
    let hook = Hook::start(|_, _| (200, r#"{"accept":true}"#.to_owned())).await;
    let (gateway, _logic) = fleet(hook.address, 0).await;
    let token = token("alice");

    let by_query = format!("/ws?token={token}&theme=dark");
    let _one = Client::open_with(gateway.clients(), &by_query, &[("Cookie", "session=7")]).await;
    let _other = Client::open_with(gateway.clients(), "/ws", &[("Authorization", &format!("Bearer {token}"))]).await;

    let got = hook.got();
    assert_eq!(got.len(), 2);
    for got in &got {
        assert_eq!(got.signature, signed(&got.id, &got.timestamp, &got.body));
        let age_s = tokens::now_s().abs_diff(got.timestamp.parse().expect("Unix seconds"));
        assert!(age_s < 60, "{age_s} s");
        let text = String::from_utf8_lossy(&got.body);
        for part in token.split('.') {
            assert!(!text.contains(&part[..16]), "a part of the token in {text}");
        }
    }
    let question = &got[0].lines[0];
    assert_eq!(question["id"], json!(got[0].id));
    assert_eq!(
        (&question["user"], &question["platform"], &question["device"]),
        (&json!("alice"), &json!("web"), &json!("laptop"))
    );
    assert_eq!(
        (&question["gateway"], &question["path"]),
        (&json!(gateway.backplane().to_string()), &json!("/ws?theme=dark")),
        "{question}"
    );
    assert_eq!(question["headers"], json!({"cookie": "session=7"}));
    assert_eq!(question["attributes"], json!({"lang": "de", "tier": "free"}));
    assert!(question["address"].as_str().is_some_and(|a| a.starts_with("127.0.0.1:")), "{question}");
}

/// Rule C-8.
#[tokio::test]
async fn a_refusal_is_in_the_services_words() {
    let hook = Hook::start(|_, lines| match lines[0]["user"].as_str() {
        Some("mallory") => {
            (200, r#"{"accept":false,"status":403,"code":"banned","message":"until Monday"}"#.to_owned())
        }
        Some("eve") => (200, r#"{"accept":false,"status":429,"code":"slow_down"}"#.to_owned()),
        _ => (401, String::new()),
    })
    .await;
    let (gateway, logic) = fleet(hook.address, 0).await;

    let (status, banned) = refused(&gateway, &token("mallory")).await;
    assert_eq!((status, &banned["code"]), (403, &json!("banned")), "{banned}");
    assert_eq!(banned["detail"], "until Monday", "{banned}");
    let (status, slow) = refused(&gateway, &token("eve")).await;
    assert_eq!((status, &slow["code"]), (429, &json!("slow_down")), "{slow}");
    let (status, plain) = refused(&gateway, &token("trent")).await;
    assert_eq!((status, &plain["code"]), (401, &json!("unauthorized")), "{plain}");
    let shown = Api::connect(logic.api()).await.get("/v1/users/mallory").await.json();
    assert_eq!(shown["online"], json!(false), "{shown}");
}

/// Rule C-8: silence is a no, in time; so is a service that is gone.
#[tokio::test]
async fn silence_lets_nobody_in() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (gateway, logic) = fleet(silent.local_addr().expect("bound"), CACHE_MS).await;

    let begun = Instant::now();
    let (status, late) = refused(&gateway, &token("alice")).await;
    let took = begun.elapsed();
    drop(silent);
    let (gone, _) = refused(&gateway, &token("alice")).await;

    assert_eq!((status, &late["code"]), (503, &json!("hook_unavailable")), "{late}");
    assert_eq!(gone, 503);
    let timeout = Duration::from_millis(u64::from(TIMEOUT_MS));
    // The time is what is promised; two seconds are for a busy machine.
    assert!((timeout..timeout + Duration::from_secs(2)).contains(&took), "{took:?}");
    assert_eq!(logic.metrics().await.sum("tidegate_logic_hook_remembered"), 0, "no answer is no answer to remember");
}

/// Rule C-8: the second of two connects within `cache_ms` is not asked about; another client is.
#[tokio::test]
async fn an_answer_holds_for_the_same_client_for_its_time() {
    let hook = Hook::start(|_, _| (200, r#"{"accept":true,"attributes":{"tier":"pro"}}"#.to_owned())).await;
    let (gateway, logic) = fleet(hook.address, CACHE_MS).await;
    let alice = token("alice");

    let _first = Client::bearing(gateway.clients(), &alice).await;
    let _second = Client::bearing(gateway.clients(), &alice).await;
    assert_eq!(hook.got().len(), 1);
    let _bob = Client::bearing(gateway.clients(), &token("bob")).await;
    assert_eq!(hook.got().len(), 2);

    let receipt = logic
        .connect_api()
        .await
        .push(json!({"to": {"user": "alice", "attributes": {"tier": "pro"}}, "message": 1}))
        .await;
    assert_eq!(receipt["matched"], 2, "the verdict is the same: {receipt}");
    assert_eq!(logic.metrics().await.sum("tidegate_logic_hook_remembered"), 2);
}
