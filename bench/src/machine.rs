//! The machine a figure was measured on, as far as it bears on the figure.
//! A file of its own: reports and `limit` both print it.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub congestion: String,
    /// Load averages over 1, 5 and 15 minutes: other work on the machine shows here.
    pub load: String,
    /// Commit of the measured source, `-dirty` when it had changes; `unknown` outside a checkout.
    pub commit: String,
    /// Whether the code under test was optimized.
    pub release: bool,
}

impl Machine {
    pub fn look() -> Self {
        Self {
            cpu: after_colon("/proc/cpuinfo", "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory_bytes().unwrap_or(0),
            kernel: line("/proc/sys/kernel/osrelease"),
            congestion: line("/proc/sys/net/ipv4/tcp_congestion_control"),
            load: load(),
            commit: commit(),
            release: !cfg!(debug_assertions),
        }
    }
}

/// The three load averages as the kernel prints them.
pub fn load() -> String {
    line("/proc/loadavg").split_ascii_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn after_colon(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_bytes() -> Option<u64> {
    let kib: u64 = after_colon("/proc/meminfo", "MemTotal")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        Some(head) if git(&["status", "--porcelain", "-uno"]).is_some_and(|changes| !changes.is_empty()) => {
            format!("{head}-dirty")
        }
        Some(head) => head,
        None => option_env!("TIDEGATE_COMMIT").unwrap_or("unknown").to_owned(),
    }
}
