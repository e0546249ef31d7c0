//! What an operator sees of a running gateway: its metrics, and the listener that serves them with its health.

pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod ops;

use std::sync::Arc;

use tidegate_protocol::places::Places;

use crate::accept::front::Front;
use crate::backplane::Backplane;
use crate::connection::host::Host;
use crate::deliver::fanout::Fanout;
use crate::deliver::merge::Merger;
use crate::rooms::Rooms;
use crate::rooms::interest::Interest;

/// Where the figures lie that metrics tell.
#[derive(Debug)]
pub(crate) struct Sources {
    pub host: Arc<Host>,
    pub front: Arc<Front>,
    pub backplane: Arc<Backplane>,
    pub merger: Arc<Merger>,
    pub fanout: Arc<Fanout>,
    pub rooms: Arc<Rooms>,
    pub interest: Arc<Interest>,
    /// Sockets of the ops listener.
    pub ops_places: Arc<Places<ops::Holder>>,
    pub maxima: Maxima,
}

/// Bounds of the configuration that are told beside what they bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maxima {
    pub fanout_bytes: usize,
    pub uplink_items: usize,
    pub uplink_bytes: usize,
}
