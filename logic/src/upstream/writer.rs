//! Gives numbers and commits: whatever waits when the disk is free becomes one transaction, so its flush is shared by all
//! who wait for it. Marks of delivery wait a little for company; losing one costs a repeated delivery, never a message.
//! Invariant: one writer a sink, so numbers grow in the order of the queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Outcome;
use super::sink::{Sink, Work};
use super::spool::{Change, MESSAGE_WEIGHT, SpoolError, Stored};
use crate::clock::unix_ms;

/// Most of one commit.
const COMMIT_MAX: usize = 8_192;
/// How long marks wait for messages to share a flush with: short beside the back-off, long beside a flush.
const MARKS_WAIT: Duration = Duration::from_millis(10);
/// Pause after a failed commit: a full disk does not get better by asking it in a loop.
const FAILED_PAUSE: Duration = Duration::from_millis(200);

/// Commits until [`Work::Close`].
pub async fn run(sink: Arc<Sink>, mut queue: mpsc::Receiver<Work>, mut next: u64) {
    let mut batch = Vec::new();
    let mut kept = Vec::new();
    loop {
        if queue.recv_many(&mut batch, COMMIT_MAX).await == 0 {
            return;
        }
        if batch.iter().all(|work| matches!(work, Work::Done { .. })) {
            sleep(MARKS_WAIT).await;
            let room = COMMIT_MAX.saturating_sub(batch.len());
            while batch.len() < room {
                let Ok(work) = queue.try_recv() else { break };
                batch.push(work);
            }
        }
        let is_last = batch.iter().any(|work| matches!(work, Work::Close));
        let first = next;
        let changes = changes(&batch, &mut kept, &mut next);
        let started = Instant::now();
        let outcome = commit(&sink, changes, next).await;
        sink.counts
            .metrics
            .intake
            .commit_seconds
            .get_or_create(&sink.counts.labels)
            .observe(started.elapsed().as_secs_f64());
        let failed = outcome.is_err();
        match outcome {
            Ok(()) => kept.clear(),
            Err(error) => {
                tracing::error!(sink = %sink.config.name, "the spool cannot be written: {error}");
                // Nothing was written; the numbers are free. Marks are tried again with the next commit.
                next = first;
                kept.extend(batch.iter().filter_map(mark));
            }
        }
        settle(&sink, &mut batch, first, failed);
        if is_last {
            // The task neither panics nor is aborted while the runtime lives.
            let _ = tokio::task::spawn_blocking(move || sink.spool.close()).await;
            return;
        }
        if failed {
            sleep(FAILED_PAUSE).await;
        }
    }
}

fn mark(work: &Work) -> Option<(u16, u64)> {
    match work {
        Work::Done { lane, up_to } => Some((*lane, *up_to)),
        _ => None,
    }
}

/// What the batch means for the spool; marks of commits that failed come first.
fn changes(batch: &[Work], kept: &mut [(u16, u64)], next: &mut u64) -> Vec<Change> {
    let mut out: Vec<Change> = kept.iter().map(|&(lane, up_to)| Change::Done { lane, up_to }).collect();
    let mut number = || {
        *next += 1;
        *next - 1
    };
    for work in batch {
        match work {
            Work::Put { shard, taken_ms, line, .. } => {
                let (shard, taken_ms, line) = (*shard, *taken_ms, line.clone());
                out.push(Change::Put(Stored { number: number(), shard, taken_ms, line }));
            }
            Work::Done { lane, up_to } => out.push(Change::Done { lane: *lane, up_to: *up_to }),
            Work::Take { lane, number, .. } => out.push(Change::Take { lane: *lane, number: *number }),
            Work::Bury { lane, dead, made_room, .. } => {
                out.push(Change::Bury { lane: *lane, dead: dead.clone() });
                out.extend(made_room.iter().map(|grave| Change::Forget { number: grave.number }));
            }
            Work::Revive { dead, .. } => out.extend(dead.iter().map(|dead| {
                let again = Stored { number: number(), taken_ms: unix_ms(), ..dead.message.clone() };
                Change::Revive { number: dead.message.number, again }
            })),
            Work::Forget { dead, .. } => {
                out.extend(dead.iter().map(|dead| Change::Forget { number: dead.message.number }));
            }
            Work::Close => {}
        }
    }
    out
}

async fn commit(sink: &Arc<Sink>, changes: Vec<Change>, next: u64) -> Result<(), SpoolError> {
    if changes.is_empty() {
        return Ok(());
    }
    let sink = Arc::clone(sink);
    let task = tokio::task::spawn_blocking(move || sink.spool.commit(&changes, next));
    // The task neither panics nor is aborted while the runtime lives.
    task.await.unwrap_or(Ok(()))
}

/// Tells everyone what became of their work, in order.
fn settle(sink: &Sink, batch: &mut Vec<Work>, mut number: u64, failed: bool) {
    let mut reached: Vec<Option<u64>> = vec![None; sink.lanes.len()];
    let mut arrived = |shard: u32| {
        let lane = usize::from(sink.spool.lane(shard));
        sink.lanes[lane].waiting.fetch_add(1, Ordering::Relaxed);
        reached[lane] = Some(number);
        number += 1;
    };
    for work in batch.drain(..) {
        // Whoever waited for an answer may have left.
        match work {
            Work::Put { shard, line, sender, .. } if failed => {
                sink.ledger.withdraw(shard, line.len() as u64 + MESSAGE_WEIGHT);
                sink.refuse("disk", sender, Outcome::UNAVAILABLE);
            }
            Work::Put { shard, line, sender, .. } => {
                sink.ledger.written(line.len() as u64 + MESSAGE_WEIGHT);
                arrived(shard);
                if let Some(sender) = sender {
                    sink.counts.metrics.intake.messages.get_or_create(&sink.counts.labels).inc();
                    let _ = sender.send(Outcome::Sent { time_ms: unix_ms() });
                } else {
                    sink.counts.metrics.intake.events.get_or_create(&sink.counts.labels).inc();
                }
            }
            Work::Revive { dead, sender } => {
                for dead in &dead {
                    if failed {
                        sink.ledger.unrevive(dead.grave());
                    } else {
                        arrived(dead.message.shard);
                    }
                }
                let _ = sender.send(!failed);
            }
            Work::Forget { dead, sender } => {
                if !failed {
                    dead.iter().for_each(|dead| sink.ledger.forget(dead.grave()));
                }
                let _ = sender.send(!failed);
            }
            Work::Bury { dead, made_room, sender, .. } => {
                if failed {
                    sink.ledger.unbury(dead.grave(), &made_room);
                }
                let _ = sender.send(!failed);
            }
            Work::Take { sender, .. } => {
                let _ = sender.send(!failed);
            }
            Work::Done { .. } | Work::Close => {}
        }
    }
    for (lane, last) in sink.lanes.iter().zip(reached) {
        if let Some(last) = last {
            lane.committed.send_replace(last);
        }
    }
}
