//! Permits of pending handshakes, and which leaves when all are taken: the one from whom something has been awaited for
//! longest. So strangers who hold places and say nothing cannot keep out those who come after them. Who waits for the connect
//! hook's word keeps its place: the delay is not its fault.
//! Invariant: a place is held exactly while its holder is in `pending`, or on its way there or out.

use tidegate_protocol::handshake::Refusal;

use super::awaiting_hook::last_words;
use super::deadlines::Awaited;
use super::front::Front;
use super::{Acceptor, PendingHandshake, RETRY_AFTER_S, Stage, hang_up};
use crate::budget::{Budget, Evict};
use crate::clock::Millis;
use crate::key::PendingKey;

/// Lets the oldest of a kind go; false when there is none here.
type Dismiss = fn(&mut Acceptor, &Front) -> bool;

impl Acceptor {
    /// A place among the handshakes in flight; false when nobody here can make room.
    pub(super) fn take_permit(&mut self, front: &Front) -> bool {
        self.take(front, &front.capacity.handshakes, front.rules.handshake.in_flight, Self::dismiss_head)
    }

    /// The same among those who have yet to say who they are.
    pub(super) fn take_unauthenticated_permit(&mut self, front: &Front) -> bool {
        self.take(
            front,
            &front.capacity.unauthenticated,
            front.rules.unauthenticated_max,
            Self::dismiss_unauthenticated,
        )
    }

    /// Makes room where this acceptor was told to.
    pub(super) fn make_room_if_told(&mut self, front: &Front) {
        let index = usize::from(self.index);
        let (heads, unauthenticated) = (front.rules.handshake.in_flight, front.rules.unauthenticated_max);
        if front.capacity.handshakes.is_told(index, heads) {
            self.make_room(front, &front.capacity.handshakes, heads, Self::dismiss_head);
        }
        if front.capacity.unauthenticated.is_told(index, unauthenticated) {
            self.make_room(front, &front.capacity.unauthenticated, unauthenticated, Self::dismiss_unauthenticated);
        }
    }

    fn take(&mut self, front: &Front, pool: &Budget, max: usize, dismiss: Dismiss) -> bool {
        let index = usize::from(self.index);
        match pool.hold(index, 1, max) {
            Evict::Nobody => true,
            Evict::Of(other) => {
                front.capacity.mailboxes[other].arrived.notify_one();
                true
            }
            Evict::Own if dismiss(self, front) => true,
            Evict::Own => {
                pool.let_go(index, 1);
                false
            }
        }
    }

    fn make_room(&mut self, front: &Front, pool: &Budget, max: usize, dismiss: Dismiss) {
        loop {
            match pool.turn(usize::from(self.index), max) {
                Evict::Own if dismiss(self, front) => {}
                Evict::Of(other) => return front.capacity.mailboxes[other].arrived.notify_one(),
                Evict::Nobody | Evict::Own => return,
            }
        }
    }

    /// Refuses the client whose request head has been awaited for longest.
    fn dismiss_head(&mut self, front: &Front) -> bool {
        while let Some(slot) = self.oldest(Awaited::Head) {
            let is_head =
                matches!(&self.pending[slot as usize], Some(handshake) if matches!(handshake.stage, Stage::Head(..)));
            if is_head && let Some(handshake) = self.unpark(front, slot) {
                front.capacity.handshakes.count_evicted();
                let head = if let Stage::Head(head, _) = &handshake.stage { &head[..] } else { &[] };
                self.refuse_head(front, &handshake.fd, head, Refusal::Overloaded { retry_after_s: RETRY_AFTER_S });
                return true;
            }
        }
        false
    }

    /// Closes the client whose AUTH has been awaited for longest.
    fn dismiss_unauthenticated(&mut self, front: &Front) -> bool {
        let Some(slot) = self.oldest(Awaited::Auth) else { return false };
        let Some(handshake) = self.pending[slot as usize].take() else { return false };
        self.free.push(slot);
        front.capacity.unauthenticated.let_go(usize::from(self.index), 1);
        front.capacity.unauthenticated.count_evicted();
        let refusal = Refusal::Overloaded { retry_after_s: RETRY_AFTER_S };
        front.totals.refuse(refusal);
        let words = last_words(refusal.status(), refusal.code(), &refusal.to_string(), true);
        hang_up(&handshake.fd, &words, &mut self.discard);
        true
    }

    /// The next of whom this has been awaited for too long.
    pub(super) fn next_due(&mut self, awaited: Awaited, now: Millis) -> Option<u32> {
        let pending = &self.pending;
        self.deadlines.next_due(awaited, now, |key| is_here(pending, key)).map(|key| key.slot)
    }

    /// Whoever this has been awaited of for longest.
    fn oldest(&mut self, awaited: Awaited) -> Option<u32> {
        let pending = &self.pending;
        self.deadlines.oldest(awaited, |key| is_here(pending, key)).map(|key| key.slot)
    }
}

fn is_here(pending: &[Option<PendingHandshake>], key: PendingKey) -> bool {
    pending[key.slot as usize].as_ref().is_some_and(|handshake| handshake.number == key.number)
}
