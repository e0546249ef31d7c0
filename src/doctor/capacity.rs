//! How many connections this machine holds as it is, and what the limit is.
//! Arithmetic on measured sizes (research, Linux 6.18, x86-64): 4,045 B of kernel memory for an accepted idle socket in
//! epoll, about 450 B of ours. It counts one gateway process; clients on the same machine need as much again.

use serde::Serialize;

use super::check::{Count, files_reserve};
use super::machine::Machine;

/// Kernel and user memory of one idle connection.
pub const CONNECTION_BYTES: u64 = 4_045 + 450;
/// Kernel memory of one unread 100-byte message.
pub const BURST_BYTES: u64 = 1_181;
/// What is kept free for the process itself and its neighbours.
pub const MEMORY_RESERVE: u64 = 256 * 1024 * 1024;

/// What each limit allows.
#[derive(Debug, Serialize)]
pub struct Capacity {
    /// The least of `limits`; `None` where nothing could be read.
    pub connections: Option<u64>,
    /// Which limit that is.
    pub limit: Option<&'static str>,
    pub bytes_per_connection: u64,
    pub limits: Vec<Limit>,
}

#[derive(Debug, Serialize)]
pub struct Limit {
    pub name: &'static str,
    pub connections: u64,
}

pub fn of(machine: &Machine) -> Capacity {
    let conntrack = machine
        .number("/proc/sys/net/netfilter/nf_conntrack_max")
        .filter(|_| machine.number("/proc/sys/net/netfilter/nf_conntrack_count") != Some(0));
    let memory = |bytes: u64| bytes.saturating_sub(MEMORY_RESERVE) / CONNECTION_BYTES;
    let candidates = [
        ("memory", machine.memory().map(|memory_| memory(memory_.available))),
        (
            "open files of a process",
            machine.open_files().map(|(_, hard)| hard.saturating_sub(files_reserve(machine.cores()))),
        ),
        ("fs.file-max", machine.number("/proc/sys/fs/file-max")),
        ("epoll watches", machine.number("/proc/sys/fs/epoll/max_user_watches")),
        ("connection tracking", conntrack),
    ];
    let limits: Vec<Limit> =
        candidates.into_iter().filter_map(|(name, n)| Some(Limit { name, connections: n? })).collect();
    let least = limits.iter().min_by_key(|limit| limit.connections);
    Capacity {
        connections: least.map(|limit| limit.connections),
        limit: least.map(|limit| limit.name),
        bytes_per_connection: CONNECTION_BYTES,
        limits,
    }
}

impl Capacity {
    /// The last line of the report.
    pub fn line(&self) -> String {
        let (Some(connections), Some(name)) = (self.connections, self.limit) else {
            return "capacity unknown: neither memory nor limits could be read".into();
        };
        let others = self.limits.iter().filter(|limit| limit.name != name);
        let others: Vec<String> = others.map(|limit| format!("{} {}", limit.name, Count(limit.connections))).collect();
        let others =
            if others.is_empty() { String::new() } else { format!("; the others allow: {}", others.join(", ")) };
        format!(
            "holds about {} connections a gateway process; the limit is {name} ({} B a connection{others})",
            Count(connections),
            Count(CONNECTION_BYTES)
        )
    }
}
