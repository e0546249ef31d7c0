//! A gateway that has run for weeks, on a clock that was started earlier: what is told of connections as old as it is.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tidegate_protocol::records::{QueryKind, QueryRequest};

use super::{Gateway, Parts};
use crate::bucket::of_user;
use crate::clock::Clock;
use crate::config::{DevicePolicy, GatewayConfig};
use crate::connection::open::Entrant;
use crate::session::{Identity, Named};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE_MS: u64 = 60_000;

async fn gateway(age: Duration) -> Gateway {
    let mut config = GatewayConfig { listen: "127.0.0.1:0".parse().expect("an address"), ..GatewayConfig::default() };
    config.devices.policy = DevicePolicy::KeepNewest;
    Gateway::start_on(config, Clock::start().started_earlier(age)).expect("starts")
}

/// A connection of a user; gives the client's end.
fn open(parts: &Parts, user: &str) -> UnixStream {
    let (near, far) = UnixStream::pair().expect("a pair");
    near.set_nonblocking(true).expect("open");
    let identity = Identity {
        user: Some(Arc::from(user)),
        platform: Named::default(),
        claims: None,
        join: Vec::new(),
        address: None,
    };
    let entrant = Entrant { fd: OwnedFd::from(near), identity, deflate: None, early: &[] };
    parts.front.opener.open(entrant, &mut Vec::new()).expect("let in");
    far
}

/// The opening times of a user's connections, by slot.
fn opened(parts: &Parts, user: &str, then: impl FnOnce(&mut u64)) -> Vec<u64> {
    let mut table = parts.host.buckets[usize::from(of_user(user, parts.host.buckets.len()))].table.write();
    let slots = table.user_slots(user).map(|(_, slots)| slots).unwrap_or_default();
    then(&mut table.cold[slots[0].slot as usize].opened);
    slots.iter().map(|key| table.cold[key.slot as usize].opened).collect()
}

#[tokio::test]
async fn a_connection_is_as_old_as_it_is_after_25_50_and_100_days() {
    for days in [25, 50, 100] {
        let gateway = gateway(DAY * days).await;
        let _client = open(&gateway.parts, "ann");
        // It came with the gateway's first millisecond.
        opened(&gateway.parts, "ann", |opened| *opened = 1);

        let request =
            QueryRequest { kind: QueryKind::Connections.into(), user: "ann".into(), ..QueryRequest::default() };
        let info = gateway.parts.backplane.queries.answer(&request).expect("a good question").connections.remove(0);

        let lasted = u64::from(days) * DAY.as_secs() * 1_000;
        assert!((lasted..lasted + MINUTE_MS).contains(&info.age_ms), "{} after {days} days", info.age_ms);
        assert!(info.idle_ms < MINUTE_MS, "{}", info.idle_ms);
    }
}

#[tokio::test]
async fn a_newcomer_is_new_however_old_the_connection_is_that_it_replaces() {
    for days in [25, 50, 100] {
        let gateway = gateway(DAY * days).await;
        let _older = open(&gateway.parts, "ann");
        opened(&gateway.parts, "ann", |opened| *opened = 1);

        let _newer = open(&gateway.parts, "ann");

        let newest = opened(&gateway.parts, "ann", |_| {}).into_iter().max().expect("one is here");
        assert!(gateway.parts.host.clock().moment() - newest < MINUTE_MS, "{newest} after {days} days");
    }
}
