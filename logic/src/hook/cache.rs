//! Answers of the hook that still hold, by client. Pure: time is an argument. Invariants: at most `max` answers; `order` names
//! every key of `answers` once, with the number that it has there.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;
use tidegate_protocol::records::Verdict;
use tokio::time::Instant;

/// A client, as the hook's answer depends on it: a hash, so that nothing of a token is kept.
pub type Client = [u8; 32];

/// Remembered answers.
#[derive(Debug)]
pub struct Cache {
    answers: HashMap<Client, (u64, Verdict), ahash::RandomState>,
    order: VecDeque<(Instant, u64, Client)>,
    next: u64,
    holds: Duration,
    max: usize,
}

impl Cache {
    /// An empty memory; with no time to hold it stays empty.
    #[must_use]
    pub fn new(holds: Duration, max: usize) -> Self {
        Self { answers: HashMap::default(), order: VecDeque::new(), next: 0, holds, max }
    }

    /// The answer for a client, if it still holds.
    pub fn find(&mut self, client: &Client, now: Instant) -> Option<Verdict> {
        while self.order.front().is_some_and(|(until, ..)| *until <= now) {
            self.forget_oldest();
        }
        self.answers.get(client).map(|(_, verdict)| verdict.clone())
    }

    /// Remembers an answer from now on.
    pub fn keep(&mut self, client: Client, verdict: Verdict, now: Instant) {
        if self.holds.is_zero() {
            return;
        }
        while self.order.len() >= self.max {
            self.forget_oldest();
        }
        self.next += 1;
        self.answers.insert(client, (self.next, verdict));
        self.order.push_back((now + self.holds, self.next, client));
    }

    /// Answers remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    fn forget_oldest(&mut self) {
        let Some((_, number, client)) = self.order.pop_front() else { return };
        // A client that was asked about again has a later place.
        if self.answers.get(&client).is_some_and(|(n, _)| *n == number) {
            self.answers.remove(&client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(user: &str) -> Verdict {
        Verdict { user: user.into(), ..Verdict::default() }
    }

    fn user(cache: &mut Cache, client: u8, now: Instant) -> Option<String> {
        cache.find(&[client; 32], now).map(|verdict| verdict.user)
    }

    #[test]
    fn an_answer_holds_for_its_time_and_no_longer() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut cache = Cache::new(Duration::from_millis(100), 10);

        cache.keep([1; 32], verdict("a"), at(0));
        cache.keep([1; 32], verdict("b"), at(50));

        assert_eq!(user(&mut cache, 1, at(99)), Some("b".into()));
        assert_eq!(user(&mut cache, 1, at(149)), Some("b".into()), "the later answer has a time of its own");
        assert_eq!(user(&mut cache, 1, at(150)), None);
        assert_eq!(user(&mut cache, 2, at(0)), None);
    }

    #[test]
    fn the_oldest_answer_makes_room() {
        let now = Instant::now();
        let mut cache = Cache::new(Duration::from_secs(1), 2);

        for client in 1..=3 {
            cache.keep([client; 32], verdict("x"), now);
        }

        assert_eq!(cache.len(), 2);
        assert_eq!(user(&mut cache, 1, now), None);
        assert!(user(&mut cache, 2, now).is_some() && user(&mut cache, 3, now).is_some());
    }

    #[test]
    fn without_a_time_nothing_is_kept() {
        let mut cache = Cache::new(Duration::ZERO, 2);

        cache.keep([1; 32], verdict("x"), Instant::now());

        assert_eq!(cache.len(), 0);
    }
}
