//! One gateway: what the tasks share that are not the acceptors' or the event loops' ([`Node`]).

use std::sync::Arc;

use tidegate_protocol::places::Places;

use crate::accept::capacity::Capacity;
use crate::accept::front::Front;
use crate::backplane::Backplane;
use crate::bucket::Bucket;
use crate::bucket::control::ControlWriter;
use crate::clock::Clock;
use crate::config::GatewayConfig;
use crate::config::settings::Settings;
use crate::connection::host::Host;
use crate::connection::membership::Membership;
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
    /// What decides who may come in.
    pub(crate) access: Arc<Access>,
    /// What the acceptors share.
    pub(crate) front: Arc<Front>,
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
