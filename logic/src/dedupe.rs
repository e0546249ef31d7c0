//! Remembered keys of callers (`dedupe` of pushes, `idempotency` of commands): the same key within the window does nothing and
//! answers with the first outcome, also while the first is still on its way. Knows nothing of pushes or commands. Bounds:
//! `keys_max` keys, the oldest makes room; `window_ms` of age. Keys whose request is still on its way are passed over: forgotten,
//! the same would be done a second time. Only when all of them are on their way does the oldest make room.
//! Invariant: `order` names every key in `entries` exactly once with its current number.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::DedupeConfig;
use crate::keys::CallerId;
use crate::receipt::Receipt;

/// What a request asks for, as a hash: the same key with another one is a mistake of the caller.
pub type Print = [u8; 32];

/// A publisher's key; two callers may use the same name.
pub type Key = (CallerId, Box<str>);
/// `None` until the first has its outcome.
type Slot<T> = Option<Arc<T>>;

struct Entry<T> {
    number: u64,
    print: Print,
    outcome: watch::Receiver<Slot<T>>,
}

struct Table<T> {
    entries: HashMap<Key, Entry<T>, RandomState>,
    /// Claims by age, those that were passed over behind the others; one whose number is no longer the key's was released.
    order: VecDeque<(Instant, u64, Key)>,
    next: u64,
}

/// The remembered keys.
pub struct Dedupe<T = Receipt> {
    table: Arc<Mutex<Table<T>>>,
    window: Duration,
    keys_max: usize,
}

/// Who holds a key.
pub enum Claim<T = Receipt> {
    /// The caller: act, then settle it. Dropped unsettled, the key is free again.
    First(Guard<T>),
    /// An earlier request.
    Repeat(Earlier<T>),
}

/// The key is taken by a request that asked for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// The duty to say what became of the first request with a key.
pub struct Guard<T = Receipt> {
    table: Arc<Mutex<Table<T>>>,
    key: Option<Key>,
    number: u64,
    outcome: watch::Sender<Slot<T>>,
}

/// The first request with a key.
pub struct Earlier<T = Receipt>(watch::Receiver<Slot<T>>);

impl<T> Dedupe<T> {
    /// An empty memory.
    #[must_use]
    pub fn new(config: &DedupeConfig) -> Self {
        let table = Table { entries: HashMap::default(), order: VecDeque::new(), next: 0 };
        Self {
            table: Arc::new(Mutex::new(table)),
            window: Duration::from_millis(u64::from(config.window_ms)),
            keys_max: config.keys_max,
        }
    }

    /// Takes a key, or says who has it.
    pub fn claim(&self, key: Key, now: Instant) -> Claim<T> {
        self.claim_for(key, Print::default(), now).0
    }

    /// Takes a key for this and nothing else, or says who has it for the same.
    ///
    /// # Errors
    /// [`Conflict`].
    pub fn claim_exactly(&self, key: Key, print: Print, now: Instant) -> Result<Claim<T>, Conflict> {
        let (claim, taken_for) = self.claim_for(key, print, now);
        if taken_for == print { Ok(claim) } else { Err(Conflict) }
    }

    fn claim_for(&self, key: Key, print: Print, now: Instant) -> (Claim<T>, Print) {
        let mut table = self.table.lock();
        table.forget(now, self.window, self.keys_max);
        if let Some(entry) = table.entries.get(&key) {
            return (Claim::Repeat(Earlier(entry.outcome.clone())), entry.print);
        }
        let (sender, outcome) = watch::channel(None);
        let number = table.next;
        table.next += 1;
        table.entries.insert(key.clone(), Entry { number, print, outcome });
        table.order.push_back((now, number, key.clone()));
        debug_assert!(table.entries.len() <= table.order.len() && table.entries.len() <= self.keys_max);
        (Claim::First(Guard { table: Arc::clone(&self.table), key: Some(key), number, outcome: sender }), print)
    }

    /// Forgets the oldest key that has its outcome; false when there is none.
    pub fn shed(&self) -> bool {
        let mut table = self.table.lock();
        // Without a time of its own, one that is passed over gets that of the youngest.
        let Some((youngest, ..)) = table.order.back() else { return false };
        let now = *youngest;
        (0..table.order.len()).any(|_| table.forget_oldest(now))
    }

    /// Keys remembered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.lock().entries.len()
    }
}

impl<T> Table<T> {
    /// Forgets what is too old, and the oldest when one more would not fit. Released keys count until they are the
    /// oldest, so `order` is bounded by `keys_max` as well.
    fn forget(&mut self, now: Instant, window: Duration, keys_max: usize) {
        for _ in 0..self.order.len() {
            let Some((at, ..)) = self.order.front() else { break };
            if now.duration_since(*at) < window && self.order.len() < keys_max {
                break;
            }
            self.forget_oldest(now);
        }
        let excess = (self.order.len() + 1).saturating_sub(keys_max);
        (0..excess).for_each(|_| self.drop_oldest());
    }

    /// False when the oldest is still on its way: then it is passed over, as if it were claimed now.
    fn forget_oldest(&mut self, now: Instant) -> bool {
        let Some((_, number, key)) = self.order.front() else { return false };
        let is_ours = |entry: &&Entry<T>| entry.number == *number;
        let is_on_its_way = self.entries.get(key).filter(is_ours).is_some_and(|e| e.outcome.borrow().is_none());
        if !is_on_its_way {
            self.drop_oldest();
        } else if let Some((_, number, key)) = self.order.pop_front() {
            self.order.push_back((now, number, key));
        }
        !is_on_its_way
    }

    fn drop_oldest(&mut self) {
        let Some((_, number, key)) = self.order.pop_front() else { return };
        if self.entries.get(&key).is_some_and(|e| e.number == number) {
            self.entries.remove(&key);
        }
    }
}

impl<T: Clone> Guard<T> {
    /// It is done: repeats get this outcome.
    pub fn settle(self, outcome: &T) {
        self.settle_as(Arc::new(outcome.clone()));
    }
}

impl<T> Guard<T> {
    /// It is done: repeats get this outcome.
    pub fn settle_as(mut self, outcome: Arc<T>) {
        self.key = None;
        self.outcome.send_replace(Some(outcome));
    }
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut table = self.table.lock();
        if table.entries.get(&key).is_some_and(|e| e.number == self.number) {
            table.entries.remove(&key);
        }
    }
}

impl<T> Earlier<T> {
    /// Its outcome; `None` when it failed and the key is free again.
    pub async fn receipt(mut self) -> Option<Arc<T>> {
        match self.0.wait_for(Option::is_some).await {
            Ok(slot) => slot.clone(),
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Caller;

    fn memory(window_ms: u32, keys_max: usize) -> Dedupe {
        Dedupe::new(&DedupeConfig { window_ms, keys_max })
    }

    fn key(name: &str) -> Key {
        (Caller::ANYONE.id, name.into())
    }

    fn first(claim: Claim) -> Option<Guard> {
        match claim {
            Claim::First(guard) => Some(guard),
            Claim::Repeat(_) => None,
        }
    }

    #[tokio::test]
    async fn a_repeat_gets_the_first_receipt_even_while_the_first_is_on_its_way() {
        let memory = memory(1_000, 10);
        let now = Instant::now();
        let guard = first(memory.claim(key("a"), now)).expect("free");
        let Claim::Repeat(earlier) = memory.claim(key("a"), now) else { panic!("claimed twice") };
        let waiting = tokio::spawn(earlier.receipt());

        guard.settle(&Receipt::new("01".into()));

        assert_eq!(waiting.await.expect("no panic").expect("settled").id, "01");
        let Claim::Repeat(later) = memory.claim(key("a"), now) else { panic!("claimed twice") };
        assert_eq!(later.receipt().await.expect("settled").id, "01");
    }

    #[tokio::test]
    async fn a_failed_push_releases_its_key() {
        let memory = memory(1_000, 10);
        let now = Instant::now();
        let guard = first(memory.claim(key("a"), now)).expect("free");
        let Claim::Repeat(earlier) = memory.claim(key("a"), now) else { panic!("claimed twice") };

        drop(guard);

        assert_eq!(earlier.receipt().await, None);
        assert!(first(memory.claim(key("a"), now)).is_some());
    }

    #[tokio::test]
    async fn a_key_is_free_again_after_the_window() {
        let memory = memory(1_000, 10);
        let now = Instant::now();
        first(memory.claim(key("a"), now)).expect("free").settle(&Receipt::new("01".into()));

        assert!(first(memory.claim(key("a"), now + Duration::from_millis(999))).is_none());
        assert!(first(memory.claim(key("a"), now + Duration::from_millis(1_000))).is_some());
    }

    #[tokio::test]
    async fn a_key_taken_for_something_else_is_a_conflict() {
        let memory: Dedupe<u32> = Dedupe::new(&DedupeConfig { window_ms: 1_000, keys_max: 10 });
        let now = Instant::now();
        let Ok(Claim::First(guard)) = memory.claim_exactly(key("a"), [1; 32], now) else { panic!("free") };
        guard.settle(&7);

        assert!(matches!(memory.claim_exactly(key("a"), [2; 32], now), Err(Conflict)));
        assert!(matches!(memory.claim_exactly(key("a"), [1; 32], now), Ok(Claim::Repeat(_))));
        assert!(memory.shed() && !memory.shed());
        assert!(matches!(memory.claim_exactly(key("a"), [2; 32], now), Ok(Claim::First(_))));
    }

    #[tokio::test]
    async fn the_oldest_key_makes_room() {
        let memory = memory(1_000, 3);
        let now = Instant::now();
        for name in ["a", "b", "c", "d"] {
            first(memory.claim(key(name), now)).expect("free").settle(&Receipt::new(name.into()));
        }

        assert_eq!(memory.len(), 3);
        assert!(first(memory.claim(key("d"), now)).is_none());
        assert!(first(memory.claim(key("a"), now)).is_some());
    }

    #[tokio::test]
    async fn a_key_whose_request_is_on_its_way_outlives_younger_ones_and_the_window() {
        let memory = memory(1_000, 3);
        let now = Instant::now();
        let slow = first(memory.claim(key("slow"), now)).expect("free");
        for name in ["a", "b", "c", "d"] {
            first(memory.claim(key(name), now)).expect("free").settle(&Receipt::new(name.into()));
        }
        assert!(memory.shed() && memory.shed() && !memory.shed());
        let later = now + Duration::from_secs(5);

        assert!(first(memory.claim(key("slow"), later)).is_none(), "it would be done twice");
        slow.settle(&Receipt::new("slow".into()));
        assert!(first(memory.claim(key("slow"), later + Duration::from_secs(1))).is_some());
    }

    #[tokio::test]
    async fn when_all_are_on_their_way_the_oldest_makes_room() {
        let memory = memory(1_000, 2);
        let now = Instant::now();
        let _guards: Vec<_> = ["a", "b", "c"].map(|name| first(memory.claim(key(name), now))).into();

        assert_eq!(memory.len(), 2);
        assert!(first(memory.claim(key("c"), now)).is_none());
    }
}
