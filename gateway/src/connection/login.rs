//! What Module/Action messages ask for: Login, which gives a connection a user while it lives, and calls of routes.

use std::borrow::Cow;

use tidegate_protocol::close::{self, CloseReason};
use tidegate_protocol::compat::{self, Called, Wish};
use tidegate_protocol::handshake::Refusal;
use tidegate_protocol::limits::is_valid_name;
use tidegate_protocol::message::{Recipient, Send};
use tidegate_protocol::ws;

use super::event_loop::EventLoop;
use super::open::Entrant;
use crate::bucket::text_frame;
use crate::counters::Delta;
use crate::dialect::ReplyTo;
use crate::key::SlotKey;
use crate::session::Identity;
use crate::writer::{KernelWriter, Writer};

impl EventLoop {
    /// Whom a Login makes of a connection; nobody new when it is that user already.
    fn login(&self, key: SlotKey, user: &str, platform: Option<&str>) -> Result<Option<Identity>, (u16, &'static str)> {
        let table = self.host.buckets[self.index].table.read();
        let (Some(hot), Some(cold)) = (table.find(key), table.cold.get(key.slot as usize)) else {
            return Ok(None);
        };
        if cold.user.as_deref() == Some(user) {
            return Ok(None);
        }
        // Who was let in with less than everything, by a hook, or who would have been asked about under the new name.
        if cold.user.is_some()
            || cold.claims.is_some()
            || self.host.rules.hook_required
            || self.host.uplink.wants.asks()
        {
            return Err((403, "this connection cannot be that user's"));
        }
        if !self.host.access.open.takes_names() {
            return Err((403, "this gateway takes nobody's own word for a name"));
        }
        if !cold.rooms.is_empty() || hot.outbox.lock().is_some() {
            return Err((409, "Login comes first: this connection has joined rooms or has something to read"));
        }
        let platform = match platform {
            None => self.host.access.platforms.of(cold.platform),
            Some(name) => {
                self.host.access.platforms.intern(name).ok_or((503, "one of too many different platforms"))?
            }
        };
        Ok(Some(Identity { user: Some(user.into()), platform, claims: None, join: Vec::new(), address: None }))
    }

    /// Moves a connection that has said who it is into its user's bucket, where it begins anew with HELLO; `early` is what it
    /// has sent beyond that.
    pub(super) fn rehouse(&mut self, key: SlotKey, mut identity: Identity, first: &[u8], early: &[u8]) {
        // It goes on under its name; for who is told of ends, the nameless one ended as it should.
        self.rare.of(key.slot).close_code = Some(1000);
        let Some(removed) = self.take_out(key) else { return };
        self.host.buckets[self.index].unwatch(&removed.fd);
        if let Some(mut pending) = removed.pending {
            // Something came to wait since Login looked; HELLO would fall into the middle of it. The client comes back.
            let mut d = Delta::default();
            pending.clear(&mut d);
            self.host.buckets[self.index].counters.add(&d);
            return;
        }
        let mut response = first.to_vec();
        // It is the same client, behind the same proxy.
        identity.address = removed.cold.address;
        let entrant = Entrant { fd: removed.fd, identity, deflate: removed.cold.deflate, early };
        if let Err((fd, refusal)) = self.host.opener.open(entrant, &mut response) {
            self.host.totals.refuse(refusal);
            let reason = if refusal == Refusal::Blocked { CloseReason::Blocked } else { CloseReason::Replaced };
            let words = ws::close_frame(reason.code(), &close::text_of(refusal.code()));
            // Its last words, if it still listens; the socket closes with `fd`.
            let _ = KernelWriter.write(&fd, &[std::io::IoSlice::new(&words)]);
        }
    }

    pub(super) fn called(&mut self, key: SlotKey, called: &Called<'_>) {
        let answer = |code, message| {
            let mut json = Vec::new();
            compat::answer(&mut json, &called.module, &called.action, code, message);
            text_frame(&json)
        };
        match &called.wish {
            Wish::Alive => self.send_control(key, answer(0, "ok"), false),
            Wish::BadLogin => {
                let needs = "Login needs Data {\"UserId\": name, \"PlatId\"?: platform}";
                self.send_control(key, answer(400, needs), false);
            }
            Wish::Login { user, platform } => match self.login(key, user, platform.as_deref()) {
                Ok(None) => self.send_control(key, answer(0, "ok"), false),
                Ok(Some(identity)) => self.renamed = Some((identity, answer(0, "ok"))),
                Err((code, message)) => self.send_control(key, answer(code, message), false),
            },
            Wish::Upstream { route, .. } if !is_valid_name(route) => {
                let needs = "Module and Action together are 1 to 127 bytes without control characters";
                self.send_control(key, answer(400, needs), false);
            }
            Wish::Upstream { route, data } => {
                let send = Send { to: Recipient::Route(Cow::Borrowed(route)), data, nonce: None, echo: true };
                let reply_to =
                    ReplyTo::ModuleAction { module: (*called.module).into(), action: (*called.action).into() };
                self.send(key, None, &send, reply_to);
            }
        }
    }
}
