//! What stands in memory at one moment: the machine's, the kernel's slabs, sockets, and the fleet's processes.
//! Reads /proc; two looks and their difference are the account. Judges nothing (see `mod`).

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::process::Usage;

/// One look. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Look {
    /// MemTotal − MemFree − Buffers − Cached: what is in use and no cache of files. MemAvailable would take half of the
    /// sockets' dentries and inodes for reclaimable, which they are not.
    pub(super) used_bytes: u64,
    pub(super) available_bytes: u64,
    /// SReclaimable + SUnreclaim.
    pub(super) slab_bytes: u64,
    pub(super) sockets: Sockets,
    /// Sums over the processes.
    pub(super) servers: Usage,
    pub(super) clients: Usage,
}

/// The TCP line of /proc/net/sockstat, of this network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sockets {
    pub(super) in_use: u64,
    pub(super) orphan: u64,
    pub(super) time_wait: u64,
    /// Buffers, in pages.
    pub(super) pages: u64,
}

/// The resident sets are at rest when their sum moves by less than this share in a second …
const STEADY: f64 = 0.002;
/// … and looks are taken so often at most.
const LOOKS_MAX: usize = 20;

/// Makes the kernel forget inodes and dentries that nobody uses. Whoever lists /proc/PID/fd, as monitors do, leaves one of
/// each for every descriptor: 1.8 KB a connection that no connection needs.
pub(super) fn drop_caches() -> anyhow::Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "2").context("--drop-caches: cannot write /proc/sys/vm/drop_caches")
}

impl Look {
    pub(super) fn now(servers: &[u32], clients: &[u32]) -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let of = |name: &str| meminfo(&text, name).unwrap_or(0);
        Self {
            used_bytes: of("MemTotal").saturating_sub(of("MemFree") + of("Buffers") + of("Cached")),
            available_bytes: of("MemAvailable"),
            slab_bytes: of("SReclaimable") + of("SUnreclaim"),
            sockets: Sockets::now(),
            servers: sum(servers),
            clients: sum(clients),
        }
    }

    /// A look once the processes' memory is at rest: allocators give back with a delay.
    pub(super) fn settled(servers: &[u32], clients: &[u32]) -> Self {
        let mut last = Self::now(servers, clients);
        for _ in 0..LOOKS_MAX {
            clock::pause(Duration::from_secs(1));
            let look = Self::now(servers, clients);
            let (before, after) = (last.resident(), look.resident());
            last = look;
            if (after - before).abs() <= before * STEADY {
                break;
            }
        }
        last
    }

    fn resident(&self) -> f64 {
        (self.servers.rss_bytes + self.clients.rss_bytes) as f64
    }
}

impl Sockets {
    pub(super) fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/net/sockstat").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
        let of = |name: &str| {
            let mut words = line.split_ascii_whitespace().skip_while(|word| *word != name);
            words.nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        Self { in_use: of("inuse"), orphan: of("orphan"), time_wait: of("tw"), pages: of("mem") }
    }
}

/// A process that has ended counts as nothing: whoever waits for it will say so.
fn sum(pids: &[u32]) -> Usage {
    pids.iter().filter_map(|pid| Usage::of(*pid).ok()).fold(Usage::default(), |sum, one| Usage {
        pss_bytes: sum.pss_bytes + one.pss_bytes,
        user_s: sum.user_s + one.user_s,
        system_s: sum.system_s + one.system_s,
        rss_bytes: sum.rss_bytes + one.rss_bytes,
        anonymous_bytes: sum.anonymous_bytes + one.anonymous_bytes,
        peak_rss_bytes: sum.peak_rss_bytes + one.peak_rss_bytes,
    })
}

fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read_by_name() {
        let text = "sockets: used 18\nTCP: inuse 7 orphan 2 tw 3 alloc 9 mem 396\nUDP: inuse 5 mem 1\n";

        let sockets = Sockets::parse(text);

        assert_eq!(sockets, Sockets { in_use: 7, orphan: 2, time_wait: 3, pages: 396 });
    }

    #[test]
    fn cached_is_not_swap_cached() {
        let text = "MemTotal:  100 kB\nSwapCached:  7 kB\nCached:  3 kB\n";

        assert_eq!(meminfo(text, "Cached"), Some(3 * 1_024));
        assert_eq!(meminfo(text, "Mem"), None);
    }

    #[test]
    fn this_machine_has_memory_and_this_process_some_of_it() {
        let look = Look::now(&[std::process::id()], &[]);

        assert!(look.used_bytes > look.servers.rss_bytes && look.servers.rss_bytes > 100_000, "{look:?}");
    }
}
