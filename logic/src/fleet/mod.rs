//! The links to the gateways: pushes that wait for one gateway become one batch, one HTTP/2 POST; interest, queries and
//! commands travel on the same connection. This file is what the rest of logic sees of it: a [`Fleet`] of [`Link`]s.
//! Parts: `queue` (what waits), `dial` (how a connection comes about), `client` (one request), `session` (the life of a
//! connection), `sender` (batches and their sequence), `events` and `interest` (who is where), `uplink` and `tracker` (what
//! clients say, and the answers to it), `spare` (who could take the clients of one that leaves), `permits` (requests that wait
//! for a gateway), `share` (what goes to one), `ask`, `tell` and `cursor` (questions and commands to several).
//! Invariant: one gateway never waits for another.

mod ask;
mod client;
pub mod cursor;
mod dial;
mod events;
mod failure;
pub mod interest;
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
use prost::Message;
use tidegate_protocol::records::{self, GatewayInfo, Wants, path};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

pub use self::ask::Walked;
pub use self::client::CallError;
pub use self::dial::{GatewayLink, PipeDial, PipeStream};
pub use self::failure::{Failure, untaken};
pub use self::permits::Permits;
pub use self::queue::LinkState;
pub use self::share::{Identity, Share, holders};
pub use self::uplink::{Heard, Outgoing};

use self::client::Client;
use self::queue::Queue;
use self::spare::Spare;
use crate::config::BackplaneConfig;
use crate::fleet::interest::{GatewayIndex, Interest};
use crate::metrics::fleet::{FailureLabels, FleetMetrics, LinkMetrics};

/// Waits for written pushes, and beside them queries and commands, that one link carries at once. Together half of a
/// gateway's 256 streams a connection: h2 queues a stream beyond those ahead of the next PUSH and EVENTS. Two bounds,
/// because waits last as long as their publishers say, and an operator's question should not wait for them.
const WAITS_MAX: usize = 64;
const QUESTIONS_MAX: usize = 64;

/// What a wait may take longer than its publisher said: the way to the gateway and back.
const WAIT_SLACK: Duration = Duration::from_millis(500);

/// What became of one gateway's share of a push.
pub type Taken = Result<records::Receipt, Failure>;

/// One gateway as the rest of logic sees it.
pub struct Link {
    /// Backplane address (`host:port`), or `local`: the name in receipts and metrics.
    pub name: String,
    /// Its place in the configuration.
    pub index: GatewayIndex,
    /// What waits for it, and whether the link is up; the link's task takes from it.
    queue: Queue,
    /// The open connection, while there is one; set and cleared by the link's task.
    client: Mutex<Option<Client>>,
    /// The gateway's latest account of itself and its epoch; kept over a loss; set by the link's task.
    account: Mutex<Account>,
    /// Permits of [`WAITS_MAX`] and [`QUESTIONS_MAX`].
    waits: Semaphore,
    questions: Semaphore,
    /// Requests that may wait for this gateway's answer to their pushes.
    permits: Arc<Semaphore>,
    /// Answers to what its clients said.
    pub outgoing: Outgoing,
    /// Told when the link has come up.
    pub came_up: Notify,
    /// The epoch in which the gateway has been told what it must know before clients come; until then it is not asked what
    /// they say, by which it would let them in.
    briefed: watch::Sender<u64>,
    metrics: LinkMetrics,
}

#[derive(Default)]
struct Account {
    epoch: u64,
    info: Option<GatewayInfo>,
}

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

impl Link {
    fn new(
        name: String,
        index: GatewayIndex,
        config: &BackplaneConfig,
        metrics: &FleetMetrics,
        permits: usize,
    ) -> Self {
        let metrics = metrics.of_link(&name);
        Self {
            name,
            index,
            queue: Queue::new(config),
            client: Mutex::default(),
            account: Mutex::default(),
            waits: Semaphore::new(WAITS_MAX),
            questions: Semaphore::new(QUESTIONS_MAX),
            permits: Arc::new(Semaphore::new(permits)),
            outgoing: Outgoing::default(),
            came_up: Notify::new(),
            briefed: watch::Sender::new(0),
            metrics,
        }
    }

    /// Whether the link is up.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.queue.state()
    }

    /// Pushes and bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        self.queue.waiting()
    }

    /// The gateway's latest account of itself, and the epoch it belongs to.
    #[must_use]
    pub fn account(&self) -> (u64, Option<GatewayInfo>) {
        let account = self.account.lock();
        (account.epoch, account.info.clone())
    }

    /// The gateway knows in this epoch what it must know before clients come.
    pub fn brief(&self, epoch: u64) {
        self.briefed.send_if_modified(|old| std::mem::replace(old, epoch) != epoch);
    }

    /// Whether it does in its present epoch.
    #[must_use]
    pub fn is_briefed(&self) -> bool {
        *self.briefed.borrow() == self.account.lock().epoch
    }

    /// Resolves when it does in this epoch.
    async fn is_briefed_in(&self, epoch: u64) {
        // The sender lives in self, so this ends only by the value.
        let _ = self.briefed.subscribe().wait_for(|briefed| *briefed == epoch).await;
    }

    fn identity(&self) -> Identity {
        let account = self.account.lock();
        let info = account.info.as_ref()?;
        // While the link is down the gateway may have restarted: then only its own id is certain.
        let is_up = self.state() == LinkState::Up;
        Some((u16::try_from(info.id).ok()?, is_up.then_some(info.id_epoch)))
    }

    /// Asks the gateway.
    ///
    /// # Errors
    /// [`CallError`]; `Down` when there is no connection.
    pub async fn query(
        &self,
        request: &records::QueryRequest,
        deadline: Duration,
    ) -> Result<records::QueryReply, CallError> {
        self.question(path::QUERY, request, deadline).await
    }

    /// Tells the gateway to close connections.
    ///
    /// # Errors
    /// As [`Link::query`].
    pub async fn command(
        &self,
        request: &records::CommandRequest,
        deadline: Duration,
    ) -> Result<records::CommandReply, CallError> {
        self.question(path::COMMAND, request, deadline).await
    }

    /// Waits until a push is written, or time is up.
    ///
    /// # Errors
    /// As [`Link::query`]; `Late` also when too many wait already.
    pub async fn wait(&self, ticket: u64, until: Instant) -> Result<records::WaitReply, CallError> {
        let end = until + WAIT_SLACK;
        let _permit = timeout_at(end, self.waits.acquire()).await.map_err(|_| CallError::Late)?;
        let now = Instant::now();
        let left = until.saturating_duration_since(now).as_millis();
        let timeout_ms = u32::try_from(left).unwrap_or(u32::MAX);
        let request = records::WaitRequest { tickets: vec![ticket], timeout_ms };
        self.client()?.call(path::WAIT, &request, end.saturating_duration_since(now)).await
    }

    async fn question<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let end = Instant::now() + deadline;
        let _permit = timeout_at(end, self.questions.acquire()).await.map_err(|_| CallError::Late)?;
        self.client()?.call(path, request, end.saturating_duration_since(Instant::now())).await
    }

    fn client(&self) -> Result<Client, CallError> {
        self.client.lock().clone().ok_or(CallError::Down)
    }
}
