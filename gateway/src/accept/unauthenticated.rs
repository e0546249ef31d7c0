//! Those who were let in without saying who they are: their first message has to be AUTH (rule C-4). They wait with the
//! acceptor and not in a bucket, so that nothing is pushed to them, and because their user decides which bucket is theirs.
//!
//! ```text
//!   admitted ──101──▶ Unauthenticated ──AUTH──▶ opened in its user's bucket, with HELLO
//!                        └── anything else first, a bad token, or too late ──▶ ERROR, close 3500
//! ```
//!
//! Invariants: at most `auth.unnamed_max` of them; each is named or gone by its deadline; each keeps at most one unfinished
//! message of [`MESSAGE_BYTES_MAX`]; a token is verified once and kept nowhere.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::event::epoll;
use rustix::net::{RecvFlags, SendFlags};
use tidegate_protocol::close::{self, CloseReason};
use tidegate_protocol::handshake::{Deflate, Refusal};
use tidegate_protocol::message::{self, Verb};
use tidegate_protocol::records::Connect;
use tidegate_protocol::reply;
use tidegate_protocol::ws::{self, Decoder, Event, Inflater};

use super::awaiting_hook::AwaitingHook;
use super::deadlines::Awaited;
use super::front::Front;
use super::{Acceptor, PendingHandshake, Stage};
use crate::connection::open::Entrant;
use crate::session::Identity;
use crate::session::auth::{Claims, TOKEN_BYTES_MAX, TokenError};

/// Longest first message: a token, escaped at worst, and what is around it.
const MESSAGE_BYTES_MAX: usize = 2 * TOKEN_BYTES_MAX;
/// Control frames that anyone has reason to send before it has said who it is.
const CONTROLS_MAX: u8 = 20;

/// A client between its 101 and its AUTH.
#[derive(Debug)]
pub(super) struct Unauthenticated {
    decoder: Decoder,
    deflate: Option<Deflate>,
    /// What it said it is, for tokens that do not.
    said: Option<Box<str>>,
    /// Its address, where the socket's peer is another's.
    address: Option<Box<SocketAddr>>,
    controls: u8,
    /// What the connect hook is asked once it has said who it is.
    connect: Option<Box<Connect>>,
}

impl Unauthenticated {
    pub(super) fn new(
        deflate: Option<Deflate>,
        said: Option<Box<str>>,
        address: Option<Box<SocketAddr>>,
        connect: Option<Connect>,
    ) -> Self {
        let connect = connect.map(Box::new);
        Self { decoder: Decoder::default(), deflate, said, address, controls: 0, connect }
    }
}

/// What a first message came to.
enum Heard {
    /// Nothing that counts yet.
    More,
    /// A good token; what follows its message in the buffer begins there.
    Named(Box<Claims>, usize),
    /// The last words, framed; the connection is over.
    Over(Vec<u8>),
}

impl Acceptor {
    /// Lets a client in that has yet to say who it is: answers 101 and waits for its AUTH.
    pub(super) fn await_auth(
        &mut self,
        front: &Front,
        fd: OwnedFd,
        client: Unauthenticated,
        early: &[u8],
    ) -> Result<(), (OwnedFd, Refusal)> {
        if !self.take_unauthenticated_permit(front) {
            let retry_after_s = front.capacity.admission.lock().refuse();
            return Err((fd, Refusal::Overloaded { retry_after_s }));
        }
        // Into an empty socket buffer; a client that gets only a part of it has gone.
        let _ = rustix::net::send(&fd, &self.response, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let mut early = early.to_vec();
        if let Some((fd, client)) = self.listen(front, fd, Box::new(client), &mut early) {
            self.wait_for_auth(front, fd, client);
        }
        Ok(())
    }

    fn wait_for_auth(&mut self, front: &Front, fd: OwnedFd, client: Box<Unauthenticated>) {
        let key = self.free_slot();
        if self.watch(&fd, key).is_err() {
            self.free.push(key.slot);
            front.capacity.unauthenticated.let_go(usize::from(self.index), 1);
            return;
        }
        let deadline = front.clock.now().wrapping_add(front.rules.auth_deadline_ms);
        self.deadlines.add(Awaited::Auth, deadline, key);
        self.pending[key.slot as usize] =
            Some(PendingHandshake { fd, stage: Stage::Unauthenticated(client), number: key.number });
    }

    /// Reads what an unauthenticated client has sent.
    pub(super) fn hear(&mut self, front: &Front, slot: u32) {
        let Some(PendingHandshake { fd, .. }) = &self.pending[slot as usize] else { return };
        match rustix::net::recv(fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((_, n)) if n > 0 => {
                let Some(PendingHandshake { fd, stage: Stage::Unauthenticated(client), number }) =
                    self.pending[slot as usize].take()
                else {
                    return;
                };
                let mut buffer = std::mem::take(&mut self.buffer);
                match self.listen(front, fd, client, &mut buffer[..n]) {
                    Some((fd, client)) => {
                        self.pending[slot as usize] =
                            Some(PendingHandshake { fd, stage: Stage::Unauthenticated(client), number });
                    }
                    None => self.free.push(slot),
                }
                self.buffer = buffer;
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => {
                self.pending[slot as usize] = None;
                self.free.push(slot);
                front.capacity.unauthenticated.let_go(usize::from(self.index), 1);
            }
        }
    }

    /// Acts on bytes of an unauthenticated client; gives it back when it still is one.
    fn listen(
        &mut self,
        front: &Front,
        fd: OwnedFd,
        mut client: Box<Unauthenticated>,
        bytes: &mut [u8],
    ) -> Option<(OwnedFd, Box<Unauthenticated>)> {
        let heard = client.hear(front, &fd, &mut self.inflater, bytes);
        let refused = match heard {
            Heard::More => return Some((fd, client)),
            Heard::Over(words) => Some((fd, words)),
            Heard::Named(claims, used) => self.name(front, fd, &client, *claims, &bytes[used..]),
        };
        front.capacity.unauthenticated.let_go(usize::from(self.index), 1);
        if let Some((fd, words)) = refused {
            super::hang_up(&fd, &words, &mut self.discard);
        }
        None
    }

    /// Opens a client that has said who it is; gives its last words when it cannot be.
    fn name(
        &mut self,
        front: &Front,
        fd: OwnedFd,
        client: &Unauthenticated,
        claims: Claims,
        early: &[u8],
    ) -> Option<(OwnedFd, Vec<u8>)> {
        if !front.lifecycle.is_accepting() {
            let words = ws::close_frame(CloseReason::Draining.code(), &CloseReason::Draining.text(Some(1_000)));
            return Some((fd, words.to_vec()));
        }
        let mut identity =
            match Identity::proven(claims, client.said.as_deref(), &front.access.platforms, &front.access.claims) {
                Ok(identity) => identity,
                Err(error) => return Some((fd, unauthorized(None, error))),
            };
        identity.address.clone_from(&client.address);
        // This set must let go of the socket before a bucket's takes it; it may not be in it yet.
        let _ = epoll::delete(&self.epoll, fd.as_fd());
        if let Some(connect) = &client.connect {
            // The token came in a message and is in no fingerprint, so that no other client's answer is this one's.
            let fingerprint = bytes::Bytes::copy_from_slice(&fastrand::u128(..).to_be_bytes());
            let connect = Connect { fingerprint, ..(**connect).clone() };
            self.ask_about(front, fd, AwaitingHook::new(identity, client.deflate, &[], early), connect);
            return None;
        }
        self.response.clear();
        let entrant = Entrant { fd, identity, deflate: client.deflate, early };
        let Err((fd, refusal)) = front.opener.open(entrant, &mut self.response) else { return None };
        front.totals.refuse(refusal);
        let mut json = Vec::new();
        reply::error(&mut json, None, refusal.code(), &refusal.to_string(), false);
        let mut words = ws::frame(ws::OpCode::Text, &json).to_vec();
        let reason = if refusal == Refusal::Blocked { CloseReason::Blocked } else { CloseReason::Replaced };
        words.extend_from_slice(&ws::close_frame(reason.code(), &close::text_of(refusal.code())));
        Some((fd, words))
    }

    /// Lets those go who did not say who they are in time.
    pub(super) fn expire_unauthenticated(&mut self, front: &Front) {
        let now = front.clock.now();
        while let Some(slot) = self.next_due(Awaited::Auth, now) {
            let Some(handshake) = self.pending[slot as usize].take() else { continue };
            self.free.push(slot);
            front.capacity.unauthenticated.let_go(usize::from(self.index), 1);
            let error = front.access.auth.refuse(TokenError::Missing);
            super::hang_up(&handshake.fd, &unauthorized(None, error), &mut self.discard);
        }
    }
}

impl Unauthenticated {
    /// Decodes up to the first message that counts.
    fn hear(&mut self, front: &Front, fd: &OwnedFd, inflater: &mut Option<Box<Inflater>>, bytes: &mut [u8]) -> Heard {
        let limits = ws::Limits {
            message_bytes: MESSAGE_BYTES_MAX.min(front.settings.message_bytes()),
            fragments: front.settings.fragments(),
            inflate_ratio: front.rules.deflate.ratio_max,
        };
        let mut heard = Heard::More;
        let controls = &mut self.controls;
        let mut on = |event: Event<'_>| {
            heard = match event {
                Event::Text(text) => first_message(front, text),
                Event::Binary(_) => missing(front, None),
                Event::Close { code, .. } => {
                    let echo = code.map_or_else(|| ws::frame(ws::OpCode::Close, &[]), |code| ws::close_frame(code, ""));
                    Heard::Over(echo.to_vec())
                }
                Event::Ping(_) | Event::Pong(_) if *controls >= CONTROLS_MAX => {
                    let flood = CloseReason::Flood;
                    Heard::Over(ws::close_frame(flood.code(), &flood.text(None)).to_vec())
                }
                Event::Ping(payload) => {
                    *controls += 1;
                    let pong = ws::frame(ws::OpCode::Pong, payload);
                    let _ = rustix::net::send(fd, &pong, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                    return ControlFlow::Continue(());
                }
                Event::Pong(_) => {
                    *controls += 1;
                    return ControlFlow::Continue(());
                }
            };
            ControlFlow::Break(())
        };
        let inflater = self.deflate.map(|_| &mut **inflater.get_or_insert_default());
        match self.decoder.decode_some(bytes, &limits, inflater, &mut on) {
            Err(violation) => {
                front.totals.violations.fetch_add(1, Ordering::Relaxed);
                Heard::Over(ws::close_frame(violation.close_code(), &violation.to_string()).to_vec())
            }
            Ok(used) => match heard {
                Heard::Named(claims, _) => Heard::Named(claims, used),
                heard => heard,
            },
        }
    }
}

/// A first message is AUTH with a good token, or the last.
fn first_message(front: &Front, text: &str) -> Heard {
    front.totals.received.fetch_add(1, Ordering::Relaxed);
    let (id, verb) = match message::parse(text) {
        Ok(request) => (request.id, Some(request.verb)),
        Err((id, _)) => (id, None),
    };
    let Some(Verb::Auth(token)) = verb else { return missing(front, id) };
    match front.access.auth.verify(&token.0) {
        Ok(claims) => Heard::Named(Box::new(claims), 0),
        Err(error) => Heard::Over(unauthorized(id, error)),
    }
}

fn missing(front: &Front, id: Option<&str>) -> Heard {
    Heard::Over(unauthorized(id, front.access.auth.refuse(TokenError::Missing)))
}

/// ERROR and close 3500, framed.
fn unauthorized(id: Option<&str>, error: TokenError) -> Vec<u8> {
    let mut json = Vec::new();
    reply::unauthorized(&mut json, id, error.code(), &error.to_string());
    let mut words = ws::frame(ws::OpCode::Text, &json).to_vec();
    words.extend_from_slice(&ws::close_frame(CloseReason::Unauthorized.code(), &close::text_of(error.code())));
    words
}
