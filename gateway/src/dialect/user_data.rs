//! `{"user_id":…,"data":…}`: a message for one user. It has no answer of its own; what becomes of it is said in the protocol's words.

use tidegate_protocol::compat::{self, Bare};

/// Reads a message, if it is one.
pub fn read(text: &str) -> Option<Bare<'_>> {
    compat::bare(text)
}
