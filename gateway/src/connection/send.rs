//! What a client says to others: SEND, an agent's REPLY, and questions that all gateways together answer (rules S-1 to S-3,
//! P-1, P-2). Checked here against what the client may and how often; carried out by a logic node, which the uplink leads to.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_protocol::ids::CommandId;
use tidegate_protocol::message::{Members, Recipient, Reply, Send};
use tidegate_protocol::records::{self, Ask, AskKind, Target, item::What, target::To};
use tidegate_protocol::reply;

use super::event_loop::EventLoop;
use super::rate::Level;
use crate::bucket::table::Cold;
use crate::bucket::text_frame;
use crate::dialect::{Expects, ReplyTo};
use crate::key::SlotKey;
use crate::session::Act;
use crate::session::blocklist::Blocklist;
use crate::uplink::{Addressee, Said, Whose};

/// Why something is not carried up; each is an ERROR.
enum Denied {
    Forbidden,
    Rate { retry_after_ms: u32 },
    Overloaded,
    UnknownCommand,
}

impl Denied {
    fn reply(&self, out: &mut Vec<u8>, id: Option<&str>) {
        match self {
            // The same words whether it exists or not.
            Self::Forbidden => reply::error(out, id, "forbidden", "this connection may not do that", false),
            Self::Rate { retry_after_ms } => {
                let message = "more messages than this connection or user may send";
                later(out, id, "rate", message, *retry_after_ms);
            }
            Self::Overloaded => {
                let message = "too much waits for the logic tier; try again later";
                later(out, id, "overloaded", message, 1_000);
            }
            Self::UnknownCommand => {
                reply::error(out, id, "unknown_command", "no command with that id waits for a reply", false);
            }
        }
    }
}

fn later(out: &mut Vec<u8>, id: Option<&str>, code: &str, message: &str, retry_after_ms: u32) {
    let error = reply::Error { code, message, retryable: true, retry_after_ms: Some(retry_after_ms), reason: None };
    reply::error_with(out, id, &error);
}

impl EventLoop {
    pub(super) fn send(&mut self, key: SlotKey, id: Option<&str>, send: &Send<'_>, reply_to: ReplyTo) {
        let data = Bytes::copy_from_slice(send.data.as_bytes());
        let nonce = send.nonce.as_deref().unwrap_or_default().to_owned();
        let (act, name, what) = match &send.to {
            Recipient::Route(route) => {
                let what = What::Route(records::Route { route: route.clone().into_owned(), data, nonce });
                (Act::Route, route.clone().into_owned(), what)
            }
            to => {
                let (act, name, to) = match to {
                    Recipient::Room(room) => (Act::Speak, room.as_ref(), To::Room(room.clone().into_owned())),
                    Recipient::User(user) => (Act::Whisper, user.as_ref(), To::User(user.clone().into_owned())),
                    Recipient::Connection(id) => {
                        (Act::Whisper, "", To::Connection(Bytes::copy_from_slice(&id.to_u128().to_be_bytes())))
                    }
                    // The arm above.
                    Recipient::Route(_) => return,
                };
                let to = Some(Target { to: Some(to) });
                let what = What::Send(records::Send { to, data, nonce, skip_self: !send.echo });
                (act, name.to_owned(), what)
            }
        };
        let outcome = self.spend(key.slot).and_then(|()| {
            let whose = Whose::Connection { key: self.bucket().at(key), reply_to };
            self.send_up(key, Some((act, &name)), None, what, whose)
        });
        self.explain(key, id, outcome);
    }

    pub(super) fn answer_command(&mut self, key: SlotKey, id: Option<&str>, reply: &Reply<'_>) {
        let outcome = match reply.command.parse::<CommandId>() {
            Ok(command) => {
                let what = What::Reply(records::Reply {
                    command: reply.command.clone().into_owned(),
                    data: Bytes::copy_from_slice(reply.data.as_bytes()),
                    is_error: reply.is_error,
                });
                self.send_up(key, None, Some(command.logic), what, Whose::Nobody)
            }
            Err(_) => Err(Denied::UnknownCommand),
        };
        self.explain(key, id, outcome);
    }

    pub(super) fn ask_presence(&mut self, key: SlotKey, id: Option<&str>, room: &str) {
        let ask = Ask { kind: AskKind::Presence.into(), room: room.to_owned(), ..Ask::default() };
        self.ask(key, id, (Act::See, Expects::Told("PRESENCE")), ask);
    }

    pub(super) fn ask_members(&mut self, key: SlotKey, id: Option<&str>, page: &Members<'_>) {
        let ask = Ask {
            kind: AskKind::Members.into(),
            room: page.room.clone().into_owned(),
            cursor: page.cursor.clone().unwrap_or_default().into_owned(),
            limit: page.limit.unwrap_or_default(),
        };
        self.ask(key, id, (Act::List, Expects::Told("MEMBERS")), ask);
    }

    fn ask(&mut self, key: SlotKey, id: Option<&str>, kind: (Act, Expects), ask: Ask) {
        let room = ask.room.clone();
        let reply_to = ReplyTo::Json { id: id.map(Into::into), expects: kind.1 };
        let whose = Whose::Connection { key: self.bucket().at(key), reply_to };
        let outcome = self.send_up(key, Some((kind.0, &room)), None, What::Ask(ask), whose);
        self.explain(key, id, outcome);
    }

    /// One more SEND of this user, on whichever of its connections; they are all in this bucket.
    fn spend(&mut self, slot: u32) -> Result<(), Denied> {
        let user = {
            let table = self.host.buckets[self.index].table.read();
            table.cold.get(slot as usize).and_then(|cold| cold.user.as_ref().map(Arc::clone))
        };
        let Some(user) = user else { return Ok(()) };
        self.user_sends.take(user, self.host.clock().now()).map_err(|retry_after_ms| Denied::Rate { retry_after_ms })
    }

    fn send_up(
        &self,
        key: SlotKey,
        needs: Option<(Act, &str)>,
        logic: Option<u64>,
        what: What,
        whose: Whose,
    ) -> Result<(), Denied> {
        let bucket = &self.host.buckets[self.index];
        let from = {
            let table = bucket.table.read();
            if table.find(key).is_none() {
                return Ok(());
            }
            let cold = &table.cold[key.slot as usize];
            if needs.is_some_and(|(act, name)| {
                !cold.may(&self.host.access.open, act, name) || is_blocked(&self.host.access.blocklist, cold, act, name)
            }) {
                return Err(Denied::Forbidden);
            }
            let is_for_others = !matches!(what, What::Send(_) | What::Ask(_));
            self.host.reporter().describe(&table, bucket.at(key), is_for_others)
        };
        let Some(from) = from else { return Ok(()) };
        let name = if from.user.is_empty() { from.connection.clone() } else { from.user.clone().into() };
        let whom = logic.map_or(Addressee::Name(&name), |node| Addressee::Node { node, name: &name });
        let said = Said { whom, from, what, whose };
        self.host.uplink.say(said, self.host.clock().now()).map(drop).map_err(|_| Denied::Overloaded)
    }

    fn explain(&mut self, key: SlotKey, id: Option<&str>, outcome: Result<(), Denied>) {
        if let Err(denied) = outcome {
            let mut json = Vec::new();
            denied.reply(&mut json, id);
            self.send_control(key, text_frame(&json), false);
        }
    }

    /// One more REPLY of this connection; when it is one too many, says so.
    pub(super) fn may_reply(&mut self, key: SlotKey, id: Option<&str>) -> bool {
        match Level::take(&mut self.rare.of(key.slot).replies, self.rates.replies, self.host.clock().now()) {
            Ok(()) => true,
            Err(retry_after_ms) => {
                self.host.totals.rate_refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.explain(key, id, Err(Denied::Rate { retry_after_ms }));
                false
            }
        }
    }

    /// One more request of this connection; when it is one too many, says so.
    pub(super) fn is_within_rate(&mut self, key: SlotKey, id: Option<&str>) -> bool {
        match Level::take(&mut self.rare.of(key.slot).requests, self.rates.requests, self.host.clock().now()) {
            Ok(()) => true,
            Err(retry_after_ms) => {
                self.host.totals.rate_refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.explain(key, id, Err(Denied::Rate { retry_after_ms }));
                false
            }
        }
    }
}

/// Whether a block of the user's keeps it from a room: who may not join it may not speak there or look in either (rule R-6).
fn is_blocked(blocklist: &Blocklist, cold: &Cold, act: Act, name: &str) -> bool {
    match act {
        Act::Join | Act::Speak | Act::See | Act::List => {
            cold.user.as_deref().is_some_and(|user| blocklist.is_blocked_from(user, name))
        }
        Act::Whisper | Act::Route => false,
    }
}
