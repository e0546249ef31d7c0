//! Whether the machine's memory suffices, before anything is started: sizes measured one by one, added up.
//! Judges by MemAvailable; what really was used is `account`'s. The refusal shows every line of the sum.

use anyhow::ensure;

use super::shape::Shape;
use crate::report::number;

/// Kernel memory of an accepted idle socket in an epoll set (Linux 6.18, x86-64): the floor nothing in user space can
/// get below. TCP 2,521, inode 862, file and dentry 390, security 56, epoll 216.
pub(super) const SERVER_KERNEL_BYTES: u64 = 4_045;
/// The same of a connected socket: with its share of the port tables.
pub(super) const CLIENT_KERNEL_BYTES: u64 = 4_301;
/// What a gateway may keep of its own for a connection; the bound that the account judges.
pub(super) const SERVER_USER_BYTES: u64 = 450;
/// What the swarm keeps: 14 bytes in arrays, 4 of the ledger, and slack.
const CLIENT_USER_BYTES: u64 = 64;
/// A small message that the client has not read yet: the buffer's real size.
const UNREAD_BYTES: u64 = 1_181;
/// A gateway with no connection, a client process, a logic node: resident, code included.
const GATEWAY_BYTES: u64 = 10_000_000;
const CLIENT_BYTES: u64 = 8_000_000;
const LOGIC_BYTES: u64 = 64_000_000;
/// Kept free for everything else on the machine.
const RESERVE_BYTES: u64 = 1 << 30;

/// One line of the sum.
struct Item {
    what: &'static str,
    count: u64,
    bytes: u64,
}

/// Refuses with the arithmetic when `available_bytes` do not suffice; otherwise gives the sum.
pub(super) fn check(shape: &Shape, available_bytes: u64) -> anyhow::Result<u64> {
    let (connections, processes) = (shape.connections, shape.processes() as u64);
    let items = [
        Item { what: "kernel, server's socket in epoll", count: connections, bytes: SERVER_KERNEL_BYTES },
        Item { what: "kernel, client's socket in epoll", count: connections, bytes: CLIENT_KERNEL_BYTES },
        Item { what: "gateway, a connection", count: connections, bytes: SERVER_USER_BYTES },
        Item { what: "swarm, a client", count: connections, bytes: CLIENT_USER_BYTES },
        Item { what: "kernel, a broadcast not read yet", count: connections, bytes: UNREAD_BYTES },
        Item { what: "gateway process", count: processes, bytes: GATEWAY_BYTES },
        Item { what: "client process", count: processes, bytes: CLIENT_BYTES },
        Item { what: "logic process", count: 1, bytes: LOGIC_BYTES },
        Item { what: "kept free", count: 1, bytes: RESERVE_BYTES },
    ];
    let needed = items.iter().map(|item| item.count * item.bytes).sum();
    ensure!(needed <= available_bytes, "{}", refusal(&items, needed, available_bytes));
    Ok(needed)
}

fn refusal(items: &[Item], needed: u64, available: u64) -> String {
    let count = |value: u64| number(value as f64);
    let lines = items.iter().map(|Item { what, count: times, bytes }| {
        format!("  {what:<34} {:>10} × {:>13} B = {:>17} B", count(*times), count(*bytes), count(times * bytes))
    });
    let lines: Vec<String> = lines.collect();
    format!(
        "memory does not suffice: {} B are needed and {} B are available (MemAvailable)\n{}\nfree {} B, or ask for fewer: --for N",
        count(needed),
        count(available),
        lines.join("\n"),
        count(needed - available)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn million() -> Shape {
        Shape::new(1_000_000, 20_000, None).expect("fits")
    }

    #[test]
    fn a_million_needs_about_twelve_gigabytes() {
        let needed = check(&million(), u64::MAX).expect("any machine");

        assert!((11_500_000_000..12_500_000_000).contains(&needed), "{needed}");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_every_line_of_the_sum() {
        let text = check(&million(), 8_000_000_000).expect_err("8 GB are too few").to_string();

        assert!(text.contains("8,000,000,000 B are available"), "{text}");
        assert!(text.contains("1,000,000 ×         4,045 B =     4,045,000,000 B"), "{text}");
        assert_eq!(text.lines().count(), 11, "{text}");
    }
}
