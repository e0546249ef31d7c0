//! The gateway's timers: the common tick of merge windows, which sleeps while none is open, and the housekeeping beside it:
//! replies that waited for logic too long, and how late timers run, which is the lag that admission follows.
//! One task; what is done at each moment belongs to `merge`, `interest` and `admission`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::accept::admission::LOOK_MS;
use crate::clock::{CALM_MS, since};
use crate::gateway::node::Node;

/// Time between two looks for blocks that are over.
const PRUNE_MS: u32 = 10_000;

/// Runs until the gateway stops.
pub(crate) async fn run(node: Arc<Node>) {
    let period = Duration::from_millis(u64::from(node.merger.tick_ms()));
    // A late look is one look (what was missed is skipped): a burst of them would punish one lag several times.
    let mut housekeeping = node.clock.beats(LOOK_MS, 0);
    let mut is_quiet = false;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut is_watching = false;
    let mut pruned = node.clock.now();
    loop {
        tokio::select! {
            () = node.lifecycle.stopped() => return,
            _ = ticks.tick(), if is_watching => is_watching = node.merger.tick(node.clock.now()),
            () = node.merger.watching.notified() => {
                is_watching = true;
                // Wake where the gateway's clock ticks, not where this task happened to look.
                let ms = node.merger.tick_ms();
                let ahead = ms - node.clock.now() % ms;
                ticks.reset_after(Duration::from_millis(u64::from(ahead)));
            }
            () = node.interest.holding.notified(), if is_quiet => {
                is_quiet = false;
                housekeeping = node.clock.beats(LOOK_MS, 0);
            }
            due = housekeeping.tick() => {
                keep_house(&node, due);
                if node.access.blocklist.len() > 0 && since(node.clock.now(), pruned) > PRUNE_MS {
                    pruned = node.clock.now();
                    node.access.blocklist.prune();
                }
                let was_quiet = std::mem::replace(&mut is_quiet, is_calm(&node));
                if is_quiet != was_quiet {
                    housekeeping = node.clock.beats(if is_quiet { CALM_MS } else { LOOK_MS }, 0);
                }
            }
        }
    }
}

/// Whether nothing asks for the quick look.
fn is_calm(node: &Node) -> bool {
    node.capacity.admission.lock().is_quiet() && !node.interest.is_holding()
}

fn keep_house(node: &Node, due: Instant) {
    let lag_ms = u32::try_from(due.elapsed().as_millis()).unwrap_or(u32::MAX);
    node.capacity.admission.lock().look(lag_ms, node.clock.now());
    node.backplane.upward.answers.give_up();
    let late = node.interest.expire(node.clock.now());
    if !late.is_empty() {
        node.totals.interest_late.fetch_add(late.len() as u64, Ordering::Relaxed);
        node.membership.release(&late);
    }
}
