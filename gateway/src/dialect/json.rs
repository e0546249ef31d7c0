//! The protocol's own words: SENT, the object that was asked for, or ERROR.

use tidegate_protocol::records::answer::Outcome;
use tidegate_protocol::reply;

/// Which reply a client expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expects {
    /// SENT.
    Sent,
    /// The answer's object under this type.
    Told(&'static str),
}

/// Words the answer to a request.
pub fn answer(out: &mut Vec<u8>, id: Option<&str>, expects: Expects, outcome: Option<&Outcome>) {
    match (outcome, expects) {
        (Some(Outcome::Sent(sent)), Expects::Sent) => reply::sent(out, id, &sent.id, sent.time_ms),
        (Some(Outcome::Told(told)), Expects::Told(kind)) => reply::told(out, kind, id, &told.data),
        (Some(Outcome::Refused(no)), _) => {
            let retry_after_ms = (no.retry_after_ms > 0).then_some(no.retry_after_ms);
            let (code, message, retryable) = (no.code.as_str(), no.message.as_str(), no.retryable);
            reply::error_with(out, id, &reply::Error { code, message, retryable, retry_after_ms, reason: None });
        }
        // An answer of another kind than the question: a logic node that is not of our making.
        (_, _) => reply::error(out, id, "unavailable", "no usable answer", true),
    }
}
