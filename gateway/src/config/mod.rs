//! What an operator may set on a gateway; the section `[gateway]` of the configuration file.
//! Plain values with their defaults; durations in milliseconds, sizes in bytes. The meaning of each key stands on
//! its field, and a tidy test holds that `docs/reference/configuration.md` lists every one. Parsing and precedence live in the binary.

mod auth;
mod before_logic;
mod compat;
mod devices;
mod hook;
mod open;
mod presence;
mod proxy;
pub(crate) mod settings;
mod uplink;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tidegate_tls::{MutualTlsConfig, TlsConfig};

pub use self::auth::{AuthConfig, AuthMode, KeyConfig, TokenAlgorithm};
pub use self::before_logic::BeforeLogic;
pub use self::compat::CompatConfig;
pub use self::devices::{DevicePolicy, DevicesConfig, PLATFORMS_MAX};
pub use self::hook::HookConfig;
pub use self::open::{Freedom, OpenConfig, OpenGrantConfig};
pub use self::presence::PresenceConfig;
pub use self::proxy::{ProxyConfig, ProxyProtocol};
pub use self::uplink::UplinkConfig;

/// Everything a gateway can be told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where logic nodes connect (HTTP/2).
    pub backplane: SocketAddr,
    /// Where `/healthz`, `/readyz` and `/metrics` are served when the gateway is a process of its own.
    pub ops: SocketAddr,
    /// Name in receipts and metrics; empty: derived from the listen address.
    pub name: String,
    /// Gateway part of connection ids, unique in the fleet; 0: random at each start.
    pub id: u16,
    /// Number of buckets; 0: 32 a core, 64 to 1,024.
    pub buckets: usize,
    /// Most connections; 0: the open-files limit less a reserve of 256.
    pub connections_max: usize,
    /// Origins that browsers may come from: exact, `https://*.example.com`, `http://localhost:*`, or `*`.
    pub allowed_origins: Vec<String>,
    /// Shared secret that logic must present on the backplane; empty: none (loopback only).
    pub backplane_secret: String,
    /// Certificate of the client listener; none: no TLS.
    pub tls: TlsConfig,
    /// Certificates of the backplane, where both ends prove who they are; none: no TLS.
    pub backplane_tls: MutualTlsConfig,
    /// The proxies in front.
    pub proxy: ProxyConfig,
    /// Answer every text and binary message with itself, for conformance suites.
    pub echo: bool,
    /// Handshake bounds.
    pub handshake: HandshakeConfig,
    /// How clients prove who they are.
    pub auth: AuthConfig,
    /// What clients may do that need to prove nothing.
    pub open: OpenConfig,
    /// One user, many devices.
    pub devices: DevicesConfig,
    /// The merge window.
    pub merge: MergeConfig,
    /// Signs of life.
    pub heartbeat: HeartbeatConfig,
    /// What may wait for one connection.
    pub pending: PendingConfig,
    /// What one client may send and join.
    pub limits: LimitsConfig,
    /// Who is told who comes to and leaves a room.
    pub presence: PresenceConfig,
    /// Compression of messages.
    pub deflate: DeflateConfig,
    /// Older dialects of clients.
    pub compat: CompatConfig,
    /// What clients say, on its way to logic.
    pub uplink: UplinkConfig,
    /// Whether a connect hook must have been asked.
    pub hook: HookConfig,
    /// The threads that write.
    pub fanout: FanoutConfig,
    /// How a gateway leaves.
    pub drain: DrainConfig,
    /// Advice to clients for coming back.
    pub reconnect: ReconnectConfig,
}

/// `[gateway.handshake]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HandshakeConfig {
    /// From accept to a complete request head.
    pub deadline_ms: u32,
    /// Largest request head, in bytes.
    pub head_bytes: usize,
    /// Most handshakes in flight; for one more the oldest unfinished head is answered 503.
    pub in_flight: usize,
    /// Most TLS handshakes in flight; for one more the oldest is hung up on.
    pub tls_in_flight: usize,
    /// Tasks that accept and shake hands; 0: one a core.
    pub lobbies: usize,
    /// Most connections accepted a second; 0: 30,000 a core. Beyond it they wait in the kernel, then are answered 503.
    pub rate_max: u32,
    /// How late timers may run before fewer are accepted.
    pub lag_ms: u32,
    /// What becomes of clients that come before a logic node has said what it wants to hear.
    pub before_logic: BeforeLogic,
}

/// `[gateway.merge]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MergeConfig {
    /// Shortest window; also the tick. Equal to `max_ms`: a fixed interval.
    pub min_ms: u32,
    /// Longest window.
    pub max_ms: u32,
    /// Messages that make a target flush early.
    pub messages: usize,
    /// Bytes of messages that make a target flush early.
    pub bytes: usize,
}

/// `[gateway.heartbeat]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeartbeatConfig {
    /// Silence before the server pings (±20 %).
    pub idle_ms: u32,
    /// Wait for an answer before it closes.
    pub pong_ms: u32,
}

/// `[gateway.pending]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PendingConfig {
    /// Most unsent bytes of one connection.
    pub bytes: usize,
    /// Longest time without progress while something waits; beyond it the connection is closed as slow.
    pub age_ms: u32,
    /// Most unsent bytes of one connection in the kernel (TCP_NOTSENT_LOWAT).
    pub kernel_bytes: u32,
}

/// `[gateway.limits]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Largest message of a client, in bytes, fragments together.
    pub message_bytes: usize,
    /// Most fragments of one message.
    pub fragments: u32,
    /// Longest time from the first byte of a message to its last.
    pub message_ms: u32,
    /// Most bytes of unfinished messages of all connections together; beyond it whoever held most for longest goes.
    pub partial_bytes_total: usize,
    /// Most rooms of one connection.
    pub rooms: usize,
    /// Most control frames of one connection a second.
    pub control_per_s: u32,
    /// Most rooms at this gateway.
    pub rooms_total: usize,
    /// Requests of one connection a second, in the long run; 0: not limited.
    pub requests_per_s: u32,
    /// The same at once.
    pub requests_burst: u32,
    /// SENDs of one user on all its connections here a second, in the long run; 0: not limited.
    pub user_sends_per_s: u32,
    /// The same at once.
    pub user_sends_burst: u32,
}

/// `[gateway.deflate]`: permessage-deflate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeflateConfig {
    /// 1 (fast) to 9 (small); 0: no client gets it.
    pub level: u8,
    /// Frames below this leave as they are.
    pub min_bytes: usize,
    /// Most bytes that a byte from a client may inflate to.
    pub ratio_max: u32,
}

/// How fan-out threads write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WriterKind {
    /// By io_uring where it works, else by `send`.
    #[default]
    Auto,
    /// One system call a connection.
    Send,
    /// One system call for up to 256 connections; the gateway does not start where it does not work.
    IoUring,
}

/// `[gateway.fanout]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FanoutConfig {
    /// Threads that write; 0: one a core.
    pub threads: usize,
    /// How they write.
    pub writer: WriterKind,
    /// Most bytes of encoded batches not yet walked; beyond it the backplane waits.
    pub bytes: usize,
}

/// `[gateway.drain]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// Time between readiness off and the first close, for load balancers to notice.
    pub delay_ms: u32,
    /// Time over which closes are spread, at least; and exactly, while no logic node says what the other gateways can take.
    pub spread_ms: u32,
    /// The same, at most, however little the others can take.
    pub spread_max_ms: u32,
}

/// `[gateway.reconnect]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReconnectConfig {
    /// First delay.
    pub base_ms: u32,
    /// Longest delay.
    pub max_ms: u32,
    /// Random part of each delay, in percent.
    pub jitter_percent: u8,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            backplane: SocketAddr::from(([127, 0, 0, 1], 8002)),
            ops: SocketAddr::from(([127, 0, 0, 1], 8003)),
            name: String::new(),
            id: 0,
            buckets: 0,
            connections_max: 0,
            allowed_origins: vec!["http://localhost:*".into(), "http://127.0.0.1:*".into()],
            backplane_secret: String::new(),
            tls: TlsConfig::default(),
            backplane_tls: MutualTlsConfig::default(),
            proxy: ProxyConfig::default(),
            echo: false,
            handshake: HandshakeConfig::default(),
            auth: AuthConfig::default(),
            open: OpenConfig::default(),
            devices: DevicesConfig::default(),
            merge: MergeConfig::default(),
            heartbeat: HeartbeatConfig::default(),
            pending: PendingConfig::default(),
            limits: LimitsConfig::default(),
            presence: PresenceConfig::default(),
            deflate: DeflateConfig::default(),
            compat: CompatConfig::default(),
            uplink: UplinkConfig::default(),
            hook: HookConfig::default(),
            fanout: FanoutConfig::default(),
            drain: DrainConfig::default(),
            reconnect: ReconnectConfig::default(),
        }
    }
}

impl Default for HandshakeConfig {
    fn default() -> Self {
        Self {
            deadline_ms: 5_000,
            // A token of the greatest length fits beside a browser's other headers.
            head_bytes: 16 * 1024,
            in_flight: 16_384,
            tls_in_flight: 4_096,
            lobbies: 0,
            rate_max: 0,
            lag_ms: 50,
            before_logic: BeforeLogic::Wait,
        }
    }
}

impl Default for MergeConfig {
    fn default() -> Self {
        Self { min_ms: 20, max_ms: 1_000, messages: 1_024, bytes: 128 * 1024 }
    }
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { idle_ms: 25_000, pong_ms: 8_000 }
    }
}

impl Default for PendingConfig {
    fn default() -> Self {
        Self { bytes: 256 * 1024, age_ms: 10_000, kernel_bytes: 128 * 1024 }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            message_bytes: 64 * 1024,
            fragments: 1_024,
            message_ms: 30_000,
            partial_bytes_total: 64 * 1024 * 1024,
            rooms: 100,
            control_per_s: 50,
            rooms_total: 1_000_000,
            requests_per_s: 50,
            requests_burst: 200,
            user_sends_per_s: 30,
            user_sends_burst: 60,
        }
    }
}

impl Default for DeflateConfig {
    fn default() -> Self {
        Self { level: 6, min_bytes: 256, ratio_max: 200 }
    }
}

impl Default for FanoutConfig {
    fn default() -> Self {
        Self { threads: 0, writer: WriterKind::Auto, bytes: 64 * 1024 * 1024 }
    }
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { delay_ms: 0, spread_ms: 5_000, spread_max_ms: 60_000 }
    }
}

impl Default for ReconnectConfig {
    fn default() -> Self {
        Self { base_ms: 500, max_ms: 20_000, jitter_percent: 50 }
    }
}

impl GatewayConfig {
    /// TCP_USER_TIMEOUT: how long written bytes may go unacknowledged before the kernel ends the connection. Below
    /// `idle_ms + pong_ms` (rule L-3), and above what the slow-consumer policy takes to act and be heard.
    #[must_use]
    pub fn user_timeout_ms(&self) -> u32 {
        let silence = self.heartbeat.idle_ms.saturating_add(self.heartbeat.pong_ms / 2);
        silence.max(self.pending.age_ms.saturating_mul(2).saturating_add(1_000))
    }

    /// Says what contradicts itself, in the operator's words; empty when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.merge.min_ms == 0 || self.merge.min_ms > self.merge.max_ms || self.merge.max_ms > 1_000 {
            out.push("gateway.merge: 1 <= min_ms <= max_ms <= 1000 is needed".into());
        }
        if self.merge.messages == 0 || self.merge.bytes == 0 {
            out.push("gateway.merge: messages and bytes must be at least 1".into());
        }
        if self.heartbeat.idle_ms < 1_000 || self.heartbeat.pong_ms < 1_000 {
            out.push("gateway.heartbeat: idle_ms and pong_ms must be at least 1000".into());
        }
        if self.pending.bytes < 4_096 || self.pending.age_ms < 100 {
            out.push("gateway.pending: bytes must be at least 4096 and age_ms at least 100".into());
        }
        if self.limits.message_bytes < 125 || self.limits.fragments == 0 || self.limits.message_ms < 100 {
            out.push("gateway.limits: message_bytes >= 125, fragments >= 1 and message_ms >= 100 are needed".into());
        }
        if self.handshake.head_bytes < 512 || self.handshake.deadline_ms < 100 || self.handshake.in_flight == 0 {
            out.push("gateway.handshake: head_bytes >= 512, deadline_ms >= 100 and in_flight >= 1 are needed".into());
        }
        if self.deflate.level > 9 || self.deflate.ratio_max == 0 {
            out.push("gateway.deflate: level 0 to 9 and ratio_max >= 1 are needed".into());
        }
        self.presence.problems(self.merge.min_ms, &mut out);
        if self.handshake.lag_ms < 5 {
            out.push("gateway.handshake.lag_ms: at least 5, because timers tick in milliseconds".into());
        }
        if self.buckets > usize::from(u16::MAX) {
            out.push("gateway.buckets: at most 65535".into());
        }
        self.auth.problems(&mut out);
        self.open.grant.problems(&mut out);
        self.devices.problems(&mut out);
        if self.handshake.tls_in_flight == 0 {
            out.push("gateway.handshake.tls_in_flight: at least 1".into());
        }
        self.tls.problems("gateway.tls", &mut out);
        self.backplane_tls.problems("gateway.backplane_tls", &mut out);
        self.proxy.problems(&mut out);
        out
    }
}
