//! One business service: its books, its spool, the way to it, and the tasks between them. A message is booked, queued for the
//! next commit (`writer`), answered when that is on the disk, and sent by its lane (`worker`).
//! Invariants: what waits is in the ledger; what the ledger has as written is in the spool.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::graves::Grave;
use super::health::Health;
use super::ledger::{Admission, Books, Ledger};
use super::outlet::Outlet;
use super::spool::frame;
use super::spool::salvage::Damage;
use super::spool::{Dead, Found, MESSAGE_WEIGHT, Spool, SpoolError};
use super::wishes::Actions;
use super::{Outcome, worker, writer};
use crate::clock::unix_ms;
use crate::config::SinkConfig;
use crate::metrics::upstream::{ReasonLabels, SinkLabels, UpstreamMetrics};

/// Messages and marks that wait for a commit.
const INTAKE: usize = 65_536;

/// Something for the next commit.
#[derive(Debug)]
pub enum Work {
    /// A new message, admitted by the ledger.
    Put { shard: u32, taken_ms: u64, line: Bytes, sender: Option<oneshot::Sender<Outcome>> },
    /// A lane's messages up to this number are delivered.
    Done { lane: u16, up_to: u64 },
    /// A message is delivered before those ahead of it in its lane; told when that is on the disk.
    Take { lane: u16, number: u64, sender: oneshot::Sender<bool> },
    /// A message is given up, booked by the ledger like those that make room for it; told when it is on the disk.
    Bury { lane: u16, dead: Dead, made_room: Vec<Grave>, sender: oneshot::Sender<bool> },
    /// Dead letters are messages again, booked by the ledger.
    Revive { dead: Vec<Dead>, sender: oneshot::Sender<bool> },
    /// Dead letters are forgotten; not booked yet.
    Forget { dead: Vec<Dead>, sender: oneshot::Sender<bool> },
    /// The node leaves: what came before is committed, and that is all.
    Close,
}

/// What a lane and the rest know of each other.
#[derive(Debug)]
pub struct LaneState {
    /// Last number that is on the disk.
    pub committed: watch::Sender<u64>,
    /// Messages waiting.
    pub waiting: AtomicU64,
    /// When its first message was accepted; 0: it has none, or has not looked yet.
    pub head_ms: AtomicU64,
}

/// A sink.
pub struct Sink {
    /// As configured.
    pub config: SinkConfig,
    /// The file.
    pub spool: Spool,
    /// The books.
    pub ledger: Ledger,
    /// The way out.
    pub outlet: Box<dyn Outlet>,
    /// One each.
    pub lanes: Vec<LaneState>,
    /// What is counted.
    pub counts: Counts,
    /// What is wrong.
    pub health: Health,
    /// How deep JSON may nest in answers.
    pub json_depth: usize,
    /// One who tends dead letters at a time.
    pub tending: AsyncMutex<()>,
    intake: mpsc::Sender<Work>,
}

/// What is counted of a sink.
pub struct Counts {
    /// Names it in metrics.
    pub labels: SinkLabels,
    /// Those of all sinks.
    pub metrics: Arc<UpstreamMetrics>,
    /// Batches that the sink has taken, of any lane.
    pub taken: AtomicU64,
}

/// A sink as operators see it.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What is held.
    pub books: Books,
    /// Age of the oldest message not delivered.
    pub lag_ms: u64,
    /// Since when (Unix milliseconds) the sink takes nothing, and what went wrong last; none since the last success.
    pub trouble: Option<(u64, String)>,
}

/// What a sink needs to run.
pub struct Idle {
    sink: Arc<Sink>,
    work: mpsc::Receiver<Work>,
    next: u64,
}

impl Sink {
    /// Opens the spool; nothing moves before [`Idle::run`].
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn open(
        config: &SinkConfig,
        folder: &str,
        json_depth: usize,
        metrics: Arc<UpstreamMetrics>,
        outlet: Box<dyn Outlet>,
    ) -> Result<(Arc<Self>, Idle), SpoolError> {
        let path = Path::new(folder).join(format!("{}.redb", config.name));
        let (spool, found) = Spool::open(&path, config.lanes)?;
        tell_of(config, &path, &found);
        let lane = |&(waiting, last): &(u64, u64)| LaneState {
            committed: watch::Sender::new(last),
            waiting: AtomicU64::new(waiting),
            head_ms: AtomicU64::new(0),
        };
        let labels = SinkLabels { sink: config.name.clone() };
        let lost = found.damage.as_ref().map_or(0, |damage| damage.lost);
        metrics.intake.damaged.get_or_create(&labels).inc_by(lost);
        let (intake, work) = mpsc::channel(INTAKE);
        let sink = Arc::new(Self {
            ledger: Ledger::new(config, &found),
            outlet,
            lanes: found.lanes.iter().map(lane).collect(),
            spool,
            counts: Counts { labels, metrics, taken: AtomicU64::new(0) },
            health: Health::new(&config.name),
            json_depth,
            tending: AsyncMutex::new(()),
            intake,
            config: config.clone(),
        });
        let idle = Idle { sink: Arc::clone(&sink), work, next: found.next };
        Ok((sink, idle))
    }

    /// Takes a line; the sender hears when it is on the disk. Order of calls is order of delivery within a shard.
    pub fn submit(&self, shard: u32, line: Vec<u8>, sender: Option<oneshot::Sender<Outcome>>) {
        let weight = line.len() as u64 + MESSAGE_WEIGHT;
        match self.ledger.admit(shard, weight) {
            Admission::Taken => {}
            Admission::Full => return self.refuse("full", sender, Outcome::OVERLOADED),
            Admission::UserFull => return self.refuse("user_full", sender, Outcome::USER_OVERLOADED),
        }
        let work = Work::Put { shard, taken_ms: unix_ms(), line: line.into(), sender };
        match self.intake.try_send(work) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(work)) => self.turn_away(weight, work, "full", Outcome::OVERLOADED),
            Err(mpsc::error::TrySendError::Closed(work)) => {
                self.turn_away(weight, work, "leaving", Outcome::UNAVAILABLE);
            }
        }
    }

    fn turn_away(&self, weight: u64, work: Work, reason: &'static str, outcome: Outcome) {
        if let Work::Put { shard, sender, .. } = work {
            self.ledger.withdraw(shard, weight);
            self.refuse(reason, sender, outcome);
        }
    }

    /// Counts, and tells the sender if there is one.
    pub fn refuse(&self, reason: &'static str, sender: Option<oneshot::Sender<Outcome>>, outcome: Outcome) {
        self.count(&self.counts.metrics.intake.refused, reason);
        if let Some(sender) = sender {
            // A sender that is gone needs no answer.
            let _ = sender.send(outcome);
        }
    }

    /// Puts something into the next commit; waits for a place. False: the node has left.
    pub async fn hand_in(&self, work: Work) -> bool {
        self.intake.send(work).await.is_ok()
    }

    /// Counts one of a family.
    pub fn count(
        &self,
        family: &prometheus_client::metrics::family::Family<ReasonLabels, prometheus_client::metrics::counter::Counter>,
        reason: &'static str,
    ) {
        family.get_or_create(&ReasonLabels { sink: self.config.name.clone(), reason }).inc();
    }

    /// Counts a dead letter.
    pub fn mourn(&self, reason: &'static str) {
        self.count(&self.counts.metrics.dead.died, reason);
        self.health.mourn(reason);
    }

    /// Counts dead letters that are gone for good.
    pub fn evicted(&self, reason: &'static str, letters: usize) {
        if letters == 0 {
            return;
        }
        let labels = ReasonLabels { sink: self.config.name.clone(), reason };
        self.counts.metrics.dead.evicted.get_or_create(&labels).inc_by(letters as u64);
        self.health.evicted(reason);
    }

    /// A message is not as it was written: it is counted, kept beside the spool, and passed over. Blocking.
    pub fn lose(&self, lane: u16, number: u64, bytes: &[u8]) {
        let kept =
            self.spool.keep(number, bytes).map_or_else(|error| error.to_string(), |path| path.display().to_string());
        tracing::error!(sink = %self.config.name, number, kept, "a message in the spool is damaged and not delivered");
        self.counts.metrics.intake.damaged.get_or_create(&self.counts.labels).inc();
        let line = bytes.len().saturating_sub(frame::MESSAGE_HEAD);
        self.ledger.lost(line as u64 + MESSAGE_WEIGHT);
        self.lanes[usize::from(lane)].waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// As operators see it.
    pub fn standing(&self) -> Standing {
        let heads = self.lanes.iter().map(|lane| lane.head_ms.load(Ordering::Relaxed)).filter(|&ms| ms > 0);
        let lag_ms = heads.min().map_or(0, |oldest| unix_ms().saturating_sub(oldest));
        Standing { books: self.ledger.books(), lag_ms, trouble: self.health.trouble() }
    }

    /// Where messages go, without what may be secret in it.
    pub fn address(&self) -> String {
        self.outlet.peers().into_iter().next().map_or_else(String::new, |peer| peer.address)
    }

    /// Sets the gauges.
    pub fn refresh(&self) {
        let standing = self.standing();
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (m, books) = (&self.counts.metrics, standing.books);
        m.intake.spool_messages.get_or_create(&self.counts.labels).set(gauge(books.waiting.messages));
        m.intake.spool_bytes.get_or_create(&self.counts.labels).set(gauge(books.waiting.bytes));
        m.intake.unwritten_bytes.get_or_create(&self.counts.labels).set(gauge(books.unwritten));
        m.dead.messages.get_or_create(&self.counts.labels).set(gauge(books.dead.messages));
        m.dead.bytes.get_or_create(&self.counts.labels).set(gauge(books.dead.bytes));
        let set_aside = self.spool.set_aside().len();
        m.intake.set_aside.get_or_create(&self.counts.labels).set(gauge(set_aside as u64));
        m.outlet
            .lag_seconds
            .get_or_create(&self.counts.labels)
            .set(Duration::from_millis(standing.lag_ms).as_secs_f64());
    }
}

impl Idle {
    /// Starts the lanes and the writer; they end after `leave`, the writer last.
    pub fn run(self, actions: &Arc<dyn Actions>, leave: &watch::Receiver<bool>, tasks: &mut JoinSet<()>) {
        let Self { sink, work, next } = self;
        let mut lanes = JoinSet::new();
        for lane in 0..sink.config.lanes {
            lanes.spawn(worker::run(Arc::clone(&sink), lane, Arc::clone(actions), leave.clone()));
        }
        tasks.spawn(writer::run(Arc::clone(&sink), work, next));
        tasks.spawn(async move {
            while lanes.join_next().await.is_some() {}
            sink.hand_in(Work::Close).await;
        });
    }
}

fn tell_of(config: &SinkConfig, path: &Path, found: &Found) {
    let (waiting, dead) = (found.waiting.messages, found.dead.messages);
    if let Some(damage) = &found.damage {
        let Damage { kept, why, saved, lost, is_counted } = damage;
        let lost = if *is_counted { lost.to_string() } else { format!("at least {lost}") };
        tracing::error!(
            sink = %config.name, spool = %path.display(), kept = %kept.display(), saved, lost,
            "the spool was damaged ({why}): what could be read of it is in a new one, the damaged file is kept"
        );
    }
    if found.was_left_open {
        tracing::warn!(sink = %config.name, waiting, dead, "the spool was not closed by its last process; nothing is lost by that");
    } else if waiting + dead > 0 {
        tracing::info!(sink = %config.name, waiting, dead, "the spool has messages of before");
    }
}
