//! `[logic.hook]`: the service that is asked about each client before it is let in.

use serde::{Deserialize, Serialize};

/// Headers that are the gateway's own affair or hold what a hook must not see in the clear.
const HEADERS_KEPT: [&str; 6] = [
    "authorization",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "upgrade",
    "connection",
];
/// Most headers of a stranger that are passed on.
const HEADERS_MAX: usize = 16;

/// `[logic.hook]`
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookConfig {
    /// Where clients are asked about, by POST; empty: nobody is asked.
    pub url: String,
    /// Keys of the signature, `whsec_…`; several sign side by side.
    pub secrets: Vec<String>,
    /// Longest wait for the answer.
    pub timeout_ms: u32,
    /// How long an answer holds for the same client; 0: each is asked about.
    pub cache_ms: u32,
    /// Most answers remembered; the oldest makes room.
    pub cache_max: usize,
    /// Most questions at once; one more is answered as if the hook had failed.
    pub in_flight: usize,
    /// Whether clients come in while the hook fails. They are what their token says then.
    pub fail_open: bool,
    /// Headers of the client's request that the hook sees, such as `cookie`.
    pub headers: Vec<String>,
    /// Whether the URL may lead to a private address.
    pub allow_private: bool,
    /// A PEM file of authorities that its certificate may come from; empty: the public ones.
    pub ca: String,
}

impl std::fmt::Debug for HookConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HookConfig {{ secrets: {}, timeout_ms: {}, … }}", self.secrets.len(), self.timeout_ms)
    }
}

impl Default for HookConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            secrets: Vec::new(),
            timeout_ms: 2_000,
            cache_ms: 0,
            cache_max: 65_536,
            in_flight: 1_024,
            fail_open: false,
            headers: Vec::new(),
            allow_private: false,
            ca: String::new(),
        }
    }
}

impl HookConfig {
    /// Whether clients are asked about.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    /// What contradicts itself beyond what the client of webhooks says of URL and secrets.
    pub(super) fn problems(&self, out: &mut Vec<String>) {
        if self.timeout_ms < 50 || self.in_flight == 0 || self.cache_max == 0 {
            out.push("logic.hook: timeout_ms >= 50, in_flight >= 1 and cache_max >= 1 are needed".into());
        }
        if self.cache_ms > 86_400_000 {
            out.push("logic.hook.cache_ms: at most 86400000, a day".into());
        }
        if self.headers.len() > HEADERS_MAX {
            out.push(format!("logic.hook.headers: at most {HEADERS_MAX}"));
        }
        for name in &self.headers {
            let is_name =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if !is_name || HEADERS_KEPT.contains(&name.as_str()) {
                out.push(format!(
                    "logic.hook.headers: {name:?} must be a header's name in lower case, and not one that stays"
                ));
            }
        }
    }
}
