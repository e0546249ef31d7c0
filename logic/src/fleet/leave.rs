//! A gateway that is no longer listed: it is told so, drains, and is let go. Until then its link does what links do.
//! Invariant: it gets no push any more before its link ends, and the link ends when what it had is answered.
//!
//! ```text
//!  listed ──off the list──▶ leaving ──drained and nobody left, or it said goodbye──▶ let go
//!     ▲                        │ │
//!     └────on the list again───┘ ├──down for 10 s, or leave_ms over──▶ let go, with a warning
//!                                └──linked under another name──▶ let go
//! ```

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::client::Client;
use super::dial::GatewayLink;
use super::{Failure, Link, LinkState, Shared, session};

/// How often a gateway that leaves is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long a gateway that leaves may be down: its clients may be there still, and it may not know yet. One that was down already when
/// it was taken off the list is not waited for.
const DOWN: Duration = Duration::from_secs(10);

/// Why a link has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nobody was left there.
    Drained,
    /// Its gateway could not be reached any more.
    Lost,
    /// It had its time.
    Late,
    /// The list has it under another name.
    Renamed,
}

impl Why {
    pub fn label(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Lost => "lost",
            Self::Late => "late",
            Self::Renamed => "renamed",
        }
    }
}

/// One link from its first dial to its end.
pub(super) async fn live(shared: Arc<Shared>, link: Arc<Link>, how: GatewayLink) {
    let why = loop {
        if let Some(why) = attend(&shared, &link, &how).await {
            break why;
        }
        // It has left in the moment in which it came on the list again: it is expected back.
    };
    shared.close(&link, why);
}

/// Keeps a link until its gateway is let go; why. None when it has said goodbye and is on the list all the same.
async fn attend(shared: &Shared, link: &Arc<Link>, how: &GatewayLink) -> Option<Why> {
    let leave = Duration::from_millis(u64::from(shared.config.leave_ms));
    let mut keep = pin!(session::keep(shared, link, how));
    loop {
        let why = tokio::select! {
            () = &mut keep => return shared.strike(link).then_some(Why::Drained),
            why = over(link, leave) => why,
        };
        if !shared.strike(link) {
            continue;
        }
        // Nothing new comes; what is on its way is answered.
        let idle = timeout(Duration::from_millis(u64::from(shared.config.request_ms)), idle(link));
        tokio::select! {
            () = &mut keep => {}
            _ = idle => {}
        }
        return Some(why);
    }
}

/// Resolves when a gateway that leaves can be let go.
async fn over(link: &Link, patience: Duration) -> Why {
    let mut leaving = link.life.leaving.subscribe();
    // While it leaves; before that it is not looked at.
    let mut was_up: Option<Instant> = None;
    loop {
        // The sender lives in the link, so this ends only by the value.
        let since = leaving.wait_for(Option::is_some).await.ok().and_then(|since| *since);
        let Some(since) = since else { continue };
        if is_drained(link) {
            return Why::Drained;
        }
        if link.life.is_renamed.load(Ordering::Relaxed) {
            return Why::Renamed;
        }
        if !matches!(link.state(), LinkState::Down(_)) {
            was_up = Some(Instant::now());
        } else if was_up.is_none_or(|at| at < since || at.elapsed() >= DOWN) {
            return Why::Lost;
        }
        if since.elapsed() >= patience {
            return Why::Late;
        }
        sleep(LOOK).await;
    }
}

/// It leaves by its own word, nobody is there, and nobody can come.
fn is_drained(link: &Link) -> bool {
    link.state() == LinkState::Up
        && link.account().1.is_some_and(|info| info.is_draining && info.is_closed && info.connections == 0)
}

impl Shared {
    /// Lets a link take pushes, unless its gateway is linked already: then everything would count twice. A gateway that is leaving
    /// under its other name is let go under that.
    pub(super) fn admit(&self, link: &Link, client: &Client) -> Result<(), Failure> {
        // Two names of one gateway that come up at once see each other under this lock.
        let slots = self.places.slots.lock();
        let roster = Arc::clone(&self.places.roster.borrow());
        if let Some(twin) = roster.iter().find(|other| other.slot != link.slot && other.is_same_gateway(link)) {
            if !self.strike_under(&slots, twin) {
                tracing::debug!(gateway = %link.name, is = %twin.name, "listed under two names");
                return Err(Failure::Duplicate);
            }
            twin.life.is_renamed.store(true, Ordering::Relaxed);
        }
        link.calls.go_over(Some(client.clone()));
        link.queue.open();
        Ok(())
    }
}

async fn idle(link: &Link) {
    while !link.queue.is_idle() || !link.outgoing.is_empty() {
        sleep(LOOK).await;
    }
}

impl Link {
    /// Its gateway is off the list.
    pub(super) fn leave(&self) {
        if self.life.leaving.send_if_modified(|since| since.is_none() && since.replace(Instant::now()).is_none()) {
            tracing::info!(gateway = %self.name, "off the list: it drains and is let go");
        }
    }

    /// Its gateway is on the list again.
    pub(super) fn stay(&self) {
        self.life.is_renamed.store(false, Ordering::Relaxed);
        if self.life.leaving.send_if_modified(|since| since.take().is_some()) {
            tracing::info!(gateway = %self.name, "on the list again");
        }
    }

    /// Whether this one is up, and the other leads to the same process.
    fn is_same_gateway(&self, other: &Self) -> bool {
        let life = |link: &Self| {
            let account = link.account.lock();
            account.info.as_ref().map(|info| (account.epoch, info.id, info.id_epoch, info.name.clone()))
        };
        self.state() == LinkState::Up && life(self).is_some_and(|own| life(other) == Some(own))
    }

    /// Whether its gateway is off the list.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.life.leaving.borrow().is_some()
    }
}

#[cfg(test)]
mod tests {
    use tidegate_protocol::records::GatewayInfo;

    use super::super::Fleet;
    use super::{Failure, Why};
    use crate::metrics::fleet::FailureLabels;

    /// A gateway could have been empty in the moment in which it came on the list again: it must not be forgotten then.
    #[test]
    fn who_is_on_the_list_again_is_not_struck_from_it() {
        let urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"].map(str::to_owned);
        let fleet = Fleet::of(&urls);
        let link = fleet.roster().iter().last().cloned().expect("two are listed");

        fleet.target(&urls[..1]).expect("a good list");
        fleet.target(&urls).expect("a good list");
        assert!(!fleet.shared.strike(&link), "whoever found it empty before comes too late");
        assert_eq!(fleet.count(), (2, 0, 0));

        fleet.target(&urls[..1]).expect("a good list");
        assert!(fleet.shared.strike(&link));
        assert_eq!(fleet.count(), (1, 0, 0), "its place rests once its link has ended");
    }

    /// Its last pushes fail and its last word comes after it was struck, and neither may outlive it.
    #[test]
    fn nothing_of_who_was_struck_comes_back() {
        let urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"].map(str::to_owned);
        let fleet = Fleet::of(&urls);
        let link = fleet.roster().iter().last().cloned().expect("two are listed");
        let shared = &fleet.shared;
        let counted = || {
            let labels = FailureLabels { gateway: link.name.clone(), reason: Failure::Lost.label() };
            shared.metrics.failures.get(&labels).is_some()
        };
        shared.count(&link, Failure::Lost);
        assert!(counted());

        fleet.target(&urls[..1]).expect("a good list");
        assert!(shared.strike(&link));
        shared.count(&link, Failure::Lost);
        shared.spare.note(link.slot.index, &GatewayInfo { is_draining: true, ..GatewayInfo::default() });
        shared.close(&link, Why::Late);

        assert!(!counted(), "its series are gone");
        assert!(!shared.spare.is_any_draining(), "it slows nobody's news");
        assert_eq!(fleet.count(), (1, 0, 1));
    }

    /// A node that was started without the backplane's TLS would send its secret in the clear.
    #[test]
    fn gateways_of_another_scheme_take_a_restart() {
        let urls = ["http://127.0.0.1:1".to_owned(), "https://127.0.0.1:2".to_owned()];
        let fleet = Fleet::of(&urls[..1]);

        let refused = fleet.target(&urls).expect_err("another scheme");

        assert!(refused.contains("https://127.0.0.1:2") && refused.contains("restart"), "{refused}");
        assert_eq!(fleet.count(), (1, 0, 0));
    }
}
