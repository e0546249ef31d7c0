//! How far the life of a gateway is: accepting, draining, closed to strangers, stopped. Written where it is started and ended, read
//! by every task.
//! Invariant: it only ever goes forward.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// The life of one gateway.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    accepting: AtomicBool,
    draining: AtomicBool,
    stop: watch::Sender<bool>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { accepting: AtomicBool::new(true), draining: AtomicBool::new(false), stop: watch::Sender::new(false) }
    }
}

impl Lifecycle {
    /// Whether strangers are let in.
    pub fn is_accepting(&self) -> bool {
        self.accepting.load(Ordering::Relaxed)
    }

    /// Whether the gateway is leaving.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// It is leaving from now on.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Nobody new is let in from now on.
    pub fn set_closed_to_strangers(&self) {
        self.accepting.store(false, Ordering::Relaxed);
    }

    /// Ends every task that looks.
    pub fn stop(&self) {
        let _ = self.stop.send_replace(true);
    }

    /// Resolves when the gateway stops.
    pub async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives in self, so this ends only by the value.
        let _ = stop.wait_for(|stopped| *stopped).await;
    }
}
