//! The mailboxes through which answers of the connect hook come back to the acceptors. The backplane puts them in, an acceptor
//! takes them out, and neither knows the other.

use parking_lot::Mutex;
use tidegate_protocol::records::{Verdict, answer::Outcome};
use tokio::sync::Notify;

use crate::key::PendingKey;

/// What came back about a client.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Which.
    pub key: PendingKey,
    /// None: the hook could not be asked.
    pub verdict: Option<Verdict>,
}

/// Where answers wait for an acceptor. Bounded by the uplink's items: each is the answer to one.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    answers: Mutex<Vec<Answered>>,
    /// Told when one has come.
    pub arrived: Notify,
}

impl Mailbox {
    /// Hands an answer to the acceptor.
    pub fn put(&self, key: PendingKey, outcome: Option<Outcome>) {
        let verdict = match outcome {
            Some(Outcome::Verdict(verdict)) => Some(*verdict),
            _ => None,
        };
        self.answers.lock().push(Answered { key, verdict });
        self.arrived.notify_one();
    }

    /// Everything that has come.
    pub fn take(&self) -> Vec<Answered> {
        std::mem::take(&mut self.answers.lock())
    }
}
