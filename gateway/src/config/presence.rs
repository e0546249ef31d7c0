//! `[gateway.presence]`: in which rooms members are told who comes and goes, and how often.

use serde::{Deserialize, Serialize};

/// `[gateway.presence]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceConfig {
    /// Rooms whose members are told, as patterns: `*` stands for any run of characters. Empty: none.
    pub rooms: Vec<String>,
    /// Time between two frames of a room, at least.
    pub interval_ms: u32,
    /// Names of users who came, in one frame, at most.
    pub sample: usize,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self { rooms: Vec::new(), interval_ms: 1_000, sample: 8 }
    }
}

impl PresenceConfig {
    pub(super) fn problems(&self, tick_ms: u32, out: &mut Vec<String>) {
        if self.interval_ms < tick_ms.max(10) {
            out.push("gateway.presence.interval_ms: at least 10 and at least gateway.merge.min_ms".into());
        }
        if self.sample > 64 {
            out.push("gateway.presence.sample: at most 64".into());
        }
        if self.rooms.len() > 64 || self.rooms.iter().any(|pattern| pattern.is_empty() || pattern.len() > 128) {
            out.push("gateway.presence.rooms: at most 64 patterns of 1 to 128 bytes".into());
        }
    }
}
