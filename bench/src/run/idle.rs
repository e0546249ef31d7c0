//! What connections cost that do nothing: gateway CPU and memory while nothing is pushed.

use std::time::Duration;

use super::Options;
use super::bed::Bed;
use super::session::{Session, connections};
use crate::clock;
use crate::report::{Process, Report};

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let count = connections(options.connections, 9_000)?;
    let mut session = Session::start(Bed::split(options, &[])?, count, &[], report)?;
    super::session::rest(3);
    let hold = options.duration.unwrap_or(Duration::from_secs(30));
    session.crew.reset()?;
    let before = session.bed.gateway()?;
    let bar = crate::report::progress(hold.as_secs(), "idle");
    for _ in 0..hold.as_secs() {
        clock::pause(Duration::from_secs(1));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let usage = session.bed.gateway()?.since(&before);
    let tally = session.settled()?;
    let cpu_us = usage.cpu_s() * 1e6 / hold.as_secs_f64();
    report.figure("connections", count as f64, "");
    report.figure("gateway CPU", cpu_us, "µs/s");
    report.figure("gateway CPU a connection", cpu_us / count as f64, "µs/s");
    report.figure("pings received", tally.pings as f64, "");
    if !tally.closed.is_empty() || !tally.oddities.is_empty() {
        report.fault(format!("idle clients: closed {:?}, odd {:?}", tally.closed, tally.oddities));
    }
    report.processes.push(Process { name: "gateway".to_owned(), usage });
    session.finish(report);
    Ok(())
}
