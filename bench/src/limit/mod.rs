//! The bare loop: N loopback pairs, plain `send` of the same payload to each in slot order: what this machine can do.
//! This file is the command line and the sender; `drain` is the other end, a process of its own.
//! Both cadences are measured because the state of the caches is most of the cost: compare like with like.

mod drain;

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use serde::{Deserialize, Serialize};

use crate::dialect::head;
use crate::distribution::exact_quantile;
use crate::machine::Machine;
use crate::{clock, report, sockets};
use drain::Drained;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[arg(long, default_value_t = 9_000)]
    pub connections: u64,
    /// Payload bytes of the frame; its head comes on top.
    #[arg(long, default_value_t = 1_024)]
    pub size: usize,
    /// Passes over all sockets that are measured, after two that are not.
    #[arg(long, default_value_t = 20)]
    pub rounds: u32,
    /// From the start of one pass to the next, when paced.
    #[arg(long, default_value = "1s", value_parser = clock::parse_duration)]
    pub interval: Duration,
    #[arg(long, value_enum, default_value_t = Cadence::Both)]
    pub cadence: Cadence,
    #[arg(long)]
    pub json_lines: bool,
    /// The other end: connect to this port and drain.
    #[arg(long, hide = true)]
    pub drain: Option<u16>,
    /// Bytes of one pass over all sockets: the drain notes when each pass is complete.
    #[arg(long, hide = true, default_value_t = 0)]
    pub pass_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cadence {
    /// One pass per interval: caches are cold, as in a gateway that sends now and then.
    Paced,
    /// The next pass begins when the last has been received.
    BackToBack,
    Both,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Limit {
    pub connections: u64,
    pub frame_bytes: usize,
    pub paced: Option<Passes>,
    pub back_to_back: Option<Passes>,
    /// CPU of the receiving process per message, over the whole run.
    pub client_us_per_receive: f64,
    pub machine: Machine,
}

/// Passes of one cadence.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Passes {
    /// CPU of the sending thread (user + system) per send, pass by pass.
    pub cpu_us_per_send: Vec<f64>,
    /// First send to last, in ms.
    pub sent_ms: Vec<f64>,
    /// First send to the last client's receive, in ms.
    pub received_ms: Vec<f64>,
    /// Sends that would have blocked: the drain could not follow.
    pub blocked: u64,
}

/// Passes before measuring: slow start, first touches of memory.
const WARM_UP: u32 = 2;
/// The drain has everything long before this, or something is broken.
const DRAIN_NS: u64 = 20_000_000_000;

pub fn main(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(port) = options.drain {
        drain::run(port, options.connections, options.pass_bytes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let limit = run(options)?;
    report::print(options.json_lines, &limit, &limit.lines())
}

struct Bench {
    sockets: Vec<TcpStream>,
    frame: Vec<u8>,
    drain: Child,
    events: BufReader<ChildStdout>,
}

pub fn run(options: &Options) -> anyhow::Result<Limit> {
    let mut bench = Bench::start(options)?;
    let mut limit = Limit {
        connections: options.connections,
        frame_bytes: bench.frame.len(),
        machine: Machine::look(),
        ..Limit::default()
    };
    let bar = report::progress(u64::from(options.rounds) * 2, "bare loop");
    if options.cadence != Cadence::BackToBack {
        limit.paced = Some(bench.passes(options.rounds, options.interval, &bar)?);
    }
    if options.cadence != Cadence::Paced {
        limit.back_to_back = Some(bench.passes(options.rounds, Duration::ZERO, &bar)?);
    }
    bar.finish_and_clear();
    limit.client_us_per_receive = bench.finish()?;
    Ok(limit)
}

impl Bench {
    fn start(options: &Options) -> anyhow::Result<Self> {
        let most = sockets::connections_per_process()?;
        let count = options.connections;
        ensure!(count > 0 && count <= most, "{count} connections do not fit a process: its limit allows {most}");
        let mut frame = Vec::new();
        head::write_server_text(&mut frame, &vec![b'x'; options.size]);
        let listener = sockets::listen()?;
        let (port, pass_bytes) = (listener.local_addr()?.port(), frame.len() as u64 * count);
        let numbers = [("--drain", u64::from(port)), ("--connections", count), ("--pass-bytes", pass_bytes)];
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.args(["bench", "limit"]).args(numbers.iter().flat_map(|(name, n)| [(*name).to_owned(), n.to_string()]));
        let mut drain = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let events = BufReader::new(drain.stdout.take().context("the drain's stdout is piped")?);
        let mut sockets = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (socket, _) = listener.accept()?;
            socket.set_nodelay(true)?;
            sockets.push(socket);
        }
        Ok(Self { sockets, frame, drain, events })
    }

    fn passes(&mut self, rounds: u32, interval: Duration, bar: &indicatif::ProgressBar) -> anyhow::Result<Passes> {
        let mut passes = Passes::default();
        let interval_ns = interval.as_nanos() as u64;
        let mut due_ns = clock::now_ns();
        for round in 0..rounds + WARM_UP {
            due_ns += interval_ns;
            clock::sleep_until_ns(due_ns);
            let (started_ns, cpu_ns) = (clock::now_ns(), clock::thread_cpu_ns());
            let blocked = self.pass()?;
            let (sent_ns, cpu_ns) = (clock::now_ns(), clock::thread_cpu_ns() - cpu_ns);
            let received_ns = self.received()?;
            if round >= WARM_UP {
                passes.cpu_us_per_send.push(cpu_ns as f64 / 1e3 / self.sockets.len() as f64);
                passes.sent_ms.push((sent_ns - started_ns) as f64 / 1e6);
                passes.received_ms.push(received_ns.saturating_sub(started_ns) as f64 / 1e6);
                passes.blocked += blocked;
                bar.inc(1);
            }
        }
        Ok(passes)
    }

    /// The loop itself. Nothing but `send` may be in it.
    fn pass(&self) -> anyhow::Result<u64> {
        let mut blocked = 0;
        for socket in &self.sockets {
            match send(socket, &self.frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) if sent == self.frame.len() => {}
                Ok(_) | Err(Errno::AGAIN) => blocked += 1,
                Err(error) => return Err(error.into()),
            }
        }
        ensure!(blocked == 0, "{blocked} sends would have blocked: the payload does not fit the socket buffers");
        Ok(blocked)
    }

    /// When the drain had the last byte of the pass.
    fn received(&mut self) -> anyhow::Result<u64> {
        let asked_ns = clock::now_ns();
        match self.hear()? {
            Drained::Pass { at_ns } if at_ns < asked_ns + DRAIN_NS => Ok(at_ns),
            other => bail!("the drain said {other:?} instead of the end of a pass"),
        }
    }

    fn hear(&mut self) -> anyhow::Result<Drained> {
        let mut line = String::new();
        self.events.read_line(&mut line)?;
        serde_json::from_str(&line).context("the drain has ended")
    }

    /// Closes all sockets; CPU µs of the drain per message.
    fn finish(mut self) -> anyhow::Result<f64> {
        for socket in self.sockets.drain(..) {
            sockets::reset(socket.into());
        }
        let Drained::End { messages_us } = self.hear()? else { bail!("the drain did not end") };
        self.drain.wait()?;
        Ok(messages_us)
    }
}

impl Limit {
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("bare loop    {} sockets, {} bytes a send", self.connections, self.frame_bytes)];
        let cadences = [("paced", &self.paced), ("back to back", &self.back_to_back)];
        for (name, passes) in cadences.into_iter().filter_map(|(name, passes)| Some((name, passes.as_ref()?))) {
            let show =
                |values: &[f64]| format!("{:.3} / {:.3}", exact_quantile(values, 0.5), exact_quantile(values, 0.99));
            lines.push(format!("{name}: median / p99 of {} passes", passes.sent_ms.len()));
            lines.push(format!("  CPU a send         {} µs", show(&passes.cpu_us_per_send)));
            lines.push(format!("  first to last send {} ms", show(&passes.sent_ms)));
            lines.push(format!("  last client has it {} ms", show(&passes.received_ms)));
        }
        lines.push(format!("client       {:.3} µs CPU a message", self.client_us_per_receive));
        let Machine { cpu, cores, kernel, commit, load, .. } = &self.machine;
        lines.push(format!("machine      {cores} × {cpu}, Linux {kernel}, commit {commit}, load {load}"));
        lines
    }
}
