//! The fleet's shape: how many server and client processes N connections need under this machine's open-files limit,
//! and how many connections each pair of processes holds. Pure arithmetic.
//! Invariant: the shares add up to N, differ by at most one, and none is over what its process may open.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};

use anyhow::ensure;

use crate::report::number;
use crate::shares::shares;

/// Gateways that one logic node takes.
const GATEWAYS_MAX: u64 = 128;
/// Files a gateway keeps beside its connections: 256, and two for each of its buckets. With `BUCKETS` that is 272.
const SPARE_FEW: u64 = 1_000;
/// The same where the limit is high and the buckets are as many as the gateway likes: up to 1,024.
const SPARE_MANY: u64 = 4_096;
/// From this limit on a process is one of few, and gets what it likes.
const HIGH_LIMIT: u64 = 100_000;
/// Buckets of each gateway where the fleet is many small processes. Each wakes four times a second to look for silent
/// peers: with the default of at least 64 and 53 gateways that is 13,600 wake-ups a second, most of a core (measured:
/// 19 ms of CPU a second for each gateway), for a parallelism that a 53rd of two cores has no use for.
pub(super) const BUCKETS: u64 = 8;

/// Who holds which connections. Process `i` of the clients talks to process `i` of the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) connections: u64,
    /// Connections of each pair of processes.
    pub(super) shares: Vec<u64>,
    /// Buckets of each gateway; `None`: its own default.
    pub(super) buckets: Option<u64>,
}

/// The allocator's switch against huge pages.
const SMALL_PAGES: (&str, &str) = ("MIMALLOC_ALLOW_THP", "0");

impl Shape {
    /// For `connections` where a process may open `files`, and is to hold no more than `cap` connections.
    pub(super) fn new(connections: u64, files: u64, cap: Option<u64>) -> anyhow::Result<Self> {
        let spare = if files < HIGH_LIMIT { SPARE_FEW } else { SPARE_MANY };
        // A quarter is what a tiny limit still leaves: 256 of 1,024.
        let allowed = files.saturating_sub(spare).max(files / 4).max(1);
        let each = cap.unwrap_or(allowed);
        ensure!((1..=allowed).contains(&each), "{each} connections a process do not fit {files} open files");
        let processes = connections.div_ceil(each);
        ensure!(
            processes <= GATEWAYS_MAX,
            "{} connections at {} a process ({} open files) need {} gateways, and a logic node takes at most \
             {GATEWAYS_MAX}: {} connections. Raise the open-files limit (LimitNOFILE, `ulimit -Hn`)",
            number(connections as f64),
            number(each as f64),
            number(files as f64),
            number(processes as f64),
            number((each * GATEWAYS_MAX) as f64),
        );
        let buckets = (files < HIGH_LIMIT || processes > 1).then_some(BUCKETS);
        Ok(Self { connections, shares: shares(connections, processes).collect(), buckets })
    }

    /// What every process of the fleet has in its environment. Where they are many, none asks for huge pages: an empty
    /// gateway has 13 MB of them, and 1.4 MB in small ones (measured). One process that holds all profits from them.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let (key, value) = SMALL_PAGES;
        if self.processes() > 1 { vec![(key, value.to_owned())] } else { Vec::new() }
    }

    pub(super) fn processes(&self) -> usize {
        self.shares.len()
    }
}

/// A free port on server `index`'s own loopback address. Clients come from 127.0.0.x, so a (source, destination) pair
/// sees a 249th of one process's clients, far from where the kernel's port search gets slow.
pub(super) fn address(index: usize) -> std::io::Result<SocketAddrV4> {
    let ip = Ipv4Addr::new(127, 1, (index / 250) as u8, (index % 250) as u8 + 1);
    match TcpListener::bind((ip, 0))?.local_addr()? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => Err(std::io::Error::other(format!("{address} is not IPv4"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_under_a_limit_of_20_000_is_53_pairs_that_all_fit() {
        let shape = Shape::new(1_000_000, 20_000, None).expect("fits");

        assert_eq!(shape.processes(), 53);
        assert_eq!(shape.shares.iter().sum::<u64>(), 1_000_000);
        assert!(shape.shares.iter().all(|share| (18_867..=18_868).contains(share)), "{shape:?}");
        assert_eq!(shape.buckets, Some(BUCKETS));
    }

    #[test]
    fn a_million_is_one_pair_where_the_limit_allows() {
        let shape = Shape::new(1_000_000, 1_048_576, None).expect("fits");

        assert_eq!((shape.processes(), shape.buckets), (1, None));
    }

    #[test]
    fn more_gateways_than_a_logic_node_takes_are_refused_with_the_arithmetic() {
        let refusal = Shape::new(3_000_000, 20_000, None).expect_err("158 gateways");

        let text = refusal.to_string();
        assert!(text.contains("158 gateways") && text.contains("2,432,000 connections"), "{text}");
    }

    #[test]
    fn a_cap_spreads_further_and_never_beyond_the_limit() {
        assert_eq!(Shape::new(400, 20_000, Some(150)).expect("fits").shares, [134, 133, 133]);
        assert!(Shape::new(400, 1_024, Some(2_000)).is_err());
    }

    #[test]
    fn servers_have_addresses_of_their_own() {
        let (first, other) = (address(0).expect("free"), address(300).expect("free"));

        assert_eq!((first.ip().octets(), other.ip().octets()), ([127, 1, 0, 1], [127, 1, 1, 51]));
    }
}
