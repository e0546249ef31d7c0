//! Users who are not to be let in for a time: this node's copy of the fleet's blocks, and the talk that keeps all copies alike.
//! A new block goes to every gateway at once (`api::order`); what is here is told to gateways that have not heard it (they
//! have restarted, or were away), and what gateways have heard from other nodes is asked of them.
//! Gateways enforce; nothing here is on the way of a client. What a change means is `tidegate_protocol::blocks`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tidegate_protocol::blocks::{Applied, Blocks};
use tidegate_protocol::limits::{BLOCKS_MAX, QUERY_PAGE_MAX};
use tidegate_protocol::records::{Block, CommandRequest, QueryKind, QueryRequest};
use tokio::time::{MissedTickBehavior, interval};

use crate::backplane::{Link, LinkState};
use crate::node::Node;

/// How often the links are looked at; nothing is sent when nothing has changed.
const LOOK: Duration = Duration::from_millis(250);

/// Looks between two in which what is over is forgotten.
const LOOKS_A_PRUNE: u32 = 40;

/// The blocks.
pub struct BlockTable {
    table: Mutex<Blocks>,
}

impl Default for BlockTable {
    fn default() -> Self {
        Self { table: Mutex::new(Blocks::new(BLOCKS_MAX)) }
    }
}

/// There are as many blocks as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl BlockTable {
    /// Sets a block; gives it as it is to be told.
    ///
    /// # Errors
    /// [`Full`].
    pub fn set(&self, user: &str, room: &str, seconds: u32, reason: &str, now_ms: u64) -> Result<Block, Full> {
        let until_ms = now_ms + u64::from(seconds) * 1_000;
        let (user, room, reason) = (user.to_owned(), room.to_owned(), reason.to_owned());
        self.change(Block { user, room, until_ms, set_ms: now_ms, reason, is_lifted: false }, now_ms).ok_or(Full)
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

    fn prune(&self) {
        self.table.lock().prune(unix_ms());
    }
}

/// How far the talk with one gateway has come.
#[derive(Clone, Copy, Default)]
struct Talk {
    epoch: u64,
    /// Version of ours that it has heard.
    told: u64,
    /// Version of its that we have heard.
    heard: u64,
}

/// Keeps the copies alike for as long as the node lives.
pub async fn run(node: Arc<Node>) {
    let mut talks = vec![Talk::default(); node.fleet.links().len()];
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round = 0_u32;
    loop {
        looks.tick().await;
        round = round.wrapping_add(1);
        if round.is_multiple_of(LOOKS_A_PRUNE) {
            node.blocks.prune();
        }
        for (link, talk) in node.fleet.links().iter().zip(&mut talks) {
            if link.state() == LinkState::Up {
                // A gateway that does not answer is asked again at the next look.
                let _ = converse(&node, link, talk).await;
            }
        }
    }
}

async fn converse(node: &Node, link: &Link, talk: &mut Talk) -> Option<()> {
    let (epoch, info) = link.account();
    let info = info?;
    if talk.epoch != epoch {
        *talk = Talk { epoch, ..Talk::default() };
    }
    let deadline = node.fleet.request_deadline();
    if info.blocks != talk.heard {
        let cursor = talk.heard.to_string();
        let limit = u32::try_from(QUERY_PAGE_MAX).unwrap_or(u32::MAX);
        let request = QueryRequest { kind: QueryKind::Blocks.into(), cursor, limit, ..QueryRequest::default() };
        let reply = link.query(&request, deadline).await.ok()?;
        node.blocks.hear(reply.blocks);
        talk.heard = reply.cursor.parse().ok()?;
    }
    let (blocks, reached) = node.blocks.since(talk.told);
    if !blocks.is_empty() {
        let request = CommandRequest { blocks, ..CommandRequest::default() };
        link.command(&request, deadline).await.ok()?;
    }
    talk.told = reached;
    Some(())
}

/// Unix time in milliseconds.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decided_last_counts_whatever_the_clocks_say() {
        let table = BlockTable::default();
        let ahead = Block { user: "ann".into(), until_ms: 90_000, set_ms: 50_000, ..Block::default() };
        table.table.lock().apply(ahead, 0);

        let lifted = table.lift("ann", "", 1_000).expect("there is one");

        assert!(lifted.set_ms > 50_000 && lifted.is_lifted);
        assert!(table.of("ann", 1_000).is_empty());
        assert_eq!(table.lift("ann", "", 1_000), None);
        assert!(table.set("ann", "", 10, "", 2_000).is_ok());
        assert_eq!(table.of("ann", 2_000).len(), 1);
    }
}
