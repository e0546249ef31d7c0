//! HELLO: what a connection is told first, of itself and of what holds here.

use std::sync::Arc;

use tidegate_protocol::reply::{self, Hello, Limits, Reconnect};
use tidegate_protocol::ws;

use crate::clock::unix_ms;
use crate::config::ReconnectConfig;
use crate::config::settings::Settings;
use crate::key::{ConnectionKey, Instance};

/// What every HELLO says alike.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub instance: Arc<Instance>,
    pub settings: Arc<Settings>,
    /// Under a conformance suite, which expects nothing it did not send, nobody is greeted.
    pub echo: bool,
    pub reconnect: ReconnectConfig,
    pub ping_ms: u32,
    pub merge_ms: u32,
}

impl Greeting {
    /// Appends HELLO, framed. `expires_s`: when its token ends, in Unix seconds.
    pub fn hello(&self, key: ConnectionKey, user: Option<&str>, expires_s: Option<u32>, out: &mut Vec<u8>) {
        if self.echo {
            return;
        }
        let ReconnectConfig { base_ms, max_ms, jitter_percent } = self.reconnect;
        let hello = Hello {
            connection: &self.instance.id_of(key).to_string(),
            user,
            server: concat!("tidegate/", env!("CARGO_PKG_VERSION")),
            ping_ms: self.ping_ms,
            merge_ms: self.merge_ms,
            limits: Limits { message_bytes: self.settings.message_bytes(), rooms: self.settings.rooms() },
            reconnect: Reconnect { base_ms, max_ms, jitter_percent },
            time_ms: unix_ms(),
            expires_ms: expires_s.map(|at| u64::from(at) * 1_000),
        };
        let mut json = Vec::with_capacity(384);
        reply::hello(&mut json, &hello);
        out.extend_from_slice(&ws::head(ws::OpCode::Text, json.len()));
        out.extend_from_slice(&json);
    }
}
