//! `gateway.handshake.before_logic`: what becomes of clients that come before a logic node has said what it wants to hear.

use serde::{Deserialize, Serialize};

/// Until then nobody knows which headers a connect hook wants, which events a service, and who is blocked (docs/adr/0031).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BeforeLogic {
    /// They wait in the kernel's accept queue for `handshake.deadline_ms`, and are refused after that.
    #[default]
    Wait,
    /// They are refused: 503 `not_ready`.
    Refuse,
    /// They are let in, as they would be by a fleet without hook, events and blocks.
    Admit,
}
