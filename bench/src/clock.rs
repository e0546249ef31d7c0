//! Clocks of the harness: one monotonic clock that all processes on the machine share, CPU clocks, absolute sleeps.
//! A file of its own because every figure rests on it. Nothing here is simulated: a bench measures real time.

use std::time::Duration;

use rustix::thread::{ClockId, Timespec, clock_nanosleep_absolute};
use rustix::time::clock_gettime;

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Both parts are non-negative for the clocks used here.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CLOCK_MONOTONIC in ns: comparable between processes, 21 ns to read.
pub fn now_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// CPU time (user + system) of the calling thread, in ns.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

/// CPU time (user + system) of this process, in ns.
pub fn process_cpu_ns() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

/// Sleeps until the monotonic clock shows `at_ns`; returns at once when that is past.
pub fn sleep_until_ns(at_ns: u64) {
    let at = Timespec { tv_sec: (at_ns / 1_000_000_000) as i64, tv_nsec: (at_ns % 1_000_000_000) as i64 };
    while now_ns() < at_ns {
        // EINTR is the only error of an absolute sleep with valid arguments; the loop tries again.
        let _ = clock_nanosleep_absolute(ClockId::Monotonic, &at);
    }
}

/// Sleeps for a while: waiting for other processes is this crate's trade.
pub fn pause(duration: Duration) {
    sleep_until_ns(now_ns() + duration.as_nanos() as u64);
}

/// Looks at `is_so` every 5 ms, for `patience` at most; whether it came about.
pub fn until(patience: Duration, is_so: impl FnMut() -> bool) -> bool {
    let deadline_ns = now_ns() + patience.as_nanos() as u64;
    until_ns(deadline_ns, is_so)
}

/// The same up to a moment, for those who wait for several things in turn.
pub fn until_ns(deadline_ns: u64, mut is_so: impl FnMut() -> bool) -> bool {
    loop {
        if is_so() {
            return true;
        }
        if now_ns() >= deadline_ns {
            return false;
        }
        pause(Duration::from_millis(5));
    }
}

/// `250ms`, `10s`, `2m`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is not a duration; try 250ms, 10s or 2m"))?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("`{unit}` is not a unit of time; use us, ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_without_a_unit_is_seconds() {
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
    }

    #[test]
    fn a_duration_with_an_unknown_unit_is_refused() {
        assert!(parse_duration("3 fortnights").is_err());
        assert!(parse_duration("s").is_err());
    }
}
