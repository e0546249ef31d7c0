//! `[gateway.open]`: what clients may do where nobody proves who they are (`gateway.auth.mode = "none"`).

use serde::{Deserialize, Serialize};

use crate::session::{Act, Grant, PATTERN_BYTES_MAX, PATTERNS_MAX};

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
    fn lists(&self) -> [(Act, &Vec<String>); Act::ALL.len()] {
        [
            (Act::Join, &self.rooms),
            (Act::Speak, &self.speak),
            (Act::See, &self.presence),
            (Act::List, &self.members),
            (Act::Whisper, &self.users),
            (Act::Route, &self.routes),
        ]
    }

    /// The grant; what is too much of it, which [`Self::problems`] names, is left out.
    #[must_use]
    pub fn grant(&self) -> Grant {
        let mut grant = Grant::default();
        for (act, patterns) in self.lists() {
            let _ = grant.add(act, patterns);
        }
        grant
    }

    pub(super) fn problems(&self, out: &mut Vec<String>) {
        for (act, patterns) in self.lists() {
            if !Grant::default().add(act, patterns) {
                let key = act.claim();
                out.push(format!(
                    "gateway.open.grant.{key}: at most {PATTERNS_MAX} patterns of at most {PATTERN_BYTES_MAX} bytes"
                ));
            }
        }
    }
}
