//! Whether a gateway would start with a configuration: what contradicts itself, and what the files say that it names.
//! One judgement for `config check`, the start and a reload, so that none of them takes what another refuses.
//! Opens no listener and starts nothing: an address that is in use shows at the start alone.

use tidegate_protocol::handshake::Origins;
use tidegate_tls::Server;

use crate::config::GatewayConfig;
use crate::config::WriterKind;
use crate::session::auth::Verifier;
use crate::writer::ring;

/// Why a gateway must not start with this configuration, each a sentence that names its key; empty when all is well.
#[must_use]
pub fn refusals(config: &GatewayConfig) -> Vec<String> {
    let mut out = config.problems();
    if !out.is_empty() {
        // What stands on these would only be said twice.
        return out;
    }
    out.extend(Origins::parse(&config.allowed_origins).err().map(|error| error.to_string()));
    out.extend(Verifier::new(&config.auth).err().map(|error| error.to_string()));
    if config.tls.is_on() {
        let refused = Server::open(&config.tls, &["http/1.1"]).err();
        out.extend(refused.map(|error| format!("gateway.tls: {error}")));
    }
    if config.backplane_tls.is_on() {
        let refused = Server::open_mutual(&config.backplane_tls, &["h2"]).err();
        out.extend(refused.map(|error| format!("gateway.backplane_tls: {error}")));
    }
    if config.fanout.writer == WriterKind::IoUring {
        let refused = ring::probe().err();
        out.extend(refused.map(|why| format!("gateway.fanout.writer = \"io_uring\", but {why}")));
    }
    out
}
