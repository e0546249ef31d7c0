//! `[gateway.open]`: what clients may do where nobody proves who they are (`gateway.auth.mode = "none"`).

use serde::{Deserialize, Serialize};

use tidegate_protocol::limits::{PATTERN_BYTES_MAX, PATTERNS_MAX};

/// `[gateway.open]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenConfig {
    /// Where clients may do everything and take any name; elsewhere the rest of this section holds.
    pub free: Freedom,
    /// Whether users are named by `?user=`, although anyone may send any.
    pub names: bool,
    /// What clients may do.
    pub grant: OpenGrantConfig,
}

/// Where clients that prove nothing may do everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Freedom {
    /// Where only this machine reaches the listener.
    #[default]
    Loopback,
    /// Everywhere.
    Always,
    /// Nowhere: for a listener on loopback behind a proxy that others reach.
    Never,
}

/// `[gateway.open.grant]`: patterns, as in a token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenGrantConfig {
    /// Rooms to join.
    pub rooms: Vec<String>,
    /// Rooms to SEND to.
    pub speak: Vec<String>,
    /// Rooms whose PRESENCE may be asked for.
    pub presence: Vec<String>,
    /// Rooms whose MEMBERS may be listed.
    pub members: Vec<String>,
    /// Users to SEND to.
    pub users: Vec<String>,
    /// Routes to SEND to.
    pub routes: Vec<String>,
}

impl Default for OpenGrantConfig {
    fn default() -> Self {
        let everything = || vec!["*".to_owned()];
        let (speak, members, users, routes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { rooms: everything(), speak, presence: everything(), members, users, routes }
    }
}

impl OpenGrantConfig {
    pub(super) fn problems(&self, out: &mut Vec<String>) {
        let Self { rooms, speak, presence, members, users, routes } = self;
        let lists = [
            ("rooms", rooms),
            ("speak", speak),
            ("presence", presence),
            ("members", members),
            ("users", users),
            ("routes", routes),
        ];
        for (key, patterns) in lists {
            if patterns.len() > PATTERNS_MAX || patterns.iter().any(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
                out.push(format!(
                    "gateway.open.grant.{key}: at most {PATTERNS_MAX} patterns of at most {PATTERN_BYTES_MAX} bytes"
                ));
            }
        }
    }
}
