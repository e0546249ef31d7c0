//! The tier that holds the connections. A push comes in at [`backplane`], gathers in [`deliver::merge`], is encoded once and cut
//! into one job a bucket in [`deliver::fanout`], and leaves through [`bucket::walk`] with one write per connection.
//! Connections come in at `accept` and live in a [`bucket`], which reads, answers and sweeps them.
//! Knows nothing of logic but the records of `tidegate-protocol`; never dials anyone.

mod accept;
pub mod backplane;
pub mod bucket;
mod budget;
mod clock;
mod config;
mod connection;
mod counters;
pub mod deliver;
mod dialect;
mod gateway;
pub mod key;
mod lifecycle;
pub mod locks;
pub mod memory;
mod operate;
mod poll;
mod rooms;
pub mod session;
pub mod topic;
mod uplink;
mod writer;

pub use config::settings::is_reloadable;
pub use config::{
    AuthConfig, AuthMode, BeforeLogic, CompatConfig, DeflateConfig, DevicePolicy, DevicesConfig, DrainConfig,
    FanoutConfig, Freedom, GatewayConfig, HandshakeConfig, HeartbeatConfig, HookConfig, KeyConfig, LimitsConfig,
    MergeConfig, OpenConfig, OpenGrantConfig, PendingConfig, PresenceConfig, ProxyConfig, ProxyProtocol,
    ReconnectConfig, TokenAlgorithm, UplinkConfig, WriterKind,
};
pub use gateway::check::refusals;
pub use gateway::{Gateway, StartError};
pub use operate::ops::MetricsText;
pub use session::is_exposed;
pub use tidegate_tls::{MutualTlsConfig, TlsConfig};
