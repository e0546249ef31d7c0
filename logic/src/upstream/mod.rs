//! Upstream: what clients send to routes, and events of their connections, on the way to business services (rule S-2).
//! A message walks `submit` → `sink` → `writer` → `spool` (here its sender is told SENT) → `worker` → `outlet`. Parts beside
//! these: `item` (what travels), `retry` (when to try again), `search` (what else to try), `ledger` and `graves` (bounds),
//! `wishes` and `actions` (what a service's answer wants done), `dead_letters`, `events` and `debounce`.
//! Invariant: what was told SENT is in a spool, in its sink, or a dead letter.

mod actions;
mod dead_letters;
mod debounce;
mod events;
mod graves;
mod health;
mod item;
mod ledger;
mod outlet;
mod retry;
mod search;
mod sink;
mod spool;
mod wishes;
mod worker;
mod writer;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::actions::Pushing;
pub use self::dead_letters::{Deed, Which};
pub use self::events::Events;
pub use self::item::{UpstreamItem, What};
pub use self::outlet::Webhook;
use self::sink::Idle;
pub use self::sink::Sink;
pub use self::spool::{Amount, Dead};
pub use self::wishes::Actions;
use crate::config::{EVENT_KINDS, RouteConfig, UpstreamConfig};
use crate::http_client::connect::Resolve;
use crate::metrics::upstream::{ReasonLabels, UpstreamMetrics};

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on the disk, or delivered already.
    Sent {
        /// When, Unix milliseconds.
        time_ms: u64,
    },
    /// It is not.
    Refused {
        /// Stable code for ERROR.
        code: &'static str,
        /// A sentence for people.
        message: Cow<'static, str>,
        /// Whether the same may succeed later.
        retryable: bool,
    },
}

impl Outcome {
    const fn refused(code: &'static str, message: &'static str, retryable: bool) -> Self {
        Self::Refused { code, message: Cow::Borrowed(message), retryable }
    }

    /// A bound is reached.
    pub const OVERLOADED: Self =
        Self::refused("overloaded", "the service behind this route is behind; try again", true);
    /// A bound is reached by what this user has waiting.
    pub const USER_OVERLOADED: Self = Self::refused(
        "overloaded",
        "too many of your messages wait for the service behind this route; try again",
        true,
    );
    /// The disk, or the end of this node.
    pub const UNAVAILABLE: Self = Self::refused("unavailable", "the message cannot be kept just now; try again", true);
    /// Nobody listens there.
    pub const NO_ROUTE: Self = Self::refused("no_route", "no service listens to this route", false);
    /// It cannot be passed on.
    pub const BAD_DATA: Self = Self::refused("bad_message", "data must be JSON", false);
}

/// The sinks, and which route leads where.
pub struct Upstream {
    routes: Vec<RouteTo>,
    sinks: Vec<Arc<Sink>>,
    idle: Mutex<Vec<Idle>>,
    metrics: Arc<UpstreamMetrics>,
    leave: watch::Sender<bool>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

struct RouteTo {
    config: RouteConfig,
    sink: usize,
}

impl Upstream {
    /// Opens the spools of a configuration without problems; nothing moves before [`Upstream::run`].
    ///
    /// # Errors
    /// Which sink cannot be opened, and why.
    pub fn open(
        config: &UpstreamConfig,
        json_depth: usize,
        metrics: &Arc<UpstreamMetrics>,
        resolve: &Resolve,
    ) -> Result<Self, String> {
        let (mut sinks, mut idle) = (Vec::new(), Vec::new());
        for sink in &config.sinks {
            let named = |error: String| format!("logic.upstream: sink {:?}: {error}", sink.name);
            let outlet = Webhook::new(sink, Arc::clone(resolve)).map_err(named)?;
            let opened = Sink::open(sink, &config.spool, json_depth, Arc::clone(metrics), Box::new(outlet));
            let (sink, waits) = opened.map_err(|error| named(error.to_string()))?;
            sinks.push(sink);
            idle.push(waits);
        }
        let route = |config: &RouteConfig| {
            let sink = sinks.iter().position(|sink| sink.config.name == config.sink)?;
            Some(RouteTo { config: config.clone(), sink })
        };
        let routes = config.routes.iter().filter_map(route).collect();
        let tasks = tokio::sync::Mutex::new(JoinSet::new());
        let (metrics, leave) = (Arc::clone(metrics), watch::Sender::new(false));
        Ok(Self { routes, sinks, idle: Mutex::new(idle), metrics, leave, tasks })
    }

    /// Starts to deliver; `actions` does what answers ask for.
    pub async fn run(&self, actions: &Arc<dyn Actions>) {
        let mut tasks = self.tasks.lock().await;
        let idle: Vec<Idle> = self.idle.lock().drain(..).collect();
        for idle in idle {
            idle.run(actions, &self.leave.subscribe(), &mut tasks);
        }
    }

    /// Takes a message. The order of calls is the order in which each user's messages are delivered. Does not wait: what
    /// became of it comes through the receiver.
    pub fn submit(&self, item: &UpstreamItem) -> oneshot::Receiver<Outcome> {
        let (sender, outcome) = oneshot::channel();
        let route = match &item.what {
            What::Message { route, .. } => route.as_str(),
            What::Event { kind } => kind.as_str(),
        };
        let found = self.routes.iter().find(|to| fits(&to.config.pattern, route));
        let Some(sink) = found.and_then(|to| self.sinks.get(to.sink)) else {
            let labels = ReasonLabels { sink: String::new(), reason: "no_route" };
            self.metrics.intake.refused.get_or_create(&labels).inc();
            let _ = sender.send(Outcome::NO_ROUTE);
            return outcome;
        };
        match item.line() {
            Some(line) => sink.submit(item.shard(), line, Some(sender)),
            None => sink.refuse("bad_data", Some(sender), Outcome::BAD_DATA),
        }
        outcome
    }

    /// Takes an event for every sink that wants its kind; what has no room is counted and lost.
    pub fn tell(&self, item: &UpstreamItem) {
        let What::Event { kind } = &item.what else { return };
        let mut line = None;
        for sink in self.sinks.iter().filter(|sink| sink.config.events.iter().any(|wanted| wanted == kind)) {
            if line.is_none() {
                line = item.line();
            }
            match &line {
                Some(line) => sink.submit(item.shard(), line.clone(), None),
                None => sink.refuse("bad_data", None, Outcome::BAD_DATA),
            }
        }
    }

    /// Kinds of events that some sink wants.
    #[must_use]
    pub fn wants(&self) -> Vec<String> {
        let wanted = |kind: &&str| self.sinks.iter().any(|sink| sink.config.events.iter().any(|event| event == kind));
        EVENT_KINDS.iter().copied().filter(wanted).map(String::from).collect()
    }

    /// The sinks, in the order of the configuration.
    #[must_use]
    pub fn sinks(&self) -> &[Arc<Sink>] {
        &self.sinks
    }

    /// Patterns and names of sinks, in order.
    pub fn routes(&self) -> impl Iterator<Item = &RouteConfig> {
        self.routes.iter().map(|to| &to.config)
    }

    /// Sees when the node leaves.
    #[must_use]
    pub fn leaving(&self) -> watch::Receiver<bool> {
        self.leave.subscribe()
    }

    /// Leaves: requests in flight may end, what is in the spool stays there for the next start.
    pub async fn stop(&self, patience: Duration) {
        self.leave.send_replace(true);
        let mut tasks = self.tasks.lock().await;
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(patience, all).await.is_err() {
            tracing::warn!("requests to business services were cut short; their messages will be sent again");
            tasks.shutdown().await;
        }
        let sinks = self.sinks.clone();
        // Waits for a commit that is being made. The task neither panics nor is aborted while the runtime lives.
        let _ = tokio::task::spawn_blocking(move || sinks.iter().for_each(|sink| sink.spool.close())).await;
    }
}

/// Whether a route fits a pattern, whose stars stand for any characters. Linear in the route for each star.
fn fits(pattern: &str, route: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == route };
    let Some(mut route) = route.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return route.ends_with(part);
        }
        let Some(at) = route.find(part) else { return false };
        route = &route[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests;
