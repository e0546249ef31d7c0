//! How full the memories are in which the oldest makes room. Gauges, set at scrape time; those of commands are with them.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics.
#[derive(Default)]
pub struct RememberedMetrics {
    pub dedupe_keys: Gauge,
    pub dedupe_bytes: Gauge,
    pub nonces: Gauge,
    pub nonces_bytes: Gauge,
    pub seen_users: Gauge,
    pub blocks: Gauge,
    pub hook: Gauge,
    pub devices: Gauge,
    pub answers: Gauge,
}

impl RememberedMetrics {
    /// Names them.
    pub fn register(&self, r: &mut Registry) {
        r.register(
            "tidegate_logic_dedupe_keys",
            "Dedupe keys remembered (logic.dedupe.keys_max)",
            self.dedupe_keys.clone(),
        );
        r.register(
            "tidegate_logic_dedupe_bytes",
            "Memory of dedupe keys (logic.dedupe.keys_bytes)",
            self.dedupe_bytes.clone(),
        );
        r.register("tidegate_logic_nonces", "Nonces of SEND remembered (logic.dedupe.keys_max)", self.nonces.clone());
        r.register(
            "tidegate_logic_nonces_bytes",
            "Memory of nonces (logic.dedupe.keys_bytes)",
            self.nonces_bytes.clone(),
        );
        r.register(
            "tidegate_logic_seen_users",
            "Users remembered who left (logic.presence.seen_max)",
            self.seen_users.clone(),
        );
        r.register(
            "tidegate_logic_blocks",
            "Blocks of users, lifted ones that are remembered included",
            self.blocks.clone(),
        );
        r.register("tidegate_logic_hook_remembered", "Answers remembered (logic.hook.cache_max)", self.hook.clone());
        r.register(
            "tidegate_logic_devices_remembered",
            "Users who came lately and of whom one connection of a kind may stay, remembered for ten seconds",
            self.devices.clone(),
        );
        r.register(
            "tidegate_logic_answers_remembered",
            "Answers to what clients said, remembered for what comes again",
            self.answers.clone(),
        );
    }
}
