//! What the logic nodes have said they want to hear, all of them together, and whether any has said so yet.
//! Invariant: what was said stays in force while no logic node is linked, so that a hook is not forgotten with its node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidegate_protocol::records::Wants;
use tokio::sync::watch;
use tokio::time::timeout;

use super::events::Wanted;

/// The sum of the logic nodes' [`Wants`].
#[derive(Debug, Default)]
pub struct LogicWants {
    /// Whether a logic node has ever said what it wants.
    is_told: watch::Sender<bool>,
    /// Whether some logic node asks about strangers.
    asks: AtomicBool,
    /// Headers of strangers that those want to see.
    headers: Mutex<Arc<[String]>>,
    /// Whether every logic node judges between a user's connections at several gateways. One that does not know the
    /// question would never answer it.
    judges: AtomicBool,
    /// Events that some logic node wants.
    pub wanted: Wanted,
    /// Whether every logic node that listens has this gateway on its list no longer.
    is_delisted: watch::Sender<bool>,
    /// When the last logic node was lost, while there is none.
    alone_since: Mutex<Option<Instant>>,
}

impl LogicWants {
    /// The logic nodes that listen want these now; of none, the last word stays.
    pub(super) fn learn<'a>(&self, wants: impl Iterator<Item = &'a Wants> + Clone) {
        if wants.clone().next().is_none() {
            if self.is_told() {
                self.alone_since.lock().get_or_insert_with(Instant::now);
            }
            return;
        }
        *self.alone_since.lock() = None;
        let askers = wants.clone().filter(|wants| wants.connects);
        let mut headers: Vec<String> = askers.clone().flat_map(|wants| wants.headers.iter().cloned()).collect();
        headers.sort_unstable();
        headers.dedup();
        *self.headers.lock() = headers.into();
        self.asks.store(askers.count() > 0, Ordering::Relaxed);
        self.judges.store(wants.clone().all(|wants| wants.devices), Ordering::Relaxed);
        self.is_delisted.send_if_modified(|old| {
            let new = wants.clone().all(|wants| wants.is_delisted);
            std::mem::replace(old, new) != new
        });
        self.wanted.set(wants);
        // Last: whoever waits for it reads the rest.
        self.is_told.send_if_modified(|is_told| !std::mem::replace(is_told, true));
    }

    /// Whether a logic node has ever said what it wants.
    #[must_use]
    pub fn is_told(&self) -> bool {
        *self.is_told.borrow()
    }

    /// Resolves once one has.
    pub async fn heard(&self) {
        // The sender lives in self, so this ends only by the value.
        let _ = self.is_told.subscribe().wait_for(|is_told| *is_told).await;
    }

    /// Resolves once no logic node that listens has had this gateway on its list for so long: one that has may be away for a
    /// moment.
    pub async fn delisted(&self, patience: Duration) {
        let mut is_delisted = self.is_delisted.subscribe();
        // The sender lives in self, so waiting ends only by the value.
        while is_delisted.wait_for(|is_delisted| *is_delisted).await.is_ok() {
            if timeout(patience, is_delisted.wait_for(|is_delisted| !*is_delisted)).await.is_err() {
                return;
            }
        }
    }

    /// How long no logic node has been there; none while one is, or none ever was.
    #[must_use]
    pub fn alone_for(&self) -> Option<Duration> {
        self.alone_since.lock().map(|since| since.elapsed())
    }

    /// Whether a logic node wants to be asked about strangers.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.asks.load(Ordering::Relaxed)
    }

    /// Whether logic nodes judge between a user's connections at several gateways.
    #[must_use]
    pub fn judges(&self) -> bool {
        self.judges.load(Ordering::Relaxed)
    }

    /// Headers of strangers that a hook wants to see.
    #[must_use]
    pub fn headers(&self) -> Arc<[String]> {
        Arc::clone(&self.headers.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(headers: &[&str]) -> Wants {
        let headers = headers.iter().map(|&header| header.to_owned()).collect();
        Wants { connects: true, headers, devices: true, ..Wants::default() }
    }

    #[test]
    fn what_the_last_logic_node_wanted_stays_known() {
        let wants = LogicWants::default();
        wants.learn([].iter());
        assert!(!wants.is_told() && wants.alone_for().is_none(), "nobody has said anything yet");

        wants.learn([hook(&["cookie"])].iter());
        assert!(wants.is_told() && wants.alone_for().is_none());
        wants.learn([].iter());

        assert!(wants.is_told() && wants.asks() && wants.judges() && wants.alone_for().is_some());
        assert_eq!(*wants.headers(), ["cookie".to_owned()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_is_off_the_list_when_nobody_has_had_it_on_theirs_for_a_while() {
        let off = Wants { is_delisted: true, ..Wants::default() };
        let wants = LogicWants::default();
        let patience = Duration::from_secs(10);
        let is_off = async |after: u64| timeout(Duration::from_secs(after), wants.delisted(patience)).await.is_ok();
        wants.learn([off.clone(), Wants::default()].iter());
        assert!(!is_off(100).await, "one still has it");

        wants.learn([off.clone()].iter());
        assert!(!is_off(9).await, "that one may be starting again");
        wants.learn([off.clone(), Wants::default()].iter());
        assert!(!is_off(100).await, "it was");
        wants.learn([off].iter());
        wants.learn([].iter());
        assert!(is_off(11).await, "who said so last has let it go meanwhile");
    }

    #[test]
    fn headers_are_those_that_any_hook_wants() {
        let wants = LogicWants::default();

        wants.learn([hook(&["cookie", "x-a"]), Wants::default(), hook(&["cookie", "x-b"])].iter());

        assert_eq!(wants.headers().join(" "), "cookie x-a x-b");
        assert!(wants.asks() && !wants.judges(), "one of them does not judge");
    }
}
