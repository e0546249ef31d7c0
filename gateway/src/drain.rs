//! Leaving without a stampede: readiness goes first, then the door, then everyone is told, then connections are closed one by one
//! over `drain.spread_ms`, so that the rest of the fleet gets them at a rate it can take. Pushes are still delivered to those
//! who remain. Invariant: ends at the latest `delay + spread + GRACE` after it began.

use std::time::Duration;

use tidegate_protocol::close::CloseReason;
use tidegate_protocol::reply;

use crate::bucket::{Bucket, outbox, text_frame};
use crate::counters::Delta;
use crate::node::Node;
use crate::writer::KernelWriter;

/// Time between rounds of closes.
const ROUND_MS: u32 = 20;
/// Time for the last closes to be answered.
const GRACE_MS: u32 = 3_000;

/// Runs the whole procedure.
pub(crate) async fn run(node: &Node) {
    node.set_draining();
    node.interest.changed.notify_waiters();
    let config = &node.config.drain;
    tracing::info!(connections = node.connections(), spread_ms = config.spread_ms, "draining");
    tokio::time::sleep(Duration::from_millis(u64::from(config.delay_ms))).await;
    node.set_closed_to_strangers();
    for bucket in node.buckets.iter() {
        go_away(node, bucket);
    }
    close_all(node).await;
    node.merger.flush_all(node.clock.now());
    wait_for_silence(node).await;
    tracing::info!(left = node.connections(), "drained");
}

/// GOAWAY to everyone (rule E-4), with a time to come back that spreads them.
fn go_away(node: &Node, bucket: &Bucket) {
    let spread = node.config.drain.spread_ms;
    let mut json = Vec::new();
    reply::goaway(&mut json, CloseReason::Draining.label(), (0, spread.max(node.config.reconnect.base_ms)));
    let frame = text_frame(&json);
    let mut d = Delta::default();
    let table = bucket.table.read();
    for hot in table.hot.iter().filter(|h| h.fd.is_some()) {
        let now = node.clock.now();
        // A peer with no room for it learns the same from the close.
        let _ = outbox::send_control(&KernelWriter, hot, frame.clone(), false, node.config.pending.bytes, now, &mut d);
    }
    drop(table);
    bucket.counters.add(&d);
}

/// Closes connections at an even rate over the spread.
async fn close_all(node: &Node) {
    let total = node.connections();
    let rounds = (node.config.drain.spread_ms / ROUND_MS).max(1) as usize;
    let mut round = 0;
    let mut told = 0;
    let mut rest = targets(node).into_iter();
    let mut clock = tokio::time::interval(Duration::from_millis(u64::from(ROUND_MS)));
    while told < total && round < rounds {
        clock.tick().await;
        round += 1;
        let due = total * round / rounds;
        for (index, slot, generation) in rest.by_ref().take(due - told) {
            let after = fastrand::u32(..=node.config.reconnect.base_ms * 2);
            node.buckets[usize::from(index)].close(slot, generation, CloseReason::Draining, Some(after));
        }
        told = due;
    }
    // Whoever came through the door while it was closing; for the others this says nothing new.
    for (index, slot, generation) in targets(node) {
        node.buckets[usize::from(index)].close(slot, generation, CloseReason::Draining, Some(0));
    }
}

/// Every connection, one bucket after the other in turns, so that each round touches many buckets a little.
#[expect(clippy::cast_possible_truncation, reason = "slots fit 32 bits")]
fn targets(node: &Node) -> Vec<(u16, u32, u32)> {
    let mut all: Vec<(u16, u32, u32)> = Vec::with_capacity(node.connections());
    for bucket in node.buckets.iter() {
        let table = bucket.table.read();
        let live = table.hot.iter().enumerate().filter(|(_, h)| h.fd.is_some());
        all.extend(live.map(|(slot, h)| (bucket.index, slot as u32, h.generation)));
    }
    all.sort_unstable_by_key(|&(bucket, slot, _)| (slot, bucket));
    all
}

async fn wait_for_silence(node: &Node) {
    let mut waited = 0;
    while waited < GRACE_MS && (node.connections() > 0 || !node.fanout.is_quiet()) {
        tokio::time::sleep(Duration::from_millis(u64::from(ROUND_MS))).await;
        waited += ROUND_MS;
    }
}
