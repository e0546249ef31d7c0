//! The kernel's TCP counters of the whole machine, from /proc/net/netstat and /proc/net/snmp.
//! A file of its own because the format is: a line of names, then a line of values under the same prefix.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;

/// Counters by name, such as `ListenOverflows`.
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    pub fn now() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/net/netstat").context("cannot read the kernel's TCP counters")?;
        Ok(Self(parse(&text)))
    }

    /// Growth of one counter since `before`.
    pub fn grown(&self, before: &Self, name: &str) -> anyhow::Result<u64> {
        let of = |counters: &Self| counters.0.get(name).copied().with_context(|| format!("no counter {name}"));
        Ok(of(self)?.saturating_sub(of(before)?))
    }
}

fn parse(text: &str) -> BTreeMap<String, u64> {
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines.chunks_exact(2).filter(|pair| pair[0].starts_with("TcpExt:"));
    let counters = pairs.flat_map(|pair| pair[0].split_whitespace().zip(pair[1].split_whitespace()).skip(1));
    counters.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_matched_within_their_prefix() {
        let text =
            "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 333\nIpExt: ListenDrops\nIpExt: 9\n";

        let counters = parse(text);

        assert_eq!((counters["ListenOverflows"], counters["ListenDrops"]), (22, 333));
    }

    #[test]
    fn this_machine_counts_overflows() {
        let now = Counters::now().expect("Linux");

        assert_eq!(now.grown(&now, "ListenOverflows").expect("a counter of every kernel"), 0);
        assert!(now.grown(&now, "NoSuchCounter").is_err());
    }
}
