//! For operators: whether the node lives and can work, what it counts, which gateways it has.
//! Reads only what the links' tasks have learnt; asks no gateway, so a slow one never slows a probe.

use std::sync::Arc;
use std::sync::atomic::Ordering::{self, Relaxed};

use http::header::{ACCEPT, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use tidegate_protocol::exposition::Exposition;
use utoipa::ToSchema;

use super::response::{Answer, json, with_type};
use crate::fleet::{Link, LinkState};
use crate::metrics::api::PoolLabels;
use crate::metrics::fleet::GatewayLabels;
use crate::node::Node;

/// One gateway as `/v1/gateways` and `/v1/stats` show it.
#[derive(Serialize, ToSchema)]
struct Gateway {
    /// Its backplane address; `local` in one process.
    gateway: String,
    /// `joining`, `up` or `down`.
    #[schema(pattern = "^(joining|up|down)$")]
    state: &'static str,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Whether its interest is complete: until then it gets every push.
    is_known: bool,
    /// The life of its process.
    epoch: u64,
    /// Its own name for itself.
    name: String,
    /// Its version.
    version: String,
    /// Whether it is leaving.
    is_draining: bool,
    /// What waits here for it.
    queue: Queue,
    #[serde(flatten)]
    figures: Figures,
}

/// What waits for a gateway.
#[derive(Serialize, ToSchema)]
struct Queue {
    /// How many.
    pushes: usize,
    /// How large together.
    bytes: usize,
}

/// Sums over a gateway's life, or over all gateways.
#[derive(Default, Serialize, ToSchema)]
struct Figures {
    /// Open now.
    connections: u64,
    /// How many may be open.
    connections_max: u64,
    /// Rooms with members.
    rooms: u64,
    /// Users with connections.
    users: u64,
    /// Messages times connections.
    messages: Messages,
    /// WebSocket frames.
    frames: Frames,
    /// The longest window that would be opened for everyone now.
    window_ms: u32,
}

/// Messages times connections: `queued = written + dropped + pending`.
#[derive(Default, Serialize, ToSchema)]
struct Messages {
    /// Meant for a connection.
    queued: u64,
    /// Taken by the kernel.
    written: u64,
    /// Thrown away.
    dropped: u64,
    /// On their way.
    pending: u64,
}

/// WebSocket frames.
#[derive(Default, Serialize, ToSchema)]
struct Frames {
    /// Made, once for all who get them.
    encoded: u64,
    /// Taken by the kernel.
    written: u64,
}

/// Totals over the gateways.
#[derive(Serialize, ToSchema)]
pub struct Stats {
    #[serde(flatten)]
    total: Figures,
    /// Messages that reached the kernel, one for each connection.
    deliveries: u64,
    /// Each gateway.
    gateways: Vec<Gateway>,
}

/// The gateways.
#[derive(Serialize, ToSchema)]
pub struct Gateways {
    /// In the configuration's order.
    gateways: Vec<Gateway>,
}

/// Whether a node can do its job.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    /// Whether it can.
    ready: bool,
    /// What is missing, in words.
    missing: Vec<String>,
}

/// `GET /healthz`: the process answers.
pub fn health() -> Answer {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")
}

/// `GET /readyz`: 200 while at least one gateway is linked, knows and is known, and is not leaving.
pub fn readiness(node: &Node) -> Answer {
    let mut missing = Vec::new();
    let mut able = 0;
    for link in node.fleet.links() {
        match link.state() {
            LinkState::Up if link.account().1.is_some_and(|info| info.is_draining) => {
                missing.push(format!("gateway {}: draining", link.name));
            }
            LinkState::Up if !link.is_briefed() => {
                missing.push(format!("gateway {}: it has not been told yet who is blocked", link.name));
            }
            LinkState::Up if node.fleet.interest().is_known(link.index) => able += 1,
            LinkState::Up => missing.push(format!("gateway {}: its interest is not complete yet", link.name)),
            LinkState::Joining => missing.push(format!("gateway {}: connecting", link.name)),
            LinkState::Down(why) => missing.push(format!("gateway {}: {}", link.name, why.label())),
        }
    }
    if node.fleet.links().is_empty() {
        missing.push("no gateway is configured (logic.gateways)".into());
    }
    let is_leaving = node.is_leaving.load(Ordering::Relaxed);
    if is_leaving {
        missing.push("this node is leaving".into());
    }
    let ready = able > 0 && !is_leaving;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &Readiness { ready, missing })
}

/// `GET /v1/gateways`.
pub fn gateways(node: &Node) -> Answer {
    json(StatusCode::OK, &Gateways { gateways: list(node) })
}

/// `GET /v1/stats`: totals of the gateways' latest accounts, at most `backplane.hold_ms` old, and each of them.
pub fn stats(node: &Node) -> Answer {
    let gateways = list(node);
    let mut total = Figures::default();
    for gateway in &gateways {
        // A gateway that is down has no connections; what it had counted died with it or comes back with it.
        if gateway.state == "up" {
            total.add(&gateway.figures);
        }
    }
    let deliveries = total.messages.written;
    json(StatusCode::OK, &Stats { total, deliveries, gateways })
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.connections_max += other.connections_max;
        self.rooms += other.rooms;
        self.users += other.users;
        self.messages.queued += other.messages.queued;
        self.messages.written += other.messages.written;
        self.messages.dropped += other.messages.dropped;
        self.messages.pending += other.messages.pending;
        self.frames.encoded += other.frames.encoded;
        self.frames.written += other.frames.written;
        self.window_ms = self.window_ms.max(other.window_ms);
    }
}

fn list(node: &Node) -> Vec<Gateway> {
    node.fleet.links().iter().map(|link| gateway(node, link)).collect()
}

fn gateway(node: &Node, link: &Arc<Link>) -> Gateway {
    let (epoch, info) = link.account();
    let info = info.unwrap_or_default();
    let (pushes, bytes) = link.waiting();
    let (state, reason) = match link.state() {
        LinkState::Joining => ("joining", None),
        LinkState::Up => ("up", None),
        LinkState::Down(why) => ("down", Some(why.label())),
    };
    Gateway {
        gateway: link.name.clone(),
        state,
        reason,
        is_known: node.fleet.interest().is_known(link.index),
        epoch,
        name: info.name,
        version: info.version,
        is_draining: info.is_draining,
        queue: Queue { pushes, bytes },
        figures: Figures {
            connections: info.connections,
            connections_max: info.connections_max,
            rooms: info.rooms,
            users: info.users,
            messages: Messages {
                queued: info.messages_queued,
                written: info.messages_written,
                dropped: info.messages_dropped,
                pending: info.messages_pending,
            },
            frames: Frames { encoded: info.frames_encoded, written: info.frames_written },
            window_ms: info.window_ms,
        },
    }
}

/// `GET /metrics`: ours, then the other tier's when it shares the process.
pub fn metrics(node: &Node, headers: &HeaderMap) -> Answer {
    refresh(node);
    let mut text = String::new();
    node.metrics.encode(&mut text);
    if let Some(extra) = &node.extras.metrics {
        extra(&mut text);
        let end = text.trim_end_matches("# EOF\n").len();
        text.truncate(end);
    }
    let accept = headers.get_all(ACCEPT).iter().filter_map(|field| field.to_str().ok());
    let format = Exposition::accepted(accept);
    let mut answer = with_type(StatusCode::OK, format.content_type(), format.finish(text));
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

/// Gauges of bounds, read where they live.
fn refresh(node: &Node) {
    let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let limits = &node.config.limits;
    let m = &node.metrics;
    m.api.connections.set(gauge(limits.connections.saturating_sub(node.connections.available_permits())));
    m.api.in_flight.set(gauge(limits.in_flight.saturating_sub(node.in_flight.available_permits())));
    m.api.bodies_bytes.set(gauge(node.budget.held()));
    for (pool, evicted) in [("connections", node.places.evicted()), ("bodies", node.budget.evicted())] {
        m.api.evicted.get_or_create(&PoolLabels { pool }).inner().store(evicted, Relaxed);
    }
    m.remembered.hook.set(node.hook.as_ref().map_or(0, |hook| gauge(hook.remembered())));
    m.remembered.devices.set(gauge(node.devices.remembered()));
    m.remembered.dedupe_keys.set(gauge(node.engine.published.len()));
    m.remembered.nonces.set(gauge(node.engine.nonces.len()));
    m.remembered.dedupe_bytes.set(gauge(node.engine.published.bytes()));
    m.remembered.nonces_bytes.set(gauge(node.engine.nonces.bytes()));
    let agents = &node.config.agents;
    m.agents.waiting.set(gauge(agents.commands.saturating_sub(node.agents.places.available_permits())));
    m.agents.replies_bytes.set(gauge(node.agents.registry.held()));
    m.agents.keys.set(gauge(node.agents.keys.len()));
    m.agents.keys_bytes.set(gauge(node.agents.keys_held()));
    node.upstream.sinks().iter().for_each(|sink| sink.refresh());
    m.upstream.offline_pending.set(gauge(node.events.pending()));
    let (rooms, users) = node.fleet.interest().sizes();
    m.fleet.interest.rooms.set(gauge(rooms));
    m.fleet.interest.users.set(gauge(users));
    m.remembered.seen_users.set(gauge(node.fleet.interest().seen()));
    m.remembered.blocks.set(gauge(node.blocklist.len()));
    m.presence.rooms.set(gauge(node.presence.waiting()));
    for link in node.fleet.links() {
        let labels = GatewayLabels { gateway: link.name.clone() };
        let (pushes, bytes) = link.waiting();
        m.fleet.links.queue_pushes.get_or_create(&labels).set(gauge(pushes));
        m.fleet.links.queue_bytes.get_or_create(&labels).set(gauge(bytes));
        m.fleet.links.up.get_or_create(&labels).set(i64::from(link.state().is_up()));
        m.fleet.links.known.get_or_create(&labels).set(i64::from(node.fleet.interest().is_known(link.index)));
    }
}
