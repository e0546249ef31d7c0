//! What a client says and what it is told: PING, JOIN, LEAVE and their refusals (rules L-1, R-1 to R-3, E-1).
//! Parsing is the protocol crate's; what joining and leaving do is in `membership`. Replies that change what a connection gets
//! are sent under the table's write lock, so that no walk comes between the change and the reply (rule R-4).

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use tidegate_protocol::close::CloseReason;
use tidegate_protocol::handshake::Deflate;
use tidegate_protocol::message::{BadRequest, Recipient, Request, Send, Verb};
use tidegate_protocol::reply;
use tidegate_protocol::ws;

use super::event_loop::EventLoop;
use super::membership::Joined;
use crate::bucket::pending::Queued;
use crate::bucket::text_frame;
use crate::clock::unix_ms;
use crate::counters::Delta;
use crate::dialect::{Asked, Expects, ReplyTo};
use crate::key::SlotKey;
use crate::uplink::events::Happened;

/// Malformed messages in a row that end a connection (rule E-1).
const BAD_JSON_MAX: u8 = 3;

impl EventLoop {
    pub(super) fn text(&mut self, key: SlotKey, text: &str) {
        self.host.totals.received.fetch_add(1, Ordering::Relaxed);
        if self.host.rules.echo {
            return self.echo(key, ws::OpCode::Text, text.as_bytes());
        }
        match self.host.rules.dialects.read(text) {
            Ok(Asked::Json(request)) => {
                self.forgive(key.slot);
                // Replies were asked for, so they are many where commands are; but whether they were is for logic to find out.
                let is_welcome = match request.verb {
                    Verb::Reply(_) => self.may_reply(key, request.id),
                    _ => self.is_within_rate(key, request.id),
                };
                if !is_welcome {
                    return;
                }
                self.carry_out(key, &request);
            }
            Ok(Asked::ModuleAction(called)) => {
                self.forgive(key.slot);
                if self.is_within_rate(key, None) {
                    self.called(key, &called);
                }
            }
            Ok(Asked::UserData(bare)) => {
                self.forgive(key.slot);
                if self.is_within_rate(key, None) {
                    let send = Send { to: Recipient::User(bare.user), data: bare.data, nonce: None, echo: true };
                    self.send(key, None, &send, sent(None));
                }
            }
            Err((id, error)) => {
                if self.is_within_rate(key, id) {
                    self.refuse(key, id, &error);
                }
            }
        }
    }

    pub(super) fn binary(&mut self, key: SlotKey, bytes: &[u8]) {
        self.host.totals.received.fetch_add(1, Ordering::Relaxed);
        if self.host.rules.echo {
            return self.echo(key, ws::OpCode::Binary, bytes);
        }
        if !self.is_within_rate(key, None) {
            return;
        }
        let mut json = Vec::new();
        reply::error(&mut json, None, "binary", "messages are JSON in text frames", false);
        self.send_control(key, text_frame(&json), false);
    }

    /// Sends a message back, compressed where the client takes it so: no distance in it exceeds its own length, so a client's
    /// limited window holds for every message that is no longer.
    fn echo(&mut self, key: SlotKey, opcode: ws::OpCode, payload: &[u8]) {
        let fits = |deflate: &Deflate| payload.len() <= 1 << deflate.window_bits();
        let compressed = self.deflate_of(key).filter(fits).and_then(|_| {
            let deflater = self.echoes.get_or_insert_with(|| ws::Deflater::new(self.host.rules.deflate.level));
            deflater.frame(opcode, payload)
        });
        let frame = compressed.unwrap_or_else(|| ws::frame(opcode, payload));
        self.send_control(key, frame, false);
    }

    /// What it said was a message: a row of malformed ones is over.
    fn forgive(&mut self, slot: u32) {
        if let Some(rare) = self.rare.get_mut(slot) {
            rare.bad_json = 0;
        }
    }

    fn refuse(&mut self, key: SlotKey, id: Option<&str>, error: &BadRequest) {
        let mut json = Vec::new();
        reply::error(&mut json, id, error.code(), &error.to_string(), false);
        self.send_control(key, text_frame(&json), false);
        if error.code() != "bad_json" {
            self.forgive(key.slot);
            return;
        }
        let count = &mut self.rare.of(key.slot).bad_json;
        *count += 1;
        if *count >= BAD_JSON_MAX {
            let reason = CloseReason::BadJson;
            self.begin_close(key, reason.code(), &reason.text(None));
        }
    }

    fn carry_out(&mut self, key: SlotKey, request: &Request<'_>) {
        match &request.verb {
            Verb::Ping(echo) => {
                let mut json = Vec::new();
                reply::pong(&mut json, request.id, *echo, unix_ms());
                self.send_control(key, text_frame(&json), false);
            }
            Verb::Join(rooms) => self.join(key, request.id, rooms),
            Verb::Leave(room) => self.leave(key, request.id, room),
            Verb::Send(send) => self.send(key, request.id, send, sent(request.id)),
            Verb::Reply(reply) => self.answer_command(key, request.id, reply),
            Verb::Presence(room) => self.ask_presence(key, request.id, room),
            Verb::Members(page) => self.ask_members(key, request.id, page),
            Verb::Auth(_) => self.auth(key, request.id),
            Verb::Refresh(token) => self.refresh(key, request.id, &token.0),
        }
    }

    fn join(&mut self, key: SlotKey, id: Option<&str>, rooms: &[Cow<'_, str>]) {
        let bucket = &self.host.buckets[self.index];
        if rooms.len() > self.host.settings.rooms().saturating_mul(2) {
            // Most would be refused one by one; no work is done for a list that cannot be meant.
            let mut json = Vec::new();
            reply::error(&mut json, id, "limit", "JOIN names more than twice the rooms HELLO allows", false);
            self.send_control(key, text_frame(&json), false);
            return;
        }
        let mut d = Delta::default();
        let queued = {
            let mut table = bucket.table.write();
            if table.find(key).is_none() {
                return;
            }
            let mut version = 0;
            let outcomes: Vec<(&str, Joined)> = rooms
                .iter()
                .map(|room| {
                    (room.as_ref(), self.host.membership().request(&mut table, bucket.at(key), room, &mut version))
                })
                .collect();
            let mut json = Vec::new();
            reply::joined(&mut json, id, &outcomes.iter().map(|(room, o)| o.part(room)).collect::<Vec<_>>());
            self.host.membership().confirm(&table, bucket.at(key), text_frame(&json), version, &mut d)
        };
        bucket.counters.add(&d);
        self.close_if_full(key, queued);
    }

    fn leave(&mut self, key: SlotKey, id: Option<&str>, room: &str) {
        let bucket = &self.host.buckets[self.index];
        let mut json = Vec::new();
        let mut d = Delta::default();
        let queued = {
            let mut table = bucket.table.write();
            if table.find(key).is_none() {
                return;
            }
            if self.host.membership().leave(&mut table, bucket.at(key), room) {
                self.host.reporter().tell(&table, bucket.at(key), Happened::Left(room, ""));
                reply::left(&mut json, id, room);
            } else {
                reply::error(&mut json, id, "not_in_room", "this connection has not joined that room", false);
            }
            let Some(hot) = table.find(key) else { return };
            self.host.control().control(hot, text_frame(&json), &mut d)
        };
        bucket.counters.add(&d);
        self.close_if_full(key, queued);
    }

    /// A reply that did not fit ends the connection.
    fn close_if_full(&mut self, key: SlotKey, queued: Queued) {
        if queued == Queued::Close {
            self.host.totals.slow_closed.fetch_add(1, Ordering::Relaxed);
            self.cut(key, CloseReason::Slow);
        }
    }
}

/// The answer to a SEND.
fn sent(id: Option<&str>) -> ReplyTo {
    ReplyTo::Json { id: id.map(Into::into), expects: Expects::Sent }
}
