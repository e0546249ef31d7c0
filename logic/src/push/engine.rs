//! The push engine: the walk of a push, whoever asks for it. [`Push`] → shares (`route`) → queues (`fleet`), and back as a receipt.
//! Invariant: [`Engine::submit`] queues without waiting, so pushes submitted one after the other reach each gateway in that
//! order (rule M-4).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::dedupe::{Claim, Dedupe, Earlier};
use super::receipt::{Receipt, Written};
use super::route::route;
use super::{Caller, Key, Push, To, Wait};
use crate::config::DedupeConfig;
use crate::fleet::{self, Failure, Fleet, Link, Permits, Roster, Sent};
use crate::metrics::push::{PushLabels, PushMetrics, PushResult};
use crate::problem::Refusal;
use crate::settings::Settings;

/// What became of a push.
pub type Outcome = Result<Receipt, Refusal>;

/// Sends pushes on their way.
pub struct Engine {
    fleet: Arc<Fleet>,
    settings: Arc<Settings>,
    metrics: Arc<PushMetrics>,
    /// Remembered keys of publishers.
    pub published: Dedupe,
    /// Remembered keys of clients, which must not make those of publishers the oldest.
    pub nonces: Dedupe,
}

/// What the pushes of one request have in common.
pub struct Request {
    caller: Caller,
    /// From when nothing of the request is waited for any more.
    waits_end: Instant,
    /// Its permits at the gateways it waits for.
    permits: Permits,
}

/// How a push's walk ended.
struct Walked {
    receipt: Receipt,
    /// What the publisher hears instead: nobody is known to have taken it.
    refusal: Option<Refusal>,
    /// Whether nobody can have taken it, so that a retry with its dedupe key should try again.
    is_untaken: bool,
}

impl Walked {
    fn outcome(self) -> Outcome {
        self.refusal.map_or(Ok(self.receipt), Err)
    }
}

/// A push on its way.
pub enum Walking {
    /// Ends with the request: a publisher that leaves does not learn what became of it.
    Here(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    /// The same, but waits for the clients beside the request's other pushes: a set of one task, ended with the set.
    Waited(JoinSet<Outcome>),
    /// Goes on when the publisher leaves, so that its retry finds the receipt.
    Apart(JoinHandle<Outcome>),
    /// Its dedupe key is known.
    Repeat(Earlier, Arc<PushMetrics>),
    /// Its caller may not push to its targets.
    Refused(Refusal),
}

impl Engine {
    /// An engine that remembers nothing yet.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>, settings: Arc<Settings>, config: &DedupeConfig, metrics: Arc<PushMetrics>) -> Self {
        Self { fleet, settings, metrics, published: Dedupe::new(config), nonces: Dedupe::new(config) }
    }

    /// A request that begins now.
    #[must_use]
    pub fn request(&self, caller: Caller) -> Request {
        let longest = Duration::from_millis(u64::from(self.settings.now().http.wait_ms_max));
        Request { caller, waits_end: Instant::now() + longest, permits: Permits::default() }
    }

    /// Sends a push on its way; does not wait.
    /// `id` is its id where it has one already.
    pub fn submit(&self, request: &Request, mut push: Push, id: Option<&str>) -> Walking {
        if let Some(reach) = &request.caller.reach
            && let Err(refusal) = reach.check(&push.to)
        {
            return Walking::Refused(refusal);
        }
        let mut guard = None;
        if let Some(key) = push.dedupe.take() {
            match self.claim(&request.caller, &key) {
                Claim::First(first) => guard = Some(first),
                Claim::Repeat(earlier) => return Walking::Repeat(earlier, Arc::clone(&self.metrics)),
            }
        }
        // A client whose message to one found nobody hears so, and its retry shall be sent.
        let must_find = request.caller.id == Caller::CLIENTS.id && matches!(push.to, To::Users(_) | To::Connections(_));
        let walk = self.start(request, &push, id).finish();
        let Some(guard) = guard else {
            let walk = async move { walk.await.outcome() };
            return match push.wait {
                Wait::Accepted => Walking::Here(Box::pin(walk)),
                Wait::Written { .. } => {
                    let mut tasks = JoinSet::new();
                    tasks.spawn(walk);
                    Walking::Waited(tasks)
                }
            };
        };
        Walking::Apart(tokio::spawn(async move {
            let walked = walk.await;
            if walked.is_untaken || (must_find && walked.receipt.matched == 0) {
                drop(guard);
            } else {
                guard.settle(&walked.receipt);
            }
            walked.outcome()
        }))
    }

    fn claim(&self, caller: &Caller, key: &Key) -> Claim {
        match &key.owner {
            Some(owner) => self.nonces.claim_owned(caller.id, owner, &key.name, Instant::now()),
            None => self.published.claim(caller.id, &key.name, Instant::now()),
        }
    }

    fn start(&self, request: &Request, push: &Push, id: Option<&str>) -> Walk {
        let started = Instant::now();
        let shares = route(push, self.fleet.interest(), &self.fleet.roster().identities());
        let sent = self.fleet.send(shares, &request.permits);
        self.metrics.messages.inc_by(push.messages.len() as u64);
        Walk {
            fleet: Arc::clone(&self.fleet),
            metrics: Arc::clone(&self.metrics),
            id: id.map_or_else(|| ulid::Ulid::generate().to_string(), str::to_owned),
            sent,
            wait: push.wait,
            started,
            waits_end: request.waits_end,
        }
    }
}

impl Walking {
    /// Waits for the receipt.
    pub async fn outcome(self) -> Outcome {
        match self {
            Self::Here(walk) => walk.await,
            Self::Waited(mut tasks) => {
                tasks.join_next().await.and_then(Result::ok).unwrap_or(Err(Refusal::ShuttingDown))
            }
            // The task neither panics nor is aborted while the runtime lives.
            Self::Refused(refusal) => Err(refusal),
            Self::Apart(task) => task.await.unwrap_or(Err(Refusal::ShuttingDown)),
            Self::Repeat(earlier, metrics) => {
                count(&metrics, PushResult::Repeated);
                let receipt = earlier.receipt().await.ok_or(Refusal::FirstFailed)?;
                Ok((*receipt).clone())
            }
        }
    }
}

/// A push that the gateways' queues have.
struct Walk {
    fleet: Arc<Fleet>,
    metrics: Arc<PushMetrics>,
    id: String,
    sent: Sent,
    wait: Wait,
    started: Instant,
    waits_end: Instant,
}

impl Walk {
    async fn finish(self) -> Walked {
        let Self { fleet, metrics, id, sent, wait, started, waits_end } = self;
        let mut receipt = Receipt::new(id);
        let mut tickets = Vec::new();
        let mut failures = Vec::new();
        for (link, taken) in sent.settle().await {
            match taken {
                Ok(part) => {
                    receipt.add(&part);
                    tickets.push((link, part.ticket));
                }
                Err(failure) => {
                    receipt.fail(link.name.clone(), failure.label());
                    failures.push(failure);
                }
            }
        }
        metrics.seconds.observe(started.elapsed().as_secs_f64());
        metrics.matched.inc_by(receipt.matched);
        let may_be_taken = receipt.gateways.sent > 0 || failures.iter().any(|f| f.may_be_taken());
        if receipt.gateways.sent == 0
            && let Some(refusal) = nobody_took_it(&fleet.roster(), &receipt, &failures)
        {
            count(&metrics, PushResult::Unavailable);
            return Walked { receipt, refusal: Some(refusal), is_untaken: !may_be_taken };
        }
        count(
            &metrics,
            match (receipt.gateways.sent, failures.len()) {
                (0, 0) => PushResult::Nobody,
                (_, 0) => PushResult::Sent,
                (_, _) => PushResult::Partial,
            },
        );
        if let Wait::Written { timeout_ms } = wait {
            let until = Instant::now() + Duration::from_millis(u64::from(timeout_ms));
            written(&mut receipt, tickets, until.min(waits_end)).await;
        }
        // A push to nobody is done.
        let is_untaken = !may_be_taken && !failures.is_empty();
        Walked { receipt, refusal: None, is_untaken }
    }
}

/// All gateways down, or every queue full. A push whose only gateway of several is down is not refused: its receipt says so.
fn nobody_took_it(links: &Roster, receipt: &Receipt, failures: &[Failure]) -> Option<Refusal> {
    let is_full = !failures.is_empty() && failures.iter().all(|f| *f == Failure::Overloaded);
    let is_down = links.is_down();
    let is_nowhere = is_full || (!failures.is_empty() && (is_down || failures.len() == links.len()));
    (is_nowhere || links.is_empty()).then(|| {
        let names = receipt.gateways.failed.iter().map(|f| f.gateway.clone());
        fleet::untaken(&names.zip(failures.iter().copied()).collect::<Vec<_>>())
    })
}

/// Asks every gateway that took a share what became of it, side by side.
async fn written(receipt: &mut Receipt, tickets: Vec<(Arc<Link>, u64)>, until: Instant) {
    let mut waits = JoinSet::new();
    for (link, ticket) in tickets.into_iter().filter(|(_, ticket)| *ticket != 0) {
        waits.spawn(async move { link.wait(ticket, until).await });
    }
    let mut total = Written::default();
    while let Some(reply) = waits.join_next().await {
        // A gateway that is lost meanwhile, or has forgotten the ticket, leaves its share's fate unknown.
        let outcome = reply.ok().and_then(Result::ok).and_then(|reply| reply.outcomes.into_iter().next());
        let Some(outcome) = outcome else {
            total.timed_out = true;
            continue;
        };
        total.written += outcome.written;
        total.pending += outcome.pending;
        total.timed_out |= !outcome.is_done;
        receipt.add_dropped(&outcome.dropped);
    }
    receipt.written = Some(total);
}

fn count(metrics: &PushMetrics, result: PushResult) {
    metrics.pushes.get_or_create(&PushLabels { result }).inc();
}
