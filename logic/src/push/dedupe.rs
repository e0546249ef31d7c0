//! Remembered keys of callers (`dedupe` of pushes, `nonce` of clients, `idempotency` of commands): the same key within the window
//! does nothing and answers with the first outcome, also while the first is still on its way. Knows nothing of pushes or commands.
//! Bounds: `keys_max` keys, `keys_bytes` of memory; the oldest makes room; `window_ms` of age. Keys whose request is still on its
//! way are passed over: forgotten, the same would be done a second time. Only when all of them are on their way does the oldest
//! make room. Where keys have owners, an owner has at most as many as there is room left for: beyond that its own oldest makes
//! room, so that one owner does not push out what others are remembered for.
//! A key is kept as a keyed hash, and an outcome in as few bytes as it can be told from.
//! Invariant: `order` names every key in `entries` exactly once with its current number.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use super::caller::CallerId;
use super::receipt::Receipt;
use crate::config::DedupeConfig;

/// What a request asks for, as a hash: the same key with another one is a mistake of the caller.
pub type Print = [u8; 32];

/// What is remembered of a first request.
pub trait Outcome: Send + Sync + Sized + 'static {
    /// How it is kept.
    type Kept: Send + Sync;
    /// What a key was taken for, where that matters.
    type Print: Copy + PartialEq + Send + Sync;
    /// To be kept.
    fn keep(outcome: Arc<Self>) -> Self::Kept;
    /// As it was.
    fn tell(kept: &Self::Kept) -> Arc<Self>;
    /// Memory it holds beside itself.
    fn bytes(kept: &Self::Kept) -> usize;
}

/// A key as it is kept: two that differ are not taken for each other by any chance that matters, and nobody outside can make two
/// that are, since the hash is keyed.
type Hashed = [u8; 16];
/// `None` until the first has its outcome.
type Slot<T> = Option<Arc<T>>;

enum State<T: Outcome> {
    OnItsWay(watch::Receiver<Slot<T>>),
    Known(T::Kept),
}

struct Entry<T: Outcome> {
    number: u64,
    owner: Option<Owner>,
    print: T::Print,
    state: State<T>,
}

/// Whose key it is, as a hash.
type Owner = u32;

/// A claim: milliseconds after the table's birth, number, key.
type Claimed = (u64, u64, Hashed);

struct Table<T: Outcome> {
    entries: HashMap<Hashed, Entry<T>, RandomState>,
    /// Claims by age, those that were passed over behind the others; one whose number is no longer the key's was released.
    order: VecDeque<Claimed>,
    /// The same of each owner that are still remembered, by number and without times.
    owners: HashMap<Owner, VecDeque<(u64, Hashed)>, RandomState>,
    next: u64,
    /// What the entries cost, by [`Table::cost`].
    bytes: usize,
}

/// Memory of a key on its way beside its entry: a channel for those who wait for its outcome.
const CHANNEL_BYTES: usize = 512;
/// Memory of an owner: its place in the map, and the least room of its queue.
const OWNER_BYTES: usize = 192;

/// The remembered keys.
pub struct Dedupe<T: Outcome = Receipt> {
    table: Arc<Mutex<Table<T>>>,
    window_ms: u64,
    bounds: Bounds,
    born: Instant,
    secret: Hashed,
    owners: RandomState,
}

#[derive(Clone, Copy)]
struct Bounds {
    keys: usize,
    bytes: usize,
}

/// Who holds a key.
pub enum Claim<T: Outcome = Receipt> {
    /// The caller: act, then settle it. Dropped unsettled, the key is free again.
    First(Guard<T>),
    /// An earlier request.
    Repeat(Earlier<T>),
}

/// The key is taken by a request that asked for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// The duty to say what became of the first request with a key.
pub struct Guard<T: Outcome = Receipt> {
    table: Arc<Mutex<Table<T>>>,
    key: Hashed,
    number: u64,
    bounds: Bounds,
    outcome: watch::Sender<Slot<T>>,
}

/// The first request with a key.
pub enum Earlier<T = Receipt> {
    /// It is on its way.
    OnItsWay(watch::Receiver<Slot<T>>),
    /// It is done.
    Known(Arc<T>),
}

impl<T: Outcome> Dedupe<T> {
    /// An empty memory.
    #[must_use]
    pub fn new(config: &DedupeConfig) -> Self {
        let table = Table {
            entries: HashMap::default(),
            order: VecDeque::new(),
            owners: HashMap::default(),
            next: 0,
            bytes: 0,
        };
        let mut secret = [0; 16];
        // The kernel has random numbers once it is up; without them the hash is still of 128 bits.
        let _ = getrandom::fill(&mut secret);
        Self {
            table: Arc::new(Mutex::new(table)),
            window_ms: u64::from(config.window_ms),
            bounds: Bounds { keys: config.keys_max, bytes: config.keys_bytes },
            born: Instant::now(),
            secret,
            owners: RandomState::new(),
        }
    }

    /// Takes a caller's key for this and nothing else, or says who has it for the same.
    ///
    /// # Errors
    /// [`Conflict`].
    pub fn claim_exactly(
        &self,
        caller: CallerId,
        name: &str,
        print: T::Print,
        now: Instant,
    ) -> Result<Claim<T>, Conflict> {
        let (claim, taken_for) = self.claim_of(None, self.hashed(caller, "", name), print, now);
        if taken_for == print { Ok(claim) } else { Err(Conflict) }
    }

    fn hashed(&self, caller: CallerId, owner: &str, name: &str) -> Hashed {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update(caller.bytes());
        hash.update(owner.len().to_le_bytes());
        hash.update(owner);
        hash.update(name);
        let hash: [u8; 32] = hash.finalize().into();
        let mut out = [0; 16];
        out.copy_from_slice(&hash[..16]);
        out
    }

    fn claim_of(&self, owner: Option<Owner>, key: Hashed, print: T::Print, now: Instant) -> (Claim<T>, T::Print) {
        let now_ms = u64::try_from(now.duration_since(self.born).as_millis()).unwrap_or(u64::MAX);
        let mut table = self.table.lock();
        table.expire(now_ms, self.window_ms);
        if let Some(entry) = table.entries.get(&key) {
            let earlier = match &entry.state {
                State::OnItsWay(outcome) => Earlier::OnItsWay(outcome.clone()),
                State::Known(kept) => Earlier::Known(T::tell(kept)),
            };
            return (Claim::Repeat(earlier), entry.print);
        }
        table.make_room(owner, now_ms, self.bounds);
        let (sender, outcome) = watch::channel(None);
        let number = table.next;
        table.next += 1;
        let entry = Entry { number, owner, print, state: State::OnItsWay(outcome) };
        table.insert(key, entry, now_ms);
        debug_assert!(table.entries.len() <= table.order.len() && table.entries.len() <= self.bounds.keys);
        let table = Arc::clone(&self.table);
        (Claim::First(Guard { table, key, number, bounds: self.bounds, outcome: sender }), print)
    }

    /// Forgets the oldest key that has its outcome; false when there is none.
    pub fn shed(&self) -> bool {
        self.table.lock().shed()
    }

    /// Keys remembered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.lock().entries.len()
    }

    /// Memory they take, against `keys_bytes`.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.table.lock().bytes
    }
}

impl<T: Outcome<Print = ()>> Dedupe<T> {
    /// Takes a caller's key, or says who has it.
    pub fn claim(&self, caller: CallerId, name: &str, now: Instant) -> Claim<T> {
        self.claim_of(None, self.hashed(caller, "", name), (), now).0
    }

    /// The same for a key that somebody among the caller's many owns.
    pub fn claim_owned(&self, caller: CallerId, owner: &str, name: &str, now: Instant) -> Claim<T> {
        // Two owners in one place share what is theirs, no more.
        let place = u32::try_from(self.owners.hash_one(owner) & u64::from(u32::MAX)).unwrap_or_default();
        self.claim_of(Some(place), self.hashed(caller, owner, name), (), now).0
    }
}

impl<T: Outcome> Table<T> {
    /// What a key costs: twice its places in map and queues, which are half empty at the worst, and what its state holds.
    fn cost(entry: &Entry<T>) -> usize {
        let owned = if entry.owner.is_some() { size_of::<(u64, Hashed)>() } else { 0 };
        let places = size_of::<(Hashed, Entry<T>)>() + 1 + size_of::<Claimed>() + owned;
        2 * places
            + match &entry.state {
                State::OnItsWay(_) => CHANNEL_BYTES,
                State::Known(kept) => T::bytes(kept),
            }
    }

    fn insert(&mut self, key: Hashed, entry: Entry<T>, now_ms: u64) {
        self.bytes += Self::cost(&entry);
        self.order.push_back((now_ms, entry.number, key));
        if let Some(owner) = entry.owner {
            let owned = self.owners.entry(owner).or_insert_with(|| {
                self.bytes += OWNER_BYTES;
                VecDeque::new()
            });
            owned.push_back((entry.number, key));
        }
        self.entries.insert(key, entry);
    }

    /// Takes a key out, if it is still this claim's.
    fn remove(&mut self, key: Hashed, number: u64) {
        if self.entries.get(&key).is_none_or(|entry| entry.number != number) {
            return;
        }
        let Some(entry) = self.entries.remove(&key) else { return };
        self.bytes = self.bytes.saturating_sub(Self::cost(&entry));
        let Some(owned) = entry.owner.and_then(|owner| self.owners.get_mut(&owner)) else { return };
        // By age at the front, released at the back: not many have to move.
        if let Ok(at) = owned.binary_search_by_key(&number, |(number, _)| *number) {
            owned.remove(at);
        }
        if let (true, Some(owner)) = (owned.is_empty(), entry.owner) {
            self.owners.remove(&owner);
            self.bytes = self.bytes.saturating_sub(OWNER_BYTES);
        }
    }

    /// Forgets what is too old.
    fn expire(&mut self, now_ms: u64, window_ms: u64) {
        for _ in 0..self.order.len() {
            let Some((at_ms, ..)) = self.order.front() else { break };
            if now_ms.saturating_sub(*at_ms) < window_ms {
                break;
            }
            self.forget_oldest(now_ms);
        }
        // Those that were taken out from the middle.
        if self.order.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.order.retain(|(_, number, key)| entries.get(key).is_some_and(|entry| entry.number == *number));
        }
    }

    /// Makes room for one more, at the cost of its owner if they have more than there is room for, else of the oldest.
    fn make_room(&mut self, owner: Option<Owner>, now_ms: u64, bounds: Bounds) {
        let each = 2 * (size_of::<(Hashed, Entry<T>)>() + size_of::<Claimed>()) + CHANNEL_BYTES;
        let room = |table: &Self| {
            let bytes = bounds.bytes.saturating_sub(table.bytes) / each;
            bytes.min(bounds.keys.saturating_sub(table.entries.len()))
        };
        let owned = owner.and_then(|owner| self.owners.get(&owner)).map_or(0, VecDeque::len);
        if owned > 0 && owned >= room(self) {
            self.forget_owned(owner);
        }
        for _ in 0..self.order.len() {
            if room(self) > 0 {
                return;
            }
            self.forget_oldest(now_ms);
        }
        while room(self) == 0 && !self.order.is_empty() {
            self.drop_oldest();
        }
    }

    /// Forgets an owner's oldest key that has its outcome.
    fn forget_owned(&mut self, owner: Option<Owner>) {
        let Some(owned) = owner.and_then(|owner| self.owners.get(&owner)) else { return };
        let is_known = |(number, key): &&(u64, Hashed)| {
            self.entries.get(key).is_some_and(|e| e.number == *number && matches!(e.state, State::Known(_)))
        };
        if let Some((number, key)) = owned.iter().find(is_known).copied() {
            self.remove(key, number);
        }
    }

    fn shed(&mut self) -> bool {
        // Without a time of its own, one that is passed over gets that of the youngest.
        let Some((youngest_ms, ..)) = self.order.back() else { return false };
        let now_ms = *youngest_ms;
        (0..self.order.len()).any(|_| self.forget_oldest(now_ms))
    }

    /// False when the oldest is still on its way: then it is passed over, as if it were claimed now.
    fn forget_oldest(&mut self, now_ms: u64) -> bool {
        let Some((_, number, key)) = self.order.front() else { return false };
        let is_ours = |entry: &&Entry<T>| entry.number == *number;
        let state = self.entries.get(key).filter(is_ours).map(|entry| &entry.state);
        let is_on_its_way = matches!(state, Some(State::OnItsWay(_)));
        if !is_on_its_way {
            self.drop_oldest();
        } else if let Some((_, number, key)) = self.order.pop_front() {
            self.order.push_back((now_ms, number, key));
        }
        !is_on_its_way
    }

    fn drop_oldest(&mut self) {
        if let Some((_, number, key)) = self.order.pop_front() {
            self.remove(key, number);
        }
    }

    fn settle(&mut self, key: Hashed, number: u64, outcome: Arc<T>, bounds: Bounds) {
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.number == number) else { return };
        let before = Self::cost(entry);
        entry.state = State::Known(T::keep(outcome));
        self.bytes = self.bytes.saturating_sub(before) + Self::cost(entry);
        while self.bytes > bounds.bytes && self.shed() {}
    }
}

impl<T: Outcome + Clone> Guard<T> {
    /// It is done: repeats get this outcome.
    pub fn settle(self, outcome: &T) {
        self.settle_as(Arc::new(outcome.clone()));
    }
}

impl<T: Outcome> Guard<T> {
    /// It is done: repeats get this outcome.
    pub fn settle_as(self, outcome: Arc<T>) {
        self.table.lock().settle(self.key, self.number, Arc::clone(&outcome), self.bounds);
        self.outcome.send_replace(Some(outcome));
    }
}

impl<T: Outcome> Drop for Guard<T> {
    fn drop(&mut self) {
        if self.outcome.borrow().is_none() {
            self.table.lock().remove(self.key, self.number);
        }
    }
}

impl<T> Earlier<T> {
    /// Its outcome; `None` when it failed and the key is free again.
    pub async fn receipt(self) -> Option<Arc<T>> {
        let mut outcome = match self {
            Self::Known(outcome) => return Some(outcome),
            Self::OnItsWay(outcome) => outcome,
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(slot) => slot.clone(),
            Err(_) => None,
        }
    }
}

/// A receipt as it is kept: what nearly all are, or the whole of one that says more.
pub enum KeptReceipt {
    /// Its id, and what all gateways said.
    Plain { id: [u8; 16], sent: u32, matched: u64, queued: u64 },
    /// It names gateways or reasons, or was waited for.
    Whole(Arc<Receipt>),
}

impl Outcome for Receipt {
    type Kept = KeptReceipt;
    type Print = ();

    fn keep(outcome: Arc<Self>) -> KeptReceipt {
        let is_plain = outcome.gateways.failed.is_empty() && outcome.dropped.is_empty() && outcome.written.is_none();
        let id = outcome.id.parse::<ulid::Ulid>().ok().filter(|id| is_plain && id.to_string() == outcome.id);
        match (id, u32::try_from(outcome.gateways.sent)) {
            (Some(id), Ok(sent)) => {
                KeptReceipt::Plain { id: id.to_bytes(), sent, matched: outcome.matched, queued: outcome.queued }
            }
            _ => KeptReceipt::Whole(outcome),
        }
    }

    fn tell(kept: &KeptReceipt) -> Arc<Self> {
        match kept {
            KeptReceipt::Whole(receipt) => Arc::clone(receipt),
            KeptReceipt::Plain { id, sent, matched, queued } => {
                let mut receipt = Self::new(ulid::Ulid::from_bytes(*id).to_string());
                receipt.gateways.sent = usize::try_from(*sent).unwrap_or(usize::MAX);
                (receipt.matched, receipt.queued) = (*matched, *queued);
                Arc::new(receipt)
            }
        }
    }

    fn bytes(kept: &KeptReceipt) -> usize {
        match kept {
            KeptReceipt::Plain { .. } => 0,
            KeptReceipt::Whole(receipt) => receipt.bytes(),
        }
    }
}

#[cfg(test)]
#[path = "dedupe_tests.rs"]
mod tests;
