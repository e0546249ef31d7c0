//! Side by side: the same course for Tidegate, the bare loop, and whatever peers are installed here.
//! This file is the command line and the list of peers. `kit` finds them, `server` runs one, `course` measures it,
//! `table` puts it together. Each peer is one file here and one folder in `bench/peers/`; a new one needs a line in
//! [`PEERS`]. Invariant: every peer gets the same clients, payload, schedule and checks; only the words differ.

pub mod course;
pub mod kit;
mod mosquitto;
mod nats;
mod nchan;
pub mod server;
mod socketio;
mod table;
mod tidegate;
mod ws;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::dialect::{self, Dialect};
use crate::report::{self, Detail, Report};
use crate::{clock, ending, sockets};
use course::Course;
use kit::{Kit, Program};
use server::{Launch, Site};

/// A server that can run the course: what it speaks, and how it is found and started.
pub trait Peer: Dialect {
    /// Path of the clients' upgrade request.
    fn path(&self) -> &'static str {
        "/"
    }

    /// Whether it is installed; what is missing otherwise.
    fn find(&self, kit: &Kit) -> Result<Program, String>;
    /// How it is started, tuned as its own manual advises.
    fn launch(&self, program: &Program, site: &Site) -> anyhow::Result<Launch>;
}

const PEERS: [&dyn Peer; 6] = [
    &dialect::Tidegate,
    &dialect::nchan::Nchan,
    &dialect::nats::Nats,
    &dialect::mosquitto::Mosquitto,
    &dialect::ws::Ws,
    &dialect::socketio::SocketIo,
];
const BARE: &str = "bare";

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Only these, such as tidegate,nchan: bare, tidegate, nchan, nats, mosquitto, ws, socketio.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Clients of each server.
    #[arg(long, default_value_t = 5_000)]
    pub connections: u64,
    /// Bytes of a message.
    #[arg(long, default_value_t = 1_024)]
    pub size: usize,
    /// Messages a second to every client while latency and CPU are measured.
    #[arg(long, default_value_t = 5.0)]
    pub rate: f64,
    /// How long latency and CPU are measured. One slow broadcast in 75 is a p99: more of them tell more.
    #[arg(long, default_value = "15s", value_parser = clock::parse_duration)]
    pub pace: Duration,
    /// A tenth of the time for each part: shows that it works, not how fast.
    #[arg(long)]
    pub brief: bool,
    /// Where bench/peers/install put the peers that are not system packages.
    #[arg(long, default_value = kit::FOLDER, value_name = "FOLDER")]
    pub kit: PathBuf,
    /// Write the report here as JSON; `bench report` makes a page of it.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

pub fn main(options: &Options) -> anyhow::Result<ExitCode> {
    ending::end_all_on_signal()?;
    let outcome = run(options)?;
    report::print(false, &outcome, &outcome.lines(Detail::Brief))?;
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&outcome)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if outcome.sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the course for everything asked for that is here.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let names = || std::iter::once(BARE).chain(PEERS.iter().map(|peer| peer.name()));
    for asked in &options.only {
        ensure!(
            names().any(|name| name == asked),
            "no peer `{asked}`; known: {}",
            names().collect::<Vec<_>>().join(", ")
        );
    }
    let most = sockets::connections_per_process()?;
    // Node.js and nginx hold pipes and sets besides; a tenth of the limit is more than any of them takes.
    ensure!(
        (100..=most / 10 * 9).contains(&options.connections),
        "--connections must be 100 to {}: nine tenths of the open-files limit",
        most / 10 * 9
    );
    let is_asked = |name: &str| options.only.is_empty() || options.only.iter().any(|asked| asked == name);
    let (mut report, kit, started_ns) = (Report::new("peers"), Kit::new(options.kit.clone()), clock::now_ns());
    report.commands.push(std::env::args().collect::<Vec<_>>().join(" "));
    let (course, mut rows) = (Course::new(options), Vec::new());
    if is_asked(BARE) {
        ending::say("bare loop …");
        rows.push(course.bare(&mut report).context("the bare loop")?);
    }
    for peer in PEERS.into_iter().filter(|peer| is_asked(peer.name())) {
        let program = match peer.find(&kit) {
            Ok(program) => program,
            Err(missing) => {
                ending::say(&format!("{}: skipped: {missing}", peer.name()));
                report.skipped.push(format!("{}: {missing}", peer.name()));
                continue;
            }
        };
        ending::say(&format!("{} {} …", peer.name(), program.version));
        // A peer that fails is a line of the report; the others still run.
        match course.run(peer, &program, &kit, &mut report) {
            Ok(row) => rows.push(row),
            Err(error) => report.fault(format!("{}: {error:#}", peer.name())),
        }
    }
    table::fill(options, &rows, &mut report);
    report.seconds = (clock::now_ns() - started_ns) as f64 / 1e9;
    report.conclude();
    Ok(report)
}
