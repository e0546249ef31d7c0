//! How full everything is, read at a scrape, so that nothing on a hot path keeps these gauges.

use std::sync::Arc;

use super::parts::Parts;
use crate::api::Door;
use crate::metrics::fleet::{GatewayLabels, StateLabels};
use crate::metrics::{Gauges, Metrics};

/// The gauges of every part.
pub fn of(parts: &Parts, door: &Arc<Door>, metrics: &Metrics) -> Vec<Gauges> {
    vec![
        of_door(door),
        of_fleet(parts, metrics),
        of_agents(parts, metrics),
        of_upstream(parts, metrics),
        of_memories(parts, metrics),
    ]
}

fn gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn of_door(door: &Arc<Door>) -> Gauges {
    let door = Arc::clone(door);
    Box::new(move || door.measure())
}

fn of_fleet(parts: &Parts, metrics: &Metrics) -> Gauges {
    let (fleet, metrics) = (Arc::clone(&parts.fleet), Arc::clone(&metrics.fleet));
    Box::new(move || {
        let (rooms, users) = fleet.interest().sizes();
        metrics.interest.rooms.set(gauge(rooms));
        metrics.interest.users.set(gauge(users));
        let (open, leaving, resting) = fleet.count();
        for (state, n) in [("open", open), ("leaving", leaving), ("resting", resting)] {
            metrics.states.get_or_create(&StateLabels { state }).set(gauge(n));
        }
        fleet.each(|link| {
            let labels = GatewayLabels { gateway: link.name.clone() };
            let (pushes, bytes) = link.waiting();
            metrics.links.queue_pushes.get_or_create(&labels).set(gauge(pushes));
            metrics.links.queue_bytes.get_or_create(&labels).set(gauge(bytes));
            metrics.links.up.get_or_create(&labels).set(i64::from(link.state().is_up()));
            metrics.links.known.get_or_create(&labels).set(i64::from(fleet.interest().is_known(link.slot.index)));
        });
    })
}

fn of_agents(parts: &Parts, metrics: &Metrics) -> Gauges {
    let (agents, metrics) = (Arc::clone(&parts.agents), Arc::clone(&metrics.agents));
    Box::new(move || {
        metrics.waiting.set(gauge(agents.config.commands.saturating_sub(agents.places.available_permits())));
        metrics.replies_bytes.set(gauge(agents.registry.held()));
        metrics.keys.set(gauge(agents.keys.len()));
        metrics.keys_bytes.set(gauge(agents.keys_held()));
    })
}

fn of_upstream(parts: &Parts, metrics: &Metrics) -> Gauges {
    let (upstream, events, metrics) =
        (Arc::clone(&parts.upstream), Arc::clone(&parts.events), Arc::clone(&metrics.upstream));
    Box::new(move || {
        upstream.sinks().iter().for_each(|sink| sink.refresh());
        metrics.offline_pending.set(gauge(events.pending()));
    })
}

/// What is remembered, and the rooms that wait to be told.
fn of_memories(parts: &Parts, metrics: &Metrics) -> Gauges {
    let (engine, fleet, blocklist) =
        (Arc::clone(&parts.engine), Arc::clone(&parts.fleet), Arc::clone(&parts.blocklist));
    let (presence, devices, hook) = (Arc::clone(&parts.presence), Arc::clone(&parts.devices), parts.hook.clone());
    let (tracker, remembered, rooms) =
        (Arc::clone(&parts.tracker), Arc::clone(&metrics.remembered), metrics.presence.rooms.clone());
    Box::new(move || {
        remembered.dedupe_keys.set(gauge(engine.published.len()));
        remembered.dedupe_bytes.set(gauge(engine.published.bytes()));
        remembered.nonces.set(gauge(engine.nonces.len()));
        remembered.nonces_bytes.set(gauge(engine.nonces.bytes()));
        remembered.seen_users.set(gauge(fleet.interest().seen()));
        remembered.answers.set(gauge(tracker.remembered()));
        remembered.blocks.set(gauge(blocklist.len()));
        remembered.devices.set(gauge(devices.remembered()));
        remembered.hook.set(hook.as_ref().map_or(0, |hook| gauge(hook.remembered())));
        rooms.set(gauge(presence.waiting()));
    })
}
