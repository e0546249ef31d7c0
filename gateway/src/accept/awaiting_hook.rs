//! Those about whom the connect hook has been asked: they are named as far as a token goes, and wait for the word.
//!
//! ```text
//!   named ──question goes up──▶ AwaitingHook ──yes──▶ opened, with HELLO
//!                                 └── no, no answer in time, or gone ──▶ refused: HTTP before the 101, ERROR and close after it
//! ```
//!
//! Invariants: one who waits counts among the handshakes in flight, and has a deadline; its socket is watched for its end
//! only, so that what it sends meanwhile stays in the kernel.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use tidegate_protocol::close::CloseReason;
use tidegate_protocol::handshake::{self, Deflate, Refusal};
use tidegate_protocol::records::{Connect, Verdict, item::What};
use tidegate_protocol::reply;
use tidegate_protocol::ws;

use super::deadlines::Awaited;
use super::front::Front;
use super::{Acceptor, PendingHandshake, RETRY_AFTER_S, Stage, hang_up};
use crate::accept::hook;
use crate::connection::open::Entrant;
use crate::session::Identity;
use crate::uplink::{Addressee, Said, Whose};

/// A client about whom the hook has been asked.
#[derive(Debug)]
pub(super) struct AwaitingHook {
    identity: Identity,
    deflate: Option<Deflate>,
    /// Its 101; empty when it has had it.
    response: Vec<u8>,
    /// What came behind its request.
    early: Vec<u8>,
}

impl AwaitingHook {
    pub(super) fn new(identity: Identity, deflate: Option<Deflate>, response: &[u8], early: &[u8]) -> Self {
        Self { identity, deflate, response: response.to_vec(), early: early.to_vec() }
    }

    fn has_had_its_101(&self) -> bool {
        self.response.is_empty()
    }
}

impl Acceptor {
    /// Asks about a client, whose socket is in no set, and lets it wait.
    pub(super) fn ask_about(&mut self, front: &Front, fd: OwnedFd, waiting: AwaitingHook, connect: Connect) {
        if !self.take_permit(front) {
            let retry_after_s = front.capacity.admission.lock().refuse();
            return self.turn_down(front, &fd, &waiting, Refusal::Overloaded { retry_after_s });
        }
        let key = self.free_slot();
        let data = epoll::EventData::new_u64(key.to_u64());
        let from = hook::sender(&fd, &waiting.identity);
        let whose = Whose::Handshake { acceptor: self.index, key };
        let name = if from.user.is_empty() { from.address.clone() } else { from.user.clone() };
        let said = Said { whom: Addressee::Name(name.as_bytes()), from, what: What::Connect(connect), whose };
        let now = front.clock.now();
        let is_asked =
            epoll::add(&self.epoll, &fd, data, epoll::EventFlags::RDHUP).is_ok() && front.uplink.say(said, now).is_ok();
        if !is_asked {
            self.free.push(key.slot);
            front.capacity.handshakes.let_go(usize::from(self.index), 1);
            return self.turn_down(front, &fd, &waiting, Refusal::HookUnavailable { retry_after_s: RETRY_AFTER_S });
        }
        self.deadlines.add(Awaited::Hook, now.wrapping_add(front.rules.handshake.deadline_ms), key);
        self.pending[key.slot as usize] =
            Some(PendingHandshake { fd, stage: Stage::AwaitingHook(Box::new(waiting)), number: key.number });
    }

    /// Acts on the answers that have come.
    pub(super) fn take_answers(&mut self, front: &Front) {
        for answered in front.capacity.mailboxes[usize::from(self.index)].take() {
            let handshake = self.pending.get(answered.key.slot as usize).and_then(Option::as_ref);
            let is_here = handshake
                .is_some_and(|it| it.number == answered.key.number && matches!(it.stage, Stage::AwaitingHook(_)));
            if !is_here {
                continue;
            }
            let Some(PendingHandshake { fd, stage: Stage::AwaitingHook(waiting), .. }) =
                self.unpark(front, answered.key.slot)
            else {
                continue;
            };
            // This set must let go of the socket before a bucket's takes it.
            let _ = epoll::delete(&self.epoll, fd.as_fd());
            self.act_on(front, fd, *waiting, answered.verdict);
        }
    }

    fn act_on(&mut self, front: &Front, fd: OwnedFd, waiting: AwaitingHook, verdict: Option<Verdict>) {
        let unavailable = Refusal::HookUnavailable { retry_after_s: RETRY_AFTER_S };
        let verdict = match verdict {
            Some(verdict) if verdict.status == 503 && verdict.code == unavailable.code() => None,
            verdict => verdict,
        };
        let Some(verdict) = verdict else { return self.turn_down(front, &fd, &waiting, unavailable) };
        if verdict.status != 0 {
            return self.turn_down_by_hook(front, &fd, &waiting, &verdict);
        }
        if !front.lifecycle.is_accepting() {
            return self.turn_down(front, &fd, &waiting, Refusal::Draining { retry_after_s: RETRY_AFTER_S });
        }
        let AwaitingHook { identity, deflate, response, early } = waiting;
        let rest = |identity| AwaitingHook { identity, deflate, response: response.clone(), early: Vec::new() };
        let identity = match hook::apply(&front.access, identity.clone(), verdict) {
            Ok(identity) => identity,
            Err(why) => {
                tracing::warn!(why, "the connect hook's answer cannot be carried out");
                return self.turn_down(front, &fd, &rest(identity), unavailable);
            }
        };
        self.response.clear();
        self.response.extend_from_slice(&response);
        let entrant = Entrant { fd, identity: identity.clone(), deflate, early: &early };
        let opened = front.opener.open(entrant, &mut self.response);
        if let Err((fd, refusal)) = opened {
            self.turn_down(front, &fd, &rest(identity), refusal);
        }
    }

    /// One about whom the hook was asked is refused, for a reason of ours.
    pub(super) fn turn_down(&mut self, front: &Front, fd: &OwnedFd, waiting: &AwaitingHook, refusal: Refusal) {
        if !waiting.has_had_its_101() {
            return self.refuse(front, fd, refusal);
        }
        front.totals.refuse(refusal);
        let is_retryable = refusal.status() == 503;
        let words = last_words(refusal.status(), refusal.code(), &refusal.to_string(), is_retryable);
        hang_up(fd, &words, &mut self.discard);
    }

    /// The same, in the hook's words.
    fn turn_down_by_hook(&mut self, front: &Front, fd: &OwnedFd, waiting: &AwaitingHook, verdict: &Verdict) {
        front.totals.refuse(Refusal::HookRefused);
        let status = u16::try_from(verdict.status).unwrap_or(403);
        let is_retryable = matches!(status, 429 | 503);
        let words = if waiting.has_had_its_101() {
            last_words(status, &verdict.code, &verdict.message, is_retryable)
        } else {
            let mut out = Vec::new();
            handshake::refusal_of_others(&mut out, status, &verdict.code, &verdict.message);
            out
        };
        hang_up(fd, &words, &mut self.discard);
    }
}

/// ERROR and close, framed. A client that may come back is told 3003, another 3500 or 3505.
pub(super) fn last_words(status: u16, code: &str, message: &str, is_retryable: bool) -> Vec<u8> {
    let mut json = Vec::new();
    reply::error(&mut json, None, code, message, is_retryable);
    let mut words = ws::frame(ws::OpCode::Text, &json).to_vec();
    let (reason, retry_after_ms) = match status {
        401 => (CloseReason::Unauthorized, None),
        429 | 503 => (CloseReason::Overload, Some(RETRY_AFTER_S * 1_000)),
        _ => (CloseReason::Blocked, None),
    };
    words.extend_from_slice(&ws::close_frame(reason.code(), &reason.text(retry_after_ms)));
    words
}
