//! Names of platforms and their numbers at this gateway: a connection keeps one byte of it.
//! Clients choose the names, so a name is forgotten with the last who needs it, once another one needs its number. Names that
//! every gateway knows, or its configuration, are never forgotten: strangers cannot crowd them out.
//! Invariants: a number stands for one name as long as a connection has it or a [`Named`] lives; at most [`PLATFORMS_MAX`] names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::config::PLATFORMS_MAX;

/// Platforms every gateway knows.
const WELL_KNOWN: [&str; 11] =
    ["", "web", "ios", "android", "desktop", "device", "server", "tv", "watch", "bot", "agent"];

/// A platform's number at this gateway; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Platform(pub u8);

/// A platform's number, which stays its own as long as this lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The number.
    pub id: Platform,
    name: Arc<str>,
}

impl Named {
    /// The name; empty for none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Names of platforms ↔ numbers. And how many connections each has.
#[derive(Debug)]
pub struct Platforms {
    names: RwLock<Vec<Arc<str>>>,
    /// Names from the beginning that are never forgotten.
    lasting: usize,
    /// By number. Changed where a connection enters and leaves its table, under its bucket's write lock.
    connections: Box<[AtomicU64]>,
}

impl Default for Platforms {
    fn default() -> Self {
        Self::knowing([].into_iter())
    }
}

impl Platforms {
    /// Knows these names beside those that every gateway knows.
    #[must_use]
    pub fn knowing<'n>(more: impl Iterator<Item = &'n str>) -> Self {
        let mut names: Vec<Arc<str>> = WELL_KNOWN.iter().map(|&name| name.into()).collect();
        for name in more {
            if names.len() < PLATFORMS_MAX && !names.iter().any(|known| &**known == name) {
                names.push(name.into());
            }
        }
        let lasting = names.len();
        let connections = (0..=u8::MAX).map(|_| AtomicU64::new(0)).collect();
        Self { names: RwLock::new(names), lasting, connections }
    }

    /// The number of `name`, when it has one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Named> {
        find(&self.names.read(), name)
    }

    /// The number of `name`, given one now if it is new; none when all are needed.
    #[must_use]
    pub fn intern(&self, name: &str) -> Option<Named> {
        if let Some(found) = self.find(name) {
            return Some(found);
        }
        let mut names = self.names.write();
        if let Some(found) = find(&names, name) {
            return Some(found);
        }
        let name: Arc<str> = name.into();
        if names.len() < PLATFORMS_MAX {
            names.push(Arc::clone(&name));
            return Some(named(names.len() - 1, name));
        }
        let index = (self.lasting..names.len()).find(|&index| self.is_forgotten(index, &mut names[index]))?;
        names[index] = Arc::clone(&name);
        Some(named(index, name))
    }

    /// Whether nobody needs a name. First who is on the way, then who is here: whoever comes in is counted while it is still
    /// on the way, and seeing it gone from there includes seeing the count.
    fn is_forgotten(&self, index: usize, name: &mut Arc<str>) -> bool {
        Arc::get_mut(name).is_some() && self.connections[index].load(Ordering::Relaxed) == 0
    }

    /// The platform of a connection that is here.
    #[must_use]
    pub fn of(&self, platform: Platform) -> Named {
        let names = self.names.read();
        let name = names.get(usize::from(platform.0)).cloned().unwrap_or_default();
        Named { id: platform, name }
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

    /// The name of a connection's platform; empty for none.
    #[must_use]
    pub fn name(&self, platform: Platform) -> String {
        self.names.read().get(usize::from(platform.0)).map_or_else(String::new, |n| n.to_string())
    }
}

fn find(names: &[Arc<str>], name: &str) -> Option<Named> {
    names.iter().position(|known| &**known == name).map(|index| named(index, Arc::clone(&names[index])))
}

#[expect(clippy::cast_possible_truncation, reason = "PLATFORMS_MAX fits a byte")]
fn named(index: usize, name: Arc<str>) -> Named {
    Named { id: Platform(index as u8), name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_come_and_go_never_fill_the_table() {
        let platforms = Platforms::default();

        for n in 0..10_000 {
            let platform = platforms.intern(&format!("x{n}")).expect("a number is free");
            platforms.count_in(platform.id);
            assert_eq!(platforms.name(platform.id), format!("x{n}"));
            platforms.count_out(platform.id);
        }
    }

    #[test]
    fn a_number_is_kept_for_connections_for_newcomers_and_for_pushes() {
        let platforms = Platforms::default();
        let on_the_way = platforms.intern("kiosk").expect("a number is free");
        let here = platforms.intern("fridge").map(|fridge| fridge.id).expect("a number is free");
        platforms.count_in(here);

        for n in 0..10_000 {
            let other = platforms.intern(&format!("x{n}")).expect("a number is free").id;
            assert!(other != on_the_way.id && other != here);
        }
        assert_eq!((platforms.find("kiosk"), platforms.find("fridge").map(|f| f.id)), (Some(on_the_way), Some(here)));
    }

    #[test]
    fn when_all_are_needed_the_unknown_is_refused_and_what_is_known_never() {
        let platforms = Platforms::knowing(["kiosk"].into_iter());
        let held: Vec<Named> = (0..).map_while(|n| platforms.intern(&format!("x{n}"))).collect();

        assert_eq!(held.len(), PLATFORMS_MAX - WELL_KNOWN.len() - 1);
        assert!(platforms.intern("y").is_none());
        for known in WELL_KNOWN.iter().chain(&["kiosk", "x7"]) {
            assert!(platforms.intern(known).is_some(), "{known}");
        }
        drop(held);
        assert!(platforms.intern("y").is_some());
    }
}
