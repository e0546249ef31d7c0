//! Questions to several gateways: side by side where order does not matter, one after the other where a page is filled.

use std::sync::Arc;

use tidegate_protocol::records::{ConnectionInfo, QueryReply, QueryRequest};
use tokio::task::JoinSet;

use super::cursor::Place;
use super::interest::GatewaySet;
use super::{Failure, Fleet, Link};

/// A page of connections, each with its gateway.
pub struct Walked {
    /// The connections.
    pub rows: Vec<(Arc<Link>, ConnectionInfo)>,
    /// Where the next page begins.
    pub cursor: Option<String>,
    /// Gateways that did not answer.
    pub missing: Vec<String>,
}

impl Fleet {
    /// The links to some gateways, in order.
    #[must_use]
    pub fn links_of(&self, set: GatewaySet) -> Vec<Arc<Link>> {
        let roster = self.roster();
        set.iter().filter_map(|g| roster.at(g).cloned()).collect()
    }

    /// Asks several gateways side by side; answers in the gateways' order, and why there is none.
    pub async fn ask(&self, set: GatewaySet, request: &QueryRequest) -> Vec<(Arc<Link>, Result<QueryReply, Failure>)> {
        let deadline = self.request_deadline();
        let mut asked = JoinSet::new();
        for link in self.links_of(set) {
            let request = request.clone();
            asked.spawn(async move {
                let reply = link.query(&request, deadline).await.map_err(|error| error.failure());
                (link, reply)
            });
        }
        let mut replies = asked.join_all().await;
        replies.sort_by_key(|(link, _)| link.slot.index);
        replies
    }

    /// Fills a page of connections from one gateway after the other.
    pub async fn walk(&self, mut request: QueryRequest, mut place: Place, limit: usize) -> Walked {
        let mut page = Walked { rows: Vec::new(), cursor: None, missing: Vec::new() };
        let roster = self.roster();
        while let Some(link) = roster.from(place.gateway) {
            let at = link.slot.index.get();
            let (epoch, _) = link.account();
            // After a restart its connections are others: all of them are still to be shown.
            request.cursor = if place.epoch == epoch && place.gateway == at { place.inner } else { String::new() };
            request.limit = u32::try_from(limit - page.rows.len()).unwrap_or(u32::MAX);
            let mut inner = String::new();
            match link.query(&request, self.request_deadline()).await {
                Ok(reply) => {
                    inner = reply.cursor;
                    page.rows.extend(reply.connections.into_iter().map(|c| (Arc::clone(link), c)));
                }
                Err(_) => page.missing.push(link.name.clone()),
            }
            let gateway = if inner.is_empty() { at + 1 } else { at };
            place = Place { gateway, epoch, inner };
            if page.rows.len() >= limit {
                page.cursor = roster.from(place.gateway).map(|_| place.encode());
                break;
            }
        }
        page
    }
}
