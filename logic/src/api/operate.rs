//! For operators: whether the node lives and can work, what it counts, which gateways it has.
//! Reads only what the links' tasks have learnt; asks no gateway, so a slow one never slows a probe.

use http::header::{ACCEPT, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use tidegate_protocol::exposition::Exposition;
use utoipa::ToSchema;

use super::response::{Answer, json, with_type};
use crate::fleet::{Fleet, Link, LinkState};
use crate::metrics::Scrape;

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
    /// Whether it is off the list (`logic.gateways`): it drains, and is let go.
    is_leaving: bool,
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
pub fn readiness(fleet: &Fleet, is_leaving: bool) -> Answer {
    let mut missing = Vec::new();
    let mut able = 0;
    for link in fleet.roster().iter() {
        match link.state() {
            _ if link.is_leaving() => missing.push(format!("gateway {}: it is off the list and drains", link.name)),
            LinkState::Up if link.account().1.is_some_and(|info| info.is_draining) => {
                missing.push(format!("gateway {}: draining", link.name));
            }
            LinkState::Up if !link.is_briefed() => {
                missing.push(format!("gateway {}: it has not been told yet who is blocked", link.name));
            }
            LinkState::Up if fleet.interest().is_known(link.slot.index) => able += 1,
            LinkState::Up => missing.push(format!("gateway {}: its interest is not complete yet", link.name)),
            LinkState::Joining => missing.push(format!("gateway {}: connecting", link.name)),
            LinkState::Down(why) => missing.push(format!("gateway {}: {}", link.name, why.label())),
        }
    }
    if fleet.roster().is_empty() {
        missing.push("no gateway is configured (logic.gateways, logic.gateways_file)".into());
    }
    if is_leaving {
        missing.push("this node is leaving".into());
    }
    let ready = able > 0 && !is_leaving;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &Readiness { ready, missing })
}

/// `GET /v1/gateways`.
pub fn gateways(fleet: &Fleet) -> Answer {
    json(StatusCode::OK, &Gateways { gateways: list(fleet) })
}

/// `GET /v1/stats`: totals of the gateways' latest accounts, at most `backplane.hold_ms` old, and each of them.
pub fn stats(fleet: &Fleet) -> Answer {
    let gateways = list(fleet);
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

fn list(fleet: &Fleet) -> Vec<Gateway> {
    fleet.roster().iter().map(|link| gateway(fleet, link)).collect()
}

fn gateway(fleet: &Fleet, link: &Link) -> Gateway {
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
        is_known: fleet.interest().is_known(link.slot.index),
        is_leaving: link.is_leaving(),
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

/// `GET /metrics`.
pub fn metrics(scrape: &Scrape, headers: &HeaderMap) -> Answer {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|field| field.to_str().ok());
    let format = Exposition::accepted(accept);
    let mut answer = with_type(StatusCode::OK, format.content_type(), format.finish(scrape.text()));
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer
}
