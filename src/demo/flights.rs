//! The embedded flights, parsed once into a small typed form.
//! A file of its own because only here is the shape of the data file known. Knows neither timetable nor pushes.
//! Invariants: sorted by departure; every code is three capital letters; every time is a real minute of the calendar.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error};

/// 0.9 MB in the binary, so that the demo needs no file beside it. Source note: `README.md` beside it.
const FLIGHTS_JSON: &[u8] = include_bytes!("flights-2001.json");

/// One departure. 16 bytes, so the whole quarter is 160 KB.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
pub struct Flight {
    #[serde(rename = "date")]
    pub departs: Minute,
    /// Minutes late; negative is early.
    pub delay: i16,
    /// Miles.
    pub distance: u16,
    pub origin: Airport,
    pub destination: Airport,
}

/// All flights, in order of departure.
pub fn load() -> Vec<Flight> {
    // simd-json unescapes in place, so it needs bytes of its own; they are gone after the parse.
    let mut json = FLIGHTS_JSON.to_vec();
    let mut flights: Vec<Flight> =
        simd_json::serde::from_slice(&mut json).expect("the embedded file is valid; a test parses it");
    flights.sort_by_key(|flight| flight.departs);
    flights
}

/// IATA code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Airport([u8; 3]);

impl Airport {
    pub fn parse(code: &str) -> Option<Self> {
        let code: [u8; 3] = code.as_bytes().try_into().ok()?;
        code.iter().all(u8::is_ascii_uppercase).then_some(Self(code))
    }
}

impl fmt::Display for Airport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&letter| fmt::Write::write_char(f, char::from(letter)))
    }
}

impl<'de> Deserialize<'de> for Airport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = <&str>::deserialize(deserializer)?;
        Self::parse(code).ok_or_else(|| D::Error::custom(format_args!("{code:?} is no IATA code")))
    }
}

/// Minutes since 1 January 1970, local to the origin: the replay treats all airports as if they shared one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minute(pub u32);

impl Minute {
    /// Reads `2001/01/31 23:59`.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.split_once(' ')?;
        let (year, rest) = date.split_once('/')?;
        let (month, day) = rest.split_once('/')?;
        let (hour, minute) = time.split_once(':')?;
        let [year, month, day, hour, minute]: [u32; 5] =
            [year.parse().ok()?, month.parse().ok()?, day.parse().ok()?, hour.parse().ok()?, minute.parse().ok()?];
        if !(1970..=2100).contains(&year) || hour > 23 || minute > 59 {
            return None;
        }
        let this = Self((days_from_civil(year, month, day) * 24 + hour) * 60 + minute);
        // A date that does not come back (31 February, month 13) is none.
        (this.civil() == (year, month, day)).then_some(this)
    }

    /// Year, month, day.
    fn civil(self) -> (u32, u32, u32) {
        civil_from_days(self.0 / (24 * 60))
    }
}

/// ISO 8601 without seconds or zone: `2001-01-31T23:59`.
impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}", self.0 / 60 % 24, self.0 % 60)
    }
}

impl<'de> Deserialize<'de> for Minute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        Self::parse(text).ok_or_else(|| D::Error::custom(format_args!("{text:?} is no YYYY/MM/DD hh:mm")))
    }
}

// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": the year begins in March, so that the leap day is its last.
// 719,468 days lie between 1 March of year 0 and 1 January 1970; 146,097 are in 400 years.

fn days_from_civil(year: u32, month: u32, day: u32) -> u32 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.saturating_sub(1);
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: u32) -> (u32, u32, u32) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u32::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_file_holds_ten_thousand_flights_from_201_airports() {
        let flights = load();

        let origins: std::collections::HashSet<_> = flights.iter().map(|flight| flight.origin).collect();
        assert_eq!((flights.len(), origins.len()), (10_000, 201));
    }

    #[test]
    fn flights_come_in_order_of_departure() {
        let flights = load();

        assert!(flights.is_sorted_by_key(|flight| flight.departs));
        assert_eq!(flights[0].departs.to_string(), "2001-01-01T00:47");
        assert_eq!(flights[9_999].departs.to_string(), "2001-03-31T22:27");
    }

    #[test]
    fn a_minute_that_is_not_in_the_calendar_is_refused() {
        let texts = ["2001/02/29 10:00", "2001/13/01 10:00", "2001/01/00 10:00", "2001/01/01 24:00", "2001/01/01", ""];

        assert!(texts.iter().all(|text| Minute::parse(text).is_none()));
    }

    #[test]
    fn every_day_of_a_leap_cycle_comes_back_from_its_number() {
        let first = days_from_civil(2000, 1, 1);

        for days in first..first + 1_461 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn an_airport_is_three_capital_letters() {
        assert_eq!(Airport::parse("ORD").map(|airport| airport.to_string()).as_deref(), Some("ORD"));
        assert!(["ord", "OR", "ORDX", "O\"D", ""].iter().all(|code| Airport::parse(code).is_none()));
    }
}
