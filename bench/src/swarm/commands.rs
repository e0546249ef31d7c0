//! What is said between a swarm and who steers it: JSON lines over stdin and stdout, or a channel to a thread.
//! A file of its own because three sides speak it: scenarios, parent swarms, threads.

use serde::{Deserialize, Serialize};

use super::tally::Tally;
use crate::ledger::Expected;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Of a paused swarm: connect until this many thousandths of each member's clients are connected, then be `Ready`.
    Dial { per_mille: u64 },
    /// Forget what was measured so far.
    Reset,
    /// One client in `every` stops reading.
    Stall { every: u64 },
    /// Those that stopped read again.
    Resume,
    /// Wait until every client that reads has what is expected, or nothing came for `settle_ms`; then report.
    Report { expected: Vec<Expected>, settle_ms: u64 },
    /// Close all connections (RST) and end.
    Stop,
}

/// Tagged from outside: inside, serde would buffer the maps of a tally and lose that their keys are numbers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The ramp goes on. Sent a few times a second.
    Progress {
        open: u64,
    },
    /// All clients that were to be are connected, greeted and in their rooms, or have failed.
    Ready(Box<Tally>),
    /// `Reset`, `Stall` or `Resume` was done.
    Done,
    Report(Box<Tally>),
    /// The swarm cannot go on.
    Failed {
        error: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_survive_the_pipe() {
        let expected = vec![Expected { publisher: 1, count: 2, refused: 0, to: "all".into() }];
        let command = Command::Report { expected, settle_ms: 5 };

        let line = serde_json::to_string(&command).expect("serializes");

        assert_eq!(serde_json::from_str::<Command>(&line).expect("parses"), command);
        assert!(!line.contains('\n'));
    }

    #[test]
    fn reports_survive_the_pipe() {
        let mut tally = Tally { messages: 7, ..Tally::default() };
        tally.reached.insert(3, 9);
        tally.latency_us.record(250);

        let line = serde_json::to_string(&Event::Report(Box::new(tally))).expect("serializes");
        let Event::Report(tally) = serde_json::from_str(&line).expect("parses") else { panic!("not a report") };

        assert_eq!((tally.messages, tally.reached.get(&3), tally.latency_us.count()), (7, Some(&9), 1));
    }
}
