//! One process of the real binary: started on free ports, found by its start line, ended by its id.
//! Invariant: no process outlives its `Server`.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use super::front::{self, Balance, Front, Kind};
use super::{Api, Metrics, PATIENCE, until};

/// A running `tidegate`.
pub struct Server {
    child: Child,
    log: NamedTempFile,
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// Where clients connect; none for `logic`.
    clients: Option<SocketAddr>,
    /// The push API; none for `gateway`.
    api: Option<SocketAddr>,
    /// The gateway's HTTP/2 side; none in `serve`.
    backplane: Option<SocketAddr>,
    /// The gateway's health and metrics; none in `serve`.
    ops: Option<SocketAddr>,
    /// Whether the push API speaks TLS.
    is_api_tls: bool,
    /// The proxy before it, when `TIDEGATE_TEST_FRONT` asks for one.
    front: OnceLock<Front>,
}

const ANY_PORT: &str = "127.0.0.1:0";

impl Server {
    /// Both tiers in one process. `env` names keys as `TIDEGATE_…`.
    pub async fn serve(env: &[(&str, &str)]) -> Self {
        let server = Self::start(&["serve", "--listen", ANY_PORT, "--api", ANY_PORT], &behind_front(env));
        server.found(&["clients", "api"]).await
    }

    /// The same, as soon as the start line is there.
    pub async fn serve_at_once(env: &[(&str, &str)]) -> Self {
        Self::start(&["serve", "--listen", ANY_PORT, "--api", ANY_PORT], env).located(&["clients", "api"]).await
    }

    /// A gateway of its own.
    pub async fn gateway(name: &str, env: &[(&str, &str)]) -> Self {
        let mut all = vec![("TIDEGATE_GATEWAY__NAME", name)];
        all.extend(behind_front(env));
        let args = ["gateway", "--listen", ANY_PORT, "--backplane", ANY_PORT, "--ops", ANY_PORT];
        Self::start(&args, &all).found(&["clients", "backplane", "ops"]).await
    }

    /// The same without a logic node, which lets clients in all the same.
    pub async fn gateway_alone(name: &str, env: &[(&str, &str)]) -> Self {
        let alone = [env, &[("TIDEGATE_GATEWAY__HANDSHAKE__BEFORE_LOGIC", "admit")]].concat();
        let gateway = Self::gateway(name, &alone).await;
        gateway.stand_behind_a_front().await;
        gateway
    }

    /// A logic node over these gateways.
    pub async fn logic(gateways: &[&Self], env: &[(&str, &str)]) -> Self {
        let urls: Vec<String> = gateways.iter().map(|gateway| format!("http://{}", gateway.backplane())).collect();
        let logic = Self::logic_of(&urls, env).await;
        for gateway in gateways {
            gateway.stand_behind_a_front().await;
        }
        logic
    }

    /// A logic node over the gateways at these backplane URLs.
    pub async fn logic_of(urls: &[String], env: &[(&str, &str)]) -> Self {
        Self::start_logic(urls, env).found(&["api"]).await
    }

    /// The same where no gateway will let it in.
    pub async fn logic_unready(urls: &[String], env: &[(&str, &str)]) -> Self {
        Self::start_logic(urls, env).located(&["api"]).await
    }

    fn start_logic(urls: &[String], env: &[(&str, &str)]) -> Self {
        let mut args = vec!["logic".to_owned(), "--api".to_owned(), ANY_PORT.to_owned()];
        for url in urls {
            args.extend(["--gateway".to_owned(), url.clone()]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Self::start(&args, env)
    }

    /// A gateway and a logic node, for what only a gateway's own metrics show.
    pub async fn pair(env: &[(&str, &str)]) -> (Self, Self) {
        let gateway = Self::gateway("g1", env).await;
        let logic = Self::logic(&[&gateway], env).await;
        (gateway, logic)
    }

    fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let args = args.iter().map(|&a| a.to_owned()).collect();
        let env = env.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Self::spawn(args, env)
    }

    fn spawn(args: Vec<String>, env: Vec<(String, String)>) -> Self {
        let log = NamedTempFile::new().expect("the temporary folder is writable");
        // Appended to from both streams; two cursors would write over each other.
        let append = || OpenOptions::new().append(true).open(log.path()).expect("the log was just made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("TIDEGATE_")) {
            command.env_remove(key);
        }
        command.args(&args).envs(env.iter().map(|(k, v)| (k, v))).current_dir(std::env::temp_dir());
        command.stdin(Stdio::null()).stdout(append()).stderr(append());
        let child = command.spawn().expect("the binary was built");
        Self {
            child,
            log,
            args,
            env,
            clients: None,
            api: None,
            backplane: None,
            ops: None,
            is_api_tls: false,
            front: OnceLock::new(),
        }
    }

    /// Waits for the start line's addresses.
    async fn located(mut self, wanted: &[&str]) -> Self {
        until("a start line with every address", PATIENCE, async || {
            let log = self.log_text();
            let either = |plain, tls| address_after(&log, plain).or_else(|| address_after(&log, tls));
            self.clients = either("clients ws://", "clients wss://");
            self.api = either("push API http://", "push API https://");
            self.is_api_tls = log.contains("push API https://");
            self.backplane = address_after(&log, "backplane ");
            self.ops = address_after(&log, "ops http://");
            let ended = self.child.try_wait().expect("the child is ours");
            assert!(ended.is_none(), "{:?} ended at once: {ended:?}\n{log}", self.args);
            wanted
                .iter()
                .all(|&w| match w {
                    "clients" => self.clients.is_some(),
                    "api" => self.api.is_some(),
                    "backplane" => self.backplane.is_some(),
                    _ => self.ops.is_some(),
                })
                .then_some(())
        })
        .await;
        self
    }

    /// Waits for the start line's addresses, and for readiness. A gateway is ready once a logic node is linked, so its
    /// clients wait for that, and not this.
    async fn found(self, wanted: &[&str]) -> Self {
        let found = self.located(wanted).await;
        if found.api.is_some() {
            found.ready().await;
            found.stand_behind_a_front().await;
        }
        found
    }

    /// Puts a proxy before this process, where one is asked for, once it is ready: a proxy that looks passes nobody on before.
    pub async fn stand_behind_a_front(&self) {
        let Some(kind) = Kind::asked_for().filter(|_| self.front.get().is_none()) else { return };
        self.ready().await;
        let gateways: Vec<_> = self.clients.iter().map(|_| front::of(self)).collect();
        let apis: Vec<_> = self.api.into_iter().collect();
        let _ = self.front.set(Front::start(kind, Balance::LeastConnections, &gateways, &apis).await);
    }

    /// Waits until `/readyz` says yes: a gateway, until a logic node has told it what it wants.
    pub async fn ready(&self) {
        if self.is_api_tls && self.ops.is_none() {
            // It listens, or there would be no start line; what it says is the test's to read.
            return;
        }
        let health = self.health();
        until("readiness", PATIENCE, async || {
            let answer = Api::try_connect(health).await?.try_get("/readyz").await?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// Where clients connect: the proxy before this process, if there is one.
    pub fn clients(&self) -> SocketAddr {
        self.front.get().map_or_else(|| self.direct_clients(), Front::clients)
    }

    /// Where this process itself takes clients.
    pub fn direct_clients(&self) -> SocketAddr {
        self.clients.expect("this process takes clients")
    }

    /// The push API: of the proxy before this process, if there is one.
    pub fn api(&self) -> SocketAddr {
        let direct = self.direct_api();
        self.front.get().map_or(direct, Front::api)
    }

    /// The push API of this process itself.
    pub fn direct_api(&self) -> SocketAddr {
        self.api.expect("this process has a push API")
    }

    /// The backplane.
    pub fn backplane(&self) -> SocketAddr {
        self.backplane.expect("this process has a backplane")
    }

    /// Where `/readyz` and `/metrics` are.
    pub fn health(&self) -> SocketAddr {
        self.ops.or(self.api).expect("every process has a health address")
    }

    /// A keep-alive connection to the push API.
    pub async fn connect_api(&self) -> Api {
        Api::connect(self.api()).await
    }

    /// The metrics now.
    pub async fn metrics(&self) -> Metrics {
        let answer = Api::connect(self.health()).await.get("/metrics").await;
        assert_eq!(answer.status, 200, "metrics are served");
        Metrics::parse(&answer.text())
    }

    /// Resident memory now, in bytes.
    pub fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process lives");
        let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).and_then(|l| l.split_whitespace().next());
        kib.and_then(|n| n.parse::<u64>().ok()).expect("VmRSS is a number of KiB") * 1024
    }

    /// Processor time so far, all threads.
    pub fn cpu(&self) -> Duration {
        let fields = self.stat();
        // utime and stime, the 14th and 15th fields of which the first two are cut off, in ticks of 10 ms.
        let ticks = |at: usize| fields[at].parse::<u64>().expect("a count of ticks");
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// The same once the process has ended; its account stays until [`Server::exit`] is asked for.
    pub async fn cpu_at_its_end(&self, patience: Duration) -> Duration {
        until("the process to end", patience, async || (self.stat()[0] == "Z").then(|| self.cpu())).await
    }

    /// `/proc/PID/stat` from the state on.
    fn stat(&self) -> Vec<String> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the child is not reaped");
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks the process to leave.
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the process lives");
    }

    /// Has the process read its configuration again.
    pub fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("the process lives");
    }

    /// Ends the process without a word, as `kill -9` does.
    pub fn kill(&mut self) {
        match self.child.kill() {
            Err(e) if e.kind() != ErrorKind::InvalidInput => panic!("cannot kill: {e}"),
            _ => {}
        }
        self.child.wait().expect("the child is ours");
    }

    /// Starts the same process again at the same addresses.
    pub async fn restart(mut self) -> Self {
        self.kill();
        let addresses =
            [("--listen", self.clients), ("--api", self.api), ("--backplane", self.backplane), ("--ops", self.ops)];
        let mut args = std::mem::take(&mut self.args);
        for (flag, address) in addresses {
            if let (Some(at), Some(address)) = (args.iter().position(|a| a == flag), address) {
                args[at + 1] = address.to_string();
            }
        }
        let wanted: Vec<&str> =
            [("clients", self.clients), ("api", self.api), ("backplane", self.backplane), ("ops", self.ops)]
                .iter()
                .filter_map(|&(name, address)| address.map(|_| name))
                .collect();
        let again = Self::spawn(args, std::mem::take(&mut self.env)).found(&wanted).await;
        if self.front.get().is_some() {
            again.stand_behind_a_front().await;
        }
        again
    }

    /// The exit status, once it ends by itself.
    pub async fn exit(&mut self, patience: Duration) -> ExitStatus {
        until("the process to end", patience, async || self.child.try_wait().expect("the child is ours")).await
    }

    /// Everything printed so far.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log_text();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!("--- {:?} said last", self.args);
            tail.iter().rev().for_each(|line| eprintln!("    {line}"));
        }
        // Already gone is fine here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The settings of a test, with what a gateway must know of the proxy before it.
fn behind_front<'a>(env: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let of_front = Kind::asked_for().map(Kind::gateway_settings);
    of_front.into_iter().flatten().chain(env.iter().copied()).collect()
}

/// The socket address that follows `marker`; the latest one with a real port.
fn address_after(log: &str, marker: &str) -> Option<SocketAddr> {
    log.match_indices(marker)
        .filter_map(|(at, _)| {
            let rest = &log[at + marker.len()..];
            let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c))).unwrap_or(rest.len());
            rest[..end].parse::<SocketAddr>().ok().filter(|a| a.port() != 0)
        })
        .last()
}
