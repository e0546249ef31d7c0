//! What logic nodes reach.

use std::sync::Arc;

use tidegate_protocol::places::Places;

use super::base::{Base, Tide};
use crate::accept::capacity::Capacity;
use crate::backplane::answers::Answers;
use crate::backplane::commands::Commands;
use crate::backplane::interest::{Feed, Info};
use crate::backplane::push::{Pushes, Targets};
use crate::backplane::queries::Queries;
use crate::backplane::spare::SpareCapacity;
use crate::backplane::uplink::Upward;
use crate::backplane::{self, Backplane, Links};
use crate::connection::open::Opener;
use crate::deliver::merge::Merger;

/// First the secret of logic nodes, and the TLS by which they prove who they are.
pub(super) fn backplane(
    (secret, tls): (String, Option<tidegate_tls::Server>),
    base: &Base,
    tide: &Tide,
    opener: &Opener,
    capacity: &Arc<Capacity>,
) -> Backplane {
    let links = Arc::<Links>::default();
    Backplane {
        secret,
        tls,
        places: Places::new(backplane::LINKS_MAX),
        lifecycle: Arc::clone(&base.lifecycle),
        pushes: pushes(base, &links, tide),
        feed: feed(base, opener, &tide.merger, capacity),
        upward: upward(base, opener, capacity),
        commands: commands(base, opener),
        queries: queries(base),
        links,
    }
}

fn pushes(base: &Base, links: &Arc<Links>, tide: &Tide) -> Pushes {
    let targets = Targets {
        instance: Arc::clone(&base.instance),
        buckets: Arc::clone(&base.buckets),
        rooms: Arc::clone(&base.rooms),
        access: Arc::clone(&base.access),
        population: Arc::clone(&base.population),
        merger: Arc::clone(&tide.merger),
    };
    Pushes {
        targets,
        links: Arc::clone(links),
        fanout: Arc::clone(&tide.fanout),
        totals: Arc::clone(&base.totals),
        clock: base.control.clock,
    }
}

fn feed(base: &Base, opener: &Opener, merger: &Arc<Merger>, capacity: &Arc<Capacity>) -> Feed {
    let (capacity, lifecycle) = (Arc::clone(capacity), Arc::clone(&base.lifecycle));
    let info = Info {
        instance: Arc::clone(&base.instance),
        lifecycle: Arc::clone(&base.lifecycle),
        buckets: Arc::clone(&base.buckets),
        rooms: Arc::clone(&base.rooms),
        population: Arc::clone(&base.population),
        access: Arc::clone(&base.access),
        merger: Arc::clone(merger),
        totals: Arc::clone(&base.totals),
        accept_spare: Box::new(move || capacity.admitting(&lifecycle).1),
    };
    Feed {
        interest: Arc::clone(&base.interest),
        membership: Arc::clone(&opener.membership),
        spare: SpareCapacity::default(),
        clock: base.control.clock,
        info,
    }
}

fn upward(base: &Base, opener: &Opener, capacity: &Capacity) -> Upward {
    let answers = Answers {
        uplink: Arc::clone(&base.uplink),
        buckets: Arc::clone(&base.buckets),
        control: base.control,
        devices: Arc::clone(&opener.devices),
        mailboxes: Arc::clone(&capacity.mailboxes),
    };
    Upward {
        instance: Arc::clone(&base.instance),
        uplink: Arc::clone(&base.uplink),
        answers: Arc::new(answers),
        clock: base.control.clock,
    }
}

fn commands(base: &Base, opener: &Opener) -> Commands {
    Commands {
        instance: Arc::clone(&base.instance),
        buckets: Arc::clone(&base.buckets),
        membership: Arc::clone(&opener.membership),
        devices: Arc::clone(&opener.devices),
        access: Arc::clone(&base.access),
        rooms: Arc::clone(&base.rooms),
        control: base.control,
        totals: Arc::clone(&base.totals),
    }
}

fn queries(base: &Base) -> Queries {
    Queries {
        instance: Arc::clone(&base.instance),
        buckets: Arc::clone(&base.buckets),
        rooms: Arc::clone(&base.rooms),
        access: Arc::clone(&base.access),
        clock: base.control.clock,
    }
}
