//! Presence over all gateways. Each gateway tells one logic node, the one that a room belongs to, who came and went there; this
//! node adds up and has every gateway tell the room's members, in one frame ([`board`]).
//! Counts of gateways that have not spoken are asked for, all rooms of a look in one question, so a frame is never a guess.
//! What clients ask about rooms is `inbound::queries`; when those who left were last seen, `fleet::interest`.

pub mod board;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tidegate_protocol::limits::QUERY_PAGE_MAX;
use tidegate_protocol::records::{self, Lane, QueryKind, QueryRequest, RoomInfo, Tally, Target, ToldRoom, target};
use tidegate_protocol::reply;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use self::board::{Board, News};
use crate::config::PresenceConfig;
use crate::fleet::GatewaySlot;
use crate::fleet::interest::{GatewayIndex, GatewaySet};
use crate::fleet::{Fleet, Link, Permits, Share};
use crate::metrics::presence::PresenceMetrics;

/// Looks in the time of one interval: how much later than it could be a frame may come.
const LOOKS_AN_INTERVAL: u32 = 10;

/// What gateways have told and is still to be told to all.
pub struct Presence {
    board: Mutex<Board>,
    look: Duration,
    fleet: Arc<Fleet>,
    metrics: Arc<PresenceMetrics>,
}

impl Presence {
    /// Nothing told yet.
    #[must_use]
    pub fn new(config: &PresenceConfig, fleet: Arc<Fleet>, metrics: Arc<PresenceMetrics>) -> Self {
        let spacing = Duration::from_millis(u64::from(config.interval_ms));
        Self {
            board: Mutex::new(Board::new(spacing, config.members_per_s, config.rooms_max)),
            look: spacing / LOOKS_AN_INTERVAL,
            fleet,
            metrics,
        }
    }

    /// A gateway tells.
    pub fn note(&self, gateway: GatewaySlot, tally: Tally) {
        if !self.board.lock().note(gateway, tally) {
            // Too many rooms wait.
            self.metrics.skipped.inc();
        }
    }

    /// Rooms that wait to be told.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.board.lock().waiting()
    }

    /// Has members told for as long as the node lives.
    pub async fn run(self: Arc<Self>) {
        let mut looks = interval(self.look);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let due = self.board.lock().take(Instant::now());
            if !due.is_empty() {
                self.tell(due).await;
            }
        }
    }

    async fn tell(&self, due: Vec<(Box<str>, News)>) {
        let mut rooms: Vec<Due> = {
            let view = self.fleet.interest().view();
            due.into_iter().map(|(room, news)| Due { set: view.room(&room), room, news }).collect()
        };
        complete(&self.fleet, &mut rooms).await;
        {
            // Who was asked may have told meanwhile; what it answered is then older than what it told.
            let mut board = self.board.lock();
            for due in &mut rooms {
                if let Some(late) = board.take_late(&due.room) {
                    due.news.add(late);
                }
            }
        }
        let mut shares = Vec::new();
        for due in &rooms {
            let control = Bytes::from(frame(due));
            self.metrics.frames.inc();
            shares.extend(due.set.iter().map(|gateway| share(gateway, &due.room, &control)));
        }
        let sent = self.fleet.send(shares, &Permits::exempt());
        // A gateway that does not take a frame has its members told with the next.
        tokio::spawn(async move { sent.settle().await });
    }
}

/// A room that is due, and the gateways that have it.
struct Due {
    room: Box<str>,
    news: News,
    set: GatewaySet,
}

fn share(gateway: GatewayIndex, room: &str, control: &Bytes) -> Share {
    let targets = vec![Target { to: Some(target::To::Room(room.to_owned())) }];
    let (control, lane) = (control.clone(), Lane::Bulk.into());
    Share { gateway, push: records::Push { targets, control, lane, ..records::Push::default() } }
}

fn frame(due: &Due) -> Vec<u8> {
    let online = due.news.counts.iter().map(|(_, online, _)| online).sum();
    let users = due.news.counts.iter().map(|(.., users)| users).sum();
    let News { joined, left, sample, .. } = &due.news;
    let mut json = Vec::with_capacity(128);
    let (room, joined, left) = (&*due.room, *joined, *left);
    reply::presence(&mut json, &reply::Presence { room, joined, left, online, users, sample });
    json
}

/// What a gateway says of rooms, once what it had told of them before has been noted: its answer may overtake that.
async fn counts_of(link: &Link, request: &QueryRequest, deadline: Duration) -> Vec<RoomInfo> {
    // Of a gateway that does not answer nothing is known: its members are not in the sum.
    let Ok(reply) = link.query(request, deadline).await else { return Vec::new() };
    let last = reply.rooms.iter().filter_map(|room| room.told.map(|told| told.sequence)).max().unwrap_or(0);
    // Late only when the way up is broken: then who came and went is told with another frame.
    let _ = timeout(deadline, link.hears(last)).await;
    reply.rooms
}

/// Asks gateways that have a room and have not spoken of it: one question a gateway for all rooms.
async fn complete(fleet: &Fleet, rooms: &mut [Due]) {
    let roster = fleet.roster();
    let mut missing: HashMap<GatewayIndex, Vec<String>> = HashMap::new();
    for due in rooms.iter_mut() {
        // Those who have been let go have nobody any more.
        due.news.counts.retain(|(gateway, ..)| roster.has(*gateway));
        let has_spoken = |g: &GatewayIndex| due.news.counts.iter().any(|(spoken, ..)| spoken.index == *g);
        for gateway in due.set.iter().filter(|g| !has_spoken(g)) {
            missing.entry(gateway).or_default().push(due.room.to_string());
        }
    }
    let mut asked = JoinSet::new();
    for (gateway, names) in missing {
        let Some(link) = roster.at(gateway).map(Arc::clone) else { continue };
        let deadline = fleet.request_deadline();
        for names in names.chunks(QUERY_PAGE_MAX) {
            let request =
                QueryRequest { kind: QueryKind::Room.into(), names: names.to_vec(), ..QueryRequest::default() };
            let link = Arc::clone(&link);
            asked.spawn(async move { (link.slot, counts_of(&link, &request, deadline).await) });
        }
    }
    let mut counts: HashMap<(GatewayIndex, String), (GatewaySlot, u64, u64)> = HashMap::new();
    while let Some(Ok((gateway, rooms))) = asked.join_next().await {
        for room in rooms {
            // The figures that belong to what it has told: who has come or gone since is in its next word.
            let told = room.told.unwrap_or(ToldRoom { online: room.online, users: room.users, sequence: 0 });
            counts.insert((gateway.index, room.name), (gateway, told.online, told.users));
        }
    }
    for due in rooms {
        for gateway in due.set.iter() {
            if let Some(told) = counts.get(&(gateway, due.room.to_string())) {
                due.news.counts.push(*told);
            }
        }
    }
}
