//! One gateway as the rest of logic sees it. Its life is `session`'s, what waits for it `queue`'s, its requests `calls`'.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_protocol::records::{self, GatewayInfo, path};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::calls::Calls;
use super::client::CallError;
use super::dial::GatewayLink;
use super::permits::Bound;
use super::queue::{LinkState, Queue};
use super::roster::GatewaySlot;
use super::share::Identity;
use super::uplink::Outgoing;
use crate::config::{BackplaneConfig, plain};
use crate::metrics::fleet::{FleetMetrics, LinkMetrics};

/// One gateway as the rest of logic sees it.
pub struct Link {
    /// Backplane address (`host:port`), or `local`: the name in receipts and metrics.
    pub name: String,
    /// Its place among the gateways.
    pub slot: GatewaySlot,
    /// What it was listed as; none: the pipe to the gateway of this process.
    pub(super) url: Option<String>,
    /// How far its life is.
    pub(super) life: Life,
    /// What waits for it, and whether the link is up; the link's task takes from it.
    pub(super) queue: Queue,
    /// The gateway's latest account of itself and its epoch; kept over a loss; set by the link's task.
    pub(super) account: Mutex<Account>,
    /// Questions, commands and waits.
    pub(super) calls: Calls,
    /// Requests that may wait for this gateway's answer to their pushes.
    pub(super) permits: Bound,
    /// Answers to what its clients said.
    pub outgoing: Outgoing,
    pub(super) metrics: LinkMetrics,
}

/// How far the life of a link is.
#[derive(Default)]
pub(super) struct Life {
    /// Told when it has come up.
    pub came_up: Notify,
    /// The epoch in which the gateway has been told what it must know before clients come; until then it is not asked what
    /// they say, by which it would let them in.
    briefed: watch::Sender<u64>,
    /// Since when it is off the list.
    pub leaving: watch::Sender<Option<Instant>>,
    /// It was struck because the list has its gateway under another name, by which it is linked now.
    pub is_renamed: AtomicBool,
    is_closed: AtomicBool,
    /// The last item of its clients that has been handed on, and the epoch that its number belongs to.
    heard: watch::Sender<(u64, u64)>,
}

/// What a gateway says of itself, in which epoch.
#[derive(Default)]
pub(super) struct Account {
    pub epoch: u64,
    pub info: Option<GatewayInfo>,
}

impl Link {
    pub(super) fn new(
        how: &GatewayLink,
        slot: GatewaySlot,
        config: &BackplaneConfig,
        metrics: &FleetMetrics,
        requests: usize,
    ) -> Self {
        let name = how.name();
        let metrics = metrics.of_link(&name);
        Self {
            name,
            slot,
            url: how.url().map(plain),
            life: Life::default(),
            queue: Queue::new(config),
            account: Mutex::default(),
            calls: Calls::default(),
            permits: Bound::new(requests),
            outgoing: Outgoing::default(),
            metrics,
        }
    }

    /// Resolves when the link has come up (again).
    pub async fn came_up(&self) {
        self.life.came_up.notified().await;
    }

    /// Whether it has ended; nothing comes of it any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.life.is_closed.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.life.is_closed.store(true, Ordering::Relaxed);
    }

    /// Whether the link is up.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.queue.state()
    }

    /// Pushes and bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        self.queue.waiting()
    }

    /// The gateway's latest account of itself, and the epoch it belongs to.
    #[must_use]
    pub fn account(&self) -> (u64, Option<GatewayInfo>) {
        let account = self.account.lock();
        (account.epoch, account.info.clone())
    }

    /// The gateway knows in this epoch what it must know before clients come.
    pub fn brief(&self, epoch: u64) {
        self.life.briefed.send_if_modified(|old| std::mem::replace(old, epoch) != epoch);
    }

    /// Whether it does in its present epoch.
    #[must_use]
    pub fn is_briefed(&self) -> bool {
        *self.life.briefed.borrow() == self.account.lock().epoch
    }

    /// Resolves when it does in this epoch.
    pub(super) async fn is_briefed_in(&self, epoch: u64) {
        // The sender lives in self, so this ends only by the value.
        let _ = self.life.briefed.subscribe().wait_for(|briefed| *briefed == epoch).await;
    }

    /// What its clients have said has been handed on up to this number.
    pub fn has_heard(&self, epoch: u64, sequence: u64) {
        self.life.heard.send_replace((epoch, sequence));
    }

    /// Resolves when it has been up to this number, in the gateway's present epoch; 0 is no number.
    pub async fn hears(&self, sequence: u64) {
        if sequence == 0 {
            return;
        }
        let epoch = self.account.lock().epoch;
        let is_there = |heard: &(u64, u64)| heard.0 > epoch || heard.0 == epoch && heard.1 >= sequence;
        // The sender lives in self, so this ends only by the value.
        let _ = self.life.heard.subscribe().wait_for(is_there).await;
    }

    /// Which connections are this gateway's.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let account = self.account.lock();
        let info = account.info.as_ref()?;
        // While the link is down the gateway may have restarted: then only its own id is certain.
        let is_up = self.state() == LinkState::Up;
        Some((u16::try_from(info.id).ok()?, is_up.then_some(info.id_epoch)))
    }

    /// Asks the gateway.
    ///
    /// # Errors
    /// [`CallError`]; `Down` when there is no connection.
    pub async fn query(
        &self,
        request: &records::QueryRequest,
        deadline: Duration,
    ) -> Result<records::QueryReply, CallError> {
        self.calls.question(path::QUERY, request, deadline).await
    }

    /// Tells the gateway to close connections.
    ///
    /// # Errors
    /// As [`Link::query`].
    pub async fn command(
        &self,
        request: &records::CommandRequest,
        deadline: Duration,
    ) -> Result<records::CommandReply, CallError> {
        self.calls.question(path::COMMAND, request, deadline).await
    }

    /// Waits until a push is written, or time is up.
    ///
    /// # Errors
    /// As [`Link::query`]; `Late` also when too many wait already.
    pub async fn wait(&self, ticket: u64, until: Instant) -> Result<records::WaitReply, CallError> {
        self.calls.wait(ticket, until).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::Fleet;

    /// What a gateway answers may overtake what it has told before, which is then waited for.
    #[tokio::test(start_paused = true)]
    async fn what_was_told_before_an_answer_is_heard_before_it_is_used() {
        let fleet = Fleet::of(&["http://127.0.0.1:1".to_owned()]);
        let link = fleet.roster().iter().next().cloned().expect("one is listed");
        link.account.lock().epoch = 5;
        let hears = async |sequence| timeout(Duration::from_secs(1), link.hears(sequence)).await.is_ok();

        assert!(hears(0).await, "nothing was told");
        assert!(!hears(1).await);
        link.has_heard(4, 9);
        assert!(!hears(1).await, "numbers of an earlier epoch say nothing");
        link.has_heard(5, 2);
        assert!(hears(2).await && !hears(3).await);
        let (heard, ()) = tokio::join!(hears(3), async { link.has_heard(5, 7) });
        assert!(heard, "it comes");
    }
}
