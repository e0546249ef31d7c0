//! What an answer does: the client that waits is told SENT, what it asked for, or ERROR.

use std::sync::Arc;

use tidegate_protocol::compat;
use tidegate_protocol::records::{Answer, Declined, answer::Outcome};
use tidegate_protocol::reply;

use crate::bucket::control::ControlWriter;
use crate::bucket::{Bucket, text_frame};
use crate::connection::devices::Devices;
use crate::uplink::mailbox::Mailbox;
use crate::uplink::{Expects, Uplink, Whose};

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
            Whose::Connection { key, id, expects } => {
                let mut json = Vec::new();
                match (outcome, expects) {
                    (outcome, Expects::Called { module, action }) => {
                        let (code, message) = in_numbers(outcome.as_ref());
                        compat::answer(&mut json, &module, &action, code, message);
                    }
                    (Some(Outcome::Sent(sent)), Expects::Sent) => {
                        reply::sent(&mut json, id.as_deref(), &sent.id, sent.time_ms);
                    }
                    (Some(Outcome::Told(told)), Expects::Told(kind)) => {
                        reply::told(&mut json, kind, id.as_deref(), &told.data);
                    }
                    (Some(Outcome::Refused(no)), _) => {
                        reply::error_with(&mut json, id.as_deref(), &as_error(&no));
                    }
                    // An answer of another kind than the question: a logic node that is not of our making.
                    (_, _) => reply::error(&mut json, id.as_deref(), "unavailable", "no usable answer", true),
                }
                if let Some(bucket) = self.buckets.get(usize::from(key.bucket)) {
                    self.control.tell(bucket, key.at, text_frame(&json));
                }
            }
        }
    }
}

fn as_error(no: &Declined) -> reply::Error<'_> {
    let Declined { code, message, retryable, retry_after_ms } = no;
    let retry_after_ms = Some(*retry_after_ms).filter(|ms| *ms > 0);
    reply::Error { code, message, retryable: *retryable, reason: None, retry_after_ms }
}

/// The codes of a dialect that has numbers: HTTP's where it has one.
fn in_numbers(outcome: Option<&Outcome>) -> (u16, &str) {
    match outcome {
        Some(Outcome::Sent(_)) => (0, "ok"),
        Some(Outcome::Refused(no)) => {
            let code = match no.code.as_str() {
                "forbidden" => 403,
                "offline" | "no_route" => 404,
                "too_large" => 413,
                "rate" => 429,
                "overloaded" | "unavailable" => 503,
                _ => 400,
            };
            (code, &no.message)
        }
        _ => (503, "no usable answer"),
    }
}
