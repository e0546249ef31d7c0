//! How a connection ends: politely with a Close frame and a moment for the answer, cut off when it is too slow even for that,
//! and removed from every index once it is over. Only the bucket's task does this.
//! Invariants: a connection that was told to go is gone at its deadline at the latest; what it had pending is counted as closed.

use std::sync::atomic::Ordering;

use tidegate_protocol::close::CloseReason;
use tidegate_protocol::records::InterestKind;
use tidegate_protocol::ws::{self, Violation};

use super::event_loop::EventLoop;
use super::host::Host;
use super::rare::Timer;
use crate::bucket::table::{Removed, Table};
use crate::counters::Delta;
use crate::key::{ConnectionKey, SlotKey};
use crate::uplink::events::Happened;

/// A Close without a code, and an end without a Close (RFC 6455 section 7.4.1).
const NO_CODE: u16 = 1005;
const NO_CLOSE: u16 = 1006;
/// How long a peer may take to answer a close.
const CLOSE_MS: u32 = 2_000;

impl EventLoop {
    /// Closes politely: a Close frame, then the peer has a moment to answer.
    pub(super) fn begin_close(&mut self, key: SlotKey, code: u16, text: &str) {
        if !self.rare.is_closing(key.slot) {
            self.send_close(key, code, ws::close_frame(code, text), false);
        }
    }

    /// The peer's Close is answered with its own code (RFC 6455 section 5.5.1).
    pub(super) fn answer_close(&mut self, key: SlotKey, code: Option<u16>) {
        let frame = code.map_or_else(|| ws::frame(ws::OpCode::Close, &[]), |code| ws::close_frame(code, ""));
        self.send_close(key, code.unwrap_or(NO_CODE), frame, false);
    }

    /// Ends a connection that cannot be told why in the stream's order: what waits is dropped for the Close frame. If the
    /// peer reads again, it finds the rest of what had begun, and why it ends.
    pub(super) fn cut(&mut self, key: SlotKey, reason: CloseReason) {
        let frame = ws::close_frame(reason.code(), &reason.text(None));
        self.send_close(key, reason.code(), frame, true);
    }

    fn send_close(&mut self, key: SlotKey, code: u16, frame: bytes::Bytes, is_hopeless: bool) {
        let now = self.host.clock().now();
        let bucket = &self.host.buckets[self.index];
        let table = bucket.table.read();
        let Some(hot) = table.find(key) else { return };
        let mut d = Delta::default();
        self.host.control().last(hot, frame, is_hopeless, &mut d);
        bucket.counters.add(&d);
        let patience = if is_hopeless { self.host.rules.pending_age_ms.max(CLOSE_MS) } else { CLOSE_MS };
        let rare = self.rare.of(key.slot);
        if rare.timers.get(Timer::Closing).is_none() {
            rare.timers.set(Timer::Closing, now.wrapping_add(patience));
        }
        rare.close_code.get_or_insert(code);
    }

    pub(super) fn close_for_violation(&mut self, key: SlotKey, violation: Violation) {
        self.host.totals.violations.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(bucket = self.index, slot = key.slot, violation = violation.label(), "protocol violation");
        self.begin_close(key, violation.close_code(), &violation.to_string());
    }

    pub(super) fn is_flushed(&self, key: SlotKey) -> bool {
        let table = self.host.buckets[self.index].table.read();
        table.find(key).is_none_or(|hot| hot.outbox.lock().as_ref().is_none_or(|p| p.is_flushed()))
    }

    pub(super) fn remove(&mut self, key: SlotKey) {
        let Some(Removed { pending: Some(mut pending), .. }) = self.take_out(key) else { return };
        let mut d = Delta::default();
        pending.clear(&mut d);
        self.host.buckets[self.index].counters.add(&d);
    }

    /// Takes a connection out of every index and count; its socket is still open.
    pub(super) fn take_out(&mut self, key: SlotKey) -> Option<Removed> {
        let bucket = &self.host.buckets[self.index];
        let mut table = bucket.table.write();
        table.find(key)?;
        let code = self.rare.get(key.slot).and_then(|rare| rare.close_code).unwrap_or(NO_CLOSE);
        tell_of_end(&self.host, &table, bucket.at(key), code);
        self.host.membership().leave_all(&mut table, bucket.at(key));
        let (removed, is_user_gone) = table.remove(key.slot)?;
        if is_user_gone && let Some(user) = &removed.cold.user {
            self.host.opener.population.users.fetch_sub(1, Ordering::Relaxed);
            self.host.opener.interest.announce(InterestKind::User, user, false);
        }
        drop(table);
        let _ = self.take_partial(key.slot);
        self.rare.remove(key.slot);
        self.quiet.forget(key.slot);
        let bucket = self.bucket();
        bucket.count_out();
        bucket.dismiss_deflate(removed.cold.deflate);
        self.host.count_out();
        self.host.access.platforms.count_out(removed.cold.platform);
        Some(removed)
    }
}

/// Events of an end, in the order in which a service can follow them.
fn tell_of_end(host: &Host, table: &Table, key: ConnectionKey, code: u16) {
    let Some(cold) = table.cold.get(key.at.slot as usize) else { return };
    if host.reporter().wants(Happened::Left("", "")) {
        for room in cold.rooms.iter().filter_map(|id| Some(&table.rooms.get(id)?.room)) {
            host.reporter().tell(table, key, Happened::Left(&room.name, "disconnected"));
        }
    }
    let duration_ms = host.clock().moment().saturating_sub(cold.opened);
    host.reporter().tell(table, key, Happened::Disconnected { code, duration_ms });
    let user = cold.user.as_ref().and_then(|user| table.users.get(user));
    if user.is_some_and(|entry| entry.slots.len() == 1) {
        host.reporter().tell(table, key, Happened::UserOffline);
    }
}
