//! What is counted of the upstream, by configured sink. Gauges are set at scrape time from the ledgers.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// A configured sink.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SinkLabels {
    /// Its name.
    pub sink: String,
}

/// A sink, and one word of a fixed list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// Its name.
    pub sink: String,
    /// Why.
    pub reason: &'static str,
}

type PerSink<M> = Family<SinkLabels, M>;
type PerReason = Family<ReasonLabels, Counter>;

/// 1 ms to a minute: a webhook next door answers in milliseconds, the longest deadline is longer than any should need.
fn seconds() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

/// 0.1 ms to 1 s: an fdatasync.
fn commits() -> Histogram {
    Histogram::new([0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0])
}

/// The metrics.
#[derive(Default)]
pub struct UpstreamMetrics {
    pub intake: Intake,
    pub outlet: Outlet,
    pub dead: DeadLetters,
    pub offline_pending: Gauge,
}

/// Into the spool, and what lies there.
pub struct Intake {
    pub messages: PerSink<Counter>,
    pub events: PerSink<Counter>,
    pub refused: PerReason,
    pub damaged: PerSink<Counter>,
    pub set_aside: PerSink<Gauge>,
    pub commit_seconds: Family<SinkLabels, Histogram, fn() -> Histogram>,
    pub spool_messages: PerSink<Gauge>,
    pub spool_bytes: PerSink<Gauge>,
    pub unwritten_bytes: PerSink<Gauge>,
}

/// Out of it, to the service.
pub struct Outlet {
    pub delivered: PerSink<Counter>,
    pub requests: PerSink<Counter>,
    pub retries: PerReason,
    pub actions: PerReason,
    pub request_seconds: Family<SinkLabels, Histogram, fn() -> Histogram>,
    pub lag_seconds: PerSink<Gauge<f64, AtomicU64>>,
}

/// What the service never took.
#[derive(Default)]
pub struct DeadLetters {
    pub died: PerReason,
    pub evicted: PerReason,
    pub messages: PerSink<Gauge>,
    pub bytes: PerSink<Gauge>,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            messages: Family::default(),
            events: Family::default(),
            refused: Family::default(),
            damaged: Family::default(),
            set_aside: Family::default(),
            commit_seconds: Family::new_with_constructor(commits),
            spool_messages: Family::default(),
            spool_bytes: Family::default(),
            unwritten_bytes: Family::default(),
        }
    }
}

impl Default for Outlet {
    fn default() -> Self {
        Self {
            delivered: Family::default(),
            requests: Family::default(),
            retries: Family::default(),
            actions: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            lag_seconds: Family::default(),
        }
    }
}

impl UpstreamMetrics {
    /// Names them.
    pub fn register(&self, r: &mut Registry) {
        self.intake.register(r);
        self.outlet.register(r);
        self.dead.register(r);
        r.register(
            "tidegate_upstream_offline_pending",
            "Users gone and not told of yet (logic.events.pending_max)",
            self.offline_pending.clone(),
        );
    }
}

impl Intake {
    fn register(&self, r: &mut Registry) {
        r.register("tidegate_upstream_messages", "Messages taken into the spool", self.messages.clone());
        r.register("tidegate_upstream_events", "Events taken into the spool", self.events.clone());
        r.register("tidegate_upstream_refused", "Messages and events not taken, by reason", self.refused.clone());
        r.register(
            "tidegate_upstream_damaged",
            "Messages and dead letters that could not be read from the spool any more",
            self.damaged.clone(),
        );
        r.register("tidegate_upstream_set_aside", "Damaged spools that are kept beside it", self.set_aside.clone());
        r.register("tidegate_upstream_commit_seconds", "Time of a commit to the spool", self.commit_seconds.clone());
        r.register("tidegate_upstream_spool_messages", "Messages not delivered yet", self.spool_messages.clone());
        r.register("tidegate_upstream_spool_bytes", "Their bytes (spool_bytes)", self.spool_bytes.clone());
        r.register("tidegate_upstream_unwritten_bytes", "Bytes that wait for the disk", self.unwritten_bytes.clone());
    }
}

impl Outlet {
    fn register(&self, r: &mut Registry) {
        r.register("tidegate_upstream_delivered", "Messages and events the sink took", self.delivered.clone());
        r.register("tidegate_upstream_requests", "Requests to the sink", self.requests.clone());
        r.register("tidegate_upstream_retries", "Requests that will be repeated, by reason", self.retries.clone());
        r.register("tidegate_upstream_actions", "Replies and pushes of answers, by outcome", self.actions.clone());
        r.register(
            "tidegate_upstream_request_seconds",
            "Time from a request to its answer",
            self.request_seconds.clone(),
        );
        r.register(
            "tidegate_upstream_lag_seconds",
            "Age of the oldest message not delivered",
            self.lag_seconds.clone(),
        );
    }
}

impl DeadLetters {
    fn register(&self, r: &mut Registry) {
        r.register("tidegate_upstream_dead", "Messages that became dead letters, by reason", self.died.clone());
        r.register(
            "tidegate_upstream_dead_evicted",
            "Dead letters dropped for lack of room, by reason",
            self.evicted.clone(),
        );
        r.register("tidegate_upstream_dead_messages", "Dead letters kept", self.messages.clone());
        r.register("tidegate_upstream_dead_bytes", "Their bytes (dead_bytes)", self.bytes.clone());
    }
}
