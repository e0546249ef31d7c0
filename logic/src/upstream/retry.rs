//! What a lane does after each answer: go on, try again later, send less, or give a message up. Pure; the waits are
//! arguments of randomness, so that they are tested without a clock.
//!
//! ```text
//!               taken: next batch                      4xx: half of it at once, until one message is alone: dead letter
//!   Whole ─────────────────────────▶ Whole ──────────▶ Suspect ─────▶ … ─────▶ Whole
//!                                      │                  ▲
//!                                      └── 5xx, silence ──┘  waits, from the second failure on with half of it
//! ```
//!
//! A sink that is down must not make dead letters, a message that it chokes on must not hold its lane for ever. So a failure
//! counts against a message only if the sink took something else since the failure before; while nothing else is under way, the
//! lane tries another user's message for that. Invariant: a message is given up
//! only when it was alone in its request, or is older than `age_max_ms` and has failed twice (a clock that jumps ahead makes
//! everything look old).

use std::collections::VecDeque;
use std::time::Duration;

use super::outlet::Fault;
use crate::config::SinkConfig;

/// How long a message that was given up counts against its user: long beside the minutes that one can hold a lane.
const STRIKE_MS: u64 = 60 * 60 * 1_000;
/// Users of a lane that are remembered for it; the longest ago makes room.
const STRIKES_MAX: usize = 64;
/// Doublings after which the back-off is at its longest for any configuration.
const DOUBLINGS_MAX: u32 = 20;

/// The request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Messages in it.
    pub messages: usize,
    /// Number of its last.
    pub last: u64,
    /// When its first was accepted.
    pub oldest_ms: u64,
    /// Whose its first is.
    pub shard: u32,
    /// What the sink has taken of any lane by now.
    pub taken: u64,
    /// Now, Unix milliseconds.
    pub now_ms: u64,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The same messages, or the first of them, at once.
    Again,
    /// The same after this time.
    Wait(Duration),
    /// The first message is a dead letter.
    Bury(String),
    /// All messages older than the bound are dead letters.
    Expire,
}

/// A lane's memory of its failures.
#[derive(Debug)]
pub struct RetryPolicy {
    most: usize,
    attempts_max: u32,
    age_max_ms: u64,
    base: Duration,
    longest: Duration,
    /// Most messages of the next request.
    limit: usize,
    /// While the lane is within these numbers, `limit` stays.
    suspects_to: u64,
    /// Failures since the last success.
    failures: u32,
    /// Those that are the first message's own.
    blamed: u32,
    /// What the sink had taken at the last failure.
    others: u64,
    /// Whether another's message may tell what the last failure was due to; not asked yet.
    is_open: bool,
    /// Whose messages were given up, how many, when the last.
    strikes: VecDeque<(u32, u32, u64)>,
}

impl RetryPolicy {
    /// A lane without failures.
    #[must_use]
    pub fn new(sink: &SinkConfig) -> Self {
        Self {
            most: sink.batch_messages,
            attempts_max: sink.attempts_max,
            age_max_ms: sink.age_max_ms,
            base: Duration::from_millis(u64::from(sink.retry_base_ms)),
            longest: Duration::from_millis(u64::from(sink.retry_max_ms)),
            limit: sink.batch_messages,
            suspects_to: 0,
            failures: 0,
            blamed: 0,
            others: 0,
            is_open: false,
            strikes: VecDeque::new(),
        }
    }

    /// Most messages of the next request.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How often the first message has been sent in vain.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The sink has them.
    pub fn taken(&mut self, asked: Asked) {
        (self.failures, self.blamed, self.is_open) = (0, 0, false);
        if asked.last >= self.suspects_to {
            self.limit = self.most;
        }
    }

    /// The first message is a dead letter now.
    pub fn buried(&mut self) {
        (self.failures, self.blamed, self.limit, self.suspects_to) = (0, 0, self.most, 0);
        self.is_open = false;
    }

    /// The sink will never take this request.
    pub fn never(&mut self, asked: Asked, fault: &Fault) -> Step {
        self.failures += 1;
        if asked.messages > 1 {
            self.suspect(asked);
            return Step::Again;
        }
        Step::Bury(fault.words.clone())
    }

    /// It may take it later, at the earliest `after`; `chance` is from 0 to 1.
    pub fn later(&mut self, asked: Asked, fault: &Fault, after: Option<Duration>, chance: f64) -> Step {
        let Asked { taken, now_ms, .. } = asked;
        self.failures = self.failures.saturating_add(1);
        let is_blamed = self.failures > 1 && taken != self.others;
        self.blamed += u32::from(is_blamed);
        self.others = taken;
        self.is_open = self.failures > 1 && (asked.messages == 1 || fault.is_silence);
        if asked.messages == 1 && self.blamed >= self.attempts_of(asked.shard, now_ms) {
            self.strike(asked.shard, now_ms);
            return Step::Bury(fault.words.clone());
        }
        if self.failures > 1 && now_ms.saturating_sub(asked.oldest_ms) > self.age_max_ms {
            return Step::Expire;
        }
        // Silence and refused connections say nothing about the messages, unless others got through.
        if self.failures > 1 && (!fault.is_silence || is_blamed) && asked.messages > 1 {
            self.suspect(asked);
        }
        Step::Wait(self.back_off(chance).max(after.unwrap_or_default()))
    }

    /// Whether another user's message is to be tried before the lane's first: once a failure, when the sink has taken nothing
    /// since, so that only that can tell a sink that is down from one that chokes on the first.
    pub fn wants_another(&mut self, taken: u64) -> bool {
        std::mem::take(&mut self.is_open) && taken == self.others
    }

    /// Failures that a message of this user has: half as many for each that was given up lately, so that a user whose every
    /// message the sink chokes on holds up the others of the lane for minutes in all and not for minutes each.
    fn attempts_of(&self, shard: u32, now_ms: u64) -> u32 {
        let is_recent =
            |(user, _, at_ms): &&(u32, u32, u64)| *user == shard && now_ms.saturating_sub(*at_ms) < STRIKE_MS;
        let strikes = self.strikes.iter().find(is_recent).map_or(0, |(_, strikes, _)| *strikes);
        (self.attempts_max >> strikes.min(31)).max(1)
    }

    fn strike(&mut self, shard: u32, now_ms: u64) {
        let is_first = self.attempts_of(shard, now_ms) == self.attempts_max;
        let at = self.strikes.iter().position(|(user, ..)| *user == shard);
        let before = at.and_then(|at| self.strikes.remove(at)).map_or(0, |(_, strikes, _)| strikes);
        if self.strikes.len() == STRIKES_MAX {
            self.strikes.pop_front();
        }
        self.strikes.push_back((shard, if is_first { 1 } else { before + 1 }, now_ms));
    }

    fn suspect(&mut self, asked: Asked) {
        self.limit = (asked.messages / 2).max(1);
        self.suspects_to = self.suspects_to.max(asked.last);
    }

    /// Full jitter: anything up to the bound, so that lanes and nodes that failed together do not come back together.
    fn back_off(&self, chance: f64) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(DOUBLINGS_MAX);
        let bound = self.base.saturating_mul(1 << doublings).min(self.longest);
        bound.mul_f64(chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy::new(&SinkConfig { attempts_max: 3, age_max_ms: 60_000, ..SinkConfig::default() })
    }

    fn asked(messages: usize, last: u64) -> Asked {
        Asked { messages, last, oldest_ms: 0, shard: 0, taken: 0, now_ms: 0 }
    }

    /// The same when so much was taken, at another time.
    fn at(asked: Asked, taken: u64, now_ms: u64) -> Asked {
        Asked { taken, now_ms, ..asked }
    }

    fn status(status: u16) -> Fault {
        Fault { label: "status", words: format!("status {status}"), is_silence: false }
    }

    fn silence() -> Fault {
        Fault { label: "timeout", words: "no answer in time".into(), is_silence: true }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_random_below() {
        let mut policy = policy();
        let mut waits = Vec::new();
        for _ in 0..12 {
            let Step::Wait(wait) = policy.later(asked(1, 1), &status(500), None, 1.0) else { panic!("it waits") };
            waits.push(wait.as_millis());
        }

        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 30_000);
        assert_eq!(policy.later(asked(1, 1), &status(500), None, 0.0), Step::Wait(Duration::ZERO));
    }

    #[test]
    fn the_sinks_wish_to_wait_is_a_least_and_no_most() {
        let after = Some(Duration::from_secs(7));

        assert_eq!(policy().later(asked(1, 1), &status(429), after, 0.5), Step::Wait(Duration::from_secs(7)));
    }

    #[test]
    fn one_bad_message_of_a_hundred_is_found_by_halving() {
        let mut policy = policy();
        let (bad, mut at, mut requests, mut buried) = (37_u64, 1_u64, 0, Vec::new());
        while at <= 100 {
            let messages = policy.limit().min(101 - at as usize);
            let asked = asked(messages, at + messages as u64 - 1);
            requests += 1;
            if (at..=asked.last).contains(&bad) && !buried.contains(&bad) {
                match policy.never(asked, &status(400)) {
                    Step::Again => {}
                    Step::Bury(why) => {
                        assert_eq!(why, "status 400");
                        buried.push(at);
                        policy.buried();
                        at += 1;
                    }
                    other => panic!("{other:?}"),
                }
            } else {
                policy.taken(asked);
                at = asked.last + 1;
            }
        }

        assert_eq!(buried, [bad]);
        assert!(requests <= 16, "{requests} requests");
        assert_eq!(policy.limit(), 100);
    }

    #[test]
    fn a_sink_that_is_down_makes_no_dead_letters_before_their_age() {
        let mut policy = policy();
        for _ in 0..1_000 {
            let step = policy.later(at(asked(1, 1), 5, 59_000), &status(500), None, 0.5);
            assert!(matches!(step, Step::Wait(_)), "{step:?}");
        }

        assert_eq!(policy.later(at(asked(1, 1), 5, 60_001), &status(500), None, 0.5), Step::Expire);
    }

    #[test]
    fn one_failure_makes_nothing_too_old() {
        let mut policy = policy();
        let fails = |policy: &mut RetryPolicy| policy.later(at(asked(1, 1), 0, 90_000), &silence(), None, 0.0);
        assert_eq!(fails(&mut policy), Step::Wait(Duration::ZERO));
        policy.taken(asked(1, 1));

        assert_eq!([fails(&mut policy), fails(&mut policy)], [Step::Wait(Duration::ZERO), Step::Expire]);
    }

    #[test]
    fn a_message_that_alone_fails_while_others_get_through_is_given_up() {
        let mut policy = policy();
        let mut steps = Vec::new();
        for taken in 0..4 {
            steps.push(policy.later(at(asked(1, 1), taken, 0), &status(500), None, 0.0));
        }

        assert_eq!(steps[3], Step::Bury("status 500".into()));
        assert!(steps[..3].iter().all(|step| matches!(step, Step::Wait(_))), "{steps:?}");
    }

    #[test]
    fn a_user_whose_messages_are_given_up_holds_the_lane_less_each_time_for_an_hour() {
        let mut policy = RetryPolicy::new(&SinkConfig { attempts_max: 20, ..SinkConfig::default() });
        let mut taken = 0;
        let mut failures = |policy: &mut RetryPolicy, shard, now_ms| {
            let asked = Asked { shard, oldest_ms: now_ms, ..asked(1, 1) };
            let fails = |_: &u32| {
                taken += 1;
                !matches!(policy.later(at(asked, taken, now_ms), &status(500), None, 0.0), Step::Bury(_))
            };
            let count = (1..100).take_while(fails).count();
            policy.buried();
            count
        };

        assert_eq!([0; 7].map(|_| failures(&mut policy, 7, 0)), [20, 10, 5, 2, 1, 1, 1]);
        assert_eq!(failures(&mut policy, 8, 0), 20, "others have theirs");
        assert_eq!(failures(&mut policy, 7, STRIKE_MS), 20);
        assert_eq!(failures(&mut policy, 7, STRIKE_MS), 10);
        for shard in 100..200 {
            failures(&mut policy, shard, STRIKE_MS);
        }
        assert_eq!(policy.strikes.len(), STRIKES_MAX);
    }

    #[test]
    fn a_batch_is_never_given_up_whole_but_shrinks_until_one_is_alone() {
        let mut policy = policy();
        let mut sizes = Vec::new();
        for taken in 0..20 {
            let messages = policy.limit();
            sizes.push(messages);
            if policy.later(at(asked(messages, messages as u64), taken, 0), &status(500), None, 0.0)
                == Step::Bury("status 500".into())
            {
                break;
            }
        }

        assert_eq!(sizes, [100, 100, 50, 25, 12, 6, 3, 1]);
    }

    #[test]
    fn another_is_tried_once_a_failure_from_the_second_on_while_nothing_is_taken() {
        let mut policy = policy();
        policy.later(asked(1, 1), &status(500), None, 0.0);
        assert!(!policy.wants_another(0), "one failure is nothing");

        policy.later(asked(1, 1), &status(500), None, 0.0);
        assert!(policy.wants_another(0) && !policy.wants_another(0));
        policy.later(asked(1, 1), &status(500), None, 0.0);
        assert!(!policy.wants_another(1), "something was taken");
        policy.later(at(asked(2, 2), 1, 0), &status(500), None, 0.0);
        assert!(!policy.wants_another(1), "halves come first");
        policy.later(at(asked(2, 2), 1, 0), &silence(), None, 0.0);
        policy.taken(asked(2, 2));
        assert!(!policy.wants_another(1), "it was taken");
    }

    #[test]
    fn silence_shrinks_batches_when_others_get_through() {
        let mut policy = policy();
        for taken in 0..3 {
            policy.later(at(asked(100, 100), taken, 0), &silence(), None, 0.0);
        }

        assert_eq!(policy.limit(), 50);
    }

    #[test]
    fn silence_does_not_shrink_batches() {
        let mut policy = policy();
        for _ in 0..10 {
            policy.later(asked(100, 100), &silence(), None, 0.0);
        }

        assert_eq!(policy.limit(), 100);
    }
}
