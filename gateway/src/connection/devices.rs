//! One user, many devices: whether a user may come in at all, and which of its connections of one platform may stay when
//! another one comes.
//! One bucket's table has all of a user's connections at this gateway, so that is decided at once; a newcomer that has been let in
//! then claims its place at the other gateways, through logic (docs/adr/0027).
//! Invariant: two connections that compete are compared by `rank` alone, which never changes, so all gateways agree on who loses.

use std::cmp;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_protocol::close::{self, CloseReason};
use tidegate_protocol::handshake::Refusal;
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::records::{Claim, DeviceRule, item::What};

use crate::bucket::table::Table;
use crate::bucket::{Bucket, Command, of_user};
use crate::clock::Clock;
use crate::config::DevicePolicy;
use crate::config::settings::Settings;
use crate::connection::report::Reporter;
use crate::key::{ConnectionKey, Instance, SlotKey};
use crate::session::{Access, Identity, Named, Platform};
use crate::uplink::{Addressee, Said, Uplink, Whose};

/// How a newcomer comes in.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// Connections here that have to go.
    pub older: Vec<SlotKey>,
    /// What it claims at other gateways, if anything.
    pub rule: Option<DeviceRule>,
}

/// A newcomer at another gateway that claims its place.
#[derive(Debug)]
pub(crate) struct Rival<'a> {
    pub user: &'a str,
    pub platform: &'a str,
    /// Its device, if it has a name.
    pub device: Option<&'a str>,
    pub rule: DeviceRule,
    /// When it was opened.
    pub since_ms: u64,
    /// The number of its connection id.
    pub id: u128,
}

/// What came of a rival's claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Competed {
    /// Connections here that lose and are closed.
    pub closed: u64,
    /// Those that win.
    pub stronger: u64,
}

/// Who may stay of a user's connections.
#[derive(Debug)]
pub(crate) struct Devices {
    pub buckets: Arc<[Bucket]>,
    pub instance: Arc<Instance>,
    pub access: Arc<Access>,
    pub settings: Arc<Settings>,
    pub uplink: Arc<Uplink>,
    pub reporter: Arc<Reporter>,
    pub clock: Clock,
}

impl Devices {
    /// Whether a newcomer may come in beside its user's other connections, and which of them must go.
    pub(super) fn make_way(&self, table: &Table, newcomer: &Identity) -> Result<Way, Refusal> {
        let Some(user) = &newcomer.user else { return Ok(Way::default()) };
        // Under the table's lock: a block that comes later finds the connection and closes it.
        if self.access.blocklist.is_blocked(user) {
            return Err(Refusal::Blocked);
        }
        let (policy, max) = self.policy(&newcomer.platform);
        let rule = match policy {
            DevicePolicy::KeepAll => None,
            DevicePolicy::KeepNewest => Some(DeviceRule::KeepNewest),
            DevicePolicy::RefuseNewer => Some(DeviceRule::RefuseNewer),
        };
        let all = of_platform(table, user, newcomer.platform.id);
        if all.len() >= max {
            return Err(Refusal::DeviceLimit);
        }
        let device = newcomer.claims.as_ref().and_then(|b| b.device.as_deref());
        let rivals = all.into_iter().filter(|key| compete(device, device_of(table, key.slot)));
        match rule {
            None => Ok(Way::default()),
            Some(DeviceRule::KeepNewest) => Ok(Way { older: rivals.collect(), rule }),
            Some(DeviceRule::RefuseNewer) if rivals.count() > 0 => Err(Refusal::DevicePresent),
            Some(DeviceRule::RefuseNewer) => Ok(Way { older: Vec::new(), rule }),
        }
    }

    fn policy(&self, platform: &Named) -> (DevicePolicy, usize) {
        let devices = self.settings.devices();
        (devices.of(platform.name()), devices.max)
    }

    /// Asks the bucket's task to close those that must go. The newcomer ranks behind them, also when they came within the
    /// same millisecond.
    pub(super) fn replace(&self, bucket: &Bucket, table: &mut Table, newcomer: SlotKey, older: &[SlotKey]) {
        for &key in older {
            let theirs = table.cold[key.slot as usize].opened;
            let mine = &mut table.cold[newcomer.slot as usize].opened;
            *mine = (*mine).max(theirs + 1);
            bucket.close(key, CloseReason::Replaced, None);
        }
    }

    /// Has logic tell the other gateways of a newcomer's claim. Where that finds no room, or no logic node that knows how, the
    /// rule holds at this gateway only.
    pub(super) fn claim(&self, table: &Table, key: ConnectionKey, rule: DeviceRule) {
        if !self.uplink.wants.judges() {
            return;
        }
        let Some(from) = self.reporter.describe(table, key, false) else { return };
        let opened = table.cold[key.at.slot as usize].opened;
        let what = What::Device(Claim { rule: rule.into(), since_ms: self.clock.unix_ms_of(opened) });
        let (user, whose) = (from.user.clone(), Whose::Newcomer { key });
        let said = Said { whom: Addressee::Name(user.as_bytes()), from, what, whose };
        if self.uplink.say_beside(said, self.clock.now()).is_err() {
            self.uplink.unclaimed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A newcomer at another gateway claims its place: who loses against it here is closed, who wins is counted.
    pub(crate) fn compete(&self, rival: &Rival<'_>) -> Competed {
        let mut competed = Competed::default();
        // A platform that nobody here has.
        let Some(platform) = self.access.platforms.find(rival.platform) else { return competed };
        let bucket = &self.buckets[usize::from(of_user(rival.user, self.buckets.len()))];
        let mut losers = Vec::new();
        {
            let table = bucket.table.read();
            for key in of_platform(&table, rival.user, platform.id) {
                if !compete(rival.device, device_of(&table, key.slot)) {
                    continue;
                }
                let here = self.instance.id_of(bucket.at(key));
                match self.rank(&table, key.slot, here).cmp(&(rival.since_ms, rival.id)) {
                    cmp::Ordering::Equal => {}
                    order if (rival.rule == DeviceRule::KeepNewest) == order.is_lt() => losers.push(key),
                    _ => competed.stronger += 1,
                }
            }
        }
        let text = last_word(rival.rule);
        for &key in &losers {
            let code = CloseReason::Replaced.code();
            bucket.command(Command::Close { key, code, text: text.as_str().into() });
        }
        competed.closed = losers.len() as u64;
        competed
    }

    /// A newcomer of ours has lost against a connection at another gateway, by the rule whose refusal has this code.
    pub(crate) fn yield_place(&self, key: ConnectionKey, code: &str) {
        let rules = [DeviceRule::KeepNewest, DeviceRule::RefuseNewer];
        let Some(rule) = rules.into_iter().find(|rule| rule.word() == code) else { return };
        if let Some(bucket) = self.buckets.get(usize::from(key.bucket)) {
            let (code, text) = (CloseReason::Replaced.code(), last_word(rule));
            bucket.command(Command::Close { key: key.at, code, text: text.into() });
        }
    }

    /// What orders connections by age, over all gateways: when it was opened, and its id.
    fn rank(&self, table: &Table, slot: u32, id: ConnectionId) -> (u64, u128) {
        (self.clock.unix_ms_of(table.cold[slot as usize].opened), id.to_u128())
    }
}

/// A user's connections of one platform.
fn of_platform(table: &Table, user: &str, platform: Platform) -> Vec<SlotKey> {
    let slots = table.user_slots(user).map(|(_, slots)| slots).unwrap_or_default();
    slots.into_iter().filter(|key| table.cold[key.slot as usize].platform == platform).collect()
}

fn device_of(table: &Table, slot: u32) -> Option<&str> {
    table.cold[slot as usize].claims.as_ref().and_then(|b| b.device.as_deref())
}

/// Whether two connections of one user and platform are for one place.
fn compete(one: Option<&str>, other: Option<&str>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// Text of the close frame of whoever loses.
fn last_word(rule: DeviceRule) -> String {
    close::text_of(rule.word())
}
