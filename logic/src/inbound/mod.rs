//! What clients say, arrived: each item goes to the part that can carry it out, in order, and its answer finds the way back
//! to the gateway that waits for it, also when the item has moved there meanwhile ([`crate::fleet::tracker`]).
//! Handing an item on never waits; what takes time goes on beside.

mod chat;
mod queries;
mod sinks;

use std::sync::Arc;

use tidegate_protocol::records::item::What;
use tidegate_protocol::records::{Connect, Item, Sender};
use tokio::sync::mpsc;

pub use self::queries::Queries;

use crate::agents::Agents;
use crate::devices::Devices;
use crate::fleet::tracker::{Seen, Ticket, Tracker};
use crate::fleet::{Heard, Link};
use crate::hook::{Hook, Stranger};
use crate::metrics::inbound::{InboundMetrics, ItemLabels};
use crate::presence::Presence;
use crate::push::{Caller, Engine, Request};
use crate::upstream::{Events, Upstream};

/// Pages of items that wait to be handed on; beyond it gateways are not asked for more.
pub const PAGES: usize = 64;

/// Those who carry out what clients say.
pub struct Inbound {
    /// Messages to other clients.
    pub engine: Arc<Engine>,
    /// Replies to commands.
    pub agents: Arc<Agents>,
    /// Who came and went in rooms.
    pub presence: Arc<Presence>,
    /// Claims of newcomers.
    pub devices: Arc<Devices>,
    /// Who is asked before a client is let in, if anyone.
    pub hook: Option<Arc<Hook>>,
    /// Messages for services.
    pub upstream: Arc<Upstream>,
    /// What services are told of connections.
    pub events: Arc<Events>,
    /// Questions about rooms.
    pub queries: Arc<Queries>,
    /// Which items have come in.
    pub tracker: Arc<Tracker>,
    /// What is counted.
    pub metrics: Arc<InboundMetrics>,
}

/// An item, who says it, and where.
struct Arrived<'a> {
    item: &'a Item,
    from: Sender,
    link: &'a Link,
}

impl Inbound {
    /// Takes items until the node ends.
    pub async fn run(self, mut heard: mpsc::Receiver<Heard>) {
        while let Some(page) = heard.recv().await {
            // What is pushed for one page shares one permit at each gateway, as the pushes of one API request do.
            let request = self.engine.request(Caller::CLIENTS);
            let last = page.items.last().map_or(0, |item| item.sequence);
            for item in page.items {
                let mut item = item;
                let ticket = match self.tracker.see(&item.id, &page.link, page.epoch, item.sequence) {
                    Seen::First(ticket) => ticket,
                    Seen::Repeat => continue,
                };
                let Some(what) = item.what.take() else {
                    let why = "this logic node is older than the gateway and does not know that";
                    ticket.refuse("unavailable", why, false);
                    continue;
                };
                self.metrics.items.get_or_create(&kind_of(&what)).inc();
                let from = item.from.take().unwrap_or_default();
                self.hand_on(&request, Arrived { item: &item, from, link: &page.link }, what, ticket);
            }
            page.link.has_heard(page.epoch, last);
        }
    }

    fn hand_on(&self, request: &Request, arrived: Arrived<'_>, what: What, ticket: Ticket) {
        match what {
            What::Send(send) => chat::carry(&self.engine, request, arrived, send, ticket),
            What::Route(route) => sinks::route(&self.upstream, arrived, route, ticket),
            What::Ask(ask) => self.queries.carry(ask, ticket),
            What::Tally(tally) => {
                self.presence.note(arrived.link.slot, tally);
                ticket.done();
            }
            What::Connect(connect) => self.ask(arrived, connect, ticket),
            What::Device(claim) => self.devices.carry(arrived.link, arrived.from, claim, ticket),
            What::Reply(reply) => {
                // A reply that is late or too much is the command's business; the agent is told nothing of it.
                self.agents.take(arrived.from, reply);
                ticket.done();
            }
            What::Event(event) => {
                sinks::event(&self.events, arrived, event);
                ticket.done();
            }
        }
    }

    fn ask(&self, arrived: Arrived<'_>, connect: Connect, ticket: Ticket) {
        let Arrived { item, from, link } = arrived;
        match &self.hook {
            Some(hook) => {
                let (id, time_ms, gateway) = (item.id.clone(), item.time_ms, link.name.clone());
                hook.ask(Stranger { id, time_ms, gateway, from, connect }, ticket);
            }
            // Another logic node of the fleet has a hook, and this one has none.
            None => ticket.refuse("hook_unavailable", "this logic node has no logic.hook", true),
        }
    }
}

fn kind_of(what: &What) -> ItemLabels {
    let kind = match what {
        What::Send(_) => "send",
        What::Route(_) => "route",
        What::Reply(_) => "reply",
        What::Ask(_) => "ask",
        What::Event(_) => "event",
        What::Tally(_) => "tally",
        What::Connect(_) => "connect",
        What::Device(_) => "device",
    };
    ItemLabels { kind }
}
