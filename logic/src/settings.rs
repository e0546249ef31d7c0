//! What of a logic node's configuration may change while it runs. Handlers take one [`Current`] at the start of a request and
//! keep it to the end; everything else stays what it was at the start of the process (`Node::config`).
//! Invariant: [`is_live`] names exactly the keys that [`Current::of`] and `Logic::reload` carry over; a test holds that.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::config::{HttpConfig, LimitsConfig, LogicConfig};

/// Keys below `logic.limits` that size what was made at the start.
const FIXED_LIMITS: [&str; 2] = ["in_flight", "connections"];

/// The changeable part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// What one request may ask for.
    pub limits: LimitsConfig,
    /// Deadlines of the API's sockets.
    pub http: HttpConfig,
    /// Names by which an API without keys may be called.
    pub allowed_hosts: Vec<String>,
}

impl Current {
    /// What `config` says of it, for a node that was started with `start`.
    #[must_use]
    pub fn of(config: &LogicConfig, start: &LogicConfig) -> Self {
        let (in_flight, connections) = (start.limits.in_flight, start.limits.connections);
        Self {
            limits: LimitsConfig { in_flight, connections, ..config.limits.clone() },
            http: config.http.clone(),
            allowed_hosts: config.allowed_hosts.clone(),
        }
    }
}

/// Whether a change of this key (`logic.limits.messages`) takes effect without a restart.
#[must_use]
pub fn is_live(key: &str) -> bool {
    match key.strip_prefix("logic.").and_then(|rest| rest.split_once('.').or(Some((rest, "")))) {
        Some(("limits", name)) => !FIXED_LIMITS.contains(&name),
        Some(("http" | "keys" | "keys_file" | "allowed_hosts" | "gateways" | "gateways_file", _)) => true,
        _ => false,
    }
}

/// The changeable part, now.
#[derive(Debug)]
pub struct Settings(RwLock<Arc<Current>>);

impl Settings {
    /// As started with.
    #[must_use]
    pub fn new(start: &LogicConfig) -> Self {
        Self(RwLock::new(Arc::new(Current::of(start, start))))
    }

    /// What holds for a request that begins now.
    #[must_use]
    pub fn now(&self) -> Arc<Current> {
        Arc::clone(&self.0.read())
    }

    /// From the next request on.
    pub fn replace(&self, current: Current) {
        *self.0.write() = Arc::new(current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of a section made one larger.
    fn grown<T: serde::Serialize + serde::de::DeserializeOwned>(section: &T) -> T {
        let mut value = serde_json::to_value(section).expect("plain values");
        for number in value.as_object_mut().expect("a section").values_mut() {
            *number = (number.as_u64().expect("limits are numbers") + 1).into();
        }
        serde_json::from_value(value).expect("the same section")
    }

    fn keys<T: serde::Serialize>(section: &T) -> Vec<(String, serde_json::Value)> {
        let value = serde_json::to_value(section).expect("plain values");
        value.as_object().expect("a section").iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    #[test]
    fn what_is_said_to_be_live_is_carried_over_and_nothing_else_is() {
        let start = LogicConfig::default();
        let new = LogicConfig { limits: grown(&start.limits), http: grown(&start.http), ..start.clone() };

        let current = Current::of(&new, &start);

        for (section, before, after) in
            [("limits", keys(&start.limits), keys(&current.limits)), ("http", keys(&start.http), keys(&current.http))]
        {
            for ((name, old), (_, now)) in before.into_iter().zip(after) {
                assert_eq!(old != now, is_live(&format!("logic.{section}.{name}")), "{section}.{name}");
            }
        }
    }

    #[test]
    fn what_was_made_at_the_start_needs_a_restart() {
        for key in [
            "logic.api",
            "logic.backplane.leave_ms",
            "logic.backplane_secret",
            "logic.dedupe.keys_max",
            "gateway.limits.rooms",
        ] {
            assert!(!is_live(key), "{key}");
        }
        assert!(is_live("logic.keys") && is_live("logic.keys_file") && is_live("logic.allowed_hosts"));
        assert!(is_live("logic.gateways") && is_live("logic.gateways_file"));
    }
}
