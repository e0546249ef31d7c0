//! `[gateway.hook]`: whether a client may come in that no connect hook was asked about.

use serde::{Deserialize, Serialize};

/// `[gateway.hook]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookConfig {
    /// Let nobody in before a logic node with a hook has said yes. Otherwise a gateway that has just started knows of no hook
    /// until the first logic node is linked.
    pub required: bool,
}
