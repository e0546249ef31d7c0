//! The gateway's timers: the common tick of merge windows, which sleeps while none is open, and the housekeeping beside it:
//! replies that waited for logic too long, and how late timers run, which is the lag that admission follows.
//! One task; what is done at each moment belongs to `merge`, `interest` and `admission`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::accept::admission::LOOK_MS;
use crate::accept::front::Front;
use crate::backplane::answers::Answers;
use crate::clock::{CALM_MS, since};
use crate::connection::membership::Membership;
use crate::deliver::merge::Merger;
use crate::rooms::interest::Interest;

/// Time between two looks for blocks that are over.
const PRUNE_MS: u32 = 10_000;

/// What is looked after.
pub(crate) struct Housekeeping {
    pub merger: Arc<Merger>,
    pub interest: Arc<Interest>,
    pub membership: Arc<Membership>,
    pub answers: Arc<Answers>,
    /// Its admission follows the lag; its blocklist is pruned.
    pub front: Arc<Front>,
}

impl Housekeeping {
    /// Runs until the gateway stops.
    pub async fn run(self) {
        let Self { merger, interest, front, .. } = &self;
        let Front { clock, access, lifecycle, .. } = &**front;
        let period = Duration::from_millis(u64::from(merger.tick_ms()));
        // A late look is one look (what was missed is skipped): a burst of them would punish one lag several times.
        let mut housekeeping = clock.beats(LOOK_MS, 0);
        let mut is_quiet = false;
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut is_watching = false;
        let mut pruned = clock.now();
        loop {
            tokio::select! {
                () = lifecycle.stopped() => return,
                _ = ticks.tick(), if is_watching => is_watching = merger.tick(clock.now()),
                () = merger.windows.watching.notified() => {
                    is_watching = true;
                    // Wake where the gateway's clock ticks, not where this task happened to look.
                    let ms = merger.tick_ms();
                    let ahead = ms - clock.now() % ms;
                    ticks.reset_after(Duration::from_millis(u64::from(ahead)));
                }
                () = interest.holding.notified(), if is_quiet => {
                    is_quiet = false;
                    housekeeping = clock.beats(LOOK_MS, 0);
                }
                due = housekeeping.tick() => {
                    self.keep_house(due);
                    if access.blocklist.len() > 0 && since(clock.now(), pruned) > PRUNE_MS {
                        pruned = clock.now();
                        access.blocklist.prune();
                    }
                    let was_quiet = std::mem::replace(&mut is_quiet, self.is_calm());
                    if is_quiet != was_quiet {
                        housekeeping = clock.beats(if is_quiet { CALM_MS } else { LOOK_MS }, 0);
                    }
                }
            }
        }
    }

    /// Whether nothing asks for the quick look.
    fn is_calm(&self) -> bool {
        self.front.capacity.admission.lock().is_quiet() && !self.interest.is_holding()
    }

    fn keep_house(&self, due: Instant) {
        let Front { capacity, clock, totals, .. } = &*self.front;
        let lag_ms = u32::try_from(due.elapsed().as_millis()).unwrap_or(u32::MAX);
        capacity.admission.lock().look(lag_ms, clock.now());
        self.answers.give_up();
        let late = self.interest.expire(clock.now());
        if !late.is_empty() {
            totals.interest_late.fetch_add(late.len() as u64, Ordering::Relaxed);
            self.membership.release(&late);
        }
    }
}
