//! The way up: what clients say goes to logic nodes as items, and what those answer comes back here. A gateway dials nobody,
//! so items travel in answers to a request that each logic node keeps open (docs/adr/0019).
//! Parts: [`queues`] (who gets what, until when it is kept), `wants` (what logic nodes want to hear), `events` (what nobody said),
//! `mailbox` (answers for acceptors).
//! Invariant: each item is answered to whoever waits for it exactly once, be it by a refusal.

pub(crate) mod events;
pub(crate) mod mailbox;
pub mod queues;
mod wants;

use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_protocol::records::{Item, Sender, Wants, item::What};
use tokio::sync::Notify;

use self::queues::Queues;
use self::wants::LogicWants;
use crate::clock::{Millis, unix_ms};
use crate::config::UplinkConfig;
use crate::dialect::ReplyTo;
use crate::key::{ConnectionKey, PendingKey};
use crate::locks::{Mutex, rank};

/// Who waits for the answer to an item.
#[derive(Debug)]
pub enum Whose {
    /// Nobody.
    Nobody,
    /// A client.
    Connection {
        /// Which.
        key: ConnectionKey,
        /// How it is answered.
        reply_to: ReplyTo,
    },
    /// A newcomer that may have to make way for its user's connection at another gateway.
    Newcomer {
        /// Which.
        key: ConnectionKey,
    },
    /// A client about whom the connect hook is asked.
    Handshake {
        /// Its acceptor.
        acceptor: u16,
        /// Which client there.
        key: PendingKey,
    },
}

/// Which logic node an item is for.
#[derive(Clone, Copy, Debug)]
pub enum Addressee<'a> {
    /// The one that a name belongs to: a user's, a connection's or a room's.
    Name(&'a [u8]),
    /// This one, such as the one whose command is answered.
    Node {
        /// Its number.
        node: u64,
        /// Who says it.
        name: &'a [u8],
    },
}

/// Something that goes up.
#[derive(Debug)]
pub struct Said<'a> {
    /// For which logic node.
    pub whom: Addressee<'a>,
    /// Who says it.
    pub from: Sender,
    /// What.
    pub what: What,
    /// Who waits for the answer.
    pub whose: Whose,
}

/// Everything said and not answered, and the requests that wait for it.
#[derive(Debug)]
pub struct Uplink {
    queues: Mutex<Queues<Whose>, { rank::QUEUES }>,
    /// Told when something is said.
    spoken: Notify,
    wait_ms: u32,
    /// What logic nodes want to hear.
    pub wants: LogicWants,
    /// Items taken in since the start.
    pub offered: AtomicU64,
    /// Items refused because too much was kept.
    pub refused: AtomicU64,
    /// Claims of newcomers to their user's place that gave way to what clients say.
    pub unclaimed: AtomicU64,
    /// Items given up because no logic node was there.
    pub given_up: AtomicU64,
}

/// Too much is kept already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

impl Uplink {
    /// Nothing said yet.
    #[must_use]
    pub fn new(config: &UplinkConfig) -> Self {
        Self {
            queues: Mutex::new(Queues::new(config.items, config.bytes)),
            spoken: Notify::new(),
            wait_ms: config.wait_ms,
            wants: LogicWants::default(),
            offered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unclaimed: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
        }
    }

    /// Sends an item up; gives its number, 0 while no logic node is there for it.
    ///
    /// # Errors
    /// [`Overloaded`]: nothing was kept, and nobody will be answered.
    pub fn say(&self, said: Said<'_>, now: Millis) -> Result<u64, Overloaded> {
        let Said { whom, from, what, whose } = said;
        let time_ms = unix_ms();
        let id = ulid::Ulid::from_parts(time_ms, fastrand::u128(..)).to_string();
        let item = Item { sequence: 0, id, time_ms, from: Some(from), what: Some(what) };
        let (key, node) = match whom {
            Addressee::Name(name) => (queues::key_of(name), None),
            Addressee::Node { node, name } => (queues::key_of(name), Some(node)),
        };
        match self.queues.lock().offer(key, node, item, whose, now) {
            Ok(placed) => {
                self.offered.fetch_add(1, Ordering::Relaxed);
                self.spoken.notify_waiters();
                Ok(placed.sequence)
            }
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(Overloaded)
            }
        }
    }

    /// Sends up what gives way to what clients say: at most half of the room is for it.
    ///
    /// # Errors
    /// As [`Uplink::say`].
    pub(crate) fn say_beside(&self, said: Said<'_>, now: Millis) -> Result<u64, Overloaded> {
        let is_crowded = self.queues.lock().is_half_full();
        if is_crowded { Err(Overloaded) } else { self.say(said, now) }
    }

    /// Sends an event up, unless that would leave clients less than half of the room.
    pub(crate) fn mention(&self, whom: Addressee<'_>, from: Sender, what: What, now: Millis) {
        if self.say_beside(Said { whom, from, what, whose: Whose::Nobody }, now).is_err() {
            self.wants.wanted.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A logic node's request: resolves when there is something after `taken`, or when `hold` is over.
    pub(crate) async fn listen(
        &self,
        node: u64,
        owner: u64,
        wants: Wants,
        taken: u64,
        hold: std::time::Duration,
    ) -> (Vec<Item>, u64) {
        let token = {
            let mut queues = self.queues.lock();
            let token = queues.ask(node, owner, wants);
            self.wants.learn(queues.wants());
            token
        };
        let deadline = tokio::time::Instant::now() + hold;
        let mut is_over = false;
        loop {
            let spoken = self.spoken.notified();
            tokio::pin!(spoken);
            spoken.as_mut().enable();
            let items = self.queues.lock().page(node, taken);
            if !items.is_empty() || is_over {
                return (items, token);
            }
            is_over = tokio::time::timeout_at(deadline, spoken).await.is_err();
        }
    }

    /// That request has been answered.
    pub(crate) fn answered(&self, node: u64, token: u64, now: Millis) {
        self.queues.lock().answered(node, token, now);
    }

    /// A backplane connection has ended.
    pub(crate) fn hang_up(&self, owner: u64, now: Millis) {
        {
            let mut queues = self.queues.lock();
            queues.hang_up(owner, now);
            self.wants.learn(queues.wants());
        }
        self.spoken.notify_waiters();
    }

    /// Who has waited too long for a logic node; to be told.
    pub(crate) fn expire(&self, now: Millis) -> Vec<Whose> {
        let late = {
            let mut queues = self.queues.lock();
            let nodes = queues.nodes();
            let late = queues.expire(self.wait_ms, now);
            if queues.nodes() < nodes {
                self.wants.learn(queues.wants());
            }
            late
        };
        self.given_up.fetch_add(late.len() as u64, Ordering::Relaxed);
        late
    }

    /// Items and bytes that are kept.
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        self.queues.lock().kept()
    }

    /// Logic nodes that listen.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.queues.lock().nodes()
    }

    pub(crate) fn take(&self, node: u64, sequence: u64) -> Option<Whose> {
        self.queues.lock().settle(node, sequence)
    }
}
