//! The Tidegate tier that answers the push API: takes pushes over HTTP, routes them to the gateways that have their
//! targets, and says what became of them. Holds no client connection and no message longer than its walk.
//! A push walks `api` → `push` → `fleet`. Start at [`Logic`].

mod agents;
mod api;
mod blocklist;
mod clock;
mod config;
mod devices;
mod fleet;
mod hook;
mod http_client;
mod inbound;
mod json;
mod judge;
mod keys;
mod logic;
mod metrics;
mod presence;
mod problem;
mod push;
mod settings;
mod upstream;

pub use crate::api::Extras;
pub use crate::config::{
    AgentsConfig, BackplaneConfig, DedupeConfig, EventsConfig, GATEWAYS_MAX, HookConfig, HttpConfig, KEYS_MAX,
    KeyConfig, LimitsConfig, LogicConfig, Moment, NotAMoment, PageConfig, PresenceConfig, RouteConfig, Scope,
    SinkConfig, UpstreamConfig,
};
pub use crate::fleet::{GatewayLink, PipeDial, PipeStream};
pub use crate::judge::refusals;
pub use crate::logic::{Logic, StartError};
pub use crate::metrics::MetricsText;
pub use crate::settings::is_live;
pub use tidegate_tls::{MutualTlsConfig, TlsConfig};

/// Reads a push as the API reads a body, within the default limits, and says how many messages it has; none when it would be
/// refused. For the benches: what it makes is the API's own affair.
#[doc(hidden)]
#[must_use]
pub fn messages_of(body: &bytes::Bytes) -> Option<usize> {
    let bounds = crate::push::envelope::Bounds { limits: &LimitsConfig::default(), http: &HttpConfig::default() };
    crate::push::envelope::read(body, bounds).ok().map(|push| push.messages.len())
}
