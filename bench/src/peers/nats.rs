//! NATS among the peers: nats-server with its WebSocket listener. What it speaks is `dialect::nats`.
//! Measured: nats-server 2.15.1. Settings (`bench/peers/nats/nats.conf`): a thread a core (its default), no logs, no
//! compression, the defaults for pending bytes and write deadline.

use super::Peer;
use super::kit::{Kit, Program};
use super::server::{Launch, Site};
use crate::dialect::nats::Nats;

const CONFIG: &str = include_str!("../../peers/nats/nats.conf");

impl Peer for Nats {
    fn find(&self, kit: &Kit) -> Result<Program, String> {
        let path = kit.program("nats-server")?;
        let version = kit.answer(&path, &["--version"]).replace("nats-server: v", "");
        Ok(Program { path, version })
    }

    fn launch(&self, program: &Program, site: &Site) -> anyhow::Result<Launch> {
        let config = site.write("nats.conf", &site.fill(CONFIG))?;
        Ok(Launch::new(program).arguments(&["-c", &config]))
    }
}
