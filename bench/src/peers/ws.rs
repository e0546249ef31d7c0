//! `ws` among the peers: a server for Node.js with the broadcast of the library's own README. What it speaks is
//! `dialect::ws`.
//! Measured: 8.23.0 on Node.js 20. Settings (`bench/peers/ws/server.js`): a cluster of one process a core, publishing
//! through the primary, deflate off, `bufferutil` installed as its README advises.

use super::Peer;
use super::kit::{Kit, Program};
use super::server::{Launch, Site};
use crate::dialect::ws::Ws;

const SERVER: &str = include_str!("../../peers/ws/server.js");

impl Peer for Ws {
    fn find(&self, kit: &Kit) -> Result<Program, String> {
        kit.node("ws")
    }

    fn launch(&self, program: &Program, site: &Site) -> anyhow::Result<Launch> {
        Ok(Launch::new(program).arguments(&[&site.write("server.js", SERVER)?]).node(site))
    }
}
