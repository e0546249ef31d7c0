//! `[logic.upstream]`: where what clients say to business services goes, and `[logic.events]`: what services are told
//! without anybody having said it. Plain values and what contradicts itself; the URLs and secrets are read by
//! `http_client`, which says what is wrong with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::http_client::Url;
use crate::http_client::sign::Secret;

/// Most sinks: each has a file, and its lanes are tasks.
pub const SINKS_MAX: usize = 64;
/// Most routes: each message is compared with them in order.
pub const ROUTES_MAX: usize = 256;
/// Most lanes of a sink: requests it has in flight at once.
pub const LANES_MAX: u16 = 256;
/// Kinds of events that a sink may ask for.
pub const EVENT_KINDS: [&str; 6] = ["connected", "disconnected", "joined", "left", "user_online", "user_offline"];
/// Least spool: a few of the largest messages.
const SPOOL_BYTES_MIN: u64 = 1024 * 1024;
/// Headers that Tidegate sets itself, or that belong to the connection.
const HEADERS_OF_OURS: [&str; 7] =
    ["content-type", "content-length", "host", "connection", "transfer-encoding", "webhook-id", "webhook-timestamp"];

/// `[logic.upstream]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Folder of the spools, one file a sink; made if it is missing. Needed as soon as there is a sink.
    pub spool: String,
    /// Which sink gets which routes; the first that fits.
    pub routes: Vec<RouteConfig>,
    /// The business services.
    pub sinks: Vec<SinkConfig>,
}

/// `[[logic.upstream.routes]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Such as `robot/*`; a star stands for any characters.
    pub pattern: String,
    /// Name of a sink.
    pub sink: String,
}

/// `[[logic.upstream.sinks]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SinkConfig {
    /// Its name in routes, metrics and the API; also that of its file.
    pub name: String,
    /// Where its messages are posted.
    pub url: String,
    /// Signs what is sent: `whsec_` and base64. Two while the receiver changes from one to the other.
    pub secrets: Vec<String>,
    /// Whether the URL may lead to loopback, private, link-local and other addresses that are not of the public internet.
    pub allow_private: bool,
    /// Authorities (a PEM file) that its certificate may come from, instead of the public ones; empty: those.
    pub ca: String,
    /// Further request headers.
    pub headers: BTreeMap<String, String>,
    /// Kinds of lifecycle events it is told.
    pub events: Vec<String>,
    /// Requests in flight at once; a user's messages stay in one lane, in order.
    pub lanes: u16,
    /// Most messages of a request.
    pub batch_messages: usize,
    /// Largest body of a request, unless one message alone is larger.
    pub batch_bytes: usize,
    /// How long a message waits for others to go with it.
    pub linger_ms: u32,
    /// Longest time from connecting to the last byte of the answer.
    pub timeout_ms: u32,
    /// Largest answer that is read for replies and pushes.
    pub answer_bytes: usize,
    /// First back-off; a random part of it is waited, and it doubles.
    pub retry_base_ms: u32,
    /// Longest back-off.
    pub retry_max_ms: u32,
    /// Failures of one message, while others get through, that make it a dead letter.
    pub attempts_max: u32,
    /// Age at which a message becomes a dead letter whatever the reason.
    pub age_max_ms: u64,
    /// Most bytes of messages in the spool.
    pub spool_bytes: u64,
    /// Most bytes of dead letters.
    pub dead_bytes: u64,
    /// Most bytes of one user's; beyond it the user's oldest makes room.
    pub dead_user_bytes: u64,
    /// What happens when they are full.
    pub dead_full: DeadFull,
}

/// `dead_full` of a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadFull {
    /// The oldest dead letter makes room, and is gone.
    #[default]
    Evict,
    /// A message that would be one stays in the spool, and its lane waits for an operator.
    Hold,
}

impl Default for SinkConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            secrets: Vec::new(),
            allow_private: false,
            ca: String::new(),
            headers: BTreeMap::new(),
            events: Vec::new(),
            lanes: 16,
            batch_messages: 100,
            batch_bytes: 1024 * 1024,
            linger_ms: 5,
            timeout_ms: 5_000,
            answer_bytes: 256 * 1024,
            retry_base_ms: 100,
            retry_max_ms: 30_000,
            attempts_max: 20,
            age_max_ms: 24 * 60 * 60 * 1_000,
            spool_bytes: 256 * 1024 * 1024,
            dead_bytes: 64 * 1024 * 1024,
            dead_user_bytes: 4 * 1024 * 1024,
            dead_full: DeadFull::Evict,
        }
    }
}

/// `[logic.events]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// How long a user must be gone before `user_offline` is told; one who is back sooner was never gone.
    pub debounce_ms: u32,
    /// Most users who are gone and not told of yet; beyond it the first to go is told early.
    pub pending_max: usize,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { debounce_ms: 3_000, pending_max: 262_144 }
    }
}

impl UpstreamConfig {
    /// What contradicts itself.
    pub(super) fn problems(&self, out: &mut Vec<String>) {
        if !self.sinks.is_empty() && self.spool.is_empty() {
            out.push("logic.upstream.spool: a folder is needed, since a sink's messages must outlive a crash".into());
        }
        if self.sinks.len() > SINKS_MAX || self.routes.len() > ROUTES_MAX {
            out.push(format!("logic.upstream: at most {SINKS_MAX} sinks and {ROUTES_MAX} routes"));
        }
        for route in &self.routes {
            let pattern = &route.pattern;
            if !is_route_pattern(pattern) {
                out.push(format!(
                    "logic.upstream.routes: {pattern:?}: a pattern has 1 to 128 characters, such as \"robot/*\""
                ));
            }
            if !self.sinks.iter().any(|sink| sink.name == route.sink) {
                out.push(format!("logic.upstream.routes: {pattern:?} leads to {:?}, which is no sink", route.sink));
            }
        }
        for (i, sink) in self.sinks.iter().enumerate() {
            if self.sinks[..i].iter().any(|other| other.name == sink.name) {
                out.push(format!("logic.upstream.sinks: the name {:?} is given twice", sink.name));
            }
            sink.problems(out);
        }
    }
}

impl SinkConfig {
    fn problems(&self, out: &mut Vec<String>) {
        let mut say = |what: String| out.push(format!("logic.upstream.sinks: {:?}: {what}", self.name));
        let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(is_plain) {
            say("a name has 1 to 64 characters a-z, 0-9, _ and -".into());
        }
        if let Err(why) = Url::read(&self.url, self.allow_private) {
            say(format!("url: {why}"));
        }
        if self.secrets.is_empty() || self.secrets.len() > 2 {
            say("one secret is needed, or two while one replaces the other; make one: \
                 echo whsec_$(openssl rand -base64 24)"
                .into());
        }
        if let Some(why) = self.secrets.iter().find_map(|secret| Secret::read(secret).err()) {
            say(format!("secrets: {why}"));
        }
        for (name, value) in &self.headers {
            let is_ours = HEADERS_OF_OURS.contains(&name.to_ascii_lowercase().as_str());
            let is_sound = http::HeaderName::try_from(name).is_ok() && http::HeaderValue::try_from(value).is_ok();
            if is_ours || !is_sound || name.eq_ignore_ascii_case("webhook-signature") {
                say(format!("headers: {name:?} cannot be set"));
            }
        }
        if let Some(kind) = self.events.iter().find(|kind| !EVENT_KINDS.contains(&kind.as_str())) {
            say(format!("events: {kind:?} is not known; there are {}", EVENT_KINDS.join(", ")));
        }
        if self.lanes == 0 || self.lanes > LANES_MAX {
            say(format!("lanes must be 1 to {LANES_MAX}"));
        }
        if self.batch_messages == 0 || self.batch_messages > 10_000 || self.batch_bytes > 64 * 1024 * 1024 {
            say("batch_messages must be 1 to 10000, and batch_bytes at most 67108864".into());
        }
        if self.timeout_ms < 10 || self.linger_ms > 60_000 || self.answer_bytes > 16 * 1024 * 1024 {
            say("timeout_ms must be at least 10, linger_ms at most 60000, answer_bytes at most 16777216".into());
        }
        if self.retry_base_ms == 0 || self.retry_base_ms > self.retry_max_ms || self.attempts_max == 0 {
            say("1 <= retry_base_ms <= retry_max_ms and attempts_max >= 1 are needed".into());
        }
        if self.spool_bytes < SPOOL_BYTES_MIN || self.age_max_ms < 1_000 {
            say(format!("spool_bytes must be at least {SPOOL_BYTES_MIN}, age_max_ms at least 1000"));
        }
    }
}

impl EventsConfig {
    /// What contradicts itself.
    pub(super) fn problems(&self, out: &mut Vec<String>) {
        if self.pending_max == 0 {
            out.push("logic.events: pending_max must be at least 1".into());
        }
    }
}

/// Whether text can be a pattern of routes.
fn is_route_pattern(pattern: &str) -> bool {
    (1..=128).contains(&pattern.len()) && !pattern.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink() -> SinkConfig {
        let secrets = vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()];
        SinkConfig { name: "robots".into(), url: "https://example.org/hook".into(), secrets, ..SinkConfig::default() }
    }

    fn problems(config: &UpstreamConfig) -> Vec<String> {
        let mut out = Vec::new();
        config.problems(&mut out);
        out
    }

    #[test]
    fn a_sound_sink_and_none_at_all_have_no_problems() {
        let routes = vec![RouteConfig { pattern: "robot/*".into(), sink: "robots".into() }];
        let config = UpstreamConfig { spool: "/var/lib/tidegate".into(), routes, sinks: vec![sink()] };

        assert_eq!(problems(&config), Vec::<String>::new());
        assert_eq!(problems(&UpstreamConfig::default()), Vec::<String>::new());
    }

    #[test]
    fn each_mistake_of_a_sink_is_named() {
        type Spoil = fn(&mut SinkConfig);
        let wrong: [(&str, Spoil); 12] = [
            ("name has", |s| s.name = "Robots".into()),
            ("url", |s| s.url = "ftp://example.org".into()),
            ("loopback", |s| s.url = "http://127.0.0.1/".into()),
            ("secret is needed", |s| s.secrets.clear()),
            ("secrets", |s| s.secrets = vec!["hunter2".into()]),
            ("headers", |s| drop(s.headers.insert("Content-Type".into(), "text/plain".into()))),
            ("events", |s| s.events = vec!["born".into()]),
            ("lanes", |s| s.lanes = 0),
            ("batch_messages", |s| s.batch_messages = 0),
            ("timeout_ms", |s| s.timeout_ms = 1),
            ("retry_base_ms", |s| s.retry_base_ms = 60_000),
            ("spool_bytes", |s| s.spool_bytes = 1),
        ];
        for (word, spoil) in wrong {
            let mut sink = sink();
            spoil(&mut sink);

            let said = problems(&UpstreamConfig { spool: "s".into(), sinks: vec![sink], ..UpstreamConfig::default() });

            assert!(said.len() == 1 && said[0].contains(word), "{word}: {said:?}");
        }
    }

    #[test]
    fn a_sink_without_a_spool_and_a_route_to_nowhere_are_named() {
        let routes = vec![RouteConfig { pattern: "a".into(), sink: "nobody".into() }];

        let said = problems(&UpstreamConfig { routes, sinks: vec![sink(), sink()], ..UpstreamConfig::default() });

        assert_eq!(said.len(), 3, "{said:?}");
    }
}
