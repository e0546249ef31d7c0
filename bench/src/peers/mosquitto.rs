//! Mosquitto among the peers: an MQTT broker. What it speaks is `dialect::mosquitto`.
//! Measured: 2.0.11 (Debian, with libwebsockets). Settings (`bench/peers/mosquitto/mosquitto.conf`): no persistence, no
//! logs, TCP_NODELAY, no bound on queued messages, so that nobody misses any. It has one thread by design.

use super::Peer;
use super::kit::{Kit, Program};
use super::server::{Launch, Site};
use crate::dialect::mosquitto::Mosquitto;

const CONFIG: &str = include_str!("../../peers/mosquitto/mosquitto.conf");

impl Peer for Mosquitto {
    fn find(&self, kit: &Kit) -> Result<Program, String> {
        let path = kit.program("mosquitto")?;
        let help = kit.answer(&path, &["-h"]);
        let version = help.split_ascii_whitespace().nth(2).unwrap_or("of unknown version").to_owned();
        Ok(Program { path, version })
    }

    fn launch(&self, program: &Program, site: &Site) -> anyhow::Result<Launch> {
        let config = site.write("mosquitto.conf", &site.fill(CONFIG))?;
        Ok(Launch::new(program).arguments(&["-c", &config]))
    }
}
