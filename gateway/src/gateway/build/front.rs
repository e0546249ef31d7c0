//! What the acceptors share: rules for strangers, and the bounds that all keep together.

use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_protocol::handshake::Origins;

use super::base::Base;
use crate::accept::admission::{Admission, RATE_A_CORE};
use crate::accept::backlog::Backlog;
use crate::accept::capacity::Capacity;
use crate::accept::front::{self, Front};
use crate::accept::proxy_header::Proxies;
use crate::accept::tls::TlsEndpoint;
use crate::budget::Budget;
use crate::config::{GatewayConfig, HandshakeConfig};
use crate::connection::open::Opener;
use crate::uplink::mailbox::Mailbox;

/// Most acceptors: more than any machine has cores.
const ACCEPTORS_MAX: usize = 4_096;

pub(super) fn strangers(config: &GatewayConfig, origins: Origins) -> front::Rules {
    front::Rules {
        handshake: config.handshake.clone(),
        auth_deadline_ms: config.auth.deadline_ms,
        unauthenticated_max: config.auth.unnamed_max,
        takes_query_token: config.auth.query,
        takes_user_data: config.compat.user_data,
        hook_required: config.hook.required,
        deflate: config.deflate.clone(),
        kernel_bytes: config.pending.kernel_bytes,
        origins,
        proxies: Proxies::new(&config.proxy),
    }
}

pub(super) fn front(
    base: &Base,
    rules: front::Rules,
    capacity: &Arc<Capacity>,
    opener: &Arc<Opener>,
    tls: Option<TlsEndpoint>,
) -> Front {
    Front {
        rules,
        capacity: Arc::clone(capacity),
        access: Arc::clone(&base.access),
        opener: Arc::clone(opener),
        uplink: Arc::clone(&base.uplink),
        settings: Arc::clone(&base.settings),
        tls: tls.map(Arc::new),
        lifecycle: Arc::clone(&base.lifecycle),
        totals: Arc::clone(&base.totals),
        clock: base.control.clock,
    }
}

pub(super) fn capacity(config: &HandshakeConfig, cores: usize, backlog: Backlog, base: &Base) -> Capacity {
    let rate_max = match config.rate_max {
        0 => RATE_A_CORE.saturating_mul(u32::try_from(cores).unwrap_or(u32::MAX)),
        n => n,
    };
    let acceptors = if config.lobbies == 0 { cores } else { config.lobbies }.min(ACCEPTORS_MAX);
    Capacity {
        admission: Mutex::new(Admission::new(rate_max, config.lag_ms, base.control.clock.now())),
        backlog,
        handshakes: Budget::new(acceptors),
        unauthenticated: Budget::new(acceptors),
        population: Arc::clone(&base.population),
        mailboxes: (0..acceptors).map(|_| Mailbox::default()).collect(),
    }
}
