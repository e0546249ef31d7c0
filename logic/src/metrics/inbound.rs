//! What is counted of what clients say.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Label set of [`InboundMetrics::items`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ItemLabels {
    /// What was said, from a fixed list.
    pub kind: &'static str,
}

/// The metrics.
#[derive(Default)]
pub struct InboundMetrics {
    pub items: Family<ItemLabels, Counter>,
}

impl InboundMetrics {
    /// Names them.
    pub fn register(&self, r: &mut Registry) {
        r.register("tidegate_uplink_items", "What clients said, by kind; repeats left out", self.items.clone());
    }
}
