//! What an operator may set on a logic node; the section `[logic]` of the configuration file.
//! Plain values with their defaults; durations in milliseconds, sizes in bytes. The meaning of each key stands on
//! its field. Parsing and precedence live in the binary. Bounds that both tiers share are in `tidegate_protocol::limits`.

mod agents;
mod gateways;
mod hook;
pub mod keys;
mod moment;
mod page;
mod presence;
mod upstream;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tidegate_protocol::limits::{BACKPLANE_BODY_BYTES_MAX, JSON_DEPTH_MAX, QUERY_PAGE_MAX};
use tidegate_tls::{MutualTlsConfig, TlsConfig};

pub use self::agents::AgentsConfig;
pub use self::gateways::{GATEWAYS_MAX, authority_of, plain, shown};
pub use self::hook::HookConfig;
pub use self::keys::{KEYS_MAX, KeyConfig, Scope, parse_sha256};
pub use self::moment::{Moment, NotAMoment};
pub use self::page::PageConfig;
pub use self::presence::PresenceConfig;
pub use self::upstream::{DeadFull, EVENT_KINDS, EventsConfig, RouteConfig, SinkConfig, UpstreamConfig};

/// Everything a logic node can be told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogicConfig {
    /// Where the push API and the console are served.
    pub api: SocketAddr,
    /// Backplane addresses of the gateways: `http://host:port`, or `https://host:port` with `backplane_tls`.
    pub gateways: Vec<String>,
    /// A file with more of them, one URL a line; empty: none. Read and watched by the binary, which adds them to `gateways`.
    pub gateways_file: String,
    /// Shared secret presented to gateways; empty: none (loopback only).
    pub backplane_secret: String,
    /// Certificate of the API's listener; none: no TLS.
    pub tls: TlsConfig,
    /// Certificates of the backplane, where both ends prove who they are; none: no TLS.
    pub backplane_tls: MutualTlsConfig,
    /// Who may call; empty: everyone (loopback only).
    pub keys: Vec<KeyConfig>,
    /// A TOML file with more of `[[keys]]`; empty: none. Read by the binary, which adds them to `keys`.
    pub keys_file: String,
    /// Names by which the API may be called while there are no keys, beside IP addresses and `localhost`.
    pub allowed_hosts: Vec<String>,
    /// What the page is told.
    pub page: PageConfig,
    /// What one request may ask for.
    pub limits: LimitsConfig,
    /// Deadlines of the API's sockets.
    pub http: HttpConfig,
    /// Remembered `dedupe` keys.
    pub dedupe: DedupeConfig,
    /// Commands to agents.
    pub agents: AgentsConfig,
    /// Who is told who comes and goes.
    pub presence: PresenceConfig,
    /// Who is asked before a client is let in.
    pub hook: HookConfig,
    /// The links to the gateways.
    pub backplane: BackplaneConfig,
    /// Business services and what they are sent.
    pub upstream: UpstreamConfig,
    /// Events for those services.
    pub events: EventsConfig,
}

/// `[logic.limits]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Largest request body; of NDJSON, largest line.
    pub body_bytes: usize,
    /// Largest message.
    pub message_bytes: usize,
    /// Most messages of one push.
    pub messages: usize,
    /// Most targets of one push, those it leaves out included.
    pub targets: usize,
    /// Deepest JSON.
    pub json_depth: usize,
    /// Most pushes of one batch.
    pub batch_pushes: usize,
    /// Largest NDJSON batch in all.
    pub ndjson_bytes: usize,
    /// Most requests answered at once; one more is answered 503.
    pub in_flight: usize,
    /// Most bytes of request bodies held at once; beyond it 503.
    pub bodies_bytes: usize,
    /// Most API connections; beyond it they wait in the listen queue.
    pub connections: usize,
    /// Largest request head.
    pub header_bytes: usize,
    /// Rows of a list page when the caller gives no `limit`.
    pub page: usize,
    /// Most rows of a list page.
    pub page_max: usize,
}

/// `[logic.http]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// From accept, or from a request's first byte, to its complete head.
    pub header_ms: u32,
    /// From an answer to the next complete head: how long a kept connection may idle.
    pub idle_ms: u32,
    /// From a request's head to the end of its body; of NDJSON, longest silence between two reads.
    pub body_ms: u32,
    /// From a request's head to the end of an NDJSON body.
    pub ndjson_ms: u32,
    /// Longest time a peer may refuse to take any byte of an answer.
    pub write_ms: u32,
    /// `timeout_ms` of a push with `wait: "written"` that gives none.
    pub wait_ms: u32,
    /// Largest `timeout_ms`.
    pub wait_ms_max: u32,
    /// How long a shutdown waits for requests in flight.
    pub shutdown_ms: u32,
}

/// Least memory for keys: a few hundred.
const DEDUPE_BYTES_MIN: usize = 256 * 1024;

/// `[logic.dedupe]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DedupeConfig {
    /// How long a key answers with its first receipt.
    pub window_ms: u32,
    /// Most keys remembered; the oldest makes room.
    pub keys_max: usize,
    /// Most memory they take; the oldest makes room.
    pub keys_bytes: usize,
}

/// `[logic.backplane]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackplaneConfig {
    /// Most bytes of pushes that wait for one gateway.
    pub queue_bytes: usize,
    /// Most pushes that wait for one gateway.
    pub queue_pushes: usize,
    /// Longest wait for a gateway's answer, and of a push in the queue.
    pub request_ms: u32,
    /// Silence of a gateway (pings unanswered) after which its link is down.
    pub ping_ms: u32,
    /// How long pushes wait for a lost link before they are failed.
    pub retry_ms: u32,
    /// First delay between two dials (jittered).
    pub dial_base_ms: u32,
    /// Longest delay between two dials.
    pub dial_max_ms: u32,
    /// How long a gateway may hold the request for its events; also how old its figures may be.
    pub hold_ms: u32,
    /// How long a gateway that is taken off the list may drain before it is let go as it is.
    pub leave_ms: u32,
}

impl Default for LogicConfig {
    fn default() -> Self {
        Self {
            api: SocketAddr::from(([127, 0, 0, 1], 8001)),
            gateways: Vec::new(),
            gateways_file: String::new(),
            backplane_secret: String::new(),
            tls: TlsConfig::default(),
            backplane_tls: MutualTlsConfig::default(),
            keys: Vec::new(),
            keys_file: String::new(),
            allowed_hosts: Vec::new(),
            page: PageConfig::default(),
            limits: LimitsConfig::default(),
            http: HttpConfig::default(),
            dedupe: DedupeConfig::default(),
            agents: AgentsConfig::default(),
            presence: PresenceConfig::default(),
            hook: HookConfig::default(),
            backplane: BackplaneConfig::default(),
            upstream: UpstreamConfig::default(),
            events: EventsConfig::default(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            body_bytes: 1024 * 1024,
            message_bytes: 64 * 1024,
            messages: 1_000,
            targets: 10_000,
            json_depth: JSON_DEPTH_MAX,
            batch_pushes: 10_000,
            ndjson_bytes: 64 * 1024 * 1024,
            in_flight: 1_024,
            bodies_bytes: 64 * 1024 * 1024,
            connections: 4_096,
            header_bytes: 16 * 1024,
            page: 100,
            page_max: QUERY_PAGE_MAX,
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            header_ms: 5_000,
            // Longer than common load balancers' 60 s, so that they and not we close an idle connection.
            idle_ms: 75_000,
            body_ms: 10_000,
            ndjson_ms: 60_000,
            write_ms: 10_000,
            wait_ms: 5_000,
            wait_ms_max: 30_000,
            shutdown_ms: 5_000,
        }
    }
}

impl Default for DedupeConfig {
    fn default() -> Self {
        Self { window_ms: 300_000, keys_max: 1_000_000, keys_bytes: 128 * 1024 * 1024 }
    }
}

impl Default for BackplaneConfig {
    fn default() -> Self {
        Self {
            queue_bytes: 16 * 1024 * 1024,
            queue_pushes: 65_536,
            request_ms: 5_000,
            ping_ms: 1_000,
            retry_ms: 500,
            dial_base_ms: 50,
            dial_max_ms: 1_000,
            hold_ms: 1_000,
            leave_ms: 300_000,
        }
    }
}

impl LogicConfig {
    /// Says what contradicts itself, in the operator's words; empty when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        gateways::problems(self, &mut out);
        keys::problems(&self.keys, &mut out);
        self.hook.problems(&mut out);
        self.page.problems(&mut out);
        self.limit_problems(&mut out);
        self.backplane_problems(&mut out);
        self.agents.problems(&mut out);
        self.tls.problems("logic.tls", &mut out);
        self.backplane_tls.problems("logic.backplane_tls", &mut out);
        self.upstream.problems(&mut out);
        self.events.problems(&mut out);
        out
    }

    fn limit_problems(&self, out: &mut Vec<String>) {
        let l = &self.limits;
        if l.message_bytes == 0 || l.message_bytes > l.body_bytes || l.body_bytes > BACKPLANE_BODY_BYTES_MAX / 2 {
            out.push(format!(
                "logic.limits: 1 <= message_bytes <= body_bytes <= {} is needed",
                BACKPLANE_BODY_BYTES_MAX / 2
            ));
        }
        if l.body_bytes > l.bodies_bytes || l.body_bytes > l.ndjson_bytes {
            out.push("logic.limits: bodies_bytes and ndjson_bytes must be at least body_bytes".into());
        }
        if l.json_depth == 0 || l.json_depth > JSON_DEPTH_MAX {
            out.push(format!("logic.limits: json_depth must be 1 to {JSON_DEPTH_MAX}"));
        }
        let counts = [l.messages, l.targets, l.batch_pushes, l.in_flight, l.connections, l.page];
        if counts.contains(&0) || l.page > l.page_max || l.page_max > QUERY_PAGE_MAX {
            out.push(format!("logic.limits: counts must be at least 1, and page <= page_max <= {QUERY_PAGE_MAX}"));
        }
        // hyper keeps at least 8 KiB of buffer for a head.
        if l.header_bytes < 8 * 1024 {
            out.push("logic.limits: header_bytes must be at least 8192".into());
        }
        let h = &self.http;
        let waits = [h.header_ms, h.idle_ms, h.body_ms, h.ndjson_ms, h.write_ms, h.wait_ms];
        if waits.iter().any(|&ms| ms < 100) || h.wait_ms > h.wait_ms_max {
            out.push("logic.http: deadlines must be at least 100, and wait_ms at most wait_ms_max".into());
        }
        self.presence.problems(l.page_max, out);
        if self.dedupe.keys_max == 0 || self.dedupe.window_ms == 0 {
            out.push("logic.dedupe: window_ms and keys_max must be at least 1".into());
        }
        if self.dedupe.keys_bytes < DEDUPE_BYTES_MIN {
            out.push(format!("logic.dedupe: keys_bytes must be at least {DEDUPE_BYTES_MIN}"));
        }
    }

    fn backplane_problems(&self, out: &mut Vec<String>) {
        let b = &self.backplane;
        if b.queue_bytes < 4 * self.limits.body_bytes || b.queue_pushes == 0 {
            out.push(
                "logic.backplane: queue_bytes must hold 4 bodies (logic.limits.body_bytes), queue_pushes 1 push".into(),
            );
        }
        if b.ping_ms < 100 || b.request_ms < b.ping_ms || b.hold_ms < 10 || b.retry_ms < 10 {
            out.push(
                "logic.backplane: ping_ms >= 100, request_ms >= ping_ms, hold_ms and retry_ms >= 10 are needed".into(),
            );
        }
        if b.dial_base_ms == 0 || b.dial_base_ms > b.dial_max_ms {
            out.push("logic.backplane: 1 <= dial_base_ms <= dial_max_ms is needed".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problems() {
        assert_eq!(LogicConfig::default().problems(), Vec::<String>::new());
    }

    #[test]
    fn each_contradiction_is_named() {
        let gateways = ["https://a:1", "http://b", "http://c:1", "http://c:1"].map(String::from).to_vec();
        let keys = vec![KeyConfig { id: String::new(), sha256: "secret".into(), ..KeyConfig::default() }];
        let mut config = LogicConfig { gateways, keys, ..LogicConfig::default() };
        config.limits.message_bytes = 2 * config.limits.body_bytes;
        config.limits.json_depth = 65;
        config.backplane.queue_pushes = 0;
        config.agents.timeout_ms_max = 10;
        config.agents.keys_bytes = 10;

        let problems = config.problems();

        assert_eq!(problems.len(), 11, "{problems:#?}");
    }

    #[test]
    fn a_backplane_with_certificates_is_https_and_no_other_is() {
        let problems = |url: &str, cert: &str| {
            let mut config = LogicConfig { gateways: vec![url.into()], ..LogicConfig::default() };
            let files = MutualTlsConfig { cert: cert.into(), key: cert.into(), ca: cert.into() };
            config.backplane_tls = files;
            config.problems().join("; ")
        };

        assert_eq!(problems("https://a:1", "a.pem"), "");
        assert_eq!(problems("http://a:1", ""), "");
        assert!(problems("https://a:1", "").contains("needs logic.backplane_tls"));
        assert!(problems("http://a:1", "a.pem").contains("must be https://"));
    }
}
