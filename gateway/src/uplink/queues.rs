//! Which logic node gets what clients say, in which order, and until when it is kept: the state behind [`super::Uplink`].
//! Pure: no lock, no clock, no socket. One queue a logic node; a sender's items stay in one queue while any of them is
//! unanswered, so that their order is one node's affair.
//!
//! ```text
//!  offer ─▶ queue ─▶ handed over ─▶ answered ─▶ gone
//!    │       ▲          │ node lost
//!    ▼       └──────────┘ (numbered anew, same id)
//!  waiting for a node ──▶ given up after wait_ms
//! ```
//!
//! Invariants: an item is in exactly one place; `items` and `bytes` are the sums over all places; numbers only grow, and
//! within a queue the order of numbers is the order of offers.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use tidegate_protocol::limits::{UPLINK_PAGE, UPLINK_PAGE_BYTES};
use tidegate_protocol::records::{Item, Wants};

use crate::clock::{Millis, is_due, since};

/// A logic node that has not asked again after this long since its last answer is gone.
const SILENT_MS: u32 = 2_000;
/// A sender may have so much of the room at most: one part of so many. Else one could keep all others from being heard.
const SHARES: usize = 16;
/// What an item costs beside its strings and data, roughly: records and the tree.
const ITEM_BYTES: usize = 256;

/// Why an item is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Where an item has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// The node; 0: it waits for one.
    pub node: u64,
    /// Its number there.
    pub sequence: u64,
}

/// A kept item. `T` says who waits for the answer.
#[derive(Debug)]
struct Kept<T> {
    item: Item,
    key: u64,
    /// The only node it is for, if it is for one alone.
    node: Option<u64>,
    bytes: usize,
    since: Millis,
    whose: T,
}

/// One logic node.
#[derive(Debug)]
struct NodeQueue<T> {
    /// Its backplane connection.
    owner: u64,
    wants: Wants,
    /// Its latest request, when it has been answered; none while one is held.
    answered: Option<Millis>,
    token: u64,
    /// What it has not answered, by number.
    kept: BTreeMap<u64, Kept<T>>,
}

/// Everything said and not answered.
#[derive(Debug)]
pub struct Queues<T> {
    by_node: HashMap<u64, NodeQueue<T>>,
    /// What no logic node is there for, in order.
    waiting: VecDeque<Kept<T>>,
    /// What each sender has in here, wherever it is: items and bytes.
    shares: HashMap<u64, (usize, usize)>,
    /// Senders with unanswered items in a queue: which, and how many.
    pins: HashMap<u64, (u64, u32)>,
    next: u64,
    tokens: u64,
    items: usize,
    bytes: usize,
    items_max: usize,
    bytes_max: usize,
}

impl<T> Queues<T> {
    /// Nothing said yet.
    #[must_use]
    pub fn new(items_max: usize, bytes_max: usize) -> Self {
        Self {
            by_node: HashMap::new(),
            waiting: VecDeque::new(),
            shares: HashMap::new(),
            pins: HashMap::new(),
            next: 1,
            tokens: 0,
            items: 0,
            bytes: 0,
            items_max,
            bytes_max,
        }
    }

    /// Items and bytes that are kept.
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        (self.items, self.bytes)
    }

    /// Whether what is kept passes half of a bound.
    #[must_use]
    pub fn is_half_full(&self) -> bool {
        self.items > self.items_max / 2 || self.bytes > self.bytes_max / 2
    }

    /// Logic nodes that listen.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.by_node.len()
    }

    /// What some logic node wants.
    pub fn wants(&self) -> impl Iterator<Item = &Wants> + Clone {
        self.by_node.values().map(|queue| &queue.wants)
    }

    /// Takes an item in for the node that `key` (its sender) belongs to, or for `node` if one is named. Gives where
    /// it has gone: that node's request may be held.
    ///
    /// # Errors
    /// [`Full`], and the one who would have waited.
    pub fn offer(
        &mut self,
        key: u64,
        node: Option<u64>,
        item: Item,
        whose: T,
        now: Millis,
    ) -> Result<Placed, (Full, T)> {
        let bytes = ITEM_BYTES + prost::Message::encoded_len(&item);
        let share = self.shares.get(&key).copied().unwrap_or_default();
        let is_full = self.items >= self.items_max || self.bytes + bytes > self.bytes_max;
        let has_much = share.0 >= (self.items_max / SHARES).max(1) || share.1 + bytes > self.bytes_max / SHARES;
        // A sender's first item fits its share, however small the bounds are.
        if is_full || (has_much && share.0 > 0) {
            return Err((Full, whose));
        }
        self.shares.insert(key, (share.0 + 1, share.1 + bytes));
        self.items += 1;
        self.bytes += bytes;
        Ok(self.place(Kept { item, key, node, bytes, since: now, whose }))
    }

    fn place(&mut self, mut kept: Kept<T>) -> Placed {
        // What is for one node alone waits for that one; any other could do nothing with it.
        let chosen = kept.node.or_else(|| {
            let pinned = self.pins.get(&kept.key).map(|pin| pin.0);
            pinned.filter(|node| self.by_node.contains_key(node)).or_else(|| self.owner_of(kept.key))
        });
        let Some((chosen, queue)) = chosen.and_then(|node| Some((node, self.by_node.get_mut(&node)?))) else {
            self.waiting.push_back(kept);
            return Placed::default();
        };
        kept.item.sequence = self.next;
        self.next += 1;
        if kept.node.is_none() {
            let pin = self.pins.entry(kept.key).or_insert((chosen, 0));
            // Of a sender whose node is lost, all that is unanswered is at the new one from here on.
            *pin = (chosen, pin.1 + 1);
        }
        let placed = Placed { node: chosen, sequence: kept.item.sequence };
        queue.kept.insert(placed.sequence, kept);
        placed
    }

    /// Rendezvous: every gateway with the same nodes chooses alike, and a node that comes or goes moves only its share.
    fn owner_of(&self, key: u64) -> Option<u64> {
        self.by_node.keys().copied().max_by_key(|&node| (mix(key ^ node), node))
    }

    fn let_go(&mut self, kept: &Kept<T>) {
        self.items -= 1;
        self.bytes -= kept.bytes;
        if let hashbrown::hash_map::Entry::Occupied(mut share) = self.shares.entry(kept.key) {
            let left = (share.get().0 - 1, share.get().1 - kept.bytes);
            if left.0 == 0 {
                share.remove();
            } else {
                share.insert(left);
            }
        }
    }

    fn unpin(&mut self, kept: &Kept<T>) {
        if kept.node.is_some() {
            return;
        }
        if let hashbrown::hash_map::Entry::Occupied(mut pin) = self.pins.entry(kept.key) {
            pin.get_mut().1 -= 1;
            if pin.get().1 == 0 {
                pin.remove();
            }
        }
    }

    /// A node asks, through the connection `owner`; whatever waited for any node is now its. Gives a token for
    /// [`Queues::answered`].
    pub fn ask(&mut self, node: u64, owner: u64, wants: Wants) -> u64 {
        self.tokens += 1;
        let token = self.tokens;
        let queue = self.by_node.entry(node).or_insert_with(|| NodeQueue {
            owner,
            wants: Wants::default(),
            answered: None,
            token,
            kept: BTreeMap::new(),
        });
        (queue.owner, queue.wants, queue.answered, queue.token) = (owner, wants, None, token);
        for kept in std::mem::take(&mut self.waiting) {
            self.place(kept);
        }
        token
    }

    /// What a node has not had yet: a page of items after number `taken`.
    #[must_use]
    pub fn page(&self, node: u64, taken: u64) -> Vec<Item> {
        let Some(queue) = self.by_node.get(&node) else { return Vec::new() };
        let mut bytes = 0;
        let fits = |kept: &&Kept<T>| {
            let is_room = bytes < UPLINK_PAGE_BYTES;
            bytes += kept.bytes;
            is_room
        };
        queue
            .kept
            .range(taken + 1..)
            .map(|(_, kept)| kept)
            .take_while(fits)
            .take(UPLINK_PAGE)
            .map(|k| k.item.clone())
            .collect()
    }

    /// A node's request has been answered; it should ask again soon.
    pub fn answered(&mut self, node: u64, token: u64, now: Millis) {
        if let Some(queue) = self.by_node.get_mut(&node).filter(|queue| queue.token == token) {
            queue.answered = Some(now);
        }
    }

    /// An item has been answered; gives who waits for that.
    pub fn settle(&mut self, node: u64, sequence: u64) -> Option<T> {
        let kept = self.by_node.get_mut(&node)?.kept.remove(&sequence)?;
        self.unpin(&kept);
        self.let_go(&kept);
        Some(kept.whose)
    }

    /// A backplane connection has ended: its nodes' items go to others, in order.
    pub fn hang_up(&mut self, owner: u64, now: Millis) {
        let gone: Vec<u64> =
            self.by_node.iter().filter(|(_, queue)| queue.owner == owner).map(|(&node, _)| node).collect();
        self.lose(&gone, now);
    }

    fn lose(&mut self, nodes: &[u64], now: Millis) {
        let lost: Vec<NodeQueue<T>> = nodes.iter().filter_map(|node| self.by_node.remove(node)).collect();
        lost.iter().flat_map(|queue| queue.kept.values()).for_each(|kept| self.unpin(kept));
        for mut kept in lost.into_iter().flat_map(|queue| queue.kept.into_values()) {
            // It waits for a node from now on, however long it has waited for an answer.
            kept.since = now;
            self.place(kept);
        }
    }

    /// Nodes that fell silent are lost; who has waited for a node for `wait_ms` is given up, oldest first.
    pub fn expire(&mut self, wait_ms: u32, now: Millis) -> Vec<T> {
        let is_silent = |queue: &NodeQueue<T>| queue.answered.is_some_and(|at| since(now, at) >= SILENT_MS);
        let silent: Vec<u64> = self.by_node.iter().filter(|(_, l)| is_silent(l)).map(|(&node, _)| node).collect();
        self.lose(&silent, now);
        let mut late = Vec::new();
        while self.waiting.front().is_some_and(|kept| is_due(now, kept.since.wrapping_add(wait_ms))) {
            let Some(kept) = self.waiting.pop_front() else { break };
            self.let_go(&kept);
            late.push(kept.whose);
        }
        late
    }
}

/// A name's number, the same at every gateway (FNV-1a, spread): which hash a library takes depends on the processor.
#[must_use]
pub fn key_of(name: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(name.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// Spreads the bits of a number (the finalizer of MurmurHash3, public domain).
fn mix(mut n: u64) -> u64 {
    n ^= n >> 33;
    n = n.wrapping_mul(0xff51_afd7_ed55_8ccd);
    n ^= n >> 33;
    n = n.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    n ^ n >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues() -> Queues<u32> {
        Queues::new(100, 1 << 20)
    }

    fn item(id: u32) -> Item {
        Item { id: id.to_string(), ..Item::default() }
    }

    fn ids(items: &[Item]) -> Vec<&str> {
        items.iter().map(|i| i.id.as_str()).collect()
    }

    #[test]
    fn items_stay_until_they_are_answered() {
        let mut queues = queues();
        queues.ask(7, 1, Wants::default());
        queues.offer(1, None, item(1), 10, 0).expect("fits");
        queues.offer(1, None, item(2), 20, 0).expect("fits");

        let page = queues.page(7, 0);
        assert_eq!(ids(&page), ["1", "2"]);
        assert_eq!(ids(&queues.page(7, page[0].sequence)), ["2"], "what has arrived is not handed over again");
        assert_eq!(queues.settle(7, page[1].sequence), Some(20));
        assert_eq!(queues.settle(7, page[1].sequence), None, "answered once");
        assert_eq!(queues.settle(7, page[0].sequence), Some(10));
        assert_eq!(queues.kept(), (0, 0));
    }

    #[test]
    fn what_a_lost_node_has_not_answered_goes_to_the_next_in_order_and_with_its_name() {
        let mut queues = queues();
        queues.ask(7, 1, Wants::default());
        for n in 1..=5 {
            queues.offer(u64::from(n % 2), None, item(n), n, 0).expect("fits");
        }
        let first = queues.page(7, 0);
        queues.settle(7, first[1].sequence);

        queues.hang_up(1, 0);
        assert_eq!(queues.nodes(), 0);
        queues.offer(1, None, item(6), 6, 0).expect("fits");
        queues.ask(8, 2, Wants::default());

        let second = queues.page(8, first[4].sequence);
        assert_eq!(ids(&second), ["1", "3", "4", "5", "6"]);
        assert!(second[0].sequence > first[4].sequence, "numbers only grow");
    }

    #[test]
    fn a_sender_stays_with_its_node_while_anything_is_unanswered() {
        let mut queues = queues();
        queues.ask(1, 1, Wants::default());
        for key in 0..50 {
            queues.offer(key, None, item(0), 0, 0).expect("fits");
        }
        queues.ask(2, 2, Wants::default());
        let owners: Vec<u64> = (0..50).map(|key| queues.offer(key, None, item(1), 0, 0).expect("fits").node).collect();
        assert!(owners.iter().all(|&node| node == 1));

        for item in queues.page(1, 0) {
            queues.settle(1, item.sequence);
        }
        let owners: Vec<u64> = (0..50).map(|key| queues.offer(key, None, item(2), 0, 0).expect("fits").node).collect();
        assert!(
            (10..40).contains(&owners.iter().filter(|&&node| node == 2).count()),
            "then they are shared: {owners:?}"
        );
    }

    #[test]
    fn without_a_node_items_wait_and_are_given_up() {
        let mut queues = queues();
        queues.offer(1, None, item(1), 10, 1_000).expect("fits");
        assert!(queues.expire(500, 1_499).is_empty());
        assert_eq!(queues.expire(500, 1_500), [10]);
        assert_eq!(queues.kept(), (0, 0));
    }

    #[test]
    fn what_a_node_had_long_waits_anew_when_the_node_is_lost() {
        let mut queues = queues();
        queues.ask(7, 1, Wants::default());
        queues.offer(1, None, item(1), 10, 0).expect("fits");

        queues.hang_up(1, 60_000);

        assert!(queues.expire(500, 60_499).is_empty());
        assert_eq!(queues.expire(500, 60_500), [10]);
    }

    #[test]
    fn a_node_that_comes_back_does_not_overtake_what_it_has_lost() {
        let mut queues = queues();
        queues.ask(7, 1, Wants::default());
        for n in 1..=3 {
            queues.offer(1, None, item(n), n, 0).expect("fits");
        }
        queues.ask(8, 2, Wants::default());
        queues.hang_up(1, 0);
        assert_eq!(ids(&queues.page(8, 0)), ["1", "2", "3"]);

        queues.ask(7, 3, Wants::default());

        assert_eq!(
            queues.offer(1, None, item(4), 4, 0).map(|placed| placed.node),
            Ok(8),
            "all of a sender is at one node"
        );
    }

    #[test]
    fn what_is_for_one_node_waits_for_that_one() {
        let mut queues = queues();
        queues.ask(7, 1, Wants::default());
        queues.ask(8, 2, Wants::default());
        queues.offer(1, Some(7), item(1), 10, 0).expect("fits");

        queues.hang_up(1, 0);
        assert_eq!(queues.page(8, 0), []);
        queues.ask(7, 3, Wants::default());

        assert_eq!(ids(&queues.page(7, 0)), ["1"]);
        queues.offer(1, Some(9), item(2), 20, 0).expect("fits");
        assert_eq!(queues.expire(500, 500), [20], "and not for ever");
    }

    #[test]
    fn a_silent_node_is_lost() {
        let mut queues = queues();
        let token = queues.ask(1, 1, Wants::default());
        queues.expire(500, 100_000);
        assert_eq!(queues.nodes(), 1, "its request is held");
        queues.answered(1, token + 1, 0);
        queues.answered(1, token, 100_000);
        queues.expire(500, 100_000 + SILENT_MS);
        assert_eq!(queues.nodes(), 0);
    }

    #[test]
    fn both_bounds_refuse() {
        let mut queues = Queues::new(2, 10_000);
        assert!(queues.offer(1, None, item(1), (), 0).is_ok());
        let large = Item { id: "x".repeat(9_900), ..Item::default() };
        assert!(queues.offer(2, None, large, (), 0).is_err());
        assert!(queues.offer(3, None, item(2), (), 0).is_ok());
        assert!(queues.offer(4, None, item(3), (), 0).is_err());
    }

    #[test]
    fn one_sender_has_a_share_and_leaves_the_rest_to_others() {
        let mut queues = Queues::new(32, 1 << 20);
        queues.ask(7, 1, Wants::default());
        for n in 0..2 {
            assert!(queues.offer(1, Some(7), item(n), (), 0).is_ok());
        }
        assert!(queues.offer(1, Some(7), item(2), (), 0).is_err(), "a sixteenth is its share");
        assert!(queues.offer(2, None, item(3), (), 0).is_ok());

        let first = queues.page(7, 0)[0].sequence;
        queues.settle(7, first);
        assert!(queues.offer(1, None, item(4), (), 0).is_ok(), "what is answered makes room");
        assert_eq!(queues.shares.len(), 2);
    }

    #[test]
    fn a_named_node_gets_its_item() {
        let mut queues = queues();
        for node in 1..=8 {
            queues.ask(node, node, Wants::default());
        }
        for node in 1..=8 {
            assert_eq!(queues.offer(100 + node, Some(node), item(1), 0, 0).map(|placed| placed.node), Ok(node));
        }
    }
}
