//! The links to the gateways: pushes that wait for one gateway become one batch, one HTTP/2 POST; interest, queries and
//! commands travel on the same connection. The rest of logic sees a [`Fleet`] of [`Link`]s (`link`).
//! Parts: `queue` (what waits), `dial` (how a connection comes about), `client` (one request), `session` (the life of a
//! connection), `roster` and `leave` (which links there are, and how one ends), `sender` (batches and their sequence), `calls` (what else one link carries), `events` and `interest` (who is where), `uplink` and `tracker` (what
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
mod leave;
mod link;
mod permits;
mod queue;
mod roster;
mod sender;
mod session;
mod share;
mod spare;
mod tell;
pub mod tracker;
mod uplink;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock};
use tidegate_protocol::records::{self, Wants};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::ask::Walked;
pub use self::dial::{GatewayLink, PipeDial, PipeStream};
pub use self::failure::{Failure, untaken};
pub use self::link::Link;
pub use self::permits::Permits;
pub use self::queue::LinkState;
pub use self::roster::{GatewaySlot, Roster};
pub use self::share::{Identity, Share, holders};
pub use self::uplink::Heard;

use self::leave::Why;
use self::roster::Slots;
use self::spare::Spare;
use crate::config::{BackplaneConfig, GATEWAYS_MAX, authority_of, plain, shown};
use crate::fleet::interest::Interest;
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
    /// How many links there have been.
    links: AtomicU64,
    interest: Arc<Interest>,
    places: Places,
    metrics: Arc<FleetMetrics>,
    /// What each gateway could take from one that leaves.
    spare: Spare,
    /// What we want to hear of clients; part of each uplink request.
    wants: RwLock<Wants>,
    /// Where it goes.
    heard: mpsc::Sender<Heard>,
}

/// Which gateways are linked.
#[derive(Default)]
struct Places {
    /// The links as they are now.
    roster: watch::Sender<Arc<Roster>>,
    /// Locked for every change of the roster.
    slots: Mutex<Slots>,
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

/// The gateways that are linked.
pub struct Fleet {
    shared: Arc<Shared>,
    /// Those that nobody dials yet; none once [`Fleet::dial`] was called.
    waiting: Mutex<Option<Vec<Undialled>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// How many API requests there can be at once.
    requests: usize,
    request: Duration,
}

/// A link, and how its gateway is reached.
type Undialled = (Arc<Link>, GatewayLink);

/// More gateways than there are places for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {GATEWAYS_MAX} gateways, those counted that leave or have left within a minute: take some off first and add the \
     others when they have gone"
)]
pub struct NoPlace;

/// One share: its reply to come, or why there will be none.
type Part = Result<oneshot::Receiver<Taken>, Failure>;

/// Shares on their way; [`Sent::settle`] waits for what becomes of them.
pub struct Sent {
    parts: Vec<(Arc<Link>, Part)>,
    shared: Arc<Shared>,
}

impl Fleet {
    /// A task per gateway, which [`Fleet::dial`] starts.
    #[must_use]
    pub fn new(parts: Parts<'_>, links: Vec<GatewayLink>) -> Self {
        let Parts { config, secret, tls, metrics, requests, seen_max, heard } = parts;
        let shared = Arc::new(Shared {
            config: config.clone(),
            secret: secret.to_owned(),
            tls,
            logic: fastrand::u64(1..),
            links: AtomicU64::new(0),
            interest: Arc::new(Interest::new(0, seen_max)),
            places: Places::default(),
            metrics,
            spare: Spare::default(),
            wants: RwLock::default(),
            heard,
        });
        let (waiting, tasks) = (Mutex::new(Some(Vec::new())), Mutex::default());
        let request = Duration::from_millis(u64::from(config.request_ms));
        let fleet = Self { shared, waiting, tasks, requests, request };
        // The caller has counted them.
        links.into_iter().map_while(|how| fleet.open(how).ok()).for_each(drop);
        fleet
    }

    /// Links one more gateway.
    fn open(&self, how: GatewayLink) -> Result<(), NoPlace> {
        let Shared { config, metrics, .. } = &*self.shared;
        let mut slots = self.shared.places.slots.lock();
        let slot = slots.take(Instant::now()).ok_or(NoPlace)?;
        let link = Arc::new(Link::new(&how, slot, config, metrics, self.requests));
        self.shared.change(|roster| roster.put(Arc::clone(&link)));
        self.shared.interest.open(slot.index);
        drop(slots);
        match &mut *self.waiting.lock() {
            Some(waiting) => waiting.push((link, how)),
            None => self.start(link, how),
        }
        Ok(())
    }

    fn start(&self, link: Arc<Link>, how: GatewayLink) {
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(leave::live(Arc::clone(&self.shared), link, how)));
    }

    /// Starts to link the gateways. What is [wanted](Fleet::want) by now they know from the first request.
    pub fn dial(&self) {
        let waiting = self.waiting.lock().take();
        waiting.into_iter().flatten().for_each(|(link, how)| self.start(link, how));
    }

    /// Whether [`Fleet::target`] would take this list.
    ///
    /// # Errors
    /// What is wrong with it, in the operator's words.
    pub fn judge(&self, urls: &[String]) -> Result<(), String> {
        let roster = self.roster();
        let mut new = 0;
        for url in urls.iter().map(|url| plain(url)) {
            let authority = authority_of(&url).unwrap_or(&url);
            match roster.iter().find(|link| link.name.eq_ignore_ascii_case(authority)) {
                None => new += 1,
                // Two links to one gateway would deliver everything twice.
                Some(link) if link.url.as_ref() != Some(&url) => {
                    return Err(format!("logic.gateways: {url} is linked with another scheme; that takes a restart"));
                }
                Some(_) => {}
            }
        }
        // Whoever has switched TLS on or off has to start the node again before gateways of the other scheme are linked.
        let is_tls = self.shared.tls.is_some();
        if let Some(url) = urls.iter().find(|url| plain(url).starts_with("https://") != is_tls) {
            let needs = if is_tls { "this node has TLS" } else { "this node has no TLS yet" };
            return Err(format!("logic.gateways: {}: {needs}; that takes a restart", shown(url)));
        }
        let (free, _) = self.shared.places.slots.lock().count(Instant::now());
        if new > free { Err(format!("logic.gateways: {NoPlace}")) } else { Ok(()) }
    }

    /// From now on these gateways, and no others: the new ones are dialled, those that are missing drain and are let go. A node
    /// with the gateway of its own process has that one, whatever the list says.
    ///
    /// # Errors
    /// Those of [`Fleet::judge`]; then nothing has changed.
    pub fn target(&self, urls: &[String]) -> Result<(), String> {
        if self.roster().iter().any(|link| link.url.is_none()) {
            return Ok(());
        }
        self.judge(urls)?;
        let listed: Vec<String> = urls.iter().map(|url| plain(url)).collect();
        let roster = {
            let _slots = self.shared.places.slots.lock();
            let roster = self.roster();
            for link in roster.iter() {
                if link.url.as_ref().is_some_and(|url| listed.contains(url)) { link.stay() } else { link.leave() }
            }
            roster
        };
        let is_new = |url: &&String| !roster.iter().any(|link| link.url.as_ref() == Some(&plain(url)));
        for url in urls.iter().filter(is_new) {
            tracing::info!(gateway = %url, "on the list: it is linked");
            self.open(GatewayLink::Dial(url.clone())).map_err(|error| format!("logic.gateways: {error}"))?;
        }
        Ok(())
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

    /// The gateways as they are now.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.shared.places.roster.borrow())
    }

    /// Does something for each, while none can go.
    pub fn each(&self, act: impl FnMut(&Arc<Link>)) {
        self.shared.places.roster.borrow().iter().for_each(act);
    }

    /// Changes of them.
    #[must_use]
    pub fn rosters(&self) -> watch::Receiver<Arc<Roster>> {
        self.shared.places.roster.subscribe()
    }

    /// Links that are not leaving, links that are, and places that rest after one.
    #[must_use]
    pub fn count(&self) -> (usize, usize, usize) {
        let roster = self.roster();
        let leaving = roster.iter().filter(|link| link.is_leaving()).count();
        let (_, resting) = self.shared.places.slots.lock().count(Instant::now());
        (roster.len() - leaving, leaving, resting)
    }

    /// Queues each share with its gateway, in order of calls; does not wait. `permits` are those of the publisher's request.
    pub fn send(&self, shares: Vec<Share>, permits: &Permits) -> Sent {
        let roster = self.roster();
        let parts = shares
            .into_iter()
            .filter_map(|share| {
                let link = roster.at(share.gateway)?;
                let permit = permits.take(link.slot, &link.permits).ok_or(Failure::Overloaded);
                let queued = permit.and_then(|permit| link.queue.push(share.push, permit, Instant::now()));
                if queued.is_ok() {
                    link.metrics.pushes.inc();
                }
                Some((Arc::clone(link), queued))
            })
            .collect();
        Sent { parts, shared: Arc::clone(&self.shared) }
    }

    /// Longest wait for an answer to a query or command.
    #[must_use]
    pub fn request_deadline(&self) -> Duration {
        self.request
    }

    /// Fails what still waits and ends the links.
    pub fn stop(&self) {
        self.tasks.lock().iter().for_each(JoinHandle::abort);
        self.roster().iter().for_each(|link| link.queue.close(Failure::Unreachable));
    }
}

impl Shared {
    /// Changes the roster, and with the number of gateways what may wait for each. Under the slots' lock.
    fn change(&self, change: impl FnOnce(&mut Roster)) {
        self.places.roster.send_modify(|roster| {
            change(Arc::make_mut(roster));
            let gateways = roster.len();
            roster.iter().for_each(|link| link.permits.share(gateways));
        });
    }

    /// Takes a gateway out of all that pushes and questions are sent by; false when it has come on the list again.
    fn strike(&self, link: &Link) -> bool {
        // Under the lock of [`Fleet::target`]: a gateway that it finds is either kept or struck.
        let slots = self.places.slots.lock();
        self.strike_under(&slots, link)
    }

    /// The same under the lock already. A second time it does nothing.
    fn strike_under(&self, _slots: &MutexGuard<'_, Slots>, link: &Link) -> bool {
        if !link.is_leaving() {
            return false;
        }
        if self.places.roster.borrow().has(link.slot) {
            self.interest.close(link.slot.index);
            self.change(|roster| roster.take(link.slot));
            self.spare.forget(link.slot.index);
            self.metrics.forget(&link.name, Failure::ALL.map(Failure::label));
        }
        true
    }

    /// Counts a push that a gateway did not take. The series of one that was struck are gone, and stay so: the roster cannot change
    /// meanwhile.
    fn count(&self, link: &Link, failure: Failure) {
        let roster = self.places.roster.borrow();
        if roster.has(link.slot) {
            let labels = FailureLabels { gateway: link.name.clone(), reason: failure.label() };
            self.metrics.failures.get_or_create(&labels).inc();
        }
    }

    /// A link that was struck has ended.
    fn close(&self, link: &Link, why: Why) {
        link.close();
        if why == Why::Drained {
            link.queue.leave();
            tracing::info!(gateway = %link.name, "drained and let go");
        } else {
            link.queue.close(Failure::Unreachable);
            let connections = link.account().1.map_or(0, |info| info.connections);
            if why == Why::Renamed {
                tracing::info!(gateway = %link.name, "let go: it is linked under another name");
            } else {
                tracing::warn!(gateway = %link.name, reason = why.label(), connections, "let go before it had drained");
            }
        }
        self.metrics.closed(why.label());
        // It may have said something since it was struck.
        self.spare.forget(link.slot.index);
        self.places.slots.lock().give_back(link.slot, Instant::now());
    }
}

#[cfg(test)]
impl Fleet {
    /// A fleet without gateways.
    pub fn of_none() -> Arc<Self> {
        Self::of(&[])
    }

    /// A fleet of gateways that nobody dials.
    pub fn of(urls: &[String]) -> Arc<Self> {
        let parts = Parts {
            config: &BackplaneConfig::default(),
            secret: "",
            tls: None,
            metrics: Arc::default(),
            requests: 1,
            seen_max: 1,
            heard: mpsc::channel(1).0,
        };
        Arc::new(Self::new(parts, urls.iter().cloned().map(GatewayLink::Dial).collect()))
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
            if let Err(failure) = taken {
                self.shared.count(&link, failure);
            }
            out.push((link, taken));
        }
        out
    }
}
