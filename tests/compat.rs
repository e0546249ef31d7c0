//! Older dialects of clients: Module/Action frames and bare messages, where the configuration has them understood.

mod support;

use serde_json::{Value, json};
use support::{Client, Raw, Server, get_request, masked};

const MODULE_ACTION: (&str, &str) = ("TIDEGATE_GATEWAY__COMPAT__MODULE_ACTION", "true");
const USER_DATA: (&str, &str) = ("TIDEGATE_GATEWAY__COMPAT__USER_DATA", "true");

fn called(action: &str, data: &Value) -> Value {
    json!({"Module": "robot", "Action": action, "Data": data})
}

#[tokio::test]
async fn login_names_the_user_and_the_platform() {
    let server = Server::serve(&[MODULE_ACTION]).await;
    let mut api = server.connect_api().await;
    let mut robot = Client::connect(server.clients()).await;

    let answer = robot.ask(called("Login", &json!({"PlatId": "1", "UserId": "abc"}))).await;
    let hello = robot.expect("HELLO").await;

    assert_eq!((&answer["Module"], &answer["Action"], &answer["Code"]), (&json!("robot"), &json!("Login"), &json!(0)));
    assert_eq!(hello["user"], "abc");
    let listed = api.get("/v1/connections?user=abc").await.json();
    assert_eq!(listed["connections"][0]["platform"], "1", "{listed}");
    assert_eq!(listed["connections"][0]["id"], hello["connection"]);
    api.push(json!({"to": {"user": "abc"}, "message": "for you"})).await;
    assert_eq!(robot.items(1).await, ["for you"]);

    let again = robot.ask(called("Login", &json!({"PlatId": "1", "UserId": "abc"}))).await;
    let other = robot.ask(called("Login", &json!({"UserId": "xyz"}))).await;
    let nobody = robot.ask(called("Login", &json!({}))).await;
    assert_eq!([&again["Code"], &other["Code"], &nobody["Code"]], [&json!(0), &json!(403), &json!(400)]);
    for action in ["HeartBeat", "Ping"] {
        assert_eq!(robot.ask(called(action, &json!({}))).await["Code"], 0);
    }
    assert_eq!(server.metrics().await.sum("tidegate_gateway_connections"), 1, "it moved and left nothing behind");
}

/// What follows Login in the same segment belongs to the user it named.
#[tokio::test]
async fn what_comes_with_login_is_not_lost() {
    let server = Server::serve(&[MODULE_ACTION]).await;
    let mut raw = Raw::connect(server.clients()).await;
    raw.write(get_request("/ws", "").as_bytes()).await.expect("the socket is open");
    raw.head().await.expect("a 101");
    let login = called("Login", &json!({"UserId": "abc"})).to_string();
    let join = json!({"type": "JOIN", "id": 1, "data": {"room": "r"}}).to_string();
    let ping = json!({"type": "PING", "id": 2}).to_string();
    let bytes: Vec<u8> = [&login, &join, &ping].into_iter().flat_map(|text| masked(0x81, text.as_bytes())).collect();

    raw.write(&bytes).await.expect("the socket is open");

    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "PONG") {
        let (_, payload) = raw.frame(support::PATIENCE).await.expect("an answer to each");
        let message: Value = serde_json::from_slice(&payload).expect("JSON");
        kinds.push(message["type"].as_str().or(message["Action"].as_str()).expect("a kind").to_owned());
    }
    assert_eq!(kinds, ["HELLO", "Login", "HELLO", "JOINED", "PONG"]);
}

#[tokio::test]
async fn login_comes_before_rooms() {
    let server = Server::serve(&[MODULE_ACTION]).await;
    let mut robot = Client::connect(server.clients()).await;
    robot.join("r").await;

    let answer = robot.ask(called("Login", &json!({"UserId": "abc"}))).await;

    assert_eq!(answer["Code"], 409, "{answer}");
}

#[tokio::test]
async fn a_bare_message_reaches_the_user_it_names() {
    let server = Server::serve(&[USER_DATA]).await;
    let mut one = Client::open(server.clients(), "/chat?user_id=1", None).await;
    let mut two = Client::open(server.clients(), "/chat?user_id=2", None).await;
    assert_eq!((&one.hello["user"], &two.hello["user"]), (&json!("1"), &json!("2")));

    one.say(json!({"user_id": 2, "data": "haha"})).await;

    assert_eq!(one.expect("SENT").await["id"].as_str().map(str::len), Some(26));
    let heard = two.items(1).await;
    assert_eq!((&heard[0]["from"], &heard[0]["data"]), (&json!("1"), &json!("haha")));
}

/// Off by default: such messages are no messages, and `/chat` is no path.
#[tokio::test]
async fn dialects_are_not_understood_unless_told() {
    let server = Server::serve(&[]).await;
    let mut client = Client::connect(server.clients()).await;

    let first = client.ask(called("Ping", &json!({}))).await;
    let second = client.ask(json!({"user_id": 2, "data": "haha"})).await;
    let mut raw = Raw::connect(server.clients()).await;
    raw.write(get_request("/chat?user_id=1", "").as_bytes()).await.expect("the socket is open");

    assert_eq!([&first["data"]["code"], &second["data"]["code"]], [&json!("bad_json"), &json!("bad_json")]);
    assert!(raw.head().await.expect("an answer").starts_with("HTTP/1.1 404"));
}
