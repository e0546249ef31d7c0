//! What logic must know of this gateway: interest, as a snapshot in pages and then as changes, held until there are some.
//! A request acknowledges all before its cursor; replies that waited for that are let go (see `interest`).
//! A cursor is the version it stands behind plus one, so that 0 asks for a snapshot.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_protocol::limits::INTEREST_PAGE;
use tidegate_protocol::records::{self, EventsReply, EventsRequest, GatewayInfo, InterestKind, PlatformCount};

use super::spare::SpareCapacity;
use crate::bucket::Bucket;
use crate::clock::Clock;
use crate::connection::membership::Membership;
use crate::counters::{self, Population, Totals};
use crate::deliver::merge::Merger;
use crate::key::Instance;
use crate::lifecycle::Lifecycle;
use crate::rooms::interest::{Change, Interest, Since};
use crate::rooms::{Rooms, SHARDS};
use crate::session::Access;

/// Longest a request is held.
const HOLD_MS_MAX: u32 = 30_000;
/// The same while the gateway is leaving.
const HOLD_MS_DRAINING: u32 = 200;

/// What a logic node follows.
#[derive(Debug)]
pub(crate) struct Feed {
    pub interest: Arc<Interest>,
    pub membership: Arc<Membership>,
    pub spare: SpareCapacity,
    pub clock: Clock,
    pub info: Info,
}

impl Feed {
    /// Answers at once when something has happened, else when it does or the hold is over.
    pub async fn events(&self, owner: u64, request: &EventsRequest) -> EventsReply {
        self.spare.note(request.rest.as_ref(), self.clock.now());
        if request.epoch != self.info.instance.epoch || request.cursor == 0 || !request.page.is_empty() {
            return self.snapshot(owner, request);
        }
        let version = request.cursor - 1;
        let (held, token) = self.interest.acknowledge(request.logic, owner, version);
        self.membership.release(&held);
        let reply = self.changes(owner, request, version).await;
        self.interest.answered(request.logic, token, self.clock.now());
        reply
    }

    async fn changes(&self, owner: u64, request: &EventsRequest, version: u64) -> EventsReply {
        // While leaving, what logic says of the others must not be old.
        let hold_ms_max = if self.info.lifecycle.is_draining() { HOLD_MS_DRAINING } else { HOLD_MS_MAX };
        let deadline = tokio::time::Instant::now() + Duration::from_millis(u64::from(request.hold_ms.min(hold_ms_max)));
        let mut is_over = false;
        loop {
            let changed = self.interest.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.interest.changes_since(version, INTEREST_PAGE) {
                Since::TooOld => {
                    return self.snapshot(owner, &EventsRequest { page: String::new(), ..request.clone() });
                }
                Since::Changes(list, reached) if !list.is_empty() || is_over => {
                    return self.reply(reached, list.into_iter().map(record).collect());
                }
                Since::Changes(..) => {}
            }
            is_over = tokio::time::timeout_at(deadline, changed).await.is_err() || self.info.lifecycle.is_draining();
        }
    }

    /// One page of a snapshot. It stands for the version of its beginning; what changed while its pages were read follows
    /// before its end, and the last word on a name counts.
    fn snapshot(&self, owner: u64, request: &EventsRequest) -> EventsReply {
        let parsed = parse_page(&request.page).filter(|_| request.epoch == self.info.instance.epoch);
        if parsed.is_none() {
            // Until it is complete, the logic node sends everything, so no reply waits for it.
            let held = self.interest.forget(request.logic);
            self.membership.release(&held);
        }
        let (mut version, mut at) = parsed.unwrap_or((self.interest.version(), 0));
        let end = SHARDS + self.info.buckets.len();
        let mut interest = Vec::new();
        while at < end && interest.len() < INTEREST_PAGE {
            let (kind, names) = self.names(at);
            interest.extend(names.into_iter().map(|name| record(Change { kind, name, is_present: true })));
            at += 1;
        }
        let mut page = format!("{version}:{at}");
        if at >= end {
            match self.interest.complete(request.logic, owner, version, INTEREST_PAGE, self.clock.now()) {
                Since::Changes(list, reached) => {
                    version = reached;
                    page = if list.len() < INTEREST_PAGE { String::new() } else { format!("{version}:{at}") };
                    interest.extend(list.into_iter().map(record));
                }
                // So much has changed meanwhile that it must begin again.
                Since::TooOld => {
                    return self.snapshot(owner, &EventsRequest { page: String::new(), ..request.clone() });
                }
            }
        }
        EventsReply { is_snapshot: parsed.is_none(), page, ..self.reply(version, interest) }
    }

    fn reply(&self, version: u64, interest: Vec<records::Interest>) -> EventsReply {
        EventsReply {
            epoch: self.info.instance.epoch,
            cursor: version + 1,
            interest,
            gateway: Some(self.info.record()),
            ..EventsReply::default()
        }
    }

    /// The rooms of one shard, or after those the users of one bucket.
    fn names(&self, at: usize) -> (InterestKind, Vec<Arc<str>>) {
        if at < SHARDS {
            (InterestKind::Room, self.info.rooms.names_in(at))
        } else {
            let table = self.info.buckets[at - SHARDS].table.read();
            (InterestKind::User, table.users.keys().cloned().collect())
        }
    }

    /// A link has ended: no reply waits for its logic node any more.
    pub fn hang_up(&self, owner: u64) {
        let held = self.interest.hang_up(owner);
        self.membership.release(&held);
    }
}

/// What a gateway says of itself.
pub(crate) struct Info {
    pub instance: Arc<Instance>,
    pub lifecycle: Arc<Lifecycle>,
    pub buckets: Arc<[Bucket]>,
    pub rooms: Arc<Rooms>,
    pub population: Arc<Population>,
    pub access: Arc<Access>,
    pub merger: Arc<Merger>,
    pub totals: Arc<Totals>,
    /// Strangers a second that it could take beside those that come, which only acceptors know.
    pub accept_spare: Box<dyn Fn() -> u32 + Send + Sync>,
}

impl std::fmt::Debug for Info {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Info").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Info {
    /// The gateway's account of itself.
    fn record(&self) -> GatewayInfo {
        let sum = counters::sum(self.buckets.iter().map(|b| &b.counters));
        let platforms = self.access.platforms.counts().into_iter();
        GatewayInfo {
            name: self.instance.name.clone(),
            id: u32::from(self.instance.id),
            id_epoch: self.instance.id_epoch,
            connections: self.population.connections() as u64,
            rooms: self.rooms.len() as u64,
            users: self.population.users.load(Ordering::Relaxed),
            is_draining: self.lifecycle.is_draining(),
            is_closed: !self.lifecycle.is_accepting(),
            version: env!("CARGO_PKG_VERSION").into(),
            connections_max: self.population.connections_max as u64,
            messages_queued: sum.queued,
            messages_written: sum.written,
            messages_dropped: sum.dropped.iter().sum(),
            messages_pending: u64::try_from(sum.pending).unwrap_or(0),
            frames_written: sum.frames,
            frames_encoded: self.totals.frames_encoded.load(Ordering::Relaxed),
            window_ms: self.merger.window_ms(),
            accept_spare: Some((self.accept_spare)()),
            platforms: platforms.map(|(name, connections)| PlatformCount { name, connections }).collect(),
            blocks: self.access.blocklist.version(),
        }
    }
}

fn parse_page(page: &str) -> Option<(u64, usize)> {
    let (version, at) = page.split_once(':')?;
    Some((version.parse().ok()?, at.parse().ok()?))
}

fn record(change: Change) -> records::Interest {
    records::Interest { kind: change.kind as i32, name: change.name.to_string(), is_present: change.is_present }
}
