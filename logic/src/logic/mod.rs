//! A logic node: what starts, reloads and ends one. Alone sees all parts; each part gets what it needs and no more.
//! Parts: `parts` (how they are put together), `gauges` (what a scrape reads from them).

mod gauges;
mod parts;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_tls::Renewal;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::parts::Parts;
use crate::api::{Api, Door, Extras};
use crate::config::{GATEWAYS_MAX, LogicConfig};
use crate::fleet::{Fleet, GatewayLink};
use crate::judge::{certificates, refusals};
use crate::metrics::Metrics;
use crate::settings::{Current, Settings};
use crate::upstream::Upstream;

/// Why a logic node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("{}", .0.join("; "))]
    Config(Vec<String>),
    /// More gateways than a node can tell apart.
    #[error("{0} gateways, at most {GATEWAYS_MAX}")]
    TooManyGateways(usize),
    /// A sink cannot be used.
    #[error("{0}")]
    Upstream(String),
    /// The address is taken or not ours.
    #[error("cannot listen on {address} for the push API: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
}

/// A running logic node.
pub struct Logic {
    api: Arc<Api>,
    fleet: Arc<Fleet>,
    upstream: Arc<Upstream>,
    settings: Arc<Settings>,
    /// As started with. What may change meanwhile is in `settings` and the API's keys.
    start: LogicConfig,
    api_addr: SocketAddr,
    leave: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Logic {
    /// Listens, and starts to link the gateways. `links` are the gateways, in a fixed order; `config.gateways` is only
    /// read by whoever makes them of it.
    ///
    /// # Errors
    /// [`StartError`]. A gateway that cannot be reached is none: it is dialled until it can.
    pub async fn start(config: LogicConfig, links: Vec<GatewayLink>, extras: Extras) -> Result<Self, StartError> {
        let problems = refusals(&config);
        if !problems.is_empty() {
            return Err(StartError::Config(problems));
        }
        if links.len() > GATEWAYS_MAX {
            return Err(StartError::TooManyGateways(links.len()));
        }
        let metrics = Metrics::default();
        let upstream = parts::upstream(&config, &metrics)?;
        let (listener, api_addr) = listen(config.api).await?;
        let (tls, backplane_tls) = certificates(&config).map_err(|problem| StartError::Config(vec![problem]))?;
        let (hear, heard) = mpsc::channel(crate::inbound::PAGES);
        let fleet = parts::fleet(&config, backplane_tls, hear, links, &metrics);
        let parts = Parts::new(&config, fleet, upstream, &metrics)?;
        parts.want();
        parts.deliver().await;
        parts.fleet.dial();
        tokio::spawn(parts.inbound(&config, &metrics).run(heard));
        tokio::spawn(Arc::clone(&parts.presence).run());
        tokio::spawn(Arc::clone(&parts.blocklist).run());
        let door = Arc::new(Door::new(&config.limits, tls, Arc::clone(&metrics.api)));
        let api = Arc::new(parts.api(&config, door, extras, metrics));
        let (leave, left) = watch::channel(false);
        let server = tokio::spawn(crate::api::serve(Arc::clone(&api), listener, left));
        let Parts { fleet, upstream, settings, .. } = parts;
        tracing::debug!(address = %api_addr, gateways = fleet.roster().len(), "push API is open");
        Ok(Self { api, fleet, upstream, settings, start: config, api_addr, leave, server })
    }

    /// Where the push API listens; tells the port when the configuration said 0.
    #[must_use]
    pub fn api_addr(&self) -> SocketAddr {
        self.api_addr
    }

    /// Whether callers of the API speak TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.api.door.tls.is_some()
    }

    /// Reads the certificates again. Connections go on as they began, also when what was read is put in force.
    ///
    /// # Errors
    /// What could not be read, each with its section and file.
    pub fn renewal(&self) -> Result<Renewal<'_>, Vec<String>> {
        let api = self.api.door.tls.as_ref().map(tidegate_tls::Server::renewal);
        let backplane = self.fleet.tls().map(tidegate_tls::Client::renewal);
        Renewal::all([("logic.tls", api), ("logic.backplane_tls", backplane)])
    }

    /// The links of `config.gateways`.
    #[must_use]
    pub fn links_of(config: &LogicConfig) -> Vec<GatewayLink> {
        config.gateways.iter().cloned().map(GatewayLink::Dial).collect()
    }

    /// Whether [`Logic::reload`] would take this configuration.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn check(&self, config: &LogicConfig) -> Result<(), Vec<String>> {
        let mut problems = config.problems();
        if config.keys.is_empty() && !self.api.keys.now().is_open() {
            problems.push(
                "logic.keys: a node with keys does not become open by a reload; restart it if that is meant".into(),
            );
        }
        problems.extend(self.fleet.judge(&config.gateways).err());
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Takes over what may change while the node runs ([`crate::is_live`]); the rest of `config` is left for the next start.
    /// Requests in progress end by the settings they began with.
    ///
    /// # Errors
    /// Those of [`Logic::check`], and no others; then nothing has changed.
    pub fn reload(&self, config: &LogicConfig) -> Result<(), Vec<String>> {
        self.check(config)?;
        self.fleet.target(&config.gateways).map_err(|problem| vec![problem])?;
        self.api.keys.replace(&config.keys);
        self.settings.replace(Current::of(config, &self.start));
        self.api.door.budget.resize(config.limits.bodies_bytes);
        Ok(())
    }

    /// From now on these gateways and no others: new ones are dialled, missing ones drain and are let go.
    ///
    /// # Errors
    /// What is wrong with the list; then nothing has changed.
    pub fn link(&self, gateways: &[String]) -> Result<(), Vec<String>> {
        self.fleet.target(gateways).map_err(|problem| vec![problem])
    }

    /// Leaves: not ready any more, no new connections, requests in progress are finished within `http.shutdown_ms`.
    pub async fn shutdown(self) {
        self.api.door.leave();
        let _ = self.leave.send(true);
        // Ends at once: it waits for nothing but `leave`.
        let _ = self.server.await;
        let deadline = Duration::from_millis(u64::from(self.settings.now().http.shutdown_ms));
        let finish = async {
            if timeout(deadline, self.api.door.emptied()).await.is_err() {
                tracing::warn!("some API requests were cut short by the shutdown");
            }
        };
        tokio::join!(finish, self.upstream.stop(deadline));
        self.fleet.stop();
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |error| StartError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}
