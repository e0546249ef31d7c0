//! How a checked client becomes a connection: its entry in the bucket, the 101 and HELLO in one write.
//! Invariant: a connection is watched only after it is in the table and its greeting is written or waits.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tidegate_protocol::close::CloseReason;
use tidegate_protocol::handshake::{Deflate, Refusal};
use tidegate_protocol::records::InterestKind;
use tidegate_protocol::reply::{self, Hello, Reconnect};
use tidegate_protocol::ws;

use super::devices::Way;
use crate::bucket::table::{Hot, Table};
use crate::bucket::{Bucket, Command, of_user};
use crate::clock::unix_ms;
use crate::counters::Delta;
use crate::gateway::node::Node;
use crate::key::{ConnectionKey, SlotKey};
use crate::session::Identity;
use crate::uplink::events::Happened;

/// Anonymous connections that follow each other into one bucket. What the kernel made one after the other lies side by
/// side, and a walk that visits neighbours finds their pages in the TLB; with one connection for each bucket in turn it
/// strides over all of them. Few enough that a hundred connections still have several buckets.
const NEIGHBOURS: usize = 32;

impl Node {
    /// Makes a checked client a connection: enters it in its bucket and answers with `response`, to which it adds HELLO, and
    /// JOINED of the rooms it is in from the start, in one write. The buffer is the acceptor's, so that a handshake allocates
    /// only what stays.
    ///
    /// # Errors
    /// Gives the socket back, and why its user may not come in: blocked, or no room beside its other devices.
    pub(crate) fn open(
        &self,
        fd: OwnedFd,
        mut identity: Identity,
        deflate: Option<Deflate>,
        response: &mut Vec<u8>,
        early: &[u8],
    ) -> Result<(), (OwnedFd, Refusal)> {
        let index = match &identity.user {
            Some(user) => of_user(user, self.buckets.len()),
            #[expect(clippy::cast_possible_truncation, reason = "the remainder is below the number of buckets")]
            None => (self.opened.fetch_add(1, Ordering::Relaxed) / NEIGHBOURS % self.buckets.len()) as u16,
        };
        let bucket = &self.buckets[usize::from(index)];
        let mut table = bucket.table.write();
        let Way { older, rule } = match self.devices.make_way(&table, &identity) {
            Ok(way) => way,
            Err(refusal) => return Err((fd, refusal)),
        };
        let (user, join) = (identity.user.clone(), std::mem::take(&mut identity.join));
        let (at, mut version) = self.enter(bucket, &mut table, fd, identity, deflate);
        let key = bucket.at(at);
        self.tell_of_start(&table, key);
        self.devices.replace(bucket, &mut table, at, &older);
        if let Some(rule) = rule {
            self.devices.claim(&table, key, rule);
        }
        let expires_s =
            table.cold[at.slot as usize].claims.as_ref().map(|claims| claims.expires_s).filter(|at| *at != 0);
        self.greet(key, user.as_deref(), expires_s, response);
        if !join.is_empty() {
            response.extend_from_slice(&self.join_first(&mut table, key, &join, &mut version));
        }
        let mut d = Delta::default();
        if let Some(hot) = table.find(at)
            && let Some(fd) = &hot.fd
        {
            self.send_greeting(hot, key, version, response, &mut d);
            if !early.is_empty() {
                // Before the socket is watched, so that the task finds these bytes before any that follow.
                bucket.command(Command::Early { key: at, bytes: early.to_vec() });
            }
            if bucket.watch(fd, at).is_err() {
                // Not watched, it would never be heard.
                self.totals.accept_errors.fetch_add(1, Ordering::Relaxed);
                bucket.close(at, CloseReason::Overload, Some(1_000));
            }
        }
        drop(table);
        bucket.counters.add(&d);
        self.totals.opened.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Enters a connection; gives where it is, and the version that logic must know before it is greeted.
    fn enter(
        &self,
        bucket: &Bucket,
        table: &mut Table,
        fd: OwnedFd,
        identity: Identity,
        deflate: Option<Deflate>,
    ) -> (SlotKey, u64) {
        let key = table.insert(fd, identity.platform.id, self.clock.moment());
        self.population.connections.fetch_add(1, Ordering::Relaxed);
        self.access.platforms.count_in(identity.platform.id);
        bucket.count_in();
        if let Some(deflate) = deflate {
            bucket.admit_deflate(table, key.slot, deflate);
        }
        table.cold[key.slot as usize].claims = identity.claims;
        table.cold[key.slot as usize].address = identity.address;
        table.note_expiry(key.slot, bucket.live());
        let version = identity.user.map_or(0, |user| {
            table.enter_user(key.slot, user, |name| {
                self.population.users.fetch_add(1, Ordering::Relaxed);
                self.interest.announce(InterestKind::User, name, true)
            })
        });
        (key, version)
    }

    /// Events of a start, for services that want them.
    fn tell_of_start(&self, table: &Table, key: ConnectionKey) {
        self.reporter.tell(table, key, Happened::Connected);
        let user = table.cold[key.at.slot as usize].user.as_ref().and_then(|user| table.users.get(user));
        if user.is_some_and(|entry| entry.slots.len() == 1) {
            self.reporter.tell(table, key, Happened::UserOnline);
        }
    }

    /// Puts a newcomer into the rooms that its token names, whatever else that grants; gives JOINED, framed.
    fn join_first(&self, table: &mut Table, key: ConnectionKey, rooms: &[Box<str>], version: &mut u64) -> Bytes {
        let mut outcomes = Vec::with_capacity(rooms.len());
        for room in rooms {
            outcomes.push((&**room, self.membership.enter(table, key, room, version)));
        }
        let mut json = Vec::new();
        reply::joined(&mut json, None, &outcomes.iter().map(|(room, o)| o.part(room)).collect::<Vec<_>>());
        ws::frame(ws::OpCode::Text, &json)
    }

    /// Sends the greeting, or keeps it until logic knows of the user and its rooms.
    fn send_greeting(&self, hot: &Hot, key: ConnectionKey, version: u64, greeting: &[u8], d: &mut Delta) {
        if self.interest.hold(version, key, self.clock.now()) {
            let _ = self.control.hold(hot, Bytes::copy_from_slice(greeting), version, d);
        } else {
            self.control.greet(hot, greeting, d);
        }
    }

    /// Appends HELLO, framed; nothing under a conformance suite, which expects nothing it did not send.
    fn greet(&self, key: ConnectionKey, user: Option<&str>, expires_s: Option<u32>, out: &mut Vec<u8>) {
        if self.config.echo {
            return;
        }
        let reconnect = &self.config.reconnect;
        let hello = Hello {
            connection: &self.instance.id_of(key).to_string(),
            user,
            server: concat!("tidegate/", env!("CARGO_PKG_VERSION")),
            ping_ms: self.config.heartbeat.idle_ms,
            merge_ms: self.config.merge.max_ms,
            message_bytes: self.settings.message_bytes(),
            rooms: self.settings.rooms(),
            reconnect: Reconnect {
                base_ms: reconnect.base_ms,
                max_ms: reconnect.max_ms,
                jitter_percent: reconnect.jitter_percent,
            },
            time_ms: unix_ms(),
            expires_ms: expires_s.map(|at| u64::from(at) * 1_000),
        };
        let mut json = Vec::with_capacity(384);
        reply::hello(&mut json, &hello);
        out.extend_from_slice(&ws::head(ws::OpCode::Text, json.len()));
        out.extend_from_slice(&json);
    }
}
