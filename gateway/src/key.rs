//! Which connection is meant. Here: by the slot it lives in, and by how often that slot had been used before. A slot goes to the
//! next who comes, so whoever keeps a key across a lock has to find its connection again by both.
//! Beyond this gateway: by a [`ConnectionId`], which this run of it ([`Instance`]) gives and knows again.

use tidegate_protocol::ids::ConnectionId;

/// A connection of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    /// Its slot in the bucket's table.
    pub slot: u32,
    /// How often the slot had been used before.
    pub generation: u32,
}

impl SlotKey {
    /// As epoll keeps it with a socket.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// What [`SlotKey::to_u64`] gave.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "two halves")]
    pub fn from_u64(data: u64) -> Self {
        Self { slot: data as u32, generation: (data >> 32) as u32 }
    }
}

/// A connection of this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    /// Its bucket.
    pub bucket: u16,
    /// Where it is there.
    pub at: SlotKey,
}

/// This run of this gateway, as the fleet knows it.
#[derive(Debug)]
pub struct Instance {
    /// Name in receipts and metrics.
    pub name: String,
    /// Start in Unix milliseconds; a new one voids what logic knew.
    pub epoch: u64,
    /// Gateway part of connection ids.
    pub id: u16,
    /// Epoch part of connection ids: the start in tenths of a second.
    pub id_epoch: u32,
    /// How many buckets there are.
    pub buckets: usize,
}

impl Instance {
    /// The id of a connection of this gateway.
    #[must_use]
    pub fn id_of(&self, key: ConnectionKey) -> ConnectionId {
        let ConnectionKey { bucket, at: SlotKey { slot, generation } } = key;
        ConnectionId { gateway: self.id, epoch: self.id_epoch, bucket, slot, generation }
    }

    /// The connection that an id stands for, when it is one of this gateway's.
    #[must_use]
    pub fn key_of(&self, id: ConnectionId) -> Option<ConnectionKey> {
        let ConnectionId { gateway, epoch, bucket, slot, generation } = id;
        let is_ours = gateway == self.id && epoch == self.id_epoch && usize::from(bucket) < self.buckets;
        is_ours.then_some(ConnectionKey { bucket, at: SlotKey { slot, generation } })
    }
}

/// A client at an acceptor that is no connection yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingKey {
    /// Its slot there.
    pub slot: u32,
    /// The acceptor's count of clients when it came, which tells it from others who had the slot.
    pub number: u32,
}

impl PendingKey {
    /// As epoll keeps it with a socket; the number has 31 bits, so that it is never the listener's own.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.slot)
    }

    /// What [`PendingKey::to_u64`] gave.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "two halves")]
    pub fn from_u64(data: u64) -> Self {
        Self { slot: data as u32, number: (data >> 32) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_epoll_as_it_was() {
        for key in
            [(0, 0), (1, 0), (0, 1), (u32::MAX - 1, u32::MAX)].map(|(slot, generation)| SlotKey { slot, generation })
        {
            assert_eq!(SlotKey::from_u64(key.to_u64()), key);
        }
    }
}
