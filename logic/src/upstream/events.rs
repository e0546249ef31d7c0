//! Events on their way to the sinks that want them: each with an id, users' comings and goings debounced over the fleet.
//! A gateway tells a user's events to one logic node, so one node tells of each; where the user still is, the interest
//! table knows. Best effort up to the spool, durable from there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::debounce::Debounce;
use super::{Upstream, UpstreamItem, What};
use crate::clock::unix_ms;
use crate::config::EventsConfig;
use crate::fleet::interest::{GatewayIndex, Interest, Whereabouts};

/// How often it is looked whose time has come: fine enough beside a debounce of seconds.
const TICK: Duration = Duration::from_millis(100);

/// Turns what gateways tell into events.
pub struct Events {
    upstream: Arc<Upstream>,
    interest: Arc<Interest>,
    debounce: Mutex<Debounce>,
}

impl Events {
    /// Of a configuration without problems.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, interest: Arc<Interest>, config: &EventsConfig) -> Self {
        let debounce = Debounce::new(u64::from(config.debounce_ms), config.pending_max);
        Self { upstream, interest, debounce: Mutex::new(debounce) }
    }

    /// Something happened at a gateway. `user_online` and `user_offline` are that gateway's view: its first connection of
    /// the user came, its last went.
    pub fn happened(&self, at: Option<GatewayIndex>, item: UpstreamItem) {
        match &item.what {
            // What is decided under the lock is handed on under it (neither waits), so a sink hears it in the order of the
            // decisions.
            What::Event { kind } if kind == "user_online" => {
                let mut debounce = self.debounce.lock();
                let is_elsewhere = self.interest.whereabouts(&item.user, at) != Whereabouts::Nowhere;
                if debounce.came(&item.user, is_elsewhere) {
                    self.upstream.tell(&item);
                }
            }
            What::Event { kind } if kind == "user_offline" => {
                let mut debounce = self.debounce.lock();
                let early = debounce.left(&item.user, unix_ms());
                let gone = early.filter(|user| self.interest.whereabouts(user, None) == Whereabouts::Nowhere);
                gone.iter().for_each(|user| self.offline(user));
            }
            What::Event { .. } | What::Message { .. } => self.upstream.tell(&item),
        }
    }

    /// How many users are gone and not told of yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.debounce.lock().len()
    }

    /// Tells of those whose time has come; ends when the node leaves.
    pub async fn run(self: Arc<Self>, mut leave: watch::Receiver<bool>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = leave.changed() => return,
            }
            self.tell_due(unix_ms());
        }
    }

    pub(super) fn tell_due(&self, now_ms: u64) {
        loop {
            // For one user at a time, told of under it (see `happened`).
            let mut debounce = self.debounce.lock();
            let Some((user, times)) = debounce.due(now_ms) else { return };
            match self.interest.whereabouts(&user, None) {
                // The news that they are back may still be on its way, and must find that they were never told of as gone.
                Whereabouts::Connected => {
                    let _at_last_forgotten = debounce.put_off(user, times, now_ms);
                }
                Whereabouts::Nowhere => self.offline(&user),
                Whereabouts::Perhaps => {
                    let told = debounce.put_off(user, times, now_ms);
                    told.iter().for_each(|user| self.offline(user));
                }
            }
        }
    }

    fn offline(&self, user: &str) {
        self.upstream.tell(&UpstreamItem {
            id: ulid::Ulid::generate().to_string(),
            what: What::Event { kind: "user_offline".into() },
            user: user.into(),
            connection: None,
            platform: String::new(),
            device: String::new(),
            gateway: String::new(),
            time_ms: unix_ms(),
            data: Bytes::new(),
        });
    }
}
