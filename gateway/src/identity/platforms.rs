//! Names of platforms and their numbers at this gateway: a connection keeps one byte of it.
//! Invariant: numbers are given once and never change; at most [`PLATFORMS_MAX`] names.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// Platforms every gateway knows, so that strangers cannot crowd them out of the table.
const WELL_KNOWN: [&str; 10] = ["", "web", "ios", "android", "desktop", "device", "server", "tv", "watch", "bot"];
/// Most platforms at one gateway; ids fit a byte.
const PLATFORMS_MAX: usize = 250;

/// A platform's number at this gateway; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Platform(pub u8);

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
