//! Questions about what this gateway holds.
//! Lists are paged by a cursor that stays right while connections come and go: (bucket, slot) for connections, the last
//! name for rooms. A page looks at a bounded number of slots.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::limits::QUERY_PAGE_MAX;
use tidegate_protocol::records::{ConnectionInfo, Pair, QueryKind, QueryReply, QueryRequest, RoomInfo};

use crate::backplane::Refused;
use crate::bucket::table::Table;
use crate::bucket::{Bucket, of_user};
use crate::clock::{Clock, age_of, unix_ms};
use crate::key::{ConnectionKey, Instance};
use crate::rooms::Rooms;
use crate::session::{Access, address};
use crate::topic::room::Room;

/// What the questions look at.
#[derive(Debug)]
pub(crate) struct Queries {
    pub instance: Arc<Instance>,
    pub buckets: Arc<[Bucket]>,
    pub rooms: Arc<Rooms>,
    pub access: Arc<Access>,
    pub clock: Clock,
}

impl Queries {
    /// Answers a query.
    pub fn answer(&self, request: &QueryRequest) -> Result<QueryReply, Refused> {
        let kind = QueryKind::try_from(request.kind).map_err(|_| Refused::Bad("unknown kind of query".into()))?;
        Ok(match kind {
            QueryKind::Connection => {
                let found = locate(&self.instance, &request.connection)?.and_then(|key| {
                    let bucket = &self.buckets[usize::from(key.bucket)];
                    let table = bucket.table.read();
                    table.find(key.at)?;
                    self.describe(bucket, &table, key.at.slot)
                });
                QueryReply { connections: found.into_iter().collect(), ..QueryReply::default() }
            }
            QueryKind::Connections => self.connections(request)?,
            QueryKind::Rooms => {
                let limit = page(request.limit);
                let found = self.rooms.list(&request.prefix, &request.cursor, limit);
                let rooms: Vec<RoomInfo> = found.iter().map(|room| room_info(room)).collect();
                let cursor = if rooms.len() == limit {
                    rooms.last().map_or_else(String::new, |r| r.name.clone())
                } else {
                    String::new()
                };
                QueryReply { rooms, cursor, ..QueryReply::default() }
            }
            QueryKind::Room => {
                let names = std::iter::once(&request.room).chain(&request.names).take(QUERY_PAGE_MAX + 1);
                let rooms = names.filter_map(|name| self.rooms.find(name).map(|room| room_info(&room))).collect();
                QueryReply { rooms, ..QueryReply::default() }
            }
            QueryKind::Blocks => {
                let after = if request.cursor.is_empty() { Some(0) } else { request.cursor.parse().ok() };
                let after = after.ok_or_else(|| Refused::Bad("a version of blocks is a number".into()))?;
                let (blocks, reached) = self.access.blocklist.since(after, page(request.limit));
                QueryReply { blocks, cursor: reached.to_string(), ..QueryReply::default() }
            }
        })
    }

    fn connections(&self, request: &QueryRequest) -> Result<QueryReply, Refused> {
        let limit = page(request.limit);
        let (first, from) = cursor(&request.cursor)?;
        let room = if request.room.is_empty() { None } else { self.rooms.find(&request.room) };
        if !request.room.is_empty() && room.is_none() {
            return Ok(QueryReply::default());
        }
        let room_id = room.as_ref().map(|room| room.id);
        let platform = match request.platform.as_str() {
            "" => None,
            name => match self.access.platforms.find(name) {
                Some(platform) => Some(platform),
                None => return Ok(QueryReply::default()),
            },
        };
        let only = (!request.user.is_empty()).then(|| usize::from(of_user(&request.user, self.buckets.len())));
        let mut reply = QueryReply::default();
        for (index, bucket) in self.buckets.iter().enumerate().skip(first) {
            if only.is_some_and(|only| only != index) {
                continue;
            }
            let from = if index == first { from } else { 0 };
            let table = bucket.table.read();
            for slot in candidates(&table, request, room_id, from) {
                let cold = &table.cold[slot as usize];
                if platform.as_ref().is_some_and(|p| p.id != cold.platform)
                    || room_id.is_some_and(|id| !cold.rooms.contains(&id))
                    || (!request.user.is_empty() && cold.user.as_deref() != Some(request.user.as_str()))
                {
                    continue;
                }
                if reply.connections.len() == limit {
                    reply.cursor = format!("{index}:{slot}");
                    return Ok(reply);
                }
                reply.connections.extend(self.describe(bucket, &table, slot));
            }
        }
        Ok(reply)
    }

    fn describe(&self, bucket: &Bucket, table: &Table, slot: u32) -> Option<ConnectionInfo> {
        let (hot, cold) = (table.hot.get(slot as usize)?, table.cold.get(slot as usize)?);
        let fd = hot.fd.as_ref()?;
        let now = self.clock.now();
        let id = self.instance.id_of(bucket.at(table.key(slot)));
        let claims = cold.claims.as_deref();
        let address = cold.address.as_deref().copied().or_else(|| address::peer_of(fd));
        let pair = |(name, value): (&str, &str)| Pair { name: name.into(), value: value.into() };
        let seen = age_of(&hot.seen, now).min(age_of(&hot.wrote, now));
        let age_ms = self.clock.moment().saturating_sub(cold.opened);
        Some(ConnectionInfo {
            id: Bytes::copy_from_slice(&id.to_u128().to_be_bytes()),
            user: cold.user.as_deref().unwrap_or_default().to_owned(),
            platform: self.access.platforms.name(cold.platform),
            rooms: cold
                .rooms
                .iter()
                .filter_map(|id| table.rooms.get(id).map(|members| members.room.name.to_string()))
                .collect(),
            address: address.map_or_else(String::new, address::shown),
            age_ms,
            since_ms: unix_ms().saturating_sub(age_ms),
            idle_ms: u64::from(seen),
            pending_bytes: hot.outbox.lock().as_ref().map_or(0, |p| p.bytes()) as u64,
            device: claims.and_then(|b| b.device.as_deref()).unwrap_or_default().to_owned(),
            attributes: claims.map_or_else(Vec::new, |b| b.attributes.iter().map(pair).collect()),
        })
    }
}

fn page(limit: u32) -> usize {
    (limit as usize).clamp(1, QUERY_PAGE_MAX)
}

/// Where the connection of an id is; none when it is not of this run of the gateway.
pub(super) fn locate(instance: &Instance, id: &[u8]) -> Result<Option<ConnectionKey>, Refused> {
    let id = <[u8; 16]>::try_from(id).map_err(|_| Refused::Bad("a connection id is 16 bytes".into()))?;
    Ok(instance.key_of(ConnectionId::from_u128(u128::from_be_bytes(id))))
}

/// The slots worth looking at, in order, from `from` on: the shortest index that answers.
#[expect(clippy::cast_possible_truncation, reason = "slots fit 32 bits")]
fn candidates(table: &Table, request: &QueryRequest, room_id: Option<u32>, from: u32) -> Vec<u32> {
    if !request.user.is_empty() {
        let entry = table.users.get(request.user.as_str());
        return entry.map_or_else(Vec::new, |e| e.slots.iter().copied().filter(|&s| s >= from).collect());
    }
    if let Some(id) = room_id {
        let members = table.rooms.get(&id);
        return members.map_or_else(Vec::new, |m| m.slots.iter().filter(|&s| s >= from).collect());
    }
    (from..table.hot.len() as u32).collect()
}

fn cursor(text: &str) -> Result<(usize, u32), Refused> {
    if text.is_empty() {
        return Ok((0, 0));
    }
    text.split_once(':')
        .and_then(|(bucket, slot)| Some((bucket.parse().ok()?, slot.parse().ok()?)))
        .ok_or_else(|| Refused::Bad("a cursor comes from the reply before".into()))
}

fn room_info(room: &Room) -> RoomInfo {
    RoomInfo {
        name: room.name.to_string(),
        online: room.members.load(Ordering::Relaxed),
        users: room.users.load(Ordering::Relaxed),
        seq: room.gather().seq,
        epoch: room.epoch.to_string(),
        told: crate::rooms::presence::told(room),
    }
}
