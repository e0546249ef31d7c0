//! Every metric of a gateway, by name. Nothing is counted here: the numbers lie where they arise and are summed when asked for.
//! Names: `tidegate_gateway_` + what; `_total` for what only grows; labels are enums, never ids.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::Sources;
use crate::accept::admission::Queue;
use crate::bucket::Bucket;
use crate::counters::{self, DropReason};
use crate::topic::encoding::Encoding;

/// Appends the gateway's metrics as text, without the end mark.
pub(crate) fn write(sources: &Sources, out: &mut String) {
    let mut registry = Registry::with_prefix("tidegate_gateway");
    registry.register_collector(Box::new(Snapshot::take(sources)));
    // Writing to a String fails only if a metric is described wrongly, which the tests would show.
    let _ = prometheus_client::encoding::text::encode_registry(out, &registry);
}

/// One look at all the numbers.
#[derive(Debug)]
struct Snapshot {
    counters: Vec<(&'static str, &'static str, u64)>,
    gauges: Vec<(&'static str, &'static str, i64)>,
    dropped: Vec<(&'static str, u64)>,
    refused: Vec<(&'static str, u64)>,
    tokens_refused: Vec<(&'static str, u64)>,
    evicted: Vec<(&'static str, u64)>,
}

impl Snapshot {
    #[expect(clippy::cast_possible_wrap, reason = "counts of things in memory")]
    fn take(sources: &Sources) -> Self {
        let Sources { host, front, merger, fanout, rooms, maxima, .. } = sources;
        let (access, population, capacity) = (&host.access, &front.capacity.population, &front.capacity);
        let sum = counters::sum(host.buckets.iter().map(|b| &b.counters));
        let (t, compressor) = (&host.totals, &merger.compressor);
        let mut counters = vec![
            ("accepted", "Connections taken from the kernel", t.accepted.load(Relaxed)),
            ("connections_opened", "Handshakes that ended in a connection", t.opened.load(Relaxed)),
            ("connections_closed", "Connections that ended", t.closed.load(Relaxed)),
            ("turned_away", "Connections refused because more came than the rate", t.turned_away.load(Relaxed)),
            ("accept_errors", "Times accept or epoll ran out of files or memory", t.accept_errors.load(Relaxed)),
            ("pushes", "Pushes applied", t.pushes.load(Relaxed)),
            ("pushes_unmatched", "Pushes that found nobody here", t.pushes_unmatched.load(Relaxed)),
            ("ticks", "Moments at which at least one target was flushed", t.ticks.load(Relaxed)),
            ("batches", "Flushes of targets", t.batches.load(Relaxed)),
            ("frames_encoded", "PUSH frames encoded", t.frames_encoded.load(Relaxed)),
            ("frames_deflated", "PUSH frames that exist compressed too", compressor.frames.load(Relaxed)),
            ("deflate_bytes_before", "Bytes of such frames, plain", compressor.bytes_before.load(Relaxed)),
            ("deflate_bytes_after", "Bytes of such frames, compressed", compressor.bytes_after.load(Relaxed)),
            ("frames_written", "PUSH frames taken whole by the kernel", sum.frames),
            ("writes", "Writes to connections", sum.writes),
            ("bytes_sent", "Bytes taken by the kernel", sum.bytes),
            ("messages_queued", "Messages x connections accepted", sum.queued),
            ("messages_written", "Messages x connections taken by the kernel", sum.written),
            ("messages_received", "Messages from clients", t.received.load(Relaxed)),
            ("gaps", "GAP frames", sum.gaps),
            ("stalls", "Times a connection's socket was full", sum.stalls),
            ("rate_refused", "Requests of clients refused by rate", t.rate_refused.load(Relaxed)),
            ("slow_closed", "Connections closed for not reading", t.slow_closed.load(Relaxed)),
            ("idle_closed", "Connections closed for silence", t.idle_closed.load(Relaxed)),
            ("violations", "Connections closed for violating RFC 6455", t.violations.load(Relaxed)),
            ("pings", "Pings sent to silent peers", t.pings.load(Relaxed)),
            ("presence_frames", "PRESENCE frames, one a room and tick", t.presence_frames.load(Relaxed)),
            ("presence_skipped", "Times a room found the presence list full", rooms.watched.skipped.load(Relaxed)),
            ("moved", "Connections put into and out of rooms by the business", t.moved.load(Relaxed)),
            ("blocks_refused", "Blocks beyond the bound", access.blocklist.refused.load(Relaxed)),
            ("interest_late", "Replies released without a logic node's acknowledgement", t.interest_late.load(Relaxed)),
        ];
        let mut gauges = vec![
            ("connections", "Open connections", population.connections() as i64),
            ("connections_deflate", "Open connections that take compressed frames", deflating(&host.buckets) as i64),
            ("connections_max", "Most connections taken", population.connections_max as i64),
            ("handshakes", "Handshakes in flight", capacity.handshakes.total() as i64),
            ("handshakes_max", "Most handshakes in flight", front.rules.handshake.in_flight as i64),
            ("rooms", "Rooms with members", rooms.len() as i64),
            ("platforms", "Different platforms of connections", access.platforms.counts().len() as i64),
            ("users", "Users with connections", population.users.load(Relaxed) as i64),
            ("messages_pending", "Messages x connections behind slow peers", sum.pending),
            ("pending_bytes", "Bytes behind slow peers", sum.pending_bytes),
            ("messages_gathered", "Messages that wait for their window", merger.windows.gathered.load(Relaxed) as i64),
            ("windows_open", "Targets with an open window", i64::from(merger.windows.open.load(Relaxed))),
            ("window_ms", "Window of the target everyone", i64::from(merger.window_ms())),
            ("partial_bytes", "Bytes of unfinished messages", host.unfinished.total() as i64),
            ("partial_bytes_max", "Most bytes of unfinished messages", host.settings.partial_bytes_total() as i64),
            ("fanout_bytes", "Bytes of batches not yet walked", fanout.bytes() as i64),
            ("fanout_bytes_max", "Beyond this the backplane waits", maxima.fanout_bytes as i64),
            ("fanout_rings", "Fan-out threads that write by io_uring", fanout.rings() as i64),
            ("waits", "Pushes whose publishers wait for written", sources.backplane.links.waiting() as i64),
            ("presence_rooms", "Rooms with something to tell at the coming tick", rooms.watched.waiting() as i64),
            ("blocks", "Blocks of users, lifted ones that are remembered included", access.blocklist.len() as i64),
            ("logic_links", "Logic nodes that follow the interest", sources.interest.links() as i64),
        ];
        gauges.extend(uplink(sources).into_iter().chain(comings_and_goings(sources)));
        for (more_counters, more_gauges) in [identity(sources), tls(sources)] {
            counters.extend(more_counters);
            gauges.extend(more_gauges);
        }
        counters.extend(sent_up(sources));
        let dropped = DropReason::ALL.iter().map(|r| (r.label(), sum.dropped[*r as usize])).collect();
        let refused = host.totals.refusals.lock().iter().map(|(code, n)| (*code, *n)).collect();
        Self { counters, gauges, dropped, refused, tokens_refused: access.auth.refusals(), evicted: evicted(sources) }
    }
}

fn deflating(buckets: &[Bucket]) -> usize {
    buckets.iter().map(|bucket| bucket.takers(Encoding::Deflated)).sum()
}

/// What went up to logic.
fn sent_up(sources: &Sources) -> [(&'static str, &'static str, u64); 5] {
    let uplink = &sources.host.uplink;
    [
        ("uplink_items", "What clients said, sent up", uplink.offered.load(Relaxed)),
        ("uplink_refused", "The same, refused for lack of room", uplink.refused.load(Relaxed)),
        ("uplink_given_up", "The same, given up for lack of a logic node", uplink.given_up.load(Relaxed)),
        ("claims_dropped", "Device claims that gave way to what clients said", uplink.unclaimed.load(Relaxed)),
        ("events_dropped", "Events that gave way to what clients said", uplink.wants.wanted.dropped.load(Relaxed)),
    ]
}

/// What clients have said and nobody has answered.
#[expect(clippy::cast_possible_wrap, reason = "counts of things in memory")]
fn uplink(sources: &Sources) -> [(&'static str, &'static str, i64); 5] {
    let (items, bytes) = sources.host.uplink.kept();
    [
        ("uplink_kept", "What clients said and logic has not answered", items as i64),
        ("uplink_kept_max", "Beyond this clients are told to try again", sources.maxima.uplink_items as i64),
        ("uplink_bytes", "Bytes of it", bytes as i64),
        ("uplink_bytes_max", "Beyond this clients are told to try again", sources.maxima.uplink_bytes as i64),
        ("uplink_nodes", "Logic nodes that listen to clients", sources.host.uplink.nodes() as i64),
    ]
}

/// Who had to make room in pools that all draw from.
fn evicted(sources: &Sources) -> Vec<(&'static str, u64)> {
    vec![
        ("unfinished", sources.host.unfinished.evicted()),
        ("handshakes", sources.front.capacity.handshakes.evicted()),
        ("unnamed", sources.front.capacity.unauthenticated.evicted()),
        ("tls_handshakes", sources.front.tls.as_ref().map_or(0, |tls| tls.evicted())),
        ("ops", sources.ops_places.evicted()),
        ("links", sources.backplane.places.evicted()),
    ]
}

/// What TLS in this process does.
#[expect(clippy::cast_possible_wrap, reason = "counts of things in memory")]
fn tls(sources: &Sources) -> (Vec<Row<u64>>, Vec<Row<i64>>) {
    let (failed, hung_up) = sources.front.tls.as_ref().map_or((0, 0), |tls| tls.failures());
    let (shaking, shaking_max, open) = sources.front.tls.as_ref().map_or((0, 0, 0), |tls| tls.counts());
    let counters = vec![
        ("tls_failed", "TLS handshakes that failed", failed),
        ("tls_hung_up", "Clients hung up on before TLS for want of a place", hung_up),
    ];
    let gauges = vec![
        ("tls_connections", "TLS clients past their TLS handshake", open as i64),
        ("tls_handshakes", "TLS handshakes in flight", shaking as i64),
        ("tls_handshakes_max", "Most TLS handshakes in flight", shaking_max as i64),
    ];
    (counters, gauges)
}

/// How fast strangers are let in, and how a drain goes.
fn comings_and_goings(sources: &Sources) -> [(&'static str, &'static str, i64); 8] {
    let queue = sources.front.capacity.backlog.look();
    let queue = |of: fn(Queue) -> u32| queue.map_or(-1, |queue| i64::from(of(queue)));
    let (rate, spare, lag) = sources.front.capacity.admitting(&sources.host.lifecycle);
    let fleet_spare = sources.backplane.feed.spare.others(sources.host.clock().now()).map_or(-1, i64::from);
    [
        ("accept_rate", "Connections accepted a second, at most, now", i64::from(rate)),
        ("accept_spare", "Of those, not used now and with room", i64::from(spare)),
        ("accept_queue", "Connections that wait to be accepted; -1: unknown", queue(|q| q.length)),
        ("accept_queue_max", "Where the kernel drops them; -1: unknown", queue(|q| q.length_max)),
        ("lag_ms", "How late timers ran, at worst, in the last second", i64::from(lag)),
        ("fleet_spare", "Connections a second the other gateways can take; -1: unknown", fleet_spare),
        ("drain_rate", "Closes a second while leaving", i64::from(sources.backplane.feed.spare.closes())),
        ("draining", "1 while leaving", i64::from(sources.host.lifecycle.is_draining())),
    ]
}

/// Name, help and value.
type Row<N> = (&'static str, &'static str, N);

/// Who clients are.
#[expect(clippy::cast_possible_wrap, reason = "counts of things in memory")]
fn identity(sources: &Sources) -> (Vec<Row<u64>>, Vec<Row<i64>>) {
    let (accepted, reloads, failures) = sources.host.access.auth.counts();
    let (grants, attributes, shared_max) = sources.host.access.claims.shared();
    let expired = sources.host.totals.expired_closed.load(Relaxed);
    let counters = vec![
        ("tokens_accepted", "Tokens of clients accepted", accepted),
        ("token_key_reloads", "Times the keys for tokens were exchanged", reloads),
        ("token_key_failures", "Times new keys were of no use and the old ones stayed", failures),
        ("expired_closed", "Connections closed because their tokens ran out", expired),
    ];
    let gauges = vec![
        ("token_keys", "Keys that tokens are verified with", sources.host.access.auth.keys() as i64),
        (
            "unnamed",
            "Connections that have yet to say who they are",
            sources.front.capacity.unauthenticated.total() as i64,
        ),
        ("unnamed_max", "Most of them", sources.front.rules.unauthenticated_max as i64),
        ("grants", "Different grants that connections share", grants as i64),
        ("attributes", "Different sets of attributes that connections share", attributes as i64),
        ("shared_max", "Most of each; beyond it they are not shared", shared_max as i64),
    ];
    (counters, gauges)
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in &self.counters {
            let metric = ConstCounter::new(*value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        for (name, help, value) in &self.gauges {
            let metric = ConstGauge::new(*value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        labelled(&mut encoder, "messages_dropped", "Messages x connections dropped", "reason", &self.dropped)?;
        labelled(&mut encoder, "handshakes_refused", "Handshakes refused", "code", &self.refused)?;
        labelled(&mut encoder, "tokens_refused", "Tokens of clients refused", "code", &self.tokens_refused)?;
        labelled(&mut encoder, "evicted", "Holders that made room for newcomers", "pool", &self.evicted)
    }
}

fn labelled(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    rows: &[(&'static str, u64)],
) -> Result<(), fmt::Error> {
    let kind = ConstCounter::new(0u64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (value, n) in rows {
        ConstCounter::new(*n).encode(family.encode_family(&[(label, *value)])?)?;
    }
    Ok(())
}
