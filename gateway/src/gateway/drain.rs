//! Leaving without a stampede: readiness goes first, then the door, then everyone is told, then connections are closed one by one
//! at the rate that the rest of the fleet can take (`drain_rate`). Pushes are still delivered to those who remain.
//! Invariant: ends at the latest `delay + WORD_WAIT + spread_max + GRACE` after it began.

use std::time::Duration;

use tidegate_protocol::close::CloseReason;
use tidegate_protocol::reply;

use crate::bucket::{Bucket, text_frame};
use crate::counters::Delta;
use crate::gateway::drain_rate::DrainRate;
use crate::gateway::node::Node;
use crate::key::ConnectionKey;

/// Time between rounds of closes.
const ROUND_MS: u32 = 20;
/// Longest wait for what logic says once it knows that this gateway leaves, and perhaps others with it.
const WORD_WAIT_MS: u32 = 300;
/// Time for the last closes to be answered.
const GRACE_MS: u32 = 3_000;

/// Runs the whole procedure.
pub(crate) async fn run(node: &Node) {
    let words = node.backplane.feed.spare.words();
    node.lifecycle.set_draining();
    node.interest.changed.notify_waiters();
    let config = &node.config.drain;
    tracing::info!(connections = node.population.connections(), spread_ms = config.spread_ms, "draining");
    tokio::time::sleep(Duration::from_millis(u64::from(config.delay_ms))).await;
    node.lifecycle.set_closed_to_strangers();
    let others = rest_of_the_fleet(node, words).await;
    let total = node.population.connections();
    let mut rate = DrainRate::new(total, config.spread_ms, config.spread_max_ms, others, node.clock.now());
    tracing::info!(per_s = rate.per_s(), ?others, "closing connections");
    let window_ms = rate.expected_ms().max(node.config.reconnect.base_ms);
    for bucket in node.buckets.iter() {
        go_away(node, bucket, window_ms);
    }
    close_all(node, &mut rate, total).await;
    node.backplane.feed.spare.set_closes(0.0);
    node.merger.flush_all(node.clock.now());
    wait_for_silence(node).await;
    tracing::info!(left = node.population.connections(), "drained");
}

/// What the others can take, said after logic has heard that this gateway leaves: what was said before may be promised to
/// several that leave together, and what GOAWAY says cannot be taken back.
async fn rest_of_the_fleet(node: &Node, words: u32) -> Option<u32> {
    let mut waited = 0;
    while waited < WORD_WAIT_MS
        && node.backplane.feed.spare.words() == words
        && node.backplane.feed.spare.others(node.clock.now()).is_some()
    {
        tokio::time::sleep(Duration::from_millis(u64::from(ROUND_MS))).await;
        waited += ROUND_MS;
    }
    node.backplane.feed.spare.others(node.clock.now())
}

/// GOAWAY to everyone (rule E-4), with a time to come back that spreads them over what the drain will take.
fn go_away(node: &Node, bucket: &Bucket, window_ms: u32) {
    let mut json = Vec::new();
    reply::goaway(&mut json, CloseReason::Draining.label(), (0, window_ms));
    let frame = text_frame(&json);
    let mut d = Delta::default();
    let table = bucket.table.read();
    for hot in table.hot.iter().filter(|h| h.fd.is_some()) {
        // A peer with no room for it learns the same from the close.
        let _ = node.control.control(hot, frame.clone(), &mut d);
    }
    drop(table);
    bucket.counters.add(&d);
}

/// Closes connections at the pace, those who leave by themselves included.
async fn close_all(node: &Node, rate: &mut DrainRate, total: usize) {
    let mut closed = 0;
    let mut rest = targets(node).into_iter();
    let mut clock = tokio::time::interval(Duration::from_millis(u64::from(ROUND_MS)));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while rest.len() > 0 && node.population.connections() > 0 {
        clock.tick().await;
        rate.hear(node.backplane.feed.spare.others(node.clock.now()));
        node.backplane.feed.spare.set_closes(rate.per_s());
        // Whoever has heeded GOAWAY is on the way to the others already.
        let gone = total.saturating_sub(node.population.connections()).max(closed);
        let due = rate.due(node.clock.now());
        let now = rest.by_ref().filter(|target| is_here(node, *target)).take(due.saturating_sub(gone));
        for key in now {
            let after = fastrand::u32(..=node.config.reconnect.base_ms * 2);
            node.buckets[usize::from(key.bucket)].close(key.at, CloseReason::Draining, Some(after));
            closed += 1;
        }
        if due >= total {
            break;
        }
    }
    // Whoever came through the door while it was closing; a bucket passes over those that it was asked for before.
    for key in targets(node) {
        node.buckets[usize::from(key.bucket)].close(key.at, CloseReason::Draining, Some(0));
    }
}

fn is_here(node: &Node, key: ConnectionKey) -> bool {
    node.buckets[usize::from(key.bucket)].table.read().find(key.at).is_some()
}

/// Every connection, one bucket after the other in turns, so that each round touches many buckets a little.
#[expect(clippy::cast_possible_truncation, reason = "slots fit 32 bits")]
fn targets(node: &Node) -> Vec<ConnectionKey> {
    let mut all: Vec<ConnectionKey> = Vec::with_capacity(node.population.connections());
    for bucket in node.buckets.iter() {
        let table = bucket.table.read();
        let live = table.hot.iter().enumerate().filter(|(_, h)| h.fd.is_some());
        all.extend(live.map(|(slot, _)| bucket.at(table.key(slot as u32))));
    }
    all.sort_unstable_by_key(|key| (key.at.slot, key.bucket));
    all
}

async fn wait_for_silence(node: &Node) {
    let mut waited = 0;
    while waited < GRACE_MS && (node.population.connections() > 0 || !node.fanout.is_quiet()) {
        tokio::time::sleep(Duration::from_millis(u64::from(ROUND_MS))).await;
        waited += ROUND_MS;
    }
}
