//! What stands between the network and the calls: TLS, how many connections, requests and bytes of bodies there may be at once,
//! and whether the node is leaving.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_protocol::places::{Place, Places};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::body::Budget;
use super::calls::InProgress;
use crate::config::LimitsConfig;
use crate::metrics::api::{ApiMetrics, PoolLabels};
use crate::problem::Refusal;

/// How often a connection is looked for that could make room for a newcomer.
const ROOM_EVERY: Duration = Duration::from_millis(50);

/// The door of the API.
pub struct Door {
    /// The API's TLS, if it has any.
    pub tls: Option<tidegate_tls::Server>,
    /// What request bodies hold.
    pub budget: Arc<Budget>,
    /// What is counted.
    pub metrics: Arc<ApiMetrics>,
    /// API connections; a permit each.
    connections: Arc<Semaphore>,
    /// The same connections, for the choice of one that makes room.
    places: Arc<Places<oneshot::Sender<()>>>,
    /// Requests in progress; a permit each, but for those of operators.
    in_flight: Arc<Semaphore>,
    /// How many connections and requests there may be.
    most: Most,
    /// Set once, by the shutdown: not ready any more.
    is_leaving: AtomicBool,
}

struct Most {
    connections: usize,
    in_flight: usize,
}

/// A connection that was let in; gone when dropped.
pub struct Admitted {
    /// Its place among those of which one makes room.
    pub place: Arc<Place<oneshot::Sender<()>>>,
    /// Resolves when it has to make room.
    pub evicted: oneshot::Receiver<()>,
    /// One of `connections`.
    pub permit: OwnedSemaphorePermit,
}

impl Door {
    /// A door with these limits, nobody in it.
    #[must_use]
    pub fn new(limits: &LimitsConfig, tls: Option<tidegate_tls::Server>, metrics: Arc<ApiMetrics>) -> Self {
        Self {
            tls,
            budget: Budget::new(limits.bodies_bytes),
            metrics,
            connections: Arc::new(Semaphore::new(limits.connections)),
            places: Places::new(usize::MAX),
            in_flight: Arc::new(Semaphore::new(limits.in_flight)),
            most: Most { connections: limits.connections, in_flight: limits.in_flight },
            is_leaving: AtomicBool::new(false),
        }
    }

    /// Lets a connection in, as soon as there is room for it.
    pub async fn admit(&self) -> Option<Admitted> {
        let permit = self.permit().await?;
        let (holder, evicted) = oneshot::channel();
        let place = self.places.take(holder)?;
        Some(Admitted { place, evicted, permit })
    }

    /// A permit for a connection. When there is none left, a caller that asks for nothing at the moment has to go; the others are
    /// waited for.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() {
            return Some(permit);
        }
        loop {
            self.places.make_room();
            // Those whose requests end meanwhile can make room as well.
            let permit = timeout(ROOM_EVERY, Arc::clone(&self.connections).acquire_owned()).await;
            if let Ok(permit) = permit {
                // The semaphore is never closed.
                return permit.ok();
            }
        }
    }

    /// A place for a request; probes and scrapes need none, since they are answered when nothing else is.
    ///
    /// # Errors
    /// `Overloaded`.
    pub fn begin(&self, is_probe: bool) -> Result<InProgress, Refusal> {
        if is_probe {
            return Ok(InProgress::holding(None));
        }
        let full = |_| Refusal::Overloaded {
            what: "requests in progress (logic.limits.in_flight)",
            limit: self.most.in_flight,
        };
        Ok(InProgress::holding(Some(Arc::clone(&self.in_flight).try_acquire_owned().map_err(full)?)))
    }

    /// Not ready any more.
    pub fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }

    /// Whether the node is leaving.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// Resolves when every connection has ended.
    pub async fn emptied(&self) {
        let all = u32::try_from(self.most.connections).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.connections.acquire_many(all).await;
    }

    /// Sets the gauges.
    pub fn measure(&self) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let m = &self.metrics;
        m.connections.set(gauge(self.most.connections.saturating_sub(self.connections.available_permits())));
        m.in_flight.set(gauge(self.most.in_flight.saturating_sub(self.in_flight.available_permits())));
        m.bodies_bytes.set(gauge(self.budget.held()));
        for (pool, evicted) in [("connections", self.places.evicted()), ("bodies", self.budget.evicted())] {
            m.evicted.get_or_create(&PoolLabels { pool }).inner().store(evicted, Ordering::Relaxed);
        }
    }
}
