//! What one connection saw of a publisher that sends at a fixed rate, and whether that is all it should have seen.
//! Every message carries the time at which it was due, so a connection that came late or left early can be judged too:
//! whatever was due after it was open, and flushed before it ended, must be there, once and in order.

use serde::{Deserialize, Serialize};

use crate::dialect::content::Push;

/// The publisher whose messages are judged.
pub const PUBLISHER: u32 = 0;
/// Faults described one by one.
const EXAMPLES_MAX: usize = 8;

/// What is known of the publisher and of the server's promises.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Between two messages.
    pub period_ns: u64,
    /// From a message's due time to the end of its window, at the latest: what is younger may have died with a gateway's
    /// connection before it was flushed.
    pub flush_ns: u64,
}

/// What was wrong, summed over connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Messages missing between two that came.
    pub holes: u64,
    /// Messages that came again, or late.
    pub duplicated: u64,
    /// Messages due after a connection was open that came before its first.
    pub missed_at_start: u64,
    /// Messages due well before a connection ended that it never got.
    pub missed_at_end: u64,
    pub gaps: u64,
    pub examples: Vec<String>,
}

impl Faults {
    pub fn count(&self) -> u64 {
        self.holes + self.duplicated + self.missed_at_start + self.missed_at_end + self.gaps
    }

    pub fn merge(&mut self, other: Self) {
        self.holes += other.holes;
        self.duplicated += other.duplicated;
        self.missed_at_start += other.missed_at_start;
        self.missed_at_end += other.missed_at_end;
        self.gaps += other.gaps;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }

    pub(super) fn example(&mut self, what: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what());
        }
    }
}

/// One connection's view.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Witness {
    opened_ns: u64,
    /// The number after the last one that came, and when that last one was due; none has come while 0.
    next: u32,
    last_due_ns: u64,
}

impl Witness {
    pub(super) fn of(opened_ns: u64) -> Self {
        Self { opened_ns, ..Self::default() }
    }

    /// Takes one frame; gives the messages of it that the publisher sent.
    pub(super) fn push(&mut self, push: &Push, rules: Rules, faults: &mut Faults) -> u64 {
        let mut messages = 0;
        for run in push.runs.iter().filter(|run| run.publisher == PUBLISHER) {
            messages += u64::from(run.last - run.first) + 1;
            if self.next == 0 {
                let first_due_ns = push.intended_ns.first().copied().unwrap_or(u64::MAX);
                let missed = if run.first == 0 { 0 } else { since(first_due_ns, self.opened_ns + 1) / rules.period_ns };
                faults.missed_at_start += missed.min(u64::from(run.first));
                if missed > 0 {
                    faults.example(|| format!("{missed} missed before number {}", run.first));
                }
            } else if run.first > self.next {
                faults.holes += u64::from(run.first - self.next);
                faults.example(|| format!("{} came after {}", run.first, self.next - 1));
            } else {
                faults.duplicated += u64::from(self.next - run.first);
            }
            self.next = self.next.max(run.last + 1);
        }
        self.last_due_ns = push.intended_ns.last().copied().unwrap_or(self.last_due_ns);
        messages
    }

    /// The connection ended while the publisher was at it.
    pub(super) fn ended(&self, now_ns: u64, rules: Rules, faults: &mut Faults) {
        let flushed_ns = now_ns.saturating_sub(rules.flush_ns);
        let from_ns = if self.next == 0 { self.opened_ns } else { self.last_due_ns };
        let missed = since(flushed_ns, from_ns + 1) / rules.period_ns;
        faults.missed_at_end += missed;
        if missed > 0 {
            faults.example(|| format!("{missed} missed at the end, after number {}", i64::from(self.next) - 1));
        }
    }

    /// Whether all of `count` messages have come, as far as this connection was there for them.
    pub(super) fn has_all(&self, count: u32) -> bool {
        self.next == count
    }
}

fn since(now_ns: u64, then_ns: u64) -> u64 {
    now_ns.saturating_sub(then_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::content::Run;

    const RULES: Rules = Rules { period_ns: 10, flush_ns: 100 };

    /// Numbers `first..=last`, due every 10 ns from 0 on.
    fn push(first: u32, last: u32) -> Push {
        let runs = vec![Run { publisher: PUBLISHER, first, last }];
        Push { runs, intended_ns: (first..=last).map(|n| u64::from(n) * 10).collect(), ..Push::default() }
    }

    fn judged(opened_ns: u64, pushes: &[(u32, u32)], ended_ns: Option<u64>) -> Faults {
        let (mut witness, mut faults) = (Witness::of(opened_ns), Faults::default());
        for (first, last) in pushes {
            witness.push(&push(*first, *last), RULES, &mut faults);
        }
        ended_ns.into_iter().for_each(|now_ns| witness.ended(now_ns, RULES, &mut faults));
        faults
    }

    #[test]
    fn whoever_got_everything_while_open_is_content() {
        assert_eq!(judged(0, &[(0, 4), (5, 5), (6, 20)], None), Faults::default());
        assert_eq!(judged(45, &[(5, 9), (10, 30)], Some(400)), Faults::default(), "to 100 ns before its end");
        assert_eq!(judged(45, &[(3, 9)], None), Faults::default(), "what was due before may come as well");
        assert_eq!(judged(45, &[], Some(140)), Faults::default(), "too short a life to get any");
    }

    #[test]
    fn each_kind_of_loss_is_counted() {
        assert_eq!(judged(0, &[(0, 4), (7, 9)], None).holes, 2);
        assert_eq!(judged(0, &[(0, 4), (3, 9)], None).duplicated, 2);
        assert_eq!(judged(45, &[(7, 9)], None).missed_at_start, 2);
        assert_eq!(judged(45, &[(5, 9)], Some(400)).missed_at_end, 20);
        assert_eq!(judged(45, &[], Some(400)).missed_at_end, 25);
    }
}
