//! From the push API to the client, in one process: who gets what, in which order, and what the receipt says.
//! Rules are those of docs/protocol.md; refusals to join and malformed input are in `rooms.rs`.

mod support;

use serde_json::{Value, json};
use support::{Client, Event, PATIENCE, Ranges, Server};

/// A window so long that what waits for it is told apart from what does not.
const LONG_WINDOW: [(&str, &str); 2] =
    [("TIDEGATE_GATEWAY__MERGE__MIN_MS", "1000"), ("TIDEGATE_GATEWAY__MERGE__MAX_MS", "1000")];

/// Rule C-5.
#[tokio::test]
async fn hello_names_the_connection_the_user_and_the_limits() {
    let server = Server::serve(&[]).await;

    let client = Client::named(server.clients(), "ann", "ios").await;

    assert!(!client.id().is_empty());
    assert_eq!(client.hello["user"], "ann");
    assert!(client.hello["limits"]["message_bytes"].as_u64() > Some(0), "{}", client.hello);
    assert!(client.hello["limits"]["rooms"].as_u64() > Some(0), "{}", client.hello);
    assert!(client.hello["reconnect"]["base_ms"].as_u64() > Some(0), "{}", client.hello);
}

/// Rule M-1.
#[tokio::test]
async fn each_target_reaches_its_connections_and_no_other() {
    let server = Server::serve(&[]).await;
    let mut api = server.connect_api().await;
    let mut ann = Client::named(server.clients(), "ann", "ios").await;
    let mut bob = Client::named(server.clients(), "bob", "web").await;
    let mut bob_too = Client::named(server.clients(), "bob", "android").await;
    ann.join("red").await;
    bob.join("red").await;
    bob_too.join("blue").await;
    let targets = [
        (json!({"all": true}), [1, 1, 1]),
        (json!({"room": "red"}), [1, 1, 0]),
        (json!({"rooms": ["red", "blue"]}), [1, 1, 1]),
        (json!({"rooms": ["blue"]}), [0, 0, 1]),
        (json!({"user": "bob"}), [0, 1, 1]),
        (json!({"users": ["ann", "bob"]}), [1, 1, 1]),
        (json!({"users": ["nobody"]}), [0, 0, 0]),
        (json!({"room": "empty"}), [0, 0, 0]),
        (json!({"connection": bob_too.id()}), [0, 0, 1]),
        (json!({"connections": [ann.id(), bob.id()]}), [1, 1, 0]),
        (json!({"all": true, "platform": ["ios", "web"]}), [1, 1, 0]),
        (json!({"room": "red", "except": {"users": ["ann"]}}), [0, 1, 0]),
        (json!({"user": "bob", "except": {"connections": [bob.id()]}}), [0, 0, 1]),
        (json!({"user": "bob", "platform": ["android"]}), [0, 0, 1]),
    ];

    for (number, (to, due)) in targets.iter().enumerate() {
        let receipt = api.push(json!({"to": to, "messages": [number]})).await;
        assert_eq!(receipt["matched"], due.iter().sum::<i32>(), "{to}: {receipt}");
    }
    api.push(json!({"to": {"all": true}, "messages": ["end"]})).await;

    for (who, client) in [&mut ann, &mut bob, &mut bob_too].into_iter().enumerate() {
        let due: Vec<u64> = (0u64..).zip(&targets).filter(|(_, (_, due))| due[who] == 1).map(|(n, _)| n).collect();
        let mut got: Vec<u64> = Vec::new();
        let mut is_over = false;
        while !is_over || got.len() < due.len() {
            for item in client.items(1).await {
                is_over |= item == "end";
                got.extend(item.as_u64());
            }
        }
        // Order holds within a target (M-4), not between targets.
        got.sort_unstable();
        assert_eq!(got, due, "client {who}");
    }
}

/// Rule M-1.
#[tokio::test]
async fn a_push_says_to_whom_it_was_sent() {
    let server = Server::serve(&[]).await;
    let mut api = server.connect_api().await;
    let mut ann = Client::named(server.clients(), "ann", "ios").await;
    let joined = ann.join("red").await;

    api.push(json!({"to": {"room": "red"}, "message": 1})).await;
    let to_room = ann.expect("PUSH").await;
    api.push(json!({"to": {"user": "ann"}, "message": 2})).await;
    let to_user = ann.expect("PUSH").await;

    assert_eq!(to_room["room"], "red");
    assert_eq!(to_room["epoch"], joined["epoch"]);
    let first = joined["seq"].as_u64().expect("JOINED.seq is a number (rule R-1)") + 1;
    assert_eq!(to_room["seq"], json!([first, first]));
    assert_eq!(to_user["user"], true);
    assert_eq!(to_user["room"], Value::Null);
}

/// Rule M-1.
#[tokio::test]
async fn items_arrive_byte_for_byte() {
    let messages = [
        r#"{"b":1,"a":{"x":[1.0,1e2,-0,12345678901234567890123]}}"#,
        r#""\u00fc\/\ud83d\ude00 ü 😀""#,
        r#""<\u2028>""#,
        "null",
        "[]",
        "\"\"",
    ];
    let server = Server::serve(&[]).await;
    let mut api = server.connect_api().await;
    let mut client = Client::connect(server.clients()).await;
    client.join("r").await;

    for message in messages {
        let answer = api.post("/v1/push", format!(r#"{{"to":{{"room":"r"}},"messages":[{message}]}}"#)).await;
        assert_eq!(answer.status, 202, "{message}: {}", answer.text());
        let text = client.next_text().await;
        assert!(text.ends_with(&format!(r#""items":[{message}]}}}}"#)), "{message} became {text}");
    }
}

/// Rules M-1 and M-2: one frame for what came together.
#[tokio::test]
async fn messages_inside_a_window_leave_in_one_frame() {
    let server = Server::serve(&LONG_WINDOW).await;
    let mut api = server.connect_api().await;
    let mut client = Client::connect(server.clients()).await;
    client.join("r").await;
    api.push_room("r", json!(0)).await;
    assert_eq!(client.items(1).await, [json!(0)], "an idle room flushes at once");

    for number in 1..=20 {
        api.push_room("r", json!(number)).await;
    }

    let merged = client.expect("PUSH").await;
    assert_eq!(merged["items"].as_array().map(Vec::len), Some(20), "{merged}");
}

/// Lane `urgent` (architecture, section 5) and rule M-2.
#[tokio::test]
async fn urgent_leaves_at_once_and_keeps_the_numbering() {
    let server = Server::serve(&LONG_WINDOW).await;
    let mut api = server.connect_api().await;
    let mut client = Client::connect(server.clients()).await;
    let mut ranges = Ranges::after(&client.join("r").await);
    let mut others = Ranges::after(&client.join("other").await);
    let to = |room: &str, message: &str| json!({"to": {"room": room}, "message": message});
    let urgent = json!({"to": {"room": "r"}, "message": "now", "lane": "urgent"});

    // The first of a room leaves and opens its window, for whose end the second waits.
    let pushes = [to("other", "first"), to("other", "waits"), to("r", "first"), to("r", "waits"), urgent];
    let answer = api.post("/v1/push/batch", json!({"pushes": pushes}).to_string()).await;

    assert!((200..300).contains(&answer.status), "{}", answer.text());
    loop {
        let text = client.next_text().await;
        assert!(ranges.take(&text) || others.take(&text), "numbers grow whatever the lane (rule M-2): {text}");
        assert!(others.received < 2, "urgent passes what waits for a window's end");
        if text.contains("now") {
            break;
        }
    }
    while ranges.received < 3 || others.received < 2 {
        let text = client.next_text().await;
        assert!(ranges.take(&text) || others.take(&text), "{text}");
    }
}

/// `ttl_ms` and rule M-3.
#[tokio::test]
async fn a_message_past_its_ttl_is_not_delivered_and_takes_no_number() {
    let server = Server::serve(&LONG_WINDOW).await;
    let mut api = server.connect_api().await;
    let mut client = Client::connect(server.clients()).await;
    let joined = client.join("r").await;
    let mut ranges = Ranges::after(&joined);
    api.push_room("r", json!("opens the window")).await;
    ranges.take(&client.next_text().await);

    api.push(json!({"to": {"room": "r"}, "message": "stale", "ttl_ms": 1})).await;
    api.push(json!({"to": {"room": "r"}, "message": "fresh", "ttl_ms": 60_000})).await;

    loop {
        let text = client.next_text().await;
        assert!(!text.contains("stale"), "delivered after its ttl: {text}");
        assert!(ranges.take(&text), "numbered: {text}");
        if text.contains("fresh") {
            break;
        }
    }
}

/// `dedupe`.
#[tokio::test]
async fn the_same_dedupe_key_pushes_once_and_repeats_its_receipt() {
    let server = Server::serve(&[]).await;
    let mut api = server.connect_api().await;
    let mut client = Client::connect(server.clients()).await;
    client.join("r").await;
    let push = json!({"to": {"room": "r"}, "message": "once", "dedupe": "order-7"});

    let first = api.push(push.clone()).await;
    let second = api.push(push).await;
    let other = api.push(json!({"to": {"room": "r"}, "message": "twice", "dedupe": "order-8"})).await;

    assert_eq!(first, second);
    assert_ne!(first["id"], other["id"]);
    assert_eq!(client.items(2).await, [json!("once"), json!("twice")]);
}

/// `wait`.
#[tokio::test]
async fn wait_written_answers_200_once_every_connection_has_it() {
    let server = Server::serve(&[]).await;
    let mut api = server.connect_api().await;
    let mut client = Client::connect(server.clients()).await;
    client.join("r").await;

    let push = json!({"to": {"room": "r"}, "message": 1, "wait": "written", "timeout_ms": 5_000});
    let written = api.post("/v1/push", push.to_string()).await;
    let accepted = api.post("/v1/push", json!({"to": {"room": "r"}, "message": 2}).to_string()).await;

    assert_eq!(written.status, 200, "{}", written.text());
    assert_eq!(written.json()["written"], 1, "{}", written.text());
    assert_eq!(written.json()["timed_out"], false, "{}", written.text());
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    assert_eq!(client.items(2).await, [json!(1), json!(2)]);
}

/// `POST /v1/push/batch`.
#[tokio::test]
async fn one_bad_push_of_a_batch_fails_alone() {
    let server = Server::serve(&[]).await;
    let mut api = server.connect_api().await;
    let mut client = Client::connect(server.clients()).await;
    client.join("r").await;
    let good = |n: u64| json!({"to": {"room": "r"}, "message": n});
    let bad = json!({"to": {"room": ""}, "message": 0});

    let lines = format!("{}\n{}\nnot json\n{}\n", good(1), bad, good(2));
    let ndjson = api.send("POST", "/v1/push/batch", "application/x-ndjson", lines).await;
    let whole = json!({"pushes": [good(3), bad, good(4)]});
    let array = api.post("/v1/push/batch", whole.to_string()).await;

    let receipts = |text: &str| -> Vec<bool> {
        let value: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let lines = || text.lines().map(|l| serde_json::from_str(l).expect("a receipt a line")).collect();
        let list = value["receipts"].as_array().or(value.as_array()).cloned().unwrap_or_else(lines);
        list.iter().map(|receipt| receipt["id"].is_string()).collect()
    };
    assert!((200..300).contains(&ndjson.status), "{} {}", ndjson.status, ndjson.text());
    assert_eq!(receipts(&ndjson.text()), [true, false, false, true], "{}", ndjson.text());
    assert_eq!(receipts(&array.text()), [true, false, true], "{}", array.text());
    assert_eq!(client.items(4).await, [json!(1), json!(2), json!(3), json!(4)]);
}

/// Rule R-4: fresh rooms, so that nothing is known of them before.
#[tokio::test]
async fn a_push_right_after_joined_reaches_the_client() {
    let server = Server::serve(&[("TIDEGATE_GATEWAY__LIMITS__ROOMS", "1000")]).await;
    let mut api = server.connect_api().await;
    let mut client = Client::connect(server.clients()).await;

    for number in 0..200 {
        let room = format!("fresh-{number}");
        client.join(&room).await;
        let receipt = api.push_room(&room, json!(number)).await;
        assert_eq!(receipt["matched"], 1, "{room}: {receipt}");
        assert_eq!(client.items(1).await, [json!(number)]);
    }
}

/// Rules C-4 and R-4, for a user.
#[tokio::test]
async fn a_push_to_a_user_right_after_hello_reaches_the_client() {
    let server = Server::serve(&[]).await;
    let mut api = server.connect_api().await;

    for number in 0..50 {
        let user = format!("user-{number}");
        let mut client = Client::named(server.clients(), &user, "web").await;
        let receipt = api.push(json!({"to": {"user": user}, "message": number})).await;
        assert_eq!(receipt["matched"], 1, "{user}: {receipt}");
        assert_eq!(client.items(1).await, [json!(number)]);
    }
}

/// Rules M-2 and M-4.
#[tokio::test]
async fn a_thousand_pushes_on_one_connection_arrive_in_order_and_without_holes() {
    let server = Server::serve(&[]).await;
    let mut api = server.connect_api().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(server.clients()).await;
        let joined = client.join("r").await;
        clients.push((client, Ranges::after(&joined)));
    }

    for number in 0..1_000 {
        api.push_room("r", json!(number)).await;
    }

    for (client, ranges) in &mut clients {
        let mut due = 0u64;
        while due < 1_000 {
            let text = client.next_text().await;
            assert!(ranges.take(&text), "{text}");
            let push: Value = serde_json::from_str(&text).expect("a PUSH is JSON");
            for item in push["data"]["items"].as_array().expect("items are an array") {
                assert_eq!(item.as_u64(), Some(due), "in order (rule M-4)");
                due += 1;
            }
        }
        assert_eq!((ranges.received, ranges.missing), (1_000, 0));
    }
}

/// Rule R-4, its end.
#[tokio::test]
async fn after_left_nothing_of_the_room_arrives() {
    let server = Server::serve(&[]).await;
    let mut api = server.connect_api().await;
    let mut client = Client::connect(server.clients()).await;
    client.join("r").await;
    api.push_room("r", json!("before")).await;
    assert_eq!(client.items(1).await, [json!("before")]);

    let left = client.ask(json!({"type": "LEAVE", "id": 9, "data": {"room": "r"}})).await;
    let receipt = api.push_room("r", json!("after")).await;
    api.push(json!({"to": {"connection": client.id()}, "message": "end"})).await;

    assert_eq!((&left["type"], &left["id"], &left["data"]["room"]), (&json!("LEFT"), &json!(9), &json!("r")));
    assert_eq!(receipt["matched"], 0, "{receipt}");
    assert_eq!(client.items(1).await, [json!("end")]);
}

/// A connection that ends leaves its rooms.
#[tokio::test]
async fn a_client_that_leaves_is_no_longer_matched() {
    let server = Server::serve(&[]).await;
    let mut api = server.connect_api().await;
    let mut client = Client::named(server.clients(), "ann", "web").await;
    client.join("r").await;

    client.close(1000).await;
    let ending = client.ending().await;

    assert!(matches!(ending.event, Event::Closed(1000, _)), "the close is echoed: {ending:?}");
    support::until("the room to be empty", PATIENCE, async || {
        let receipt = api.push_room("r", json!(1)).await;
        (receipt["matched"] == 0).then_some(())
    })
    .await;
}

/// Refusals of http-api.md that a publisher meets first.
#[tokio::test]
async fn each_bad_push_has_its_problem_code() {
    let server = Server::serve(&[]).await;
    let long = format!(r#"{{"to":{{"all":true}},"messages":["{}"]}}"#, "x".repeat(70_000));
    let many = json!({"to": {"all": true}, "messages": vec![0; 1_001]}).to_string();
    let targets: Vec<String> = (0..10_001).map(|n| n.to_string()).collect();
    let cases = [
        ("{".to_owned(), 400, "bad_json"),
        (r#"{"to":{"all":true}}"#.to_owned(), 422, "missing_field"),
        (r#"{"to":{"all":true},"message":1,"tll_ms":1}"#.to_owned(), 422, "unknown_field"),
        (r#"{"to":{"all":true},"message":1,"lane":"fast"}"#.to_owned(), 422, "bad_value"),
        (long, 413, "message_too_large"),
        (many, 422, "too_many_messages"),
        (json!({"to": {"users": targets}, "message": 1}).to_string(), 422, "too_many_targets"),
        (format!(r#"{{"to":{{"all":true}},"messages":["{}"]}}"#, "x".repeat(1024 * 1024)), 413, "body_too_large"),
    ];

    for (body, status, code) in cases {
        let start: String = body.chars().take(60).collect();
        let answer = server.connect_api().await.post("/v1/push", body).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{start}");
    }
    let mut api = server.connect_api().await;
    let wrong_method = api.get("/v1/push").await;
    assert_eq!(wrong_method.status, 405);
    assert_eq!(wrong_method.headers["allow"], "POST");
    assert_eq!(api.send("POST", "/v1/push", "text/plain", "{}").await.status, 415);
}
