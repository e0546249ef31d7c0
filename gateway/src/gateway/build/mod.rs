//! Makes the parts of a gateway, from what lies lowest up. Each file makes one tier, each function one part, from what lies below it
//! and the sections that it is about; nothing runs yet when the last has returned, but the threads that write.

mod backplane;
mod base;
mod connections;
mod front;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tidegate_protocol::handshake::Origins;
use tidegate_protocol::places::Places;
use tidegate_tls::TlsError;

use self::backplane::backplane;
use self::base::{Base, Tide, base, tide};
use self::connections::host;
use self::front::{capacity, front, strangers};
use super::drain::Drain;
use super::housekeeping::Housekeeping;
use super::presence::PresenceTick;
use super::{Parts, StartError};
use crate::accept::backlog::Backlog;
use crate::accept::front::Front;
use crate::accept::tls::TlsEndpoint;
use crate::backplane::Backplane;
use crate::clock::Clock;
use crate::config::GatewayConfig;
use crate::connection::host::Host;
use crate::operate::{Maxima, Sources, ops};
use crate::rooms::interest::Interest;
use crate::session::auth::Auth;

/// All parts, the tasks that do not run yet, and the threads that write.
pub(super) struct Built {
    pub parts: Parts,
    pub housekeeping: Housekeeping,
    pub presence: PresenceTick,
    pub threads: Vec<JoinHandle<()>>,
}

/// Makes them from the lowest up.
pub(super) fn build(
    config: &GatewayConfig,
    origins: Origins,
    auth: Auth,
    listen: SocketAddr,
    (cores, clock): (usize, Clock),
) -> Result<Built, StartError> {
    let base = base(config, auth, listen, (cores, clock))?;
    let (tide, threads) = tide(config, &base)?;
    let (tls, backplane_tls) = certificates(config)?;
    let host = Arc::new(host(config, &base));
    let capacity = Arc::new(capacity(&config.handshake, cores, Backlog::of(listen), &base));
    let front = Arc::new(front(&base, strangers(config, origins), &capacity, &host.opener, tls));
    let secret = config.backplane_secret.clone();
    let backplane = Arc::new(backplane((secret, backplane_tls), &base, &tide, &host.opener, &capacity));
    let housekeeping = housekeeping(&base, &tide, &front, &backplane);
    let presence = presence(&base, &tide, config.presence.interval_ms);
    let drain = drain(config, &tide, &host, &base.interest, &backplane);
    let parts = Parts {
        sources: Arc::new(sources(&base, &tide, &front, &drain, maxima(config))),
        drain,
        instance: base.instance,
        host,
        front,
        backplane,
        backplane_at: config.backplane,
        ops_at: config.ops,
        wait_ms: config.uplink.wait_ms,
    };
    Ok(Built { parts, housekeeping, presence, threads })
}

fn housekeeping(base: &Base, tide: &Tide, front: &Arc<Front>, backplane: &Backplane) -> Housekeeping {
    Housekeeping {
        merger: Arc::clone(&tide.merger),
        interest: Arc::clone(&base.interest),
        membership: Arc::clone(&backplane.feed.membership),
        answers: Arc::clone(&backplane.upward.answers),
        front: Arc::clone(front),
    }
}

fn presence(base: &Base, tide: &Tide, interval_ms: u32) -> PresenceTick {
    PresenceTick {
        rooms: Arc::clone(&base.rooms),
        uplink: Arc::clone(&base.uplink),
        merger: Arc::clone(&tide.merger),
        totals: Arc::clone(&base.totals),
        lifecycle: Arc::clone(&base.lifecycle),
        clock: base.control.clock,
        interval_ms,
    }
}

fn drain(
    config: &GatewayConfig,
    tide: &Tide,
    host: &Arc<Host>,
    interest: &Arc<Interest>,
    backplane: &Arc<Backplane>,
) -> Drain {
    Drain {
        plan: config.drain.clone(),
        reconnect_base_ms: config.reconnect.base_ms,
        host: Arc::clone(host),
        interest: Arc::clone(interest),
        backplane: Arc::clone(backplane),
        merger: Arc::clone(&tide.merger),
        fanout: Arc::clone(&tide.fanout),
    }
}

fn maxima(config: &GatewayConfig) -> Maxima {
    Maxima { fanout_bytes: config.fanout.bytes, uplink_items: config.uplink.items, uplink_bytes: config.uplink.bytes }
}

fn sources(base: &Base, tide: &Tide, front: &Arc<Front>, drain: &Drain, maxima: Maxima) -> Sources {
    Sources {
        host: Arc::clone(&drain.host),
        front: Arc::clone(front),
        backplane: Arc::clone(&drain.backplane),
        merger: Arc::clone(&tide.merger),
        fanout: Arc::clone(&tide.fanout),
        rooms: Arc::clone(&base.rooms),
        interest: Arc::clone(&base.interest),
        ops_places: Places::new(ops::CONNECTIONS_MAX),
        maxima,
    }
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
