//! What the event loops share: how connections are opened, joined to rooms, told of and judged.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::base::Base;
use crate::budget::Budget;
use crate::config::GatewayConfig;
use crate::config::settings::Settings;
use crate::connection::devices::Devices;
use crate::connection::greeting::Greeting;
use crate::connection::host::{Host, Rules};
use crate::connection::membership::Membership;
use crate::connection::open::Opener;
use crate::connection::report::Reporter;
use crate::dialect::Dialects;
use crate::key::Instance;

pub(super) fn host(config: &GatewayConfig, base: &Base) -> Host {
    let reporter = Arc::new(Reporter {
        instance: Arc::clone(&base.instance),
        access: Arc::clone(&base.access),
        uplink: Arc::clone(&base.uplink),
        clock: base.control.clock,
    });
    let opener = Opener {
        buckets: Arc::clone(&base.buckets),
        population: Arc::clone(&base.population),
        access: Arc::clone(&base.access),
        interest: Arc::clone(&base.interest),
        membership: Arc::new(membership(base, &reporter)),
        devices: Arc::new(devices(base, &reporter)),
        greeting: greeting(config, &base.instance, &base.settings),
        totals: Arc::clone(&base.totals),
        turn: AtomicUsize::new(0),
    };
    Host {
        buckets: Arc::clone(&base.buckets),
        opener: Arc::new(opener),
        access: Arc::clone(&base.access),
        uplink: Arc::clone(&base.uplink),
        settings: Arc::clone(&base.settings),
        rules: rules(config),
        unfinished: Budget::new(base.buckets.len()),
        totals: Arc::clone(&base.totals),
        lifecycle: Arc::clone(&base.lifecycle),
    }
}

fn membership(base: &Base, reporter: &Arc<Reporter>) -> Membership {
    Membership {
        buckets: Arc::clone(&base.buckets),
        rooms: Arc::clone(&base.rooms),
        interest: Arc::clone(&base.interest),
        access: Arc::clone(&base.access),
        settings: Arc::clone(&base.settings),
        reporter: Arc::clone(reporter),
        control: base.control,
    }
}

fn devices(base: &Base, reporter: &Arc<Reporter>) -> Devices {
    Devices {
        buckets: Arc::clone(&base.buckets),
        instance: Arc::clone(&base.instance),
        access: Arc::clone(&base.access),
        settings: Arc::clone(&base.settings),
        uplink: Arc::clone(&base.uplink),
        reporter: Arc::clone(reporter),
        clock: base.control.clock,
    }
}

fn greeting(config: &GatewayConfig, instance: &Arc<Instance>, settings: &Arc<Settings>) -> Greeting {
    Greeting {
        instance: Arc::clone(instance),
        settings: Arc::clone(settings),
        echo: config.echo,
        reconnect: config.reconnect.clone(),
        ping_ms: config.heartbeat.idle_ms,
        merge_ms: config.merge.max_ms,
    }
}

fn rules(config: &GatewayConfig) -> Rules {
    Rules {
        echo: config.echo,
        dialects: Dialects::of(&config.compat),
        deflate: config.deflate.clone(),
        heartbeat: config.heartbeat.clone(),
        pending_age_ms: config.pending.age_ms,
        hook_required: config.hook.required,
    }
}
