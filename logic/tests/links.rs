//! What a logic node makes of gateways that die, hang, break, restart, or refuse it. Issue 2, point 9.

mod support;

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::json;
use support::{FakeGateway, call, config, get, node, node_with, post, until};
use tidegate_logic::{Extras, GatewayLink, Logic};

const ALL: &str = r#"{"to":{"all":true},"message":1}"#;
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const ROOM: &str = r#"{"to":{"room":"r"},"message":1}"#;
/// The first connection; then one dial at once and five with delays that double from 50 ms on.
const DIALS_TO_THE_LONGEST_DELAY: u64 = 7;

#[tokio::test]
async fn a_killed_gateway_is_named_within_a_second_and_the_others_lose_nothing() {
    let (a, b, c) = (FakeGateway::start(1).await, FakeGateway::start(2).await, FakeGateway::start(3).await);
    let logic = node(&[&a, &b, &c]).await;
    b.kill();

    let started = Instant::now();
    let first = post(&logic, "/v1/push", ALL).await;
    let took = started.elapsed();

    // A second is what is promised; the usual is a few milliseconds, since the end of the link is seen.
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(first.status, 202);
    assert_eq!(first.json["gateways"]["sent"], 2);
    assert_eq!(first.json["gateways"]["failed"][0]["gateway"], b.name());
    let second = post(&logic, "/v1/push", ALL).await;
    let unreachable = json!([{"gateway": b.name(), "reason": "unreachable"}]);
    assert_eq!(second.json["gateways"]["failed"], unreachable, "a gateway known to be down is not waited for");
    assert_eq!((a.state.lock().applied.len(), c.state.lock().applied.len()), (2, 2));
    let nobody = post(&logic, "/v1/push", ROOM).await;
    assert_eq!((nobody.status.as_u16(), &nobody.json["gateways"]["sent"]), (202, &json!(0)));
    assert_eq!(nobody.json["gateways"]["failed"][0]["gateway"], b.name(), "it may have the room for all we know");
}

/// Its reply never comes; what it may have had is named, others are not slowed meanwhile.
#[tokio::test]
async fn a_gateway_killed_with_a_batch_in_flight_is_named_within_a_second() {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    a.join("r");
    let logic = node(&[&a, &b]).await;
    b.close_gate();
    let stuck = tokio::spawn(call(logic.api_addr(), "POST", "/v1/push", &JSON, ALL));
    until(|| async { b.state.lock().received.len() == 1 }).await;

    let other = post(&logic, "/v1/push", ROOM).await;
    assert_eq!(other.json["gateways"]["sent"], 1);
    assert!(!stuck.is_finished(), "it was not waited for");

    let started = Instant::now();
    b.kill();
    let stuck = stuck.await.expect("answer");
    // A second is what is promised; without the end of the link being seen it is the 5 s of `backplane.request_ms`.
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(stuck.json["gateways"], json!({"sent": 1, "failed": [{"gateway": b.name(), "reason": "lost"}]}));
}

/// Rule: a (logic, sequence) is applied once. The reply is lost, the batch comes again under its number.
#[tokio::test]
async fn a_batch_whose_reply_was_lost_is_sent_again_and_counts_once() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    let logic = node(&[&gateway]).await;
    post(&logic, "/v1/push", ROOM).await;
    gateway.state.lock().lose_next_reply = true;

    let reply = post(&logic, "/v1/push", ROOM).await;

    assert_eq!((reply.status.as_u16(), &reply.json["matched"]), (202, &json!(1)), "{}", reply.text());
    let sequences: Vec<u64> = gateway.state.lock().received.iter().map(|b| b.sequence).collect();
    assert_eq!(sequences, [1, 2, 2]);
    assert_eq!(gateway.state.lock().applied.len(), 2);
    let metrics = get(&logic, "/metrics").await.text();
    assert!(metrics.contains(&format!("tidegate_backplane_resends_total{{gateway=\"{}\"}} 1\n", gateway.name())));
}

#[tokio::test]
async fn a_restarted_gateway_fails_what_its_predecessor_had_and_gets_what_comes() {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    let logic = node(&[&a, &b]).await;
    b.close_gate();
    let stuck = tokio::spawn(call(logic.api_addr(), "POST", "/v1/push", &JSON, ALL));
    until(|| async { b.state.lock().received.len() == 1 }).await;

    b.kill();
    b.open_gate();
    b.restart().await;
    let stuck = stuck.await.expect("answer");

    assert_eq!(stuck.json["gateways"]["failed"], json!([{"gateway": b.name(), "reason": "restarted"}]));
    let next = post(&logic, "/v1/push", ALL).await;
    assert_eq!(next.json["gateways"], json!({"sent": 2, "failed": []}));
    let state = b.state.lock();
    let last = state.received.last().expect("received");
    // Above the numbers of the links before, of which there was one.
    assert_eq!((last.epoch, last.sequence), (state.epoch, (1 << 40) + 1), "sequences begin anew with the epoch");
}

#[tokio::test]
async fn pushes_reach_a_gateway_within_three_seconds_of_its_return() {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    let logic = node(&[&a, &b]).await;
    b.kill();
    let dials = format!("tidegate_backplane_dials_total{{gateway=\"{}\"}} ", b.name());
    until(|| async {
        let metrics = get(&logic, "/metrics").await.text();
        let dials = metrics.lines().find_map(|line| line.strip_prefix(&dials)?.parse().ok());
        dials.is_some_and(|n: u64| n >= DIALS_TO_THE_LONGEST_DELAY)
    })
    .await;
    b.restart().await;
    b.join("r");

    let started = Instant::now();
    until(|| async { post(&logic, "/v1/push", ROOM).await.json["matched"] == 1 }).await;

    // Three seconds are what is promised; the longest delay between dials is one.
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

/// The interest learnt before a break holds after it, without a new snapshot, and deltas missed are told.
#[tokio::test]
async fn a_broken_connection_is_resumed_where_it_was() {
    let gateway = FakeGateway::start(1).await;
    gateway.join("r");
    let logic = node(&[&gateway]).await;

    gateway.break_connections().await;
    let cursor = gateway.join("s");
    gateway.acked(cursor).await;

    assert_eq!(post(&logic, "/v1/push", ROOM).await.json["matched"], 1);
    let reply = post(&logic, "/v1/push", r#"{"to":{"rooms":["s","nowhere"]},"message":1}"#).await;
    assert_eq!(reply.json["matched"], 1);
    assert_eq!(gateway.state.lock().applied.last().expect("applied").targets.len(), 1);
}

/// SIGSTOP: the sockets stay open, and nothing but the missing pongs says that nobody is there.
#[tokio::test]
async fn a_stopped_gateway_is_named_by_its_silence_and_used_again_when_it_goes_on() {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    let logic = node(&[&a, &b]).await;
    b.freeze(true);

    let started = Instant::now();
    let reply = post(&logic, "/v1/push", ALL).await;
    // One ping (`backplane.ping_ms`, 1 s) unanswered; the request's own deadline is 5 s.
    assert!(started.elapsed() < Duration::from_millis(2_000), "{:?}", started.elapsed());
    assert_eq!(reply.json["gateways"], json!({"sent": 1, "failed": [{"gateway": b.name(), "reason": "lost"}]}));

    b.freeze(false);
    let started = Instant::now();
    until(|| async { post(&logic, "/v1/push", ALL).await.json["gateways"]["sent"] == 2 }).await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

/// Where a gateway was, a peer that accepts and never says a word.
#[tokio::test]
async fn a_peer_that_never_speaks_is_no_gateway() {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    let logic = node(&[&a, &b]).await;
    b.kill();
    let hung = b.port().await;
    let _sockets = tokio::spawn(async move {
        let mut sockets = Vec::new();
        while let Ok((socket, _)) = hung.accept().await {
            sockets.push(socket);
        }
    });

    let started = Instant::now();
    let reply = post(&logic, "/v1/push", ALL).await;

    // As for one that is dead: a link that has not shaken hands is none.
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(reply.json["gateways"]["failed"][0]["gateway"], b.name());
}

#[tokio::test]
async fn with_all_gateways_down_a_push_is_503_and_its_dedupe_key_free() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;
    gateway.kill();
    until(|| async { get(&logic, "/v1/gateways").await.json["gateways"][0]["state"] == "down" }).await;
    let body = r#"{"to":{"all":true},"message":1,"dedupe":"k"}"#;

    let refused = post(&logic, "/v1/push", body).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "no_gateway"));
    assert_eq!(
        (&refused.json["retryable"], &refused.headers["retry-after"]),
        (&json!(true), &"1".parse().expect("value"))
    );
    assert!(refused.json["detail"].as_str().is_some_and(|d| d.contains(&gateway.name())));

    gateway.restart().await;
    until(|| async { post(&logic, "/v1/push", body).await.status == 202 }).await;
    assert_eq!(gateway.state.lock().applied.len(), 1);
}

/// `timeout` and `lost`: the gateway has it, only its answer is missing.
#[tokio::test]
async fn a_push_that_may_have_been_taken_keeps_its_dedupe_key() {
    let gateway = FakeGateway::start(1).await;
    let mut config = config();
    (config.backplane.ping_ms, config.backplane.request_ms) = (300, 300);
    let logic = node_with(config, &[&gateway]).await;
    let body = |key: &str| json!({"to": {"all": true}, "message": 1, "dedupe": key}).to_string();

    gateway.close_gate();
    let late = post(&logic, "/v1/push", body("late")).await;
    gateway.open_gate();
    let retry = post(&logic, "/v1/push", body("late")).await;

    assert_eq!(late.code(), "gateway_lost");
    assert_eq!((retry.status.as_u16(), &retry.json["gateways"]["failed"][0]["reason"]), (202, &json!("timeout")));
    assert_eq!(gateway.state.lock().applied.len(), 1);

    gateway.close_gate();
    let addr = logic.api_addr();
    let lost = tokio::spawn(call(addr, "POST", "/v1/push", &JSON, body("lost")));
    until(|| async { gateway.state.lock().applied.len() == 2 }).await;
    gateway.kill();
    assert_eq!(lost.await.expect("answer").code(), "gateway_lost");
    gateway.open_gate();
    gateway.restart().await;
    until(|| async { get(&logic, "/readyz").await.status == 200 }).await;
    let retry = post(&logic, "/v1/push", body("lost")).await;

    assert_eq!(
        (retry.status.as_u16(), &retry.json["gateways"]["failed"][0]["reason"]),
        (202, &json!("lost")),
        "{}",
        retry.text()
    );
    assert_eq!(gateway.state.lock().applied.len(), 2);
}

#[tokio::test]
async fn a_push_that_was_refused_can_be_tried_again_with_its_dedupe_key() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;
    let body = r#"{"to":{"all":true},"message":1,"dedupe":"k"}"#;
    gateway.state.lock().push_status = Some(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(post(&logic, "/v1/push", body).await.code(), "queues_full");
    gateway.state.lock().push_status = None;

    let retry = post(&logic, "/v1/push", body).await;

    assert_eq!((retry.status.as_u16(), &retry.json["gateways"]["sent"]), (202, &json!(1)));
    assert_eq!(gateway.state.lock().applied.len(), 1);
}

#[tokio::test]
async fn a_gateway_that_does_not_take_our_secret_is_named_as_such() {
    let gateway = FakeGateway::start(1).await;
    gateway.state.lock().secret = Some("right".into());
    let mut wrong = config();
    wrong.backplane_secret = "wrong".into();
    let links = vec![GatewayLink::Dial(gateway.url())];
    let logic = Logic::start(wrong, links, Extras::default()).await.expect("start");

    until(|| async { get(&logic, "/readyz").await.text().contains("unauthorized") }).await;
    assert_eq!(get(&logic, "/readyz").await.status, 503);

    let mut right = config();
    right.backplane_secret = "right".into();
    let logic = node_with(right, &[&gateway]).await;
    assert_eq!(post(&logic, "/v1/push", ALL).await.status, 202);
}

#[tokio::test]
async fn a_gateway_that_answers_pushes_with_a_refusal_is_named_with_its_reason() {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    let logic = node(&[&a, &b]).await;
    for (status, reason) in [
        (StatusCode::BAD_REQUEST, "incompatible"),
        (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        (StatusCode::CONFLICT, "restarted"),
    ] {
        b.state.lock().push_status = Some(status);
        let reply = post(&logic, "/v1/push", ALL).await;
        assert_eq!(reply.json["gateways"]["failed"], json!([{"gateway": b.name(), "reason": reason}]));
    }
}

#[tokio::test]
async fn readiness_needs_one_gateway_and_names_the_others() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;
    let ready = get(&logic, "/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.json["ready"]), (200, &json!(true)));

    let nobody = "http://127.0.0.1:9".to_owned();
    let links = vec![GatewayLink::Dial(gateway.url()), GatewayLink::Dial(nobody)];
    let logic = Logic::start(config(), links, Extras::default()).await.expect("start");
    until(|| async { get(&logic, "/readyz").await.json["missing"] == json!(["gateway 127.0.0.1:9: unreachable"]) })
        .await;
    assert_eq!(get(&logic, "/readyz").await.status, 200);

    let alone = Logic::start(config(), Vec::new(), Extras::default()).await.expect("start");
    assert_eq!(get(&alone, "/readyz").await.status, 503);
    assert_eq!(get(&alone, "/healthz").await.status, 200);
    assert_eq!(post(&alone, "/v1/push", ALL).await.code(), "no_gateway");
}

/// In `serve` the gateway is in the same process, behind an in-memory pipe that is dialled again like a socket.
#[tokio::test]
async fn a_pipe_is_a_gateway_like_any_other() {
    let gateway = FakeGateway::start(1).await;
    let addr = gateway.addr;
    let dial: tidegate_logic::PipeDial = Box::new(move || {
        Box::pin(async move {
            let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
            let mut socket = tokio::net::TcpStream::connect(addr).await?;
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut theirs, &mut socket).await });
            Ok(Box::new(ours) as Box<dyn tidegate_logic::PipeStream>)
        })
    });
    let logic = Logic::start(config(), vec![GatewayLink::Pipe(dial)], Extras::default()).await.expect("start");

    until(|| async { post(&logic, "/v1/push", ALL).await.status == 202 }).await;
    gateway.break_connections().await;
    until(|| async { post(&logic, "/v1/push", ALL).await.status == 202 }).await;
    assert_eq!(get(&logic, "/v1/gateways").await.json["gateways"][0]["gateway"], "local");
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_in_progress() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;
    gateway.close_gate();
    let addr = logic.api_addr();
    let push = tokio::spawn(call(addr, "POST", "/v1/push", &JSON, ALL));
    until(|| async { gateway.state.lock().received.len() == 1 }).await;

    let leaving = tokio::spawn(logic.shutdown());
    until(|| async { tokio::net::TcpStream::connect(addr).await.is_err() }).await;
    gateway.open_gate();

    assert_eq!(push.await.expect("answer").status, 202);
    leaving.await.expect("left");
}

/// What the node lists from now on.
fn list(logic: &Logic, gateways: &[&FakeGateway]) {
    let urls: Vec<String> = gateways.iter().map(|gateway| gateway.url()).collect();
    logic.link(&urls).expect("a good list");
}

async fn gateways(logic: &Logic) -> Vec<(String, bool)> {
    let list = get(logic, "/v1/gateways").await.json["gateways"].as_array().expect("a list").clone();
    let row = |row: &serde_json::Value| (row["gateway"].as_str().map(str::to_owned), row["is_leaving"] == true);
    list.iter().map(row).map(|(name, is_leaving)| (name.expect("a name"), is_leaving)).collect()
}

/// A gateway that has not drained keeps its pushes, is told, and may stay after all.
#[tokio::test]
async fn who_is_put_back_on_the_list_in_time_stays() {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    let cursor = b.join("r");
    let logic = node(&[&a, &b]).await;
    b.acked(cursor).await;

    list(&logic, &[&a]);
    assert_eq!(gateways(&logic).await, [(a.name(), false), (b.name(), true)]);
    let missing = get(&logic, "/readyz").await.json["missing"].to_string();
    assert!(missing.contains("off the list"), "{missing}");
    assert_eq!(post(&logic, "/v1/push", ROOM).await.json["gateways"]["sent"], 1, "it has the room's members still");

    list(&logic, &[&a, &b]);
    assert_eq!(gateways(&logic).await, [(a.name(), false), (b.name(), false)]);
    b.state.lock().is_draining = true;
    b.tell();
    until(|| async { get(&logic, "/v1/gateways").await.json["gateways"][1]["is_draining"] == true }).await;
    assert_eq!(gateways(&logic).await.len(), 2, "it leaves by itself, and is expected back");
}

/// `logic.backplane.leave_ms`.
#[tokio::test]
async fn who_does_not_drain_is_let_go_when_its_time_is_over() {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    let cursor = b.join("r");
    let mut config = config();
    config.backplane.leave_ms = 300;
    let logic = node_with(config, &[&a, &b]).await;
    b.acked(cursor).await;

    list(&logic, &[&a]);
    until(|| async { gateways(&logic).await == [(a.name(), false)] }).await;

    let push = post(&logic, "/v1/push", ROOM).await;
    assert_eq!(push.json["gateways"], json!({"sent": 0, "failed": []}), "nobody has the room now");
    assert!(get(&logic, "/metrics").await.text().contains(r#"links_closed_total{why="late"} 1"#));
}

/// One that is down has nobody who could be waited for.
#[tokio::test]
async fn a_dead_gateway_is_let_go_as_soon_as_it_is_off_the_list() {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    let logic = node(&[&a, &b]).await;
    b.kill();
    until(|| async { get(&logic, "/v1/gateways").await.json["gateways"][1]["state"] == "down" }).await;

    list(&logic, &[&a]);
    until(|| async { gateways(&logic).await == [(a.name(), false)] }).await;

    assert_eq!(post(&logic, "/v1/push", ALL).await.json["gateways"], json!({"sent": 1, "failed": []}));
    let same = logic.link(&[a.url().replace("http://", "https://")]).expect_err("two links to one would double pushes");
    assert!(same[0].contains("another scheme"), "{same:?}");
    assert_eq!(gateways(&logic).await, [(a.name(), false)], "nothing has changed");
}

/// What was on its way is answered: the link ends when the gateway has said that it leaves and that nobody is there.
#[tokio::test]
async fn who_has_drained_is_let_go_and_what_it_had_is_answered() {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    let cursor = b.join("r");
    let logic = std::sync::Arc::new(node(&[&a, &b]).await);
    b.acked(cursor).await;
    b.close_gate();
    let pushing = tokio::spawn({
        let logic = std::sync::Arc::clone(&logic);
        async move { post(&logic, "/v1/push", ROOM).await }
    });
    until(|| async { b.state.lock().applied.len() == 1 }).await;

    b.state.lock().is_draining = true;
    b.tell();
    list(&logic, &[&a]);
    until(|| async { get(&logic, "/v1/gateways").await.json["gateways"][1]["is_draining"] == true }).await;
    assert_eq!(gateways(&logic).await.len(), 2, "clients may still come there");
    b.state.lock().is_closed = true;
    b.tell();
    until(|| async { gateways(&logic).await == [(a.name(), false)] }).await;
    assert!(!pushing.is_finished(), "it has not answered yet");
    b.open_gate();

    assert_eq!(pushing.await.expect("no panic").json["gateways"], json!({"sent": 1, "failed": []}));
    let closed = || async { get(&logic, "/metrics").await.text().contains(r#"links_closed_total{why="drained"} 1"#) };
    until(closed).await;
}
