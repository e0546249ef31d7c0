//! A connection as those behind the gateway know it, and telling them what happened to it.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_protocol::records::{Pair, Sender, item::What};

use crate::bucket::table::Table;
use crate::clock::Clock;
use crate::key::{ConnectionKey, Instance};
use crate::session::{Access, address};
use crate::uplink::events::Happened;
use crate::uplink::{Addressee, Uplink};

/// Describes connections, and reports events of their lives to who wants them.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub instance: Arc<Instance>,
    pub access: Arc<Access>,
    pub uplink: Arc<Uplink>,
    pub clock: Clock,
}

impl Reporter {
    /// Describes a connection. Its address costs a system call, so it is told only where someone wants it.
    pub fn describe(&self, table: &Table, key: ConnectionKey, with_address: bool) -> Option<Sender> {
        let (hot, cold) = (table.find(key.at)?, table.cold.get(key.at.slot as usize)?);
        let fd = hot.fd.as_ref()?;
        let id = self.instance.id_of(key);
        let claims = cold.claims.as_deref();
        let address = with_address.then(|| cold.address.as_deref().copied().or_else(|| address::peer_of(fd))).flatten();
        let pair = |(name, value): (&str, &str)| Pair { name: name.into(), value: value.into() };
        Some(Sender {
            connection: Bytes::copy_from_slice(&id.to_u128().to_be_bytes()),
            user: cold.user.as_deref().unwrap_or_default().to_owned(),
            platform: self.access.platforms.name(cold.platform),
            device: claims.and_then(|b| b.device.as_deref()).unwrap_or_default().to_owned(),
            address: address.map_or_else(String::new, address::shown),
            attributes: claims.map_or_else(Vec::new, |b| b.attributes.iter().map(pair).collect()),
        })
    }

    /// Whether someone wants to hear of it.
    pub fn wants(&self, happened: Happened<'_>) -> bool {
        self.uplink.wants.wanted.has(happened)
    }

    /// Tells of it, if someone wants to hear. The connection must still be in the table.
    pub fn tell(&self, table: &Table, key: ConnectionKey, happened: Happened<'_>) {
        if !self.wants(happened) {
            return;
        }
        let Some(from) = self.describe(table, key, false) else { return };
        let name = if from.user.is_empty() { from.connection.clone() } else { from.user.clone().into() };
        let what = What::Event(happened.record());
        self.uplink.mention(Addressee::Name(&name), from, what, self.clock.now());
    }
}
