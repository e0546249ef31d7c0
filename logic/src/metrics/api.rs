//! What is counted of the API's requests and sockets. Gauges are set at scrape time.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Label set of [`ApiMetrics::requests`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The call, from a fixed list.
    pub call: &'static str,
    /// HTTP status.
    pub status: u16,
}

/// Label set of [`ApiMetrics::refusals`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusalLabels {
    /// The problem's code, from a fixed list.
    pub code: &'static str,
}

/// Label set of [`ApiMetrics::evicted`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabels {
    /// `connections` or `bodies`.
    pub pool: &'static str,
}

/// The metrics.
#[derive(Default)]
pub struct ApiMetrics {
    pub requests: Family<RequestLabels, Counter>,
    pub refusals: Family<RefusalLabels, Counter>,
    pub connections: Gauge,
    pub in_flight: Gauge,
    pub bodies_bytes: Gauge,
    pub evicted: Family<PoolLabels, Counter>,
}

impl ApiMetrics {
    /// Names them.
    pub fn register(&self, r: &mut Registry) {
        r.register("tidegate_logic_requests", "API requests by call and status", self.requests.clone());
        r.register(
            "tidegate_logic_refusals",
            "Problems answered, batch items included, by code",
            self.refusals.clone(),
        );
        r.register(
            "tidegate_logic_connections",
            "Open API connections (logic.limits.connections)",
            self.connections.clone(),
        );
        r.register(
            "tidegate_logic_in_flight",
            "API requests in progress (logic.limits.in_flight)",
            self.in_flight.clone(),
        );
        r.register(
            "tidegate_logic_bodies_bytes",
            "Bytes of request bodies held (logic.limits.bodies_bytes)",
            self.bodies_bytes.clone(),
        );
        r.register("tidegate_logic_evicted", "Holders that made room for newcomers, by pool", self.evicted.clone());
    }
}
