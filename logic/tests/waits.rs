//! What waiting may not do: pushes that wait for slow clients or a slow gateway leave the others their streams, their
//! time and their places.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{FakeGateway, call, config, get, node, node_with, post, until};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn room_push(room: &str) -> String {
    json!({"to": {"room": room}, "message": 1}).to_string()
}

fn waited(room: &str, timeout_ms: u32) -> Value {
    json!({"to": {"room": room}, "message": 1, "wait": "written", "timeout_ms": timeout_ms})
}

/// More waits than a gateway's connection has streams.
#[tokio::test]
async fn waits_leave_streams_for_pushes_interest_and_questions() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    gateway.state.lock().outcome.is_done = false;
    let logic = node(&[&gateway]).await;
    let pushes = vec![waited("r", 3_000); 300];
    let batch = json!({"pushes": pushes}).to_string();
    let waiting = tokio::spawn(call(logic.api_addr(), "POST", "/v1/push/batch", &JSON, batch));
    until(|| async { gateway.state.lock().waits >= 64 }).await;

    assert_eq!(post(&logic, "/v1/push", room_push("r")).await.status, 202);
    gateway.acked(gateway.join("s")).await;
    assert_eq!(get(&logic, "/v1/rooms").await.json["missing"], json!([]));

    assert_eq!(gateway.state.lock().waits, 64, "all this while not one of the waits was over");
    waiting.abort();
}

/// Also those that find no stream before their time is up.
#[tokio::test]
async fn the_waits_of_a_batch_run_side_by_side() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    gateway.state.lock().outcome.is_done = false;
    gateway.state.lock().outcome.pending = 1;
    let logic = node(&[&gateway]).await;
    let mut pushes = vec![waited("r", 200); 200];
    pushes[7] = json!({"nonsense": 1});
    let lines: String = pushes.iter().map(|p| format!("{p}\n")).collect();
    let batch = json!({"pushes": pushes}).to_string();

    let started = Instant::now();
    let document = post(&logic, "/v1/push/batch", batch).await;
    let headers = [("content-type", "application/x-ndjson")];
    let lines = call(logic.api_addr(), "POST", "/v1/push/batch", &headers, lines).await;

    // Side by side they take 0.4 s; in turns of the 64 that find a stream, 1.6 s.
    assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
    let receipts = document.json["receipts"].as_array().expect("list").clone();
    let rows: Vec<Value> = lines.text().lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    for items in [receipts, rows] {
        assert_eq!(items.len(), 200);
        assert_eq!(items[7]["code"], "unknown_field");
        let is_waited = |r: &Value| r["timed_out"] == true && r["pending"] == 1;
        assert!(items.iter().enumerate().all(|(i, r)| i == 7 || is_waited(r)), "{items:?}");
    }
}

/// The time its gateway takes to accept it counts too.
#[tokio::test]
async fn a_request_waits_no_longer_than_the_longest_wait_of_one_push() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    gateway.state.lock().outcome.is_done = false;
    let mut config = config();
    (config.http.wait_ms, config.http.wait_ms_max) = (400, 400);
    let logic = node_with(config, &[&gateway]).await;
    gateway.close_gate();

    let push = tokio::spawn(call(logic.api_addr(), "POST", "/v1/push", &JSON, waited("r", 400).to_string()));
    until(|| async { gateway.state.lock().received.len() == 1 }).await;
    // The gateway is slow by a real clock, that of the sockets.
    tokio::time::sleep(Duration::from_millis(300)).await;
    gateway.open_gate();
    let push = push.await.expect("answer");

    assert_eq!((push.status.as_u16(), &push.json["timed_out"]), (200, &json!(true)));
    let asked_ms = gateway.state.lock().waits_ms.clone();
    assert!(asked_ms.iter().all(|ms| *ms <= 100), "no more is left of the 400 ms: {asked_ms:?}");
}

/// Half of `limits.in_flight` may wait for one gateway.
#[tokio::test]
async fn a_slow_gateway_leaves_places_for_requests_to_the_others() {
    let (slow, healthy) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    slow.join("slow");
    healthy.join("healthy");
    let mut config = config();
    config.limits.in_flight = 4;
    let logic = node_with(config, &[&slow, &healthy]).await;
    slow.close_gate();
    // One place a request, however many pushes it has; and a push to both gives the healthy one's place back at once.
    let all = json!({"to": {"all": true}, "message": 1});
    let batch = json!({"pushes": vec![all; 10]}).to_string();
    let addr = logic.api_addr();
    let send = || tokio::spawn(call(addr, "POST", "/v1/push/batch", &JSON, batch.clone()));
    let stuck = [send(), send()];
    until(|| async { healthy.state.lock().applied.len() == 20 }).await;

    let refused = post(&logic, "/v1/push", room_push("slow")).await;
    let taken = post(&logic, "/v1/push", room_push("healthy")).await;

    assert_eq!((refused.status.as_u16(), refused.code()), (503, "queues_full"), "{}", refused.text());
    assert_eq!((taken.status.as_u16(), &taken.json["gateways"]["sent"]), (202, &json!(1)), "{}", taken.text());
    slow.open_gate();
    for task in stuck {
        let reply = task.await.expect("answer");
        let receipts = reply.json["receipts"].as_array().expect("list").clone();
        assert!(receipts.iter().all(|r| r["gateways"] == json!({"sent": 2, "failed": []})), "{}", reply.text());
    }
    assert_eq!(post(&logic, "/v1/push", room_push("slow")).await.status, 202);
}
