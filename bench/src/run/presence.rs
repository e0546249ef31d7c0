//! Presence: 20,000 comings and goings a second in a room of 9,000. Counts must be exact at rest, members must get no more
//! PRESENCE frames than ticks, and all of it may cost little beside the same in a room whose members are not told.
//! Both rooms have the same members; the walk takes turns between them (without, with, without, with …) in one run.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Options;
use super::bed::Bed;
use super::session::{connections, rest};
use super::walkers::{STEP, Walkers};
use crate::report::{self, Bound, Process, Report};
use crate::swarm::crew::Crew;
use crate::{distribution, http1};

const MEMBERS: u64 = 9_000;
/// Joins and leaves a second, together.
const RATE: f64 = 20_000.0;
const SECONDS: f64 = 10.0;
/// Members are told in the one and not in the other.
const TOLD: &str = "chat:hall";
const QUIET: &str = "hall";
/// The default of `presence.interval_ms` of both tiers.
const TICK_S: f64 = 1.0;
/// CPU of both tiers with frames, of that without.
const COST_MAX: f64 = 1.3;
/// Slower than this and the walk was not what is asked for: the pace of an open loop, less what one late step takes.
const PACE_MIN: f64 = 0.98;
/// Pairs of turns, an odd number: the machine's speed changes from one to the next, so each pair has a vote.
const TURNS: usize = 5;
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// What one turn cost and showed.
struct Turn {
    /// CPU of gateway and logic, in seconds, for each thousand comings and goings.
    cpu_s: f64,
    pace: f64,
    frames: u64,
    seconds: f64,
}

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let members = connections(options.connections, MEMBERS)?;
    let rate = options.rate.unwrap_or(RATE);
    let walkers = (rate / 2.0 * STEP.as_secs_f64()).ceil() as u64;
    ensure!(members > walkers + 1, "{walkers} walkers do not fit among {members} members; lower --rate");
    let environment = [
        ("TIDEGATE_GATEWAY__PRESENCE__ROOMS", format!(r#"["{TOLD}"]"#)),
        // What a client may ask a second is another matter.
        ("TIDEGATE_GATEWAY__LIMITS__REQUESTS_PER_S", "0".to_owned()),
    ];
    let bed = Bed::split(options, &environment)?;
    report.commands.extend(bed.commands.iter().cloned());
    let mut crew = stand(&bed, members - walkers - 1, report)?;
    let walkers = Walkers::connect(&bed.url(), walkers + 1, &[TOLD, QUIET])?;
    rest(3);
    let duration = options.duration.unwrap_or(Duration::from_secs_f64(SECONDS));
    let mut hall = Hall { bed: &bed, walkers, members };

    // The first turn of a run is unlike the later ones, so it is not counted.
    hall.turn(QUIET, Duration::from_secs(2), report)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        without.push(hall.turn(QUIET, duration, report)?);
        with.push(hall.turn(TOLD, duration, report)?);
    }
    compare(&without, &with, rate, report);
    report.figure("members", members as f64, "");
    let usages = bed.usages()?;
    report.processes.extend(usages.into_iter().map(|(name, usage)| Process { name, usage }));
    let tally = crew.report(&[], 0)?;
    if !tally.closed.is_empty() {
        report.fault(format!("members that read were closed: {:?}", tally.closed));
    }
    Ok(())
}

/// The members who stay.
fn stand(bed: &Bed, count: u64, report: &mut Report) -> anyhow::Result<Crew> {
    let rooms = format!("{TOLD},{QUIET}");
    let arguments = ["--url", &bed.url(), "--connections", &count.to_string(), "--user-pattern", "member-{i}"];
    let arguments: Vec<String> = arguments.iter().chain(&["--rooms", &rooms]).map(ToString::to_string).collect();
    report.commands.push(format!("tidegate bench swarm {}", arguments.join(" ")));
    let mut crew = Crew::processes(&[arguments])?;
    report::stage(&format!("connecting {} clients", report::number(count as f64)));
    let bar = report::progress(count, "connecting");
    let ready = crew.ready(|open| bar.set_position(open))?;
    bar.finish_and_clear();
    ensure!(ready.failed == 0, "{} members could not connect: {:?}", ready.failed, ready.oddities);
    Ok(crew)
}

/// The tiers, the clients that come and go, and how many there are with those who stay.
struct Hall<'b> {
    bed: &'b Bed,
    walkers: Walkers,
    members: u64,
}

impl Hall<'_> {
    /// One turn in a room: the walk, a rest of two ticks, and what is true then.
    fn turn(&mut self, room: &str, duration: Duration, report: &mut Report) -> anyhow::Result<Turn> {
        let Self { bed, walkers, members } = self;
        let members = *members;
        report::stage(&format!("coming and going in {room} for {}", report::amount(duration.as_secs_f64(), "s")));
        let before = cpu_s(bed)?;
        let (moves, seconds) = walkers.walk(room, duration)?;
        // The rest has frames and no walk: it is no part of what a walk costs.
        let cpu_s = (cpu_s(bed)? - before) / moves as f64 * 1e3;
        walkers.rest(Duration::from_secs_f64(2.0 * TICK_S + 0.5))?;
        let heard = walkers.heard().clone();
        if !heard.odd.is_empty() {
            report.fault(format!("walkers heard {:?}", heard.odd));
        }
        let answer = http1::get(bed.api, &format!("/v1/rooms/{}", room.replace(':', "%3A")), HTTP_TIMEOUT)?;
        let counts: Value = serde_json::from_slice(&answer.body).context("the API answers in JSON")?;
        let said = |value: &Value, key: &str| value[key].as_u64().unwrap_or(0);
        let mut wrong = Vec::new();
        for (what, count) in [("online", said(&counts, "online")), ("users", said(&counts, "users_online"))] {
            if count != members {
                wrong.push(format!("{what} {count}"));
            }
        }
        if room == TOLD {
            let last = heard.last.as_ref().map_or(Value::Null, |frame| frame["data"].clone());
            if said(&last, "online") != members || said(&last, "users") != members {
                wrong.push(format!("the last PRESENCE {last}"));
            }
        }
        if !wrong.is_empty() {
            report.fault(format!("at rest {room} has {members} members of as many users, not {}", wrong.join(", ")));
        }
        Ok(Turn { cpu_s, pace: moves as f64 / seconds, frames: heard.presence, seconds: seconds + 2.0 * TICK_S + 0.5 })
    }
}

fn cpu_s(bed: &Bed) -> anyhow::Result<f64> {
    Ok(bed.usages()?.iter().map(|(_, usage)| usage.cpu_s()).sum())
}

fn compare(without: &[Turn], with: &[Turn], rate: f64, report: &mut Report) {
    let median = |values: &[f64]| distribution::exact_quantile(values, 0.5);
    let cost = |turns: &[Turn]| turns.iter().map(|turn| turn.cpu_s * 1e3).collect::<Vec<f64>>();
    let (quiet, watched) = (cost(without), cost(with));
    let ratios: Vec<f64> = watched.iter().zip(&quiet).map(|(with, without)| with / without).collect();
    let slowest = without.iter().chain(with).map(|turn| turn.pace).fold(f64::INFINITY, f64::min);
    report.bounded("comings and goings, slowest turn", slowest, "/s", Bound::AtLeast(rate * PACE_MIN));
    report.figure("CPU of both tiers a coming or going, not told", median(&quiet), "µs");
    report.figure("CPU of both tiers a coming or going, told", median(&watched), "µs");
    for (turn, ratio) in ratios.iter().enumerate() {
        report.figure(&format!("CPU, told ÷ not told, pair {}", turn + 1), *ratio, "×");
    }
    report.bounded("CPU, told ÷ not told, median of the pairs", median(&ratios), "×", Bound::AtMost(COST_MAX));
    for (number, turn) in with.iter().enumerate() {
        // A frame may be due at the first moment and at the last.
        let ticks = (turn.seconds / TICK_S).floor() + 1.0;
        let name = format!("PRESENCE frames of a member, turn {}", number + 1);
        report.bounded(&name, turn.frames as f64, "", Bound::AtMost(ticks));
        if turn.frames == 0 {
            report.fault("members were told nothing".to_owned());
        }
    }
    let told: u64 = without.iter().map(|turn| turn.frames).sum();
    if told > 0 {
        report.fault(format!("members of a room that is not watched got {told} PRESENCE frames"));
    }
}
