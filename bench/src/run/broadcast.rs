//! Issue point 1: every client has every message exactly once and in order; encodings count ticks, not connections.

use super::Options;
use super::bed::{Bed, total};
use super::session::{Session, connections};
use crate::report::{Bound, Report};

/// 2,000 messages in bursts of 50, four bursts a second.
const MESSAGES: f64 = 2_000.0;
const BURST: &str = "50";
const RATE: f64 = 200.0;

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let count = connections(options.connections, 9_000)?;
    let mut session = Session::start(Bed::serve(options, &[])?, count, &[], report)?;
    let size = options.size.unwrap_or(100);
    session.warm_up("all", size, report)?;
    let rate = options.rate.unwrap_or(RATE);
    let messages = options.duration.map_or(MESSAGES, |duration| (duration.as_secs_f64() * rate).ceil());
    let (size, rate, messages) = (size.to_string(), rate.to_string(), messages.to_string());
    let publish = ["--to", "all", "--size", &size, "--rate", &rate, "--burst", BURST, "--count", &messages];
    let phase = session.phase(&publish, 1)?;

    session.judge("broadcast", &phase, report);
    session.reconcile(report)?;
    let encoded = total(&phase.counters, "tidegate_gateway_frames_encoded_total");
    let written = total(&phase.counters, "tidegate_gateway_frames_written_total");
    let seen = phase.tally.frames as f64 / count as f64;
    let due = phase.published.messages as f64 * count as f64;
    report.bounded("deliveries, of those due", phase.tally.messages as f64 / due, "", Bound::Exactly(1.0));
    report.figure("deliveries a second", phase.tally.messages as f64 / phase.seconds, "/s");
    report.bounded("frames encoded", encoded, "", Bound::Exactly(seen));
    report.bounded("frames written", written, "", Bound::Exactly(phase.tally.frames as f64));
    report.figure("ticks", total(&phase.counters, "tidegate_gateway_ticks_total"), "");
    session.figures(phase, report);
    session.finish(report);
    Ok(())
}
