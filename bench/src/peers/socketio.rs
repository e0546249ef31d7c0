//! Socket.IO among the peers. What it speaks is `dialect::socketio`.
//! Measured: 4.8.4 on Node.js 20. Settings (`bench/peers/socketio/server.js`), as its page on performance advises:
//! WebSocket only, a cluster of one process a core with its cluster adapter, `bufferutil`, the first request forgotten,
//! deflate off (its default).

use super::Peer;
use super::kit::{Kit, Program};
use super::server::{Launch, Site};
use crate::dialect::socketio::SocketIo;

const SERVER: &str = include_str!("../../peers/socketio/server.js");

impl Peer for SocketIo {
    fn path(&self) -> &'static str {
        "/socket.io/"
    }

    fn find(&self, kit: &Kit) -> Result<Program, String> {
        kit.node("@socket.io/cluster-adapter")?;
        kit.node("socket.io")
    }

    fn launch(&self, program: &Program, site: &Site) -> anyhow::Result<Launch> {
        Ok(Launch::new(program).arguments(&[&site.write("server.js", SERVER)?]).node(site))
    }
}
