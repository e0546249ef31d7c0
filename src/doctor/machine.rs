//! The machine as `/proc` and `/sys` describe it, below a root that tests choose.
//! Reads and parses; judges nothing. A file that is missing or strange is `None`.

use std::path::{Path, PathBuf};

/// cgroup v1 says "no limit" with LONG_MAX rounded down to a page; anything in that region means it.
const NO_LIMIT: u64 = 1 << 60;

pub struct Machine {
    root: PathBuf,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What could be used now without swapping, the cgroup's limit included.
    pub available: u64,
    /// Whether the cgroup is what limits it.
    pub by_cgroup: bool,
}

impl Machine {
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    pub fn text(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path.trim_start_matches('/'))).ok()?;
        Some(text.trim().to_owned())
    }

    /// A file that holds one number.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// A file that holds several numbers.
    pub fn numbers<const N: usize>(&self, path: &str) -> Option<[u64; N]> {
        let numbers: Vec<u64> = self.text(path)?.split_whitespace().map_while(|word| word.parse().ok()).collect();
        numbers.try_into().ok()
    }

    /// Cores that are online, from a list such as `0-3,8`; one where it cannot be read.
    pub fn cores(&self) -> u64 {
        let text = self.text("/sys/devices/system/cpu/online").unwrap_or_default();
        let range = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(last.parse::<u64>().ok()?.checked_sub(first.parse().ok()?)?.saturating_add(1))
        };
        text.split(',').filter_map(range).fold(0, u64::saturating_add).clamp(1, 65_536)
    }

    /// Soft and hard limit of open files of this process.
    pub fn open_files(&self) -> Option<(u64, u64)> {
        let text = self.text("/proc/self/limits")?;
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let mut words =
            line.split_whitespace().map(|word| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() });
        Some((words.next()??, words.next()??))
    }

    /// A line of `/proc/meminfo`, in bytes.
    pub fn meminfo(&self, name: &str) -> Option<u64> {
        let text = self.text("/proc/meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1024))
    }

    /// The smaller of what the machine has and what the cgroup leaves.
    pub fn memory(&self) -> Option<Memory> {
        let machine = self.meminfo("MemAvailable")?;
        let cgroup = self.cgroup_left().unwrap_or(u64::MAX);
        Some(Memory { available: machine.min(cgroup), by_cgroup: cgroup < machine })
    }

    /// Bytes to the nearest memory limit of this process's cgroup and its parents; `None`: unlimited, or no cgroup.
    fn cgroup_left(&self) -> Option<u64> {
        let text = self.text("/proc/self/cgroup")?;
        text.lines().filter_map(|line| self.left_along(line)).min()
    }

    /// One line of `/proc/self/cgroup`: `0::/path` is version 2, `4:memory:/path` version 1.
    fn left_along(&self, line: &str) -> Option<u64> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (mounts, limit, used): (&[&str], _, _) = match controllers {
            "" => (&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], "memory.max", "memory.current"),
            "memory" => (&["/sys/fs/cgroup/memory"], "memory.limit_in_bytes", "memory.usage_in_bytes"),
            _ => return None,
        };
        let folders = mounts.iter().flat_map(|mount| parents(path).map(move |folder| format!("{mount}{folder}")));
        let left = |folder: String| {
            let limit = self.number(&format!("{folder}/{limit}")).filter(|&bytes| bytes < NO_LIMIT)?;
            Some(limit.saturating_sub(self.unreclaimable(&folder, used)?))
        };
        folders.filter_map(left).min()
    }

    /// Memory in use that the kernel would not give back under pressure: usage less the page cache's inactive part.
    fn unreclaimable(&self, folder: &str, used: &str) -> Option<u64> {
        let used = self.number(&format!("{folder}/{used}"))?;
        let stat = self.text(&format!("{folder}/memory.stat")).unwrap_or_default();
        let cache = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let cache = cache("total_inactive_file ").or_else(|| cache("inactive_file ")).unwrap_or(0);
        Some(used.saturating_sub(cache))
    }
}

/// `/a/b`, `/a`, and the root, which is the empty string.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path.trim_end_matches('/')), |path| path.rfind('/').map(|at| &path[..at]))
}
