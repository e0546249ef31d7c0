//! Every metric of a logic node, by name; `docs/reference/metrics.md` explains each to an operator.
//! Labels are enums and configured gateway names, never rooms, users or connections. Gauges of bounds are set at
//! scrape time by `api::operate`, so nothing on the hot path keeps them.

pub mod agents;
pub mod upstream;

use std::fmt::Write;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::metrics::agents::AgentMetrics;
use crate::upstream::UpstreamMetrics;

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

/// Label set of [`Metrics::pushes`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PushLabels {
    /// What became of it.
    pub result: PushResult,
}

/// Label set of [`Metrics::requests`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The call, from a fixed list.
    pub call: &'static str,
    /// HTTP status.
    pub status: u16,
}

/// Label set of [`Metrics::refusals`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusalLabels {
    /// The problem's code, from a fixed list.
    pub code: &'static str,
}

/// Label set of what is counted per gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GatewayLabels {
    /// Its configured address.
    pub gateway: String,
}

/// Label set of [`Metrics::failures`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FailureLabels {
    /// Its configured address.
    pub gateway: String,
    /// A `fleet::Failure` as one word.
    pub reason: &'static str,
}

/// Label set of [`Metrics::hook`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HookLabels {
    /// `accepted`, `refused`, `cached` or `failed`.
    pub result: &'static str,
}

/// Label set of [`Metrics::evicted`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabels {
    /// `connections` or `bodies`.
    pub pool: &'static str,
}

/// Label set of [`Metrics::uplink_items`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ItemLabels {
    /// What was said, from a fixed list.
    pub kind: &'static str,
}

type PerGateway<M> = Family<GatewayLabels, M>;
type HistogramOf<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics; cloning any of them shares it.
pub struct Metrics {
    registry: Registry,
    pub upstream: UpstreamMetrics,
    pub pushes: Family<PushLabels, Counter>,
    pub messages: Counter,
    pub matched: Counter,
    pub push_seconds: Histogram,
    pub requests: Family<RequestLabels, Counter>,
    pub refusals: Family<RefusalLabels, Counter>,
    pub connections: Gauge,
    pub in_flight: Gauge,
    pub bodies_bytes: Gauge,
    pub evicted: Family<PoolLabels, Counter>,
    pub dedupe_keys: Gauge,
    pub dedupe_bytes: Gauge,
    pub nonces_bytes: Gauge,
    pub nonces: Gauge,
    pub interest_rooms: Gauge,
    pub interest_users: Gauge,
    pub seen_users: Gauge,
    pub blocks: Gauge,
    pub presence_rooms: Gauge,
    pub presence_frames: Counter,
    pub presence_skipped: Counter,
    pub up: PerGateway<Gauge>,
    pub known: PerGateway<Gauge>,
    pub queue_pushes: PerGateway<Gauge>,
    pub queue_bytes: PerGateway<Gauge>,
    pub batches: PerGateway<Counter>,
    pub gateway_pushes: PerGateway<Counter>,
    pub resends: PerGateway<Counter>,
    pub dials: PerGateway<Counter>,
    pub events: PerGateway<Counter>,
    pub failures: Family<FailureLabels, Counter>,
    pub uplink_items: Family<ItemLabels, Counter>,
    pub hook: Family<HookLabels, Counter>,
    pub hook_seconds: Histogram,
    pub hook_remembered: Gauge,
    pub devices_remembered: Gauge,
    pub batch_pushes: HistogramOf<GatewayLabels>,
    pub reply_seconds: HistogramOf<GatewayLabels>,
    /// Those of commands.
    pub agents: AgentMetrics,
}

/// 0.1 ms to 10 s: an idle loopback link answers in 0.2 ms, a dead one is failed after a second or so.
fn seconds() -> Histogram {
    Histogram::new([
        0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}

/// Powers of four up to the batch bound of 4,096.
fn batch_sizes() -> Histogram {
    Histogram::new([1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            upstream: UpstreamMetrics::default(),
            pushes: Family::default(),
            messages: Counter::default(),
            matched: Counter::default(),
            push_seconds: seconds(),
            requests: Family::default(),
            refusals: Family::default(),
            connections: Gauge::default(),
            in_flight: Gauge::default(),
            bodies_bytes: Gauge::default(),
            evicted: Family::default(),
            dedupe_keys: Gauge::default(),
            dedupe_bytes: Gauge::default(),
            nonces_bytes: Gauge::default(),
            nonces: Gauge::default(),
            interest_rooms: Gauge::default(),
            interest_users: Gauge::default(),
            seen_users: Gauge::default(),
            blocks: Gauge::default(),
            presence_rooms: Gauge::default(),
            presence_frames: Counter::default(),
            presence_skipped: Counter::default(),
            up: Family::default(),
            known: Family::default(),
            queue_pushes: Family::default(),
            queue_bytes: Family::default(),
            batches: Family::default(),
            gateway_pushes: Family::default(),
            resends: Family::default(),
            dials: Family::default(),
            events: Family::default(),
            failures: Family::default(),
            uplink_items: Family::default(),
            hook: Family::default(),
            hook_seconds: seconds(),
            hook_remembered: Gauge::default(),
            devices_remembered: Gauge::default(),
            batch_pushes: Family::new_with_constructor(batch_sizes),
            reply_seconds: Family::new_with_constructor(seconds),
            agents: AgentMetrics::default(),
        };
        metrics.register_api();
        metrics.register_presence();
        metrics.register_backplane();
        metrics.agents.register(&mut metrics.registry);
        metrics.upstream.register(&mut metrics.registry);
        metrics
    }
}

impl Metrics {
    fn register_api(&mut self) {
        let r = &mut self.registry;
        r.register("tidegate_push", "Pushes by what became of them", self.pushes.clone());
        r.register("tidegate_push_messages", "Messages of accepted pushes", self.messages.clone());
        r.register("tidegate_push_matched", "Connections that pushes were for, added up", self.matched.clone());
        r.register("tidegate_push_seconds", "Time from a parsed push to its receipt", self.push_seconds.clone());
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
            "tidegate_logic_interest_rooms",
            "Rooms known to have members somewhere",
            self.interest_rooms.clone(),
        );
        r.register(
            "tidegate_logic_interest_users",
            "Users known to be connected somewhere",
            self.interest_users.clone(),
        );
    }

    fn register_presence(&mut self) {
        let r = &mut self.registry;
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
        r.register(
            "tidegate_logic_presence_rooms",
            "Rooms whose members wait to be told (logic.presence.rooms_max)",
            self.presence_rooms.clone(),
        );
        r.register("tidegate_logic_presence_frames", "PRESENCE frames, one a room", self.presence_frames.clone());
        r.register(
            "tidegate_logic_presence_skipped",
            "Tallies of rooms beyond presence.rooms_max",
            self.presence_skipped.clone(),
        );
    }

    fn register_backplane(&mut self) {
        let r = &mut self.registry;
        r.register("tidegate_backplane_up", "Whether the link is up", self.up.clone());
        r.register("tidegate_backplane_known", "Whether the gateway's interest is complete", self.known.clone());
        r.register(
            "tidegate_backplane_queue_pushes",
            "Pushes waiting (logic.backplane.queue_pushes)",
            self.queue_pushes.clone(),
        );
        r.register(
            "tidegate_backplane_queue_bytes",
            "Bytes waiting (logic.backplane.queue_bytes)",
            self.queue_bytes.clone(),
        );
        r.register("tidegate_backplane_batches", "Batches sent, resends left out", self.batches.clone());
        r.register("tidegate_backplane_pushes", "Pushes routed to the gateway", self.gateway_pushes.clone());
        r.register("tidegate_backplane_resends", "Batches sent again on a new connection", self.resends.clone());
        r.register("tidegate_backplane_dials", "Attempts to connect", self.dials.clone());
        r.register("tidegate_backplane_events", "Interest changes applied", self.events.clone());
        r.register("tidegate_backplane_failures", "Pushes a gateway did not take, by reason", self.failures.clone());
        r.register("tidegate_uplink_items", "What clients said, by kind; repeats left out", self.uplink_items.clone());
        r.register("tidegate_logic_hook_answers", "Clients asked about, by what came of it", self.hook.clone());
        r.register(
            "tidegate_logic_hook_seconds",
            "Time from a question to the hook's answer",
            self.hook_seconds.clone(),
        );
        r.register(
            "tidegate_logic_hook_remembered",
            "Answers remembered (logic.hook.cache_max)",
            self.hook_remembered.clone(),
        );
        r.register(
            "tidegate_logic_devices_remembered",
            "Arrivals of users of whom one connection of a kind may stay, remembered for ten seconds",
            self.devices_remembered.clone(),
        );
        r.register("tidegate_backplane_batch_pushes", "Pushes in one batch", self.batch_pushes.clone());
        r.register("tidegate_backplane_reply_seconds", "Time from a batch to its reply", self.reply_seconds.clone());
    }

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
            let ours = ["tidegate_push", "tidegate_logic_", "tidegate_backplane_", "tidegate_upstream_"];
            assert!(ours.iter().any(|p| name.starts_with(p)), "{line}");
        }
    }
}
