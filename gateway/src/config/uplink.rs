//! `[gateway.uplink]`: what clients say, on its way to logic.

use serde::{Deserialize, Serialize};

/// `[gateway.uplink]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UplinkConfig {
    /// Most items kept because no logic node has answered them yet.
    pub items: usize,
    /// Most bytes of them.
    pub bytes: usize,
    /// How long an item waits for a logic node before its client is told that there is none.
    pub wait_ms: u32,
}

impl Default for UplinkConfig {
    fn default() -> Self {
        Self { items: 65_536, bytes: 64 * 1024 * 1024, wait_ms: 10_000 }
    }
}
