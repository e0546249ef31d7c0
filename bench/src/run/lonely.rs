//! Issue point 5: a lonely message to an idle room: the last client has it within 2 × the bare loop's pass + 20 ms.

use std::time::Duration;

use super::Options;
use super::bed::Bed;
use super::delivery::bare_loop;
use super::session::{Session, connections};
use crate::distribution::exact_quantile;
use crate::report::{Bound, Report};

/// Longer than the longest merge window: each message finds the room idle.
const INTERVAL: Duration = Duration::from_secs(2);
const MESSAGES: u32 = 15;

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let count = connections(options.connections, 9_000)?;
    let size = options.size.unwrap_or(1_024);
    let interval = options.rate.map_or(INTERVAL, |rate| Duration::from_secs_f64(1.0 / rate));
    let messages = options.duration.map_or(MESSAGES, |d| (d.as_secs_f64() / interval.as_secs_f64()).ceil() as u32);
    let mut session = Session::start(Bed::serve(options, &[])?, count, &["--rooms", "lonely"], report)?;
    session.warm_up("room:lonely", size, report)?;
    let bare = bare_loop(count, size, messages, interval, report)?;
    super::session::rest(2);
    let (rate, size, messages) = ((1.0 / interval.as_secs_f64()).to_string(), size.to_string(), messages.to_string());
    let phase = session.phase(&["--to", "room:lonely", "--size", &size, "--rate", &rate, "--count", &messages], 1)?;

    session.judge("lonely", &phase, report);
    let last_ms = |ns: u64, intended_ns: u64| ns.saturating_sub(intended_ns) as f64 / 1e6;
    let arrivals = &phase.tally.arrivals;
    let last: Vec<_> = arrivals.iter().map(|arrival| last_ms(arrival.last_ns, arrival.intended_ns)).collect();
    let first: Vec<_> = arrivals.iter().map(|arrival| last_ms(arrival.first_ns, arrival.intended_ns)).collect();
    let passes = bare.paced.unwrap_or_default();
    let pass_ms = exact_quantile(&passes.sent_ms, 0.5);
    report.figure("bare loop, first to last send, median", pass_ms, "ms");
    report.figure("bare loop, last client has it, median", exact_quantile(&passes.received_ms, 0.5), "ms");
    report.figure("first client has it, median", exact_quantile(&first, 0.5), "ms");
    let bound = Bound::AtMost(2.0 * pass_ms + 20.0);
    report.bounded("last client has it, median", exact_quantile(&last, 0.5), "ms", bound);
    report.figure("last client has it, worst", exact_quantile(&last, 1.0), "ms");
    session.figures(phase, report);
    session.finish(report);
    Ok(())
}
