//! What a reload changes while connections live: what a client may send and join, and the device policy. The rest of the
//! configuration is fixed at the start and stands in `GatewayConfig`.
//! Numbers are read for every message, so each is an atomic of its own; they need not change together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use parking_lot::RwLock;

use crate::config::{DevicesConfig, GatewayConfig};

/// Replies of a connection for each request that it may make.
const REPLIES: u32 = 20;

/// Whether a change of this key (`gateway.limits.rooms`) takes effect without a restart.
#[must_use]
pub fn is_reloadable(key: &str) -> bool {
    match key.strip_prefix("gateway.").and_then(|rest| rest.split_once('.')) {
        Some(("limits", name)) => name != "rooms_total",
        Some(("auth", name)) => !matches!(name, "mode" | "deadline_ms" | "unnamed_max" | "query"),
        Some(("devices", _)) => true,
        _ => false,
    }
}

/// How much, in the long run and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// A second, in the long run; 0: not limited.
    pub per_s: u32,
    /// At once.
    pub burst: u32,
}

/// The rates in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RatesInForce {
    /// [`Settings::requests`].
    pub requests: Rate,
    /// [`Settings::replies`].
    pub replies: Rate,
    /// [`Settings::user_sends`].
    pub user_sends: Rate,
}

/// The settings in force.
#[derive(Debug)]
pub struct Settings {
    message_bytes: AtomicUsize,
    fragments: AtomicU32,
    message_ms: AtomicU32,
    partial_bytes_total: AtomicUsize,
    rooms: AtomicUsize,
    control_per_s: AtomicU32,
    requests: [AtomicU32; 2],
    user_sends: [AtomicU32; 2],
    devices: RwLock<Arc<DevicesConfig>>,
}

impl Settings {
    /// What the configuration says.
    #[must_use]
    pub fn of(config: &GatewayConfig) -> Self {
        let settings = Self {
            message_bytes: AtomicUsize::default(),
            fragments: AtomicU32::default(),
            message_ms: AtomicU32::default(),
            partial_bytes_total: AtomicUsize::default(),
            rooms: AtomicUsize::default(),
            control_per_s: AtomicU32::default(),
            requests: Default::default(),
            user_sends: Default::default(),
            devices: RwLock::default(),
        };
        settings.set(config);
        settings
    }

    /// Puts another configuration in force.
    pub fn set(&self, config: &GatewayConfig) {
        let limits = &config.limits;
        self.message_bytes.store(limits.message_bytes, Relaxed);
        self.fragments.store(limits.fragments, Relaxed);
        self.message_ms.store(limits.message_ms, Relaxed);
        self.partial_bytes_total.store(limits.partial_bytes_total, Relaxed);
        self.rooms.store(limits.rooms, Relaxed);
        self.control_per_s.store(limits.control_per_s, Relaxed);
        self.requests[0].store(limits.requests_per_s, Relaxed);
        self.requests[1].store(limits.requests_burst, Relaxed);
        self.user_sends[0].store(limits.user_sends_per_s, Relaxed);
        self.user_sends[1].store(limits.user_sends_burst, Relaxed);
        *self.devices.write() = Arc::new(config.devices.clone());
    }

    /// Largest message of a client.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.message_bytes.load(Relaxed)
    }

    /// Most fragments of one message.
    #[must_use]
    pub fn fragments(&self) -> u32 {
        self.fragments.load(Relaxed)
    }

    /// Longest time from the first byte of a message to its last.
    #[must_use]
    pub fn message_ms(&self) -> u32 {
        self.message_ms.load(Relaxed)
    }

    /// Most bytes of unfinished messages of all connections together.
    #[must_use]
    pub fn partial_bytes_total(&self) -> usize {
        self.partial_bytes_total.load(Relaxed)
    }

    /// Most rooms of one connection.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.rooms.load(Relaxed)
    }

    /// Most control frames of one connection a second.
    #[must_use]
    pub fn control_per_s(&self) -> u32 {
        self.control_per_s.load(Relaxed)
    }

    /// Every rate, so that whoever puts them in force has to name each.
    #[must_use]
    pub fn rates(&self) -> RatesInForce {
        RatesInForce { requests: self.requests(), replies: self.replies(), user_sends: self.user_sends() }
    }

    /// How much one connection may ask for.
    #[must_use]
    pub fn requests(&self) -> Rate {
        Rate { per_s: self.requests[0].load(Relaxed), burst: self.requests[1].load(Relaxed) }
    }

    /// How many commands one connection may answer: an agent does what many ask, and is asked faster than people type.
    #[must_use]
    pub fn replies(&self) -> Rate {
        let Rate { per_s, burst } = self.requests();
        Rate { per_s: per_s.saturating_mul(REPLIES), burst: burst.saturating_mul(REPLIES) }
    }

    /// How much one user may send to others.
    #[must_use]
    pub fn user_sends(&self) -> Rate {
        Rate { per_s: self.user_sends[0].load(Relaxed), burst: self.user_sends[1].load(Relaxed) }
    }

    /// The device policy.
    #[must_use]
    pub fn devices(&self) -> Arc<DevicesConfig> {
        Arc::clone(&self.devices.read())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Every key below a value, by its path.
    fn leaves(path: &str, value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, v)| leaves(&format!("{path}/{name}"), v, out)),
            _ => out.push(path.to_owned()),
        }
    }

    /// Another value of the same kind; none for what has no other that is always good.
    fn another(value: &Value) -> Option<Value> {
        match value {
            Value::Number(n) => Some((n.as_u64()? + 1).into()),
            Value::Bool(is) => Some((!is).into()),
            _ => None,
        }
    }

    /// What a reload makes of a change of this key alone: whether the settings in force are others than before.
    fn is_carried_over(path: &str) -> Option<bool> {
        let start = GatewayConfig::default();
        let mut value = serde_json::to_value(&start).expect("plain values");
        let place = value.pointer_mut(path).expect("a key");
        *place = another(place)?;
        let new = serde_json::from_value(value).expect("the same configuration");
        let settings = Settings::of(&start);
        let before = format!("{settings:?}");
        settings.set(&new);
        Some(before != format!("{settings:?}"))
    }

    /// `auth` has its own way: the verifier is made anew of the whole section (`gateway/tests/auth.rs`).
    #[test]
    fn what_is_said_to_be_reloadable_is_carried_over_and_nothing_else_is() {
        let mut paths = Vec::new();
        leaves("", &serde_json::to_value(GatewayConfig::default()).expect("plain values"), &mut paths);
        let mut reloaded = 0;
        for path in paths.iter().filter(|path| !path.starts_with("/auth/")) {
            let key = format!("gateway{}", path.replace('/', "."));
            let Some(is_carried_over) = is_carried_over(path) else { continue };
            assert_eq!(is_carried_over, is_reloadable(&key), "{key}");
            reloaded += usize::from(is_carried_over);
        }
        assert!(reloaded >= 10, "{reloaded} keys of {paths:?}");
    }
}
