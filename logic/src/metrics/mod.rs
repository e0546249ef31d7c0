//! Every metric of a logic node, by name; `docs/reference/metrics.md` explains each to an operator. A file a part of the node, which
//! gets its own and no others. Labels are enums and configured names of gateways and sinks, never rooms, users or connections.
//! Gauges of bounds are set at scrape time, so nothing on the hot path keeps them.

pub mod agents;
pub mod api;
pub mod fleet;
pub mod hook;
pub mod inbound;
pub mod presence;
pub mod push;
pub mod remembered;
pub mod upstream;

use std::sync::Arc;

use prometheus_client::encoding::text;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use self::agents::AgentMetrics;
use self::api::ApiMetrics;
use self::fleet::FleetMetrics;
use self::hook::HookMetrics;
use self::inbound::InboundMetrics;
use self::presence::PresenceMetrics;
use self::push::PushMetrics;
use self::remembered::RememberedMetrics;
use self::upstream::UpstreamMetrics;

/// The metrics, by who counts them.
pub struct Metrics {
    registry: Registry,
    pub push: Arc<PushMetrics>,
    pub api: Arc<ApiMetrics>,
    pub remembered: Arc<RememberedMetrics>,
    pub fleet: Arc<FleetMetrics>,
    pub presence: Arc<PresenceMetrics>,
    pub inbound: Arc<InboundMetrics>,
    pub hook: Arc<HookMetrics>,
    pub agents: Arc<AgentMetrics>,
    pub upstream: Arc<UpstreamMetrics>,
}

/// Appends another tier's metrics, in Prometheus text without `# EOF`.
pub type MetricsText = Arc<dyn Fn(&mut String) + Send + Sync>;

/// Sets some gauges to what they measure now.
pub type Gauges = Box<dyn Fn() + Send + Sync>;

/// What one scrape shows.
pub struct Scrape {
    /// The metrics.
    pub metrics: Metrics,
    /// Sets the gauges, part by part.
    pub gauges: Vec<Gauges>,
    /// The other tier's metrics, when it shares the process.
    pub extra: Option<MetricsText>,
}

impl Scrape {
    /// Everything, as it is now, without the last line.
    #[must_use]
    pub fn text(&self) -> String {
        self.gauges.iter().for_each(|set| set());
        let mut text = String::new();
        self.metrics.encode(&mut text);
        if let Some(extra) = &self.extra {
            extra(&mut text);
            text.truncate(text.trim_end_matches("# EOF\n").len());
        }
        text
    }
}

/// 0.1 ms to 10 s: an idle loopback link answers in 0.2 ms, a dead one is failed after a second or so.
fn seconds() -> Histogram {
    Histogram::new([
        0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            push: Arc::default(),
            api: Arc::default(),
            remembered: Arc::default(),
            fleet: Arc::default(),
            presence: Arc::default(),
            inbound: Arc::default(),
            hook: Arc::default(),
            agents: Arc::default(),
            upstream: Arc::default(),
        };
        let r = &mut metrics.registry;
        metrics.push.register(r);
        metrics.api.register(r);
        metrics.remembered.register(r);
        metrics.fleet.register(r);
        metrics.presence.register(r);
        metrics.inbound.register(r);
        metrics.hook.register(r);
        metrics.agents.register(r);
        metrics.upstream.register(r);
        metrics
    }
}

impl Metrics {
    /// The text of a scrape without its last line, so that another tier's can follow.
    pub fn encode(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = text::encode(out, &self.registry);
        let end = out.trim_end_matches("# EOF\n").len();
        out.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_has_our_prefix_and_the_end_mark_is_left_to_the_caller() {
        let mut text = String::new();
        Metrics::default().encode(&mut text);

        assert!(!text.contains("# EOF"));
        for line in text.lines().filter(|l| l.starts_with("# TYPE")) {
            let name = line.split(' ').nth(2).unwrap_or_default();
            let ours =
                ["tidegate_push", "tidegate_logic_", "tidegate_backplane_", "tidegate_upstream_", "tidegate_uplink_"];
            assert!(ours.iter().any(|p| name.starts_with(p)), "{line}");
        }
    }
}
