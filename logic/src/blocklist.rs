//! Users who are not to be let in for a time: this node's copy of the fleet's blocks, and the exchange that keeps all copies alike.
//! A new block goes to every gateway at once (`api::membership`); what is here is told to gateways that have not heard it (they
//! have restarted, or were away), and what gateways have heard from other nodes is asked of them.
//! A gateway that has just started hears all of it before clients may come ([`Link::brief`]).
//! Gateways enforce; nothing here is on the way of a client. What a change means is `tidegate_protocol::blocks`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_protocol::blocks::{Applied, Blocks};
use tidegate_protocol::limits::{BLOCKS_MAX, QUERY_PAGE_MAX};
use tidegate_protocol::records::{Block, CommandRequest, QueryKind, QueryRequest};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::clock::unix_ms;
use crate::fleet::{Fleet, GatewaySlot, Link, LinkState, Roster};

/// How often the links are looked at; nothing is sent when nothing has changed.
const LOOK: Duration = Duration::from_millis(250);

/// How often what is over is forgotten.
const PRUNE: Duration = Duration::from_secs(10);

/// So long a node that has just started waits for what gateways know, before it tells others what it knows.
const SETTLE: Duration = Duration::from_secs(2);

/// The blocks.
pub struct Blocklist {
    table: Mutex<Blocks>,
    fleet: Arc<Fleet>,
}

/// There are as many blocks as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Blocklist {
    /// Nobody is blocked, as far as is known.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>) -> Self {
        Self { table: Mutex::new(Blocks::new(BLOCKS_MAX)), fleet }
    }

    /// Sets a block that begins with its `set_ms`; gives it as it is to be told.
    ///
    /// # Errors
    /// [`Full`].
    pub fn set(&self, block: Block) -> Result<Block, Full> {
        let now_ms = block.set_ms;
        self.change(block, now_ms).ok_or(Full)
    }

    /// Lifts a block; none when there is none.
    pub fn lift(&self, user: &str, room: &str, now_ms: u64) -> Option<Block> {
        let old = self.table.lock().find(user, room, now_ms).cloned()?;
        self.change(Block { set_ms: now_ms, is_lifted: true, ..old }, now_ms)
    }

    /// What is decided here counts, also where another node's clock is ahead.
    fn change(&self, mut block: Block, now_ms: u64) -> Option<Block> {
        let mut table = self.table.lock();
        block.set_ms = block.set_ms.max(table.set_ms(&block.user, &block.room) + 1);
        (table.apply(block.clone(), now_ms) == Applied::Changed).then_some(block)
    }

    /// Blocks of a user that are in force.
    pub fn of(&self, user: &str, now_ms: u64) -> Vec<Block> {
        self.table.lock().of(user, now_ms).cloned().collect()
    }

    /// A page of blocks in force, by user.
    pub fn list(&self, after: &str, limit: usize, now_ms: u64) -> Vec<Block> {
        self.table.lock().list(after, limit, now_ms)
    }

    /// Entries, lifted ones that are remembered included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.lock().len()
    }

    fn since(&self, version: u64) -> (Vec<Block>, u64) {
        self.table.lock().since(version, QUERY_PAGE_MAX)
    }

    fn hear(&self, blocks: Vec<Block>) {
        let now_ms = unix_ms();
        let mut table = self.table.lock();
        for block in blocks {
            table.apply(block, now_ms);
        }
    }

    /// Keeps the copies alike for as long as the node lives: an exchange with each gateway, none of which waits for another.
    pub async fn run(self: Arc<Self>) {
        let heard = Arc::new(Heard::now());
        let mut rosters = self.fleet.rosters();
        let mut known = HashSet::new();
        let mut rounds = interval(PRUNE);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        rosters.mark_changed();
        loop {
            tokio::select! {
                _ = rounds.tick() => self.prune(),
                Ok(()) = rosters.changed() => {
                    let roster = Arc::clone(&rosters.borrow_and_update());
                    known.retain(|slot| roster.has(*slot));
                    heard.gateways.lock().retain(|slot| roster.has(*slot));
                    for link in roster.iter().filter(|link| known.insert(link.slot)) {
                        tokio::spawn(keep_alike(Arc::clone(&self), Arc::clone(link), Arc::clone(&heard)));
                    }
                }
            }
        }
    }

    fn prune(&self) {
        self.table.lock().prune(unix_ms());
    }
}

/// How far the exchange with one gateway has come.
#[derive(Clone, Copy, Default)]
struct Exchange {
    epoch: u64,
    /// Version of ours that it has heard.
    told: u64,
    /// Version of its that we have heard.
    heard: u64,
}

/// Which gateways have said what they know. A node that has just started knows nothing by itself, and what it told a gateway
/// that has just started too would be as little.
struct Heard {
    gateways: Mutex<HashSet<GatewaySlot>>,
    since: Instant,
}

impl Heard {
    fn now() -> Self {
        Self { gateways: Mutex::default(), since: Instant::now() }
    }

    fn note(&self, gateway: GatewaySlot) {
        self.gateways.lock().insert(gateway);
    }

    /// Whether every gateway has been heard that can be; those that do not answer are not waited for longer than [`SETTLE`].
    fn is_complete(&self, links: &Roster) -> bool {
        let gateways = self.gateways.lock();
        let is_away = |link: &Link| matches!(link.state(), LinkState::Down(_));
        self.since.elapsed() >= SETTLE || links.iter().all(|link| gateways.contains(&link.slot) || is_away(link))
    }
}

async fn keep_alike(blocklist: Arc<Blocklist>, link: Arc<Link>, heard: Arc<Heard>) {
    let mut progress = Exchange::default();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !link.is_closed() {
        tokio::select! {
            _ = looks.tick() => {}
            () = link.came_up() => {}
        }
        if link.state() == LinkState::Up {
            // A gateway that does not answer is asked again at the next look.
            let _ = exchange(&blocklist, &link, &mut progress, &heard).await;
        }
    }
}

async fn exchange(blocklist: &Blocklist, link: &Link, progress: &mut Exchange, heard: &Heard) -> Option<()> {
    let (epoch, info) = link.account();
    let info = info?;
    if progress.epoch != epoch {
        *progress = Exchange { epoch, ..Exchange::default() };
    }
    let deadline = blocklist.fleet.request_deadline();
    while info.blocks > progress.heard {
        let cursor = progress.heard.to_string();
        let limit = u32::try_from(QUERY_PAGE_MAX).unwrap_or(u32::MAX);
        let request = QueryRequest { kind: QueryKind::Blocks.into(), cursor, limit, ..QueryRequest::default() };
        let reply = link.query(&request, deadline).await.ok()?;
        blocklist.hear(reply.blocks);
        let reached = reply.cursor.parse().ok()?;
        if reached <= progress.heard {
            break;
        }
        progress.heard = reached;
    }
    heard.note(link.slot);
    if !heard.is_complete(&blocklist.fleet.roster()) {
        return None;
    }
    loop {
        let (blocks, reached) = blocklist.since(progress.told);
        if blocks.is_empty() {
            progress.told = reached;
            break;
        }
        let request = CommandRequest { blocks, ..CommandRequest::default() };
        link.command(&request, deadline).await.ok()?;
        progress.told = reached;
    }
    link.brief(epoch);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decided_last_counts_whatever_the_clocks_say() {
        let table = Blocklist::new(Fleet::of_none());
        let ahead = Block { user: "ann".into(), until_ms: 90_000, set_ms: 50_000, ..Block::default() };
        table.table.lock().apply(ahead, 0);

        let lifted = table.lift("ann", "", 1_000).expect("there is one");

        assert!(lifted.set_ms > 50_000 && lifted.is_lifted);
        assert!(table.of("ann", 1_000).is_empty());
        assert_eq!(table.lift("ann", "", 1_000), None);
        let again = Block { user: "ann".into(), until_ms: 12_000, set_ms: 2_000, ..Block::default() };
        assert!(table.set(again).is_ok());
        assert_eq!(table.of("ann", 2_000).len(), 1);
    }
}
