//! Clients that stop reading (issue 2, point 10): the others go on, memory is bounded, what is lost is told, and
//! `queued = written + dropped + pending` holds to the last message.
//! The kernel's socket buffers take megabytes on loopback before a gateway sees a slow peer; so the slow clients have
//! small receive buffers, and the bulk of the traffic goes to a room of few.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Api, Client, Crowd, Event, Metrics, PATIENCE, Ranges, Raw, Server, masked, percentile, until};

/// In all; one in fifty of them stops reading.
const CLIENTS: usize = 500;
const SLOW: usize = CLIENTS / 50;
/// `pending.bytes`.
const PENDING_BYTES: u64 = 32 * 1024;
/// Largest frame of the flood: `merge.bytes` and the push that fills it.
const FRAME_BYTES_MAX: u64 = 128 * 1024 + PER_PUSH * MESSAGE_BYTES as u64;
/// What a slow client's kernel may keep for it.
const RECEIVE_BYTES: u32 = 8 * 1024;
/// One message of the flood.
const MESSAGE_BYTES: usize = 16 * 1024;
/// Messages of the flood: 16 MiB a slow client, more than any socket buffer takes.
const FLOOD: u64 = 1_024;
/// Messages of one push of the flood.
const PER_PUSH: u64 = 4;

fn env(age_ms: &'static str) -> [(&'static str, &'static str); 2] {
    [("TIDEGATE_GATEWAY__PENDING__BYTES", "32768"), ("TIDEGATE_GATEWAY__PENDING__AGE_MS", age_ms)]
}

/// Pushes `n` messages to a room, in order, a few a push, so that no frame is much larger than the bound it waits under.
async fn flood(api: &mut Api, room: &str, n: u64) {
    let filler = "x".repeat(MESSAGE_BYTES);
    for first in (0..n).step_by(PER_PUSH as usize) {
        let messages: Vec<_> =
            (first..n.min(first + PER_PUSH)).map(|number| json!({"n": number, "x": filler})).collect();
        api.push(json!({"to": {"room": room}, "messages": messages})).await;
    }
}

/// `queued`, `written`, `dropped`, `pending`.
fn account(metrics: &Metrics) -> [u64; 4] {
    let sum = |what: &str| metrics.sum(&format!("tidegate_gateway_messages_{what}"));
    [sum("queued_total"), sum("written_total"), sum("dropped_total"), sum("pending")]
}

/// Waits until two scrapes agree, which is rest, and holds the account against itself.
async fn reconciles(gateway: &Server) -> [u64; 4] {
    let mut before = None;
    let [queued, written, dropped, pending] = until("the counters to rest", PATIENCE, async || {
        let now = account(&gateway.metrics().await);
        (before.replace(now) == Some(now)).then_some(now)
    })
    .await;
    assert_eq!(queued, written + dropped + pending, "{queued} != {written} + {dropped} + {pending}");
    [queued, written, dropped, pending]
}

/// Clients in the room `flood` that read nothing from here on.
async fn slow_clients(gateway: &Server, n: usize) -> Vec<(Client, Ranges)> {
    let mut slow = Vec::new();
    for _ in 0..n {
        let mut client = Client::open(gateway.clients(), "/ws", Some(RECEIVE_BYTES)).await;
        let joined = client.join("flood").await;
        client.pause(true);
        slow.push((client, Ranges::after(&joined)));
    }
    slow
}

/// Rules M-2 and M-3; lanes (architecture, section 5).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_slow_client_misses_is_told_and_the_others_go_on() {
    let (gateway, logic) = Server::pair(&env("60000")).await;
    let mut api = logic.connect_api().await;
    let mut crowd = Crowd::connect(gateway.clients(), CLIENTS - SLOW - 1).await;
    let mut reader = Client::connect(gateway.clients()).await;
    let joined = reader.join("flood").await;
    let mut reader_ranges = Ranges::after(&joined);
    // The same bytes once before, to somebody who reads: buffers on the way are there before memory is measured.
    reader.join("warm").await;
    flood(&mut api, "warm", FLOOD / 4).await;
    reader.items(FLOOD as usize / 4).await;
    let slow = slow_clients(&gateway, SLOW).await;
    crowd.beats(&mut api, 3).await;
    let mut calm = crowd.beats(&mut api, 10).await;
    let rss = gateway.rss();

    let mut flooding = logic.connect_api().await;
    let flooding = tokio::spawn(async move { flood(&mut flooding, "flood", FLOOD).await });
    while reader_ranges.last() < FLOOD {
        reader_ranges.take(&reader.next_text().await);
    }
    flooding.await.expect("every push is taken");
    // The same beats as before, now over peers that are stuck; without the flood, whose bytes would be measured instead.
    let stuck = percentile(&mut crowd.beats(&mut api, 10).await, 50);
    let grown = gateway.rss().saturating_sub(rss);
    let [_, _, dropped, pending] = reconciles(&gateway).await;
    let pending_bytes = gateway.metrics().await.sum("tidegate_gateway_pending_bytes");

    assert!(dropped > 0, "16 MiB did not fit {PENDING_BYTES} bytes, so something was dropped");
    assert!(pending > 0, "what fits still waits");
    // A frame that is half written cannot be dropped, so each may hold one beyond its bound.
    let bound = SLOW as u64 * (PENDING_BYTES + FRAME_BYTES_MAX);
    assert!(pending_bytes <= bound, "{pending_bytes} bytes wait, {bound} may");
    assert!(grown < 8 * 1024 * 1024, "resident memory grew by {} KiB", grown / 1024);
    assert_eq!(reader_ranges.missing, 0, "who reads loses nothing");
    for (mut client, mut ranges) in slow {
        client.pause(false);
        while ranges.last() < FLOOD {
            let text = client.next_text().await;
            assert!(ranges.take(&text) || text.contains("beat"), "{}", &text[..text.len().min(120)]);
        }
        assert!(ranges.gaps > 0, "a GAP tells what is missing");
        assert_eq!(ranges.received + ranges.missing, FLOOD);
    }
    assert_eq!(reconciles(&gateway).await[3], 0, "nothing waits any more");
    // Calm is measured on both sides, and beats are compared by the median of their p99: whatever else runs on this
    // machine comes and goes.
    calm.extend(crowd.beats(&mut api, 10).await);
    let calm = percentile(&mut calm, 50);
    println!("p99 calm {calm:?}, with {SLOW} stuck {stuck:?}; rss +{} KiB, pending {pending_bytes}", grown / 1024);
    assert!(stuck <= 2 * calm + Duration::from_millis(250), "p99 went from {calm:?} to {stuck:?}");
}

/// Close 3002 (rule E-3).
#[tokio::test]
async fn a_client_that_never_reads_again_is_closed_as_slow() {
    let (gateway, logic) = Server::pair(&env("1000")).await;
    let mut api = logic.connect_api().await;
    let mut slow = slow_clients(&gateway, 2).await;

    flood(&mut api, "flood", FLOOD).await;
    until("the slow ones to be gone", PATIENCE, async || {
        let matched = api.push_room("flood", json!("who is there")).await["matched"].clone();
        (matched == 0).then_some(())
    })
    .await;

    for (client, _) in &mut slow {
        client.pause(false);
        let ending = client.ending().await.event;
        // The close frame itself may not have fitted behind a frame that was cut; then the socket just ends.
        let says_why = matches!(&ending, Event::Closed(3002, reason) if reason.contains("slow"));
        assert!(says_why || ending == Event::Lost, "{ending:?}");
    }
    let metrics = gateway.metrics().await;
    let sum = metrics.sum_where("tidegate_gateway_messages_dropped_total", "closed");
    assert!(sum > 0, "what still waited is counted as dropped because its connection closed");
    reconciles(&gateway).await;
}

/// The sum of architecture section 5, under chaos: peers that die in the middle of a frame, or while they are flooded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_counters_reconcile_after_clients_die_mid_write() {
    let (gateway, logic) = Server::pair(&env("60000")).await;
    let mut api = logic.connect_api().await;
    let mut slow = slow_clients(&gateway, 20).await;
    let join = masked(0x81, br#"{"type":"JOIN","data":{"room":"flood"}}"#);
    let mut raws = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::open(gateway.clients(), "/ws").await;
        raw.write(&join).await.expect("the connection is open");
        raw.frame(PATIENCE).await.expect("JOINED was due");
        raws.push(raw);
    }

    let mut flooding = logic.connect_api().await;
    let flooding = tokio::spawn(async move { flood(&mut flooding, "flood", FLOOD / 2).await });
    let is_flooded = async |goal: u64| {
        until("the flood to rise", PATIENCE, async || {
            (gateway.metrics().await.sum("tidegate_gateway_messages_queued_total") >= goal).then_some(())
        })
        .await;
    };
    for round in 1..=10 {
        is_flooded(round * 200).await;
        slow.pop();
        raws.pop().expect("there are twenty").reset();
    }
    flooding.await.expect("every push is taken");
    let [queued, ..] = reconciles(&gateway).await;
    drop((slow, raws));
    until("everybody to be gone", PATIENCE, async || {
        (api.push_room("flood", json!(0)).await["matched"] == 0).then_some(())
    })
    .await;

    let [_, written, dropped, pending] = reconciles(&gateway).await;
    assert!(queued > 0 && written > 0 && dropped > 0, "{queued} {written} {dropped}");
    assert_eq!(pending, 0, "nobody is left to wait for");
}
