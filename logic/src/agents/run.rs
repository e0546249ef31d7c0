//! The life of one command: sent, perhaps sent again to connections that come while it waits, ended by its replies or its
//! deadline.
//!
//! ```text
//!  sent ──matched──▶ waiting ──enough replies──▶ Replied
//!    │                 │ ▲ a connection of the user came: sent to that one, under the same id
//!    │ nobody          └─┴──deadline──▶ TimedOut
//!    ▼
//!  Nobody, Untaken (or waiting, when the caller waits for the agent)
//! ```
//!
//! Invariant: a connection is sent a command once, unless its gateway's answer was lost: gateways name those they sent it to. One that
//! could not (many connections of the user, or an older release) is left out of the looks for newcomers. The id is the same.

use std::collections::HashSet;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_protocol::command;
use tidegate_protocol::ids::{CommandId, ConnectionId};
use tidegate_protocol::records::{Lane, QueryKind, QueryReply, QueryRequest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::registry::{Reply, Target, Waiting};
use super::{Agents, documents};
use crate::fleet::interest::Watch;
use crate::fleet::{Failure, Fleet, Identity, Permits};
use crate::push::dedupe::{Outcome, Print};
use crate::push::route::route;
use crate::push::{Narrow, Push, To, Wait};

/// When an unanswered command first looks for new connections that interest did not tell of (a user who comes back before
/// its old connection is known to be dead has never been away); the pause doubles after each look.
const LOOK_FIRST: Duration = Duration::from_secs(1);
/// The last look is so long before the deadline: who is found then can still reply.
const LOOK_LAST: Duration = Duration::from_millis(500);
/// Connections of one user that a look finds.
const LOOK_MAX: u32 = 64;

/// What is asked.
pub struct Ask {
    /// Of whom.
    pub target: Target,
    /// Its name.
    pub command: String,
    /// A JSON value.
    pub data: String,
    /// How long it may take.
    pub timeout: Duration,
    /// How many replies are enough.
    pub expect: Expect,
    /// Whether it waits for the agent to come.
    pub waits_for_agent: bool,
}

/// How many replies are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The first.
    First,
    /// One of each connection that was sent the command.
    All,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Enough replied.
    Replied,
    /// Its time was up.
    TimedOut,
    /// The caller, who alone wanted it, has left.
    Left,
    /// Nobody was there.
    Nobody,
    /// No gateway took it; each with its reason.
    Untaken(Vec<(String, Failure)>),
}

/// What became of a command.
#[derive(Debug)]
pub struct Conclusion {
    /// Its id.
    pub id: CommandId,
    /// In order of arrival.
    pub replies: Vec<Reply>,
    /// Connections it was sent to.
    pub delivered: u64,
    /// How.
    pub end: End,
    /// From the request to its end.
    pub took: Duration,
}

impl Outcome for Conclusion {
    type Kept = Arc<Self>;
    type Print = Print;

    fn keep(outcome: Arc<Self>) -> Arc<Self> {
        outcome
    }

    fn tell(kept: &Arc<Self>) -> Arc<Self> {
        Arc::clone(kept)
    }

    /// Without what the replies say, which `keys_bytes` is about.
    fn bytes(kept: &Arc<Self>) -> usize {
        size_of::<Self>() + kept.replies.len() * size_of::<Reply>()
    }
}

/// What a caller who streams hears while the command runs.
pub enum Step {
    /// It has been sent, so there will be lines.
    Sent,
    /// A reply.
    Line(Bytes),
}

/// A sending: how many got it, and which gateways did not take it.
#[derive(Default)]
struct Sent {
    matched: u64,
    failed: Vec<(String, Failure)>,
    may_be_taken: bool,
    /// Who got it, as far as gateways named them.
    named: Vec<ConnectionId>,
    /// The gateways that did not name everybody.
    unnamed: Vec<Identity>,
    /// The gateways that certainly did not take it.
    untaken: Vec<Identity>,
}

type Looking<'a> = Pin<Box<dyn Future<Output = Vec<ConnectionId>> + Send + 'a>>;

/// One command on its way.
struct Run<'a> {
    agents: &'a Agents,
    ask: &'a Ask,
    waiting: Waiting,
    steps: Option<mpsc::Sender<Step>>,
    deadline: Instant,
    /// Connections that were sent the command.
    told: HashSet<ConnectionId>,
    /// The gateways of which `told` does not have them all.
    unnamed: Vec<Identity>,
    delivered: u64,
    replies: Vec<Reply>,
}

/// Runs a command to its end. `steps` has room for all replies and one more.
pub async fn run(agents: &Agents, ask: &Ask, steps: Option<mpsc::Sender<Step>>) -> Conclusion {
    let started = Instant::now();
    // Before the first sending: who comes after it is told of.
    let watch = match &ask.target {
        Target::User(user) => Some(agents.fleet.interest().watch_user(user)),
        Target::Room(_) => None,
    };
    let secret = getrandom::u64().expect("the kernel has random numbers once it is up");
    let waiting = agents.registry.begin(agents.fleet.logic(), secret, ask.target.clone());
    let deadline = started + ask.timeout;
    let (told, unnamed, replies) = (HashSet::new(), Vec::new(), Vec::new());
    let mut run = Run { agents, ask, waiting, steps, deadline, told, unnamed, delivered: 0, replies };
    let end = run.live_on(watch).await;
    Conclusion { id: run.waiting.id, replies: run.replies, delivered: run.delivered, end, took: started.elapsed() }
}

impl Run<'_> {
    async fn live_on(&mut self, watch: Option<Watch>) -> End {
        let sent = self.send(self.ask.target.to()).await;
        self.delivered = sent.matched;
        self.unnamed = sent.unnamed;
        self.told.extend(sent.named);
        if sent.matched == 0 && !sent.may_be_taken && !self.ask.waits_for_agent {
            return if sent.failed.is_empty() { End::Nobody } else { End::Untaken(sent.failed) };
        }
        self.say(Step::Sent);
        let mut looks = Looks::new(Instant::now(), self.deadline);
        let mut looking: Option<Looking<'_>> = None;
        loop {
            tokio::select! {
                biased;
                reply = self.waiting.replies.recv() => {
                    // The sender lives as long as `waiting`.
                    let Some(reply) = reply else { return End::TimedOut };
                    if self.take(reply) {
                        return End::Replied;
                    }
                }
                () = sleep_until(self.deadline) => return End::TimedOut,
                () = is_left(self.steps.as_ref()) => return End::Left,
                found = look(&mut looking) => {
                    looking = None;
                    self.send_to_new(found).await;
                }
                user = came(watch.as_ref(), &self.ask.target), if looking.is_none() => {
                    looking = Some(Box::pin(connections(&self.agents.fleet, user)));
                }
                () = is_at(looks.next), if watch.is_some() && looking.is_none() => {
                    looks.looked(Instant::now());
                    if let Target::User(user) = &self.ask.target {
                        looking = Some(Box::pin(connections(&self.agents.fleet, user)));
                    }
                }
            }
        }
    }

    /// Adds a reply; true when it was the last one needed.
    fn take(&mut self, reply: Reply) -> bool {
        self.say(Step::Line(documents::line(&reply)));
        self.replies.push(reply);
        match self.ask.expect {
            Expect::First => true,
            Expect::All => self.delivered > 0 && self.replies.len() as u64 >= self.delivered,
        }
    }

    fn say(&mut self, step: Step) {
        // Fails when the caller has left, which ends the run.
        let _ = self.steps.as_ref().map(|to| to.try_send(step));
    }

    async fn send_to_new(&mut self, mut found: Vec<ConnectionId>) {
        found.retain(|id| !self.unnamed.iter().any(|gateway| is_at_home(*id, *gateway)) && self.told.insert(*id));
        if found.is_empty() {
            return;
        }
        self.agents.metrics.resends.inc_by(found.len() as u64);
        let sent = self.send(To::Connections(found.clone())).await;
        self.delivered += sent.matched;
        // The next look finds whom it has certainly not reached.
        found.retain(|id| sent.untaken.iter().any(|gateway| is_at_home(*id, *gateway)));
        self.told.retain(|id| !found.contains(id));
    }

    async fn send(&self, to: To) -> Sent {
        let left = self.deadline.saturating_duration_since(Instant::now()).as_millis();
        let left_ms = u32::try_from(left).unwrap_or(u32::MAX).max(1);
        let push = Push {
            to,
            narrow: Narrow::default(),
            messages: Vec::new(),
            lane: Lane::Urgent,
            ttl_ms: left_ms,
            dedupe: None,
            wait: Wait::Accepted,
        };
        let text = Bytes::from(command::message(self.waiting.id, &self.ask.command, &self.ask.data, left_ms));
        let mut shares = route(&push, self.agents.fleet.interest(), &self.agents.fleet.roster().identities());
        shares.iter_mut().for_each(|share| share.push.control = text.clone());
        let mut sent = Sent::default();
        for (link, taken) in self.agents.fleet.send(shares, &Permits::exempt()).settle().await {
            match taken {
                Ok(receipt) => {
                    sent.matched += receipt.matched;
                    if (receipt.connections.len() as u64) < receipt.matched {
                        sent.unnamed.push(link.identity());
                    }
                    sent.named.extend(receipt.connections.iter().filter_map(|id| ConnectionId::from_slice(id)));
                }
                Err(failure) => {
                    if failure.may_be_taken() {
                        sent.may_be_taken = true;
                    } else {
                        sent.untaken.push(link.identity());
                    }
                    sent.failed.push((link.name.clone(), failure));
                }
            }
        }
        sent
    }
}

/// Whether a connection is at this gateway, in this run of it. Nobody is at one that has never said who it is.
fn is_at_home(id: ConnectionId, gateway: Identity) -> bool {
    gateway.is_some_and(|(gateway, epoch)| id.gateway == gateway && epoch.is_none_or(|epoch| id.epoch == epoch))
}

/// When a command looks by itself: 1, 3, 7, … s after it was sent, and shortly before its deadline.
#[derive(Debug)]
struct Looks {
    /// None: that was the last one.
    next: Option<Instant>,
    pause: Duration,
    last: Instant,
}

impl Looks {
    fn new(now: Instant, deadline: Instant) -> Self {
        let last = deadline.checked_sub(LOOK_LAST).unwrap_or(now);
        let mut looks = Self { next: None, pause: LOOK_FIRST, last };
        looks.plan(now);
        looks
    }

    fn looked(&mut self, now: Instant) {
        self.pause *= 2;
        self.plan(now);
    }

    fn plan(&mut self, now: Instant) {
        self.next = (now < self.last).then(|| (now + self.pause).min(self.last));
    }
}

async fn is_at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// The caller who streams has left.
async fn is_left(steps: Option<&mpsc::Sender<Step>>) {
    match steps {
        Some(steps) => steps.closed().await,
        None => pending().await,
    }
}

async fn look(looking: &mut Option<Looking<'_>>) -> Vec<ConnectionId> {
    match looking {
        Some(looking) => looking.await,
        None => pending().await,
    }
}

/// The user has come (again).
async fn came<'a>(watch: Option<&Watch>, target: &'a Target) -> &'a str {
    match (watch, target) {
        (Some(watch), Target::User(user)) => {
            watch.told().await;
            user
        }
        (_, _) => pending().await,
    }
}

/// The user's connections, as far as gateways answer; a slow one holds up only this look.
async fn connections(fleet: &Fleet, user: &str) -> Vec<ConnectionId> {
    let request = QueryRequest {
        kind: QueryKind::Connections.into(),
        user: user.to_owned(),
        limit: LOOK_MAX,
        ..QueryRequest::default()
    };
    let deadline = fleet.request_deadline();
    let gateways = fleet.interest().view().user(user);
    let mut replies = JoinSet::new();
    for link in fleet.links_of(gateways) {
        let request = request.clone();
        replies.spawn(async move { link.query(&request, deadline).await.unwrap_or_default() });
    }
    let rows = replies.join_all().await.into_iter().flat_map(|reply: QueryReply| reply.connections);
    rows.filter_map(|row| ConnectionId::from_slice(&row.id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_looks(timeout_ms: u64) -> Vec<u128> {
        let now = Instant::now();
        let mut looks = Looks::new(now, now + Duration::from_millis(timeout_ms));
        std::iter::from_fn(|| {
            let at = looks.next?;
            looks.looked(at);
            Some((at - now).as_millis())
        })
        .collect()
    }

    #[test]
    fn the_last_look_is_shortly_before_the_deadline() {
        assert_eq!(all_looks(5_000), [1_000, 3_000, 4_500]);
        assert_eq!(all_looks(30_000), [1_000, 3_000, 7_000, 15_000, 29_500]);
        assert_eq!(all_looks(1_200), [700]);
        assert_eq!(all_looks(400), [] as [u128; 0]);
    }
}
