//! The common tick: clients in many hot rooms get one write a tick, whatever the rooms hold for them.
//! Every room has a publisher of its own, out of step with the others; every message at every client is checked.

use super::Options;
use super::bed::{Bed, total};
use super::session::{Session, connections};
use crate::netstat::Counters;
use crate::report::{Bound, Report};

const CONNECTIONS: u64 = 2_000;
const ROOMS: u32 = 20;
/// Messages a second in each room: about two in each of the shortest windows.
const RATE: f64 = 100.0;
const SECONDS: f64 = 10.0;
/// The default of gateway.merge.min_ms, which is the tick.
const TICK_S: f64 = 0.020;
/// Writes of a connection a tick; beyond one only what flushed early, and PONGs.
const WRITES_MAX: f64 = 1.02;

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let count = connections(options.connections, CONNECTIONS)?;
    let rooms: Vec<String> = (0..ROOMS).map(|room| format!("hot-{room}")).collect();
    let rooms = rooms.join(",");
    let bed = Bed::split(options, &[])?;
    let mut session = Session::with_publishers(bed, count, ROOMS + 1, &["--rooms", &rooms], report)?;
    let size = options.size.unwrap_or(100);
    session.warm_up("room:hot-0", size, report)?;
    let rate = options.rate.unwrap_or(RATE) * f64::from(ROOMS);
    let messages = (options.duration.map_or(SECONDS, |duration| duration.as_secs_f64()) * rate).ceil();
    let to = format!("room:hot-{{i%{ROOMS}}}");
    let (size, rate, messages) = (size.to_string(), rate.to_string(), messages.to_string());
    let packets = Counters::now()?;
    let phase = session.phase(&["--to", &to, "--size", &size, "--rate", &rate, "--count", &messages], ROOMS)?;
    // Of the whole network namespace: the publishers' requests, the backplane's and their answers are in it.
    let segments = Counters::now()?.grown(&packets, "TCPOrigDataSent")? as f64;

    session.judge("rooms", &phase, report);
    session.reconcile(report)?;
    let of = |name: &str| total(&phase.counters, &format!("tidegate_gateway_{name}_total"));
    let (clients, ticks) = (count as f64, of("ticks"));
    let (writes, reads) = (of("writes") / clients, phase.tally.reads as f64 / clients);
    report.figure("rooms of each connection", f64::from(ROOMS), "");
    report.figure("ticks with something to send", ticks / phase.seconds, "/s");
    report.figure("writes a connection", writes / phase.seconds, "/s");
    report.bounded("writes a connection and tick", writes / ticks, "", Bound::AtMost(WRITES_MAX));
    // The gateway's own count of ticks would hide a flush for each room: the clock's does not.
    let moments = phase.seconds / TICK_S;
    report.bounded("writes a connection, of the clock's ticks", writes / moments, "", Bound::AtMost(WRITES_MAX));
    report.figure("rooms in a write, mean", phase.tally.frames as f64 / clients / writes, "");
    report.figure("reads a client and tick", reads / ticks, "");
    report.figure("TCP segments with data a client and tick", segments / clients / ticks, "");
    // A request and its answer on the API and on the backplane: what would be left over if every write were one segment.
    let others = segments - writes * clients;
    report.figure("of them not writes to clients, for each push", others / phase.published.pushes as f64, "");
    session.figures(phase, report);
    session.finish(report);
    Ok(())
}
