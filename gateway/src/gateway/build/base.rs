//! What connections rest on, and what pushes pass on their way to them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::bucket::Bucket;
use crate::bucket::control::ControlWriter;
use crate::clock::{Clock, unix_ms};
use crate::config::GatewayConfig;
use crate::config::settings::Settings;
use crate::counters::{Population, Totals};
use crate::deliver::fanout::Fanout;
use crate::deliver::merge::Merger;
use crate::deliver::merge::compressor::Compressor;
use crate::key::Instance;
use crate::lifecycle::Lifecycle;
use crate::rooms::Rooms;
use crate::rooms::interest::Interest;
use crate::rooms::presence::Watched;
use crate::session::auth::Auth;
use crate::session::blocklist::Blocklist;
use crate::session::{Access, ClaimsPool, Open, Platforms};
use crate::uplink::Uplink;

/// Changes of interest a late logic node can catch up with before it needs a snapshot.
const INTEREST_LOG: usize = 256 * 1024;
/// Files kept for logs, listeners, epoll sets and the backplane.
const FILES_RESERVED: usize = 256;
/// A TLS client's own socket, and the pair inside.
const FILES_A_TLS_CLIENT: usize = 3;

/// What connections rest on.
pub(super) struct Base {
    pub buckets: Arc<[Bucket]>,
    pub instance: Arc<Instance>,
    pub population: Arc<Population>,
    pub totals: Arc<Totals>,
    pub lifecycle: Arc<Lifecycle>,
    pub access: Arc<Access>,
    pub settings: Arc<Settings>,
    pub rooms: Arc<Rooms>,
    pub interest: Arc<Interest>,
    pub uplink: Arc<Uplink>,
    pub control: ControlWriter,
}

pub(super) fn base(
    config: &GatewayConfig,
    auth: Auth,
    listen: SocketAddr,
    (cores, clock): (usize, Clock),
) -> io::Result<Base> {
    let buckets = buckets(config.buckets, cores)?;
    let instance = instance(config, listen, buckets.len());
    Ok(Base {
        population: Arc::new(Population::new(connections_max(config, buckets.len()))),
        totals: Arc::default(),
        lifecycle: Arc::default(),
        access: Arc::new(access(config, auth)),
        settings: Arc::new(Settings::of(config)),
        rooms: Arc::new(rooms(config, &instance)),
        interest: Arc::new(Interest::new(INTEREST_LOG)),
        uplink: Arc::new(Uplink::new(&config.uplink)),
        control: ControlWriter { clock, pending_bytes_max: config.pending.bytes },
        instance: Arc::new(instance),
        buckets,
    })
}

#[expect(clippy::cast_possible_truncation, reason = "config.problems() bounds the number of buckets")]
fn buckets(configured: usize, cores: usize) -> io::Result<Arc<[Bucket]>> {
    let count = match configured {
        0 => (cores * 32).next_power_of_two().clamp(64, 1024),
        n => n,
    };
    Ok((0..count).map(|i| Bucket::new(i as u16)).collect::<io::Result<Vec<_>>>()?.into())
}

fn instance(config: &GatewayConfig, listen: SocketAddr, buckets: usize) -> Instance {
    let epoch = unix_ms();
    Instance {
        name: if config.name.is_empty() { listen.to_string() } else { config.name.clone() },
        epoch,
        id: if config.id == 0 { fastrand::u16(1..) } else { config.id },
        #[expect(clippy::cast_possible_truncation, reason = "wraps every 13 years, by design")]
        id_epoch: (epoch / 100) as u32,
        buckets,
    }
}

/// What pushes pass on their way to the connections.
pub(super) struct Tide {
    pub merger: Arc<Merger>,
    pub fanout: Arc<Fanout>,
}

pub(super) fn tide(config: &GatewayConfig, base: &Base) -> io::Result<(Tide, Vec<JoinHandle<()>>)> {
    let Base { buckets, totals, control, .. } = base;
    let (fanout, threads) =
        Fanout::on_sockets(Arc::clone(buckets), &config.fanout, control.pending_bytes_max, control.clock)?;
    let (compressor, epoch) = (Compressor::new(&config.deflate), format!("{:x}", base.instance.epoch));
    let merger =
        Merger::new(&config.merge, compressor, &epoch, Arc::clone(buckets), Arc::clone(&fanout), Arc::clone(totals));
    Ok((Tide { merger: Arc::new(merger), fanout }, threads))
}

fn rooms(config: &GatewayConfig, instance: &Instance) -> Rooms {
    let watched = Watched::new(&config.presence, config.limits.rooms_total);
    Rooms::watching(instance.buckets, config.limits.rooms_total, &format!("{:x}-", instance.epoch), watched)
}

fn access(config: &GatewayConfig, auth: Auth) -> Access {
    Access {
        platforms: Platforms::knowing(config.devices.platforms.keys().map(String::as_str)),
        auth,
        claims: ClaimsPool::default(),
        open: Open::of(config),
        blocklist: Blocklist::default(),
    }
}

/// As configured, or what the open files allow.
fn connections_max(config: &GatewayConfig, buckets: usize) -> usize {
    let files_each = if config.tls.is_on() { FILES_A_TLS_CLIENT } else { 1 };
    match config.connections_max {
        0 => (files_max().saturating_sub(FILES_RESERVED + 2 * buckets) / files_each).max(64),
        n => n,
    }
}

fn files_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(usize::MAX / 2, |n| usize::try_from(n).unwrap_or(usize::MAX / 2))
}
