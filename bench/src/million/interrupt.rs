//! Ctrl-C, SIGTERM and a hang-up while a fleet is up: the clients die at once, which wakes whoever waits for them and makes the
//! rest come down in the usual order. Their sockets end by RST whichever way they die (see `sockets::abort_on_close`).
//! Invariant: a process is only killed while its parent has not waited for it, so its number is still its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use rustix::process::{Pid, Signal, kill_process};

use crate::{clock, ending};

/// Shared by the thread that hears signals and the one that runs the fleet.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt(Arc<State>);

#[derive(Debug, Default)]
struct State {
    rung: AtomicBool,
    clients: Mutex<Vec<u32>>,
}

/// How often a wait looks up.
const LOOK: Duration = Duration::from_millis(100);

impl Interrupt {
    /// Hears signals from now on, until the process ends.
    pub(super) fn watch() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let rung = interrupt.clone();
        ending::hear(move || rung.ring())?;
        Ok(interrupt)
    }

    fn ring(&self) {
        self.0.rung.store(true, Ordering::SeqCst);
        ending::say("interrupted: taking the fleet down");
        let clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        for pid in clients.iter().filter_map(|pid| Pid::from_raw(*pid as i32)) {
            // One that has ended already cannot be killed.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// These die when a signal comes.
    pub(super) fn guard(&self, clients: Vec<u32>) {
        *self.0.clients.lock().unwrap_or_else(PoisonError::into_inner) = clients;
    }

    pub(super) fn has_rung(&self) -> bool {
        self.0.rung.load(Ordering::SeqCst)
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.has_rung(), "interrupted by a signal");
        Ok(())
    }

    /// Waits, but not beyond a signal.
    pub(super) fn pause(&self, duration: Duration) -> anyhow::Result<()> {
        let until_ns = clock::now_ns() + duration.as_nanos() as u64;
        while clock::now_ns() < until_ns {
            self.check()?;
            clock::sleep_until_ns(until_ns.min(clock::now_ns() + LOOK.as_nanos() as u64));
        }
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_kills_those_under_guard_and_ends_waits() {
        let interrupt = Interrupt::default();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
        interrupt.guard(vec![child.id()]);

        interrupt.ring();

        assert!(!child.wait().expect("it ended").success());
        assert!(interrupt.pause(Duration::from_secs(60)).is_err());
    }
}
