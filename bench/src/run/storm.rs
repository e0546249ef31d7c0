//! Issue point 7: thousands of clients lose their connections at once and come back as their policy says: how soon all are
//! back, that the kernel's queue never overflowed, and that strangers who come in the middle get in.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::Options;
use super::fleet::Fleet;
use super::session::rest;
use crate::netstat::Counters;
use crate::report::{self, Bound, Process, Report};
use crate::returning::{Returning, Standing};
use crate::shares::shares;
use crate::{clock, http1, sockets};

const CONNECTIONS: u64 = 20_000;
/// Clients of one gateway process at most: its open files less what it keeps for itself, for strangers and for chance.
const FILES_OF_A_GATEWAY: u64 = 1_000;
/// All must be back by then.
const BACK_S: f64 = 4.0;
/// Beyond this nobody waits for the stragglers.
const PATIENCE: Duration = Duration::from_secs(60);
const STRANGER_EVERY: Duration = Duration::from_millis(50);
const STRANGER_PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let per_process = sockets::connections_per_process()?;
    let count = options.connections.unwrap_or(CONNECTIONS);
    let per_gateway = per_process.saturating_sub(FILES_OF_A_GATEWAY).max(1);
    let gateways = count.div_ceil(per_gateway);
    let mut fleet = Fleet::start(options, usize::try_from(gateways)?, Vec::new())?;
    let mut arguments = vec!["--ramp-rate".to_owned(), "5000".to_owned()];
    arguments.extend(fleet.urls().into_iter().flat_map(|url| ["--gateway".to_owned(), url]));
    let processes: Vec<u64> = shares(count, count.div_ceil(per_process)).collect();
    let mut clients = Returning::start(&processes, &arguments)?;
    report.commands.extend(fleet.commands.iter().chain(&clients.commands).cloned());
    let connected = come_back(&mut clients, count, "connecting")?;
    rest(2);

    let (before, usages) = (Counters::now()?, fleet.usages()?);
    let strangers = Strangers::start(fleet.gateways.iter().map(|gateway| gateway.clients).collect())?;
    let queues = Queues::start(&fleet)?;
    let dropped_ns = if options.kill { restart_all(&mut fleet)? } else { clients.drop_all()?.dropped_ns };
    let standing = come_back(&mut clients, count, "coming back")?;
    clock::pause(Duration::from_millis(500));
    let (longest_queue, lag_ms) = queues.stop();
    let strangers = strangers.stop();
    let after = Counters::now()?;

    judge(&standing, &connected, dropped_ns, count, report);
    for (name, said) in
        [("ListenOverflows", "full accept queues (ListenOverflows)"), ("ListenDrops", "clients dropped (ListenDrops)")]
    {
        report.bounded(said, after.grown(&before, name)? as f64, "", Bound::Exactly(0.0));
    }
    report.figure("longest accept queue seen", longest_queue, "");
    report.figure("worst lag seen", lag_ms, "ms");
    report.figure("strangers", strangers.came as f64, "");
    let refused = strangers.refused.len() as f64;
    if options.kill {
        // Nobody can be let in while no gateway is there.
        report.figure("strangers refused", refused, "");
    } else {
        report.bounded("strangers refused", refused, "", Bound::Exactly(0.0));
    }
    report.figure("slowest stranger", strangers.slowest_ms, "ms");
    strangers.refused.iter().take(3).for_each(|why| crate::ending::say(&format!("a stranger was refused: {why}")));
    if !options.kill {
        let used = fleet.usages()?.into_iter().zip(usages);
        report.processes =
            used.map(|((name, after), (_, before))| Process { name, usage: after.since(&before) }).collect();
    }
    report.part("clients", &standing);
    Ok(())
}

/// Waits until all clients are open.
fn come_back(clients: &mut Returning, count: u64, what: &str) -> anyhow::Result<Standing> {
    report::stage(&format!("{what}: {} clients", report::number(count as f64)));
    let bar = report::progress(count, what);
    let deadline_ns = clock::now_ns() + PATIENCE.as_nanos() as u64;
    loop {
        let standing = clients.report(0)?;
        bar.set_position(standing.open);
        if standing.open == count {
            bar.finish_and_clear();
            return Ok(standing);
        }
        let Standing { open, refused, failed, .. } = &standing;
        ensure!(
            clock::now_ns() < deadline_ns,
            "{what}: {open} of {count} open; refused {refused:?}, failed {failed:?}"
        );
        clock::pause(LOOK);
    }
}

/// The other storm: every gateway dies and is there again as fast as it starts.
fn restart_all(fleet: &mut Fleet) -> anyhow::Result<u64> {
    let killed_ns = clock::now_ns();
    (0..fleet.gateways.len()).try_for_each(|index| fleet.kill(index))?;
    (0..fleet.gateways.len()).try_for_each(|index| fleet.restart(index))?;
    Ok(killed_ns)
}

fn judge(standing: &Standing, connected: &Standing, dropped_ns: u64, count: u64, report: &mut Report) {
    report.figure("connections", count as f64, "");
    let back_s = standing.opened_ns.saturating_sub(dropped_ns) as f64 / 1e9;
    report.bounded("all back after", back_s, "s", Bound::AtMost(BACK_S));
    report.figure("most let in within a second, by one gateway", standing.peak_per_s(dropped_ns) as f64, "/s");
    let refused = |standing: &Standing| standing.refused.values().sum::<u64>();
    report.figure("clients refused by 503 on their way back", (refused(standing) - refused(connected)) as f64, "");
    let failed = |standing: &Standing| standing.failed.values().sum::<u64>();
    report.figure("attempts that failed otherwise", (failed(standing) - failed(connected)) as f64, "");
    report.latency("without a connection", &standing.away_us);
    if standing.faults.count() > 0 {
        report.fault(format!("messages that nobody sent: {:?}", standing.faults));
    }
}

/// Clients that were never here before: one at a time to each gateway in turn, every 50 ms.
struct Strangers {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

#[derive(Default)]
struct Seen {
    came: u64,
    refused: Vec<String>,
    slowest_ms: f64,
}

impl Strangers {
    fn start(gateways: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let task = std::thread::Builder::new().name("strangers".to_owned()).spawn(move || {
            let mut knocks = Vec::new();
            for gateway in gateways.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let gateway = *gateway;
                knocks.push(std::thread::spawn(move || {
                    let started_ns = clock::now_ns();
                    let let_in = knock(gateway);
                    (let_in, (clock::now_ns() - started_ns) as f64 / 1e6)
                }));
                clock::pause(STRANGER_EVERY);
            }
            let mut seen = Seen::default();
            for (let_in, ms) in knocks.into_iter().filter_map(|knock| knock.join().ok()) {
                seen.came += 1;
                seen.slowest_ms = seen.slowest_ms.max(ms);
                seen.refused.extend(let_in.err().map(|why| format!("{why:#}")));
            }
            seen
        })?;
        Ok(Self { is_over, task })
    }

    fn stop(self) -> Seen {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.join().unwrap_or_default()
    }
}

/// One handshake; an error says why it was not let in.
fn knock(gateway: SocketAddr) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut socket = TcpStream::connect_timeout(&gateway, STRANGER_PATIENCE)?;
    socket.set_read_timeout(Some(STRANGER_PATIENCE))?;
    write!(
        socket,
        "GET /ws HTTP/1.1\r\nHost: {gateway}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let mut answer = [0; 12];
    std::io::Read::read_exact(&mut socket, &mut answer).context("no answer")?;
    ensure!(&answer == b"HTTP/1.1 101", "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Looks at the gateways' accept queues and lag, ten times a second.
struct Queues {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<(f64, f64)>,
}

impl Queues {
    fn start(fleet: &Fleet) -> anyhow::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let gateways: Vec<SocketAddr> = fleet.gateways.iter().map(|gateway| gateway.ops).collect();
        let task = std::thread::Builder::new().name("queues".to_owned()).spawn(move || {
            let (mut longest, mut lag) = (0.0_f64, 0.0_f64);
            while !stop.load(Ordering::Relaxed) {
                for counters in gateways.iter().filter_map(|ops| http1::scrape(*ops, STRANGER_PATIENCE).ok()) {
                    let of = |name: &str| counters.get(name).copied().unwrap_or(0.0);
                    longest = longest.max(of("tidegate_gateway_accept_queue"));
                    lag = lag.max(of("tidegate_gateway_lag_ms"));
                }
                clock::pause(Duration::from_millis(100));
            }
            (longest, lag)
        })?;
        Ok(Self { is_over, task })
    }

    fn stop(self) -> (f64, f64) {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.join().unwrap_or_default()
    }
}
