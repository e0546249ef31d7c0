//! What a reload changes while connections live: what a client may send and join, and the device policy. The rest of the
//! configuration is fixed at the start and stands in `Node::config`.
//! Numbers are read for every message, so each is an atomic of its own; they need not change together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use parking_lot::RwLock;

use crate::bucket::rate::Rate;
use crate::config::{DevicesConfig, GatewayConfig};

/// Replies of a connection for each request that it may make.
const REPLIES: u32 = 20;

/// Whether a change of this key (`gateway.limits.rooms`) takes effect without a restart.
#[must_use]
pub fn is_live(key: &str) -> bool {
    match key.strip_prefix("gateway.").and_then(|rest| rest.split_once('.')) {
        Some(("limits", name)) => name != "rooms_total",
        Some(("auth", name)) => !matches!(name, "mode" | "deadline_ms" | "unnamed_max" | "query"),
        Some(("devices", _)) => true,
        _ => false,
    }
}

/// The settings in force.
#[derive(Debug)]
pub struct Live {
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

impl Live {
    /// What the configuration says.
    #[must_use]
    pub fn of(config: &GatewayConfig) -> Self {
        let live = Self {
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
        live.set(config);
        live
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
