//! How a checked client becomes a connection: its entry in the bucket, the 101 and HELLO in one write.
//! Invariant: a connection is watched only after it is in the table and its greeting is written or waits.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tidegate_protocol::close::CloseReason;
use tidegate_protocol::handshake::{Deflate, Refusal};
use tidegate_protocol::records::InterestKind;
use tidegate_protocol::reply;
use tidegate_protocol::ws;

use super::devices::{Devices, Way};
use super::greeting::Greeting;
use super::membership::Membership;
use crate::bucket::table::{Hot, Table};
use crate::bucket::{Bucket, Command, of_user};
use crate::counters::{Delta, Population, Totals};
use crate::key::{ConnectionKey, SlotKey};
use crate::rooms::interest::Interest;
use crate::session::{Access, Identity};
use crate::uplink::events::Happened;

/// Anonymous connections that follow each other into one bucket. What the kernel made one after the other lies side by
/// side, and a walk that visits neighbours finds their pages in the TLB; with one connection for each bucket in turn it
/// strides over all of them. Few enough that a hundred connections still have several buckets.
const NEIGHBOURS: usize = 32;

/// A checked client that is to become a connection.
#[derive(Debug)]
pub(crate) struct Entrant<'a> {
    /// Its socket.
    pub fd: OwnedFd,
    /// Who it is.
    pub identity: Identity,
    /// What it has negotiated.
    pub deflate: Option<Deflate>,
    /// What it has sent beyond its request.
    pub early: &'a [u8],
}

/// Opens connections.
#[derive(Debug)]
pub(crate) struct Opener {
    pub buckets: Arc<[Bucket]>,
    pub population: Arc<Population>,
    pub access: Arc<Access>,
    pub interest: Arc<Interest>,
    pub membership: Arc<Membership>,
    pub devices: Arc<Devices>,
    pub greeting: Greeting,
    pub totals: Arc<Totals>,
    /// Anonymous connections so far: whose turn it is among the buckets.
    pub turn: AtomicUsize,
}

impl Opener {
    /// Makes a checked client a connection: enters it in its bucket and answers with `response`, to which it adds HELLO, and
    /// JOINED of the rooms it is in from the start, in one write. The buffer is the acceptor's, so that a handshake allocates
    /// only what stays.
    ///
    /// # Errors
    /// Gives the socket back, and why its user may not come in: blocked, or no room beside its other devices.
    pub fn open(&self, entrant: Entrant<'_>, response: &mut Vec<u8>) -> Result<(), (OwnedFd, Refusal)> {
        let Entrant { fd, mut identity, deflate, early } = entrant;
        let index = match &identity.user {
            Some(user) => of_user(user, self.buckets.len()),
            #[expect(clippy::cast_possible_truncation, reason = "the remainder is below the number of buckets")]
            None => (self.turn.fetch_add(1, Ordering::Relaxed) / NEIGHBOURS % self.buckets.len()) as u16,
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
        self.greeting.hello(key, user.as_deref(), expires_s, response);
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
        let key = table.insert(fd, identity.platform.id, self.membership.control.clock.moment());
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
        self.membership.reporter.tell(table, key, Happened::Connected);
        let user = table.cold[key.at.slot as usize].user.as_ref().and_then(|user| table.users.get(user));
        if user.is_some_and(|entry| entry.slots.len() == 1) {
            self.membership.reporter.tell(table, key, Happened::UserOnline);
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
        let control = self.membership.control;
        if self.interest.hold(version, key, control.clock.now()) {
            let _ = control.hold(hot, Bytes::copy_from_slice(greeting), version, d);
        } else {
            control.greet(hot, greeting, d);
        }
    }
}
