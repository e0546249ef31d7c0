//! Makes the parts of a gateway, from what lies lowest up. Each function makes one tier and is handed the sections that it is about;
//! nothing runs yet when the last has returned, but the threads that write.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tidegate_protocol::handshake::Origins;
use tidegate_protocol::places::Places;
use tidegate_tls::TlsError;

use super::StartError;
use super::node::Node;
use crate::accept::admission::{Admission, RATE_A_CORE};
use crate::accept::backlog::Backlog;
use crate::accept::capacity::Capacity;
use crate::accept::front::{self, Front};
use crate::accept::proxy_header::Proxies;
use crate::accept::tls::TlsEndpoint;
use crate::backplane::answers::Answers;
use crate::backplane::commands::Commands;
use crate::backplane::interest::{Feed, Info};
use crate::backplane::push::{Pushes, Targets};
use crate::backplane::queries::Queries;
use crate::backplane::spare::SpareCapacity;
use crate::backplane::uplink::Upward;
use crate::backplane::{self, Backplane, Links};
use crate::bucket::Bucket;
use crate::bucket::control::ControlWriter;
use crate::budget::Budget;
use crate::clock::{Clock, unix_ms};
use crate::config::settings::Settings;
use crate::config::{GatewayConfig, HandshakeConfig};
use crate::connection::devices::Devices;
use crate::connection::greeting::Greeting;
use crate::connection::host::{Host, Rules};
use crate::connection::membership::Membership;
use crate::connection::open::Opener;
use crate::connection::report::Reporter;
use crate::counters::{Population, Totals};
use crate::deliver::fanout::Fanout;
use crate::deliver::merge::Merger;
use crate::deliver::merge::compressor::Compressor;
use crate::key::Instance;
use crate::lifecycle::Lifecycle;
use crate::operate::ops;
use crate::rooms::Rooms;
use crate::rooms::interest::Interest;
use crate::rooms::presence::Watched;
use crate::session::auth::Auth;
use crate::session::blocklist::Blocklist;
use crate::session::{Access, ClaimsPool, Open, Platforms};
use crate::uplink::Uplink;
use crate::uplink::mailbox::Mailbox;

/// Changes of interest a late logic node can catch up with before it needs a snapshot.
const INTEREST_LOG: usize = 256 * 1024;
/// Most acceptors: more than any machine has cores.
const ACCEPTORS_MAX: usize = 4_096;
/// Files kept for logs, listeners, epoll sets and the backplane.
const FILES_RESERVED: usize = 256;
/// A TLS client's own socket, and the pair inside.
const FILES_A_TLS_CLIENT: usize = 3;

/// All parts; and the threads that write.
pub(super) fn build(
    config: GatewayConfig,
    origins: Origins,
    auth: Auth,
    listen: SocketAddr,
    (cores, clock): (usize, Clock),
) -> Result<(Arc<Node>, Vec<JoinHandle<()>>), StartError> {
    let base = base(&config, auth, listen, (cores, clock))?;
    let Base { buckets, instance, population, totals, lifecycle, .. } = &base;
    let (fanout, threads) = Fanout::on_sockets(Arc::clone(buckets), &config.fanout, config.pending.bytes, clock)?;
    let merger = Arc::new(merger(&config, instance, buckets, &fanout, totals));
    let (tls, backplane_tls) = certificates(&config)?;
    let host = Arc::new(host(&config, &base));
    let capacity = Arc::new(capacity(&config.handshake, cores, Backlog::of(listen), Arc::clone(population), clock));
    let links = Arc::<Links>::default();
    let backplane = Backplane {
        secret: config.backplane_secret.clone(),
        tls: backplane_tls,
        places: Places::new(backplane::LINKS_MAX),
        lifecycle: Arc::clone(lifecycle),
        pushes: pushes(&base, &links, &merger, &fanout),
        feed: feed(&base, &host.opener, &merger, &capacity),
        upward: upward(&base, &host.opener, &capacity),
        commands: commands(&base, &host.opener),
        queries: queries(&base),
        links,
    };
    let front = front(&base, strangers(&config, origins), &capacity, &host.opener, tls);
    let node = Node {
        instance: Arc::clone(instance),
        lifecycle: Arc::clone(lifecycle),
        totals: Arc::clone(totals),
        backplane: Arc::new(backplane),
        front: Arc::new(front),
        capacity,
        population: Arc::clone(population),
        buckets: Arc::clone(buckets),
        rooms: base.rooms,
        interest: base.interest,
        uplink: base.uplink,
        access: base.access,
        settings: base.settings,
        control: base.control,
        clock,
        membership: Arc::clone(&host.opener.membership),
        host,
        fanout,
        merger,
        ops_places: Places::new(ops::CONNECTIONS_MAX),
        config,
    };
    Ok((Arc::new(node), threads))
}

/// What connections rest on.
struct Base {
    buckets: Arc<[Bucket]>,
    instance: Arc<Instance>,
    population: Arc<Population>,
    totals: Arc<Totals>,
    lifecycle: Arc<Lifecycle>,
    access: Arc<Access>,
    settings: Arc<Settings>,
    rooms: Arc<Rooms>,
    interest: Arc<Interest>,
    uplink: Arc<Uplink>,
    control: ControlWriter,
}

fn base(config: &GatewayConfig, auth: Auth, listen: SocketAddr, (cores, clock): (usize, Clock)) -> io::Result<Base> {
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

fn merger(
    config: &GatewayConfig,
    instance: &Instance,
    buckets: &Arc<[Bucket]>,
    fanout: &Arc<Fanout>,
    totals: &Arc<Totals>,
) -> Merger {
    let epoch = format!("{:x}", instance.epoch);
    let compressor = Compressor::new(&config.deflate);
    Merger::new(&config.merge, compressor, &epoch, Arc::clone(buckets), Arc::clone(fanout), Arc::clone(totals))
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

fn host(config: &GatewayConfig, base: &Base) -> Host {
    let reporter = Arc::new(Reporter {
        instance: Arc::clone(&base.instance),
        access: Arc::clone(&base.access),
        uplink: Arc::clone(&base.uplink),
        clock: base.control.clock,
    });
    let opener = Opener {
        buckets: Arc::clone(&base.buckets),
        population: Arc::clone(&base.population),
        access: Arc::clone(&base.access),
        interest: Arc::clone(&base.interest),
        membership: Arc::new(membership(base, &reporter)),
        devices: Arc::new(devices(base, &reporter)),
        greeting: greeting(config, &base.instance, &base.settings),
        totals: Arc::clone(&base.totals),
        turn: AtomicUsize::new(0),
    };
    Host {
        buckets: Arc::clone(&base.buckets),
        opener: Arc::new(opener),
        access: Arc::clone(&base.access),
        uplink: Arc::clone(&base.uplink),
        settings: Arc::clone(&base.settings),
        rules: rules(config),
        unfinished: Budget::new(base.buckets.len()),
        totals: Arc::clone(&base.totals),
        lifecycle: Arc::clone(&base.lifecycle),
    }
}

fn membership(base: &Base, reporter: &Arc<Reporter>) -> Membership {
    Membership {
        buckets: Arc::clone(&base.buckets),
        rooms: Arc::clone(&base.rooms),
        interest: Arc::clone(&base.interest),
        access: Arc::clone(&base.access),
        settings: Arc::clone(&base.settings),
        reporter: Arc::clone(reporter),
        control: base.control,
    }
}

fn devices(base: &Base, reporter: &Arc<Reporter>) -> Devices {
    Devices {
        buckets: Arc::clone(&base.buckets),
        instance: Arc::clone(&base.instance),
        access: Arc::clone(&base.access),
        settings: Arc::clone(&base.settings),
        uplink: Arc::clone(&base.uplink),
        reporter: Arc::clone(reporter),
        clock: base.control.clock,
    }
}

fn greeting(config: &GatewayConfig, instance: &Arc<Instance>, settings: &Arc<Settings>) -> Greeting {
    Greeting {
        instance: Arc::clone(instance),
        settings: Arc::clone(settings),
        echo: config.echo,
        reconnect: config.reconnect.clone(),
        ping_ms: config.heartbeat.idle_ms,
        merge_ms: config.merge.max_ms,
    }
}

fn rules(config: &GatewayConfig) -> Rules {
    Rules {
        echo: config.echo,
        compat: config.compat.clone(),
        deflate: config.deflate.clone(),
        heartbeat: config.heartbeat.clone(),
        pending_age_ms: config.pending.age_ms,
        hook_required: config.hook.required,
    }
}

fn pushes(base: &Base, links: &Arc<Links>, merger: &Arc<Merger>, fanout: &Arc<Fanout>) -> Pushes {
    let targets = Targets {
        instance: Arc::clone(&base.instance),
        buckets: Arc::clone(&base.buckets),
        rooms: Arc::clone(&base.rooms),
        access: Arc::clone(&base.access),
        population: Arc::clone(&base.population),
        merger: Arc::clone(merger),
    };
    Pushes {
        targets,
        links: Arc::clone(links),
        fanout: Arc::clone(fanout),
        totals: Arc::clone(&base.totals),
        clock: base.control.clock,
    }
}

fn feed(base: &Base, opener: &Opener, merger: &Arc<Merger>, capacity: &Arc<Capacity>) -> Feed {
    let (capacity, lifecycle) = (Arc::clone(capacity), Arc::clone(&base.lifecycle));
    let info = Info {
        instance: Arc::clone(&base.instance),
        lifecycle: Arc::clone(&base.lifecycle),
        buckets: Arc::clone(&base.buckets),
        rooms: Arc::clone(&base.rooms),
        population: Arc::clone(&base.population),
        access: Arc::clone(&base.access),
        merger: Arc::clone(merger),
        totals: Arc::clone(&base.totals),
        accept_spare: Box::new(move || capacity.admitting(&lifecycle).1),
    };
    Feed {
        interest: Arc::clone(&base.interest),
        membership: Arc::clone(&opener.membership),
        spare: SpareCapacity::default(),
        clock: base.control.clock,
        info,
    }
}

fn upward(base: &Base, opener: &Opener, capacity: &Capacity) -> Upward {
    let answers = Answers {
        uplink: Arc::clone(&base.uplink),
        buckets: Arc::clone(&base.buckets),
        control: base.control,
        devices: Arc::clone(&opener.devices),
        mailboxes: Arc::clone(&capacity.mailboxes),
    };
    Upward {
        instance: Arc::clone(&base.instance),
        uplink: Arc::clone(&base.uplink),
        answers: Arc::new(answers),
        clock: base.control.clock,
    }
}

fn commands(base: &Base, opener: &Opener) -> Commands {
    Commands {
        instance: Arc::clone(&base.instance),
        buckets: Arc::clone(&base.buckets),
        membership: Arc::clone(&opener.membership),
        devices: Arc::clone(&opener.devices),
        access: Arc::clone(&base.access),
        rooms: Arc::clone(&base.rooms),
        control: base.control,
        totals: Arc::clone(&base.totals),
    }
}

fn queries(base: &Base) -> Queries {
    Queries {
        instance: Arc::clone(&base.instance),
        buckets: Arc::clone(&base.buckets),
        rooms: Arc::clone(&base.rooms),
        access: Arc::clone(&base.access),
        clock: base.control.clock,
    }
}

fn strangers(config: &GatewayConfig, origins: Origins) -> front::Rules {
    front::Rules {
        handshake: config.handshake.clone(),
        auth_deadline_ms: config.auth.deadline_ms,
        unauthenticated_max: config.auth.unnamed_max,
        takes_query_token: config.auth.query,
        takes_user_data: config.compat.user_data,
        hook_required: config.hook.required,
        deflate: config.deflate.clone(),
        kernel_bytes: config.pending.kernel_bytes,
        origins,
        proxies: Proxies::new(&config.proxy),
    }
}

fn front(
    base: &Base,
    rules: front::Rules,
    capacity: &Arc<Capacity>,
    opener: &Arc<Opener>,
    tls: Option<TlsEndpoint>,
) -> Front {
    Front {
        rules,
        capacity: Arc::clone(capacity),
        access: Arc::clone(&base.access),
        opener: Arc::clone(opener),
        uplink: Arc::clone(&base.uplink),
        settings: Arc::clone(&base.settings),
        tls: tls.map(Arc::new),
        lifecycle: Arc::clone(&base.lifecycle),
        totals: Arc::clone(&base.totals),
        clock: base.control.clock,
    }
}

fn capacity(
    config: &HandshakeConfig,
    cores: usize,
    backlog: Backlog,
    population: Arc<Population>,
    clock: Clock,
) -> Capacity {
    let rate_max = match config.rate_max {
        0 => RATE_A_CORE.saturating_mul(u32::try_from(cores).unwrap_or(u32::MAX)),
        n => n,
    };
    let acceptors = if config.lobbies == 0 { cores } else { config.lobbies }.min(ACCEPTORS_MAX);
    Capacity {
        admission: Mutex::new(Admission::new(rate_max, config.lag_ms, clock.now())),
        backlog,
        handshakes: Budget::new(acceptors),
        unauthenticated: Budget::new(acceptors),
        population,
        mailboxes: (0..acceptors).map(|_| Mailbox::default()).collect(),
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

/// Reads the certificates of the listener and of the backplane, where they are configured.
fn certificates(config: &GatewayConfig) -> Result<(Option<TlsEndpoint>, Option<tidegate_tls::Server>), StartError> {
    let tls = TlsEndpoint::new(&config.tls, config.handshake.tls_in_flight).map_err(in_section("gateway.tls"))?;
    let backplane = config.backplane_tls.is_on().then(|| {
        let server = tidegate_tls::Server::open_mutual(&config.backplane_tls, &["h2"]);
        server.map_err(in_section("gateway.backplane_tls"))
    });
    Ok((tls, backplane.transpose()?))
}

fn in_section(section: &'static str) -> impl Fn(TlsError) -> StartError {
    move |error| StartError::Config(format!("{section}: {error}"))
}
