//! Checks of how the kernel's TCP will treat N connections: queues, buffers, tables, and what it does between ticks.

use super::check::{Check, Count, Finding, Need, Rule, Verdict, set};
use super::machine::Machine;

const SYSCTL_FILE: &str = "/etc/sysctl.d/90-tidegate.conf";
const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const TCP_MEM: &str = "/proc/sys/net/ipv4/tcp_mem";
const CONNTRACK_MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const CONNTRACK_COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const EHASH: &str = "/proc/sys/net/ipv4/tcp_ehash_entries";

/// From here on the worst case of each socket's buffers matters more than the speed of one bulk transfer.
const MANY: u64 = 100_000;
/// Largest buffer of one socket where there are many.
const BUFFER_MAX: u64 = 262_144;

pub const CHECKS: &[Check] = &[
    Check {
        id: "somaxconn",
        reads: "/proc/sys/net/core/somaxconn",
        why: "connections wait here for accept; in a reconnect storm the rest is dropped and retried after 1 s",
        file: SYSCTL_FILE,
        rule: Rule::AtLeast(Need::backlog, Verdict::Warn),
    },
    Check {
        id: "syn-backlog",
        reads: "/proc/sys/net/ipv4/tcp_max_syn_backlog",
        why: "half-open connections wait here; beyond it SYN cookies lose TCP options, without cookies SYNs are dropped",
        file: SYSCTL_FILE,
        rule: Rule::AtLeast(Need::backlog, Verdict::Warn),
    },
    Check {
        id: "syncookies",
        reads: "/proc/sys/net/ipv4/tcp_syncookies",
        why: "0: a SYN flood locks real clients out; 2: TCP options are lost even without a flood",
        file: SYSCTL_FILE,
        rule: Rule::Equal(1, Verdict::Warn),
    },
    Check {
        id: "netdev-backlog",
        reads: "/proc/sys/net/core/netdev_max_backlog",
        why: "packets wait here for a core; acknowledgements of a fan-out come all at once, and what is dropped is resent",
        file: SYSCTL_FILE,
        rule: Rule::AtLeast(|need| if need.connections >= MANY { 16_384 } else { 1_000 }, Verdict::Warn),
    },
    Check {
        id: "port-range",
        reads: PORTS,
        why: "a proxy or load generator on this machine takes one port a connection; connect() costs 288 us instead of \
              15 us once half the range is taken",
        file: SYSCTL_FILE,
        rule: Rule::Judge(ports),
    },
    Check {
        id: "tcp-mem",
        reads: TCP_MEM,
        why: "one unread message counts as a page; above the third number TCP drops packets of every connection",
        file: SYSCTL_FILE,
        rule: Rule::Judge(tcp_mem),
    },
    Check {
        id: "tcp-rmem",
        reads: "/proc/sys/net/ipv4/tcp_rmem",
        why: "the third number is what one sending client can make the kernel hold",
        file: SYSCTL_FILE,
        rule: Rule::Judge(|machine, need| buffer(machine, need, "/proc/sys/net/ipv4/tcp_rmem")),
    },
    Check {
        id: "tcp-wmem",
        reads: "/proc/sys/net/ipv4/tcp_wmem",
        why: "the third number is what one slow client can make the kernel hold",
        file: SYSCTL_FILE,
        rule: Rule::Judge(|machine, need| buffer(machine, need, "/proc/sys/net/ipv4/tcp_wmem")),
    },
    Check {
        id: "slow-start-after-idle",
        reads: "/proc/sys/net/ipv4/tcp_slow_start_after_idle",
        why: "push connections idle between ticks; with 1 a batch over 14 KB takes extra round trips each time",
        file: SYSCTL_FILE,
        rule: Rule::Equal(0, Verdict::Warn),
    },
    Check {
        id: "tw-reuse",
        reads: "/proc/sys/net/ipv4/tcp_tw_reuse",
        why: "0: a proxy or load generator that dials this machine runs out of ports after a drain",
        file: SYSCTL_FILE,
        rule: Rule::AtLeast(|_| 1, Verdict::Warn),
    },
    Check {
        id: "conntrack",
        reads: CONNTRACK_MAX,
        why: "a tracked connection needs an entry; when the table is full new connections are dropped in silence",
        file: SYSCTL_FILE,
        rule: Rule::Judge(conntrack),
    },
    Check {
        id: "established-hash",
        reads: EHASH,
        why: "each packet looks its socket up here; long chains cost a cache miss a step (4.8 % of CPU at 38,000 sockets)",
        file: "/etc/default/grub",
        rule: Rule::Judge(established_hash),
    },
];

fn ports(machine: &Machine, need: Need) -> Option<Finding> {
    let [low, high] = machine.numbers(PORTS)?;
    let found = (high + 1).saturating_sub(low);
    // The default range holds 28,232. More than 55,296 would reach down into the ports of services.
    let wanted = need.connections.clamp(20_000, 55_296);
    let good = found >= wanted;
    Some(Finding {
        verdict: if good { Verdict::Ok } else { Verdict::Warn },
        found: format!("{} ports ({low}-{high})", Count(found)),
        wanted: format!("at least {}", Count(wanted)),
        fix: if good { String::new() } else { set(PORTS, "10240 65535") },
    })
}

/// Pages. A page for each connection must stay below the maximum, and twice that below it for comfort.
fn tcp_mem(machine: &Machine, need: Need) -> Option<Finding> {
    let [low, pressure, max] = machine.numbers(TCP_MEM)?;
    let n = need.connections;
    let verdict = match max {
        max if max < n => Verdict::Fail,
        max if max < 2 * n || pressure < n => Verdict::Warn,
        _ => Verdict::Ok,
    };
    let raised = format!("{} {} {}", low.max(n), pressure.max(n + n / 2), max.max(2 * n));
    Some(Finding {
        verdict,
        found: format!("{low} {pressure} {max} pages"),
        wanted: format!("second at least {}, third at least {}", Count(n), Count(2 * n)),
        fix: if verdict == Verdict::Ok { String::new() } else { set(TCP_MEM, &raised) },
    })
}

fn buffer(machine: &Machine, need: Need, path: &str) -> Option<Finding> {
    let [min, default, max] = machine.numbers(path)?;
    let good = need.connections < MANY || max <= BUFFER_MAX;
    let wanted = if need.connections < MANY {
        "any below 100,000 connections".into()
    } else {
        format!("third at most {}", Count(BUFFER_MAX))
    };
    let raised = format!("{min} {} {BUFFER_MAX}", default.min(16_384));
    Some(Finding {
        verdict: if good { Verdict::Ok } else { Verdict::Warn },
        found: format!("{min} {default} {max}"),
        wanted,
        fix: if good { String::new() } else { set(path, &raised) },
    })
}

/// A table that exists and counts nothing is loaded but has no rule that needs it.
fn conntrack(machine: &Machine, need: Need) -> Option<Finding> {
    let ok = |found: String| Finding {
        verdict: Verdict::Ok,
        found,
        wanted: "off, or room for all".into(),
        fix: String::new(),
    };
    // Without /proc/sys/net nothing can be said; with it, a missing table means the module is not loaded.
    machine.number("/proc/sys/net/core/somaxconn")?;
    let Some(max) = machine.number(CONNTRACK_MAX) else { return Some(ok("not loaded".into())) };
    let tracked = machine.number(CONNTRACK_COUNT).unwrap_or(1);
    let wanted = need.connections + need.connections / 5;
    if tracked == 0 {
        return Some(ok(format!("loaded, tracks nothing (room for {})", Count(max))));
    }
    if max >= wanted {
        return Some(ok(format!("room for {}", Count(max))));
    }
    Some(Finding {
        verdict: Verdict::Fail,
        found: format!("room for {}, {} tracked", Count(max), Count(tracked)),
        wanted: format!("at least {}, or no tracking", Count(wanted)),
        fix: format!("{}, or a `notrack` rule for the clients' port", set(CONNTRACK_MAX, &wanted.to_string())),
    })
}

/// Set at boot by the machine's memory; a network namespace that shares its parent's table shows a negative number.
fn established_hash(machine: &Machine, need: Need) -> Option<Finding> {
    let entries = machine.text(EHASH)?.parse::<i64>().ok()?.unsigned_abs();
    let wanted = need.connections / 4;
    let good = entries >= wanted;
    let boot = need.connections.next_power_of_two();
    Some(Finding {
        verdict: if good { Verdict::Ok } else { Verdict::Warn },
        found: format!("{} entries", Count(entries)),
        wanted: format!("at least {} (chains of 4)", Count(wanted)),
        fix: if good { String::new() } else { format!("kernel command line: thash_entries={boot}, then reboot") },
    })
}
