//! Strangers beyond the rate, on real sockets: they wait in the kernel's queue, and only what that cannot hold is refused,
//! with a time to come back; nothing of them stays.

mod support;

use std::collections::BTreeMap;
use std::time::Instant;

use support::{Client, PATIENCE, gateway, metric};
use tidegate_gateway::{Gateway, GatewayConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const HEAD: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// So many a second, however busy the machine of the test is.
fn rate(config: &mut GatewayConfig, per_s: u32) {
    config.handshake.rate_max = per_s;
    config.handshake.lag_ms = 60_000;
}

/// What a stranger gets: the connection itself when it is let in, else status and `Retry-After`.
enum Answer {
    In(TcpStream),
    Refused { retry_after_s: u64, body: String },
}

async fn knock(gateway: &Gateway) -> Answer {
    let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("a place in the queue");
    // The gateway may have refused already.
    let _ = socket.write_all(HEAD.as_bytes()).await;
    let mut answer = Vec::new();
    let deadline = tokio::time::Instant::now() + 4 * PATIENCE;
    while !answer.ends_with(b"}") && !answer.windows(12).any(|w| w == b"\"type\":\"HELL") {
        let mut chunk = [0; 2048];
        let read = tokio::time::timeout_at(deadline, socket.read(&mut chunk)).await.expect("an answer in time");
        match read.expect("an answer before the end") {
            0 => break,
            n => answer.extend_from_slice(&chunk[..n]),
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    if text.starts_with("HTTP/1.1 101 ") {
        return Answer::In(socket);
    }
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
    let seconds = text.lines().find_map(|l| l.strip_prefix("Retry-After: ")).and_then(|s| s.parse().ok());
    Answer::Refused { retry_after_s: seconds.expect("a 503 says when to come back"), body: text }
}

/// 20 a second: one burst is let in, two seconds' worth wait in the queue, the rest is refused at once and spread.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_rate_strangers_wait_and_beyond_that_they_are_refused_with_a_time() {
    let gateway = std::sync::Arc::new(gateway(|c| rate(c, 20)).await);
    let begun = Instant::now();
    let mut knocks = JoinSet::new();
    for _ in 0..200 {
        let gateway = std::sync::Arc::clone(&gateway);
        knocks.spawn(async move { knock(&gateway).await });
    }

    let (mut inside, mut seconds) = (Vec::new(), BTreeMap::new());
    while let Some(answer) = knocks.join_next().await {
        match answer.expect("no panic") {
            Answer::In(socket) => inside.push((socket, begun.elapsed())),
            Answer::Refused { retry_after_s, body } => {
                assert!(body.contains(r#""code":"overloaded""#) && body.contains(r#""retryable":true"#), "{body}");
                *seconds.entry(retry_after_s).or_insert(0) += 1;
            }
        }
    }

    let last = inside.iter().map(|(_, at)| *at).max().expect("some are let in");
    assert!(inside.len() >= 30, "the burst and those who could wait two seconds: {}", inside.len());
    assert!(inside.len() as f64 <= 2.0 + 20.0 * last.as_secs_f64() + 2.0, "{} within {last:?}", inside.len());
    // Their number says how long they waited, whatever the machine of the test does beside it: at this rate 100 take 5 s.
    assert!(inside.len() < 100, "nobody waits much longer than two seconds: {}", inside.len());
    let refused: u64 = seconds.values().sum();
    assert_eq!(inside.len() as u64 + refused, 200, "everybody is answered");
    assert!(seconds.len() >= 4, "spread over seconds: {seconds:?}");
    assert_eq!(metric(&gateway, "tidegate_gateway_turned_away_total"), refused);
    assert_eq!(metric(&gateway, "tidegate_gateway_handshakes_refused_total{code=\"overloaded\"}"), refused);
    assert_eq!(metric(&gateway, "tidegate_gateway_handshakes"), 0, "no guest is left of the refused");
    assert_eq!(metric(&gateway, "tidegate_gateway_accept_queue"), 0);
}

/// The door is not shut for longer than the storm lasts.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_storm_a_stranger_gets_in_at_once() {
    let gateway = std::sync::Arc::new(gateway(|c| rate(c, 50)).await);
    let mut knocks = JoinSet::new();
    for _ in 0..300 {
        let gateway = std::sync::Arc::clone(&gateway);
        knocks.spawn(async move { knock(&gateway).await });
    }
    let answers = knocks.join_all().await;
    assert!(answers.iter().any(|a| matches!(a, Answer::Refused { .. })), "300 at once are too many for 50 a second");

    // Whoever is not let in at once is refused, or has to wait for the rate: one place comes free in 20 ms.
    Client::connect(&gateway, "").await;

    assert_eq!(metric(&gateway, "tidegate_gateway_accept_rate"), 50);
}
