//! The parts of a logic node, and how each gets what it works with. Nothing here runs by itself.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{StartError, gauges};
use crate::agents::Agents;
use crate::api::{Api, Door, Extras, Page};
use crate::blocklist::Blocklist;
use crate::config::LogicConfig;
use crate::devices::Devices;
use crate::fleet::tracker::Tracker;
use crate::fleet::{self, Fleet, GatewayLink, Heard};
use crate::hook::Hook;
use crate::http_client::connect::system_resolver;
use crate::inbound::{Inbound, Queries};
use crate::keys::Keys;
use crate::metrics::{Metrics, Scrape};
use crate::presence::Presence;
use crate::push::Engine;
use crate::settings::Settings;
use crate::upstream::{Actions, Events, Pushing, Upstream};

/// The parts.
pub struct Parts {
    pub fleet: Arc<Fleet>,
    pub settings: Arc<Settings>,
    pub engine: Arc<Engine>,
    pub agents: Arc<Agents>,
    pub presence: Arc<Presence>,
    pub devices: Arc<Devices>,
    pub blocklist: Arc<Blocklist>,
    pub hook: Option<Arc<Hook>>,
    pub upstream: Arc<Upstream>,
    pub events: Arc<Events>,
    pub tracker: Arc<Tracker>,
}

/// The spools, opened.
pub fn upstream(config: &LogicConfig, metrics: &Metrics) -> Result<Arc<Upstream>, StartError> {
    let (upstream, depth) = (&config.upstream, config.limits.json_depth);
    let opened = Upstream::open(upstream, depth, &metrics.upstream, &system_resolver());
    opened.map(Arc::new).map_err(StartError::Upstream)
}

/// The gateways, not dialled yet.
pub fn fleet(
    config: &LogicConfig,
    tls: Option<Arc<tidegate_tls::Client>>,
    heard: mpsc::Sender<Heard>,
    links: Vec<GatewayLink>,
    metrics: &Metrics,
) -> Arc<Fleet> {
    let parts = fleet::Parts {
        config: &config.backplane,
        secret: &config.backplane_secret,
        tls,
        metrics: Arc::clone(&metrics.fleet),
        requests: config.limits.in_flight,
        seen_max: config.presence.seen_max,
        heard,
    };
    Arc::new(Fleet::new(parts, links))
}

impl Parts {
    /// Puts them together.
    pub fn new(
        config: &LogicConfig,
        fleet: Arc<Fleet>,
        upstream: Arc<Upstream>,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let hook = Hook::start(&config.hook, &metrics.hook);
        let hook = hook.map_err(|why| StartError::Config(vec![format!("logic.hook: {why}")]))?;
        let settings = Arc::new(Settings::new(config));
        let gateways = || Arc::clone(&fleet);
        let engine = Engine::new(gateways(), Arc::clone(&settings), &config.dedupe, Arc::clone(&metrics.push));
        Ok(Self {
            engine: Arc::new(engine),
            agents: Arc::new(Agents::new(&config.agents, gateways(), Arc::clone(&metrics.agents))),
            presence: Arc::new(Presence::new(&config.presence, gateways(), Arc::clone(&metrics.presence))),
            devices: Arc::new(Devices::new(gateways())),
            blocklist: Arc::new(Blocklist::new(gateways())),
            hook,
            events: Arc::new(Events::new(Arc::clone(&upstream), Arc::clone(fleet.interest()), &config.events)),
            upstream,
            settings,
            tracker: Arc::default(),
            fleet,
        })
    }

    /// Has gateways tell what is needed here.
    pub fn want(&self) {
        self.fleet.want(|wants| {
            wants.devices = true;
            wants.events = self.upstream.wants();
            self.hook.iter().for_each(|hook| hook.want(wants));
        });
    }

    /// Business services are called from now on, and what they answer is done.
    pub async fn deliver(&self) {
        let pushing = Pushing::new(Arc::clone(&self.engine), Arc::clone(&self.settings));
        let actions: Arc<dyn Actions> = Arc::new(pushing);
        self.upstream.run(&actions).await;
        if !self.upstream.wants().is_empty() {
            tokio::spawn(Arc::clone(&self.events).run(self.upstream.leaving()));
        }
    }

    /// Those who carry out what clients say.
    pub fn inbound(&self, config: &LogicConfig, metrics: &Metrics) -> Inbound {
        let queries = Queries::new(Arc::clone(&self.fleet), Arc::clone(&self.settings), &config.presence);
        Inbound {
            engine: Arc::clone(&self.engine),
            agents: Arc::clone(&self.agents),
            presence: Arc::clone(&self.presence),
            devices: Arc::clone(&self.devices),
            hook: self.hook.clone(),
            upstream: Arc::clone(&self.upstream),
            events: Arc::clone(&self.events),
            queries: Arc::new(queries),
            tracker: Arc::clone(&self.tracker),
            metrics: Arc::clone(&metrics.inbound),
        }
    }

    /// What the calls of the API work on.
    pub fn api(&self, config: &LogicConfig, door: Arc<Door>, extras: Extras, metrics: Metrics) -> Api {
        let gauges = gauges::of(self, &door, &metrics);
        Api {
            door,
            keys: Keys::new(&config.keys),
            settings: Arc::clone(&self.settings),
            engine: Arc::clone(&self.engine),
            fleet: Arc::clone(&self.fleet),
            blocklist: Arc::clone(&self.blocklist),
            agents: Arc::clone(&self.agents),
            upstream: Arc::clone(&self.upstream),
            scrape: Scrape { metrics, gauges, extra: extras.metrics.clone() },
            page: Page::new(config, extras),
        }
    }
}
