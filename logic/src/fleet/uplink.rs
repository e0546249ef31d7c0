//! What clients say at one gateway: fetched one held request after another, and answered in batches beside it.
//! The first request tells a gateway that clients may come, so it leaves when the gateway knows who is blocked.
//! Invariant: a page is handed on before the next request leaves, because that request says it has arrived. An answer that
//! could not be delivered ends the connection: the gateway then hands the item over again.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use prost::Message as _;
use tidegate_protocol::limits::{UPLINK_PAGE, UPLINK_PAGE_BYTES};
use tidegate_protocol::records::{Answer, Answers, Item, UplinkReply, UplinkRequest, Wants, path};
use tokio::sync::Notify;

use super::client::{CallError, Client};
use super::{Link, Shared};

/// Items of one gateway, in order.
pub struct Heard {
    /// The gateway.
    pub link: Arc<Link>,
    /// The gateway epoch that the items' numbers belong to.
    pub epoch: u64,
    /// The items.
    pub items: Vec<Item>,
}

/// Answers on their way to one gateway. Bounded by what the gateway keeps unanswered.
#[derive(Debug, Default)]
pub struct Outgoing {
    waiting: Mutex<Vec<(u64, Answer)>>,
    filled: Notify,
}

impl Outgoing {
    /// Queues an answer for an item of that epoch.
    pub fn push(&self, epoch: u64, answer: Answer) {
        self.waiting.lock().push((epoch, answer));
        self.filled.notify_one();
    }

    /// Forgets what is meant for another connection: the gateway will hand those items over again.
    fn clear(&self) {
        self.waiting.lock().clear();
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// Answers to items of that epoch, at most a page, and of many bytes but one; waits until there are some.
    async fn page(&self, epoch: u64) -> Vec<Answer> {
        loop {
            {
                let mut waiting = self.waiting.lock();
                let n = fitting(&waiting);
                let page: Vec<Answer> = waiting.drain(..n).filter(|a| a.0 == epoch).map(|a| a.1).collect();
                if !waiting.is_empty() {
                    self.filled.notify_one();
                }
                if !page.is_empty() {
                    return page;
                }
            }
            self.filled.notified().await;
        }
    }
}

/// How many of the first fit a page: so many that the body stays well below what a gateway takes, and one in any case.
fn fitting(waiting: &[(u64, Answer)]) -> usize {
    let mut bytes = 0;
    let fits = |(_, answer): &&(u64, Answer)| {
        bytes += answer.encoded_len();
        bytes <= UPLINK_PAGE_BYTES
    };
    waiting.iter().take(UPLINK_PAGE).take_while(fits).count().max(1).min(waiting.len())
}

/// Listens until the connection cannot go on; gives why. `Ok` means that the gateway has another epoch.
pub(super) async fn listen(shared: &Shared, link: &Arc<Link>, client: &Client, epoch: u64) -> Result<(), CallError> {
    link.outgoing.clear();
    link.is_briefed_in(epoch).await;
    let hold_ms = shared.config.hold_ms.saturating_mul(10);
    let deadline = Duration::from_millis(u64::from(hold_ms) + u64::from(shared.config.request_ms));
    let mut taken = 0;
    loop {
        let wants = Some(Wants { is_delisted: link.is_leaving(), ..shared.wants.read().clone() });
        let request = UplinkRequest { logic: shared.logic, epoch, taken, hold_ms, wants };
        let reply: UplinkReply = match client.call(path::UPLINK, &request, deadline).await {
            // A gateway of a version that has no way up.
            Err(CallError::Status(StatusCode::NOT_FOUND)) => pending().await,
            reply => reply?,
        };
        if reply.epoch != epoch {
            return Ok(());
        }
        let Some(last) = reply.items.last() else { continue };
        taken = last.sequence;
        let heard = Heard { link: Arc::clone(link), epoch, items: reply.items };
        // Closed only at the end of the process.
        let _ = shared.heard.send(heard).await;
    }
}

/// Delivers answers until the connection cannot go on; gives why.
pub(super) async fn answer(shared: &Shared, link: &Link, client: &Client, epoch: u64) -> CallError {
    let deadline = Duration::from_millis(u64::from(shared.config.request_ms));
    loop {
        let answers = link.outgoing.page(epoch).await;
        let record = Answers { logic: shared.logic, epoch, answers };
        if let Err(error) = client.call::<_, ()>(path::ANSWERS, &record, deadline).await {
            return error;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidegate_protocol::records::{Told, answer::Outcome};

    use super::*;

    fn told(sequence: u64, bytes: usize) -> Answer {
        Answer { sequence, outcome: Some(Outcome::Told(Told { data: Bytes::from(vec![b' '; bytes]) })) }
    }

    #[tokio::test]
    async fn a_page_of_large_answers_stays_below_what_a_gateway_takes() {
        let outgoing = Outgoing::default();
        for sequence in 0..64 {
            outgoing.push(1, told(sequence, 200 * 1024));
        }

        let mut sequences = Vec::new();
        while sequences.len() < 64 {
            let page = outgoing.page(1).await;
            let bytes: usize = page.iter().map(Answer::encoded_len).sum();
            assert!(bytes <= UPLINK_PAGE_BYTES, "{bytes}");
            sequences.extend(page.iter().map(|answer| answer.sequence));
        }

        assert_eq!(sequences, (0..64).collect::<Vec<_>>(), "all of them, in order");
    }

    #[tokio::test]
    async fn an_answer_larger_than_a_page_goes_alone() {
        let outgoing = Outgoing::default();
        outgoing.push(1, told(1, 2 * UPLINK_PAGE_BYTES));
        outgoing.push(1, told(2, 1));

        assert_eq!(outgoing.page(1).await.len(), 1);
        assert_eq!(outgoing.page(1).await[0].sequence, 2);
    }
}
