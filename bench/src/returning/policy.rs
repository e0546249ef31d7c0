//! When a client comes back: the server's advice, as docs/protocol.md asks of every client. No clock, no chance of its own.
//! A delay that a close, a GOAWAY or a 503 names counts for the first attempt; after it the back-off of HELLO goes on.

use crate::dialect::content::Advice;

/// One client's way back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Policy {
    advice: Advice,
    /// Attempts in a row that came to nothing.
    failures: i32,
    /// What the server named for the next attempt.
    named_ms: Option<f64>,
}

impl Policy {
    /// HELLO: the connection stands.
    pub(super) fn greeted(&mut self, advice: Advice) {
        *self = Self { advice, failures: 0, named_ms: None };
    }

    /// The server named a delay.
    pub(super) fn told(&mut self, delay_ms: f64) {
        self.named_ms = Some(delay_ms);
    }

    /// The delay before the next attempt; `chance` is between 0 and 1.
    pub(super) fn delay_ms(&mut self, chance: f64) -> f64 {
        let Advice { base_ms, max_ms, jitter } = self.advice;
        let whole = (base_ms * f64::from(2_i32.pow(self.failures.min(16) as u32))).min(max_ms);
        self.failures += 1;
        self.named_ms.take().unwrap_or(whole * (1.0 - jitter * chance))
    }
}

/// `Retry-After` of a response head, in milliseconds.
pub(super) fn retry_after_ms(head: &str) -> Option<f64> {
    let line = head.lines().find_map(|line| line.strip_prefix("Retry-After: "))?;
    Some(line.trim().parse::<f64>().ok()? * 1_000.0)
}

/// `retry_after_ms` of a close's reason.
pub(super) fn close_after_ms(reason: &str) -> Option<f64> {
    #[derive(serde::Deserialize)]
    struct Reason {
        retry_after_ms: Option<f64>,
    }
    serde_json::from_str::<Reason>(reason).ok()?.retry_after_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_longest_and_chance_only_shortens_them() {
        let mut policy = Policy::default();
        policy.greeted(Advice { base_ms: 100.0, max_ms: 300.0, jitter: 0.5 });

        let delays: Vec<f64> = [0.0, 1.0, 0.0, 0.0].into_iter().map(|chance| policy.delay_ms(chance)).collect();

        assert_eq!(delays, [100.0, 100.0, 300.0, 300.0]);
    }

    #[test]
    fn a_named_delay_counts_once() {
        let mut policy = Policy::default();
        policy.told(7.0);

        assert_eq!((policy.delay_ms(0.0), policy.delay_ms(0.0)), (7.0, 1_000.0));
    }

    #[test]
    fn the_server_names_delays_in_two_ways() {
        assert_eq!(retry_after_ms("HTTP/1.1 503 X\r\nRetry-After: 3\r\nY: z"), Some(3_000.0));
        assert_eq!(close_after_ms(r#"{"reason":"draining","retry_after_ms":614}"#), Some(614.0));
        assert_eq!(close_after_ms("going"), None);
    }
}
