//! Strangers who come before a logic node has said what it wants to hear: they wait in the kernel's accept queue, for as long
//! as a handshake may take; those who come later are refused by name (docs/adr/0031).
//! Invariants: the queue is kept from filling; nobody waits here without end.

use std::time::Duration;

use tokio::time::sleep;

use super::Acceptor;
use super::front::Front;
use crate::config::BeforeLogic;

/// Time between looks at the queue of those who wait.
const LOOK_MS: u32 = 50;

impl Acceptor {
    /// Takes nobody in until a logic node has spoken, or for as long as those who came first may wait.
    pub(super) async fn wait_for_logic(&mut self, front: &Front) {
        if front.rules.handshake.before_logic != BeforeLogic::Wait {
            return;
        }
        let patience = sleep(Duration::from_millis(front.rules.handshake.deadline_ms.into()));
        tokio::pin!(patience);
        let mut looks = front.clock.beats(LOOK_MS, 0);
        while front.awaits_logic() && front.lifecycle.is_accepting() {
            tokio::select! {
                biased;
                () = front.lifecycle.stopped() => return,
                () = front.uplink.wants.heard() => return,
                () = &mut patience => return,
                _ = looks.tick() => drop(self.hold_back(front)),
            }
        }
    }
}

/// Says so in the log when no logic node comes.
pub async fn warn(front: &Front) {
    let patience = sleep(Duration::from_millis(front.rules.handshake.deadline_ms.into()));
    tokio::select! {
        () = front.lifecycle.stopped() => {}
        () = front.uplink.wants.heard() => {}
        () = patience => tracing::warn!(
            "no logic node has said what it wants to hear, so clients get 503 until one does; logic nodes dial this \
             gateway's backplane (logic.gateways)"
        ),
    }
}
