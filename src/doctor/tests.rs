//! The doctor on made-up machines: a tuned one, a stock one, an empty one.

use std::fs;

use tempfile::TempDir;

use super::*;

const MILLION: Need = Need { connections: 1_000_000 };

/// A machine tuned for a million: 16 GiB, no swap.
const TUNED: &[(&str, &str)] = &[
    ("proc/self/limits", "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024   1048576   files\n"),
    ("proc/self/cgroup", "0::/system.slice/tidegate-gateway.service\n"),
    ("sys/fs/cgroup/system.slice/tidegate-gateway.service/memory.max", "max\n"),
    ("sys/devices/system/cpu/online", "0-1\n"),
    ("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 16000000 kB\nSwapTotal: 0 kB\n"),
    ("proc/sys/fs/nr_open", "1048576\n"),
    ("proc/sys/fs/file-max", "9223372036854775807\n"),
    ("proc/sys/fs/epoll/max_user_watches", "3500000\n"),
    ("proc/sys/vm/max_map_count", "65530\n"),
    ("proc/sys/vm/swappiness", "60\n"),
    ("proc/sys/net/core/somaxconn", "65535\n"),
    ("proc/sys/net/core/netdev_max_backlog", "16384\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "65535\n"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "10240\t65535\n"),
    ("proc/sys/net/ipv4/tcp_mem", "1048576\t1572864\t2097152\n"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t16384\t262144\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t262144\n"),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "0\n"),
    ("proc/sys/net/ipv4/tcp_tw_reuse", "2\n"),
    ("proc/sys/net/ipv4/tcp_ehash_entries", "524288\n"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
];

/// What a stock Debian of 4 GiB says otherwise.
const STOCK: &[(&str, &str)] = &[
    ("proc/self/limits", "Max open files            1024   20000   files\n"),
    ("proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 3500000 kB\nSwapTotal: 1048576 kB\n"),
    ("proc/sys/fs/epoll/max_user_watches", "800000\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "1024\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/sys/net/ipv4/tcp_mem", "45000\t60000\t90000\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1\n"),
    ("proc/sys/net/ipv4/tcp_ehash_entries", "32768\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "17\n"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
];

fn machine(layers: &[&[(&str, &str)]]) -> TempDir {
    let root = tempfile::tempdir().expect("a scratch folder");
    for (path, text) in layers.iter().copied().flatten() {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a path with a folder")).expect("a scratch folder");
        fs::write(path, text).expect("a scratch file");
    }
    root
}

fn report(layers: &[&[(&str, &str)]], need: Need) -> Report {
    examine(&Machine::new(machine(layers).path()), need)
}

fn result<'a>(report: &'a Report, id: &str) -> &'a check::CheckResult {
    report.results.iter().find(|result| result.id == id).expect("a known check")
}

#[test]
fn a_tuned_machine_is_ok_for_a_million() {
    let report = report(&[TUNED], MILLION);

    let bad: Vec<_> = report.results.iter().filter(|result| result.verdict != Verdict::Ok).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(report.verdict(), Verdict::Ok);
    assert_eq!(report.capacity.limit, Some("open files of a process"));
    assert_eq!(report.capacity.connections, Some(1_048_192));
}

#[test]
fn a_stock_machine_fails_for_a_million_with_the_fix_of_each() {
    let report = report(&[TUNED, STOCK], MILLION);

    assert_eq!(report.verdict(), Verdict::Fail);
    for (id, verdict, fix) in [
        ("open-files-hard", Verdict::Fail, "LimitNOFILE=1048576"),
        ("epoll-watches", Verdict::Fail, "sysctl -w fs.epoll.max_user_watches=1002304"),
        ("memory", Verdict::Fail, "give the machine"),
        ("somaxconn", Verdict::Warn, "sysctl -w net.core.somaxconn=65535"),
        ("port-range", Verdict::Warn, "sysctl -w net.ipv4.ip_local_port_range=\"10240 65535\""),
        ("tcp-mem", Verdict::Fail, "sysctl -w net.ipv4.tcp_mem=\"1000000 1500000 2000000\""),
        ("tcp-wmem", Verdict::Warn, "sysctl -w net.ipv4.tcp_wmem=\"4096 16384 262144\""),
        ("slow-start-after-idle", Verdict::Warn, "sysctl -w net.ipv4.tcp_slow_start_after_idle=0"),
        ("conntrack", Verdict::Fail, "sysctl -w net.netfilter.nf_conntrack_max=1200000"),
        ("established-hash", Verdict::Warn, "thash_entries=1048576"),
        ("huge-pages", Verdict::Warn, "echo madvise"),
        ("swap", Verdict::Warn, "sysctl -w vm.swappiness=10"),
    ] {
        let result = result(&report, id);
        assert_eq!(result.verdict, verdict, "{id}");
        assert!(result.fix.contains(fix), "{id}: {} lacks {fix}", result.fix);
    }
}

#[test]
fn what_cannot_be_read_is_unknown_and_claims_nothing() {
    let report = report(&[], MILLION);

    assert!(report.results.iter().all(|result| result.verdict == Verdict::Unknown));
    assert_eq!(report.verdict(), Verdict::Ok);
    assert!(report.capacity.line().contains("unknown"));
}

#[test]
fn strange_contents_are_unknown_and_no_panic() {
    let strange: Vec<(&str, &str)> = TUNED.iter().map(|(path, _)| (*path, "\u{0}what [ is : this")).collect();

    let report = report(&[&strange], MILLION);

    assert!(report.results.iter().all(|r| matches!(r.verdict, Verdict::Unknown | Verdict::Warn)), "{}", report.text());
}

#[test]
fn the_tightest_cgroup_limit_along_the_path_counts() {
    let root = machine(&[
        TUNED,
        &[
            ("sys/fs/cgroup/system.slice/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "1073741824\n"),
            ("sys/fs/cgroup/system.slice/memory.stat", "anon 1\ninactive_file 536870912\n"),
        ],
    ]);

    let memory = Machine::new(root.path()).memory().expect("a machine with memory");

    assert_eq!(memory, machine::Memory { available: 1_610_612_736, by_cgroup: true });
}

#[test]
fn cgroup_version_one_is_read_too() {
    let root = machine(&[
        TUNED,
        &[
            ("proc/self/cgroup", "8:pids:/x\n4:memory:/a/b\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "5\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000000\n"),
            ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "300000\n"),
        ],
    ]);

    assert_eq!(Machine::new(root.path()).memory().map(|memory| memory.available), Some(700_000));
}

#[test]
fn connection_tracking_that_tracks_nothing_is_no_limit() {
    let idle = [("proc/sys/net/netfilter/nf_conntrack_count", "0\n")];

    let report = report(&[TUNED, STOCK, &idle], MILLION);

    assert_eq!(result(&report, "conntrack").verdict, Verdict::Ok);
    assert!(report.capacity.limits.iter().all(|limit| limit.name != "connection tracking"));
}

#[test]
fn several_processes_are_the_way_out_of_a_hard_limit() {
    let report = report(&[TUNED, STOCK], MILLION);

    let fix = &result(&report, "open-files-hard").fix;

    assert!(fix.contains("or run 51 gateway processes of 19,616 connections"), "{fix}");
}

#[test]
fn counts_are_written_as_people_write_them() {
    let parse = |text: &str| text.parse::<Need>().map(|need| need.connections);

    assert_eq!(parse("10000"), Ok(10_000));
    assert_eq!(parse("10_000"), Ok(10_000));
    assert_eq!(parse("100k"), Ok(100_000));
    assert_eq!(parse("1.5M"), Ok(1_500_000));
    for wrong in ["", "0", "-1", "many", "1g", "1e99", "nan"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn json_keeps_its_schema() {
    let json = report(&[TUNED], MILLION).json();

    assert_eq!(json["schema"], 1);
    assert_eq!(json["for"], 1_000_000);
    assert_eq!(json["verdict"], "ok");
    let check = json["checks"][0].as_object().expect("an object a check");
    let fields: Vec<&str> = check.keys().map(String::as_str).collect();
    assert_eq!(fields, ["file", "fix", "found", "id", "reads", "verdict", "wanted", "why"]);
    assert_eq!(json["capacity"]["bytes_per_connection"], 4_495);
}
