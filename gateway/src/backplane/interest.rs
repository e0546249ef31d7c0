//! What logic must know of this gateway: interest, as a snapshot in pages and then as changes, held until there are some.
//! A request acknowledges all before its cursor; replies that waited for that are let go (see `interest`).
//! A cursor is the version it stands behind plus one, so that 0 asks for a snapshot.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_protocol::limits::INTEREST_PAGE;
use tidegate_protocol::records::{self, EventsReply, EventsRequest, GatewayInfo, InterestKind, PlatformCount};

use crate::counters;
use crate::gateway::node::Node;
use crate::rooms::SHARDS;
use crate::rooms::interest::{Change, Since};

/// Longest a request is held.
const HOLD_MS_MAX: u32 = 30_000;
/// The same while the gateway is leaving.
const HOLD_MS_DRAINING: u32 = 200;

/// Answers at once when something has happened, else when it does or the hold is over.
pub(super) async fn events(node: &Node, owner: u64, request: &EventsRequest) -> EventsReply {
    node.spare.note(request.rest.as_ref(), node.clock.now());
    if request.epoch != node.instance.epoch || request.cursor == 0 || !request.page.is_empty() {
        return snapshot(node, owner, request);
    }
    let version = request.cursor - 1;
    let (held, token) = node.interest.acknowledge(request.logic, owner, version);
    node.membership.release(&held);
    let reply = changes(node, owner, request, version).await;
    node.interest.answered(request.logic, token, node.clock.now());
    reply
}

async fn changes(node: &Node, owner: u64, request: &EventsRequest, version: u64) -> EventsReply {
    // While leaving, what logic says of the others must not be old.
    let hold_ms_max = if node.lifecycle.is_draining() { HOLD_MS_DRAINING } else { HOLD_MS_MAX };
    let deadline = tokio::time::Instant::now() + Duration::from_millis(u64::from(request.hold_ms.min(hold_ms_max)));
    let mut is_over = false;
    loop {
        let changed = node.interest.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        match node.interest.changes_since(version, INTEREST_PAGE) {
            Since::TooOld => {
                return snapshot(node, owner, &EventsRequest { page: String::new(), ..request.clone() });
            }
            Since::Changes(list, reached) if !list.is_empty() || is_over => {
                return reply(node, reached, list.into_iter().map(record).collect());
            }
            Since::Changes(..) => {}
        }
        is_over = tokio::time::timeout_at(deadline, changed).await.is_err() || node.lifecycle.is_draining();
    }
}

/// One page of a snapshot. It stands for the version of its beginning; what changed while its pages were read follows
/// before its end, and the last word on a name counts.
fn snapshot(node: &Node, owner: u64, request: &EventsRequest) -> EventsReply {
    let parsed = parse_page(&request.page).filter(|_| request.epoch == node.instance.epoch);
    if parsed.is_none() {
        // Until it is complete, the logic node sends everything, so no reply waits for it.
        let held = node.interest.forget(request.logic);
        node.membership.release(&held);
    }
    let (mut version, mut at) = parsed.unwrap_or((node.interest.version(), 0));
    let end = SHARDS + node.buckets.len();
    let mut interest = Vec::new();
    while at < end && interest.len() < INTEREST_PAGE {
        let (kind, names) = names(node, at);
        interest.extend(names.into_iter().map(|name| record(Change { kind, name, is_present: true })));
        at += 1;
    }
    let mut page = format!("{version}:{at}");
    if at >= end {
        match node.interest.complete(request.logic, owner, version, INTEREST_PAGE, node.clock.now()) {
            Since::Changes(list, reached) => {
                version = reached;
                page = if list.len() < INTEREST_PAGE { String::new() } else { format!("{version}:{at}") };
                interest.extend(list.into_iter().map(record));
            }
            // So much has changed meanwhile that it must begin again.
            Since::TooOld => return snapshot(node, owner, &EventsRequest { page: String::new(), ..request.clone() }),
        }
    }
    EventsReply { is_snapshot: parsed.is_none(), page, ..reply(node, version, interest) }
}

fn reply(node: &Node, version: u64, interest: Vec<records::Interest>) -> EventsReply {
    EventsReply {
        epoch: node.instance.epoch,
        cursor: version + 1,
        interest,
        gateway: Some(info(node)),
        ..EventsReply::default()
    }
}

/// The rooms of one shard, or after those the users of one bucket.
fn names(node: &Node, at: usize) -> (InterestKind, Vec<Arc<str>>) {
    if at < SHARDS {
        (InterestKind::Room, node.rooms.names_in(at))
    } else {
        let table = node.buckets[at - SHARDS].table.read();
        (InterestKind::User, table.users.keys().cloned().collect())
    }
}

fn parse_page(page: &str) -> Option<(u64, usize)> {
    let (version, at) = page.split_once(':')?;
    Some((version.parse().ok()?, at.parse().ok()?))
}

fn record(change: Change) -> records::Interest {
    records::Interest { kind: change.kind as i32, name: change.name.to_string(), is_present: change.is_present }
}

/// The gateway's account of itself.
pub(crate) fn info(node: &Node) -> GatewayInfo {
    let sum = counters::sum(node.buckets.iter().map(|b| &b.counters));
    let platforms = node.access.platforms.counts().into_iter();
    GatewayInfo {
        name: node.instance.name.clone(),
        id: u32::from(node.instance.id),
        id_epoch: node.instance.id_epoch,
        connections: node.population.connections() as u64,
        rooms: node.rooms.len() as u64,
        users: node.population.users.load(Ordering::Relaxed),
        is_draining: node.lifecycle.is_draining(),
        version: env!("CARGO_PKG_VERSION").into(),
        connections_max: node.population.connections_max as u64,
        messages_queued: sum.queued,
        messages_written: sum.written,
        messages_dropped: sum.dropped.iter().sum(),
        messages_pending: u64::try_from(sum.pending).unwrap_or(0),
        frames_written: sum.frames,
        frames_encoded: node.totals.frames_encoded.load(Ordering::Relaxed),
        window_ms: node.merger.window_ms(),
        accept_spare: Some(node.capacity.admitting(&node.lifecycle).1),
        platforms: platforms.map(|(name, connections)| PlatformCount { name, connections }).collect(),
        blocks: node.access.blocklist.version(),
    }
}
