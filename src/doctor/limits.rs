//! Checks of what N connections need to exist at all: open files, epoll watches, memory.

use super::capacity::{BURST_BYTES, CONNECTION_BYTES, MEMORY_RESERVE};
use super::check::{Check, Count, Finding, Need, Rule, Verdict, files_reserve};
use super::machine::Machine;

const LIMITS_FILE: &str = "/etc/security/limits.d/90-tidegate.conf";
const SYSCTL_FILE: &str = "/etc/sysctl.d/90-tidegate.conf";

/// What the unit in `tuning/` sets: the kernel's default `fs.nr_open`, so a million fit without raising that.
const FILES_USUAL: u64 = 1_048_576;

pub const CHECKS: &[Check] = &[
    Check {
        id: "open-files-hard",
        reads: "/proc/self/limits",
        why: "each connection is an open file; accept fails with EMFILE at this limit, and only root can raise it",
        file: LIMITS_FILE,
        rule: Rule::Judge(hard_files),
    },
    Check {
        id: "open-files-soft",
        reads: "/proc/self/limits",
        why: "tidegate raises its own soft limit to the hard one at start; other programs do not",
        file: LIMITS_FILE,
        rule: Rule::Judge(soft_files),
    },
    Check {
        id: "nr-open",
        reads: "/proc/sys/fs/nr_open",
        why: "no process may have a higher limit of open files than this",
        file: SYSCTL_FILE,
        rule: Rule::AtLeast(Need::files, Verdict::Fail),
    },
    Check {
        id: "file-max",
        reads: "/proc/sys/fs/file-max",
        why: "all processes together may open no more files than this",
        file: SYSCTL_FILE,
        // A tenth more, and what an otherwise idle system has open.
        rule: Rule::AtLeast(|need| need.connections + need.connections / 10 + 16_384, Verdict::Fail),
    },
    Check {
        id: "epoll-watches",
        reads: "/proc/sys/fs/epoll/max_user_watches",
        why: "each connection is one watch of its user; epoll_ctl fails with ENOSPC at this limit",
        file: SYSCTL_FILE,
        rule: Rule::AtLeast(Need::files, Verdict::Fail),
    },
    Check {
        id: "memory",
        reads: "/proc/meminfo, memory limit of the cgroup",
        why: "an idle connection takes 4,045 B of kernel and 450 B of user memory, one unread message 1,181 B more",
        file: "",
        rule: Rule::Judge(memory),
    },
    Check {
        id: "max-map-count",
        reads: "/proc/sys/vm/max_map_count",
        why: "the allocator fails when the process has more mappings than this",
        file: SYSCTL_FILE,
        // The kernel's default; lower values break allocators, higher ones are not needed.
        rule: Rule::AtLeast(|_| 65_530, Verdict::Warn),
    },
];

fn hard_files(machine: &Machine, need: Need) -> Option<Finding> {
    let (_, hard) = machine.open_files()?;
    let good = hard >= need.files();
    let raise = format!("LimitNOFILE={} in the unit (tuning/systemd)", need.files().max(FILES_USUAL));
    let fix = match hard.saturating_sub(files_reserve(machine.cores())) {
        _ if good => String::new(),
        0 => raise,
        each => {
            let processes = need.connections.div_ceil(each);
            format!("{raise}, or run {processes} gateway processes of {} connections", Count(each))
        }
    };
    Some(Finding {
        verdict: if good { Verdict::Ok } else { Verdict::Fail },
        found: Count(hard).to_string(),
        wanted: format!("at least {}", Count(need.files())),
        fix,
    })
}

/// Tidegate raises it by itself, as far as the hard limit goes.
fn soft_files(machine: &Machine, need: Need) -> Option<Finding> {
    let (soft, hard) = machine.open_files()?;
    let raised = hard >= need.files();
    Some(Finding {
        verdict: if raised { Verdict::Ok } else { Verdict::Fail },
        found: Count(soft).to_string(),
        wanted: if raised { "any: raised to the hard limit at start".into() } else { "the hard limit raised".into() },
        fix: if raised { String::new() } else { "raise the hard limit (open-files-hard)".into() },
    })
}

fn memory(machine: &Machine, need: Need) -> Option<Finding> {
    let memory = machine.memory()?;
    let idle = need.connections * CONNECTION_BYTES + MEMORY_RESERVE;
    let burst = idle + need.connections * BURST_BYTES;
    let verdict = match memory.available {
        available if available < idle => Verdict::Fail,
        available if available < burst => Verdict::Warn,
        _ => Verdict::Ok,
    };
    let fix = match verdict {
        Verdict::Ok | Verdict::Unknown => String::new(),
        Verdict::Warn | Verdict::Fail if memory.by_cgroup => {
            format!("raise the memory limit of the cgroup by {}", mib(burst - memory.available))
        }
        Verdict::Warn | Verdict::Fail => {
            format!("give the machine {} more, or spread the connections", mib(burst - memory.available))
        }
    };
    Some(Finding {
        verdict,
        found: format!("{} available{}", mib(memory.available), if memory.by_cgroup { " in the cgroup" } else { "" }),
        wanted: format!("{} idle, {} with one unread message each", mib(idle), mib(burst)),
        fix,
    })
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", Count(bytes.div_ceil(1024 * 1024)))
}
