//! How fast a gateway leaves, told by a logic node what the other gateways can take, and told nothing.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Client, Logic, PATIENCE, gateway};
use tidegate_gateway::Gateway;
use tidegate_protocol::records::{EventsReply, EventsRequest, Rest, path};

const CLIENTS: usize = 60;

struct Leaving {
    /// `reconnect_after_ms` of GOAWAY, the same for all.
    window: Value,
    /// From the signal to each close, in order.
    closes: Vec<Duration>,
}

/// Fills a gateway, drains it and watches; `rest` is what its logic node says of the others.
async fn leave(spread_ms: u32, spread_max_ms: u32, rest: Option<u32>) -> Leaving {
    let gateway: Arc<Gateway> = Arc::new(
        gateway(|c| {
            c.drain.spread_ms = spread_ms;
            c.drain.spread_max_ms = spread_max_ms;
            c.reconnect.base_ms = 100;
        })
        .await,
    );
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(&gateway, "").await);
    }
    let mut logic = Logic::link(&gateway).await;
    let request = EventsRequest {
        logic: 8,
        rest: rest.map(|accept_spare| Rest { accept_spare, gateways: 2 }),
        ..EventsRequest::default()
    };
    let reply: EventsReply = logic.ask(path::EVENTS, &request).await.expect("events");
    let account = reply.gateway.expect("a gateway gives an account of itself");
    assert!(account.accept_spare > Some(100), "an idle gateway could take more: {account:?}");

    let asked = Instant::now();
    let drain = tokio::spawn({
        let gateway = Arc::clone(&gateway);
        async move { gateway.drain().await }
    });
    let mut watches = tokio::task::JoinSet::new();
    for mut client in clients {
        watches.spawn(async move {
            let goaway = client.next().await;
            assert_eq!(goaway["type"], "GOAWAY", "{goaway}");
            // The time is what is promised: the longest here is 3 s. Without the drain's own end it would be for ever.
            assert_eq!(tokio::time::timeout(PATIENCE, client.closed()).await, Ok(3000));
            (goaway["data"]["reconnect_after_ms"].clone(), asked.elapsed())
        });
    }
    let (windows, mut closes): (Vec<_>, Vec<_>) = watches.join_all().await.into_iter().unzip();
    assert!(windows.iter().all(|w| *w == windows[0]), "{windows:?}");
    closes.sort_unstable();
    drain.await.expect("the drain ends");
    Leaving { window: windows[0].clone(), closes }
}

#[tokio::test(flavor = "multi_thread")]
async fn told_nothing_it_takes_the_spread() {
    let leaving = leave(1_000, 60_000, None).await;

    assert_eq!(leaving.window, serde_json::json!([0, 1_000]));
    let last = *leaving.closes.last().expect("there were clients");
    assert!(last >= Duration::from_millis(900), "{last:?}");
}

/// Rule E-4: GOAWAY names the time that the drain will really take.
#[tokio::test(flavor = "multi_thread")]
async fn it_leaves_at_half_of_what_the_others_can_take_and_says_so() {
    let leaving = leave(100, 60_000, Some(40)).await;

    // 60 clients at 20 a second.
    assert_eq!(leaving.window, serde_json::json!([0, 3_000]));
    let half = leaving.closes[CLIENTS / 2];
    let last = leaving.closes[CLIENTS - 1];
    assert!(half >= Duration::from_millis(1_200), "evenly: {half:?}");
    assert!(half <= last.mul_f64(0.8), "not all at the end: {half:?} of {last:?}");
    assert!(last >= Duration::from_millis(2_700), "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn others_that_can_take_nothing_hold_it_no_longer_than_the_longest_spread() {
    let leaving = leave(100, 1_500, Some(0)).await;

    assert_eq!(leaving.window, serde_json::json!([0, 1_500]));
    let last = leaving.closes[CLIENTS - 1];
    assert!(last >= Duration::from_millis(1_300), "{last:?}");
}
