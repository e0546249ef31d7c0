//! What every request of a logic node shares. Each field has one owner inside; this struct only holds them together.
//! Built by `Logic::start`, read by everything under `api`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use tidegate_protocol::places::Places;
use tokio::sync::{Semaphore, oneshot};

use crate::agents::Agents;
use crate::api::body::Budget;
use crate::blocklist::Blocklist;
use crate::config::LogicConfig;
use crate::devices::Devices;
use crate::fleet::Fleet;
use crate::hook::Hook;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::push::Engine;
use crate::settings::Settings;
use crate::upstream::{Events, Upstream};

/// Appends another tier's metrics, in Prometheus text without `# EOF`.
pub type MetricsText = Arc<dyn Fn(&mut String) + Send + Sync>;

/// What only the binary knows.
#[derive(Clone, Default)]
pub struct Extras {
    /// In `serve`: the gateway's metrics.
    pub metrics: Option<MetricsText>,
    /// In `serve`: where the gateway listens (`ws://…/ws`), perhaps on every address.
    pub gateway_url: Option<String>,
    /// In `serve`: whether that gateway wants tokens.
    pub gateway_wants_tokens: Option<bool>,
    /// Whether `serve --demo` fills rooms that the page can offer.
    pub is_demo: bool,
}

/// The shared state.
pub struct Node {
    /// As started with. What may change meanwhile is in `settings` and `keys`.
    pub config: LogicConfig,
    /// What may change: taken once a request.
    pub settings: Arc<Settings>,
    /// What only the binary knows.
    pub extras: Extras,
    /// The API's TLS, if it has any.
    pub tls: Option<tidegate_tls::Server>,
    /// The backplane's, if it has any; used by the fleet's links.
    pub backplane_tls: Option<Arc<tidegate_tls::Client>>,
    /// Who may call.
    pub keys: Keys,
    /// The gateways, and who has which rooms and users.
    pub fleet: Arc<Fleet>,
    /// Comings and goings that members of all gateways are to be told.
    pub presence: Arc<Presence>,
    /// Who is not to be let in.
    pub blocklist: Arc<Blocklist>,
    /// Users of whom one connection of a kind may stay, and where they came lately.
    pub devices: Arc<Devices>,
    /// Sends pushes on their way.
    pub engine: Arc<Engine>,
    /// Commands and their replies.
    pub agents: Arc<Agents>,
    /// Who is asked before a client is let in, if anyone.
    pub hook: Option<Arc<Hook>>,
    /// What request bodies hold.
    pub budget: Arc<Budget>,
    /// Requests in progress; a permit each, but for those of operators.
    pub in_flight: Arc<Semaphore>,
    /// API connections; a permit each.
    pub connections: Arc<Semaphore>,
    /// The same connections, for the choice of one that makes room.
    pub places: Arc<Places<oneshot::Sender<()>>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Business services.
    pub upstream: Arc<Upstream>,
    /// What they are told of connections.
    pub events: Arc<Events>,
    /// `/openapi.json`: says what this configuration says.
    pub openapi: Bytes,
    /// Set once, by the shutdown: not ready any more.
    pub is_leaving: AtomicBool,
}
