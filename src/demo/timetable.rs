//! When each flight is due: simulated minutes laid onto real time.
//! Pure arithmetic: takes `now`, reads no clock and sleeps nowhere; `demo` does.
//! Invariants: `offsets` never falls; no two neighbours lie further apart than `QUIET_MAX`.

use std::time::Duration;

use tokio::time::Instant;

use super::Speed;
use super::flights::{Flight, Minute};

/// Longest quiet stretch, in simulated minutes. Between the last flight of a night and the first of the morning lie up to 471
/// minutes in which nothing would happen on the page; the clock jumps over what exceeds an hour.
const QUIET_MAX: u32 = 60;

/// The timetable of one lap.
pub struct Timetable {
    /// When the lap began; `postpone` moves it.
    start: Instant,
    speed: Speed,
    /// Simulated minutes from the start of the lap to each departure, nights cut.
    offsets: Vec<u32>,
    /// What the simulated clock shows at each departure.
    departs: Vec<Minute>,
}

impl Timetable {
    /// `flights` in order of departure; the first is due at `start`.
    pub fn new(flights: &[Flight], speed: Speed, start: Instant) -> Self {
        let departs: Vec<Minute> = flights.iter().map(|flight| flight.departs).collect();
        debug_assert!(departs.is_sorted());
        let mut at = 0;
        let mut previous = departs.first().copied();
        let offsets = departs.iter().map(|&departs| {
            at += previous.map_or(0, |previous| departs.0 - previous.0).min(QUIET_MAX);
            previous = Some(departs);
            at
        });
        Self { start, speed, offsets: offsets.collect(), departs }
    }

    /// Real time of a departure.
    pub fn departure(&self, index: usize) -> Instant {
        self.start + Duration::from_secs_f64(f64::from(self.offsets[index]) / self.speed.minutes_per_second())
    }

    /// How many flights have left by `now`.
    pub fn due(&self, now: Instant) -> usize {
        let elapsed = self.elapsed(now);
        self.offsets.partition_point(|&offset| f64::from(offset) <= elapsed)
    }

    /// What the simulated clock shows at `now`, when `departed` flights have been sent: never past a flight that waits.
    pub fn clock(&self, departed: usize, now: Instant) -> Minute {
        let Some(last) = departed.checked_sub(1) else { return self.departs[0] };
        let since = (self.elapsed(now) - f64::from(self.offsets[last])).max(0.0) as u32;
        let free = Minute(self.departs[last].0.saturating_add(since));
        self.departs.get(departed).map_or(free, |&next| free.min(next))
    }

    /// The replay was held up for `held`: all that is not due yet comes that much later.
    pub fn postpone(&mut self, held: Duration) {
        self.start += held;
    }

    /// Simulated minutes since the start of the lap. The nanosecond makes `due(departure(i))` include flight `i`,
    /// whichever way the division above was rounded.
    fn elapsed(&self, now: Instant) -> f64 {
        let real = now.saturating_duration_since(self.start) + Duration::from_nanos(1);
        real.as_secs_f64() * self.speed.minutes_per_second()
    }
}

#[cfg(test)]
mod tests {
    use super::super::flights::load;
    use super::*;

    fn flight(departs: u32) -> Flight {
        Flight { departs: Minute(departs), ..load()[0] }
    }

    fn timetable(departs: &[u32], speed: f64) -> (Timetable, Instant) {
        let flights: Vec<Flight> = departs.iter().map(|&departs| flight(departs)).collect();
        let start = Instant::now();
        (Timetable::new(&flights, Speed::try_from(speed).expect("a speed in range"), start), start)
    }

    #[test]
    fn a_flight_is_due_after_its_simulated_minutes_divided_by_the_speed() {
        let (timetable, start) = timetable(&[1_000, 1_010, 1_030], 10.0);

        assert_eq!(timetable.departure(2), start + Duration::from_secs(3));
        assert_eq!(timetable.due(start), 1);
        assert_eq!(timetable.due(start + Duration::from_millis(999)), 1);
        assert_eq!(timetable.due(start + Duration::from_secs(1)), 2);
        assert_eq!(timetable.due(start + Duration::from_secs(60)), 3);
    }

    #[test]
    fn every_flight_is_due_at_its_own_departure_at_any_speed() {
        let flights = load();

        for speed in [1.0, 3.0, 7.0, 200.0, 333.3, 100_000.0] {
            let timetable = Timetable::new(&flights, Speed::try_from(speed).expect("a speed in range"), Instant::now());
            assert!((0..flights.len()).all(|index| timetable.due(timetable.departure(index)) > index), "at {speed}");
        }
    }

    #[test]
    fn a_night_takes_no_longer_than_an_hour() {
        let (timetable, start) = timetable(&[1_000, 1_471], 60.0);

        assert_eq!(timetable.departure(1), start + Duration::from_secs(1));
        assert_eq!(timetable.clock(1, start + Duration::from_millis(500)), Minute(1_030));
        assert_eq!(timetable.clock(2, start + Duration::from_secs(1)), Minute(1_471));
    }

    #[test]
    fn the_clock_does_not_pass_a_flight_that_still_waits() {
        let (timetable, start) = timetable(&[1_000, 1_010], 10.0);

        assert_eq!(timetable.clock(1, start + Duration::from_secs(30)), Minute(1_010));
        assert_eq!(timetable.clock(0, start + Duration::from_secs(30)), Minute(1_000));
    }

    #[test]
    fn a_refusal_postpones_the_flights_and_loses_none() {
        let (mut timetable, start) = timetable(&[1_000, 1_010], 10.0);

        timetable.postpone(Duration::from_secs(5));

        assert_eq!(timetable.due(start + Duration::from_millis(5_999)), 1);
        assert_eq!(timetable.due(start + Duration::from_secs(6)), 2);
    }

    #[test]
    fn the_default_speed_yields_about_twenty_departures_in_every_second() {
        let flights = load();
        let timetable = Timetable::new(&flights, Speed::default(), Instant::now());

        let lap = timetable.departure(flights.len() - 1) - timetable.departure(0);
        let longest = (1..flights.len()).map(|index| timetable.departure(index) - timetable.departure(index - 1)).max();

        assert!((19.0..21.0).contains(&(flights.len() as f64 / lap.as_secs_f64())), "{lap:?}");
        assert!(longest < Some(Duration::from_secs(1)), "{longest:?}");
    }
}
