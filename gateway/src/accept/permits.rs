//! Places of guests, and which guest leaves when all are taken: the one from whom something has been awaited for longest. So
//! strangers who hold places and say nothing cannot keep out those who come after them. A guest that waits for the connect
//! hook's word keeps its place: the delay is not its fault.
//! Invariant: a place is held exactly while its guest is in `guests`, or on its way there or out.

use std::collections::VecDeque;

use tidegate_protocol::handshake::Refusal;

use super::awaiting_hook::last_words;
use super::{Lobby, RETRY_AFTER_S, Stage, hang_up};
use crate::budget::{Room, Shares};
use crate::clock::{Millis, is_due};
use crate::gateway::node::Node;

/// Lets the oldest of a kind go; false when there is none here.
type Dismiss = fn(&mut Lobby, &Node) -> bool;

impl Lobby {
    /// A place among the handshakes in flight; false when nobody here can make room.
    pub(super) fn take_place(&mut self, node: &Node) -> bool {
        self.take(node, &node.handshakes, node.config.handshake.in_flight, Self::dismiss_head)
    }

    /// The same among those who have yet to say who they are.
    pub(super) fn take_unnamed_place(&mut self, node: &Node) -> bool {
        self.take(node, &node.unnamed, node.config.auth.unnamed_max, Self::dismiss_unnamed)
    }

    /// Makes room where this lobby was told to.
    pub(super) fn make_room_if_told(&mut self, node: &Node) {
        let index = usize::from(self.index);
        let (heads, unnamed) = (node.config.handshake.in_flight, node.config.auth.unnamed_max);
        if node.handshakes.is_told(index, heads) {
            self.make_room(node, &node.handshakes, heads, Self::dismiss_head);
        }
        if node.unnamed.is_told(index, unnamed) {
            self.make_room(node, &node.unnamed, unnamed, Self::dismiss_unnamed);
        }
    }

    fn take(&mut self, node: &Node, pool: &Shares, max: usize, dismiss: Dismiss) -> bool {
        let index = usize::from(self.index);
        match pool.hold(index, 1, max) {
            Room::There => true,
            Room::Of(other) => {
                node.doors[other].knocked.notify_one();
                true
            }
            Room::Own if dismiss(self, node) => true,
            Room::Own => {
                pool.let_go(index, 1);
                false
            }
        }
    }

    fn make_room(&mut self, node: &Node, pool: &Shares, max: usize, dismiss: Dismiss) {
        loop {
            match pool.turn(usize::from(self.index), max) {
                Room::Own if dismiss(self, node) => {}
                Room::Of(other) => return node.doors[other].knocked.notify_one(),
                Room::There | Room::Own => return,
            }
        }
    }

    /// Refuses the guest whose request head has been awaited for longest.
    fn dismiss_head(&mut self, node: &Node) -> bool {
        while let Some(slot) = self.oldest(|lobby| &mut lobby.deadlines) {
            let is_head = matches!(&self.guests[slot as usize], Some(guest) if matches!(guest.stage, Stage::Head(..)));
            if is_head && let Some(guest) = self.unseat(node, slot) {
                node.handshakes.count_evicted();
                let head = if let Stage::Head(head, _) = &guest.stage { &head[..] } else { &[] };
                self.refuse_head(node, &guest.fd, head, Refusal::Overloaded { retry_after_s: RETRY_AFTER_S });
                return true;
            }
        }
        false
    }

    /// Closes the guest whose AUTH has been awaited for longest.
    fn dismiss_unnamed(&mut self, node: &Node) -> bool {
        let Some(slot) = self.oldest(|lobby| &mut lobby.unnamed_deadlines) else { return false };
        let Some(guest) = self.guests[slot as usize].take() else { return false };
        self.free.push(slot);
        node.unnamed.let_go(usize::from(self.index), 1);
        node.unnamed.count_evicted();
        let refusal = Refusal::Overloaded { retry_after_s: RETRY_AFTER_S };
        node.refused(refusal);
        let words = last_words(refusal.status(), refusal.code(), &refusal.to_string(), true);
        hang_up(&guest.fd, &words, &mut self.discard);
        true
    }

    /// The next guest of a list whose time is over; what stands there of guests that are gone is taken out.
    pub(super) fn next_due(
        &mut self,
        list: fn(&mut Self) -> &mut VecDeque<(Millis, u32, u32)>,
        now: Millis,
    ) -> Option<u32> {
        while let Some(&(deadline, slot, number)) = list(self).front() {
            let is_here = self.guests[slot as usize].as_ref().is_some_and(|g| g.number == number);
            if is_here && !is_due(now, deadline) {
                return None;
            }
            list(self).pop_front();
            if is_here {
                return Some(slot);
            }
        }
        None
    }

    /// Takes the first guest who is still here out of a list in order of age.
    fn oldest(&mut self, list: fn(&mut Self) -> &mut VecDeque<(Millis, u32, u32)>) -> Option<u32> {
        while let Some((_, slot, number)) = list(self).pop_front() {
            if self.guests[slot as usize].as_ref().is_some_and(|guest| guest.number == number) {
                return Some(slot);
            }
        }
        None
    }
}
