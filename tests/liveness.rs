//! Signs of life: whom the server pings, when it gives up, and whom it leaves alone.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::tls::{self, Authority};
use support::{Client, Ending, Event, PATIENCE, Raw, Server, until};
use tokio::net::TcpSocket;

const IDLE: Duration = Duration::from_millis(1_000);
const PONG: Duration = Duration::from_millis(1_000);
const FAST: [(&str, &str); 2] =
    [("TIDEGATE_GATEWAY__HEARTBEAT__IDLE_MS", "1000"), ("TIDEGATE_GATEWAY__HEARTBEAT__PONG_MS", "1000")];
/// What a sweep's own period and a busy machine may add. The times are what is promised here, and the server's clock is its
/// own.
const ALLOWANCE: Duration = Duration::from_millis(700);

/// Rules L-2 and L-3.
#[tokio::test]
async fn a_silent_peer_is_pinged_and_then_closed_3001() {
    let server = Server::serve(&FAST).await;
    let mut raw = Raw::open(server.clients(), "/ws").await;
    let opened = Instant::now();

    let (opcode, _) = raw.frame(PATIENCE).await.expect("a ping was due");
    let pinged = opened.elapsed();
    let ending = raw.ending().await;
    let closed = opened.elapsed();

    assert_eq!(opcode, 9, "RFC 6455 section 5.5.2");
    assert!(matches!(&ending, Ending::Closed(3001, reason) if reason.contains("idle")), "{ending:?}");
    assert!(pinged >= IDLE.mul_f64(0.75) && pinged <= IDLE.mul_f64(1.2) + ALLOWANCE, "pinged after {pinged:?}");
    assert!(closed <= (IDLE + PONG).mul_f64(1.2) + ALLOWANCE, "closed after {closed:?}");
}

/// Rule L-2.
#[tokio::test]
async fn a_peer_that_answers_pings_stays() {
    let server = Server::serve(&FAST).await;
    let mut client = Client::connect(server.clients()).await;

    for _ in 0..3 {
        let event = client.next().await.event;
        assert!(matches!(event, Event::Ping(_)), "the client answers by itself: {event:?}");
    }

    assert_eq!(client.ask(json!({"type": "PING"})).await["type"], "PONG");
}

/// Rule L-2: any inbound byte counts, a frame's first half too.
#[tokio::test]
async fn inbound_bytes_count_as_life() {
    let server = Server::serve(&FAST).await;
    let mut client = Client::connect(server.clients()).await;
    let mut talk = tokio::time::interval(Duration::from_millis(300));
    // No condition to wait for: what is looked for is that no ping comes.
    let until = Instant::now() + 3 * IDLE;

    while Instant::now() < until {
        talk.tick().await;
        client.say(json!({"type": "PING"})).await;
        let event = client.next().await.event;
        assert!(matches!(event, Event::Text(_)), "not pinged while it talks: {event:?}");
    }
}

/// With these the kernel's timeout is 8 s, and a stall of 1.5 s is far shorter.
const SLOW: [(&str, &str); 3] = [
    ("TIDEGATE_GATEWAY__PENDING__AGE_MS", "3500"),
    ("TIDEGATE_GATEWAY__HEARTBEAT__IDLE_MS", "6000"),
    ("TIDEGATE_GATEWAY__HEARTBEAT__PONG_MS", "4000"),
];

/// A peer that is slow for a moment twice is not the peer that is gone: Linux forgets that the window had opened between
/// (docs/adr/0007), so that a stall of a second became a lost connection.
#[tokio::test]
async fn a_second_short_stall_costs_nobody_the_connection() {
    let (gateway, logic) = Server::pair(&SLOW).await;
    let client = Client::open(gateway.clients(), "/ws", Some(16 * 1024)).await;

    stalls_twice(client, &gateway, &logic).await;
}

/// The same behind TLS, where the client's socket is the relay's and not the bucket's.
#[tokio::test]
async fn a_second_short_stall_costs_nobody_the_connection_over_tls() {
    let authority = Authority::new("test");
    let issued = authority.issue("server", &["localhost"]);
    let files = [("TIDEGATE_GATEWAY__TLS__CERT", &*issued.cert), ("TIDEGATE_GATEWAY__TLS__KEY", &*issued.key)];
    let gateway = Server::gateway("g1", &[&SLOW[..], &files].concat()).await;
    let logic = Server::logic(&[&gateway], &[]).await;
    let socket = TcpSocket::new_v4().expect("a socket is free");
    socket.set_recv_buffer_size(16 * 1024).expect("the kernel takes a buffer size");
    let stream = socket.connect(gateway.direct_clients()).await.expect("the gateway listens");
    let stream = tls::over(&authority.connector(), stream).await.expect("the certificate is good");
    let client = Client::shake_hands(stream, "localhost", "/ws", &[]).await;

    stalls_twice(client, &gateway, &logic).await;
}

/// With these the second stall outlasts a ping and the time for its answer, and stays well below `pending.age_ms`.
const IMPATIENT: [(&str, &str); 3] = [
    ("TIDEGATE_GATEWAY__PENDING__AGE_MS", "60000"),
    ("TIDEGATE_GATEWAY__HEARTBEAT__IDLE_MS", "1000"),
    ("TIDEGATE_GATEWAY__HEARTBEAT__PONG_MS", "1000"),
];

/// A peer cannot answer a ping that it does not take: as long as `pending.age_ms` lets it, it stays, and then it has its time to answer.
#[tokio::test]
async fn who_takes_nothing_for_a_while_is_not_asked_for_a_pong_meanwhile() {
    let (gateway, logic) = Server::pair(&IMPATIENT).await;
    let mut client = Client::open(gateway.clients(), "/ws", Some(16 * 1024)).await;
    let mut api = logic.connect_api().await;
    client.join("r").await;
    let (filler, mut said) = ("x".repeat(30_000), 0);

    // First a short stall, which has it judged by what it says alone; then one that outlasts ping and pong.
    for stall in [Duration::from_millis(500), 2 * (IDLE + PONG)] {
        client.pause(true);
        let begun = said;
        until("what is pushed to wait in the gateway", PATIENCE, async || {
            api.push_room("r", json!({"n": said, "x": filler})).await;
            said += 1;
            (gateway.metrics().await.sum("tidegate_gateway_pending_bytes") > 0).then_some(())
        })
        .await;
        // No condition tells that nothing happens.
        tokio::time::sleep(stall).await;
        client.pause(false);
        let seen = client.items(said - begun).await;
        assert_eq!(seen.last().map(|item| item["n"].clone()), Some(json!(said - 1)), "all of {begun} to {said}");
    }

    assert_eq!(client.ask(json!({"type": "PING"})).await["type"], "PONG");
    assert_eq!(gateway.metrics().await.sum("tidegate_gateway_idle_closed_total"), 0);
}

/// Pauses the client until messages wait in the gateway, twice; it must get all of them.
async fn stalls_twice(mut client: Client, gateway: &Server, logic: &Server) {
    let mut api = logic.connect_api().await;
    client.join("r").await;
    // Longer than the client's window, so that it is shut in the middle of one: behind TLS the kernel forgets nothing otherwise.
    let (filler, mut said) = ("x".repeat(30_000), 0);

    for calm in [Duration::from_secs(9), Duration::ZERO] {
        client.pause(true);
        let begun = said;
        until("what is pushed to wait in the gateway", PATIENCE, async || {
            api.push_room("r", json!({"n": said, "x": filler})).await;
            said += 1;
            (gateway.metrics().await.sum("tidegate_gateway_pending_bytes") > 0).then_some(())
        })
        .await;
        // As long as the kernel needs to ask the peer for room twice; well below `pending.age_ms`.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        client.pause(false);
        let seen = client.items(said - begun).await;
        assert_eq!(seen.last().map(|item| item["n"].clone()), Some(json!(said - 1)), "all of {begun} to {said}");
        // The kernel's time runs on from the first stall; nothing but time makes it late.
        tokio::time::sleep(calm).await;
    }

    assert_eq!(client.ask(json!({"type": "PING"})).await["type"], "PONG");
}

/// Rule L-2: acknowledged outbound bytes count.
#[tokio::test]
async fn a_client_that_receives_pushes_is_not_pinged() {
    let server = Server::serve(&FAST).await;
    let mut api = server.connect_api().await;
    let mut client = Client::connect(server.clients()).await;
    client.join("r").await;
    let mut pace = tokio::time::interval(Duration::from_millis(200));

    for number in 0..20 {
        pace.tick().await;
        api.push_room("r", json!(number)).await;
        let event = client.next().await.event;
        assert!(matches!(event, Event::Text(_)), "not pinged while it receives: {event:?}");
    }
}
