//! What is counted of pushes, whoever asked for them.

use std::fmt::Write;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::seconds;

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PushResult {
    /// At least one gateway took it, none failed.
    Sent,
    /// Some gateways took it, some failed.
    Partial,
    /// Nobody has its targets.
    Nobody,
    /// No gateway took it.
    Unavailable,
    /// Its dedupe key was known.
    Repeated,
}

impl EncodeLabelValue for PushResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Sent => "sent",
            Self::Partial => "partial",
            Self::Nobody => "nobody",
            Self::Unavailable => "unavailable",
            Self::Repeated => "repeated",
        })
    }
}

/// Label set of [`PushMetrics::pushes`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PushLabels {
    /// What became of it.
    pub result: PushResult,
}

/// The metrics.
pub struct PushMetrics {
    pub pushes: Family<PushLabels, Counter>,
    pub messages: Counter,
    pub matched: Counter,
    pub seconds: Histogram,
}

impl Default for PushMetrics {
    fn default() -> Self {
        Self {
            pushes: Family::default(),
            messages: Counter::default(),
            matched: Counter::default(),
            seconds: seconds(),
        }
    }
}

impl PushMetrics {
    /// Names them.
    pub fn register(&self, r: &mut Registry) {
        r.register("tidegate_push", "Pushes by what became of them", self.pushes.clone());
        r.register("tidegate_push_messages", "Messages of accepted pushes", self.messages.clone());
        r.register("tidegate_push_matched", "Connections that pushes were for, added up", self.matched.clone());
        r.register("tidegate_push_seconds", "Time from a parsed push to its receipt", self.seconds.clone());
    }
}
