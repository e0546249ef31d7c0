//! One gateway: what its tasks share ([`Node`]); how a client becomes a connection is in `open`, and the handle that starts
//! and ends it all in `gateway`.
//! Invariant: nothing is opened once it does not accept any more.

use std::sync::Arc;

use tidegate_protocol::handshake::Origins;
use tidegate_protocol::places::Places;

use crate::accept::capacity::Capacity;
use crate::accept::proxy_header::Proxies;
use crate::accept::tls::TlsEndpoint;
use crate::backplane::Backplane;
use crate::bucket::Bucket;
use crate::bucket::control::ControlWriter;
use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::config::{BeforeLogic, GatewayConfig};
use crate::connection::host::Host;
use crate::connection::membership::Membership;
use crate::connection::open::Opener;
use crate::counters::{Population, Totals};
use crate::deliver::fanout::Fanout;
use crate::deliver::merge::Merger;
use crate::key::Instance;
use crate::lifecycle::Lifecycle;
use crate::operate::ops::Holder;
use crate::rooms::Rooms;
use crate::rooms::interest::Interest;
use crate::session::Access;
use crate::uplink::Uplink;

/// What the tasks of a gateway share.
#[derive(Debug)]
pub struct Node {
    /// The configuration.
    pub config: GatewayConfig,
    /// What of it a reload changes.
    pub settings: Arc<Settings>,
    /// This run of the gateway.
    pub instance: Arc<Instance>,
    /// How far its life is.
    pub(crate) lifecycle: Arc<Lifecycle>,
    /// The clock.
    pub clock: Clock,
    /// Writes to single connections.
    pub(crate) control: ControlWriter,
    /// The connections.
    pub buckets: Arc<[Bucket]>,
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// What logic must know.
    pub interest: Arc<Interest>,
    /// What clients say to logic.
    pub uplink: Arc<Uplink>,
    /// Who is in which room.
    pub(crate) membership: Arc<Membership>,
    /// Opens connections.
    pub(crate) opener: Arc<Opener>,
    /// What decides who may come in.
    pub(crate) access: Arc<Access>,
    /// Who may come from a browser.
    pub origins: Origins,
    /// The proxies in front.
    pub(crate) proxies: Proxies,
    /// Where the clients' TLS ends, if they speak it.
    pub(crate) tls: Option<TlsEndpoint>,
    /// Rare events.
    pub totals: Arc<Totals>,
    /// The threads that write.
    pub fanout: Arc<Fanout>,
    /// The tide.
    pub merger: Arc<Merger>,
    /// What logic nodes reach.
    pub(crate) backplane: Arc<Backplane>,
    /// How many are on their way in, and how fast.
    pub(crate) capacity: Arc<Capacity>,
    /// What the event loops share.
    pub(crate) host: Arc<Host>,
    /// Sockets of the ops listener.
    pub(crate) ops_places: Arc<Places<Holder>>,
    /// How many are here.
    pub population: Arc<Population>,
}

impl Node {
    /// Whether no logic node has said yet what it wants to hear, and strangers have to wait for that.
    #[must_use]
    pub fn awaits_logic(&self) -> bool {
        self.config.handshake.before_logic != BeforeLogic::Admit && !self.uplink.wants.is_told()
    }
}
