//! What every client may expect wherever it connects: a set of checks that is a function of the way in, so that it can be run
//! directly, over TLS and through proxies alike. Each check has connections of its own; none looks at a socket.

use serde_json::{Value, json};

use super::{Api, Client, Event};

/// Runs every check. `connect` opens a client at a path with a query, `api` is the way of a service.
pub async fn clients_are_served(connect: impl AsyncFn(String) -> Client, api: &mut Api) {
    requests_are_answered(&connect).await;
    rooms_get_what_is_theirs(&connect, api).await;
    users_and_connections_get_what_is_theirs(&connect, api).await;
    messages_keep_their_order_and_size(&connect, api).await;
    closes_are_answered(&connect).await;
}

/// Rules C-5, L-1, R-1 to R-3.
async fn requests_are_answered(connect: &impl AsyncFn(String) -> Client) {
    let mut client = connect("/ws?user=suite-asker&platform=web".into()).await;
    assert_eq!(client.hello["user"], "suite-asker");

    let pong = client.ask(json!({"type": "PING", "id": 7, "data": {"sent": 1}})).await;
    assert_eq!((&pong["type"], &pong["id"], &pong["data"]["sent"]), (&json!("PONG"), &json!(7), &json!(1)));
    client.ping(b"suite").await;
    assert_eq!(client.next().await.event, Event::Pong(b"suite".to_vec()));
    let error = client.ask(json!({"type": "LEAVE", "id": 8, "data": {"room": "suite-nowhere"}})).await;
    assert_eq!((&error["type"], &error["data"]["code"]), (&json!("ERROR"), &json!("not_in_room")));
    let error = client.ask(json!({"type": "FLY", "id": 9})).await;
    assert_eq!(error["data"]["code"], "unknown_type");
}

/// Rules, M-1.
async fn rooms_get_what_is_theirs(connect: &impl AsyncFn(String) -> Client, api: &mut Api) {
    let (mut inside, mut outside) = (connect("/ws".into()).await, connect("/connect".into()).await);
    inside.join("suite-a").await;
    outside.join("suite-b").await;

    let receipt = api.push_room("suite-a", json!("for a")).await;
    assert_eq!(receipt["matched"], 1, "{receipt}");
    api.push_room("suite-b", json!("for b")).await;
    assert_eq!(inside.items(1).await, [json!("for a")]);
    assert_eq!(outside.items(1).await, [json!("for b")]);
    let left = inside.ask(json!({"type": "LEAVE", "id": 1, "data": {"room": "suite-a"}})).await;
    assert_eq!(left["type"], "LEFT", "{left}");
    assert_eq!(api.push_room("suite-a", json!("nobody")).await["matched"], 0);
}

/// Targets of http-api.md other than rooms.
async fn users_and_connections_get_what_is_theirs(connect: &impl AsyncFn(String) -> Client, api: &mut Api) {
    let mut phone = connect("/ws?user=suite-ann&platform=ios".into()).await;
    let mut page = connect("/ws?user=suite-ann&platform=web".into()).await;

    let receipt = api.push(json!({"to": {"user": "suite-ann"}, "message": "both"})).await;
    assert_eq!(receipt["matched"], 2, "{receipt}");
    api.push(json!({"to": {"connection": page.id()}, "message": "the page"})).await;
    assert_eq!(phone.items(1).await, [json!("both")]);
    assert_eq!(page.items(2).await, [json!("both"), json!("the page")]);
    let rows = api.get("/v1/connections?user=suite-ann").await.json();
    assert_eq!(rows["connections"].as_array().map(Vec::len), Some(2), "{rows}");
}

/// Rule M-4.
async fn messages_keep_their_order_and_size(connect: &impl AsyncFn(String) -> Client, api: &mut Api) {
    const MESSAGES: usize = 60;
    let mut client = connect("/ws".into()).await;
    client.join("suite-order").await;
    let long = "x".repeat(60_000);

    for number in 0..MESSAGES {
        api.push_room("suite-order", json!(number)).await;
    }
    api.push_room("suite-order", json!(long)).await;
    let items = client.items(MESSAGES + 1).await;
    let due: Vec<Value> = (0..MESSAGES).map(|number| json!(number)).chain([json!(long)]).collect();
    assert!(items == due, "in order and whole");
    // And as much the other way.
    let pong = client.ask(json!({"type": "PING", "data": {"long": long}})).await;
    assert_eq!(pong["data"]["long"].as_str().map(str::len), Some(long.len()));
}

/// RFC 6455 section 7.1.
async fn closes_are_answered(connect: &impl AsyncFn(String) -> Client) {
    let mut client = connect("/ws".into()).await;
    client.close(1000).await;
    assert!(matches!(client.ending().await.event, Event::Closed(1000, _)), "a close is answered with its code");
}
