//! What a swarm reports: counts over all clients, latency of the sampled ones, when each frame arrived where.
//! A file of its own because threads, processes and reports all add it up. It travels as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::assembly::Frame;
use crate::dialect::content::Content;
use crate::distribution::Distribution;
use crate::ledger::Standing;

/// Frames whose arrival is reported one by one; later ones are only counted.
const ARRIVALS_MAX: usize = 20_000;
/// Distinct odd things named in a report.
const ODDITIES_MAX: usize = 32;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Connections asked for; open now; that could not be opened.
    pub connections: u64,
    pub open: u64,
    pub failed: u64,
    /// Seconds from the first connect to the last client ready.
    pub ramp_s: f64,
    /// Connect to 101, in µs.
    pub handshake_us: Distribution,
    /// Since the last reset, at all clients.
    pub messages: u64,
    /// Of `messages`: those that are in `by_second`.
    #[serde(default)]
    pub noted: u64,
    pub frames: u64,
    pub bytes: u64,
    pub reads: u64,
    pub pings: u64,
    /// Messages by second of CLOCK_MONOTONIC.
    #[serde(default)]
    pub by_second: BTreeMap<u64, u64>,
    /// Client read time − intended send time in µs, at the sampled clients.
    pub latency_us: Distribution,
    /// Messages in a PUSH frame, by frame received.
    pub per_frame: Distribution,
    /// GAP frames by reason, and the messages they name.
    pub gaps: BTreeMap<String, GapCount>,
    /// How connections ended, by close code, `eof` or `reset`, clients that read and clients that had stalled apart.
    pub closed: BTreeMap<String, u64>,
    pub closed_stalled: BTreeMap<String, u64>,
    /// Stalled clients that were told by a GAP or a close code that something is missing.
    pub stalled_told: u64,
    /// Errors, foreign messages, protocol faults: what and how often.
    pub oddities: BTreeMap<String, u64>,
    pub arrivals: Vec<Arrival>,
    /// Judgement of clients that read, and of those told to stall.
    pub standing: Standing,
    pub stalled: Standing,
    /// Highest number + 1 per publisher.
    pub reached: BTreeMap<u32, u32>,
    /// CPU seconds of the swarm's processes since their start.
    pub cpu_s: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapCount {
    pub frames: u64,
    pub messages: u64,
}

/// One frame's way through the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    pub publisher: u32,
    pub first: u32,
    pub last: u32,
    pub intended_ns: u64,
    pub first_ns: u64,
    pub last_ns: u64,
    pub receivers: u64,
}

impl Tally {
    /// Forgets what was measured, keeps who is connected.
    pub fn reset(&mut self) {
        *self = Self {
            connections: self.connections,
            open: self.open,
            failed: self.failed,
            ramp_s: self.ramp_s,
            handshake_us: self.handshake_us.clone(),
            closed: std::mem::take(&mut self.closed),
            closed_stalled: std::mem::take(&mut self.closed_stalled),
            oddities: std::mem::take(&mut self.oddities),
            ..Self::default()
        };
    }

    /// Books what came since the last call under the second of `now_ns`; once for each turn of the loop.
    pub fn note_second(&mut self, now_ns: u64) {
        if self.messages > self.noted {
            *self.by_second.entry(now_ns / 1_000_000_000).or_default() += self.messages - self.noted;
            self.noted = self.messages;
        }
    }

    /// Messages in each second, from the first that saw one to the last; those without one are zeros.
    pub fn seconds(&self) -> Vec<u64> {
        let (first, last) = (self.by_second.first_key_value(), self.by_second.last_key_value());
        let (Some((first, _)), Some((last, _))) = (first, last) else { return Vec::new() };
        (*first..=*last).map(|second| self.by_second.get(&second).copied().unwrap_or(0)).collect()
    }

    pub fn odd(&mut self, what: String) {
        if self.oddities.len() < ODDITIES_MAX || self.oddities.contains_key(&what) {
            *self.oddities.entry(what).or_default() += 1;
        } else {
            *self.oddities.entry("other".to_owned()).or_default() += 1;
        }
    }

    /// Notes the arrival of a frame that is forgotten now.
    pub fn arrival(&mut self, frame: &Frame) {
        let Content::Push(push) = &frame.content else { return };
        let (Some(run), Some(intended_ns)) = (push.runs.first(), push.intended_ns.first()) else { return };
        let arrived = frame.arrival.get();
        if self.arrivals.len() < ARRIVALS_MAX && arrived.receivers > 0 {
            self.arrivals.push(Arrival {
                publisher: run.publisher,
                first: run.first,
                last: run.last,
                intended_ns: *intended_ns,
                first_ns: arrived.first_ns,
                last_ns: arrived.last_ns,
                receivers: arrived.receivers,
            });
        }
    }

    /// Adds what other threads or processes report.
    pub fn merge(&mut self, other: Self) {
        self.connections += other.connections;
        self.open += other.open;
        self.failed += other.failed;
        self.ramp_s = self.ramp_s.max(other.ramp_s);
        self.handshake_us.merge(&other.handshake_us);
        self.messages += other.messages;
        self.noted += other.noted;
        for (second, messages) in other.by_second {
            *self.by_second.entry(second).or_default() += messages;
        }
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.reads += other.reads;
        self.pings += other.pings;
        self.latency_us.merge(&other.latency_us);
        self.per_frame.merge(&other.per_frame);
        for (reason, count) in other.gaps {
            let sum = self.gaps.entry(reason).or_default();
            sum.frames += count.frames;
            sum.messages += count.messages;
        }
        add(&mut self.closed, other.closed);
        add(&mut self.closed_stalled, other.closed_stalled);
        self.stalled_told += other.stalled_told;
        add(&mut self.oddities, other.oddities);
        self.merge_arrivals(other.arrivals);
        self.standing.merge(other.standing);
        self.stalled.merge(other.stalled);
        for (publisher, next) in other.reached {
            let reached = self.reached.entry(publisher).or_default();
            *reached = (*reached).max(next);
        }
        self.cpu_s += other.cpu_s;
    }

    /// The same frame at several threads is one arrival.
    fn merge_arrivals(&mut self, other: Vec<Arrival>) {
        let mut all: BTreeMap<(u32, u32, u32), Arrival> = BTreeMap::new();
        for arrival in std::mem::take(&mut self.arrivals).into_iter().chain(other) {
            let key = (arrival.publisher, arrival.first, arrival.last);
            let merged = all.entry(key).or_insert(Arrival { receivers: 0, ..arrival });
            merged.first_ns = merged.first_ns.min(arrival.first_ns);
            merged.last_ns = merged.last_ns.max(arrival.last_ns);
            merged.receivers += arrival.receivers;
        }
        self.arrivals = all.into_values().collect();
    }
}

fn add(sum: &mut BTreeMap<String, u64>, other: BTreeMap<String, u64>) {
    for (name, count) in other {
        *sum.entry(name).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frame_at_two_threads_is_one_arrival() {
        let arrival = |first_ns, last_ns, receivers| Arrival {
            publisher: 1,
            first: 0,
            last: 9,
            intended_ns: 5,
            first_ns,
            last_ns,
            receivers,
        };
        let mut one = Tally { arrivals: vec![arrival(10, 20, 100)], ..Tally::default() };
        let other = Tally { arrivals: vec![arrival(8, 15, 50)], ..Tally::default() };

        one.merge(other);

        assert_eq!(one.arrivals, [arrival(8, 20, 150)]);
    }

    #[test]
    fn messages_are_booked_once_under_the_second_they_came_in() {
        let mut tally = Tally { messages: 3, ..Tally::default() };
        tally.note_second(7_900_000_000);
        tally.note_second(8_000_000_000);
        tally.messages = 10;
        tally.note_second(9_100_000_000);

        assert_eq!(tally.seconds(), [3, 0, 7]);
        assert!(Tally::default().seconds().is_empty());
    }

    #[test]
    fn a_reset_forgets_measurements_and_keeps_connections() {
        let mut tally = Tally { open: 7, messages: 9, ..Tally::default() };

        tally.reset();

        assert_eq!((tally.open, tally.messages), (7, 0));
    }
}
