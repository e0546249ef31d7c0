//! PRESENCE and MEMBERS that clients ask (rules P-1 and P-2): the gateway has checked that they may; the answer is of all
//! gateways together. A list is never longer than a page, and of a large room it is a sample.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::records::{Ask, AskKind, QueryKind, QueryRequest};
use tidegate_protocol::reply::{Member, Members, PresenceCounts};

use crate::config::PresenceConfig;
use crate::fleet::Fleet;
use crate::fleet::cursor::Place;
use crate::fleet::tracker::Ticket;
use crate::settings::Settings;

/// Rows of a page when the client does not say.
const PAGE: usize = 100;

/// Answers clients' questions about rooms.
pub struct Queries {
    fleet: Arc<Fleet>,
    settings: Arc<Settings>,
    config: PresenceConfig,
}

impl Queries {
    /// Answers by what these gateways say.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>, settings: Arc<Settings>, config: &PresenceConfig) -> Self {
        Self { fleet, settings, config: config.clone() }
    }

    /// Answers beside what else clients say.
    pub fn carry(self: &Arc<Self>, ask: Ask, ticket: Ticket) {
        let queries = Arc::clone(self);
        tokio::spawn(async move {
            match AskKind::try_from(ask.kind) {
                Ok(AskKind::Presence) => queries.presence(&ask.room, ticket).await,
                Ok(AskKind::Members) => queries.members(&ask, ticket).await,
                Err(_) => ticket.refuse("unavailable", "this logic node does not answer that", false),
            }
        });
    }

    async fn presence(&self, room: &str, ticket: Ticket) {
        match self.counts(room).await {
            Some((online, users)) => tell(ticket, &PresenceCounts { room, online, users }),
            None => ticket.refuse("unavailable", "a gateway did not answer", true),
        }
    }

    /// Connections and users of a room over all gateways; none when one of them did not say.
    async fn counts(&self, room: &str) -> Option<(u64, u64)> {
        let set = self.fleet.interest().view().room(room);
        let request =
            QueryRequest { kind: QueryKind::Room.into(), room: room.to_owned(), limit: 1, ..QueryRequest::default() };
        let mut sum = (0, 0);
        for (_, reply) in self.fleet.ask(set, &request).await {
            let rooms = reply.ok()?.rooms;
            sum = rooms.iter().fold(sum, |(online, users), r| (online + r.online, users + r.users));
        }
        Some(sum)
    }

    async fn members(&self, asked: &Ask, ticket: Ticket) {
        let Ok(place) = (if asked.cursor.is_empty() { Ok(Place::default()) } else { Place::decode(&asked.cursor) })
        else {
            return ticket.refuse("bad_data", "a cursor comes from the page before", false);
        };
        let most = self.settings.now().limits.page_max;
        // A gateway says 0 where its client has said nothing.
        let rows = if asked.limit == 0 { PAGE.min(most) } else { usize::try_from(asked.limit).unwrap_or(usize::MAX) };
        if rows > most {
            return ticket.refuse(
                "bad_data",
                &format!("limit is a number from 1 to {most} (logic.limits.page_max)"),
                false,
            );
        }
        let Some((online, users)) = self.counts(&asked.room).await else {
            return ticket.refuse("unavailable", "a gateway did not answer", true);
        };
        let config = &self.config;
        let is_sample = online > config.list_max as u64;
        let limit = if is_sample { config.sample } else { rows };
        let request =
            QueryRequest { kind: QueryKind::Connections.into(), room: asked.room.clone(), ..QueryRequest::default() };
        let page = self.fleet.walk(request, place, limit).await;
        // A list without them would look whole. Who has nobody in the room may be silent.
        let holders = self.fleet.interest().view().room(&asked.room);
        if self.fleet.links_of(holders).iter().any(|link| page.missing.contains(&link.name)) {
            return ticket.refuse("unavailable", "a gateway did not answer", true);
        }
        let members = page.rows.into_iter().map(|(_, info)| Member {
            connection: ConnectionId::from_slice(&info.id).unwrap_or_default().to_string(),
            user: info.user,
            platform: info.platform,
        });
        let cursor = page.cursor.filter(|_| !is_sample);
        tell(ticket, &Members { room: &asked.room, members: members.collect(), online, users, is_sample, cursor });
    }
}

fn tell(ticket: Ticket, answer: &impl Serialize) {
    // A struct of strings and numbers serialises without fail.
    ticket.told(Bytes::from(serde_json::to_vec(answer).unwrap_or_default()));
}
