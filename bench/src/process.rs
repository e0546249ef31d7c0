//! What a process used: CPU time and memory, read from /proc.
//! A file of its own because the formats of /proc are; it judges nothing.

use std::fs;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// One look at a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    pub user_s: f64,
    pub system_s: f64,
    /// Rss of smaps_rollup, in bytes.
    pub rss_bytes: u64,
    /// Anonymous memory of smaps_rollup: what the process itself allocated.
    pub anonymous_bytes: u64,
    /// Pss of smaps_rollup: pages shared with other processes count by their share.
    #[serde(default)]
    pub pss_bytes: u64,
    /// VmHWM: the peak of the resident set since the start.
    pub peak_rss_bytes: u64,
}

impl Usage {
    /// Looks at process `pid` now. smaps_rollup walks the page tables: some ms for a big process, so not in a hot loop.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
        let (user_s, system_s) = cpu_seconds(&stat).context("unexpected /proc/PID/stat")?;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rss = field_bytes(&rollup, "Rss:").or_else(|| field_bytes(&status, "VmRSS:"));
        Ok(Self {
            user_s,
            system_s,
            rss_bytes: rss.unwrap_or(0),
            anonymous_bytes: field_bytes(&rollup, "Anonymous:").unwrap_or(0),
            pss_bytes: field_bytes(&rollup, "Pss:").unwrap_or(0),
            peak_rss_bytes: field_bytes(&status, "VmHWM:").unwrap_or(0),
        })
    }

    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    /// Adds another process of the same server; peaks add up to an upper bound.
    pub fn add(&mut self, other: &Self) {
        self.user_s += other.user_s;
        self.system_s += other.system_s;
        self.rss_bytes += other.rss_bytes;
        self.anonymous_bytes += other.anonymous_bytes;
        self.pss_bytes += other.pss_bytes;
        self.peak_rss_bytes += other.peak_rss_bytes;
    }

    /// CPU since `before`; memory as it is now.
    pub fn since(&self, before: &Self) -> Self {
        Self { user_s: self.user_s - before.user_s, system_s: self.system_s - before.system_s, ..*self }
    }
}

/// Every process below `pid`, at any depth, as /proc shows it now.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        parents.extend(parent(&stat).map(|parent| (parent, child)));
    }
    let (mut found, mut next) = (vec![pid], 0);
    while let Some(above) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(parent, _)| *parent == above).map(|(_, child)| *child));
        next += 1;
    }
    found.split_off(1)
}

/// Whether the process still runs: a zombie does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Field 4 of /proc/PID/stat.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// CPU seconds (user, system) of /proc/PID/stat. The command name may hold spaces and parentheses: fields count
/// from the last `)`. The kernel scales the tick counts to the exact run time, so only the step is 10 ms.
fn cpu_seconds(stat: &str) -> Option<(f64, f64)> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    // Field 3 (state) is the first after the name; utime is field 14, stime 15.
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user / ticks, system / ticks))
}

fn field_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_hostile_process_name() {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 1500 250 0 0";

        assert_eq!(cpu_seconds(stat), Some((1500.0 / ticks, 250.0 / ticks)));
    }

    #[test]
    fn a_child_of_a_child_is_found_and_is_gone_once_it_ended() {
        let mut shell = std::process::Command::new("sh").args(["-c", "sleep 30 & wait"]).spawn().expect("a shell");
        let below = || descendants(shell.id());
        crate::clock::until(std::time::Duration::from_secs(5), || !below().is_empty());

        let sleeper = below().first().copied().expect("the shell's child");
        assert!(descendants(std::process::id()).contains(&sleeper) && is_alive(sleeper));
        let pid = rustix::process::Pid::from_raw(sleeper as i32).expect("not zero");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it lives");
        shell.wait().expect("the shell ends with its child");

        assert!(!is_alive(sleeper));
    }

    #[test]
    fn this_process_has_memory() {
        let usage = Usage::of(std::process::id()).expect("this process lives");

        assert!(usage.rss_bytes > 100_000, "{usage:?}");
        assert!(usage.peak_rss_bytes >= usage.rss_bytes / 2, "{usage:?}");
    }
}
