//! At least 10 million 100-byte messages a second reach 9,000 clients, nothing lost.

use super::Options;
use super::bed::Bed;
use super::session::{Session, connections};
use crate::report::{Bound, Report};

const TARGET: f64 = 10_000_000.0;
/// Above the target, so that the publisher's rate is not what is measured.
const OVERLOAD: f64 = 1.1;

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let count = connections(options.connections, 9_000)?;
    let mut session = Session::start(Bed::serve(options, &[])?, count, &[], report)?;
    let size = options.size.unwrap_or(100);
    session.warm_up("all", size, report)?;
    let rate = options.rate.unwrap_or(TARGET * OVERLOAD / count as f64).ceil();
    let seconds = options.duration.map_or(20.0, |duration| duration.as_secs_f64());
    let (size, messages) = (size.to_string(), (rate * seconds).ceil().to_string());
    let rate = rate.to_string();
    let phase = session.phase(&["--to", "all", "--size", &size, "--rate", &rate, "--count", &messages], 2)?;

    session.judge("merged", &phase, report);
    session.reconcile(report)?;
    let delivered = phase.tally.messages as f64 / phase.seconds;
    report.bounded("messages delivered a second", delivered, "/s", Bound::AtLeast(TARGET));
    report.figure("bytes received a second", phase.tally.bytes as f64 / phase.seconds, "B/s");
    // A queue that grows shows as latency of about the whole run.
    let slowest = phase.tally.latency_us.quantile(0.999) as f64 / 1e6;
    report.bounded("latency p99.9: no queue grows", slowest, "s", Bound::AtMost(2.0));
    session.figures(phase, report);
    session.finish(report);
    Ok(())
}
