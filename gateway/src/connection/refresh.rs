//! A token that is renewed, and one that has run out, on a connection that lives (rule C-6).
//! A refused REFRESH changes nothing: the connection goes on with the token it has, and ends with it.

use std::sync::atomic::Ordering;

use tidegate_protocol::close::{self, CloseReason};
use tidegate_protocol::reply;

use super::event_loop::EventLoop;
use crate::bucket::text_frame;
use crate::clock::unix_s;
use crate::key::SlotKey;
use crate::session::auth::{Claims, TokenError};

/// A token for somebody else is no refresh.
const OTHER: TokenError = TokenError::Claims("REFRESH needs a token for the same sub, plat and dev as the one before");
/// What a connect hook added stays, and has to fit beside what the new token brings.
const TOO_MUCH: TokenError =
    TokenError::Claims("with what the connect hook added, the patterns or attributes of this token are too many");

impl EventLoop {
    /// AUTH on a connection that is named, or where nobody need be.
    pub(super) fn auth(&mut self, key: SlotKey, id: Option<&str>) {
        let mut json = Vec::new();
        let message = match self.host.access.auth.is_required() {
            true => "this connection is named already; send REFRESH to bring a new token for it",
            false => "this gateway asks for no token",
        };
        reply::error(&mut json, id, "unauthorized", message, false);
        self.send_control(key, text_frame(&json), false);
    }

    pub(super) fn refresh(&mut self, key: SlotKey, id: Option<&str>, token: &str) {
        if !self.host.access.auth.is_required() {
            return self.auth(key, id);
        }
        let outcome = self.host.access.auth.verify(token).and_then(|claims| self.renew(key, claims));
        let mut json = Vec::new();
        match outcome {
            Ok(expires_s) => reply::refreshed(&mut json, id, u64::from(expires_s) * 1_000),
            Err(error) => reply::unauthorized(&mut json, id, error.code(), &error.to_string()),
        }
        self.send_control(key, text_frame(&json), false);
    }

    /// Puts a new token's word in place of the old one's, and a connect hook's over it again. The rooms it is in stay: the grant
    /// is asked at JOIN.
    fn renew(&mut self, key: SlotKey, claims: Claims) -> Result<u32, TokenError> {
        let bucket = self.bucket();
        let platform = claims.platform.as_deref().map(|name| self.host.access.platforms.find(name));
        let mut table = bucket.table.write();
        if table.find(key).is_none() {
            return Err(OTHER);
        }
        let cold = &mut table.cold[key.slot as usize];
        let is_platform = platform.is_none_or(|p| p.is_some_and(|p| p.id == cold.platform));
        let Some(held) = &mut cold.claims else { return Err(OTHER) };
        let by_hook = held.attributes.by_hook();
        let sub = by_hook.and_then(|by_hook| by_hook.sub.as_deref()).or(cold.user.as_deref());
        let is_user = sub == Some(&claims.user);
        let is_device = claims.device.is_none() || claims.device == held.device;
        if !(is_user && is_platform && is_device) {
            return Err(OTHER);
        }
        let expires_s = claims.expires_s;
        let (grant, attributes) = match by_hook {
            None => (claims.grant, claims.attributes),
            Some(by_hook) => by_hook.clone().over(claims.grant, &claims.attributes).ok_or(TOO_MUCH)?,
        };
        let fresh = self.host.access.claims.make(None, attributes, grant, expires_s);
        (held.grant, held.attributes, held.expires_s) = (fresh.grant, fresh.attributes, expires_s);
        table.note_expiry(key.slot, bucket.live());
        Ok(expires_s)
    }

    /// Closes those whose tokens have run out, the leeway included.
    pub(super) fn expire(&mut self) {
        let now_s = unix_s().saturating_sub(self.host.access.auth.leeway_s());
        let table = &self.host.buckets[self.index].table;
        if !table.read().expiries.is_any_due(now_s) {
            return;
        }
        let due = table.write().take_expired(now_s);
        for key in due {
            if !self.rare.is_closing(key.slot) {
                self.host.totals.expired_closed.fetch_add(1, Ordering::Relaxed);
                let text = close::text_of(TokenError::Expired.code());
                self.begin_close(key, CloseReason::Unauthorized.code(), &text);
            }
        }
    }
}
