//! `[logic.agents]`: commands to agents and what is kept of their replies.

use serde::{Deserialize, Serialize};
use tidegate_protocol::limits::is_valid_platform;

/// `[logic.agents]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentsConfig {
    /// Platform whose connections `/v1/agents` lists. Commands reach every connection of their target, whatever its platform.
    pub platform: String,
    /// Most requests that wait for replies at once, repeats of a key included; one more is answered 503.
    pub commands: usize,
    /// `timeout_ms` of a command that gives none.
    pub timeout_ms: u32,
    /// Largest `timeout_ms`.
    pub timeout_ms_max: u32,
    /// Most replies that one command takes.
    pub replies: usize,
    /// Most bytes of replies that one command takes.
    pub reply_bytes: usize,
    /// Most bytes of replies of all commands that wait.
    pub replies_bytes: usize,
    /// How long an idempotency key answers with its first answer.
    pub keys_ms: u32,
    /// Most keys remembered; the oldest makes room.
    pub keys: usize,
    /// Most bytes of replies kept for repeats; the oldest makes room.
    pub keys_bytes: usize,
}

impl Default for AgentsConfig {
    fn default() -> Self {
        Self {
            platform: "agent".into(),
            commands: 16_384,
            timeout_ms: 5_000,
            timeout_ms_max: 120_000,
            replies: 1_000,
            reply_bytes: 1024 * 1024,
            replies_bytes: 64 * 1024 * 1024,
            keys_ms: 300_000,
            keys: 16_384,
            keys_bytes: 64 * 1024 * 1024,
        }
    }
}

impl AgentsConfig {
    pub(super) fn problems(&self, out: &mut Vec<String>) {
        if !is_valid_platform(&self.platform) {
            out.push("logic.agents: platform must be 1 to 32 characters a-z, 0-9, _ or -".into());
        }
        if self.timeout_ms == 0 || self.timeout_ms > self.timeout_ms_max {
            out.push("logic.agents: 1 <= timeout_ms <= timeout_ms_max is needed".into());
        }
        if [self.commands, self.replies, self.keys].contains(&0) || self.keys_ms == 0 {
            out.push("logic.agents: commands, replies, keys and keys_ms must be at least 1".into());
        }
        if self.reply_bytes > self.replies_bytes || self.reply_bytes > self.keys_bytes {
            out.push("logic.agents: replies_bytes and keys_bytes must be at least reply_bytes".into());
        }
    }
}
