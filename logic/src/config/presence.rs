//! `[logic.presence]`: who is told who comes and goes, over all gateways, and what is remembered of those who left.

use serde::{Deserialize, Serialize};

/// `[logic.presence]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceConfig {
    /// Time between two PRESENCE frames of a room, at least; as long as the gateways' own.
    pub interval_ms: u32,
    /// Members of one room that are told a second, at most: larger rooms are told less often.
    pub members_per_s: u32,
    /// Most rooms that wait to be told at once.
    pub rooms_max: usize,
    /// Members of a room above which MEMBERS gives a sample and no list.
    pub list_max: usize,
    /// Rows of such a sample.
    pub sample: usize,
    /// Users who left whose time is remembered; the longest gone makes room.
    pub seen_max: usize,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self {
            interval_ms: 1_000,
            members_per_s: 5_000,
            rooms_max: 100_000,
            list_max: 10_000,
            sample: 20,
            seen_max: 100_000,
        }
    }
}

impl PresenceConfig {
    pub(super) fn problems(&self, page_max: usize, out: &mut Vec<String>) {
        if self.interval_ms < 10 || self.rooms_max == 0 || self.members_per_s == 0 {
            out.push("logic.presence: interval_ms >= 10, rooms_max >= 1 and members_per_s >= 1 are needed".into());
        }
        if self.sample == 0 || self.sample > page_max {
            out.push("logic.presence.sample: 1 to limits.page_max".into());
        }
    }
}
