//! What a client may say, and what it hears when that is refused: joining, leaving, pings, malformed messages.

mod support;

use serde_json::{Value, json};
use support::{Client, Event, Server};

/// Rules.
#[tokio::test]
async fn joining_is_answered_per_room() {
    let server = Server::serve(&[]).await;
    let mut client = Client::connect(server.clients()).await;
    let longest = "x".repeat(128);
    let rooms = json!(["a", "", "x".repeat(129), "tab\there", longest, "zimmer-ü"]);

    let answer = client.ask(json!({"type": "JOIN", "id": "j", "data": {"rooms": rooms}})).await;
    let again = client.join("a").await;

    assert_eq!((&answer["type"], &answer["id"]), (&json!("JOINED"), &json!("j")));
    let parts = answer["data"]["rooms"].as_array().expect("rooms are an array (rule R-1)");
    let codes: Vec<&str> = parts.iter().map(|part| part["error"]["code"].as_str().unwrap_or("ok")).collect();
    assert_eq!(codes, ["ok", "invalid", "invalid", "invalid", "ok", "ok"]);
    assert_eq!(parts[0]["online"], 1);
    assert!(parts[0]["epoch"].is_string() && parts[0]["seq"].is_u64(), "{}", parts[0]);
    assert_eq!(again["online"], 1, "joining twice is fine, and counted once");
}

/// Rule R-3.
#[tokio::test]
async fn one_room_too_many_is_refused_and_the_others_stay() {
    let server = Server::serve(&[("TIDEGATE_GATEWAY__LIMITS__ROOMS", "3")]).await;
    let mut client = Client::connect(server.clients()).await;
    for room in ["a", "b", "c"] {
        client.join(room).await;
    }

    let refused = client.join("d").await;
    client.ask(json!({"type": "LEAVE", "data": {"room": "a"}})).await;
    let fits = client.join("d").await;

    assert_eq!(client.hello["limits"]["rooms"], 3);
    assert_eq!(refused["error"]["code"], "limit", "{refused}");
    assert_eq!(fits["error"], Value::Null, "{fits}");
}

/// Rule R-2.
#[tokio::test]
async fn leaving_a_room_not_joined_is_an_error() {
    let server = Server::serve(&[]).await;
    let mut client = Client::connect(server.clients()).await;

    let answer = client.ask(json!({"type": "LEAVE", "id": 3, "data": {"room": "elsewhere"}})).await;

    assert_eq!((&answer["type"], &answer["id"]), (&json!("ERROR"), &json!(3)));
    assert_eq!(answer["data"]["code"], "not_in_room");
    assert_eq!(answer["data"]["retryable"], false);
}

/// Rule L-1.
#[tokio::test]
async fn a_ping_comes_back_with_its_data() {
    let server = Server::serve(&[]).await;
    let mut client = Client::connect(server.clients()).await;

    let pong = client.ask(json!({"type": "PING", "id": 5, "data": {"sent": 17, "who": "ü"}})).await;

    assert_eq!((&pong["type"], &pong["id"]), (&json!("PONG"), &json!(5)));
    assert_eq!((&pong["data"]["sent"], &pong["data"]["who"]), (&json!(17), &json!("ü")));
    assert!(pong["data"]["time_ms"].as_u64() > Some(1_700_000_000_000), "{pong}");
}

/// Rule L-1, RFC 6455 section 5.5.3.
#[tokio::test]
async fn a_websocket_ping_is_answered_with_its_payload() {
    let server = Server::serve(&[]).await;
    let mut client = Client::connect(server.clients()).await;

    for payload in [&b""[..], b"hello", &[0xff; 125]] {
        client.ping(payload).await;
        assert_eq!(client.next().await.event, Event::Pong(payload.to_vec()));
    }
}

/// The head of the protocol: the connection stays.
#[tokio::test]
async fn an_unknown_type_is_an_error_and_the_connection_stays() {
    let server = Server::serve(&[]).await;
    let mut client = Client::connect(server.clients()).await;

    for number in 0..5 {
        let answer = client.ask(json!({"type": "FLY", "id": number})).await;
        assert_eq!((&answer["type"], &answer["id"]), (&json!("ERROR"), &json!(number)));
        assert_eq!(answer["data"]["code"], "unknown_type");
    }
    client.join("still-here").await;
}

/// Rule E-1.
#[tokio::test]
async fn three_malformed_messages_in_a_row_close_3501() {
    let server = Server::serve(&[]).await;
    let mut client = Client::connect(server.clients()).await;

    for _ in 0..3 {
        client.send("{").await;
    }

    for _ in 0..2 {
        assert_eq!(client.expect("ERROR").await["code"], "bad_json");
    }
    let ending = client.ending().await.event;
    assert!(matches!(&ending, Event::Closed(3501, reason) if reason.contains("bad_json")), "{ending:?}");
}

/// Rule E-1: in a row.
#[tokio::test]
async fn a_good_message_in_between_forgives_the_malformed_ones() {
    let server = Server::serve(&[]).await;
    let mut client = Client::connect(server.clients()).await;

    for _ in 0..3 {
        for bad in ["[", "\"text\""] {
            client.send(bad).await;
            assert_eq!(client.expect("ERROR").await["code"], "bad_json");
        }
        assert_eq!(client.ask(json!({"type": "PING"})).await["type"], "PONG");
    }
}

/// Rule E-1.
#[tokio::test]
async fn known_types_with_wrong_data_are_named_errors() {
    let server = Server::serve(&[]).await;
    let mut client = Client::connect(server.clients()).await;

    for (number, data) in [json!({}), json!({"rooms": []}), json!([]), json!({"room": 7})].iter().enumerate() {
        let answer = client.ask(json!({"type": "JOIN", "id": number, "data": data})).await;
        assert_eq!((&answer["type"], &answer["id"]), (&json!("ERROR"), &json!(number)));
        assert_eq!(answer["data"]["code"], "bad_data", "{data}");
    }
}
