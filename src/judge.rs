//! Whether a command would start with a configuration. The one judgement of `config check`, the start and a reload, so that what
//! one of them takes no other refuses. What only the start can know is left to it: an address or a spool that is in use.

use crate::config::Config;
use crate::config::exposure::{self, Role};

/// Why it would not, each a sentence that names the key; empty when all is well.
pub fn refusals(config: &Config, role: Role) -> Vec<String> {
    let mut out = exposure::refusals(config, role);
    if role == Role::Logic && config.logic.gateways.is_empty() {
        out.push(
            "logic needs to know its gateways: give --gateway http://127.0.0.1:8002 (repeatable) or set logic.gateways"
                .into(),
        );
    }
    if role.has_clients() {
        out.extend(tidegate_gateway::refusals(&config.gateway));
    }
    if role.has_api() {
        out.extend(tidegate_logic::refusals(&config.logic));
    }
    out
}
