//! What clients may do where nobody proves who they are: everything where only this machine reaches the gateway, and what
//! `gateway.open` grants where others do.

mod support;

use serde_json::{Value, json};
use support::{Client, PATIENCE, gateway};
use tidegate_gateway::{Freedom, Gateway, GatewayConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A gateway that other machines reach.
async fn exposed(change: impl FnOnce(&mut GatewayConfig)) -> Gateway {
    gateway(|c| {
        c.listen = ([0, 0, 0, 0], 0).into();
        change(c);
    })
    .await
}

/// What SEND and MEMBERS are answered without a logic node behind the gateway; none while they wait for one.
async fn outcomes(client: &mut Client) -> Vec<Value> {
    let mut outcomes = Vec::new();
    for (verb, data) in [
        ("SEND", json!({"to": {"room": "lobby"}, "data": 1})),
        ("SEND", json!({"to": {"user": "ann"}, "data": 1})),
        ("SEND", json!({"route": "robot/say", "data": 1})),
        ("MEMBERS", json!({"room": "lobby"})),
    ] {
        client.say(&json!({"type": verb, "id": 7, "data": data}).to_string()).await;
        client.say(&json!({"type": "PING", "id": 8}).to_string()).await;
        let first = client.next().await;
        if first["type"] == "PONG" {
            outcomes.push(Value::Null);
        } else {
            outcomes.push(first["data"]["code"].clone());
            assert_eq!(client.next().await["type"], "PONG");
        }
    }
    outcomes
}

async fn answer(gateway: &Gateway, path: &str) -> String {
    let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("open");
    let mut text = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut text)).await.expect("answered and closed");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn strangers_from_other_machines_join_and_say_nothing() {
    let gateway = exposed(|_| {}).await;
    let mut stranger = Client::connect(&gateway, "?platform=web").await;

    let joined = stranger.join("lobby").await;
    let outcomes = outcomes(&mut stranger).await;

    assert!(joined["seq"].is_u64(), "{joined}");
    assert_eq!(outcomes, ["forbidden"; 4]);
    assert_eq!(stranger.hello["user"], Value::Null);
}

#[tokio::test]
async fn on_loopback_strangers_do_everything_under_any_name() {
    let gateway = gateway(|_| {}).await;
    let mut stranger = Client::connect(&gateway, "?user=admin").await;

    assert!(stranger.join("lobby").await["seq"].is_u64());
    assert_eq!(outcomes(&mut stranger).await, [Value::Null, Value::Null, Value::Null, Value::Null]);
    assert_eq!(stranger.hello["user"], "admin");
}

#[tokio::test]
async fn a_name_of_a_strangers_own_choice_is_refused_in_plain_words() {
    let gateway = exposed(|c| (c.compat.user_data, c.compat.module_action) = (true, true)).await;
    let mut stranger = Client::connect(&gateway, "?user=").await;

    for path in ["/ws?user=admin", "/connect?user=admin", "/chat?user_id=1"] {
        let refused = answer(&gateway, path).await;
        assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("\"name_not_taken\""), "{path}: {refused}");
        assert!(refused.contains("leave ?user= out") && refused.contains("gateway.open.names"), "{refused}");
    }
    stranger.say(&json!({"Module": "robot", "Action": "Login", "Data": {"UserId": "admin"}}).to_string()).await;
    let login = stranger.next().await;
    assert_eq!(login["Code"], 403, "{login}");
}

#[tokio::test]
async fn what_the_operator_grants_is_granted() {
    let gateway = exposed(|c| {
        c.open.names = true;
        c.open.grant.rooms = vec!["public:*".into()];
        c.open.grant.speak = vec!["lobby".into()];
    })
    .await;
    let mut named = Client::connect(&gateway, "?user=ann").await;

    let (public, other) = (named.join("public:1").await, named.join("staff").await);

    assert!(public["seq"].is_u64(), "{public}");
    assert_eq!(other["error"]["code"], "forbidden");
    assert_eq!(outcomes(&mut named).await, [Value::Null, json!("forbidden"), json!("forbidden"), json!("forbidden")]);
    assert_eq!(named.hello["user"], "ann");
}

/// Behind a proxy on the same machine the listener is on loopback and its clients are not.
#[tokio::test]
async fn a_listener_on_loopback_is_closed_to_names_and_speech_where_the_operator_says_so() {
    let gateway = gateway(|c| c.open.free = Freedom::Never).await;
    let mut stranger = Client::connect(&gateway, "").await;

    assert!(stranger.join("lobby").await["seq"].is_u64());
    assert_eq!(outcomes(&mut stranger).await, ["forbidden"; 4]);
    assert!(answer(&gateway, "/ws?user=admin").await.contains("name_not_taken"));
}

#[tokio::test]
async fn a_grant_that_is_too_much_is_refused_at_the_start() {
    let mut config = GatewayConfig::default();
    config.open.grant.users = vec!["x".into(); 33];
    config.open.grant.rooms = vec!["x".repeat(129)];

    let problems = config.problems();

    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("gateway.open.grant.rooms") && problems[1].contains("gateway.open.grant.users"));
}
