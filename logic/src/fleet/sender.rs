//! Batches to one gateway: strictly one in flight, numbered, and kept until answered, over a loss of the connection too.
//! What arrives meanwhile waits in `queue` and becomes the next batch. Invariants: a number is used for one batch
//! only, and those of a later link to the same gateway are higher, because the gateway knows the logic node and not its links; a batch is sent again only to the epoch it was made for, so a gateway can answer a repeat from memory.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use tidegate_protocol::records::{PushBatch, PushReply, Receipt, path};
use tokio::time::Instant;

use super::client::{CallError, Client};
use super::queue::{Queued, Reply};
use super::{Failure, Link};

/// The batch that awaits its reply.
struct InFlight {
    body: Bytes,
    epoch: u64,
    replies: Vec<Reply>,
    is_resend: bool,
    /// From when the reply is too late, losses of the connection included.
    deadline: Instant,
}

/// The state of batches that outlives a connection; owned by the link's task.
pub(super) struct BatchSender {
    logic: u64,
    epoch: u64,
    sequence: u64,
    /// Numbers begin above it.
    base: u64,
    in_flight: Option<InFlight>,
    request: Duration,
}

/// Batches of one link are fewer.
const NUMBERS_A_LINK: u64 = 1 << 40;

/// Why batches cannot go on over this connection.
pub(super) enum SenderEnd {
    /// It broke; the batch in flight may be sent again on the next one.
    Broken,
    /// The gateway says that its epoch is another one.
    OtherEpoch,
}

impl BatchSender {
    /// `nth`: of this process's links, none before has it.
    pub fn new(logic: u64, nth: u64, request: Duration) -> Self {
        let base = nth * NUMBERS_A_LINK;
        Self { logic, epoch: 0, sequence: base, base, in_flight: None, request }
    }

    /// A connection to this epoch of the gateway is open: batches of an earlier one have failed.
    pub fn begin(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.fail(Failure::Restarted);
            (self.epoch, self.sequence) = (epoch, self.base);
        }
    }

    /// Answers whoever waits for the batch in flight.
    pub fn fail(&mut self, why: Failure) {
        for reply in self.in_flight.take().into_iter().flat_map(|batch| batch.replies) {
            reply.send(Err(why));
        }
    }

    /// The gateway has left in good order: nobody there lacks the batch in flight.
    pub fn leave(&mut self) {
        for reply in self.in_flight.take().into_iter().flat_map(|batch| batch.replies) {
            reply.send(Ok(Receipt::default()));
        }
    }

    /// Sends batch after batch until the connection ends. Cancel-safe: the batch in flight stays in `self`.
    pub async fn run(&mut self, link: &Link, client: &Client) -> SenderEnd {
        loop {
            if self.in_flight.is_none() {
                let pushes = link.queue.take().await;
                self.make(link, pushes);
            }
            let Some(batch) = &mut self.in_flight else { continue };
            debug_assert_eq!(batch.epoch, self.epoch, "begin() fails batches of other epochs");
            let is_resend = std::mem::replace(&mut batch.is_resend, true);
            if is_resend {
                link.metrics.resends.inc();
            }
            let started = Instant::now();
            let left = batch.deadline.saturating_duration_since(started);
            let reply: Result<PushReply, _> = client.call_encoded(path::PUSH, batch.body.clone(), left).await;
            link.metrics.reply_seconds.observe(started.elapsed().as_secs_f64());
            if let Some(end) = self.conclude(reply, is_resend) {
                return end;
            }
        }
    }

    fn make(&mut self, link: &Link, queued: Vec<Queued>) {
        let (pushes, replies): (Vec<_>, Vec<_>) = queued.into_iter().map(|q| (q.push, q.reply)).unzip();
        self.sequence += 1;
        link.metrics.batches.inc();
        // At most 4,096.
        link.metrics.batch_pushes.observe(pushes.len() as f64);
        let batch = PushBatch { logic: self.logic, sequence: self.sequence, epoch: self.epoch, pushes };
        self.in_flight = Some(InFlight {
            body: Bytes::from(batch.encode_to_vec()),
            epoch: self.epoch,
            replies,
            is_resend: false,
            deadline: Instant::now() + self.request,
        });
    }

    fn conclude(&mut self, reply: Result<PushReply, CallError>, is_resend: bool) -> Option<SenderEnd> {
        let why = match reply {
            Ok(reply) => return self.deliver(reply),
            Err(CallError::Broken(_) | CallError::Down) => return Some(SenderEnd::Broken),
            Err(CallError::Status(StatusCode::CONFLICT)) => {
                self.fail(Failure::Restarted);
                return Some(SenderEnd::OtherEpoch);
            }
            Err(error) => error.failure(),
        };
        // A refusal of the repeat says nothing about the first.
        self.fail(if is_resend && !why.may_be_taken() { Failure::Lost } else { why });
        None
    }

    fn deliver(&mut self, reply: PushReply) -> Option<SenderEnd> {
        let replies = self.in_flight.take().map(|batch| batch.replies).unwrap_or_default();
        let is_whole = reply.receipts.len() == replies.len();
        let mut receipts = reply.receipts.into_iter();
        for waiting in replies {
            let receipt = if is_whole { receipts.next() } else { None };
            waiting.send(receipt.ok_or(Failure::Incompatible));
        }
        None
    }
}
