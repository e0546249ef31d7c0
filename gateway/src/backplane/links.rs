//! What the gateway remembers of logic nodes between requests: the last batch of each, so that a batch sent again after a
//! broken link is answered and not applied twice; and the pushes whose publishers wait.
//! Both are bounded; the oldest gives way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;

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

/// Things by number, and the numbers in order of arrival.
type Aging<T> = Mutex<(HashMap<u64, T>, VecDeque<u64>)>;

/// Memory of logic nodes.
#[derive(Debug, Default)]
pub struct Links {
    last: Aging<LastOf>,
    tickets: Aging<Arc<Waiter>>,
    next_ticket: AtomicU64,
    next_owner: AtomicU64,
}

impl Links {
    /// What is remembered of a logic node's last batch.
    pub fn last_of(&self, logic: u64) -> LastOf {
        let mut last = self.last.lock();
        let (known, order) = &mut *last;
        if let Some(found) = known.get(&logic) {
            return Arc::clone(found);
        }
        if order.len() == LOGICS_MAX
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        order.push_back(logic);
        Arc::clone(known.entry(logic).or_default())
    }

    /// A number for a new backplane connection.
    pub fn next_owner(&self) -> u64 {
        self.next_owner.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A ticket for a push that is waited for.
    pub fn issue(&self, waiter: Arc<Waiter>) -> u64 {
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed) + 1;
        let mut tickets = self.tickets.lock();
        let (known, order) = &mut *tickets;
        while order.len() >= TICKETS_MAX {
            if let Some(oldest) = order.pop_front() {
                known.remove(&oldest);
            }
        }
        order.push_back(ticket);
        known.insert(ticket, waiter);
        ticket
    }

    /// Takes back a ticket.
    pub fn redeem(&self, ticket: u64) -> Option<Arc<Waiter>> {
        self.tickets.lock().0.remove(&ticket)
    }

    /// Pushes waited for.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.tickets.lock().0.len()
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
