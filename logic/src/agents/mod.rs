//! Agents: connections that are sent commands over HTTP and whose replies are the HTTP answers (rule S-3).
//! Parts: `registry` (which commands wait, whose replies count), `run` (the life of one command), `documents` (what callers get
//! to read). The calls are in `api::command` and `api::agents`. Replies come up the uplink to the node that the command's id
//! names, so no other node needs to know of it.

pub mod documents;
pub mod registry;
pub mod run;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate_protocol::ids::CommandId;
use tidegate_protocol::records::{Reply, Sender};
use tokio::sync::Semaphore;

use self::registry::{Fate, Registry, Target};
use self::run::{Conclusion, End};
use crate::config::{AgentsConfig, DedupeConfig};
use crate::fleet::Fleet;
use crate::metrics::agents::{AgentMetrics, EndLabels, ReplyLabels};
use crate::push::dedupe::{Dedupe, Guard};

/// What a node knows of commands.
pub struct Agents {
    /// Those that wait.
    pub registry: Arc<Registry>,
    /// Idempotency keys and what became of their commands.
    pub keys: Dedupe<Conclusion>,
    /// Bytes of replies that `keys` holds.
    keys_held: Arc<AtomicUsize>,
    /// A permit for each request that waits.
    pub places: Arc<Semaphore>,
    /// As configured.
    pub config: AgentsConfig,
    fleet: Arc<Fleet>,
    metrics: Arc<AgentMetrics>,
}

impl Agents {
    /// Nothing asked yet.
    #[must_use]
    pub fn new(config: &AgentsConfig, fleet: Arc<Fleet>, metrics: Arc<AgentMetrics>) -> Self {
        Self {
            registry: Arc::new(Registry::new(config)),
            keys: Dedupe::new(&DedupeConfig {
                window_ms: config.keys_ms,
                keys_max: config.keys,
                // What is large in them is bounded by `keep`.
                keys_bytes: usize::MAX,
            }),
            keys_held: Arc::default(),
            places: Arc::new(Semaphore::new(config.commands)),
            config: config.clone(),
            fleet,
            metrics,
        }
    }

    /// Bytes of replies kept for repeats.
    #[must_use]
    pub fn keys_held(&self) -> usize {
        self.keys_held.load(Ordering::Relaxed)
    }

    /// Keeps a conclusion for repeats of its key; the oldest ones make room, never keys of commands that still run.
    pub fn keep(&self, mut conclusion: Conclusion, guard: Guard<Conclusion>) -> Arc<Conclusion> {
        conclusion.replies.iter_mut().for_each(|reply| reply.move_to(&self.keys_held));
        while self.keys_held() > self.config.keys_bytes && self.keys.shed() {}
        let conclusion = Arc::new(conclusion);
        guard.settle_as(Arc::clone(&conclusion));
        conclusion
    }

    /// A REPLY has come up.
    pub fn take(&self, from: Sender, reply: Reply) -> Fate {
        let fate = match reply.command.parse::<CommandId>() {
            Ok(id) if id.logic == self.fleet.logic() => self.registry.reply(id, from, reply),
            Ok(_) | Err(_) => Fate::Late,
        };
        self.metrics.replies.get_or_create(&ReplyLabels { fate: fate.label() }).inc();
        fate
    }

    /// Whether someone of a target is connected, or may be.
    #[must_use]
    pub fn is_there(&self, target: &Target) -> bool {
        let view = self.fleet.interest().view();
        let gateways = match target {
            Target::User(user) => view.user(user),
            Target::Room(room) => view.room(room),
        };
        !gateways.is_empty()
    }

    /// Counts a command that has ended.
    pub fn conclude(&self, conclusion: &Conclusion) {
        self.metrics.seconds.observe(conclusion.took.as_secs_f64());
        self.count(match conclusion.end {
            End::Replied => "replied",
            End::TimedOut => "timeout",
            End::Left => "left",
            End::Nobody => "nobody",
            End::Untaken(_) => "untaken",
        });
    }

    /// Counts a command by how it ended.
    pub fn count(&self, end: &'static str) {
        self.metrics.commands.get_or_create(&EndLabels { end }).inc();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;
    use crate::push::Caller;
    use crate::push::dedupe::Claim;

    /// A conclusion with one reply of so many bytes.
    fn conclusion(agents: &Agents, bytes: usize) -> Conclusion {
        let mut waiting = agents.registry.begin(1, 1, Target::User("u".into()));
        let connection = Bytes::from_static(b"connection------");
        let from = Sender { user: "u".into(), connection, ..Sender::default() };
        let reply = Reply { data: Bytes::from(vec![b'1'; bytes]), ..Reply::default() };
        agents.registry.reply(waiting.id, from, reply);
        let replies = vec![waiting.replies.try_recv().expect("taken")];
        Conclusion { id: waiting.id, replies, delivered: 1, end: End::Replied, took: Duration::ZERO }
    }

    #[tokio::test]
    async fn answers_kept_for_repeats_are_bounded_in_bytes() {
        let config = AgentsConfig { reply_bytes: 100, keys_bytes: 250, ..AgentsConfig::default() };
        let agents = Agents::new(&config, Fleet::of_none(), Arc::default());
        let now = Instant::now();

        let Ok(Claim::First(_running)) = agents.keys.claim_exactly(Caller::ANYONE.id, "running", [0; 32], now) else {
            panic!("free")
        };
        for name in ["a", "b", "c"] {
            let Ok(Claim::First(guard)) = agents.keys.claim_exactly(Caller::ANYONE.id, name, [0; 32], now) else {
                panic!("free")
            };
            agents.keep(conclusion(&agents, 100), guard);
        }

        assert_eq!((agents.keys_held(), agents.registry.held()), (200, 0));
        assert!(
            matches!(agents.keys.claim_exactly(Caller::ANYONE.id, "running", [0; 32], now), Ok(Claim::Repeat(_))),
            "it would run twice"
        );
        assert!(
            matches!(agents.keys.claim_exactly(Caller::ANYONE.id, "a", [0; 32], now), Ok(Claim::First(_))),
            "the oldest made room"
        );
        assert!(matches!(agents.keys.claim_exactly(Caller::ANYONE.id, "c", [0; 32], now), Ok(Claim::Repeat(_))));
    }
}
