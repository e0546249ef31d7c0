//! The walk of a push over real sockets: targets, receipts, batching, dedupe, waiting, batches, go-push's forms.

mod support;

use serde_json::{Value, json};
use support::{FakeGateway, call, config, get, node, node_with, post, until};
use tidegate_protocol::records::{self, Lane, Outcome, target};

fn room_push(room: &str) -> String {
    json!({"to": {"room": room}, "messages": [1]}).to_string()
}

fn rooms_of(gateway: &FakeGateway) -> Vec<String> {
    let state = gateway.state.lock();
    let targets = state.applied.iter().flat_map(|p| &p.targets);
    targets
        .filter_map(|t| match &t.to {
            Some(target::To::Room(room)) => Some(room.clone()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_push_reaches_the_gateway_as_written_and_its_receipt_comes_back() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    let logic = node(&[&gateway]).await;

    let body = r#" {"to":{"room":"r","platform":["web"],"except":{"users":["u"]}}, "lane":"urgent", "ttl_ms":5000,
                    "messages":[ {"b" : 1.50,"a":"\u00e9"} , null, 1e2 ] } "#;
    let reply = post(&logic, "/v1/push", body).await;

    assert_eq!(reply.status, 202, "{}", reply.text());
    assert_eq!(reply.json["id"].as_str().map(str::len), Some(26));
    assert_eq!(reply.json["gateways"], json!({"sent": 1, "failed": []}));
    assert_eq!((&reply.json["matched"], &reply.json["queued"]), (&json!(1), &json!(1)));
    assert_eq!(reply.json["dropped"], json!({}));
    let state = gateway.state.lock();
    let push = &state.applied[0];
    let messages: Vec<&[u8]> = push.messages.iter().map(|m| m.as_ref()).collect();
    assert_eq!(messages, [br#"{"b" : 1.50,"a":"\u00e9"}"# as &[u8], b"null", b"1e2"]);
    assert_eq!((push.lane(), push.ttl_ms), (Lane::Urgent, 5_000));
    let narrow = push.narrow.clone().expect("narrowed");
    assert_eq!((narrow.platforms, narrow.except_users), (vec!["web".to_owned()], vec!["u".to_owned()]));
}

#[tokio::test]
async fn a_room_push_goes_only_to_the_gateway_that_has_the_room() {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    a.join("here");
    b.join("there");
    let logic = node(&[&a, &b]).await;

    let here = post(&logic, "/v1/push", room_push("here")).await;
    let nowhere = post(&logic, "/v1/push", room_push("nowhere")).await;
    let all = post(&logic, "/v1/push", r#"{"to":{"all":true},"message":0}"#).await;

    assert_eq!(here.json["gateways"]["sent"], 1);
    assert_eq!(nowhere.status, 202);
    assert_eq!((&nowhere.json["gateways"]["sent"], &nowhere.json["matched"]), (&json!(0), &json!(0)));
    assert_eq!(all.json["gateways"]["sent"], 2);
    assert_eq!(rooms_of(&a), ["here"]);
    assert_eq!(rooms_of(&b), Vec::<String>::new());
    let metrics = get(&logic, "/metrics").await.text();
    assert!(metrics.contains(&format!("tidegate_backplane_pushes_total{{gateway=\"{}\"}} 1\n", b.name())), "{metrics}");
}

/// Rule R-4: JOINED is held until logic has acknowledged the interest, so acknowledged means applied.
#[tokio::test]
async fn a_push_after_the_acknowledgement_of_a_join_finds_the_room() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;

    for i in 0..20 {
        let room = format!("r{i}");
        gateway.acked(gateway.join(&room)).await;
        let reply = post(&logic, "/v1/push", room_push(&room)).await;
        assert_eq!(reply.json["matched"], 1, "{room}");
        gateway.acked(gateway.leave(&room)).await;
        let reply = post(&logic, "/v1/push", room_push(&room)).await;
        assert_eq!(reply.json["gateways"]["sent"], 0, "{room}");
    }
}

#[tokio::test]
async fn a_snapshot_of_many_pages_is_whole() {
    let gateway = FakeGateway::start(1).await;
    gateway.state.lock().page = 7;
    for i in 0..50 {
        gateway.join(&format!("r{i}"));
    }
    gateway.connect_user("u");
    let logic = node(&[&gateway]).await;

    let reply = post(&logic, "/v1/push", r#"{"to":{"user":"u"},"message":0}"#).await;
    assert_eq!(reply.json["matched"], 1);
    let reply = post(&logic, "/v1/push", room_push("r49")).await;
    assert_eq!(reply.json["matched"], 1);
    assert_eq!(post(&logic, "/v1/push", room_push("r50")).await.json["gateways"]["sent"], 0);
}

#[tokio::test]
async fn what_arrives_while_a_batch_is_in_flight_becomes_the_next_batch() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    let logic = node(&[&gateway]).await;
    let addr = logic.api_addr();
    gateway.close_gate();
    let send = || tokio::spawn(call(addr, "POST", "/v1/push", &[("content-type", "application/json")], room_push("r")));
    let first = send();
    until(|| async { gateway.state.lock().received.len() == 1 }).await;

    let others: Vec<_> = (0..20).map(|_| send()).collect();
    let queued = format!("tidegate_backplane_queue_pushes{{gateway=\"{}\"}} 20\n", gateway.name());
    until(|| async { get(&logic, "/metrics").await.text().contains(&queued) }).await;
    gateway.open_gate();

    assert_eq!(first.await.expect("answer").status, 202);
    for other in others {
        assert_eq!(other.await.expect("answer").status, 202);
    }
    let sizes: Vec<usize> = gateway.state.lock().received.iter().map(|b| b.pushes.len()).collect();
    assert_eq!(sizes, [1, 20]);
    let sequences: Vec<u64> = gateway.state.lock().received.iter().map(|b| b.sequence).collect();
    assert_eq!(sequences, [1, 2]);
}

#[tokio::test]
async fn a_repeated_dedupe_key_does_nothing_and_returns_the_first_receipt() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    let logic = node(&[&gateway]).await;
    let addr = logic.api_addr();
    let body = r#"{"to":{"room":"r"},"message":1,"dedupe":"k"}"#;
    let send = || tokio::spawn(call(addr, "POST", "/v1/push", &[("content-type", "application/json")], body));
    gateway.close_gate();
    let (first, second) = (send(), send());
    until(|| async { gateway.state.lock().received.len() == 1 }).await;
    gateway.open_gate();

    let (first, second) = (first.await.expect("answer"), second.await.expect("answer"));
    let third = post(&logic, "/v1/push", body).await;

    assert_eq!((first.status, &first.json), (second.status, &second.json));
    assert_eq!(first.json, third.json);
    assert_eq!(gateway.state.lock().applied.len(), 1);
}

/// The publisher's connection breaks before the answer; its retry must not push again.
#[tokio::test]
async fn a_publisher_that_hung_up_finds_its_receipt_on_retry() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    let logic = node(&[&gateway]).await;
    let body = r#"{"to":{"room":"r"},"message":1,"dedupe":"k"}"#;
    gateway.close_gate();
    let addr = logic.api_addr();
    let lost = tokio::spawn(call(addr, "POST", "/v1/push", &[("content-type", "application/json")], body));
    until(|| async { gateway.state.lock().received.len() == 1 }).await;
    lost.abort();
    let _ = lost.await;
    gateway.open_gate();

    let retry = post(&logic, "/v1/push", body).await;

    assert_eq!((retry.status.as_u16(), &retry.json["matched"]), (202, &json!(1)));
    assert_eq!(gateway.state.lock().applied.len(), 1);
}

#[tokio::test]
async fn waiting_until_written_adds_what_became_of_it() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    let dropped = vec![records::Dropped { reason: "slow".into(), count: 2 }];
    gateway.state.lock().outcome = Outcome { ticket: 0, is_done: true, written: 5, pending: 1, dropped };
    let logic = node(&[&gateway]).await;
    let body = r#"{"to":{"room":"r"},"message":1,"wait":"written","timeout_ms":300}"#;

    let done = post(&logic, "/v1/push", body).await;
    gateway.state.lock().outcome.is_done = false;
    let late = post(&logic, "/v1/push", body).await;

    assert_eq!(done.status, 200);
    assert_eq!((&done.json["written"], &done.json["pending"]), (&json!(5), &json!(1)));
    assert_eq!((&done.json["dropped"], &done.json["timed_out"]), (&json!({"slow": 2}), &json!(false)));
    assert_eq!((late.status.as_u16(), &late.json["timed_out"]), (200, &json!(true)));
}

#[tokio::test]
async fn one_bad_push_of_a_batch_fails_alone() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    let logic = node(&[&gateway]).await;
    let good = json!({"to": {"room": "r"}, "message": 1});
    let bad = json!({"to": {"room": "r"}, "message": 1, "lain": "urgent"});

    let body = json!({"pushes": [good, bad, good]}).to_string();
    let reply = post(&logic, "/v1/push/batch", body).await;

    assert_eq!(reply.status, 202);
    let receipts = reply.json["receipts"].as_array().expect("list").clone();
    assert_eq!(receipts.len(), 3);
    assert_eq!((&receipts[0]["matched"], &receipts[2]["matched"]), (&json!(1), &json!(1)));
    assert_eq!(receipts[1]["code"], "unknown_field");
    assert_eq!(receipts[1]["errors"][0]["pointer"], "/pushes/1/lain");
    assert_eq!(gateway.state.lock().applied.len(), 2);
}

/// Rule M-4, and more lines than may be on their way at once.
#[tokio::test]
async fn ndjson_is_pushed_line_by_line_in_order() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    let logic = node(&[&gateway]).await;
    let mut body = String::new();
    for i in 0..3_000 {
        body.push_str(&json!({"to": {"room": "r"}, "message": i}).to_string());
        body.push_str(if i % 3 == 0 { "\r\n\n" } else { "\n" });
    }
    body.push_str("{nonsense\n");
    body.push_str(&room_push("r"));

    let headers = [("content-type", "application/x-ndjson; charset=utf-8")];
    let reply = call(logic.api_addr(), "POST", "/v1/push/batch", &headers, body).await;

    assert_eq!(reply.status, 202);
    let text = reply.text();
    let items: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(items.len(), 3_002);
    assert!(items.iter().enumerate().all(|(i, item)| (i == 3_000) != (item["matched"] == 1)));
    assert_eq!(items[3_000]["code"], "bad_json");
    let state = gateway.state.lock();
    let applied: Vec<String> =
        state.applied.iter().map(|p| String::from_utf8_lossy(&p.messages[0]).into_owned()).collect();
    let wanted: Vec<String> = (0..3_000).map(|i| i.to_string()).chain(["1".to_owned()]).collect();
    assert_eq!(applied, wanted);
    assert!(state.received.len() < 3_000, "lines are batched");
}

/// go-push's README: `curl -X POST …/push/room -d 'items=[…]' -d 'room=…'`.
#[tokio::test]
async fn go_push_forms_push() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("chrome-plugin");
    let logic = node(&[&gateway]).await;
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let form = |path: &'static str, body: &'static str| call(logic.api_addr(), "POST", path, &headers, body);

    let all = form("/push/all", r#"items=[{"name":"hello"},2]"#).await;
    let room = form("/push/room", r#"items=%5B%22a%2Bb+c%22%5D&room=chrome-plugin"#).await;

    assert_eq!((all.status.as_u16(), room.status.as_u16()), (202, 202), "{} {}", all.text(), room.text());
    assert_eq!(room.json["matched"], 1);
    let applied = gateway.state.lock().applied.clone();
    assert_eq!(applied[0].messages, [&br#"{"name":"hello"}"#[..], b"2"]);
    assert_eq!(applied[1].messages, [&br#""a+b c""#[..]]);
    for (path, body) in
        [("/push/all", "items=x"), ("/push/all", "room=r"), ("/push/room", "items=[1]"), ("/push/all", "items=[]")]
    {
        let reply = form(path, body).await;
        assert!(reply.status.is_client_error(), "{path} {body}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_full_queue_is_named_and_every_queue_full_is_503() {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    let mut config = config();
    config.backplane.queue_pushes = 1;
    let logic = node_with(config, &[&a, &b]).await;
    let addr = logic.api_addr();
    let send = || {
        call(addr, "POST", "/v1/push", &[("content-type", "application/json")], r#"{"to":{"all":true},"message":1}"#)
    };
    a.close_gate();
    let in_flight = tokio::spawn(send());
    until(|| async { a.state.lock().received.len() == 1 }).await;
    let waiting = tokio::spawn(send());
    until(|| async { b.state.lock().received.len() == 2 }).await;

    let partial = send().await;
    assert_eq!(partial.status, 202);
    assert_eq!(partial.json["gateways"]["failed"], json!([{"gateway": a.name(), "reason": "overloaded"}]));
    assert_eq!(partial.json["gateways"]["sent"], 1);

    b.close_gate();
    let third = tokio::spawn(send());
    until(|| async { b.state.lock().received.len() == 4 }).await;
    let fourth = tokio::spawn(send());
    let queued = format!("tidegate_backplane_queue_pushes{{gateway=\"{}\"}} 1\n", b.name());
    until(|| async { get(&logic, "/metrics").await.text().contains(&queued) }).await;
    let refused = send().await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "queues_full"));
    assert_eq!(refused.headers["retry-after"], "1");
    a.open_gate();
    b.open_gate();
    for task in [in_flight, waiting, third, fourth] {
        assert_eq!(task.await.expect("answer").status, 202);
    }
}

/// HTTP/2 on the same port: the same walk.
#[tokio::test]
async fn a_push_over_http2_is_a_push() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    let logic = node(&[&gateway]).await;
    let stream = tokio::net::TcpStream::connect(logic.api_addr()).await.expect("connect");
    let (send, connection) = h2::client::handshake(stream).await.expect("handshake");
    tokio::spawn(connection);

    let uri = format!("http://{}/v1/push", logic.api_addr());
    let request = http::Request::post(uri).header("content-type", "application/json").body(()).expect("request");
    let (response, mut body) = send.ready().await.expect("ready").send_request(request, false).expect("sent");
    body.send_data(room_push("r").into(), true).expect("sent");
    let (head, mut body) = response.await.expect("answer").into_parts();

    assert_eq!(head.status, 202);
    let receipt: Value = serde_json::from_slice(&body.data().await.expect("data").expect("data")).expect("JSON");
    assert_eq!(receipt["matched"], 1);
}
