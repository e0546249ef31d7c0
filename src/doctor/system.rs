//! Checks of the rest of the machine: what makes a tick late although everything fits.

use super::check::{Check, Finding, Need, Rule, Verdict, set};
use super::machine::Machine;

const THP: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
const SWAPPINESS: &str = "/proc/sys/vm/swappiness";

/// Clocks that are read without a system call.
const FAST_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];

pub const CHECKS: &[Check] = &[
    Check {
        id: "huge-pages",
        reads: THP,
        why: "with `always` the kernel rounds sparse memory up to 2 MiB pages and stalls to compact them",
        file: "/etc/default/grub",
        rule: Rule::Judge(huge_pages),
    },
    Check {
        id: "clock",
        reads: CLOCK,
        why: "a slow clock makes each reading a system call: about a microsecond instead of 21 ns",
        file: "/etc/default/grub",
        rule: Rule::Judge(clock),
    },
    Check {
        id: "swap",
        reads: "/proc/meminfo, /proc/sys/vm/swappiness",
        why: "a bucket that was swapped out makes a tick wait for the disk; idle connections are what gets swapped",
        file: "/etc/sysctl.d/90-tidegate.conf",
        rule: Rule::Judge(swap),
    },
];

/// The file reads `always [madvise] never`; the brackets mark the choice.
fn huge_pages(machine: &Machine, _: Need) -> Option<Finding> {
    let text = machine.text(THP)?;
    let chosen = ["always", "madvise", "never"].into_iter().find(|choice| text.contains(&format!("[{choice}]")))?;
    let good = chosen != "always";
    Some(Finding {
        verdict: if good { Verdict::Ok } else { Verdict::Warn },
        found: chosen.into(),
        wanted: "madvise or never".into(),
        fix: if good {
            String::new()
        } else {
            format!("echo madvise > {THP}; to last: transparent_hugepage=madvise on the kernel command line")
        },
    })
}

fn clock(machine: &Machine, _: Need) -> Option<Finding> {
    let found = machine.text(CLOCK)?;
    let good = FAST_CLOCKS.contains(&found.as_str());
    Some(Finding {
        verdict: if good { Verdict::Ok } else { Verdict::Warn },
        found,
        wanted: "tsc, kvm-clock or arch_sys_counter".into(),
        fix: if good { String::new() } else { "find out why the kernel left tsc: dmesg | grep -i clocksource".into() },
    })
}

fn swap(machine: &Machine, _: Need) -> Option<Finding> {
    let total = machine.meminfo("SwapTotal")?;
    let swappiness = machine.number(SWAPPINESS);
    let good = total == 0 || swappiness.is_some_and(|value| value <= 10);
    let found = match (total, swappiness) {
        (0, _) => "no swap".into(),
        (_, Some(value)) => format!("{} MiB, swappiness {value}", total / 1024 / 1024),
        (_, None) => format!("{} MiB", total / 1024 / 1024),
    };
    Some(Finding {
        verdict: if good { Verdict::Ok } else { Verdict::Warn },
        found,
        wanted: "no swap, or swappiness at most 10".into(),
        fix: if good { String::new() } else { set(SWAPPINESS, "10") },
    })
}
