//! What is counted of commands to agents. Gauges are set at scrape time.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndLabels {
    /// `replied`, `timeout`, `left`, `nobody`, `untaken`, `repeated`, `conflict`.
    pub end: &'static str,
}

/// What became of a reply.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReplyLabels {
    /// A `registry::Fate` as one word.
    pub fate: &'static str,
}

/// What can become of a reply: `agents::registry::Fate` in words.
pub const FATES: [&str; 4] = ["taken", "again", "late", "full"];

/// The metrics.
pub struct AgentMetrics {
    pub commands: Family<EndLabels, Counter>,
    pub replies: Family<ReplyLabels, Counter>,
    pub seconds: Histogram,
    pub resends: Counter,
    pub waiting: Gauge,
    pub replies_bytes: Gauge,
    pub keys: Gauge,
    pub keys_bytes: Gauge,
}

impl Default for AgentMetrics {
    fn default() -> Self {
        let metrics = Self {
            commands: Family::default(),
            replies: Family::default(),
            // 0.5 ms to two minutes: a round trip at rest takes one, the longest deadline is the other.
            seconds: Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0]),
            resends: Counter::default(),
            waiting: Gauge::default(),
            replies_bytes: Gauge::default(),
            keys: Gauge::default(),
            keys_bytes: Gauge::default(),
        };
        // Shown from the start, so that a rate has a beginning.
        for end in ["replied", "timeout", "left", "nobody", "untaken", "repeated", "conflict"] {
            drop(metrics.commands.get_or_create(&EndLabels { end }));
        }
        for fate in FATES {
            drop(metrics.replies.get_or_create(&ReplyLabels { fate }));
        }
        metrics
    }
}

impl AgentMetrics {
    /// Names them.
    pub fn register(&self, r: &mut Registry) {
        r.register("tidegate_logic_commands", "Commands to agents by how they ended", self.commands.clone());
        r.register("tidegate_logic_command_replies", "Replies of agents by fate", self.replies.clone());
        r.register("tidegate_logic_command_seconds", "From a command to its end", self.seconds.clone());
        r.register(
            "tidegate_logic_command_resends",
            "Connections that got a command because they came while it waited",
            self.resends.clone(),
        );
        r.register(
            "tidegate_logic_commands_waiting",
            "Requests that wait (logic.agents.commands)",
            self.waiting.clone(),
        );
        r.register(
            "tidegate_logic_command_replies_bytes",
            "Bytes of replies of waiting commands (logic.agents.replies_bytes)",
            self.replies_bytes.clone(),
        );
        r.register("tidegate_logic_command_keys", "Idempotency keys remembered (logic.agents.keys)", self.keys.clone());
        r.register(
            "tidegate_logic_command_keys_bytes",
            "Bytes of replies kept for repeats (logic.agents.keys_bytes)",
            self.keys_bytes.clone(),
        );
    }
}
