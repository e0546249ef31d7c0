//! When something begins or ends, as a flag says it: a date, or a span from now on.

use std::str::FromStr;
use std::time::Duration;

use tidegate_logic::Moment;

/// A date, or a span from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    At(Moment),
    In(Duration),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = humantime::parse_duration(text) {
            return Ok(Self::In(span));
        }
        text.parse().map(Self::At).map_err(|_| "write 90d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z".to_owned())
    }
}

impl When {
    pub const fn from(self, now: Moment) -> Moment {
        match self {
            Self::At(moment) => moment,
            Self::In(span) => Moment(now.0.saturating_add(span.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_000_000);

    #[test]
    fn an_end_is_a_date_or_a_span() {
        assert_eq!("90d".parse::<When>().map(|when| when.from(NOW)), Ok(Moment(NOW.0 + 90 * 86_400)));
        assert_eq!("1970-01-02".parse::<When>().map(|when| when.from(NOW)), Ok(Moment(86_400)));
        assert!("soon".parse::<When>().expect_err("no time").contains("90d"));
    }
}
