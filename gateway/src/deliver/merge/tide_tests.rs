//! The tide through the real merger, fan-out and walk, on a simulated clock: when each message leaves, that none waits
//! longer than the longest window, that order holds and nothing is lost. How long a fan-out takes is simulated too: the
//! real one, into memory, is over at once; the topic is told what the test says, when the test says.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use rustix::io::Errno;
use tidegate_protocol::records::Lane;

use super::compressor::Compressor;
use super::{Merger, Terms};
use crate::bucket::Bucket;
use crate::clock::{Clock, Millis};
use crate::config::{DeflateConfig, MergeConfig};
use crate::counters::Totals;
use crate::deliver::fanout::{Fanout, Shape};
use crate::session::Platform;
use crate::topic::target::Target;
use crate::writer::Writer;

/// Keeps what the one connection receives.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Vec<u8>>>);

impl Writer<()> for Recorder {
    fn write(&self, (): &(), parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let mut received = self.0.lock();
        parts.iter().for_each(|part| received.extend_from_slice(part));
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn finish(&self, (): &()) {}
}

/// What left when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flush {
    at: Millis,
    messages: Vec<u32>,
}

/// One target, one connection, one clock.
struct Sim {
    merger: Merger<()>,
    fanout: Arc<Fanout<()>>,
    totals: Arc<Totals>,
    threads: Vec<std::thread::JoinHandle<()>>,
    recorder: Recorder,
    target: Target,
    now: Millis,
    pushed: u32,
    /// When each message was pushed, by its number.
    pushed_at: Vec<Millis>,
    flushes: Vec<Flush>,
    /// Fan-outs on their way: when each ends, and how long it took.
    running: VecDeque<(Millis, u32)>,
    /// What the last fan-out that ended took.
    took_ms: u32,
}

impl Sim {
    fn new(min_ms: u32, max_ms: u32) -> Self {
        let bucket = Bucket::new(0).expect("an epoll set");
        bucket.table.write().insert((), Platform::default(), 1);
        bucket.count_in();
        let (buckets, recorder): (Arc<[Bucket<()>]>, _) = (vec![bucket].into(), Recorder::default());
        let (totals, writer) = (Arc::new(Totals::default()), recorder.clone());
        let clock = Clock::start();
        let shape = Shape { threads: 1, bytes_max: 64 << 20, pending_bytes_max: 64 << 20, clock };
        let (fanout, threads) = Fanout::start(Arc::clone(&buckets), &shape, move || writer.clone()).expect("a thread");
        let config = MergeConfig { min_ms, max_ms, ..MergeConfig::default() };
        let compressor = Compressor::new(&DeflateConfig { level: 0, ..DeflateConfig::default() });
        let merger = Merger::new(&config, compressor, "sim", buckets, Arc::clone(&fanout), Arc::clone(&totals));
        Self {
            target: merger.all.clone(),
            merger,
            fanout,
            totals,
            threads,
            recorder,
            now: 0,
            pushed: 0,
            pushed_at: Vec::new(),
            flushes: Vec::new(),
            running: VecDeque::new(),
            took_ms: 0,
        }
    }

    /// One millisecond: fan-outs end, the tick comes, then `pushes` messages.
    fn step(&mut self, pushes: u32, lane: Lane, fanout_ms: u32) {
        self.now += 1;
        while self.running.front().is_some_and(|(ends, _)| *ends <= self.now) {
            self.took_ms = self.running.pop_front().map_or(0, |(_, took)| took);
            self.target.topic().fanout_us.store(self.took_ms * 1_000, Ordering::Relaxed);
            self.target.topic().in_flight.fetch_sub(1, Ordering::AcqRel);
        }
        if self.now.is_multiple_of(self.merger.tick_ms()) {
            self.merger.tick(self.now);
            self.absorb(fanout_ms);
        }
        for _ in 0..pushes {
            let message = [Bytes::from(self.pushed.to_string())];
            self.pushed += 1;
            self.pushed_at.push(self.now);
            self.merger.push(&self.target, &message, &Terms::plain(lane), self.now);
            self.absorb(fanout_ms);
        }
    }

    fn run(&mut self, until: Millis, period: u32, fanout_ms: u32) {
        while self.now < until {
            let due = u32::from((self.now + 1).is_multiple_of(period));
            self.step(due, Lane::Normal, fanout_ms);
        }
    }

    /// Waits for the real walk of what has been flushed, notes it, and lets the simulated one begin.
    fn absorb(&mut self, fanout_ms: u32) {
        if self.totals.batches.load(Ordering::Relaxed) == self.flushes.len() as u64 {
            return;
        }
        while self.target.topic().in_flight.load(Ordering::Acquire) as usize > self.running.len() {
            std::thread::yield_now();
        }
        self.target.topic().fanout_us.store(self.took_ms * 1_000, Ordering::Relaxed);
        self.target.topic().in_flight.fetch_add(1, Ordering::AcqRel);
        // A bucket walks its batches in order.
        let begins = self.running.back().map_or(self.now, |(ends, _)| *ends);
        self.running.push_back((begins + fanout_ms, fanout_ms));
        let wire = std::mem::take(&mut *self.recorder.0.lock());
        self.flushes.push(Flush { at: self.now, messages: messages(&wire) });
    }

    /// Time between flushes, from the `skip`th on.
    fn gaps(&self, skip: usize) -> Vec<u32> {
        self.flushes[skip..].windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }

    /// The longest that any message waited.
    fn longest_wait(&self) -> u32 {
        let waits = self.flushes.iter().flat_map(|f| f.messages.iter().map(|m| f.at - self.pushed_at[*m as usize]));
        waits.max().unwrap_or(0)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.fanout.stop();
        for thread in self.threads.drain(..) {
            // A fan-out thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// The numbers in PUSH frames.
fn messages(mut wire: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let [_, length, ..] = *wire {
        let (head, len) = match length {
            126 => (4, usize::from(u16::from_be_bytes([wire[2], wire[3]]))),
            127 => panic!("no frame here is that long"),
            short => (2, usize::from(short)),
        };
        let push: serde_json::Value = serde_json::from_slice(&wire[head..head + len]).expect("JSON");
        let messages = push["data"]["items"].as_array().expect("a PUSH").clone();
        numbers.extend(messages.iter().map(|m| u32::try_from(m.as_u64().expect("a number")).expect("small")));
        wire = &wire[head + len..];
    }
    numbers
}

#[test]
fn a_lonely_message_leaves_in_the_millisecond_of_its_push() {
    let mut sim = Sim::new(20, 1_000);

    sim.run(60_000, 1_733, 40);

    assert_eq!(sim.flushes.len(), 34);
    assert_eq!(sim.longest_wait(), 0);
}

#[test]
fn a_hot_target_settles_at_twice_its_fanout_between_the_bounds() {
    for (fanout_ms, window_ms) in [(5, 20), (40, 80), (200, 400), (700, 1_000)] {
        let mut sim = Sim::new(20, 1_000);

        sim.run(20_000, 3, fanout_ms);

        assert!(sim.gaps(2).iter().all(|gap| *gap == window_ms), "{fanout_ms} ms: {:?}", sim.gaps(2));
        assert!(sim.gaps(2).len() >= 16, "{fanout_ms} ms: it goes on flushing");
        assert!(sim.longest_wait() <= 1_000, "{fanout_ms} ms: {} ms", sim.longest_wait());
    }
}

#[test]
fn a_window_follows_its_fanout_when_that_changes() {
    let mut sim = Sim::new(20, 1_000);
    let mut seen = Vec::new();

    for (phase, fanout_ms) in (1..).zip([40, 200, 5, 700, 40]) {
        sim.run(phase * 10_000, 3, fanout_ms);
        seen.push(*sim.gaps(0).last().expect("flushes"));
    }

    assert_eq!(seen, [80, 400, 20, 1_000, 80]);
    assert!(sim.gaps(0).iter().all(|gap| *gap <= 1_000), "{:?}", sim.gaps(0));
    assert!(sim.longest_wait() <= 1_000, "{} ms", sim.longest_wait());
}

#[test]
fn a_fanout_that_never_ends_holds_a_message_no_longer_than_the_longest_window() {
    let mut sim = Sim::new(20, 1_000);
    sim.run(10_000, 3, 700);
    // A window as long as can be, whose own batch is soon over: the next one would be short.
    let before = sim.flushes.len();
    while sim.flushes.len() == before {
        sim.step(1, Lane::Normal, 2);
    }
    for _ in 0..5 {
        sim.step(0, Lane::Normal, 2);
    }

    sim.step(1, Lane::Urgent, 60_000);
    sim.step(1, Lane::Normal, 60_000);
    for _ in 0..3_000 {
        sim.step(0, Lane::Normal, 60_000);
    }

    assert!(sim.longest_wait() <= 1_000, "{} ms", sim.longest_wait());
    assert_eq!(sim.flushes.iter().map(|flush| flush.messages.len()).sum::<usize>(), sim.pushed as usize);
}

#[test]
fn equal_bounds_flush_on_the_second_whatever_the_fanout_takes() {
    for fanout_ms in [1, 900, 1_500] {
        let mut sim = Sim::new(1_000, 1_000);

        sim.run(60_999, 7, fanout_ms);

        let at: Vec<Millis> = sim.flushes.iter().map(|flush| flush.at).collect();
        let seconds: Vec<Millis> = std::iter::once(7).chain((1..=60).map(|second| second * 1_000)).collect();
        assert_eq!(at, seconds, "{fanout_ms} ms");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Bursts and silences, urgent messages, fan-outs that jump between nothing and beyond the longest window.
    #[test]
    fn no_message_waits_longer_than_the_longest_window_and_all_leave_in_order(
        bounds in prop_oneof![Just((20, 1_000)), Just((10, 45)), Just((50, 50)), Just((1, 7)), Just((30, 400))],
        bursts in prop::collection::vec((1u32..900, 0u32..4, any::<bool>(), 0u32..40, 0u32..1_500), 1..40),
    ) {
        let (min_ms, max_ms) = bounds;
        let mut sim = Sim::new(min_ms, max_ms);

        for (pause, pushes, is_urgent, spread, fanout_ms) in bursts {
            for _ in 0..pause {
                sim.step(0, Lane::Normal, fanout_ms);
            }
            let lane = if is_urgent { Lane::Urgent } else { Lane::Normal };
            sim.step(pushes, lane, fanout_ms);
            for _ in 0..spread {
                sim.step(1, Lane::Normal, fanout_ms);
            }
        }
        for _ in 0..=max_ms {
            sim.step(0, Lane::Normal, 0);
        }

        let sent: Vec<u32> = sim.flushes.iter().flat_map(|flush| flush.messages.clone()).collect();
        prop_assert_eq!(sent, (0..sim.pushed).collect::<Vec<_>>());
        prop_assert!(sim.longest_wait() <= max_ms, "{} ms of {}", sim.longest_wait(), max_ms);
    }
}
