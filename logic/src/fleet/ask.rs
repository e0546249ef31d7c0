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
    /// All gateways.
    #[must_use]
    pub fn every(&self) -> GatewaySet {
        let mut set = GatewaySet::default();
        self.links().iter().for_each(|link| set.insert(link.index));
        set
    }

    /// The links to some gateways, in order.
    pub fn links_of(&self, set: GatewaySet) -> impl Iterator<Item = &Arc<Link>> {
        set.iter().filter_map(|g| self.links().get(g.get()))
    }

    /// Asks several gateways side by side; answers in the gateways' order, and why there is none.
    pub async fn ask(&self, set: GatewaySet, request: &QueryRequest) -> Vec<(Arc<Link>, Result<QueryReply, Failure>)> {
        let deadline = self.request_deadline();
        let mut asked = JoinSet::new();
        for link in self.links_of(set) {
            let (link, request) = (Arc::clone(link), request.clone());
            asked.spawn(async move {
                let reply = link.query(&request, deadline).await.map_err(|error| error.failure());
                (link, reply)
            });
        }
        let mut replies = asked.join_all().await;
        replies.sort_by_key(|(link, _)| link.index);
        replies
    }

    /// Fills a page of connections from one gateway after the other.
    pub async fn walk(&self, mut request: QueryRequest, mut place: Place, limit: usize) -> Walked {
        let mut page = Walked { rows: Vec::new(), cursor: None, missing: Vec::new() };
        let links = self.links();
        while let Some(link) = links.get(place.gateway) {
            let (epoch, _) = link.account();
            // After a restart its connections are others: all of them are still to be shown.
            request.cursor = if place.epoch == epoch { place.inner } else { String::new() };
            request.limit = u32::try_from(limit - page.rows.len()).unwrap_or(u32::MAX);
            let mut inner = String::new();
            match link.query(&request, self.request_deadline()).await {
                Ok(reply) => {
                    inner = reply.cursor;
                    page.rows.extend(reply.connections.into_iter().map(|c| (Arc::clone(link), c)));
                }
                Err(_) => page.missing.push(link.name.clone()),
            }
            let gateway = if inner.is_empty() { place.gateway + 1 } else { place.gateway };
            place = Place { gateway, epoch, inner };
            if page.rows.len() >= limit {
                page.cursor = (place.gateway < links.len()).then(|| place.encode());
                break;
            }
        }
        page
    }
}
