//! One user, many devices: whether a user may come in at all, and which of its connections of one platform may stay when
//! another one comes.
//! Decides over one bucket's table, which has all of a user's connections at this gateway; other gateways are not asked.

use tidegate_protocol::close::CloseReason;
use tidegate_protocol::handshake::Refusal;

use crate::bucket::Bucket;
use crate::bucket::table::Table;
use crate::config::DevicePolicy;
use crate::identity::{Identity, Platform};
use crate::node::Node;

/// Connections that have to make way, as (slot, generation).
pub(super) type Older = Vec<(u32, u32)>;

impl Node {
    /// Whether a newcomer may come in beside its user's other connections, and which of them must go.
    pub(super) fn make_way(&self, table: &Table, newcomer: &Identity) -> Result<Older, Refusal> {
        let Some(user) = &newcomer.user else { return Ok(Older::new()) };
        // Under the table's lock: a block that comes later finds the connection and closes it.
        if self.blocks.is_barred(user) {
            return Err(Refusal::Blocked);
        }
        let Some((_, slots)) = table.user_slots(user) else { return Ok(Older::new()) };
        let device = newcomer.badge.as_ref().and_then(|b| b.device.as_deref());
        let of_platform: Vec<(u32, u32)> =
            slots.into_iter().filter(|(slot, _)| table.cold[*slot as usize].platform == newcomer.platform).collect();
        let same = |slot: u32| {
            let other = table.cold[slot as usize].badge.as_ref().and_then(|b| b.device.as_deref());
            device.is_none() || other.is_none() || device == other
        };
        let (policy, max) = self.policy(newcomer.platform);
        if of_platform.len() >= max {
            return Err(Refusal::DeviceLimit);
        }
        match policy {
            DevicePolicy::KeepAll => Ok(Older::new()),
            DevicePolicy::KeepNewest => Ok(of_platform.into_iter().filter(|(slot, _)| same(*slot)).collect()),
            DevicePolicy::RefuseNewer if of_platform.iter().any(|(slot, _)| same(*slot)) => Err(Refusal::DevicePresent),
            DevicePolicy::RefuseNewer => Ok(Older::new()),
        }
    }

    fn policy(&self, platform: Platform) -> (DevicePolicy, usize) {
        let devices = self.live.devices();
        (devices.of(&self.platforms.name(platform)), devices.max)
    }

    /// Asks the bucket's task to close those that must go.
    pub(super) fn replace(&self, bucket: &Bucket, older: &[(u32, u32)]) {
        for &(slot, generation) in older {
            bucket.close(slot, generation, CloseReason::Replaced, None);
        }
    }
}
