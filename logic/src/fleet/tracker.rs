//! Which items have come in and where their answers go. An item that comes again – its gateway could not know that it had
//! arrived – is not carried out again: its answer goes where it came from last.
//! Invariants: every ticket ends in one answer, be it that the item could not be carried out; of what is answered the last
//! [`REMEMBERED`] are known, small as they are: what a question got is not kept, a repeat of it is to be asked again.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tidegate_protocol::records::{Answer, Declined, Sent, Told, Verdict, answer::Outcome};
use tidegate_protocol::remembered::Remembered;

use super::Link;

/// Answers remembered, so that an item that comes again gets the same.
pub const REMEMBERED: usize = 65_536;

/// Where an answer goes.
struct Way {
    link: Arc<Link>,
    epoch: u64,
    sequence: u64,
}

struct State {
    /// Being carried out.
    open: HashMap<Box<str>, Way, RandomState>,
    answered: Remembered<Box<str>, Option<Outcome>, RandomState>,
}

/// The items that have come in.
pub struct Tracker {
    state: Mutex<State>,
}

impl Default for Tracker {
    fn default() -> Self {
        Self { state: Mutex::new(State { open: HashMap::default(), answered: Remembered::without_end(REMEMBERED) }) }
    }
}

/// Whether an item is new.
pub enum Seen {
    /// It is; the ticket is for its answer.
    First(Ticket),
    /// It came before.
    Repeat,
}

/// The duty to answer an item. Dropped, the client hears that it may try again.
pub struct Ticket {
    tracker: Arc<Tracker>,
    id: Box<str>,
    is_settled: bool,
}

impl Tracker {
    /// An item has come in.
    pub fn see(self: &Arc<Self>, id: &str, link: &Arc<Link>, epoch: u64, sequence: u64) -> Seen {
        let mut state = self.state.lock();
        let way = Way { link: Arc::clone(link), epoch, sequence };
        if let Some(open) = state.open.get_mut(id) {
            *open = way;
            return Seen::Repeat;
        }
        if let Some(outcome) = state.answered.peek(id).cloned() {
            drop(state);
            way.send(outcome);
            return Seen::Repeat;
        }
        state.open.insert(id.into(), way);
        Seen::First(Ticket { tracker: Arc::clone(self), id: id.into(), is_settled: false })
    }

    /// Answers remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.state.lock().answered.len()
    }

    fn settle(&self, id: &str, outcome: Option<Outcome>) {
        let mut state = self.state.lock();
        let Some((id, way)) = state.open.remove_entry(id) else { return };
        // Only room makes it forgotten, never time.
        state.answered.keep(id, kept(outcome.as_ref()), 0);
        drop(state);
        way.send(outcome);
    }
}

/// What a repeat gets. What was told, up to hundreds of kilobytes, and verdicts are answers to questions, which change nothing
/// when they are asked again.
fn kept(outcome: Option<&Outcome>) -> Option<Outcome> {
    match outcome? {
        Outcome::Told(_) | Outcome::Verdict(_) => Some(unavailable("the answer is not kept; ask again")),
        outcome => Some(outcome.clone()),
    }
}

/// The client may try again.
fn unavailable(message: &str) -> Outcome {
    Outcome::Refused(Declined {
        code: "unavailable".into(),
        message: message.into(),
        retryable: true,
        retry_after_ms: 1_000,
    })
}

impl Way {
    fn send(&self, outcome: Option<Outcome>) {
        self.link.outgoing.push(self.epoch, Answer { sequence: self.sequence, outcome });
    }
}

impl Ticket {
    fn settle(mut self, outcome: Option<Outcome>) {
        self.is_settled = true;
        self.tracker.settle(&self.id, outcome);
    }

    /// It was taken; there is nothing to tell.
    pub fn done(self) {
        self.settle(None);
    }

    /// It is where it was to go.
    pub fn sent(self, id: String, time_ms: u64) {
        self.settle(Some(Outcome::Sent(Sent { id, time_ms })));
    }

    /// What was asked for: the text of a JSON object.
    pub fn told(self, data: bytes::Bytes) {
        self.settle(Some(Outcome::Told(Told { data })));
    }

    /// Whether a stranger may come in.
    pub fn verdict(self, verdict: Verdict) {
        self.settle(Some(Outcome::Verdict(Box::new(verdict))));
    }

    /// It is not carried out; `code` and `message` are the client's ERROR.
    pub fn refuse(self, code: &str, message: &str, retryable: bool) {
        let retry_after_ms = if retryable { 1_000 } else { 0 };
        let declined = Declined { code: code.into(), message: message.into(), retryable, retry_after_ms };
        self.settle(Some(Outcome::Refused(declined)));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_settled {
            let outcome = unavailable("the logic tier could not finish this; try again");
            self.tracker.settle(&self.id, Some(outcome));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_small() {
        let told = Outcome::Told(Told { data: bytes::Bytes::from(vec![b' '; 200 * 1024]) });
        let verdict = Outcome::Verdict(Box::default());
        let sent = Outcome::Sent(Sent { id: "01J".into(), time_ms: 1 });

        for outcome in [told, verdict] {
            let Some(Outcome::Refused(declined)) = kept(Some(&outcome)) else { panic!("kept whole") };
            assert_eq!((declined.code.as_str(), declined.retryable), ("unavailable", true));
        }
        assert_eq!(kept(Some(&sent)), Some(sent), "a SEND that is said twice gets its SENT twice");
        assert_eq!(kept(None), None);
    }
}
