//! Pushes that wait for one gateway, and the state of its link, which decides whether they may.
//! Knows nothing of connections (see `session`). Invariants: `bytes` is the sum of the items' sizes; both bounds hold after
//! each call; nothing waits while the link is down.
//!
//! ```text
//!            open                close
//! Joining ─────────▶ Up          any ─────▶ Down(why)
//!    ▲    lose        │           ▲           │ open
//!    └────────────────┘           └── Up ◀────┘
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use tidegate_protocol::limits::{BACKPLANE_BATCH_BYTES, BACKPLANE_BATCH_PUSHES};
use tidegate_protocol::records;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::permits::Permit;
use super::{Failure, Taken};
use crate::config::BackplaneConfig;

/// Whether a gateway can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Not connected, but perhaps soon: pushes wait.
    Joining,
    /// Connected.
    Up,
    /// Not connected: pushes fail at once.
    Down(Failure),
}

/// One push that waits.
pub(super) struct Queued {
    pub push: records::Push,
    pub bytes: usize,
    pub since: Instant,
    pub reply: Reply,
}

/// Who waits for what becomes of a push; gives its permit back when that is known.
pub(super) struct Reply {
    sender: oneshot::Sender<Taken>,
    _permit: Permit,
    /// While it lives the queue is not idle.
    _unanswered: Arc<()>,
}

impl Reply {
    pub fn send(self, taken: Taken) {
        // The publisher may be gone; then nobody needs to know.
        let _ = self.sender.send(taken);
    }
}

struct Waiting {
    items: VecDeque<Queued>,
    bytes: usize,
    state: LinkState,
}

/// The queue of one gateway.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Wakes the link's task when the queue is no longer empty.
    filled: Notify,
    bytes_max: usize,
    pushes_max: usize,
    age_max: Duration,
    unanswered: Arc<()>,
}

impl Queue {
    pub fn new(config: &BackplaneConfig) -> Self {
        Self {
            waiting: Mutex::new(Waiting { items: VecDeque::new(), bytes: 0, state: LinkState::Joining }),
            filled: Notify::new(),
            bytes_max: config.queue_bytes,
            pushes_max: config.queue_pushes,
            age_max: Duration::from_millis(u64::from(config.request_ms)),
            unanswered: Arc::default(),
        }
    }

    /// Queues a push, or says why not.
    pub fn push(&self, push: records::Push, permit: Permit, now: Instant) -> Result<oneshot::Receiver<Taken>, Failure> {
        let bytes = push.encoded_len();
        let mut waiting = self.waiting.lock();
        if let LinkState::Down(why) = waiting.state {
            return Err(why);
        }
        if waiting.bytes + bytes > self.bytes_max || waiting.items.len() >= self.pushes_max {
            return Err(Failure::Overloaded);
        }
        let (sender, receiver) = oneshot::channel();
        let reply = Reply { sender, _permit: permit, _unanswered: Arc::clone(&self.unanswered) };
        waiting.bytes += bytes;
        waiting.items.push_back(Queued { push, bytes, since: now, reply });
        drop(waiting);
        self.filled.notify_one();
        Ok(receiver)
    }

    /// Waits for pushes and takes what fits one batch, in order; fails those that have waited too long.
    pub async fn take(&self) -> Vec<Queued> {
        loop {
            let batch = self.take_now(Instant::now());
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    fn take_now(&self, now: Instant) -> Vec<Queued> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut waiting = self.waiting.lock();
        while let Some(first) = waiting.items.front() {
            let is_full = bytes + first.bytes > BACKPLANE_BATCH_BYTES || batch.len() == BACKPLANE_BATCH_PUSHES;
            if is_full && !batch.is_empty() {
                break;
            }
            let Some(item) = waiting.items.pop_front() else { break };
            waiting.bytes -= item.bytes;
            if now.duration_since(item.since) > self.age_max {
                // Never sent: the gateway certainly does not have it, which `Timeout` would leave open.
                item.reply.send(Err(Failure::Overloaded));
                continue;
            }
            bytes += item.bytes;
            batch.push(item);
        }
        debug_assert_eq!(waiting.bytes, waiting.items.iter().map(|i| i.bytes).sum::<usize>());
        batch
    }

    /// The link is up.
    pub fn open(&self) {
        self.waiting.lock().state = LinkState::Up;
    }

    /// The link is lost; pushes wait a while for the next one.
    pub fn lose(&self) {
        self.waiting.lock().state = LinkState::Joining;
    }

    /// The link is down: fails everything that waits, and what comes.
    pub fn close(&self, why: Failure) {
        let items = {
            let mut waiting = self.waiting.lock();
            waiting.state = LinkState::Down(why);
            waiting.bytes = 0;
            std::mem::take(&mut waiting.items)
        };
        for item in items {
            item.reply.send(Err(why));
        }
    }

    /// The gateway has left in good order, with nobody on it: what waits has reached everybody it had.
    pub fn leave(&self) {
        let items = std::mem::take(&mut self.waiting.lock().items);
        items.into_iter().for_each(|item| item.reply.send(Ok(records::Receipt::default())));
        self.close(Failure::Unreachable);
    }

    /// Whether no push waits or is on its way.
    pub fn is_idle(&self) -> bool {
        Arc::strong_count(&self.unanswered) == 1
    }

    pub fn state(&self) -> LinkState {
        self.waiting.lock().state
    }

    pub fn waiting(&self) -> (usize, usize) {
        let waiting = self.waiting.lock();
        (waiting.items.len(), waiting.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tokio::sync::Semaphore;

    fn push(bytes: usize) -> records::Push {
        records::Push { messages: vec![Bytes::from(vec![b'1'; bytes])], ..records::Push::default() }
    }

    fn permit() -> Permit {
        let permits = Arc::new(Semaphore::new(1));
        Some(Arc::new(permits.try_acquire_owned().expect("free")))
    }

    fn queue(bytes: usize, pushes: usize) -> Queue {
        Queue::new(&BackplaneConfig { queue_bytes: bytes, queue_pushes: pushes, ..BackplaneConfig::default() })
    }

    #[tokio::test]
    async fn a_full_queue_refuses_by_bytes_and_by_pushes() {
        let now = Instant::now();
        let (by_bytes, by_pushes) = (queue(1_000, 100), queue(1_000_000, 2));

        assert!(by_bytes.push(push(900), permit(), now).is_ok());
        assert_eq!(by_bytes.push(push(200), permit(), now).err(), Some(Failure::Overloaded));
        assert!(by_bytes.push(push(10), permit(), now).is_ok());
        assert!(by_pushes.push(push(1), permit(), now).is_ok() && by_pushes.push(push(1), permit(), now).is_ok());
        assert_eq!(by_pushes.push(push(1), permit(), now).err(), Some(Failure::Overloaded));

        assert_eq!(by_pushes.take().await.len(), 2);
        assert_eq!(by_pushes.waiting(), (0, 0));
    }

    #[tokio::test]
    async fn a_batch_is_cut_at_its_bound_of_bytes_and_keeps_order() {
        let queue = queue(64 << 20, 100);
        let now = Instant::now();
        for bytes in [700_000, 300_000, 200_000, 2_000_000, 5] {
            queue.push(push(bytes), permit(), now).expect("fits");
        }

        let mut sizes = Vec::new();
        while queue.waiting().0 > 0 {
            sizes.push(queue.take().await.iter().map(|q| q.push.messages[0].len()).collect::<Vec<_>>());
        }

        assert_eq!(sizes, [vec![700_000, 300_000], vec![200_000], vec![2_000_000], vec![5]]);
    }

    #[tokio::test]
    async fn closing_fails_what_waits_and_what_comes() {
        let queue = queue(1_000, 10);
        let waiting = queue.push(push(1), permit(), Instant::now()).expect("joining");

        queue.close(Failure::Unreachable);

        assert_eq!(waiting.await, Ok(Err(Failure::Unreachable)));
        assert_eq!(queue.push(push(1), permit(), Instant::now()).err(), Some(Failure::Unreachable));
        queue.open();
        assert!(queue.push(push(1), permit(), Instant::now()).is_ok());
    }

    #[tokio::test]
    async fn a_push_that_waited_too_long_fails_as_not_taken() {
        let queue = queue(1_000, 10);
        let old = Instant::now();
        let late = queue.push(push(1), permit(), old).expect("joining");
        let fresh = old + Duration::from_secs(6);
        queue.push(push(2), permit(), fresh).expect("joining");

        let batch = queue.take_now(fresh);

        assert_eq!(batch.len(), 1);
        assert_eq!(late.await, Ok(Err(Failure::Overloaded)));
    }
}
