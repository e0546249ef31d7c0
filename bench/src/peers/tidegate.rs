//! Tidegate among the peers: this very binary as `tidegate serve`, both tiers in one process, every default.
//! It merges: a push to all leaves at once when nobody's window is open, and what comes meanwhile leaves together. The
//! table says how many messages a frame held.

use super::Peer;
use super::kit::{Kit, Program};
use super::server::{Launch, Site};
use crate::dialect::Tidegate;

impl Peer for Tidegate {
    fn path(&self) -> &'static str {
        "/ws"
    }

    fn find(&self, kit: &Kit) -> Result<Program, String> {
        let path = std::env::current_exe().map_err(|error| error.to_string())?;
        let version = kit.answer(&path, &["--version"]).replace("tidegate ", "");
        Ok(Program { path, version })
    }

    fn launch(&self, program: &Program, site: &Site) -> anyhow::Result<Launch> {
        let (listen, api) = (site.clients.to_string(), site.publish.to_string());
        Ok(Launch::new(program).arguments(&["serve", "--listen", &listen, "--api", &api]))
    }
}
