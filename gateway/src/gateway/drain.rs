//! Leaving without a stampede: readiness goes first, then the door, then everyone is told, then connections are closed one by one
//! at the rate that the rest of the fleet can take (`drain_rate`). Pushes are still delivered to those who remain.
//! Invariants: what was accepted before anyone is told is delivered before anyone is closed; ends at the latest
//! `delay + FLUSH_WAIT + WORD_WAIT + spread_max + GRACE` after it began.

use std::sync::Arc;
use std::time::Duration;

use tidegate_protocol::close::CloseReason;
use tidegate_protocol::reply;

use super::drain_rate::DrainRate;
use crate::backplane::Backplane;
use crate::bucket::{Bucket, text_frame};
use crate::clock::Millis;
use crate::config::DrainConfig;
use crate::connection::host::Host;
use crate::counters::Delta;
use crate::deliver::fanout::Fanout;
use crate::deliver::merge::Merger;
use crate::key::ConnectionKey;
use crate::rooms::interest::Interest;

/// Time between rounds of closes.
const ROUND_MS: u32 = 20;
/// Longest wait for what logic says once it knows that this gateway leaves, and perhaps others with it.
const WORD_WAIT_MS: u32 = 300;
/// Longest wait until what had gathered is written; while pushes go on, the fan-out may never be quiet.
const FLUSH_WAIT_MS: u32 = 300;
/// Time for the last closes to be answered.
const GRACE_MS: u32 = 3_000;

/// What a gateway that leaves has to let go of.
#[derive(Debug)]
pub(crate) struct Drain {
    pub plan: DrainConfig,
    /// What clients are told of coming back.
    pub reconnect_base_ms: u32,
    pub host: Arc<Host>,
    pub interest: Arc<Interest>,
    /// Where logic says what the rest of the fleet can take.
    pub backplane: Arc<Backplane>,
    pub merger: Arc<Merger>,
    pub fanout: Arc<Fanout>,
}

impl Drain {
    /// Runs the whole procedure.
    pub async fn run(&self) {
        let words = self.backplane.feed.spare.words();
        self.host.lifecycle.set_draining();
        self.interest.changed.notify_waiters();
        let DrainConfig { delay_ms, spread_ms, spread_max_ms, .. } = self.plan;
        tracing::info!(connections = self.connections(), spread_ms, "draining");
        tokio::time::sleep(Duration::from_millis(u64::from(delay_ms))).await;
        self.host.lifecycle.set_closed_to_strangers();
        self.deliver_gathered().await;
        let others = self.rest_of_the_fleet(words).await;
        let total = self.connections();
        let mut rate = DrainRate::new(total, spread_ms, spread_max_ms, others, self.now());
        tracing::info!(per_s = rate.per_s(), ?others, "closing connections");
        let window_ms = rate.expected_ms().max(self.reconnect_base_ms);
        for bucket in self.host.buckets.iter() {
            self.go_away(bucket, window_ms);
        }
        self.close_all(&mut rate, total).await;
        self.backplane.feed.spare.set_closes(0.0);
        self.merger.flush_all(self.now());
        self.wait_for_silence().await;
        tracing::info!(left = self.connections(), "drained");
    }

    /// Whoever is closed gets no more of a window that is open: those of now end first.
    async fn deliver_gathered(&self) {
        self.merger.flush_all(self.now());
        let mut waited = 0;
        while waited < FLUSH_WAIT_MS && !self.fanout.is_quiet() {
            tokio::time::sleep(Duration::from_millis(u64::from(ROUND_MS))).await;
            waited += ROUND_MS;
        }
    }

    /// What the others can take, said after logic has heard that this gateway leaves: what was said before may be promised to
    /// several that leave together, and what GOAWAY says cannot be taken back.
    async fn rest_of_the_fleet(&self, words: u32) -> Option<u32> {
        let mut waited = 0;
        while waited < WORD_WAIT_MS
            && self.backplane.feed.spare.words() == words
            && self.backplane.feed.spare.others(self.now()).is_some()
        {
            tokio::time::sleep(Duration::from_millis(u64::from(ROUND_MS))).await;
            waited += ROUND_MS;
        }
        self.backplane.feed.spare.others(self.now())
    }

    /// GOAWAY to everyone (rule E-4), with a time to come back that spreads them over what the drain will take.
    fn go_away(&self, bucket: &Bucket, window_ms: u32) {
        let mut json = Vec::new();
        reply::goaway(&mut json, CloseReason::Draining.label(), (0, window_ms));
        let frame = text_frame(&json);
        let mut d = Delta::default();
        let table = bucket.table.read();
        for hot in table.hot.iter().filter(|h| h.fd.is_some()) {
            // A peer with no room for it learns the same from the close.
            let _ = self.host.control().control(hot, frame.clone(), &mut d);
        }
        drop(table);
        bucket.counters.add(&d);
    }

    /// Closes connections at the pace, those who leave by themselves included.
    async fn close_all(&self, rate: &mut DrainRate, total: usize) {
        let mut closed = 0;
        let mut rest = self.targets().into_iter();
        let mut clock = tokio::time::interval(Duration::from_millis(u64::from(ROUND_MS)));
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while rest.len() > 0 && self.connections() > 0 {
            clock.tick().await;
            rate.hear(self.backplane.feed.spare.others(self.now()));
            self.backplane.feed.spare.set_closes(rate.per_s());
            // Whoever has heeded GOAWAY is on the way to the others already.
            let gone = total.saturating_sub(self.connections()).max(closed);
            let due = rate.due(self.now());
            let now = rest.by_ref().filter(|target| self.is_here(*target)).take(due.saturating_sub(gone));
            for key in now {
                let after = fastrand::u32(..=self.reconnect_base_ms * 2);
                self.host.buckets[usize::from(key.bucket)].close(key.at, CloseReason::Draining, Some(after));
                closed += 1;
            }
            if due >= total {
                break;
            }
        }
        // Whoever came through the door while it was closing; a bucket passes over those that it was asked for before.
        for key in self.targets() {
            self.host.buckets[usize::from(key.bucket)].close(key.at, CloseReason::Draining, Some(0));
        }
    }

    fn is_here(&self, key: ConnectionKey) -> bool {
        self.host.buckets[usize::from(key.bucket)].table.read().find(key.at).is_some()
    }

    /// Every connection, one bucket after the other in turns, so that each round touches many buckets a little.
    #[expect(clippy::cast_possible_truncation, reason = "slots fit 32 bits")]
    fn targets(&self) -> Vec<ConnectionKey> {
        let mut all: Vec<ConnectionKey> = Vec::with_capacity(self.connections());
        for bucket in self.host.buckets.iter() {
            let table = bucket.table.read();
            let live = table.hot.iter().enumerate().filter(|(_, h)| h.fd.is_some());
            all.extend(live.map(|(slot, _)| bucket.at(table.key(slot as u32))));
        }
        all.sort_unstable_by_key(|key| (key.at.slot, key.bucket));
        all
    }

    fn connections(&self) -> usize {
        self.host.opener.population.connections()
    }

    fn now(&self) -> Millis {
        self.host.clock().now()
    }

    async fn wait_for_silence(&self) {
        let mut waited = 0;
        while waited < GRACE_MS && (self.connections() > 0 || !self.fanout.is_quiet()) {
            tokio::time::sleep(Duration::from_millis(u64::from(ROUND_MS))).await;
            waited += ROUND_MS;
        }
    }
}
