//! How a sink is: what went wrong last, the pause that it has asked for, and what the log has heard of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::unix_ms;

/// Time without success after which the log hears of it.
const TELL_AFTER_MS: u64 = 3_000;
/// Least time between two lines of the log about dead letters.
const MOURN_EVERY_MS: u64 = 60_000;

/// The health of one sink.
#[derive(Debug)]
pub struct Health {
    /// What the log calls the sink.
    name: String,
    born: Instant,
    /// Milliseconds after `born` before which nothing is sent, by the sink's own wish.
    held_until: AtomicU64,
    /// None since the last success.
    trouble: Mutex<Option<Trouble>>,
    /// When the log last heard of dead letters, in milliseconds after `born`.
    mourned: AtomicU64,
    /// When it last heard of such that were dropped.
    evicting: AtomicU64,
}

/// What is wrong with a sink.
#[derive(Debug)]
struct Trouble {
    since_ms: u64,
    /// The latest.
    words: String,
    /// Whether the log knows.
    is_told: bool,
}

impl Health {
    /// Nothing is wrong yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            born: Instant::now(),
            held_until: AtomicU64::new(0),
            trouble: Mutex::new(None),
            mourned: AtomicU64::new(0),
            evicting: AtomicU64::new(0),
        }
    }

    /// The sink has asked for a pause.
    pub fn hold(&self, pause: Duration) {
        let until = self.age_ms().saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        self.held_until.fetch_max(until, Ordering::Relaxed);
    }

    /// What is left of the pause.
    pub fn held(&self) -> Duration {
        Duration::from_millis(self.held_until.load(Ordering::Relaxed).saturating_sub(self.age_ms()))
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Remembers what went wrong, or that nothing does. The log hears of it when the sink takes nothing for a while: single
    /// failures are what retries are for.
    pub fn note(&self, words: Option<String>) {
        let (mut trouble, now_ms) = (self.trouble.lock(), unix_ms());
        match (&mut *trouble, words) {
            (None, Some(words)) => *trouble = Some(Trouble { since_ms: now_ms, words, is_told: false }),
            (Some(trouble), Some(words)) => {
                trouble.words = words;
                if !trouble.is_told && now_ms.saturating_sub(trouble.since_ms) > TELL_AFTER_MS {
                    trouble.is_told = true;
                    tracing::warn!(sink = %self.name, "the sink takes nothing: {}", trouble.words);
                }
            }
            (Some(Trouble { is_told: true, .. }), None) => {
                tracing::info!(sink = %self.name, "the sink takes messages again");
                *trouble = None;
            }
            (_, None) => *trouble = None,
        }
    }

    /// Since when (Unix milliseconds) the sink takes nothing, and what went wrong last; none since the last success.
    pub fn trouble(&self) -> Option<(u64, String)> {
        self.trouble.lock().as_ref().map(|trouble| (trouble.since_ms, trouble.words.clone()))
    }

    /// There is a dead letter; the log hears of them at most once a minute.
    pub fn mourn(&self, reason: &'static str) {
        if self.is_time(&self.mourned) {
            tracing::warn!(sink = %self.name, reason, "messages become dead letters (GET /v1/upstream/dead)");
        }
    }

    /// Dead letters are gone for good; the log hears of them at most once a minute.
    pub fn evicted(&self, reason: &'static str) {
        if self.is_time(&self.evicting) {
            tracing::warn!(
                sink = %self.name, reason,
                "dead letters are dropped for lack of room (dead_bytes, dead_user_bytes, dead_full)"
            );
        }
    }

    /// Whether the log has not heard of something for a while; then it does now.
    fn is_time(&self, last: &AtomicU64) -> bool {
        let (now_ms, then) = (self.age_ms().max(1), last.load(Ordering::Relaxed));
        let is_time = then == 0 || now_ms.saturating_sub(then) > MOURN_EVERY_MS;
        if is_time {
            last.store(now_ms, Ordering::Relaxed);
        }
        is_time
    }
}
