//! What is counted of the connect hook.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::seconds;

/// Label set of [`HookMetrics::answers`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HookLabels {
    /// `accepted`, `refused`, `cached` or `failed`.
    pub result: &'static str,
}

/// The metrics.
pub struct HookMetrics {
    pub answers: Family<HookLabels, Counter>,
    pub seconds: Histogram,
}

impl Default for HookMetrics {
    fn default() -> Self {
        Self { answers: Family::default(), seconds: seconds() }
    }
}

impl HookMetrics {
    /// Names them.
    pub fn register(&self, r: &mut Registry) {
        r.register("tidegate_logic_hook_answers", "Clients asked about, by what came of it", self.answers.clone());
        r.register("tidegate_logic_hook_seconds", "Time from a question to the hook's answer", self.seconds.clone());
    }
}
