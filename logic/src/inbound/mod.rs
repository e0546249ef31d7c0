//! What clients say, arrived: each item goes to the part that can carry it out, in order, and its answer finds the way back
//! to the gateway that waits for it, also when the item has moved there meanwhile ([`crate::fleet::tracker`]).
//! Handing an item on never waits; what takes time goes on beside.

pub mod chat;
pub mod queries;
pub mod sinks;

use std::sync::Arc;

use tidegate_protocol::records::item::What;
use tokio::sync::mpsc;

use crate::fleet::Heard;
use crate::fleet::tracker::{Seen, Tracker};
use crate::hook::Stranger;
use crate::metrics::inbound::ItemLabels;
use crate::node::Node;
use crate::push::Caller;

/// Pages of items that wait to be handed on; beyond it gateways are not asked for more.
pub const PAGES: usize = 64;

/// Takes items until the node ends.
pub async fn run(node: Arc<Node>, mut heard: mpsc::Receiver<Heard>) {
    let tracker = Arc::new(Tracker::default());
    while let Some(page) = heard.recv().await {
        // What is pushed for one page shares one permit at each gateway, as the pushes of one API request do.
        let request = node.engine.request(Caller::CLIENTS);
        for item in page.items {
            let mut item = item;
            let ticket = match tracker.see(&item.id, &page.link, page.epoch, item.sequence) {
                Seen::First(ticket) => ticket,
                Seen::Repeat => continue,
            };
            let Some(what) = item.what.take() else {
                ticket.refuse("unavailable", "this logic node is older than the gateway and does not know that", false);
                continue;
            };
            let from = item.from.take().unwrap_or_default();
            node.metrics.inbound.items.get_or_create(&kind_of(&what)).inc();
            match what {
                What::Send(send) => chat::carry(&node, &request, &item, from, send, ticket),
                What::Route(route) => sinks::route(&node, &page.link, &item, from, route, ticket),
                What::Ask(ask) => queries::carry(&node, ask, ticket),
                What::Tally(tally) => {
                    node.presence.note(page.link.index, tally);
                    ticket.done();
                }
                What::Connect(connect) => match &node.hook {
                    Some(hook) => {
                        let (gateway, time_ms) = (page.link.name.clone(), item.time_ms);
                        hook.ask(Stranger { id: item.id, time_ms, gateway, from, connect }, ticket);
                    }
                    // Another logic node of the fleet has a hook, and this one has none.
                    None => ticket.refuse("hook_unavailable", "this logic node has no logic.hook", true),
                },
                What::Device(claim) => node.devices.carry(&page.link, from, claim, ticket),
                What::Reply(reply) => {
                    // A reply that is late or too much is the command's business; the agent is told nothing of it.
                    node.agents.take(from, reply);
                    ticket.done();
                }
                What::Event(event) => {
                    sinks::event(&node, &page.link, &item, from, event);
                    ticket.done();
                }
            }
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
