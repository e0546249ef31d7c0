//! `ws`: the WebSocket library most Node.js servers are built on, with the broadcast of its own README.
//! Measured: 8.23.0 on Node.js 20. Settings (`bench/peers/ws/server.js`): a cluster of one process a core, publishing
//! through the primary, deflate off, `bufferutil` installed as its README advises.

use super::Dialect;
use super::content::Content;
use crate::peers::kit::{Kit, Program};
use crate::peers::server::{Launch, Site};
use crate::peers::{Peer, bare};
use crate::publish::Form;

#[derive(Debug)]
pub struct Ws;

const SERVER: &str = include_str!("../../peers/ws/server.js");

impl Peer for Ws {
    fn name(&self) -> &'static str {
        "ws"
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &Self
    }

    fn find(&self, kit: &Kit) -> Result<Program, String> {
        kit.node("ws")
    }

    fn launch(&self, program: &Program, site: &Site) -> anyhow::Result<Launch> {
        Ok(Launch::new(program).arguments(&[&site.write("server.js", SERVER)?]).node(site))
    }
}

impl Dialect for Ws {
    fn name(&self) -> &'static str {
        "ws"
    }

    fn is_open_at_once(&self) -> bool {
        true
    }

    fn join(&self, _rooms: &[String]) -> Option<Vec<u8>> {
        None
    }

    fn parse(&self, payload: &[u8]) -> Content {
        bare(payload)
    }

    fn form(&self) -> Form {
        Form::Post("/pub")
    }
}
