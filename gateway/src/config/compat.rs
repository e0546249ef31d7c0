//! `[gateway.compat]`: older dialects of clients that are understood beside the protocol.

use serde::{Deserialize, Serialize};

/// `[gateway.compat]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompatConfig {
    /// `{"Module":…,"Action":…,"Data":…}`: Login, HeartBeat, Ping; anything else goes to the route `module/action`.
    pub module_action: bool,
    /// `{"user_id":2,"data":…}` is delivered to that user; `/chat?user_id=1` names the sender.
    pub user_data: bool,
}
