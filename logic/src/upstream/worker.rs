//! One lane of a sink: sends its messages in order, one request at a time, and does not go on before the sink has them or
//! they are dead letters. A user is in one lane, so that user's order holds whatever fails.
//! Decisions are `retry`'s and `search`'s; this file waits, reads, sends and books. Knows
//! services only as an `outlet`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use super::ledger::Burial;
use super::outlet::{Fate, Line, Said, Sent};
use super::retry::{Asked, RetryPolicy, Step};
use super::search::Search;
use super::sink::{Sink, Work};
use super::spool::{Dead, SpoolError, Stored};
use super::wishes::{self, Action, Actions};
use crate::clock::unix_ms;

/// Pause when the spool cannot be read, or the dead letters have no room: an operator has to act.
const STUCK_PAUSE: Duration = Duration::from_secs(1);
/// Messages looked at when they are too old.
const EXPIRE_MAX: usize = 256;

/// Sends until the node leaves.
pub async fn run(sink: Arc<Sink>, lane: u16, actions: Arc<dyn Actions>, leave: watch::Receiver<bool>) {
    let policy = RetryPolicy::new(&sink.config);
    let mut committed = sink.lanes[usize::from(lane)].committed.subscribe();
    let mut worker = Worker { sink, lane, actions, leave, policy, search: Search::default(), cursor: 0, damaged: 0 };
    let linger = Duration::from_millis(u64::from(worker.sink.config.linger_ms));
    loop {
        let mut last = *committed.borrow_and_update();
        if last <= worker.cursor {
            worker.state().head_ms.store(0, Ordering::Relaxed);
            tokio::select! {
                changed = committed.changed() => if changed.is_err() { return },
                _ = worker.leave.changed() => return,
            }
            let is_full = worker.state().waiting.load(Ordering::Relaxed) >= worker.sink.config.batch_messages as u64;
            if !is_full && worker.pause(linger).await.is_break() {
                return;
            }
            last = *committed.borrow_and_update();
        }
        if worker.step(last).await.is_break() {
            return;
        }
    }
}

struct Worker {
    sink: Arc<Sink>,
    lane: u16,
    actions: Arc<dyn Actions>,
    leave: watch::Receiver<bool>,
    policy: RetryPolicy,
    search: Search,
    /// Number of the last message that is behind us.
    cursor: u64,
    /// Number of the last message that was found damaged.
    damaged: u64,
}

type Flow = std::ops::ControlFlow<()>;
const GO_ON: Flow = Flow::Continue(());

impl Worker {
    fn state(&self) -> &super::sink::LaneState {
        &self.sink.lanes[usize::from(self.lane)]
    }

    /// Waits, unless the node leaves.
    async fn pause(&mut self, pause: Duration) -> Flow {
        if pause.is_zero() {
            return GO_ON;
        }
        tokio::select! {
            () = sleep(pause) => GO_ON,
            _ = self.leave.changed() => Flow::Break(()),
        }
    }

    /// One request, or none when nothing is there. What is on the disk for sure ends with `last_there`.
    async fn step(&mut self, last_there: u64) -> Flow {
        if *self.leave.borrow() {
            return Flow::Break(());
        }
        let held = self.sink.health.held();
        if !held.is_zero() {
            return self.pause(held).await;
        }
        if self.policy.wants_another(self.sink.counts.taken.load(Ordering::Relaxed)) {
            self.try_another().await;
            return GO_ON;
        }
        let Some(mut batch) = self.read(self.policy.limit()).await else { return self.pause(STUCK_PAUSE).await };
        let Some(first) = batch.first() else {
            // It is behind us already: read with those before it, or damaged. That is counted and kept beside the spool, in
            // which the next start must not find it again.
            if self.damaged > self.cursor {
                self.sink.hand_in(Work::Done { lane: self.lane, up_to: self.damaged }).await;
            }
            self.cursor = self.cursor.max(last_there).max(self.damaged);
            return GO_ON;
        };
        self.state().head_ms.store(first.taken_ms, Ordering::Relaxed);
        let mut sent = self.send(&batch).await;
        self.act(&sent.said, &batch).await;
        let ahead = sent.fates.iter().take_while(|fate| **fate == Fate::Taken).count();
        let left = batch.split_off(ahead.min(batch.len()));
        let fates = sent.fates.split_off(ahead.min(sent.fates.len()));
        if !batch.is_empty() {
            self.taken(&batch).await;
        }
        self.retry(left, fates, sent.after).await
    }

    /// Takes out what the sink has behind a message that it has not, and decides about the rest.
    async fn retry(&mut self, left: Vec<Stored>, fates: Vec<Fate>, after: Option<Duration>) -> Flow {
        let mut fault = None;
        let mut untaken = Vec::new();
        for (message, fate) in left.into_iter().zip(fates) {
            match fate {
                Fate::Taken => self.take_out(&message).await,
                other => {
                    fault.get_or_insert(other);
                    untaken.push(message);
                }
            }
        }
        let (Some(fate), Some(first)) = (fault, untaken.first()) else { return GO_ON };
        after.into_iter().for_each(|after| self.sink.health.hold(after));
        let asked = self.asked(&untaken);
        match fate {
            Fate::Taken => GO_ON,
            Fate::Never(fault) => {
                self.sink.health.note(Some(fault.words.clone()));
                let step = self.policy.never(asked, &fault);
                self.follow(step, &untaken, fault.label).await
            }
            Fate::Later(fault) | Fate::Unknown(fault) => {
                self.sink.health.note(Some(fault.words.clone()));
                self.sink.count(&self.sink.counts.metrics.outlet.retries, fault.label);
                self.search.behind(first);
                let step = self.policy.later(asked, &fault, after, fastrand::f64());
                self.follow(step, &untaken, fault.label).await
            }
        }
    }

    fn asked(&self, batch: &[Stored]) -> Asked {
        let (first, last) = (batch.first(), batch.last());
        Asked {
            messages: batch.len(),
            last: last.map_or(0, |last| last.number),
            oldest_ms: first.map_or(0, |first| first.taken_ms),
            shard: first.map_or(0, |first| first.shard),
            taken: self.sink.counts.taken.load(Ordering::Relaxed),
            now_ms: unix_ms(),
        }
    }

    /// Sends another user's first message while the lane's own first fails. If the sink has it, it is alive, and the next
    /// failure is the message's own; if not, nothing is said about either.
    async fn try_another(&mut self) {
        let (sink, lane, mut search) = (Arc::clone(&self.sink), self.lane, std::mem::take(&mut self.search));
        let look = tokio::task::spawn_blocking(move || {
            let found = search.next(&sink.spool, lane);
            (search, found)
        });
        let Ok((search, found)) = look.await else { return };
        self.search = search;
        let Ok(Some(message)) = found else { return };
        let batch = std::slice::from_ref(&message);
        let sent = self.send(batch).await;
        self.act(&sent.said, batch).await;
        match sent.fates.into_iter().next() {
            Some(Fate::Taken) => {
                self.sink.counts.taken.fetch_add(1, Ordering::Relaxed);
                self.take_out(&message).await;
            }
            Some(Fate::Later(fault) | Fate::Unknown(fault)) => {
                self.search.failed(&message);
                self.sink.count(&self.sink.counts.metrics.outlet.retries, fault.label);
                sent.after.into_iter().for_each(|after| self.sink.health.hold(after));
            }
            Some(Fate::Never(_)) | None => self.search.failed(&message),
        }
    }

    /// A message that the sink has goes out of the spool before those ahead of it.
    async fn take_out(&self, message: &Stored) {
        let (sender, written) = oneshot::channel();
        let work = Work::Take { lane: self.lane, number: message.number, sender };
        // Else it stays where it is and is sent again in its turn.
        if self.sink.hand_in(work).await && written.await.unwrap_or(false) {
            let batch = std::slice::from_ref(message);
            self.delivered(batch);
            self.sink.ledger.delivered(batch);
        }
    }

    async fn read(&mut self, most: usize) -> Option<Vec<Stored>> {
        let (sink, lane, after, known) = (Arc::clone(&self.sink), self.lane, self.cursor, self.damaged);
        let read = tokio::task::spawn_blocking(move || {
            let page = sink.spool.read(lane, after, most, sink.config.batch_bytes)?;
            // What was damaged before was found at the start; this has happened since.
            let new = page.damaged.iter().filter(|(number, _)| *number > known);
            new.for_each(|(number, bytes)| sink.lose(lane, *number, bytes));
            Ok::<_, SpoolError>(page)
        });
        match read.await {
            Ok(Ok(page)) => {
                self.damaged = page.damaged.last().map_or(0, |(number, _)| *number).max(known);
                Some(page.messages)
            }
            Ok(Err(error)) => {
                tracing::error!(sink = %self.sink.config.name, "the spool cannot be read: {error}");
                None
            }
            Err(_) => None,
        }
    }

    async fn send(&self, batch: &[Stored]) -> Sent {
        let lines: Vec<Line<'_>> =
            batch.iter().map(|message| Line { number: message.number, text: &message.line }).collect();
        let (sink, started) = (&self.sink, Instant::now());
        let sent = sink.outlet.send(&lines, started + Duration::from_millis(u64::from(sink.config.timeout_ms))).await;
        debug_assert_eq!(sent.fates.len(), lines.len(), "an outlet says what became of each line");
        sink.counts.metrics.outlet.requests.get_or_create(&sink.counts.labels).inc();
        sink.counts
            .metrics
            .outlet
            .request_seconds
            .get_or_create(&sink.counts.labels)
            .observe(started.elapsed().as_secs_f64());
        sent
    }

    /// Replies and pushes before the mark: after a crash they come twice rather than never.
    async fn act(&self, said: &Said, batch: &[Stored]) {
        let sink = &self.sink;
        let wishes = match said {
            Said::Unread => return,
            Said::Body(body) => wishes::read(body, batch, sink.json_depth).map_err(|_| "bad_answer"),
            Said::TooMuch => Err("answer_too_large"),
            Said::Broken => Err("answer_broken"),
        };
        let wishes = match wishes {
            Ok(wishes) => wishes,
            Err(reason) => {
                tracing::debug!(sink = %sink.config.name, reason, "an answer was not understood");
                sink.count(&sink.counts.metrics.outlet.actions, reason);
                return;
            }
        };
        (0..wishes.strays).for_each(|_| sink.count(&sink.counts.metrics.outlet.actions, "stray_reply"));
        for action in wishes.actions {
            let is_reply = matches!(action, Action::Reply { .. });
            let outcome = match (self.actions.act(action).await, is_reply) {
                (true, true) => "reply",
                (true, false) => "push",
                (false, true) => "bad_reply",
                (false, false) => "bad_push",
            };
            sink.count(&sink.counts.metrics.outlet.actions, outcome);
        }
    }

    async fn taken(&mut self, batch: &[Stored]) {
        let asked = self.asked(batch);
        self.sink.counts.taken.fetch_add(1, Ordering::Relaxed);
        self.delivered(batch);
        self.policy.taken(asked);
        self.cursor = asked.last;
        self.sink.hand_in(Work::Done { lane: self.lane, up_to: asked.last }).await;
        self.sink.ledger.delivered(batch);
    }

    fn delivered(&self, batch: &[Stored]) {
        let sink = &self.sink;
        sink.counts.metrics.outlet.delivered.get_or_create(&sink.counts.labels).inc_by(batch.len() as u64);
        sink.health.note(None);
        self.state().waiting.fetch_sub(batch.len() as u64, Ordering::Relaxed);
    }

    async fn follow(&mut self, step: Step, batch: &[Stored], reason: &'static str) -> Flow {
        match step {
            Step::Again => GO_ON,
            Step::Wait(wait) => self.pause(wait).await,
            Step::Bury(words) => match batch.first() {
                Some(first) => self.bury(first, words, reason).await,
                None => GO_ON,
            },
            Step::Expire => self.expire().await,
        }
    }

    async fn expire(&mut self) -> Flow {
        let Some(messages) = self.read(EXPIRE_MAX).await else { return self.pause(STUCK_PAUSE).await };
        let oldest = unix_ms().saturating_sub(self.sink.config.age_max_ms);
        for message in messages.iter().take_while(|message| message.taken_ms < oldest) {
            let flow = self.bury(message, "too old (age_max_ms)".into(), "age").await;
            if flow.is_break() || self.cursor < message.number {
                return flow;
            }
        }
        GO_ON
    }

    /// Moves the lane's first message to the dead letters. Others make room there, or the message stays and the lane waits.
    async fn bury(&mut self, message: &Stored, words: String, reason: &'static str) -> Flow {
        let sink = Arc::clone(&self.sink);
        let attempts = self.policy.failures();
        let dead = Dead { message: message.clone(), died_ms: unix_ms(), attempts, reason: words };
        let (of_user, oldest) = match sink.ledger.bury(dead.grave()) {
            Burial::Hold => {
                sink.health.note(Some(format!("{}; the dead letters are full (dead_bytes)", dead.reason)));
                return self.pause(STUCK_PAUSE).await;
            }
            Burial::TooLarge => {
                sink.hand_in(Work::Done { lane: self.lane, up_to: message.number }).await;
                sink.evicted("too_large", 1);
                self.past(message);
                return GO_ON;
            }
            Burial::Booked { of_user, oldest } => (of_user, oldest),
        };
        let (sender, written) = oneshot::channel();
        let made_room = of_user.iter().chain(&oldest).copied().collect();
        let is_queued = sink.hand_in(Work::Bury { lane: self.lane, dead, made_room, sender }).await;
        if !is_queued || !written.await.unwrap_or(false) {
            return self.pause(STUCK_PAUSE).await;
        }
        sink.mourn(reason);
        sink.evicted("user", of_user.len());
        sink.evicted("full", oldest.len());
        self.past(message);
        GO_ON
    }

    /// The lane's first message is not its any more.
    fn past(&mut self, message: &Stored) {
        self.policy.buried();
        self.cursor = message.number;
        self.state().waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
