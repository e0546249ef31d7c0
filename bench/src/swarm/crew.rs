//! A swarm as one: threads of this process, or child processes when the open-files limit is too low for all.
//! A file of its own because threads and children are steered alike. Every member answers each command once, in order.
//! Invariant: children end with their parent: their stdin closes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail};

use super::commands::{Command, Event};
use super::plan::Plan;
use super::tally::Tally;
use super::worker::{Part, Wires, Worker};
use crate::clock;
use crate::ledger::Expected;
use crate::shares::shares;

/// Commands and events are answered one by one; progress is dropped when nobody listens.
const CHANNEL: usize = 16;

#[derive(Debug)]
pub struct Crew {
    members: Vec<Member>,
    /// Clients open at each member, as far as `dial` heard.
    open: Vec<AtomicU64>,
}

#[derive(Debug)]
enum Member {
    Thread { commands: Option<SyncSender<Command>>, events: Receiver<Event>, thread: Option<JoinHandle<()>> },
    Process { child: Child, events: BufReader<ChildStdout> },
}

impl Crew {
    /// Clients `first..first + count` on threads of this process.
    pub fn threads(plan: &Arc<Plan>, first: u64, count: u64, threads: u64) -> anyhow::Result<Self> {
        let mut members = Vec::new();
        let mut begin = first;
        for share in shares(count, threads) {
            let (commands, inbox) = sync_channel(CHANNEL);
            let (outbox, events) = sync_channel(CHANNEL);
            let connect_rate = plan.connect_rate.map(|rate| rate * share as f64 / count as f64);
            let part = Part { first: begin, count: share as usize, connect_rate };
            let plan = Arc::clone(plan);
            // Built on its own thread: its frames are shared within the thread only.
            let build = move || match Worker::new(plan, &part, Wires { inbox, outbox: outbox.clone() }) {
                Ok(worker) => worker.run(),
                Err(error) => {
                    let _ = outbox.send(Event::Failed { error: format!("{error:#}") });
                }
            };
            let thread = std::thread::Builder::new().name(format!("swarm-{begin}")).spawn(build)?;
            members.push(Member::Thread { commands: Some(commands), events, thread: Some(thread) });
            begin += share;
        }
        Ok(Self::of(members))
    }

    /// One `bench swarm --control` process for each list of arguments.
    pub fn processes(argument_lists: &[Vec<String>]) -> anyhow::Result<Self> {
        Self::processes_with(argument_lists, &[])
    }

    /// The same, with something added to their environment.
    pub fn processes_with(argument_lists: &[Vec<String>], environment: &[(&str, String)]) -> anyhow::Result<Self> {
        let spawn = |arguments: &Vec<String>| {
            let mut command = std::process::Command::new(std::env::current_exe()?);
            // A group of its own: a Ctrl-C is for whoever steers, who ends the swarm in order.
            command.args(["bench", "swarm", "--control"]).args(arguments).process_group(0);
            command.envs(environment.iter().map(|(key, value)| (key, value)));
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let events = BufReader::new(child.stdout.take().context("the child's stdout is piped")?);
            Ok(Member::Process { child, events })
        };
        Ok(Self::of(argument_lists.iter().map(spawn).collect::<anyhow::Result<_>>()?))
    }

    fn of(members: Vec<Member>) -> Self {
        let open = members.iter().map(|_| AtomicU64::new(0)).collect();
        Self { members, open }
    }

    /// The processes that hold the clients, besides this one.
    pub fn pids(&self) -> Vec<u32> {
        let pid = |member: &Member| match member {
            Member::Thread { .. } => None,
            Member::Process { child, .. } => Some(child.id()),
        };
        self.members.iter().filter_map(pid).collect()
    }

    /// Waits until all clients are connected or have failed; `progress` hears how many are open.
    pub fn ready(&mut self, mut progress: impl FnMut(u64)) -> anyhow::Result<Tally> {
        let mut sum = Tally::default();
        for member in &mut self.members {
            let before = sum.open;
            loop {
                match member.hear()? {
                    Event::Progress { open } => progress(before + open),
                    Event::Ready(tally) => break sum.merge(*tally),
                    other => bail!("a swarm's member said {other:?} before it was ready"),
                }
            }
        }
        progress(sum.open);
        Ok(sum)
    }

    /// Dials in a paused swarm until `per_mille` thousandths of each member's clients are connected: `at_once` members at
    /// a time, because more would only take turns. `progress` hears how many are open.
    pub fn dial(&mut self, per_mille: u64, at_once: usize, progress: &(dyn Fn(u64) + Sync)) -> anyhow::Result<Tally> {
        let at_once = at_once.clamp(1, self.members.len().max(1));
        let open = &self.open;
        let queue = Mutex::new(self.members.iter_mut().zip(open));
        let turns = || -> anyhow::Result<Tally> {
            let mut sum = Tally::default();
            // The lock is for taking a member, not for its turn.
            while let Some((member, mine)) = { queue.lock().map_or(None, |mut queue| queue.next()) } {
                sum.merge(member.dial(per_mille, &|now| {
                    mine.store(now, Ordering::Relaxed);
                    progress(open.iter().map(|open| open.load(Ordering::Relaxed)).sum());
                })?);
            }
            Ok(sum)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(turns)).collect();
            let mut sum = Tally::default();
            for thread in threads {
                sum.merge(thread.join().ok().context("a thread that steered a swarm panicked")??);
            }
            Ok(sum)
        })
    }

    /// Tells all members to end, so that they do it together; dropping waits for one after the other.
    pub fn stop(&mut self) {
        // One that has ended already cannot be told.
        self.members.iter_mut().for_each(|member| drop(member.tell(&Command::Stop)));
    }

    pub fn reset(&mut self) -> anyhow::Result<()> {
        self.all_do(&Command::Reset)
    }

    pub fn stall(&mut self, every: u64) -> anyhow::Result<()> {
        self.all_do(&Command::Stall { every })
    }

    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.all_do(&Command::Resume)
    }

    /// Waits until everything expected is there, or nothing has come for `settle_ms`, and judges.
    pub fn report(&mut self, expected: &[Expected], settle_ms: u64) -> anyhow::Result<Tally> {
        self.tell_all(&Command::Report { expected: expected.to_vec(), settle_ms })?;
        let mut sum = Tally::default();
        for member in &mut self.members {
            match member.hear_answer()? {
                Event::Report(tally) => sum.merge(*tally),
                other => bail!("a swarm's member answered {other:?} to a report"),
            }
        }
        if self.members.iter().any(|member| matches!(member, Member::Thread { .. })) {
            sum.cpu_s += clock::process_cpu_ns() as f64 / 1e9;
        }
        Ok(sum)
    }

    fn all_do(&mut self, command: &Command) -> anyhow::Result<()> {
        self.tell_all(command)?;
        for member in &mut self.members {
            match member.hear_answer()? {
                Event::Done => {}
                other => bail!("a swarm's member answered {other:?} to {command:?}"),
            }
        }
        Ok(())
    }

    fn tell_all(&mut self, command: &Command) -> anyhow::Result<()> {
        self.members.iter_mut().try_for_each(|member| member.tell(command))
    }
}

impl Member {
    fn tell(&mut self, command: &Command) -> anyhow::Result<()> {
        match self {
            Self::Thread { commands, .. } => {
                let commands = commands.as_ref().context("the thread was stopped")?;
                commands.send(command.clone()).context("a swarm's thread has ended")
            }
            Self::Process { child, .. } => {
                let stdin = child.stdin.as_mut().context("the child's stdin is piped")?;
                writeln!(stdin, "{}", serde_json::to_string(command)?).context("a swarm's process has ended")
            }
        }
    }

    fn dial(&mut self, per_mille: u64, progress: &dyn Fn(u64)) -> anyhow::Result<Tally> {
        self.tell(&Command::Dial { per_mille })?;
        loop {
            match self.hear()? {
                Event::Progress { open } => progress(open),
                Event::Ready(tally) => {
                    progress(tally.open);
                    return Ok(*tally);
                }
                other => bail!("a swarm's member said {other:?} while it was dialling"),
            }
        }
    }

    fn hear(&mut self) -> anyhow::Result<Event> {
        let event = match self {
            Self::Thread { events, .. } => events.recv().context("a swarm's thread has ended")?,
            Self::Process { events, .. } => {
                let mut line = String::new();
                events.read_line(&mut line)?;
                serde_json::from_str(&line).context("a swarm's process has ended")?
            }
        };
        match event {
            Event::Failed { error } => bail!("swarm: {error}"),
            event => Ok(event),
        }
    }

    fn hear_answer(&mut self) -> anyhow::Result<Event> {
        loop {
            match self.hear()? {
                Event::Progress { .. } => {}
                event => return Ok(event),
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        match self {
            Self::Thread { commands, thread, .. } => {
                *commands = None;
                // A panic of the thread has been printed; there is nothing to add.
                let _ = thread.take().map(JoinHandle::join);
            }
            Self::Process { child, .. } => {
                child.stdin = None;
                let _ = child.wait();
            }
        }
    }
}

/// Obeys commands from stdin and answers on stdout: a process that is a member of someone else's swarm.
pub fn serve_control(mut crew: Crew) -> anyhow::Result<()> {
    let say = |event: &Event| -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, event)?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    };
    let ready = crew.ready(|open| {
        // Nobody listens: the closed stdin below ends this process.
        let _ = say(&Event::Progress { open });
    })?;
    say(&Event::Ready(Box::new(ready)))?;
    for line in std::io::stdin().lines() {
        match serde_json::from_str(&line?)? {
            Command::Reset => crew.reset()?,
            Command::Stall { every } => crew.stall(every)?,
            Command::Resume => crew.resume()?,
            Command::Report { expected, settle_ms } => {
                let tally = crew.report(&expected, settle_ms)?;
                say(&Event::Report(Box::new(tally)))?;
                continue;
            }
            Command::Dial { per_mille } => {
                let tally = crew.dial(per_mille, usize::MAX, &|open| drop(say(&Event::Progress { open })))?;
                say(&Event::Ready(Box::new(tally)))?;
                continue;
            }
            Command::Stop => break,
        }
        say(&Event::Done)?;
    }
    Ok(())
}
