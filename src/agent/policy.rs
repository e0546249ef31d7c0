//! Whether and when to come back after a connection has ended (docs/protocol.md, "Reconnecting"). Pure: chance is an argument.

use std::time::Duration;

/// How a connection, or an attempt at one, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The server closed it with this code and, in its reason, a time before which not to come back.
    Closed { code: u16, retry_after: Option<Duration> },
    /// The handshake was refused with this HTTP status.
    Refused { status: u16, retry_after: Option<Duration> },
    /// The server announced that it leaves, and the agent left at a moment of its choice.
    GoingAway,
    /// It broke, or nobody answered.
    Lost,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Come back after this.
    After(Duration),
    /// Do not: something has to change first.
    Stop,
}

/// The longest that a server may put an agent off. One that says more is mistaken, and the agent would never be back.
const PUT_OFF_MAX: Duration = Duration::from_secs(3_600);

/// A wait that the server asks for, as far as it is granted.
pub fn put_off(wish: Duration) -> Duration {
    wish.min(PUT_OFF_MAX)
}

/// [`put_off`] in milliseconds.
pub fn put_off_ms(wish: u64) -> Duration {
    put_off(Duration::from_millis(wish))
}

/// How attempts are spaced; HELLO may say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Spacing {
    /// First delay.
    pub base: Duration,
    /// Longest delay.
    pub max: Duration,
}

impl Default for Spacing {
    fn default() -> Self {
        Self { base: Duration::from_millis(500), max: Duration::from_secs(20) }
    }
}

/// Full jitter: a random moment between nothing and a ceiling that doubles with each failure in a row. `chance` is in 0..1.
/// A server's `retry_after` comes first, the jitter on top of it. `may_mend`: a refusal of who we are may be over once the
/// token file has changed.
pub fn next(ending: &Ending, failures: u32, spacing: Spacing, may_mend: bool, chance: f64) -> Next {
    let jitter = spacing.base.saturating_mul(1 << failures.min(10)).min(spacing.max).mul_f64(chance);
    match ending {
        Ending::Closed { code: 3500, .. } | Ending::Refused { status: 401, .. } if may_mend => {
            Next::After(spacing.max.mul_f64(0.5 + chance / 2.0))
        }
        Ending::Closed { code: 3500..=3999, .. } => Next::Stop,
        Ending::Closed { code: 4000..=4499, .. } => Next::After(spacing.base.mul_f64(chance)),
        Ending::Refused { status: 400..=428 | 431, .. } => Next::Stop,
        Ending::Closed { retry_after, .. } | Ending::Refused { retry_after, .. } => {
            Next::After(put_off(retry_after.unwrap_or_default()) + jitter)
        }
        Ending::GoingAway => Next::After(Duration::ZERO),
        Ending::Lost => Next::After(jitter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn after(ending: Ending, failures: u32, chance: f64) -> Next {
        next(&ending, failures, Spacing::default(), false, chance)
    }

    /// Rule E-3.
    #[test]
    fn the_range_of_a_close_code_says_whether_to_come_back() {
        let closed = |code| Ending::Closed { code, retry_after: None };

        assert_eq!(after(closed(3000), 0, 0.5), Next::After(MS(250)));
        assert_eq!(after(closed(1006), 1, 0.5), Next::After(MS(500)));
        assert_eq!(after(closed(3502), 0, 0.5), Next::Stop);
        assert_eq!(after(closed(4001), 9, 0.5), Next::After(MS(250)));
        assert_eq!(next(&closed(3500), 0, Spacing::default(), true, 0.0), Next::After(MS(10_000)));
        assert_eq!(next(&closed(3502), 0, Spacing::default(), true, 0.0), Next::Stop);
    }

    #[test]
    fn a_time_that_the_server_names_is_waited_out_and_jitter_comes_on_top() {
        let retry_after = Some(MS(700));

        assert_eq!(after(Ending::Closed { code: 3000, retry_after }, 0, 0.0), Next::After(MS(700)));
        assert_eq!(after(Ending::Refused { status: 503, retry_after }, 0, 1.0), Next::After(MS(1_200)));
        assert_eq!(after(Ending::Refused { status: 403, retry_after }, 0, 1.0), Next::Stop);
        assert_eq!(after(Ending::Refused { status: 429, retry_after: None }, 0, 1.0), Next::After(MS(500)));
    }

    #[test]
    fn no_server_puts_an_agent_off_for_more_than_an_hour() {
        let (most, hour) = (Some(Duration::from_secs(u64::MAX)), Duration::from_secs(3_600));

        let refused = Ending::Refused { status: 503, retry_after: most };
        assert_eq!(after(refused, 0, 1.0), Next::After(hour + MS(500)));
        assert_eq!(after(Ending::Closed { code: 3000, retry_after: most }, 0, 0.0), Next::After(hour));
        assert_eq!((put_off_ms(u64::MAX), put_off_ms(700)), (hour, MS(700)));
    }

    #[test]
    fn delays_double_up_to_the_longest_and_are_all_jitter() {
        let ceilings: Vec<Next> = (0..8).map(|failures| after(Ending::Lost, failures, 1.0)).collect();

        assert_eq!(ceilings, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000].map(|ms| Next::After(MS(ms))));
        assert_eq!(after(Ending::Lost, 99, 0.0), Next::After(Duration::ZERO));
    }
}
