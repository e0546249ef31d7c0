//! What is counted of the links, a gateway each, and of the interest that they tell. Gauges are set at scrape time.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::seconds;

/// Label set of what is counted per gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GatewayLabels {
    /// Its configured address.
    pub gateway: String,
}

/// Label set of [`FleetMetrics::failures`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FailureLabels {
    /// Its configured address.
    pub gateway: String,
    /// A `fleet::Failure` as one word.
    pub reason: &'static str,
}

/// Label set of [`FleetMetrics::states`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabels {
    /// `open`, `leaving` or `resting`.
    pub state: &'static str,
}

/// Label set of the links that have ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClosedLabels {
    /// `drained`, `lost` or `late`.
    why: &'static str,
}

type PerGateway<M> = Family<GatewayLabels, M>;
type HistogramPerGateway = Family<GatewayLabels, Histogram, fn() -> Histogram>;

/// The metrics.
#[derive(Default)]
pub struct FleetMetrics {
    pub interest: InterestGauges,
    pub links: LinkGauges,
    pub failures: Family<FailureLabels, Counter>,
    /// Links by what they are: open, leaving, resting (a place that waits for its next owner).
    pub states: Family<StateLabels, Gauge>,
    closed: Family<ClosedLabels, Counter>,
    traffic: Traffic,
}

/// Names in the interest table.
#[derive(Default)]
pub struct InterestGauges {
    pub rooms: Gauge,
    pub users: Gauge,
}

/// How each link is.
#[derive(Default)]
pub struct LinkGauges {
    pub up: PerGateway<Gauge>,
    pub known: PerGateway<Gauge>,
    pub queue_pushes: PerGateway<Gauge>,
    pub queue_bytes: PerGateway<Gauge>,
}

/// What travels on each link.
struct Traffic {
    batches: PerGateway<Counter>,
    pushes: PerGateway<Counter>,
    resends: PerGateway<Counter>,
    dials: PerGateway<Counter>,
    events: PerGateway<Counter>,
    batch_pushes: HistogramPerGateway,
    reply_seconds: HistogramPerGateway,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            batches: Family::default(),
            pushes: Family::default(),
            resends: Family::default(),
            dials: Family::default(),
            events: Family::default(),
            batch_pushes: Family::new_with_constructor(batch_sizes),
            reply_seconds: Family::new_with_constructor(seconds),
        }
    }
}

/// Powers of four up to the batch bound of 4,096.
fn batch_sizes() -> Histogram {
    Histogram::new([1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0])
}

/// The traffic of one link, looked up once.
pub struct LinkMetrics {
    pub batches: Counter,
    pub pushes: Counter,
    pub resends: Counter,
    pub dials: Counter,
    pub events: Counter,
    pub batch_pushes: Histogram,
    pub reply_seconds: Histogram,
}

impl FleetMetrics {
    /// Those of one link.
    #[must_use]
    pub fn of_link(&self, gateway: &str) -> LinkMetrics {
        let labels = GatewayLabels { gateway: gateway.to_owned() };
        let traffic = &self.traffic;
        LinkMetrics {
            batches: traffic.batches.get_or_create_owned(&labels),
            pushes: traffic.pushes.get_or_create_owned(&labels),
            resends: traffic.resends.get_or_create_owned(&labels),
            dials: traffic.dials.get_or_create_owned(&labels),
            events: traffic.events.get_or_create_owned(&labels),
            batch_pushes: traffic.batch_pushes.get_or_create_owned(&labels),
            reply_seconds: traffic.reply_seconds.get_or_create_owned(&labels),
        }
    }

    /// One link has ended.
    pub fn closed(&self, why: &'static str) {
        self.closed.get_or_create(&ClosedLabels { why }).inc();
    }

    /// Drops the series of a gateway that is linked no longer.
    pub fn forget(&self, gateway: &str, reasons: impl IntoIterator<Item = &'static str>) {
        let labels = GatewayLabels { gateway: gateway.to_owned() };
        for reason in reasons {
            self.failures.remove(&FailureLabels { gateway: gateway.to_owned(), reason });
        }
        let Self { links, traffic, .. } = self;
        for gauge in [&links.up, &links.known, &links.queue_pushes, &links.queue_bytes] {
            gauge.remove(&labels);
        }
        for counter in [&traffic.batches, &traffic.pushes, &traffic.resends, &traffic.dials, &traffic.events] {
            counter.remove(&labels);
        }
        traffic.batch_pushes.remove(&labels);
        traffic.reply_seconds.remove(&labels);
    }

    /// Names them.
    pub fn register(&self, r: &mut Registry) {
        let Self { interest, links, failures, states, closed, traffic } = self;
        r.register("tidegate_logic_interest_rooms", "Rooms known to have members somewhere", interest.rooms.clone());
        r.register("tidegate_logic_interest_users", "Users known to be connected somewhere", interest.users.clone());
        r.register("tidegate_backplane_up", "Whether the link is up", links.up.clone());
        r.register("tidegate_backplane_known", "Whether the gateway's interest is complete", links.known.clone());
        r.register(
            "tidegate_backplane_queue_pushes",
            "Pushes waiting (logic.backplane.queue_pushes)",
            links.queue_pushes.clone(),
        );
        r.register(
            "tidegate_backplane_queue_bytes",
            "Bytes waiting (logic.backplane.queue_bytes)",
            links.queue_bytes.clone(),
        );
        r.register("tidegate_backplane_links", "Links to gateways, by what they are", states.clone());
        r.register("tidegate_backplane_links_closed", "Links that have ended, by how", closed.clone());
        r.register("tidegate_backplane_batches", "Batches sent, resends left out", traffic.batches.clone());
        r.register("tidegate_backplane_pushes", "Pushes routed to the gateway", traffic.pushes.clone());
        r.register("tidegate_backplane_resends", "Batches sent again on a new connection", traffic.resends.clone());
        r.register("tidegate_backplane_dials", "Attempts to connect", traffic.dials.clone());
        r.register("tidegate_backplane_events", "Interest changes applied", traffic.events.clone());
        r.register("tidegate_backplane_failures", "Pushes a gateway did not take, by reason", failures.clone());
        r.register("tidegate_backplane_batch_pushes", "Pushes in one batch", traffic.batch_pushes.clone());
        r.register("tidegate_backplane_reply_seconds", "Time from a batch to its reply", traffic.reply_seconds.clone());
    }
}
