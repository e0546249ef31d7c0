//! What the event loops of all buckets share.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::membership::Membership;
use super::open::Opener;
use super::report::Reporter;
use crate::bucket::Bucket;
use crate::bucket::control::ControlWriter;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::config::{DeflateConfig, HeartbeatConfig};
use crate::counters::Totals;
use crate::dialect::Dialects;
use crate::lifecycle::Lifecycle;
use crate::session::Access;
use crate::uplink::Uplink;

/// What of the configuration holds for connections as long as the gateway runs.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Messages are sent back as they came, for a conformance suite.
    pub echo: bool,
    pub dialects: Dialects,
    pub deflate: DeflateConfig,
    pub heartbeat: HeartbeatConfig,
    /// How long what waits for a connection may not move.
    pub pending_age_ms: u32,
    /// Nobody comes in under a name without the connect hook's word.
    pub hook_required: bool,
}

/// What all event loops share.
#[derive(Debug)]
pub(crate) struct Host {
    pub buckets: Arc<[Bucket]>,
    pub opener: Arc<Opener>,
    pub access: Arc<Access>,
    pub uplink: Arc<Uplink>,
    pub settings: Arc<Settings>,
    pub rules: Rules,
    /// Bytes of unfinished messages, by bucket.
    pub unfinished: Budget,
    pub totals: Arc<Totals>,
    pub lifecycle: Arc<Lifecycle>,
}

impl Host {
    pub fn membership(&self) -> &Membership {
        &self.opener.membership
    }

    pub fn reporter(&self) -> &Reporter {
        &self.opener.membership.reporter
    }

    pub fn control(&self) -> ControlWriter {
        self.opener.membership.control
    }

    pub fn clock(&self) -> Clock {
        self.control().clock
    }

    /// Counts a connection out that is in no index any more.
    pub fn count_out(&self) {
        self.opener.population.connections.fetch_sub(1, Ordering::Relaxed);
        self.totals.closed.fetch_add(1, Ordering::Relaxed);
    }
}
