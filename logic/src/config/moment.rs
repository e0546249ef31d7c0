//! A point in time as the configuration writes it: when a key begins and ends. RFC 3339 in UTC, to the second; a date alone
//! is its first second. Reads strings and TOML's own dates alike, so that quotes do not matter.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

/// Why a text is no [`Moment`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time: write 2027-01-31 or 2027-01-31T12:00:00Z (UTC)")]
pub struct NotAMoment(String);

impl Moment {
    /// By the wall clock.
    #[must_use]
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

impl FromStr for Moment {
    type Err = NotAMoment;

    fn from_str(text: &str) -> Result<Self, NotAMoment> {
        let wrong = || NotAMoment(text.chars().take(40).collect());
        let whole = if text.len() == "2027-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
        let time = humantime::parse_rfc3339_weak(&whole).map_err(|_| wrong())?;
        time.duration_since(UNIX_EPOCH).map(|since| Self(since.as_secs())).map_err(|_| wrong())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNIX_EPOCH.checked_add(Duration::from_secs(self.0)) {
            // Years beyond 9999 have no notation.
            Some(time) if self.0 <= 253_402_300_799 => write!(f, "{}", humantime::format_rfc3339_seconds(time)),
            _ => write!(f, "the end of time"),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Read)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Moment;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time such as 2027-01-31T12:00:00Z")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Moment, E> {
        text.parse().map_err(E::custom)
    }

    /// TOML's own dates come as a map of one private name and the text.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Moment, A::Error> {
        let entry = map.next_entry::<String, String>()?;
        let (_, text) = entry.ok_or_else(|| de::Error::custom("an empty table is no time"))?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_read_and_written_alike() {
        let parse = |text: &str| text.parse::<Moment>();

        assert_eq!(parse("2027-01-31"), Ok(Moment(1_801_353_600)));
        assert_eq!(parse("2027-01-31T00:00:01Z"), Ok(Moment(1_801_353_601)));
        assert_eq!(parse("2027-01-31 00:00:01"), Ok(Moment(1_801_353_601)));
        assert_eq!(Moment(1_801_353_601).to_string(), "2027-01-31T00:00:01Z");
    }

    #[test]
    fn what_is_no_time_is_said_with_the_notation() {
        for text in ["", "tomorrow", "31.01.2027", "2027-13-01", "1969-12-31", "2027-01-31T12:00:00+02:00"] {
            let error = text.parse::<Moment>().expect_err("not a time");

            assert!(error.to_string().contains("2027-01-31T12:00:00Z"), "{text}: {error}");
        }
    }
}
