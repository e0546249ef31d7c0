//! What the gateway remembers of logic nodes between requests: the last batch of each, so that a batch sent again after a
//! broken link is answered and not applied twice; and the pushes whose publishers wait.
//! Both are bounded; the oldest gives way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_protocol::remembered::Remembered;
use tokio::sync::watch;

use crate::topic::batch::Waiter;

/// Logic nodes remembered; a restarted one is a new one.
const LOGICS_MAX: usize = 256;
/// Pushes waited for at once; beyond it the oldest wait ends unanswered.
const TICKETS_MAX: usize = 65_536;

/// The last batch of a logic node.
#[derive(Debug, Default)]
pub struct Last {
    /// Its number; 0: none yet.
    pub sequence: u64,
    /// What was answered.
    pub reply: Bytes,
}

/// A logic node's last batch, locked while a batch of it is applied.
pub type LastOf = Arc<tokio::sync::Mutex<Last>>;

/// Memory of logic nodes.
#[derive(Debug)]
pub struct Links {
    last: Mutex<Remembered<u64, LastOf, RandomState>>,
    tickets: Mutex<Remembered<u64, Arc<Waiter>, RandomState>>,
    next_ticket: AtomicU64,
    next_owner: AtomicU64,
    /// How many are open.
    open: watch::Sender<usize>,
}

/// A link that is open for as long as this lives.
#[derive(Debug)]
pub struct Open<'a>(&'a watch::Sender<usize>);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl Default for Links {
    fn default() -> Self {
        Self {
            last: Mutex::new(Remembered::without_end(LOGICS_MAX)),
            tickets: Mutex::new(Remembered::without_end(TICKETS_MAX)),
            next_ticket: AtomicU64::default(),
            next_owner: AtomicU64::default(),
            open: watch::Sender::new(0),
        }
    }
}

impl Links {
    /// One more is open.
    pub fn open(&self) -> Open<'_> {
        self.open.send_modify(|open| *open += 1);
        Open(&self.open)
    }

    /// Resolves when none is open.
    pub async fn ended(&self) {
        // The sender lives in self, so this ends only by the value.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// What is remembered of a logic node's last batch.
    pub fn last_of(&self, logic: u64) -> LastOf {
        let mut last = self.last.lock();
        if let Some(found) = last.peek(&logic) {
            return Arc::clone(found);
        }
        let new = LastOf::default();
        // Only room makes it forgotten, never time.
        last.keep(logic, Arc::clone(&new), 0);
        new
    }

    /// A number for a new backplane connection.
    pub fn next_owner(&self) -> u64 {
        self.next_owner.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A ticket for a push that is waited for.
    pub fn issue(&self, waiter: Arc<Waiter>) -> u64 {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed) + 1;
        self.tickets.lock().keep(ticket, waiter, 0);
        ticket
    }

    /// Takes back a ticket.
    pub fn redeem(&self, ticket: u64) -> Option<Arc<Waiter>> {
        self.tickets.lock().forget(&ticket)
    }

    /// Pushes waited for.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.tickets.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ticket_gives_way() {
        let links = Links::default();
        let first = links.issue(Arc::new(Waiter::new(1)));
        for _ in 0..TICKETS_MAX {
            links.issue(Arc::new(Waiter::new(1)));
        }
        assert!(links.redeem(first).is_none());
        assert_eq!(links.waiting(), TICKETS_MAX);
        assert!(links.redeem(first + 1).is_some());
    }

    #[test]
    fn a_logic_node_is_remembered_until_many_newer_ones_came() {
        let links = Links::default();
        let first = links.last_of(1);
        assert!(Arc::ptr_eq(&first, &links.last_of(1)));
        for logic in 2..=LOGICS_MAX as u64 + 1 {
            links.last_of(logic);
        }
        assert!(!Arc::ptr_eq(&first, &links.last_of(1)));
    }
}
