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
/// Well below what two cores can deliver, so that the others' latency is not that of a saturated machine.
const RATE: f64 = 10.0;
/// Enough in all to fill a stalled client's share of the kernel and of the gateway.
const SIZE: usize = 4_096;
const SECONDS: f64 = 15.0;
/// Phases with stalled clients, each between two without. The p99 of phases alike differs by a fifth on a small machine, so
/// that two of them tell nothing of a tenth.
const TURNS: u32 = 6;
/// Heap around the pending bytes: the queue's own entries and the frames that hold them alive.
const OVERHEAD: f64 = 2.0;

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let count = connections(options.connections, 2_000)?;
    let environment = [
        ("TIDEGATE_GATEWAY__PENDING__BYTES", PENDING_BYTES.to_string()),
        ("TIDEGATE_GATEWAY__PENDING__AGE_MS", AGE_MS.to_string()),
    ];
    let clients = ["--receive-bytes", RECEIVE_BYTES, "--rooms", "tide"];
    // One for the warm-up, one to settle in, one a phase.
    let publishers = 2 + 2 * TURNS + 1;
    let bed = Bed::split(options, &environment)?;
    let mut session = Session::with_publishers(bed, count, publishers, &clients, report)?;
    let size = options.size.unwrap_or(SIZE);
    session.warm_up("room:tide", size, report)?;
    let rate = options.rate.unwrap_or(RATE);
    let seconds = options.duration.map_or(SECONDS, |duration| duration.as_secs_f64());
    let (size, messages, rate) = (size.to_string(), (rate * seconds).ceil().to_string(), rate.to_string());
    let publish = ["--to", "room:tide", "--size", &size, "--rate", &rate, "--count", &messages];

    // The first phase of a run is unlike the later ones, so it is not counted; then without and with take turns.
    let first = session.phase(&publish, 1)?;
    session.judge("settling in", &first, report);
    let mut without = vec![calm(&mut session, &publish, report)?];
    let mut with = Vec::new();
    for _ in 0..TURNS {
        with.push(stalled(&mut session, &publish, count / EVERY, report)?);
        without.push(calm(&mut session, &publish, report)?);
    }
    compare(&without, &with, report);
    report.latency("others, none stalled", &without[0].tally.latency_us);
    session.figures(with.swap_remove(0), report);
    session.finish(report);
    Ok(())
}

/// A phase in which everyone reads.
fn calm(session: &mut Session, publish: &[&str], report: &mut Report) -> anyhow::Result<Phase> {
    let phase = session.phase(publish, 1)?;
    session.judge("without stalled clients", &phase, report);
    Ok(phase)
}

/// A phase in which one in [`EVERY`] does not read; afterwards they do, and must have been told.
fn stalled(session: &mut Session, publish: &[&str], stalled: u64, report: &mut Report) -> anyhow::Result<Phase> {
    let before = session.bed.gateway()?;
    session.crew.stall(EVERY)?;
    let phase = session.phase(publish, 1)?;
    session.judge("with stalled clients", &phase, report);
    rest(1);
    session.reconcile(report)?;
    let during = session.bed.gateway()?;
    let pending_bytes = total(&session.bed.counters()?, "tidegate_gateway_pending_bytes");
    let bound = (stalled * PENDING_BYTES) as f64;
    report.bounded("pending bytes", pending_bytes, "B", Bound::AtMost(bound));
    let grown = during.rss_bytes as f64 - before.rss_bytes as f64;
    report.bounded("gateway memory grown by", grown, "B", Bound::AtMost(bound * OVERHEAD));
    let dropped = total(&phase.counters, "tidegate_gateway_messages_dropped_total");
    report.bounded("messages dropped by the gateway", dropped, "", Bound::AtLeast(1.0));
    told(session, stalled, report)?;
    session.reconcile(report)?;
    Ok(phase)
}

/// The others' p99 with and without: the median of the phases of each kind.
fn compare(without: &[Phase], with: &[Phase], report: &mut Report) {
    let median = |phases: &[Phase]| {
        let mut all: Vec<u64> = phases.iter().map(|p| p.tally.latency_us.quantile(0.99)).collect();
        all.sort_unstable();
        f64::midpoint(all[(all.len() - 1) / 2] as f64, all[all.len() / 2] as f64)
    };
    for phase in without {
        report.figure("others' p99, none stalled", phase.tally.latency_us.quantile(0.99) as f64, "µs");
    }
    for phase in with {
        report.figure("others' p99, 1 in 50 stalled", phase.tally.latency_us.quantile(0.99) as f64, "µs");
    }
    let reference = median(without).max(1.0);
    let moved = (median(with) - reference) / reference * 100.0;
    report.bounded("others' p99 moved by, medians", moved, "%", Bound::AtMost(10.0));
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
