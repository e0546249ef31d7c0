//! A real nginx or HAProxy before the servers of a test, with the configurations that are shipped in `deploy/` and nothing
//! changed in them but addresses, ports and sizes. Each has a loopback address of its own, so that the shipped ports are free.
//! Invariant: no proxy outlives its `Front`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{PATIENCE, Server, until};

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Haproxy,
}

/// Which of the two ways to choose a gateway that a configuration offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    LeastConnections,
    User,
}

/// A running proxy.
pub struct Front {
    child: Child,
    folder: tempfile::TempDir,
    address: Ipv4Addr,
}

/// As the shipped configurations have them.
const CLIENTS_PORT: u16 = 8080;
const API_PORT: u16 = 8081;

impl Kind {
    /// The proxy that `TIDEGATE_TEST_FRONT` asks to stand before every server; none without it.
    pub fn asked_for() -> Option<Self> {
        match std::env::var("TIDEGATE_TEST_FRONT").ok()?.as_str() {
            "" => None,
            "nginx" => Some(Self::Nginx),
            "haproxy" => Some(Self::Haproxy),
            other => panic!("TIDEGATE_TEST_FRONT={other:?}: known are nginx and haproxy"),
        }
    }

    /// The program, if it is installed.
    pub fn program(self) -> Option<&'static str> {
        let name = match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        };
        // Debian keeps both out of a user's path.
        let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
        folders.iter().any(|folder| Path::new(folder).join(name).exists()).then_some(name)
    }

    /// What a gateway behind it must be told.
    pub fn gateway_settings(self) -> [(&'static str, &'static str); 2] {
        let trusted = ("TIDEGATE_GATEWAY__PROXY__TRUSTED", "127.0.0.1");
        match self {
            Self::Nginx => [trusted, ("TIDEGATE_GATEWAY__PROXY__FORWARDED", "true")],
            Self::Haproxy => [trusted, ("TIDEGATE_GATEWAY__PROXY__PROTOCOL", "v1_v2")],
        }
    }

    fn shipped(self) -> &'static str {
        match self {
            Self::Nginx => include_str!("../../deploy/nginx.conf"),
            Self::Haproxy => include_str!("../../deploy/haproxy.cfg"),
        }
    }
}

impl Front {
    /// Starts a proxy before gateways, given with where their `/readyz` is, and logic nodes.
    pub async fn start(
        kind: Kind,
        balance: Balance,
        gateways: &[(SocketAddr, SocketAddr)],
        apis: &[SocketAddr],
    ) -> Self {
        let program = kind.program().unwrap_or_else(|| panic!("{kind:?} is not installed; deploy/install installs it"));
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let address = Ipv4Addr::new(127, fastrand::u8(1..=254), fastrand::u8(..), fastrand::u8(1..=254));
        let text = configuration(kind, balance, address, gateways, apis, folder.path());
        let path = folder.path().join("proxy.conf");
        std::fs::write(&path, text).expect("the temporary folder is writable");
        let path = path.to_str().expect("temporary paths are UTF-8");
        let log = std::fs::File::create(folder.path().join("log")).expect("the temporary folder is writable");
        let mut command = Command::new(program);
        command.env("PATH", "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/bin");
        match kind {
            Kind::Nginx => {
                let pid = folder.path().join("pid");
                let globals = format!("daemon off; master_process off; pid {};", pid.display());
                command.args(["-c", path, "-e", "stderr", "-g", &globals]);
            }
            Kind::Haproxy => {
                command.args(["-db", "-f", path]);
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        let child = command.spawn().expect("the proxy is installed");
        let mut front = Self { child, folder, address };
        until("the proxy to listen", PATIENCE, async || {
            let ended = front.child.try_wait().expect("the child is ours");
            assert!(ended.is_none(), "{kind:?} ended at once: {ended:?}\n{}", front.log_text());
            tokio::net::TcpStream::connect(front.clients()).await.ok()
        })
        .await;
        front
    }

    /// Where clients connect.
    pub fn clients(&self) -> SocketAddr {
        (self.address, CLIENTS_PORT).into()
    }

    /// Where services call.
    pub fn api(&self) -> SocketAddr {
        (self.address, API_PORT).into()
    }

    /// What the proxy has said.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the proxy said: {}", self.log_text());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The shipped text with this test's addresses. Each substitution must find what it replaces.
fn configuration(
    kind: Kind,
    balance: Balance,
    address: Ipv4Addr,
    gateways: &[(SocketAddr, SocketAddr)],
    apis: &[SocketAddr],
    folder: &Path,
) -> String {
    let replaced = |text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{kind:?}: the shipped configuration has no {from:?}");
        text.replace(from, to)
    };
    let mut text = kind.shipped().to_owned();
    // A machine for tests allows few files, and a test needs few.
    for (from, to) in match kind {
        Kind::Nginx => [("worker_rlimit_nofile 262144", "worker_rlimit_nofile 4096"), ("65536;", "2048;")],
        Kind::Haproxy => [("maxconn 100000", "maxconn 2000"), ("0.0.0.0:8080", "0.0.0.0:8080")],
    } {
        text = replaced(&text, from, to);
    }
    text = replaced(&text, &format!("0.0.0.0:{CLIENTS_PORT}"), &format!("{address}:{CLIENTS_PORT}"));
    text = replaced(&text, &format!("127.0.0.1:{API_PORT}"), &format!("{address}:{API_PORT}"));
    if kind == Kind::Nginx {
        let scratch = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let scratch: String = scratch.map(|of| format!("{of}_temp_path {}/{of};\n", folder.display())).concat();
        text = replaced(&text, "\nhttp {\n", &format!("\nhttp {{\n{scratch}"));
    }
    if balance == Balance::User {
        let (least, user) = match kind {
            Kind::Nginx => ("least_conn;", "hash $tidegate_user consistent;"),
            Kind::Haproxy => ("balance leastconn\n    # By", "balance url_param user"),
        };
        text = replaced(&text, &format!("# {user}"), user);
        text = replaced(&text, least, &format!("# {least}"));
    }
    let nowhere: SocketAddr = (Ipv4Addr::LOCALHOST, 9).into();
    let gateways = if gateways.is_empty() { &[(nowhere, nowhere)] } else { gateways };
    let apis = if apis.is_empty() { &[nowhere] } else { apis };
    let mut out = String::new();
    for line in text.lines() {
        let is_server = line.trim_start().starts_with("server ");
        if is_server && line.contains("10.0.0.5:8000") {
            for (i, (clients, health)) in gateways.iter().enumerate() {
                let line =
                    line.replace("10.0.0.5:8000", &clients.to_string()).replace("gateway1", &format!("gateway{i}"));
                out += &(line.replace("port 8003", &format!("port {}", health.port())) + "\n");
            }
        } else if is_server && line.contains("10.0.0.7:8001") {
            for (i, api) in apis.iter().enumerate() {
                out +=
                    &(line.replace("10.0.0.7:8001", &api.to_string()).replace("logic1", &format!("logic{i}")) + "\n");
            }
        } else if !(is_server && line.contains("10.0.0.6:8000")) {
            out += line;
            out += "\n";
        }
    }
    out
}

/// Says, past cargo's capture, that a test did nothing.
pub fn skipped(test: &str, kind: Kind) {
    use std::io::Write as _;
    let line = format!("SKIPPED {test}: {kind:?} is not installed; deploy/install installs it\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Where a process takes clients and where it says that it is ready.
pub fn of(server: &Server) -> (SocketAddr, SocketAddr) {
    (server.direct_clients(), server.health())
}
