//! A rolling restart: three gateways under load leave and come back one after the other. Every connection must have got
//! every message for as long as it was open, nobody may be let in faster than the budget, and the push API must not notice.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::Options;
use super::bed::total;
use super::fleet::Fleet;
use super::session::rest;
use crate::publish::Published;
use crate::report::{self, Bound, Report};
use crate::returning::witness::PUBLISHER;
use crate::returning::{Returning, Standing};
use crate::shares::shares;
use crate::{clock, sockets};

const GATEWAYS: usize = 3;
const CONNECTIONS: u64 = 6_000;
/// Connections a second that each gateway is told to take at most (`gateway.handshake.rate_max`): at the most this, and so
/// few that a drain is held back by it and not by its shortest spread.
const BUDGET_MAX: u64 = 1_000;
const CLIENTS_A_BUDGET: u64 = 2;
/// A gateway may let in at once what its budget gives in this time: so much more fits into some second.
const BURST_S: f64 = 0.1;
/// Messages a second to everyone, and their size.
const RATE: f64 = 20.0;
const SIZE: usize = 100;
/// How long the publisher may publish; it ends when the restarts are over, each of which takes about six seconds.
const SECONDS: f64 = 45.0;
/// The drain's bounds: as fast as half a second would be if nobody said anything, and never longer than 20 s.
const SPREAD_MS: &str = "500";
const SPREAD_MAX_MS: &str = "20000";
const LEAVES: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let count = options.connections.unwrap_or(CONNECTIONS);
    let rate = options.rate.unwrap_or(RATE);
    let seconds = options.duration.map_or(SECONDS, |duration| duration.as_secs_f64());
    let budget = (count / CLIENTS_A_BUDGET).clamp(10, BUDGET_MAX);
    let environment = vec![
        ("TIDEGATE_GATEWAY__HANDSHAKE__RATE_MAX", budget.to_string()),
        ("TIDEGATE_GATEWAY__DRAIN__SPREAD_MS", SPREAD_MS.to_owned()),
        ("TIDEGATE_GATEWAY__DRAIN__SPREAD_MAX_MS", SPREAD_MAX_MS.to_owned()),
    ];
    let mut fleet = Fleet::start(options, GATEWAYS, environment)?;
    // Well below the budget of all three, so that chance does not put one of them over its own.
    let ramp_rate = (budget * GATEWAYS as u64 / 2).to_string();
    let mut arguments = vec!["--ramp-rate".to_owned(), ramp_rate, "--rate".to_owned(), rate.to_string()];
    arguments.extend(fleet.urls().into_iter().flat_map(|url| ["--gateway".to_owned(), url]));
    let per_process = sockets::connections_per_process()?;
    let processes: Vec<u64> = shares(count, count.div_ceil(per_process)).collect();
    let mut clients = Returning::start(&processes, &arguments)?;
    report.commands.extend(fleet.commands.iter().chain(&clients.commands).cloned());
    settle(&mut clients, count, 0, "connecting")?;

    let most = (seconds * rate) as u32;
    let (mut publisher, command) = publish(&fleet, rate, most, options.size.unwrap_or(SIZE))?;
    report.commands.push(command);
    let started_ns = clock::now_ns();
    rest(2);
    let bar = report::progress(GATEWAYS as u64, "restarting");
    for index in 0..GATEWAYS {
        report::stage(&format!("restarting gateway {} of {GATEWAYS}", index + 1));
        restart(&mut fleet, &mut clients, index, count, report)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    ensure!(publisher.try_wait()?.is_none(), "the publisher ended before the last restart; give a longer --duration");
    // Which closes its stdin first, and that ends it.
    let output = publisher.wait_with_output()?;
    let published: Published = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the publisher ended with {}", output.status))?;
    let messages = u32::try_from(published.messages)?;
    let standing = settle(&mut clients, count, messages, "last messages")?;
    judge(&published, &standing, started_ns, budget, report);
    report.figure("connections", count as f64, "");
    report.figure(
        "turned away, by gateways that still live",
        fleet.each("tidegate_gateway_turned_away_total").iter().sum(),
        "",
    );
    report.part("clients", &standing);
    report.part("published", &published);
    Ok(())
}

/// One gateway's turn: out of the load balancer, drained, started, linked, in again, everybody back.
fn restart(
    fleet: &mut Fleet,
    clients: &mut Returning,
    index: usize,
    count: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let held = total(&fleet.counters(index)?, "tidegate_gateway_connections");
    let live = |except: Option<usize>| (0..GATEWAYS).map(|i| Some(i) != except).collect::<Vec<bool>>();
    clients.live(&live(Some(index)))?;
    let (status, took_s) = fleet.drain(index, LEAVES)?;
    if !status.success() {
        report.fault(format!("gateway {index} ended with {status}"));
    }
    report.figure(&format!("gateway {index}: connections, and"), held, "");
    report.figure("  time it took to leave", took_s, "s");
    fleet.restart(index)?;
    fleet.wait_until_linked(index)?;
    settle(clients, count, 0, "coming back")?;
    clients.live(&live(None))?;
    rest(1);
    Ok(())
}

/// Waits until all clients are open and, when `published` is not 0, have the last message.
fn settle(clients: &mut Returning, count: u64, published: u32, what: &str) -> anyhow::Result<Standing> {
    let deadline_ns = clock::now_ns() + PATIENCE.as_nanos() as u64;
    report::stage(&format!("{what}: {} clients", report::number(count as f64)));
    let bar = report::progress(count, what);
    loop {
        let standing = clients.report(published)?;
        bar.set_position(standing.open);
        if standing.open == count && (published == 0 || standing.behind == 0) {
            bar.finish_and_clear();
            return Ok(standing);
        }
        let Standing { open, behind, refused, failed, .. } = &standing;
        if clock::now_ns() > deadline_ns {
            ensure!(*open == count, "{what}: {open} of {count} open; refused {refused:?}, failed {failed:?}");
            crate::ending::say(&format!("{what}: {behind} clients are behind"));
            return Ok(standing);
        }
        clock::pause(LOOK);
    }
}

fn publish(fleet: &Fleet, rate: f64, messages: u32, size: usize) -> anyhow::Result<(Child, String)> {
    let mut arguments = vec!["--api".to_owned(), format!("http://{}", fleet.api)];
    let of = [("--publisher", PUBLISHER.to_string()), ("--rate", rate.to_string())];
    let rest = [("--count", messages.to_string()), ("--size", size.to_string())];
    arguments.extend(of.into_iter().chain(rest).flat_map(|(flag, value)| [flag.to_owned(), value]));
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "publish", "--json-lines", "--while-stdin"]).args(&arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok((command.spawn()?, format!("tidegate bench publish {}", arguments.join(" "))))
}

fn judge(published: &Published, standing: &Standing, started_ns: u64, budget: u64, report: &mut Report) {
    let faults = &standing.faults;
    if faults.count() > 0 {
        report.fault(format!("messages were lost or came twice: {faults:?}"));
    }
    if standing.behind > 0 {
        report.fault(format!("{} open clients never got the last message", standing.behind));
    }
    report.bounded("messages lost or doubled while open", faults.count() as f64, "", Bound::Exactly(0.0));
    report.figure("messages published", published.messages as f64, "");
    report.figure("deliveries (every one checked)", standing.messages as f64, "");
    let peak = standing.peak_per_s(started_ns);
    let most_per_s = budget as f64 * (1.0 + BURST_S);
    report.bounded("most let in within a second, by one gateway", peak as f64, "/s", Bound::AtMost(most_per_s));
    let server_errors: u64 = published.refused.iter().filter(|(status, _)| **status >= 500).map(|(_, n)| n).sum();
    report.bounded("pushes answered 5xx", server_errors as f64, "", Bound::Exactly(0.0));
    report.bounded("pushes unanswered", published.unanswered as f64, "", Bound::Exactly(0.0));
    report.figure("clients refused by 503, all back since", standing.refused.values().sum::<u64>() as f64, "");
    report.figure("attempts that failed otherwise", standing.failed.values().sum::<u64>() as f64, "");
    for (how, times) in &standing.ended {
        report.figure(&format!("connections ended: {how}"), *times as f64, "");
    }
    report.latency("without a connection", &standing.away_us);
    report.latency("receipt", &published.receipt_us);
}
