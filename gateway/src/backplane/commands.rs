//! Commands of the business that concern connections, rooms and users: close, put into a room, take out, close a room, block.
//! What joining and leaving do is `connection::membership`; who is blocked is remembered in `session::blocklist`.
//! Only the bucket's task ends connections, so closing is a word to it; memberships are changed here, under the table's lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_protocol::close::CloseReason;
use tidegate_protocol::limits::is_valid_name;
use tidegate_protocol::records::{Block, CommandReply, CommandRequest, DeviceRule, Move, Newcomer};
use tidegate_protocol::reply;

use crate::backplane::Refused;
use crate::backplane::queries::locate;
use crate::bucket::control::ControlWriter;
use crate::bucket::pending::Queued;
use crate::bucket::table::Table;
use crate::bucket::{Bucket, Command, of_user, text_frame};
use crate::clock::unix_ms;
use crate::connection::devices::{Devices, Rival};
use crate::connection::membership::{Joined, Membership};
use crate::counters::{Delta, Totals};
use crate::key::{Instance, SlotKey};
use crate::rooms::Rooms;
use crate::session::Access;
use crate::topic::room::Room;
use crate::uplink::events::Happened;

/// Members taken out of a room under one hold of its bucket's lock: well under a millisecond with their LEFTs.
const LEAVERS_A_TURN: usize = 128;

/// What commands act on.
#[derive(Debug)]
pub(crate) struct Commands {
    pub instance: Arc<Instance>,
    pub buckets: Arc<[Bucket]>,
    pub membership: Arc<Membership>,
    pub devices: Arc<Devices>,
    pub access: Arc<Access>,
    pub rooms: Arc<Rooms>,
    pub control: ControlWriter,
    pub totals: Arc<Totals>,
}

/// One connection that a command moves, under the write lock of its bucket.
struct Who<'a> {
    bucket: &'a Bucket,
    table: &'a mut Table,
    key: SlotKey,
    d: &'a mut Delta,
}

impl Commands {
    /// Carries commands out; counts whom they met.
    pub async fn command(&self, request: &CommandRequest) -> Result<CommandReply, Refused> {
        let mut reply = CommandReply::default();
        if !request.close_connections.is_empty() || !request.close_user.is_empty() {
            reply.closed = self.close(request)?;
        }
        for step in &request.moves {
            if !is_valid_name(&step.user) || !is_valid_name(&step.room) {
                return Err(Refused::Bad("a user or room is 1 to 128 bytes without control characters".into()));
            }
            self.move_user(step, &mut reply);
        }
        for block in &request.blocks {
            self.block(block, &mut reply);
        }
        if let Some(newcomer) = &request.newcomer {
            let competed = self.devices.compete(&rival(newcomer)?);
            reply.closed += competed.closed;
            reply.stronger += competed.stronger;
        }
        if !request.close_room.is_empty() {
            reply.moved += self.close_room(&request.close_room).await;
        }
        self.totals.moved.fetch_add(reply.moved, Ordering::Relaxed);
        Ok(reply)
    }

    fn close(&self, request: &CommandRequest) -> Result<u64, Refused> {
        let code = u16::try_from(request.code).ok().filter(|c| (3000..5000).contains(c));
        let code = code.ok_or_else(|| Refused::Bad("a close code is 3000 to 4999".into()))?;
        let mut closed = 0;
        for id in &request.close_connections {
            if let Some(key) = locate(&self.instance, id)? {
                let bucket = &self.buckets[usize::from(key.bucket)];
                if bucket.table.read().find(key.at).is_some() {
                    bucket.command(Command::Close { key: key.at, code, text: request.reason.as_str().into() });
                    closed += 1;
                }
            }
        }
        if !request.close_user.is_empty() {
            closed += self.close_user(&request.close_user, code, &request.reason);
        }
        Ok(closed)
    }

    fn close_user(&self, user: &str, code: u16, text: &str) -> u64 {
        let bucket = self.bucket_of(user);
        let slots = bucket.table.read().user_slots(user).map(|(_, slots)| slots).unwrap_or_default();
        for &key in &slots {
            bucket.command(Command::Close { key, code, text: text.into() });
        }
        slots.len() as u64
    }

    fn bucket_of(&self, user: &str) -> &Bucket {
        &self.buckets[usize::from(of_user(user, self.buckets.len()))]
    }

    /// Puts all connections of a user into a room or takes them out; each is told (rule R-5).
    fn move_user(&self, step: &Move, reply: &mut CommandReply) {
        let bucket = self.bucket_of(&step.user);
        let mut d = Delta::default();
        {
            let mut table = bucket.table.write();
            let slots = table.user_slots(&step.user).map(|(_, slots)| slots).unwrap_or_default();
            for key in slots {
                let who = Who { bucket, table: &mut table, key, d: &mut d };
                if step.is_in {
                    self.put_in(who, &step.room, reply);
                } else if self.take_out(who, &step.room, &step.reason) {
                    reply.moved += 1;
                } else {
                    reply.unmoved += 1;
                }
            }
        }
        bucket.counters.add(&d);
    }

    fn put_in(&self, who: Who<'_>, room: &str, reply: &mut CommandReply) {
        let Who { bucket, table, key, d } = who;
        let mut version = 0;
        let joined = self.membership.enter(table, bucket.at(key), room, &mut version);
        match &joined {
            Joined::In { is_new: true, .. } => reply.moved += 1,
            Joined::In { is_new: false, .. } => {
                reply.unmoved += 1;
                return;
            }
            Joined::Refused { .. } => {
                reply.refused += 1;
                return;
            }
        }
        let mut json = Vec::new();
        reply::joined(&mut json, None, &[joined.part(room)]);
        let queued = self.membership.confirm(table, bucket.at(key), text_frame(&json), version, d);
        mind(bucket, key, queued);
    }

    /// False when it was not in the room.
    fn take_out(&self, who: Who<'_>, room: &str, reason: &str) -> bool {
        let Who { bucket, table, key, d } = who;
        if !self.membership.leave(table, bucket.at(key), room) {
            return false;
        }
        self.membership.reporter.tell(table, bucket.at(key), Happened::Left(room, reason));
        let mut json = Vec::new();
        reply::left_because(&mut json, room, reason);
        if let Some(hot) = table.find(key) {
            let queued = self.control.control(hot, text_frame(&json), d);
            mind(bucket, key, queued);
        }
        true
    }

    /// Remembers a block, and takes it to those who are here: out of the room, or out of the door.
    fn block(&self, block: &Block, reply: &mut CommandReply) {
        if !self.access.blocklist.apply(block) || block.is_lifted || block.until_ms <= unix_ms() {
            return;
        }
        if block.room.is_empty() {
            let reason = CloseReason::Blocked;
            reply.closed += self.close_user(&block.user, reason.code(), &reason.text(None));
        } else {
            let reason = CloseReason::Blocked.label().into();
            let step = Move { user: block.user.clone(), room: block.room.clone(), is_in: false, reason };
            self.move_user(&step, reply);
        }
    }

    /// Takes everyone out of a room, a few at a time, so that neither a lock nor a thread is held for long. Who joins meanwhile may
    /// stay; the room itself ends with its last member, as always.
    async fn close_room(&self, room: &str) -> u64 {
        let Some(found) = self.rooms.find(room) else { return 0 };
        let mut left = 0;
        for index in found.marked() {
            let bucket = &self.buckets[usize::from(index)];
            let members = members_of(bucket, &found);
            for few in members.chunks(LEAVERS_A_TURN) {
                left += self.take_out_few(bucket, few, room);
                tokio::task::yield_now().await;
            }
        }
        left
    }

    fn take_out_few(&self, bucket: &Bucket, few: &[SlotKey], room: &str) -> u64 {
        let mut d = Delta::default();
        let mut left = 0;
        {
            let mut table = bucket.table.write();
            for &key in few {
                if table.find(key).is_some() {
                    left += u64::from(self.take_out(Who { bucket, table: &mut table, key, d: &mut d }, room, "closed"));
                }
            }
        }
        bucket.counters.add(&d);
        left
    }
}

fn rival(newcomer: &Newcomer) -> Result<Rival<'_>, Refused> {
    let claim = newcomer.claim.unwrap_or_default();
    let rule = DeviceRule::try_from(claim.rule).map_err(|_| Refused::Bad("unknown rule of devices".into()))?;
    let id = <[u8; 16]>::try_from(&*newcomer.connection);
    let id = u128::from_be_bytes(id.map_err(|_| Refused::Bad("a connection id is 16 bytes".into()))?);
    let device = (!newcomer.device.is_empty()).then_some(newcomer.device.as_str());
    let (user, platform) = (&newcomer.user, &newcomer.platform);
    Ok(Rival { user, platform, device, rule, since_ms: claim.since_ms, id })
}

/// What must not be lost and did not fit ends the connection, which only its bucket's task may do.
fn mind(bucket: &Bucket, key: SlotKey, queued: Queued) {
    if queued == Queued::Close {
        bucket.command(Command::Cut(key));
    }
}

fn members_of(bucket: &Bucket, room: &Room) -> Vec<SlotKey> {
    let table = bucket.table.read();
    let members = table.rooms.get(&room.id);
    members.map_or_else(Vec::new, |m| m.slots.iter().map(|slot| table.key(slot)).collect())
}
