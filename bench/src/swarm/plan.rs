//! Who the clients of a swarm are: addresses, names, rooms, the upgrade request of each.
//! Knows nothing of sockets; the ledger and the worker ask it. Everything follows from a client's global number.

use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};

use anyhow::{Context as _, bail, ensure};

use super::mint::Mint;
use crate::dialect::head;
use crate::dialect::{Dialect, Tidegate};
use crate::pattern::Pattern;

#[derive(Clone, Debug)]
pub struct Plan {
    pub target: SocketAddrV4,
    host: String,
    path: String,
    /// What the server speaks.
    pub dialect: &'static dyn Dialect,
    pub user: Option<Pattern>,
    pub platform: Option<String>,
    /// Tokens, instead of names in the query.
    pub mint: Option<Mint>,
    pub rooms: Vec<Pattern>,
    /// Publishers numbered 0..this are checked.
    pub publishers: usize,
    pub from_zero: bool,
    pub stalled_every: Option<u64>,
    /// Receive buffer of every client socket; the system's default when `None`.
    pub receive_bytes: Option<usize>,
    /// Offer permessage-deflate, and take nothing else for an answer.
    pub deflate: bool,
    /// One client in this many is timed; the first and the last always.
    pub sample_every: u64,
    /// Clients of the whole swarm, over all processes.
    pub total: u64,
    /// Connects per second over this process; unlimited when `None`.
    pub connect_rate: Option<f64>,
    /// Sockets end by RST however they end, the process's death included: no TIME_WAIT.
    pub abortive: bool,
    /// Nobody is dialled until told.
    pub paused: bool,
}

/// A constant key is fine: the server cannot tell, and the answer is known in advance (RFC 6455 section 1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Both sides start every message afresh, so that frames can be compared and shared.
const DEFLATE_OFFER: &str =
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
/// What an answer to it must say; a server that keeps its context would send frames that no other client can read.
pub const DEFLATE_ANSWER: [&str; 2] = ["permessage-deflate", "server_no_context_takeover"];
pub const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// `ws://host:port/path` → address, Host header, path.
pub fn parse_url(url: &str) -> anyhow::Result<(SocketAddrV4, String, String)> {
    let rest = url.strip_prefix("ws://").with_context(|| format!("`{url}` does not begin with ws://"))?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let address =
        host.to_socket_addrs().with_context(|| format!("`{host}` has no address"))?.find_map(|address| match address {
            SocketAddr::V4(address) => Some(address),
            SocketAddr::V6(_) => None,
        });
    let Some(address) = address else { bail!("`{host}` has no IPv4 address") };
    ensure!(!path.contains(['?', '#']), "`{url}`: the query is the swarm's to write");
    Ok((address, host.to_owned(), path.to_owned()))
}

impl Plan {
    pub fn new(url: &str, total: u64) -> anyhow::Result<Self> {
        let (target, host, path) = parse_url(url)?;
        Ok(Self {
            target,
            host,
            path,
            dialect: &Tidegate,
            user: None,
            platform: None,
            mint: None,
            rooms: Vec::new(),
            publishers: 4,
            from_zero: true,
            stalled_every: None,
            receive_bytes: None,
            deflate: false,
            sample_every: 50,
            total,
            connect_rate: None,
            abortive: false,
            paused: false,
        })
    }

    /// The upgrade request of client `index`.
    pub fn request(&self, index: u64) -> Vec<u8> {
        let mut query = Vec::new();
        query.extend(self.dialect.query().map(str::to_owned));
        let mut token = String::new();
        match (&self.mint, &self.user) {
            (Some(mint), Some(user)) => {
                let bearer = mint.token(index, &user.name(index), self.platform.as_deref());
                token = format!("Authorization: Bearer {bearer}\r\n");
            }
            (_, user) => {
                query.extend(user.as_ref().map(|user| format!("user={}", user.name(index))));
                query.extend(self.platform.as_ref().map(|platform| format!("platform={platform}")));
            }
        }
        let mark = if query.is_empty() { "" } else { "?" };
        let offer = if self.deflate { DEFLATE_OFFER } else { "" };
        let subprotocol = self.dialect.subprotocol();
        let subprotocol = subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
        let (path, query, host) = (&self.path, query.join("&"), &self.host);
        format!(
            "GET {path}{mark}{query} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{subprotocol}{offer}{token}\r\n"
        )
        .into_bytes()
    }

    pub fn rooms(&self, index: u64) -> Vec<String> {
        self.rooms.iter().map(|room| room.name(index)).collect()
    }

    /// The JOIN of client `index`, framed; `None` when it joins nothing.
    pub fn join(&self, index: u64) -> Option<Vec<u8>> {
        Some(self.frame(&self.dialect.join(&self.rooms(index))?))
    }

    /// What a client says right behind the 101, framed.
    pub fn opening(&self) -> Option<Vec<u8>> {
        Some(self.frame(&self.dialect.opening()?))
    }

    /// The answer to a probe, framed.
    pub fn pong(&self) -> Vec<u8> {
        self.frame(self.dialect.pong())
    }

    fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        head::write_masked(&mut frame, self.dialect.opcode(), payload);
        frame
    }

    /// Whether a push to `audience` is for client `index`.
    pub fn is_member(&self, index: u64, audience: &str) -> bool {
        match audience.split_once(':') {
            Some(("room", room)) => self.rooms.iter().any(|pattern| pattern.name(index) == room),
            Some(("user", user)) => self.user.as_ref().is_some_and(|pattern| pattern.name(index) == user),
            _ => audience == "all",
        }
    }

    /// Whether client `index` is timed. Scattered, so that the sample is not one bucket of the server.
    pub fn is_sampled(&self, index: u64) -> bool {
        let scattered = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        index == 0 || index + 1 == self.total || scattered.is_multiple_of(self.sample_every)
    }

    pub fn is_stalled_from_start(&self, index: u64) -> bool {
        self.stalled_every.is_some_and(|every| stalls(index, every))
    }
}

/// Whether client `index` is among one in `every`; never the first, which is always timed.
pub fn stalls(index: u64, every: u64) -> bool {
    every > 0 && index % every == every - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let mut plan = Plan::new("ws://127.0.0.1:8000/ws", 10_000).expect("a plan");
        plan.user = Some("u{i}".parse().expect("a pattern"));
        plan.platform = Some("web".to_owned());
        plan.rooms = vec!["all-hands".parse().expect("a pattern"), "r{i%10}".parse().expect("a pattern")];
        plan
    }

    #[test]
    fn a_request_names_its_client() {
        let request = String::from_utf8(plan().request(42)).expect("ASCII");

        assert!(request.starts_with("GET /ws?user=u42&platform=web HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n"));
    }

    #[test]
    fn audiences_are_who_joined() {
        let plan = plan();

        assert!(plan.is_member(42, "all") && plan.is_member(42, "room:r2") && plan.is_member(42, "user:u42"));
        assert!(!plan.is_member(42, "room:r3") && !plan.is_member(42, "user:u4") && !plan.is_member(42, "nobody"));
    }

    #[test]
    fn the_sample_is_about_one_in_fifty_and_holds_both_ends() {
        let plan = plan();

        let sampled = (0..10_000).filter(|index| plan.is_sampled(*index)).count();

        assert!((150..250).contains(&sampled), "{sampled}");
        assert!(plan.is_sampled(0) && plan.is_sampled(9_999));
    }
}
