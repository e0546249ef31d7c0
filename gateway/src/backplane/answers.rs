//! What an answer does: the client that waits is told SENT, what it asked for, or ERROR.

use std::sync::Arc;

use tidegate_protocol::records::{Answer, Declined, answer::Outcome};

use crate::bucket::Bucket;
use crate::bucket::control::ControlWriter;
use crate::connection::devices::Devices;
use crate::uplink::mailbox::Mailbox;
use crate::uplink::{Uplink, Whose};

/// Those who wait for answers.
#[derive(Debug)]
pub(crate) struct Answers {
    pub uplink: Arc<Uplink>,
    pub buckets: Arc<[Bucket]>,
    pub control: ControlWriter,
    pub devices: Arc<Devices>,
    pub mailboxes: Arc<[Mailbox]>,
}

impl Answers {
    /// Hands answers of a logic node to those who wait for them; of items that are no longer its own they are passed over.
    pub fn settle(&self, logic: u64, answers: Vec<Answer>) {
        for answer in answers {
            if let Some(whose) = self.uplink.take(logic, answer.sequence) {
                self.tell(whose, answer.outcome);
            }
        }
    }

    /// Tells those who have waited for a logic node in vain.
    pub fn give_up(&self) {
        for whose in self.uplink.expire(self.control.clock.now()) {
            let nobody = Declined {
                code: "unavailable".into(),
                message: "no logic node is linked to this gateway; try again later".into(),
                retryable: true,
                retry_after_ms: 1_000,
            };
            self.tell(whose, Some(Outcome::Refused(nobody)));
        }
    }

    fn tell(&self, whose: Whose, outcome: Option<Outcome>) {
        match whose {
            Whose::Nobody => {}
            Whose::Newcomer { key } => {
                if let Some(Outcome::Refused(no)) = outcome {
                    self.devices.yield_place(key, &no.code);
                }
            }
            Whose::Handshake { acceptor, key } => {
                if let Some(mailbox) = self.mailboxes.get(usize::from(acceptor)) {
                    mailbox.put(key, outcome);
                }
            }
            Whose::Connection { key, reply_to } => {
                if let Some(bucket) = self.buckets.get(usize::from(key.bucket)) {
                    self.control.tell(bucket, key.at, reply_to.answer(outcome.as_ref()));
                }
            }
        }
    }
}
