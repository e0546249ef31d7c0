//! A batch of pushes → the topics' windows, in order; and the waits of publishers who asked for "written".
//! The whole batch is checked before its first push is applied. A batch seen before is answered from memory.
//! While the fan-out is over its bound, the batch waits here, and with it the logic node: that is the back-pressure.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::limits::{BACKPLANE_BATCH_PUSHES, BACKPLANE_BODY_BYTES_MAX};
use tidegate_protocol::records::{
    self, Dropped, Lane, Outcome, Push, PushBatch, PushReply, Receipt, WaitReply, WaitRequest, target::To,
};

use super::{Links, Refused, encode};
use crate::bucket::table::Table;
use crate::bucket::{Bucket, of_user};
use crate::clock::{Clock, Millis};
use crate::counters::{DropReason, Population, Totals};
use crate::deliver::fanout::Fanout;
use crate::deliver::merge::ready;
use crate::deliver::merge::{Merger, Terms};
use crate::key::{ConnectionKey, Instance};
use crate::rooms::Rooms;
use crate::session::Access;
use crate::topic::batch::{Narrow, Waiter};
use crate::topic::target::{Private, Target};

/// Pushes applied before others get a turn.
const PUSHES_A_TURN: usize = 64;
/// Longest time to live that the gateway's clock can tell from the past: 24 days. A longer one is for ever.
const TTL_MS_MAX: u32 = i32::MAX as u32;
/// Connections of one user that a ready-made message names. Whoever has more is sent it as a whole. As many as a look for newcomers
/// asks for, and so few that the receipts of the largest batch fit one reply.
const NAMED_MAX: usize = 64;
const _: () = assert!(BACKPLANE_BATCH_PUSHES * NAMED_MAX * (16 + 2) < BACKPLANE_BODY_BYTES_MAX);
/// Longest wait for "written".
const WAIT_MS_MAX: u32 = 60_000;

/// What takes pushes in.
#[derive(Debug)]
pub(crate) struct Pushes {
    pub targets: Targets,
    pub links: Arc<Links>,
    pub fanout: Arc<Fanout>,
    pub totals: Arc<Totals>,
    pub clock: Clock,
}

impl Pushes {
    /// Applies a batch once; gives the encoded reply.
    pub async fn push(&self, batch: PushBatch) -> Result<Bytes, Refused> {
        if batch.epoch != self.targets.instance.epoch {
            return Err(Refused::Conflict("this gateway has another epoch: it has restarted"));
        }
        check(&batch)?;
        let last = self.links.last_of(batch.logic);
        let mut last = last.lock().await;
        if batch.sequence == last.sequence {
            return Ok(last.reply.clone());
        }
        if batch.sequence < last.sequence {
            return Err(Refused::Conflict("a later batch has been applied"));
        }
        let mut receipts = Vec::with_capacity(batch.pushes.len());
        for (i, push) in batch.pushes.iter().enumerate() {
            if i % PUSHES_A_TURN == 0 {
                // Room for what follows, and a turn for whoever shares this thread.
                self.fanout.ready().await;
                tokio::task::yield_now().await;
            }
            receipts.push(self.apply(push, self.clock.now()));
        }
        last.reply = encode(&PushReply { receipts });
        last.sequence = batch.sequence;
        Ok(last.reply.clone())
    }

    fn apply(&self, push: &Push, now: Millis) -> Receipt {
        self.totals.pushes.fetch_add(1, Ordering::Relaxed);
        let narrow = push.narrow.as_ref().and_then(|n| self.targets.compile(n));
        let mut receipt = Receipt::default();
        let topics = self.address(push, narrow.as_deref(), &mut receipt);
        if topics.is_empty() {
            self.totals.pushes_unmatched.fetch_add(1, Ordering::Relaxed);
            return Receipt::default();
        }
        receipt.queued = receipt.matched;
        let waiter = push.wait_written.then(|| Arc::new(Waiter::new(topics.len())));
        let lane = Lane::try_from(push.lane).unwrap_or(Lane::Normal);
        let expires_at =
            if push.ttl_ms == 0 || push.ttl_ms > TTL_MS_MAX { 0 } else { now.wrapping_add(push.ttl_ms).max(1) };
        let terms = Terms { lane, expires_at, narrow: narrow.as_ref(), waiter: waiter.as_ref() };
        if push.control.is_empty() {
            topics.iter().for_each(|topic| self.targets.merger.push(topic, &push.messages, &terms, now));
        } else {
            let frame = ready::frame(&push.control);
            topics.iter().for_each(|topic| self.targets.merger.send_ready(topic, &frame, &terms));
        }
        receipt.ticket = waiter.map_or(0, |w| self.links.issue(w));
        receipt
    }

    /// The topics of a push's targets that mean somebody here. Who is meant is counted, and named where a ready-made message is for a
    /// user: then its connections are addressed one by one, so that those named are those who get it, whoever comes or goes.
    fn address(&self, push: &Push, narrow: Option<&Narrow>, receipt: &mut Receipt) -> SmallVec<[Target; 4]> {
        let mut topics = SmallVec::new();
        let is_ready_made = !push.control.is_empty();
        for to in push.targets.iter().filter_map(|target| target.to.as_ref()) {
            if is_ready_made && let Some(keys) = self.targets.few(to, narrow) {
                receipt.matched += keys.len() as u64;
                receipt.connections.extend(
                    keys.iter().map(|&key| Bytes::copy_from_slice(&self.targets.instance.id_of(key).to_bytes())),
                );
                topics.extend(keys.into_iter().map(|key| Target::private(Private::Connection(key))));
            } else if let Some((place, n)) = self.targets.resolve(to, narrow).filter(|(_, n)| *n > 0) {
                receipt.matched += n;
                topics.push(match place {
                    Place::Kept(target) => target,
                    Place::Private(key) if is_ready_made => Target::private(key),
                    Place::Private(key) => self.targets.merger.private(key),
                });
            }
        }
        topics
    }

    /// Waits until the pushes behind the tickets have been walked, or time is up.
    pub async fn wait(&self, request: WaitRequest) -> WaitReply {
        let deadline =
            tokio::time::Instant::now() + Duration::from_millis(u64::from(request.timeout_ms.min(WAIT_MS_MAX)));
        let mut outcomes = Vec::with_capacity(request.tickets.len());
        for ticket in request.tickets {
            let Some(waiter) = self.links.redeem(ticket) else { continue };
            let _ = tokio::time::timeout_at(deadline, walked(&waiter)).await;
            let dropped = DropReason::ALL.into_iter().zip(&waiter.fates.dropped);
            let dropped =
                dropped.map(|(reason, n)| Dropped { reason: reason.label().into(), count: n.load(Ordering::Relaxed) });
            outcomes.push(Outcome {
                ticket,
                is_done: waiter.is_done(),
                written: waiter.fates.written.load(Ordering::Relaxed),
                pending: waiter.fates.pending.load(Ordering::Relaxed),
                dropped: dropped.filter(|dropped| dropped.count > 0).collect(),
            });
        }
        WaitReply { outcomes }
    }
}

/// Where the targets of pushes are found.
#[derive(Debug)]
pub(crate) struct Targets {
    pub instance: Arc<Instance>,
    pub buckets: Arc<[Bucket]>,
    pub rooms: Arc<Rooms>,
    pub access: Arc<Access>,
    pub population: Arc<Population>,
    pub merger: Arc<Merger>,
}

impl Targets {
    /// The connections of a user that are meant; none when the target is no user, or one with too many to name.
    fn few(&self, to: &To, narrow: Option<&Narrow>) -> Option<SmallVec<[ConnectionKey; 4]>> {
        let To::User(name) = to else { return None };
        let bucket = &self.buckets[usize::from(of_user(name, self.buckets.len()))];
        let table = bucket.table.read();
        let entry = table.users.get(name.as_str()).filter(|entry| entry.slots.len() <= NAMED_MAX)?;
        let slots = entry.slots.iter().copied();
        Some(meant(&table, bucket.index, slots, narrow).map(|slot| bucket.at(table.key(slot))).collect())
    }

    /// The topic of a target and how many connections it means; none when nobody here can be meant.
    fn resolve(&self, to: &To, narrow: Option<&Narrow>) -> Option<(Place, u64)> {
        match to {
            To::All(_) => {
                let n = match narrow {
                    None => self.population.connections() as u64,
                    Some(narrow) => self.buckets.iter().map(|b| count_all(b, narrow)).sum(),
                };
                Some((Place::Kept(self.merger.all.clone()), n))
            }
            To::Room(name) => {
                let room = self.rooms.find(name)?;
                let n = match narrow {
                    None => room.members.load(Ordering::Relaxed),
                    Some(narrow) => {
                        room.marked().map(|b| count_members(&self.buckets[usize::from(b)], room.id, narrow)).sum()
                    }
                };
                Some((Place::Kept(room.into()), n))
            }
            To::User(name) => {
                let bucket = &self.buckets[usize::from(of_user(name, self.buckets.len()))];
                let table = bucket.table.read();
                let (key, entry) = table.users.get_key_value(name.as_str())?;
                let n = match narrow {
                    None => entry.slots.len() as u64,
                    Some(narrow) => count(&table, bucket.index, entry.slots.iter().copied(), narrow),
                };
                let key = Arc::clone(key);
                drop(table);
                Some((Place::Private(Private::User(key)), n))
            }
            To::Connection(id) => {
                let id = <[u8; 16]>::try_from(id.as_ref()).ok()?;
                let key = self.instance.key_of(ConnectionId::from_u128(u128::from_be_bytes(id)))?;
                let bucket = &self.buckets[usize::from(key.bucket)];
                let table = bucket.table.read();
                table.find(key.at)?;
                let n = narrow.map_or(1, |narrow| count(&table, key.bucket, std::iter::once(key.at.slot), narrow));
                drop(table);
                Some((Place::Private(Private::Connection(key)), n))
            }
        }
    }

    /// Names → numbers of this gateway; none when nothing narrows.
    fn compile(&self, n: &records::Narrow) -> Option<Arc<Narrow>> {
        let is_by_name = !n.except_connections.is_empty() || !n.except_users.is_empty();
        if n.platforms.is_empty() && n.attributes.is_empty() && !is_by_name {
            return None;
        }
        let mut except_connections: Vec<ConnectionKey> = n
            .except_connections
            .iter()
            .filter_map(|id| <[u8; 16]>::try_from(id.as_ref()).ok())
            .filter_map(|id| self.instance.key_of(ConnectionId::from_u128(u128::from_be_bytes(id))))
            .collect();
        except_connections.sort_unstable();
        let mut except_users = n.except_users.clone();
        except_users.sort_unstable();
        Some(Arc::new(Narrow {
            platforms: n.platforms.iter().filter_map(|p| self.access.platforms.find(p)).collect(),
            is_by_platform: !n.platforms.is_empty(),
            except_connections,
            except_users,
            attributes: n.attributes.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect(),
        }))
    }
}

/// Where a target's topic is.
enum Place {
    /// It lives as long as its room, or the gateway.
    Kept(Target),
    /// It is made when there is something to send.
    Private(Private),
}

fn check(batch: &PushBatch) -> Result<(), Refused> {
    for (i, push) in batch.pushes.iter().enumerate() {
        let bad = |what: &str| Err(Refused::Bad(format!("push {i}: {what}")));
        if push.messages.is_empty() == push.control.is_empty() {
            return bad("messages or a ready-made one are needed, and not both");
        }
        if Lane::try_from(push.lane).is_err() {
            return bad("unknown lane");
        }
        for target in &push.targets {
            match &target.to {
                None => return bad("a target without a kind"),
                Some(To::Connection(id)) if id.len() != 16 => return bad("a connection id is 16 bytes"),
                Some(_) => {}
            }
        }
    }
    Ok(())
}

fn count(table: &Table, index: u16, slots: impl Iterator<Item = u32>, narrow: &Narrow) -> u64 {
    meant(table, index, slots, Some(narrow)).count() as u64
}

/// Of some slots, those with a connection that is meant.
fn meant(
    table: &Table,
    index: u16,
    slots: impl Iterator<Item = u32>,
    narrow: Option<&Narrow>,
) -> impl Iterator<Item = u32> {
    slots.filter(move |&slot| {
        let (hot, cold) = (&table.hot[slot as usize], &table.cold[slot as usize]);
        let key = ConnectionKey { bucket: index, at: table.key(slot) };
        hot.fd.is_some() && narrow.is_none_or(|narrow| cold.is_meant(key, narrow))
    })
}

fn count_all(bucket: &Bucket, narrow: &Narrow) -> u64 {
    let table = bucket.table.read();
    #[expect(clippy::cast_possible_truncation, reason = "slots fit 32 bits")]
    count(&table, bucket.index, 0..table.hot.len() as u32, narrow)
}

fn count_members(bucket: &Bucket, room_id: u32, narrow: &Narrow) -> u64 {
    let table = bucket.table.read();
    table.rooms.get(&room_id).map_or(0, |m| count(&table, bucket.index, m.slots.iter(), narrow))
}

async fn walked(waiter: &Waiter) {
    loop {
        let done = waiter.done.notified();
        tokio::pin!(done);
        done.as_mut().enable();
        if waiter.is_done() {
            return;
        }
        done.await;
    }
}
