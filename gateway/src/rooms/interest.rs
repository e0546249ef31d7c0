//! Which rooms and users this gateway has, told to every logic node as a snapshot and then as deltas.
//! A reply that promises delivery (HELLO to a new user, JOINED to a new room) is held until every logic node has
//! acknowledged the delta, so that a push sent after the reply finds its way (rule R-4). A logic node that has no complete
//! snapshot sends everything, so nothing is held for it.
//! Invariants: `log` holds the versions `version - log.len() + 1 ..= version`; `acked` never falls below a link's promise.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use tidegate_protocol::records::InterestKind;
use tokio::sync::Notify;

use crate::clock::{Millis, is_due, since};
use crate::key::ConnectionKey;
use crate::locks::{Mutex, rank};

/// Longest time a reply is held for a logic node that does not acknowledge.
pub const HOLD_MS_MAX: u32 = 250;
/// A link that has not asked for this long after an answer is no longer waited for.
const LINK_SILENT_MS: u32 = 1_000;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Room or user.
    pub kind: InterestKind,
    /// Its name.
    pub name: Arc<str>,
    /// Present from now on, or absent.
    pub is_present: bool,
}

/// A connection whose reply is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What must be acknowledged.
    pub version: u64,
    /// When it was held.
    pub at: Millis,
    /// Whose it is.
    pub connection: ConnectionKey,
}

#[derive(Debug)]
struct Link {
    acked: u64,
    /// Token of its last request.
    token: u64,
    /// The backplane connection that speaks for it.
    owner: u64,
    /// When its last request was answered; none while one is outstanding.
    answered: Option<Millis>,
}

#[derive(Debug, Default)]
struct State {
    log: VecDeque<Change>,
    links: HashMap<u64, Link>,
    tokens: u64,
    held: VecDeque<Held>,
}

/// What this gateway has, and who knows it.
#[derive(Debug)]
pub struct Interest {
    state: Mutex<State, { rank::INTEREST }>,
    version: AtomicU64,
    acked: AtomicU64,
    log_max: usize,
    /// Told at every change.
    pub changed: Notify,
    /// Told when a reply is held, so that someone sees to its time.
    pub holding: Notify,
}

/// Answer to a request for what happened after a version.
#[derive(Debug, PartialEq, Eq)]
pub enum Since {
    /// These changes, and the version after them.
    Changes(Vec<Change>, u64),
    /// The log does not reach back that far: a snapshot is needed.
    TooOld,
}

impl Interest {
    /// Nothing present; the log remembers `log_max` changes.
    #[must_use]
    pub fn new(log_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            version: AtomicU64::new(0),
            acked: AtomicU64::new(u64::MAX),
            log_max,
            changed: Notify::new(),
            holding: Notify::new(),
        }
    }

    /// Notes a change; returns its version.
    pub fn announce(&self, kind: InterestKind, name: &Arc<str>, is_present: bool) -> u64 {
        let mut state = self.state.lock();
        if state.log.len() == self.log_max {
            state.log.pop_front();
        }
        state.log.push_back(Change { kind, name: Arc::clone(name), is_present });
        let version = self.version.fetch_add(1, Ordering::AcqRel) + 1;
        drop(state);
        self.changed.notify_waiters();
        version
    }

    /// Version of the last change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The changes after `version`, at most `max`.
    #[must_use]
    pub fn changes_since(&self, version: u64, max: usize) -> Since {
        self.since(&self.state.lock(), version, max)
    }

    fn since(&self, state: &State, version: u64, max: usize) -> Since {
        let now = self.version();
        let Ok(behind) = usize::try_from(now.saturating_sub(version)) else { return Since::TooOld };
        if version > now || behind > state.log.len() {
            return Since::TooOld;
        }
        let changes: Vec<Change> = state.log.range(state.log.len() - behind..).take(max).cloned().collect();
        let reached = version + changes.len() as u64;
        Since::Changes(changes, reached)
    }

    /// A logic node with a complete snapshot has applied everything up to `version` and waits for more. Gives the replies
    /// that waited for it, and a token for [`Interest::answered`].
    pub fn acknowledge(&self, logic: u64, owner: u64, version: u64) -> (Vec<Held>, u64) {
        let mut state = self.state.lock();
        state.tokens += 1;
        let token = state.tokens;
        let acked = state.links.get(&logic).map_or(0, |l| l.acked).max(version);
        state.links.insert(logic, Link { acked, token, owner, answered: None });
        (self.released(&mut state), token)
    }

    /// The end of a snapshot that was begun at `version`: the changes since, at most `max`. If those are all, the logic node
    /// counts from now on, before anyone can change more: what is announced after is held for it.
    pub fn complete(&self, logic: u64, owner: u64, version: u64, max: usize, now: Millis) -> Since {
        let mut state = self.state.lock();
        state.tokens += 1;
        let token = state.tokens;
        let since = self.since(&state, version, max);
        if matches!(since, Since::Changes(_, reached) if reached == self.version()) {
            state.links.insert(logic, Link { acked: 0, token, owner, answered: Some(now) });
            self.released(&mut state);
        }
        since
    }

    /// A logic node's request has been answered; it should ask again soon. `token` tells its latest request from older ones.
    pub fn answered(&self, logic: u64, token: u64, now: Millis) {
        if let Some(link) = self.state.lock().links.get_mut(&logic).filter(|l| l.token == token) {
            link.answered = Some(now);
        }
    }

    /// A logic node has to begin with a snapshot: nothing is held for it.
    pub fn forget(&self, logic: u64) -> Vec<Held> {
        let mut state = self.state.lock();
        state.links.remove(&logic);
        self.released(&mut state)
    }

    /// A backplane connection has ended; logic nodes that speak through another by now are not concerned.
    pub fn hang_up(&self, owner: u64) -> Vec<Held> {
        let mut state = self.state.lock();
        state.links.retain(|_, link| link.owner != owner);
        self.released(&mut state)
    }

    /// Whether a reply that depends on `version` must be held; if so it is noted and will be released.
    pub fn hold(&self, version: u64, connection: ConnectionKey, now: Millis) -> bool {
        if version == 0 || self.acked.load(Ordering::Acquire) >= version {
            return false;
        }
        let mut state = self.state.lock();
        if self.acked.load(Ordering::Acquire) >= version {
            return false;
        }
        state.held.push_back(Held { version, at: now, connection });
        drop(state);
        self.holding.notify_one();
        true
    }

    /// Whether any reply is held.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.state.lock().held.is_empty()
    }

    /// Gives up waiting for what has been held too long, and for links that fell silent.
    pub fn expire(&self, now: Millis) -> Vec<Held> {
        let mut state = self.state.lock();
        state.links.retain(|_, link| link.answered.is_none_or(|at| since(now, at) < LINK_SILENT_MS));
        let mut late = self.released(&mut state);
        while state.held.front().is_some_and(|h| is_due(now, h.at.wrapping_add(HOLD_MS_MAX))) {
            late.extend(state.held.pop_front());
        }
        late
    }

    /// Logic nodes that are up to date or catching up.
    #[must_use]
    pub fn links(&self) -> usize {
        self.state.lock().links.len()
    }

    fn released(&self, state: &mut State) -> Vec<Held> {
        let acked = state.links.values().map(|l| l.acked).min().unwrap_or(u64::MAX);
        self.acked.store(acked, Ordering::Release);
        let mut out = Vec::new();
        // Held in the order of their versions, but for neighbours that raced; those wait for the next round.
        while state.held.front().is_some_and(|h| h.version <= acked) {
            out.extend(state.held.pop_front());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SlotKey;

    const C: ConnectionKey = ConnectionKey { bucket: 0, at: SlotKey { slot: 1, generation: 2 } };

    fn announce(interest: &Interest, name: &str) -> u64 {
        interest.announce(InterestKind::Room, &name.into(), true)
    }

    #[test]
    fn changes_come_in_order_and_once() {
        let interest = Interest::new(10);
        announce(&interest, "a");
        announce(&interest, "b");

        let Since::Changes(changes, reached) = interest.changes_since(0, 1) else { panic!("in the log") };
        assert_eq!((changes.len(), &*changes[0].name, reached), (1, "a", 1));
        let Since::Changes(changes, reached) = interest.changes_since(1, 9) else { panic!("in the log") };
        assert_eq!((changes.len(), &*changes[0].name, reached), (1, "b", 2));
        assert_eq!(interest.changes_since(2, 9), Since::Changes(vec![], 2));
    }

    #[test]
    fn a_log_that_does_not_reach_back_asks_for_a_snapshot() {
        let interest = Interest::new(2);
        for name in ["a", "b", "c"] {
            announce(&interest, name);
        }
        assert_eq!(interest.changes_since(0, 9), Since::TooOld);
        assert_eq!(interest.changes_since(7, 9), Since::TooOld);
        assert!(matches!(interest.changes_since(1, 9), Since::Changes(c, 3) if c.len() == 2));
    }

    /// Rule R-4.
    #[test]
    fn a_reply_is_held_until_the_slowest_logic_node_knows() {
        let interest = Interest::new(10);
        assert!(!interest.hold(announce(&interest, "a"), C, 1), "no logic node, nobody to wait for");
        interest.acknowledge(1, 1, 1);
        interest.acknowledge(2, 2, 1);

        let version = announce(&interest, "b");
        assert!(interest.hold(version, C, 1));
        assert!(interest.acknowledge(1, 1, version).0.is_empty());
        assert_eq!(interest.acknowledge(2, 2, version).0, [Held { version, at: 1, connection: C }]);
        assert!(!interest.hold(version, C, 1));
    }

    /// Rule R-4: between the end of a snapshot and the first request after it.
    #[test]
    fn what_is_announced_after_a_snapshots_end_is_held() {
        let interest = Interest::new(10);
        announce(&interest, "before");

        let Since::Changes(changes, reached) = interest.complete(1, 1, 0, 9, 1) else { panic!("in the log") };
        let version = announce(&interest, "after");

        assert_eq!((changes.len(), reached), (1, 1));
        assert!(interest.hold(version, C, 1));
        assert_eq!(interest.acknowledge(1, 1, version).0.len(), 1);
    }

    #[test]
    fn a_snapshot_that_cannot_keep_up_is_not_complete() {
        let interest = Interest::new(10);
        for name in ["a", "b", "c"] {
            announce(&interest, name);
        }
        assert!(matches!(interest.complete(1, 1, 0, 2, 1), Since::Changes(c, 2) if c.len() == 2));
        assert_eq!(interest.links(), 0);
    }

    #[test]
    fn a_logic_node_that_is_gone_or_late_holds_nothing() {
        let interest = Interest::new(10);
        interest.acknowledge(1, 1, 0);
        assert!(interest.hold(announce(&interest, "a"), C, 1));
        assert!(interest.hang_up(9).is_empty(), "another connection's end is not this one's");
        assert_eq!(interest.hang_up(1).len(), 1);

        interest.acknowledge(1, 1, 0);
        assert!(interest.hold(announce(&interest, "b"), C, 10));
        assert!(interest.expire(11).is_empty());
        assert_eq!(interest.expire(10 + HOLD_MS_MAX).len(), 1);

        let (_, old) = interest.acknowledge(1, 1, 1);
        let (_, new) = interest.acknowledge(1, 1, 1);
        interest.answered(1, old, 1_000);
        interest.expire(3_000);
        assert_eq!(interest.links(), 1, "an older request's end says nothing of the newer");
        interest.answered(1, new, 1_000);
        interest.expire(3_000);
        assert_eq!(interest.links(), 0);
    }
}
