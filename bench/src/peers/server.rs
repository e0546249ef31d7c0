//! The processes of one peer: started in a scratch folder on free loopback ports, ready when a handshake succeeds,
//! accounted for with all their children, ended with all their children.
//! Invariant: whatever was started is gone when [`Server`] is dropped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::Peer;
use super::kit::{Kit, Program};
use crate::process::{self, Usage};
use crate::swarm::plan::Plan;
use crate::{clock, ending, sockets};

const READY: Duration = Duration::from_secs(15);
const STOP: Duration = Duration::from_secs(4);
const DIAL: Duration = Duration::from_secs(2);
/// One file in so many is not for a connection: 500 of 20,000.
const FILES_KEPT: u64 = 40;

/// Where a peer runs.
#[derive(Debug)]
pub struct Site {
    folder: PathBuf,
    modules: PathBuf,
    /// Where clients connect, and where messages are published.
    pub clients: SocketAddr,
    pub publish: SocketAddr,
    pub cores: usize,
    /// Open files that a process started from here may have.
    pub files: u64,
}

/// How a peer is started.
#[derive(Debug)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
}

pub struct Server {
    child: Child,
    site: Site,
    /// The peer's, which is its dialect's too.
    pub name: &'static str,
    /// As it could be typed.
    pub command: String,
    pub url: String,
}

impl Site {
    fn new(name: &str, kit: &Kit) -> anyhow::Result<Self> {
        let folder = ending::scratch(&format!("peer-{name}"))?;
        let (clients, publish) = (sockets::free_address()?, sockets::free_address()?);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let files = sockets::connections_per_process()? + sockets::FILES_SPARE;
        Ok(Self { folder, modules: kit.modules(), clients, publish, cores, files })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts the site's addresses into a configuration: `{clients}`, `{clients_port}`, `{publish}`, `{publish_port}`,
    /// `{cores}`, `{folder}`, `{files}`, and `{connections}`: files less a few for logs, pipes and listeners.
    pub fn fill(&self, template: &str) -> String {
        let (clients, publish) = (self.clients, self.publish);
        let words = [
            ("{clients}", clients.to_string()),
            ("{clients_port}", clients.port().to_string()),
            ("{publish}", publish.to_string()),
            ("{publish_port}", publish.port().to_string()),
            ("{cores}", self.cores.to_string()),
            ("{folder}", self.folder.display().to_string()),
            ("{files}", self.files.to_string()),
            ("{connections}", (self.files - self.files / FILES_KEPT).to_string()),
        ];
        words.iter().fold(template.to_owned(), |text, (word, value)| text.replace(word, value))
    }

    /// Writes a file into the folder; its path.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.display().to_string())
    }
}

impl Launch {
    pub fn new(program: &Program) -> Self {
        Self { program: program.path.clone(), arguments: Vec::new(), environment: BTreeMap::new() }
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// What the shipped servers for Node.js read from their environment.
    pub fn node(mut self, site: &Site) -> Self {
        let values = [
            ("NODE_PATH", site.modules.display().to_string()),
            ("NODE_ENV", "production".to_owned()),
            ("CLIENTS_PORT", site.clients.port().to_string()),
            ("PUBLISH_PORT", site.publish.port().to_string()),
            ("CORES", site.cores.to_string()),
        ];
        self.environment.extend(values.map(|(name, value)| (name.to_owned(), value)));
        self
    }
}

impl Server {
    pub fn start(peer: &'static dyn Peer, program: &Program, kit: &Kit) -> anyhow::Result<Self> {
        let site = Site::new(peer.name(), kit)?;
        let launch = peer.launch(program, &site)?;
        let log = File::create(site.folder.join("log"))?;
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).envs(&launch.environment).stdout(log.try_clone()?).stderr(log);
        let child = command.current_dir(&site.folder).spawn();
        let child = child.with_context(|| format!("cannot start {}", launch.program.display()))?;
        let name = launch.program.file_name().unwrap_or_default().to_string_lossy();
        let command = format!("{name} {}", launch.arguments.join(" "));
        let url = format!("ws://{}{}", site.clients, peer.path());
        let mut server = Self { child, site, name: peer.name(), command, url };
        server.wait_until_ready(peer)?;
        Ok(server)
    }

    pub fn publish_url(&self) -> String {
        format!("http://{}", self.site.publish)
    }

    fn wait_until_ready(&mut self, peer: &'static dyn Peer) -> anyhow::Result<()> {
        let mut plan = Plan::new(&self.url, 1)?;
        plan.dialect = peer;
        let deadline_ns = clock::now_ns() + READY.as_nanos() as u64;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.log());
            }
            match shake(self.site.clients, &plan.request(0), self.site.publish) {
                Ok(()) => return Ok(()),
                Err(error) if clock::now_ns() > deadline_ns => {
                    bail!("{} is not ready after {READY:?}: {error:#}: {}", self.name, self.log())
                }
                Err(_) => clock::pause(Duration::from_millis(30)),
            }
        }
    }

    /// The end of what the peer has printed.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.site.folder.join("log")).unwrap_or_default();
        let from = text.len().saturating_sub(600);
        text.get(from..).unwrap_or(&text).trim().to_owned()
    }

    /// CPU and memory of the process and all below it; pages they share count once.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let mut sum = Usage::of(self.child.id()).with_context(|| format!("{} died: {}", self.name, self.log()))?;
        for pid in process::descendants(self.child.id()) {
            // One that ends meanwhile is no longer part of it.
            sum.add(&Usage::of(pid).unwrap_or_default());
        }
        Ok(sum)
    }

    pub fn processes(&self) -> usize {
        1 + process::descendants(self.child.id()).len()
    }
}

/// A whole handshake at the clients' port and a connect at the publishers'.
fn shake(clients: SocketAddr, request: &[u8], publish: SocketAddr) -> anyhow::Result<()> {
    TcpStream::connect_timeout(&publish, DIAL)?;
    let mut stream = TcpStream::connect_timeout(&clients, DIAL)?;
    stream.set_read_timeout(Some(DIAL))?;
    stream.write_all(request)?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    anyhow::ensure!(&status == b"HTTP/1.1 101", "the upgrade was answered {:?}", String::from_utf8_lossy(&status));
    Ok(())
}

impl Drop for Server {
    fn drop(&mut self) {
        let below = process::descendants(self.child.id());
        let pid = |id: u32| Pid::from_raw(id as i32);
        // A process that has ended already cannot be asked to.
        let _ = pid(self.child.id()).map(|pid| kill_process(pid, Signal::TERM));
        clock::until(STOP, || !matches!(self.child.try_wait(), Ok(None)));
        let _ = self.child.kill();
        let _ = self.child.wait();
        for child in below.into_iter().filter(|child| process::is_alive(*child)) {
            let _ = pid(child).map(|pid| kill_process(pid, Signal::KILL));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
