//! The links to the gateways: pushes that wait for one gateway become one batch, one HTTP/2 POST; interest, queries and
//! commands travel on the same connection. The rest of logic sees a [`Fleet`] of [`Link`]s (`link`).
//! Parts: `queue` (what waits), `dial` (how a connection comes about), `client` (one request), `session` (the life of a
//! connection), `sender` (batches and their sequence), `calls` (what else one link carries), `events` and `interest` (who is where), `uplink` and `tracker` (what
//! clients say, and the answers to it), `spare` (who could take the clients of one that leaves), `permits` (requests that wait
//! for a gateway), `share` (what goes to one), `ask`, `tell` and `cursor` (questions and commands to several).
//! Invariant: one gateway never waits for another.

mod ask;
mod calls;
mod client;
pub mod cursor;
mod dial;
mod events;
mod failure;
pub mod interest;
mod link;
mod permits;
mod queue;
mod sender;
mod session;
mod share;
mod spare;
mod tell;
pub mod tracker;
mod uplink;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tidegate_protocol::records::{self, Wants};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::ask::Walked;
pub use self::dial::{GatewayLink, PipeDial, PipeStream};
pub use self::failure::{Failure, untaken};
pub use self::link::Link;
pub use self::permits::Permits;
pub use self::queue::LinkState;
pub use self::share::{Identity, Share, holders};
pub use self::uplink::Heard;

use self::spare::Spare;
use crate::config::BackplaneConfig;
use crate::fleet::interest::{GatewayIndex, Interest};
use crate::metrics::fleet::{FailureLabels, FleetMetrics};

/// What became of one gateway's share of a push.
pub type Taken = Result<records::Receipt, Failure>;

/// What every link shares.
struct Shared {
    config: BackplaneConfig,
    secret: String,
    /// Proves who each end is, where gateways are `https://`.
    tls: Option<Arc<tidegate_tls::Client>>,
    /// This process, in sequence numbers: a gateway tells two logic nodes, or two lives of one, apart by it.
    logic: u64,
    interest: Arc<Interest>,
    /// What each gateway could take from one that leaves.
    spare: Spare,
    /// What we want to hear of clients; part of each uplink request.
    wants: RwLock<Wants>,
    /// Where it goes.
    heard: mpsc::Sender<Heard>,
}

/// What a fleet is made of, beside its gateways.
pub struct Parts<'a> {
    /// Bounds and deadlines of the links.
    pub config: &'a BackplaneConfig,
    /// By it and by certificates gateways know this node.
    pub secret: &'a str,
    /// Proves who each end is, where gateways are `https://`.
    pub tls: Option<Arc<tidegate_tls::Client>>,
    /// What is counted.
    pub metrics: Arc<FleetMetrics>,
    /// How many API requests there can be at once.
    pub requests: usize,
    /// How many users who left are remembered.
    pub seen_max: usize,
    /// Where what clients say goes.
    pub heard: mpsc::Sender<Heard>,
}

/// All gateways of the configuration, in its order.
pub struct Fleet {
    links: Vec<Arc<Link>>,
    shared: Arc<Shared>,
    /// Those that nobody dials yet.
    waiting: Mutex<Vec<(Arc<Link>, GatewayLink)>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    metrics: Arc<FleetMetrics>,
    request: Duration,
}

/// One share: its reply to come, or why there will be none.
type Part = Result<oneshot::Receiver<Taken>, Failure>;

/// Shares on their way; [`Sent::settle`] waits for what becomes of them.
pub struct Sent {
    parts: Vec<(Arc<Link>, Part)>,
    metrics: Arc<FleetMetrics>,
}

impl Fleet {
    /// A task per gateway, which [`Fleet::dial`] starts.
    #[must_use]
    pub fn new(parts: Parts<'_>, links: Vec<GatewayLink>) -> Self {
        let Parts { config, secret, tls, metrics, requests, seen_max, heard } = parts;
        let permits = permits::count(requests, links.len());
        let shared = Arc::new(Shared {
            config: config.clone(),
            secret: secret.to_owned(),
            tls,
            logic: fastrand::u64(1..),
            interest: Arc::new(Interest::new(links.len(), seen_max)),
            spare: Spare::new(links.len()),
            wants: RwLock::default(),
            heard,
        });
        let (mut seen, mut waiting) = (Vec::new(), Vec::new());
        for (i, how) in links.into_iter().enumerate() {
            let Some(index) = GatewayIndex::new(i) else { break };
            let link = Arc::new(Link::new(how.name(), index, config, &metrics, permits));
            waiting.push((Arc::clone(&link), how));
            seen.push(link);
        }
        let request = Duration::from_millis(u64::from(config.request_ms));
        let (waiting, tasks) = (Mutex::new(waiting), Mutex::default());
        Self { links: seen, shared, waiting, tasks, metrics, request }
    }

    /// Starts to link the gateways. What is [wanted](Fleet::want) by now they know from the first request.
    pub fn dial(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let keep = |(link, how)| tokio::spawn(session::keep(Arc::clone(&self.shared), link, how));
        self.tasks.lock().extend(waiting.into_iter().map(keep));
    }

    /// This logic process, as gateways know it.
    #[must_use]
    pub fn logic(&self) -> u64 {
        self.shared.logic
    }

    /// Changes what gateways are asked to tell beyond what clients say; they know with the next request.
    pub fn want(&self, change: impl FnOnce(&mut Wants)) {
        change(&mut self.shared.wants.write());
    }

    /// The backplane's TLS, if it has any.
    #[must_use]
    pub fn tls(&self) -> Option<&tidegate_tls::Client> {
        self.shared.tls.as_deref()
    }

    /// Who has which rooms and users.
    #[must_use]
    pub fn interest(&self) -> &Arc<Interest> {
        &self.shared.interest
    }

    /// The gateways.
    #[must_use]
    pub fn links(&self) -> &[Arc<Link>] {
        &self.links
    }

    /// Which connection ids each gateway gives out. A gateway that is down may give out others of its own by now.
    #[must_use]
    pub fn identities(&self) -> Vec<Identity> {
        self.links.iter().map(|link| link.identity()).collect()
    }

    /// Queues each share with its gateway, in order of calls; does not wait. `permits` are those of the publisher's request.
    pub fn send(&self, shares: Vec<Share>, permits: &Permits) -> Sent {
        let parts = shares
            .into_iter()
            .filter_map(|share| {
                let link = self.links.get(share.gateway.get())?;
                let permit = permits.take(link.index, &link.permits).ok_or(Failure::Overloaded);
                let queued = permit.and_then(|permit| link.queue.push(share.push, permit, Instant::now()));
                if queued.is_ok() {
                    link.metrics.pushes.inc();
                }
                Some((Arc::clone(link), queued))
            })
            .collect();
        Sent { parts, metrics: Arc::clone(&self.metrics) }
    }

    /// Longest wait for an answer to a query or command.
    #[must_use]
    pub fn request_deadline(&self) -> Duration {
        self.request
    }

    /// Fails what still waits and ends the links.
    pub fn stop(&self) {
        self.tasks.lock().iter().for_each(JoinHandle::abort);
        self.links.iter().for_each(|link| link.queue.close(Failure::Unreachable));
    }
}

#[cfg(test)]
impl Fleet {
    /// A fleet without gateways.
    pub fn of_none() -> Arc<Self> {
        let parts = Parts {
            config: &BackplaneConfig::default(),
            secret: "",
            tls: None,
            metrics: Arc::default(),
            requests: 1,
            seen_max: 1,
            heard: mpsc::channel(1).0,
        };
        Arc::new(Self::new(parts, Vec::new()))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Sent {
    /// What became of each share. Every wait is bounded: the link's task answers or fails all it has taken.
    pub async fn settle(self) -> Vec<(Arc<Link>, Taken)> {
        let mut out = Vec::with_capacity(self.parts.len());
        for (link, part) in self.parts {
            let taken = match part {
                // A link's task that is gone (shutdown) drops its pushes.
                Ok(reply) => reply.await.unwrap_or(Err(Failure::Lost)),
                Err(failure) => Err(failure),
            };
            if let Err(failure) = &taken {
                let labels = FailureLabels { gateway: link.name.clone(), reason: failure.label() };
                self.metrics.failures.get_or_create(&labels).inc();
            }
            out.push((link, taken));
        }
        out
    }
}
