//! SIGTERM: a gateway leaves without a stampede (rules E-3 and E-4).

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Api, Client, Event, PATIENCE, Raw, Server, get_request, until};

const SPREAD: Duration = Duration::from_millis(2_000);
const SLOW_LEAVE: [(&str, &str); 2] =
    [("TIDEGATE_GATEWAY__DRAIN__DELAY_MS", "500"), ("TIDEGATE_GATEWAY__DRAIN__SPREAD_MS", "2000")];
const CLIENTS: usize = 100;

/// Reads to the close; its time and reason, and whether GOAWAY came before.
async fn see_off(mut client: Client) -> (Instant, Value) {
    let mut goaway = None;
    loop {
        let received = client.next_within(2 * PATIENCE).await.expect("a close was due");
        match received.event {
            Event::Text(text) => {
                let message: Value = serde_json::from_str(&text).expect("a message is JSON");
                assert_eq!(message["type"], "GOAWAY", "{text}");
                goaway = Some(message["data"].clone());
            }
            Event::Closed(code, reason) => {
                assert_eq!(code, 3000, "draining: {reason}");
                let goaway = goaway.expect("GOAWAY precedes a planned close (rule E-4)");
                assert!(
                    goaway["reconnect_after_ms"][1].as_u64() >= goaway["reconnect_after_ms"][0].as_u64(),
                    "{goaway}"
                );
                return (received.at, serde_json::from_str(&reason).expect("a reason is JSON (rule E-3)"));
            }
            Event::Lost => panic!("a planned close is a close frame, not the end of the socket"),
            Event::Binary(_) | Event::Ping(_) | Event::Pong(_) => {}
        }
    }
}

/// Rules E-3 and E-4.
#[tokio::test]
async fn sigterm_spreads_the_closes_and_exits_0() {
    let mut gateway = Server::gateway_alone("g0", &SLOW_LEAVE).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(gateway.clients()).await);
    }
    let mut ops = Api::connect(gateway.health()).await;

    let asked = Instant::now();
    gateway.terminate();
    until("/readyz to turn 503", PATIENCE, async || {
        let answer = match ops.try_get("/readyz").await {
            Some(answer) => answer,
            None => Api::try_connect(gateway.health()).await?.try_get("/readyz").await?,
        };
        (answer.status == 503).then_some(())
    })
    .await;
    let noticed = asked.elapsed();
    // The door stays open during the delay: load balancers still send clients until they have noticed.
    until("new connections to be refused", PATIENCE, async || is_refused(&gateway).await.then_some(())).await;
    let shut = asked.elapsed();
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push((is_refused(&gateway).await, Instant::now()));
    }
    let mut closes = Vec::new();
    for client in clients {
        let (at, reason) = see_off(client).await;
        assert_eq!(reason["reason"], "draining");
        assert!(reason["retry_after_ms"].is_u64(), "{reason}");
        closes.push(at);
    }
    let status = gateway.exit(2 * PATIENCE).await;

    closes.sort_unstable();
    let (first, last) = (closes[0], closes[CLIENTS - 1]);
    assert!(asked + noticed < first, "readiness goes before the first close, not after {noticed:?}");
    assert!(asked + shut < last, "the door shuts before everyone has left, not after {shut:?}");
    // One that is left to wait hears nothing before the process ends.
    let is_at_once = |&(is_refused, at): &(bool, Instant)| is_refused && at < last;
    assert!(answers.iter().all(is_at_once), "strangers are refused at once and not left to wait: {answers:?}");
    // The times are what is promised (`drain.delay_ms`, `spread_ms`); two seconds are for a busy machine.
    assert!(last - first >= SPREAD / 2, "spread over {:?} only", last - first);
    assert!(last - asked <= SPREAD + Duration::from_millis(500) + Duration::from_secs(2), "took {:?}", last - asked);
    assert!(first - asked >= Duration::from_millis(400), "after the delay for load balancers, not {:?}", first - asked);
    assert_eq!(status.code(), Some(0));
}

/// Whether a handshake gets no session now: the port is closed or the answer is 503.
async fn is_refused(gateway: &Server) -> bool {
    let Some(mut raw) = Raw::try_connect(gateway.clients()).await else { return true };
    let _ = raw.write(get_request("/ws", "").as_bytes()).await;
    matches!(raw.status().await, None | Some(503))
}

/// The same for both tiers in one process, with nothing to spread, while messages wait for the end of a window.
#[tokio::test]
async fn serve_leaves_with_exit_code_0_and_delivers_what_it_took() {
    let env = [
        ("TIDEGATE_GATEWAY__DRAIN__SPREAD_MS", "200"),
        ("TIDEGATE_GATEWAY__MERGE__MIN_MS", "1000"),
        ("TIDEGATE_GATEWAY__MERGE__MAX_MS", "1000"),
    ];
    let mut server = Server::serve(&env).await;
    let mut api = server.connect_api().await;
    let mut client = Client::connect(server.clients()).await;
    client.join("r").await;
    for number in 0..50 {
        api.push_room("r", json!(number)).await;
    }

    server.terminate();
    let mut got = Vec::new();
    let code = loop {
        match client.next().await.event {
            Event::Text(text) => {
                let message: Value = serde_json::from_str(&text).expect("a message is JSON");
                got.extend(message["data"]["items"].as_array().into_iter().flatten().filter_map(Value::as_u64));
            }
            Event::Closed(code, _) => break code,
            other => panic!("{other:?}"),
        }
    };

    assert_eq!(code, 3000);
    assert_eq!(got, (0..50).collect::<Vec<u64>>(), "accepted before the signal, delivered before the close");
    assert_eq!(server.exit(PATIENCE).await.code(), Some(0));
}

/// Nobody is spared by waiting: `serve` on loopback is the whole fleet.
#[tokio::test]
async fn serve_on_loopback_ends_at_once_and_without_a_warning() {
    let mut server = Server::serve(&[]).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::connect(server.clients()).await);
    }
    let _idle = server.connect_api().await;

    let asked = Instant::now();
    server.terminate();
    for client in clients {
        see_off(client).await;
    }
    let status = server.exit(PATIENCE).await;

    assert_eq!(status.code(), Some(0));
    // At once is a tenth of a second; a drain that waits for anything takes `drain.spread_ms`, 5 s by default, or more.
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let log = server.log_text();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

/// `docker stop` waits for 10 s; clients that do not answer their close included.
#[tokio::test]
async fn a_gateway_with_idle_clients_ends_within_ten_seconds_by_default() {
    let mut gateway = Server::gateway("g0", &[]).await;
    let logic = Server::logic(&[&gateway], &[]).await;
    let mut mute = Vec::new();
    for _ in 0..20 {
        mute.push(Raw::open(gateway.direct_clients(), "/ws").await);
    }

    let asked = Instant::now();
    gateway.terminate();
    let status = gateway.exit(2 * PATIENCE).await;

    assert_eq!(status.code(), Some(0));
    // The time is what is promised; 5 s of spread and 2 s for closes without an answer, and the rest to spare.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    until("logic to say so", PATIENCE, async || logic.log_text().contains("gateway has left").then_some(())).await;
    assert!(!logic.log_text().contains("link is lost"), "{}", logic.log_text());
}
