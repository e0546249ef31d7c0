//! Issue point 10: one client in 50 stops reading. The others notice nothing, memory is bounded, the slow ones are told.

use super::Options;
use super::bed::{Bed, total};
use super::session::{Phase, Session, connections, rest};
use crate::report::{Bound, Report};

const EVERY: u64 = 50;
/// Small enough that a stalled client reaches it within the run, behind what the kernel's buffers take.
const PENDING_BYTES: u64 = 128 * 1024;
/// Longer than the run: the slow ones stay, lose messages, and are told so when they read again.
const AGE_MS: u64 = 60_000;
/// Of every client: a small receive buffer makes a stalled one felt soon.
const RECEIVE_BYTES: &str = "16384";
const RATE: f64 = 40.0;
const SECONDS: f64 = 20.0;
/// Heap around the pending bytes: the queue's own entries and the frames that hold them alive.
const OVERHEAD: f64 = 2.0;

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let count = connections(options.connections, 9_000)?;
    let environment = [
        ("TIDEGATE_GATEWAY__PENDING__BYTES", PENDING_BYTES.to_string()),
        ("TIDEGATE_GATEWAY__PENDING__AGE_MS", AGE_MS.to_string()),
    ];
    let clients = ["--receive-bytes", RECEIVE_BYTES, "--rooms", "tide"];
    let mut session = Session::start(Bed::split(options, &environment)?, count, &clients, report)?;
    let size = options.size.unwrap_or(1_024);
    session.warm_up("room:tide", size, report)?;
    let rate = options.rate.unwrap_or(RATE);
    let seconds = options.duration.map_or(SECONDS, |duration| duration.as_secs_f64());
    let (size, messages, rate) = (size.to_string(), (rate * seconds).ceil().to_string(), rate.to_string());
    let publish = ["--to", "room:tide", "--size", &size, "--rate", &rate, "--count", &messages];

    let without = session.phase(&publish, 1)?;
    session.judge("without stalled clients", &without, report);
    let before = session.bed.gateway()?;
    session.crew.stall(EVERY)?;
    let with = session.phase(&publish, 1)?;
    session.judge("with stalled clients", &with, report);
    rest(1);
    session.reconcile(report)?;
    let during = session.bed.gateway()?;
    let pending_bytes = total(&session.bed.counters()?, "tidegate_gateway_pending_bytes");

    let stalled = count / EVERY;
    compare(&without, &with, report);
    let bound = (stalled * PENDING_BYTES) as f64;
    report.bounded("pending bytes", pending_bytes, "B", Bound::AtMost(bound));
    let grown = during.rss_bytes as f64 - before.rss_bytes as f64;
    report.bounded("gateway memory grown by", grown, "B", Bound::AtMost(bound * OVERHEAD));
    told(&mut session, stalled, report)?;
    session.reconcile(report)?;
    report.latency("others, none stalled", &without.tally.latency_us);
    session.figures(with, report);
    session.finish(report);
    Ok(())
}

/// The others' p99 with and without.
fn compare(without: &Phase, with: &Phase, report: &mut Report) {
    let p99 = |phase: &Phase| phase.tally.latency_us.quantile(0.99) as f64;
    report.figure("others' p99, none stalled", p99(without), "µs");
    report.figure("others' p99, 1 in 50 stalled", p99(with), "µs");
    let moved = (p99(with) - p99(without)) / p99(without).max(1.0) * 100.0;
    report.bounded("others' p99 moved by", moved, "%", Bound::AtMost(10.0));
    let dropped = total(&with.counters, "tidegate_gateway_messages_dropped_total");
    report.bounded("messages dropped by the gateway", dropped, "", Bound::AtLeast(1.0));
}

/// The stalled ones read again: each must learn what it missed, and nothing may be missing untold.
fn told(session: &mut Session, stalled: u64, report: &mut Report) -> anyhow::Result<()> {
    session.crew.resume()?;
    let tally = session.settled()?;
    report.bounded("slow clients told by GAP or close", tally.stalled_told as f64, "", Bound::Exactly(stalled as f64));
    report.figure("slow clients closed", tally.closed_stalled.values().sum::<u64>() as f64, "");
    report.figure("messages named in GAPs", tally.stalled.excused as f64, "");
    let silent = tally.closed_stalled.iter().filter(|(how, _)| how.parse::<u16>().is_err());
    let silent: u64 = silent.map(|(_, count)| count).sum();
    report.bounded("slow clients cut off without a close frame", silent as f64, "", Bound::Exactly(0.0));
    let is_closed = !tally.closed_stalled.is_empty();
    // A closed client was told by its close code; one that stays must have everything, or a GAP for it.
    if tally.stalled.faults() > 0 && !is_closed {
        report.fault(format!("slow clients: {}", crate::report::loss_line(&tally.stalled)));
    }
    let wrong = tally.stalled.duplicated + tally.stalled.disordered + tally.stalled.overclaimed;
    if wrong > 0 && is_closed {
        report.fault(format!("slow clients: {}", crate::report::loss_line(&tally.stalled)));
    }
    Ok(())
}
