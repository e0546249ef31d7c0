//! What connections cost that do nothing: gateway CPU and memory while nothing is pushed, heartbeats included.
//! Nearly all of it is the kernel's: a `send` and a `recv` for each ping, and a tenth of a wake-up. So the price of a bare `send`
//! is taken in the same run, beside which the figure can be read on a machine whose speed changes.

use std::time::Duration;

use super::Options;
use super::bed::{Bed, growth, total};
use super::delivery::bare_loop;
use super::session::{Session, connections};
use crate::clock;
use crate::distribution::exact_quantile;
use crate::report::{self, Bound, Process, Report};

const CONNECTIONS: u64 = 19_000;
/// Two rounds of pings at the default of gateway.heartbeat.idle_ms; a figure to be quoted takes ten minutes.
const HOLD: Duration = Duration::from_secs(60);
/// How long the gateway is looked at before clients come.
const ALONE_S: u64 = 5;
/// The bare loop beside it: some passes over some sockets, half a second apart as sweeps are.
const BARE_SOCKETS: u64 = 1_000;
const BARE_PASSES: u32 = 10;
const BARE_INTERVAL: Duration = Duration::from_millis(500);
const PING_BYTES: usize = 2;
/// CPU a second and connection. At a ping every 25 s that is 12.5 µs for a ping, its pong and all that ticks meanwhile.
const CPU_US: f64 = 0.5;

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let count = connections(options.connections, CONNECTIONS)?;
    let bed = Bed::split(options, &[])?;
    super::session::rest(2);
    let alone = bed.gateway()?;
    super::session::rest(ALONE_S);
    let alone_us = bed.gateway()?.since(&alone).cpu_s() * 1e6 / ALONE_S as f64;
    let mut session = Session::start(bed, count, &[], report)?;
    super::session::rest(3);
    let hold = options.duration.unwrap_or(HOLD);
    session.crew.reset()?;
    let (before, counters) = (session.bed.gateway()?, session.bed.counters()?);
    report::stage(&format!("holding them for {}, with nothing to say", report::amount(hold.as_secs_f64(), "s")));
    let bar = report::progress(hold.as_secs(), "idle");
    for _ in 0..hold.as_secs() {
        clock::pause(Duration::from_secs(1));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let usage = session.bed.gateway()?.since(&before);
    let counters = growth(&counters, &session.bed.counters()?);
    let tally = session.settled()?;
    let pings = total(&counters, "tidegate_gateway_pings_total");
    let cpu_us = usage.cpu_s() * 1e6;
    let a_second = cpu_us / hold.as_secs_f64();
    report.figure("connections", count as f64, "");
    report.figure("gateway CPU without a client", alone_us, "µs/s");
    report.figure("gateway CPU", a_second, "µs/s");
    report.bounded("gateway CPU a connection", a_second / count as f64, "µs/s", Bound::AtMost(CPU_US));
    report.figure("pings sent", pings, "");
    report.figure("pings a second", pings / hold.as_secs_f64(), "/s");
    let ping_us = cpu_us / pings.max(1.0);
    report.figure("gateway CPU a ping, all else included", ping_us, "µs");
    let bare = bare_loop(BARE_SOCKETS.min(count), PING_BYTES, BARE_PASSES, BARE_INTERVAL, report)?;
    let passes = bare.paced.unwrap_or_default().cpu_us_per_send;
    let send_us = exact_quantile(&passes, 0.5);
    report.figure("bare loop, CPU a send of a ping's size", send_us, "µs");
    report.figure("gateway CPU a ping ÷ bare send", ping_us / send_us.max(f64::MIN_POSITIVE), "×");
    report.figure("pings received", tally.pings as f64, "");
    if !tally.closed.is_empty() || !tally.oddities.is_empty() {
        report.fault(format!("idle clients: closed {:?}, odd {:?}", tally.closed, tally.oddities));
    }
    report.processes.push(Process { name: "gateway".to_owned(), usage });
    report.counters = counters;
    session.finish(report);
    Ok(())
}
