//! `{"Module":…,"Action":…,"Data":…}` and answers in numbers, HTTP's where it has one.

use tidegate_protocol::compat::{self, Called};
use tidegate_protocol::records::answer::Outcome;

/// Reads a message, if it is one.
pub fn read(text: &str) -> Option<Called<'_>> {
    compat::called(text)
}

/// Words the answer to what was carried up.
pub fn answer(out: &mut Vec<u8>, module: &str, action: &str, outcome: Option<&Outcome>) {
    let (code, message) = in_numbers(outcome);
    compat::answer(out, module, action, code, message);
}

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
