//! A logic node: what starts, reloads and ends one. Alone sees all parts; each part gets what it needs and no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_protocol::places::Places;
use tidegate_tls::Renewal;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::agents::Agents;
use crate::api::body::Budget;
use crate::blocklist::Blocklist;
use crate::config::{GATEWAYS_MAX, LogicConfig};
use crate::devices::Devices;
use crate::fleet::{Fleet, GatewayLink, Parts};
use crate::hook::Hook;
use crate::http_client::connect::system_resolver;
use crate::inbound::{Inbound, Queries};
use crate::judge::refusals;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::node::Extras;
use crate::node::Node;
use crate::presence::Presence;
use crate::push::Engine;
use crate::settings::{Current, Settings};
use crate::upstream::{Actions, Events, Pushing, Upstream};

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
    node: Arc<Node>,
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
        let metrics = Arc::new(Metrics::default());
        let (upstream, depth) = (&config.upstream, config.limits.json_depth);
        let upstream =
            Upstream::open(upstream, depth, &metrics.upstream, &system_resolver()).map_err(StartError::Upstream)?;
        let address = config.api;
        let listen_error = |error| StartError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let api_addr = listener.local_addr().map_err(listen_error)?;
        let (tls, backplane_tls) =
            crate::judge::certificates(&config).map_err(|problem| StartError::Config(vec![problem]))?;
        let upstream = Arc::new(upstream);
        let hook = Hook::start(&config.hook, &metrics.hook)
            .map_err(|why| StartError::Config(vec![format!("logic.hook: {why}")]))?;
        let (hear, heard) = mpsc::channel(crate::inbound::PAGES);
        let fleet = Arc::new(Fleet::new(
            Parts {
                config: &config.backplane,
                secret: &config.backplane_secret,
                tls: backplane_tls.clone(),
                metrics: Arc::clone(&metrics.fleet),
                requests: config.limits.in_flight,
                seen_max: config.presence.seen_max,
                heard: hear,
            },
            links,
        ));
        let events = Arc::new(Events::new(Arc::clone(&upstream), Arc::clone(fleet.interest()), &config.events));
        fleet.want(|wants| wants.devices = true);
        if let Some(hook) = &hook {
            fleet.want(|wants| hook.want(wants));
        }
        let settings = Arc::new(Settings::new(&config));
        let push = Arc::clone(&metrics.push);
        let engine = Arc::new(Engine::new(Arc::clone(&fleet), Arc::clone(&settings), &config.dedupe, push));
        let node = Arc::new(Node {
            extras,
            tls,
            backplane_tls,
            keys: Keys::new(&config.keys),
            settings,
            fleet: Arc::clone(&fleet),
            presence: Arc::new(Presence::new(&config.presence, Arc::clone(&fleet), Arc::clone(&metrics.presence))),
            blocklist: Arc::new(Blocklist::new(Arc::clone(&fleet))),
            devices: Arc::new(Devices::new(Arc::clone(&fleet))),
            engine,
            agents: Arc::new(Agents::new(&config.agents, Arc::clone(&fleet), Arc::clone(&metrics.agents))),
            hook,
            budget: Budget::new(config.limits.bodies_bytes),
            in_flight: Arc::new(Semaphore::new(config.limits.in_flight)),
            connections: Arc::new(Semaphore::new(config.limits.connections)),
            places: Places::new(usize::MAX),
            metrics,
            upstream,
            events,
            openapi: crate::api::openapi::bytes(&config),
            is_leaving: AtomicBool::new(false),
            config,
        });
        let inbound = inbound_of(&node);
        deliver(&node).await;
        node.fleet.dial();
        tokio::spawn(inbound.run(heard));
        tokio::spawn(Arc::clone(&node.presence).run());
        tokio::spawn(Arc::clone(&node.blocklist).run());
        let (leave, left) = watch::channel(false);
        let server = tokio::spawn(crate::api::serve(Arc::clone(&node), listener, left));
        tracing::debug!(address = %api_addr, gateways = node.fleet.links().len(), "push API is open");
        Ok(Self { node, api_addr, leave, server })
    }

    /// Where the push API listens; tells the port when the configuration said 0.
    #[must_use]
    pub fn api_addr(&self) -> SocketAddr {
        self.api_addr
    }

    /// Whether callers of the API speak TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.node.tls.is_some()
    }

    /// Reads the certificates again. Connections go on as they began, also when what was read is put in force.
    ///
    /// # Errors
    /// What could not be read, each with its section and file.
    pub fn renewal(&self) -> Result<Renewal<'_>, Vec<String>> {
        let api = self.node.tls.as_ref().map(tidegate_tls::Server::renewal);
        let backplane = self.node.backplane_tls.as_ref().map(|client| client.renewal());
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
        if config.keys.is_empty() && !self.node.keys.now().is_open() {
            problems.push(
                "logic.keys: a node with keys does not become open by a reload; restart it if that is meant".into(),
            );
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Takes over what may change while the node runs ([`crate::is_live`]); the rest of `config` is left for the next start.
    /// Requests in progress end by the settings they began with.
    ///
    /// # Errors
    /// Those of [`Logic::check`], and no others; then nothing has changed.
    pub fn reload(&self, config: &LogicConfig) -> Result<(), Vec<String>> {
        self.check(config)?;
        self.node.keys.replace(&config.keys);
        self.node.settings.replace(Current::of(config, &self.node.config));
        self.node.budget.resize(config.limits.bodies_bytes);
        Ok(())
    }

    /// Leaves: not ready any more, no new connections, requests in progress are finished within `http.shutdown_ms`.
    pub async fn shutdown(self) {
        self.node.is_leaving.store(true, Ordering::Relaxed);
        let _ = self.leave.send(true);
        // Ends at once: it waits for nothing but `leave`.
        let _ = self.server.await;
        let all = u32::try_from(self.node.config.limits.connections).unwrap_or(u32::MAX);
        let deadline = Duration::from_millis(u64::from(self.node.settings.now().http.shutdown_ms));
        let finish = async {
            if timeout(deadline, self.node.connections.acquire_many(all)).await.is_err() {
                tracing::warn!("some API requests were cut short by the shutdown");
            }
        };
        tokio::join!(finish, self.node.upstream.stop(deadline));
        self.node.fleet.stop();
    }
}

/// Those who carry out what clients say.
fn inbound_of(node: &Node) -> Inbound {
    let (fleet, settings) = (Arc::clone(&node.fleet), Arc::clone(&node.settings));
    Inbound {
        engine: Arc::clone(&node.engine),
        agents: Arc::clone(&node.agents),
        presence: Arc::clone(&node.presence),
        devices: Arc::clone(&node.devices),
        hook: node.hook.clone(),
        upstream: Arc::clone(&node.upstream),
        events: Arc::clone(&node.events),
        queries: Arc::new(Queries::new(fleet, settings, &node.config.presence)),
        metrics: Arc::clone(&node.metrics.inbound),
    }
}

/// Business services are called from now on, and what they answer is done.
async fn deliver(node: &Arc<Node>) {
    let actions: Arc<dyn Actions> = Arc::new(Pushing::new(Arc::clone(&node.engine), Arc::clone(&node.settings)));
    node.upstream.run(&actions).await;
    let wanted = node.upstream.wants();
    if !wanted.is_empty() {
        node.fleet.want(|wants| wants.events = wanted);
        tokio::spawn(Arc::clone(&node.events).run(node.upstream.leaving()));
    }
}
