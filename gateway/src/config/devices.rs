//! `[gateway.devices]`: what becomes of a user's connections of one platform when another one comes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most platforms at one gateway: a connection keeps the number of its own in a byte.
pub const PLATFORMS_MAX: usize = 250;

/// `[gateway.devices]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DevicesConfig {
    /// What holds for platforms that are not listed.
    pub policy: DevicePolicy,
    /// What holds for single platforms: `{ ios = "keep_newest" }`.
    pub platforms: BTreeMap<String, DevicePolicy>,
    /// Most connections of one user on one platform, whatever the policy.
    pub max: usize,
}

/// Which of a user's connections of one platform stay; those that name a device compete only with the same device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DevicePolicy {
    /// All of them.
    #[default]
    KeepAll,
    /// The newest; the older ones are closed with 3503 `replaced`.
    KeepNewest,
    /// The one that is there; a newer one is refused with 409 `device_present`.
    RefuseNewer,
}

impl Default for DevicesConfig {
    fn default() -> Self {
        Self { policy: DevicePolicy::KeepAll, platforms: BTreeMap::new(), max: 100 }
    }
}

impl DevicesConfig {
    /// What holds for a platform; its name is empty for connections without one.
    #[must_use]
    pub fn of(&self, platform: &str) -> DevicePolicy {
        self.platforms.get(platform).copied().unwrap_or(self.policy)
    }

    pub(super) fn problems(&self, out: &mut Vec<String>) {
        if self.max == 0 {
            out.push("gateway.devices.max: at least 1".into());
        }
        if self.platforms.len() > PLATFORMS_MAX / 2 {
            out.push(format!("gateway.devices.platforms: at most {}", PLATFORMS_MAX / 2));
        }
        for name in self.platforms.keys().filter(|name| !tidegate_protocol::limits::is_valid_platform(name)) {
            out.push(format!("gateway.devices.platforms: {name:?} cannot be a platform: 1 to 32 of a-z, 0-9, _ and -"));
        }
    }
}
