//! Who a connection is. An [`Identity`] can only come from the handshake, so holding one proves the checks were made.
//! Today a client names itself (`auth.mode = "none"`, rule C-4); tokens will be verified behind the same constructor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use tidegate_protocol::handshake::{self, Refusal, Upgrade};
use tidegate_protocol::limits;

/// Platforms every gateway knows, so that strangers cannot crowd them out of the table.
const WELL_KNOWN: [&str; 10] = ["", "web", "ios", "android", "desktop", "device", "server", "tv", "watch", "bot"];
/// Most platforms at one gateway; ids fit a byte.
const PLATFORMS_MAX: usize = 250;

/// A platform's number at this gateway; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Platform(pub u8);

/// What a connection may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Join a room.
    Join,
    /// SEND to a room.
    Speak,
    /// See a room's counts.
    See,
    /// List a room's members.
    List,
    /// SEND to a user or connection.
    Whisper,
    /// SEND to a business service.
    Route,
}

/// Names of platforms ↔ numbers; only ever grows, up to a bound. And how many connections each has.
#[derive(Debug)]
pub struct Platforms {
    names: RwLock<Vec<Box<str>>>,
    /// By number. Changed where a connection enters and leaves its table, under its bucket's write lock.
    connections: Box<[AtomicU64]>,
}

impl Default for Platforms {
    fn default() -> Self {
        Self {
            names: RwLock::new(WELL_KNOWN.iter().map(|&n| n.into()).collect()),
            connections: (0..=u8::MAX).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Platforms {
    /// The number of `name`, when any connection has had it.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "PLATFORMS_MAX fits a byte")]
    pub fn find(&self, name: &str) -> Option<Platform> {
        self.names.read().iter().position(|n| &**n == name).map(|i| Platform(i as u8))
    }

    /// The number of `name`, given one now if it is new; none when the table is full.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "PLATFORMS_MAX fits a byte")]
    pub fn intern(&self, name: &str) -> Option<Platform> {
        if let Some(found) = self.find(name) {
            return Some(found);
        }
        let mut names = self.names.write();
        if let Some(i) = names.iter().position(|n| &**n == name) {
            return Some(Platform(i as u8));
        }
        if names.len() >= PLATFORMS_MAX {
            return None;
        }
        names.push(name.into());
        Some(Platform((names.len() - 1) as u8))
    }

    /// Counts a connection in.
    pub fn count_in(&self, platform: Platform) {
        self.connections[usize::from(platform.0)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection out.
    pub fn count_out(&self, platform: Platform) {
        self.connections[usize::from(platform.0)].fetch_sub(1, Ordering::Relaxed);
    }

    /// Platforms that have connections, and how many; those without a platform are left out.
    #[must_use]
    pub fn counts(&self) -> Vec<(String, u64)> {
        let names = self.names.read();
        let counts = names.iter().zip(&self.connections).skip(1);
        counts.map(|(name, n)| (name.to_string(), n.load(Ordering::Relaxed))).filter(|(_, n)| *n > 0).collect()
    }

    /// The name of a platform; empty for none.
    #[must_use]
    pub fn name(&self, platform: Platform) -> String {
        self.names.read().get(usize::from(platform.0)).map_or_else(String::new, |n| n.to_string())
    }
}

/// Who is connecting, checked.
#[derive(Clone, Debug)]
pub struct Identity {
    user: Option<Arc<str>>,
    platform: Platform,
}

impl Identity {
    /// The identity a client claims in its query; anyone may claim any while there is no authentication.
    ///
    /// # Errors
    /// `BadQuery` names the parameter that cannot be a user or platform.
    pub fn claimed(upgrade: &Upgrade<'_>, platforms: &Platforms) -> Result<Self, Refusal> {
        const USER: &str = "user must be 1 to 128 bytes of UTF-8 without control characters, given once";
        const PLATFORM: &str = "platform must be 1 to 32 of a-z, 0-9, _ and -, given once, and not one of too many";
        if upgrade.query.is_empty() {
            return Ok(Self { user: None, platform: Platform::default() });
        }
        if handshake::query_has_duplicates(upgrade.query, "user") {
            return Err(Refusal::BadQuery { what: USER });
        }
        if handshake::query_has_duplicates(upgrade.query, "platform") {
            return Err(Refusal::BadQuery { what: PLATFORM });
        }
        let user = match handshake::query_value(upgrade.query, "user")? {
            None => None,
            Some(user) if user.is_empty() => None,
            Some(user) if limits::is_valid_name(&user) => Some(Arc::from(user.as_ref())),
            Some(_) => return Err(Refusal::BadQuery { what: USER }),
        };
        let platform = match handshake::query_value(upgrade.query, "platform")? {
            None => Platform::default(),
            Some(name) if name.is_empty() => Platform::default(),
            Some(name) if limits::is_valid_platform(&name) => {
                platforms.intern(&name).ok_or(Refusal::BadQuery { what: PLATFORM })?
            }
            Some(_) => return Err(Refusal::BadQuery { what: PLATFORM }),
        };
        Ok(Self { user, platform })
    }

    /// The user, when named.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Takes the parts for the connection's entry.
    #[must_use]
    pub fn into_parts(self) -> (Option<Arc<str>>, Platform) {
        (self.user, self.platform)
    }
}
