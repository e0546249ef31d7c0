//! Targets: what a push may be for at this gateway, each with its topic. Rooms have a file of their own.
//! Who the members are is the buckets' business.

use std::sync::Arc;

use tidegate_protocol::push::Whom;

use super::room::Room;
use super::{Gather, Topic};
use crate::key::ConnectionKey;
use crate::locks::{MutexGuard, rank};

/// What a batch is for.
#[derive(Clone, Debug)]
pub enum Target {
    /// Every connection.
    Everyone(Arc<Everyone>),
    /// The members of a room.
    Room(Arc<Room>),
    /// A user or a connection.
    Private(Arc<PrivateTopic>),
}

/// Every connection of this gateway.
#[derive(Debug)]
pub struct Everyone {
    /// What has gathered.
    pub topic: Topic,
    /// Life of the numbering: the gateway's.
    pub epoch: Box<str>,
}

/// A target whose window is not kept between pushes.
#[derive(Debug)]
pub struct PrivateTopic {
    /// Which.
    pub whom: Private,
    /// What has gathered.
    pub topic: Topic,
}

/// Which user or connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Private {
    /// A user; its numbering lives in its bucket.
    User(Arc<str>),
    /// A connection; not numbered.
    Connection(ConnectionKey),
}

impl Target {
    /// Everyone, with a numbering of this life that has not begun.
    #[must_use]
    pub fn everyone(epoch: &str) -> Self {
        Self::Everyone(Arc::new(Everyone { topic: Topic::default(), epoch: epoch.into() }))
    }

    /// A user or a connection for which nothing has gathered.
    #[must_use]
    pub fn private(whom: Private) -> Self {
        Self::Private(Arc::new(PrivateTopic { whom, topic: Topic::default() }))
    }

    /// What has gathered for it, its window and its numbering.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        match self {
            Self::Everyone(everyone) => &everyone.topic,
            Self::Room(room) => &room.topic,
            Self::Private(private) => &private.topic,
        }
    }

    /// What has gathered for it.
    pub fn gather(&self) -> MutexGuard<'_, Gather> {
        let rank = match self {
            Self::Everyone(_) | Self::Room(_) => rank::GATHER_SHARED,
            Self::Private(_) => rank::GATHER_PRIVATE,
        };
        self.topic().gather.lock(rank)
    }

    /// How PUSH and GAP name it.
    #[must_use]
    pub fn whom(&self) -> Whom<'_> {
        match self {
            Self::Everyone(_) => Whom::All,
            Self::Room(room) => Whom::Room(&room.name),
            Self::Private(private) => match private.whom {
                Private::User(_) => Whom::User,
                Private::Connection(_) => Whom::Connection,
            },
        }
    }

    /// Whether its messages have numbers.
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        !matches!(self, Self::Private(private) if matches!(private.whom, Private::Connection(_)))
    }

    /// Whether both stand for one target of one connection. Topics of users and connections are made anew after a pause, and
    /// a connection has but one of each.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everyone(a), Self::Everyone(b)) => Arc::ptr_eq(a, b),
            (Self::Room(a), Self::Room(b)) => Arc::ptr_eq(a, b),
            (Self::Private(a), Self::Private(b)) => std::mem::discriminant(&a.whom) == std::mem::discriminant(&b.whom),
            _ => false,
        }
    }
}

impl From<Arc<Room>> for Target {
    fn from(room: Arc<Room>) -> Self {
        Self::Room(room)
    }
}
