//! Remembered `dedupe` keys: the same key within the window does nothing and answers with the first receipt, also
//! while the first push is still on its way. Knows nothing of pushes. Bounds: `keys_max` keys, the oldest makes
//! room; `window_ms` of age. Invariant: `order` names every key in `entries` exactly once with its current number.

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

/// A publisher's key; two callers may use the same name.
pub type Key = (CallerId, Box<str>);
/// `None` until the first push has its receipt.
type Slot = Option<Arc<Receipt>>;

struct Entry {
    number: u64,
    receipt: watch::Receiver<Slot>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Key, Entry, RandomState>,
    /// Claims by age; an entry whose number is no longer the key's was released.
    order: VecDeque<(Instant, u64, Key)>,
    next: u64,
}

/// The remembered keys.
pub struct Dedupe {
    table: Arc<Mutex<Table>>,
    window: Duration,
    keys_max: usize,
}

/// Who holds a key.
pub enum Claim {
    /// The caller: push, then settle it. Dropped unsettled, the key is free again.
    First(Guard),
    /// An earlier push.
    Repeat(Earlier),
}

/// The duty to say what became of the first push with a key.
pub struct Guard {
    table: Arc<Mutex<Table>>,
    key: Option<Key>,
    number: u64,
    receipt: watch::Sender<Slot>,
}

/// The first push with a key.
pub struct Earlier(watch::Receiver<Slot>);

impl Dedupe {
    /// An empty memory.
    #[must_use]
    pub fn new(config: &DedupeConfig) -> Self {
        Self {
            table: Arc::default(),
            window: Duration::from_millis(u64::from(config.window_ms)),
            keys_max: config.keys_max,
        }
    }

    /// Takes a key, or says who has it.
    pub fn claim(&self, key: Key, now: Instant) -> Claim {
        let mut table = self.table.lock();
        table.forget(now, self.window, self.keys_max);
        if let Some(entry) = table.entries.get(&key) {
            return Claim::Repeat(Earlier(entry.receipt.clone()));
        }
        let (sender, receipt) = watch::channel(None);
        let number = table.next;
        table.next += 1;
        table.entries.insert(key.clone(), Entry { number, receipt });
        table.order.push_back((now, number, key.clone()));
        debug_assert!(table.entries.len() <= table.order.len() && table.entries.len() <= self.keys_max);
        Claim::First(Guard { table: Arc::clone(&self.table), key: Some(key), number, receipt: sender })
    }

    /// Keys remembered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.lock().entries.len()
    }
}

impl Table {
    /// Forgets what is too old, and the oldest when one more would not fit. Released keys count until they are the
    /// oldest, so `order` is bounded by `keys_max` as well.
    fn forget(&mut self, now: Instant, window: Duration, keys_max: usize) {
        while let Some((at, number, key)) = self.order.front() {
            if now.duration_since(*at) < window && self.order.len() < keys_max {
                break;
            }
            if self.entries.get(key).is_some_and(|e| e.number == *number) {
                self.entries.remove(key);
            }
            self.order.pop_front();
        }
    }
}

impl Guard {
    /// The push is done: repeats get this receipt.
    pub fn settle(mut self, receipt: &Receipt) {
        self.key = None;
        self.receipt.send_replace(Some(Arc::new(receipt.clone())));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut table = self.table.lock();
        if table.entries.get(&key).is_some_and(|e| e.number == self.number) {
            table.entries.remove(&key);
        }
    }
}

impl Earlier {
    /// Its receipt; `None` when it failed and the key is free again.
    pub async fn receipt(mut self) -> Option<Arc<Receipt>> {
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
}
