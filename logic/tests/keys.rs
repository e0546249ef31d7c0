//! Keys of callers over a real socket: whom they reach, how they change hands, and what a reload carries over.

mod support;

use sha2::{Digest, Sha256};
use support::{FakeGateway, Reply, call, config};
use tidegate_logic::{Extras, GatewayLink, KeyConfig, Logic, LogicConfig, Moment, Scope};

fn key(id: &str, secret: &str) -> KeyConfig {
    let sha256 = Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect();
    KeyConfig { id: id.into(), sha256, scopes: vec![Scope::Push, Scope::Read], ..KeyConfig::default() }
}

fn with(keys: Vec<KeyConfig>) -> LogicConfig {
    LogicConfig { keys, ..config() }
}

async fn node(gateway: &FakeGateway, config: LogicConfig) -> Logic {
    Logic::start(config, vec![GatewayLink::Dial(gateway.url())], Extras::default()).await.expect("start")
}

async fn post(logic: &Logic, path: &str, secret: &str, media: &str, body: &str) -> Reply {
    let bearer = format!("Bearer {secret}");
    let headers = [("content-type", media), ("authorization", bearer.as_str())];
    call(logic.api_addr(), "POST", path, &headers, body.to_owned()).await
}

async fn push(logic: &Logic, secret: &str, to: &str) -> (u16, String) {
    let body = format!(r#"{{"to":{to},"message":1}}"#);
    let reply = post(logic, "/v1/push", secret, "application/json", &body).await;
    (reply.status.as_u16(), reply.code().to_owned())
}

#[tokio::test]
async fn a_bound_key_pushes_to_its_rooms_and_users_and_to_nobody_else() {
    let gateway = FakeGateway::start(1).await;
    let bound = KeyConfig { rooms: vec!["chat:*".into()], users: vec!["u1".into()], ..key("bound", "b") };
    let logic = node(&gateway, with(vec![bound, key("free", "f")])).await;

    for to in [r#"{"rooms":["chat:1","chat:2"]}"#, r#"{"user":"u1"}"#] {
        assert_eq!(push(&logic, "b", to).await.0, 202, "{to}");
    }
    let everyone = r#"{"all":true}"#;
    for to in [everyone, r#"{"rooms":["chat:1","news"]}"#, r#"{"user":"u2"}"#] {
        assert_eq!(push(&logic, "b", to).await, (403, "target_not_allowed".into()), "{to}");
        assert_eq!(push(&logic, "f", to).await.0, 202, "{to}");
    }
}

#[tokio::test]
async fn every_way_to_push_keeps_to_the_keys_reach() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&gateway, with(vec![KeyConfig { rooms: vec!["chat:*".into()], ..key("bound", "b") }])).await;
    let (good, bad) = (r#"{"to":{"room":"chat:1"},"message":1}"#, r#"{"to":{"room":"news"},"message":1}"#);

    let document = format!(r#"{{"pushes":[{good},{bad}]}}"#);
    let document = post(&logic, "/v1/push/batch", "b", "application/json", &document).await;
    let lines = post(&logic, "/v1/push/batch", "b", "application/x-ndjson", &format!("{bad}\n{good}\n")).await;
    let form = "application/x-www-form-urlencoded";
    let all = post(&logic, "/push/all", "b", form, "items=[1]").await;
    let room = post(&logic, "/push/room", "b", form, "items=[1]&room=chat:1").await;

    assert!(document.json["receipts"][0]["id"].is_string(), "{}", document.text());
    assert_eq!(document.json["receipts"][1]["code"], "target_not_allowed");
    let lines: Vec<String> = lines.text().lines().map(str::to_owned).collect();
    assert!(lines[0].contains("target_not_allowed") && lines[1].contains(r#""matched":0"#), "{lines:?}");
    assert_eq!((all.status.as_u16(), all.code()), (403, "target_not_allowed"));
    assert_eq!(room.status, 202);
}

#[tokio::test]
async fn a_key_before_its_time_and_after_it_is_401_by_name() {
    let gateway = FakeGateway::start(1).await;
    let early = KeyConfig { not_before: Some(Moment(Moment::now().0 + 3_600)), ..key("early", "e") };
    let late = KeyConfig { expires: Some(Moment(1)), ..key("late", "l") };
    let logic = node(&gateway, with(vec![early, late])).await;

    assert_eq!(push(&logic, "e", r#"{"all":true}"#).await, (401, "key_not_yet".into()));
    assert_eq!(push(&logic, "l", r#"{"all":true}"#).await, (401, "key_expired".into()));
}

#[tokio::test]
async fn a_caller_changes_over_to_a_new_key_without_a_gap_and_keeps_its_dedupe_keys() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&gateway, with(vec![key("billing", "old")])).await;
    let body = r#"{"to":{"all":true},"message":1,"dedupe":"invoice-1"}"#;
    let first = post(&logic, "/v1/push", "old", "application/json", body).await;

    logic.reload(&with(vec![key("billing", "old"), key("billing", "new")])).expect("two keys of one id");
    let (old, new) = (push(&logic, "old", r#"{"all":true}"#).await, push(&logic, "new", r#"{"all":true}"#).await);
    let again = post(&logic, "/v1/push", "new", "application/json", body).await;
    logic.reload(&with(vec![key("billing", "new")])).expect("the new key");

    assert_eq!((old.0, new.0), (202, 202));
    assert_eq!(again.json["id"], first.json["id"], "the same caller's dedupe key");
    assert_eq!(push(&logic, "old", r#"{"all":true}"#).await, (401, "bad_key".into()));
    assert_eq!(push(&logic, "new", r#"{"all":true}"#).await.0, 202);
}

#[tokio::test]
async fn limits_change_while_the_node_runs_and_a_contradiction_changes_nothing() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&gateway, with(vec![key("a", "a")])).await;
    let two = r#"{"to":{"all":true},"messages":[1,2]}"#;
    let send = || post(&logic, "/v1/push", "a", "application/json", two);
    let mut tight = with(vec![key("a", "a")]);
    tight.limits.messages = 1;
    let mut wrong = tight.clone();
    (wrong.limits.messages, wrong.keys) = (0, vec![key("b", "b")]);

    let before = send().await;
    logic.reload(&tight).expect("a good configuration");
    let after = send().await;
    let problems = logic.reload(&wrong).expect_err("no messages at all");

    let open = logic.reload(&with(Vec::new())).expect_err("no keys any more");

    assert!(open[0].contains("does not become open"), "{open:?}");
    assert_eq!(before.status, 202);
    assert_eq!(after.code(), "too_many_messages");
    assert!(problems[0].contains("logic.limits"), "{problems:?}");
    assert_eq!(send().await.code(), "too_many_messages", "the key and the limit are as before");
}
