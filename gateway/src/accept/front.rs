//! What all acceptors share, and the tasks that shake hands in TLS with them: the way from a stranger to a connection.

use std::sync::Arc;

use tidegate_protocol::handshake::Origins;

use super::capacity::Capacity;
use super::proxy_header::Proxies;
use super::tls::TlsEndpoint;
use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::config::{BeforeLogic, DeflateConfig, HandshakeConfig};
use crate::connection::open::Opener;
use crate::counters::Totals;
use crate::lifecycle::Lifecycle;
use crate::session::Access;
use crate::uplink::Uplink;

/// What of the configuration holds for strangers as long as the gateway runs.
#[derive(Debug)]
pub(crate) struct Rules {
    pub handshake: HandshakeConfig,
    /// From the 101 to AUTH.
    pub auth_deadline_ms: u32,
    /// Most clients that have yet to say who they are.
    pub unauthenticated_max: usize,
    /// Tokens are taken from the query too.
    pub takes_query_token: bool,
    /// The dialect of bare messages has its path.
    pub takes_user_data: bool,
    /// Nobody comes in without the connect hook's word.
    pub hook_required: bool,
    pub deflate: DeflateConfig,
    /// What the kernel keeps unsent for a client.
    pub kernel_bytes: u32,
    /// Who may come from a browser.
    pub origins: Origins,
    /// The proxies in front.
    pub proxies: Proxies,
}

/// What all acceptors share.
#[derive(Debug)]
pub(crate) struct Front {
    pub rules: Rules,
    /// How many are on their way in, and how fast; the fleet is told of it too.
    pub capacity: Arc<Capacity>,
    pub access: Arc<Access>,
    pub opener: Arc<Opener>,
    pub uplink: Arc<Uplink>,
    pub settings: Arc<Settings>,
    /// Where the clients' TLS ends, if they speak it.
    pub tls: Option<Arc<TlsEndpoint>>,
    pub lifecycle: Arc<Lifecycle>,
    pub totals: Arc<Totals>,
    pub clock: Clock,
}

impl Front {
    /// Whether no logic node has said yet what it wants to hear, and strangers have to wait for that.
    pub fn awaits_logic(&self) -> bool {
        self.rules.handshake.before_logic != BeforeLogic::Admit && !self.uplink.wants.is_told()
    }
}
