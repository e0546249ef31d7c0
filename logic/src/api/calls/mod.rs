//! Every call of the API, by topic. A [`Call`] says everything about one: how it is reached, who may, what does it, and
//! what the OpenAPI document says of it. **To add a call, add a `Call` to its topic's list** (a new topic: a file here and
//! a line in [`TOPICS`]); the route, the 405s, the metrics and `/openapi.json` follow from it.
//! Invariants (tests in `openapi`): no two calls share method and path, or name.

mod agents;
mod connections;
mod membership;
mod operate;
mod page;
mod presence;
mod push;
mod rooms;
mod upstream;
mod users;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::Method;
use http::request::Parts;
use parking_lot::Mutex;
use tidegate_protocol::limits::is_valid_name;
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::body::Unread;
use super::openapi::Describe;
use super::response::Answer;
use crate::config::{LimitsConfig, Scope};
use crate::problem::Refusal;
use crate::push::Caller;

/// One call of the API.
pub struct Call {
    /// Its name in metrics, and the document's `operationId`.
    pub name: &'static str,
    /// HEAD goes with GET.
    pub method: Method,
    /// As `matchit` and OpenAPI both write it: `/v1/rooms/{room}`.
    pub path: &'static str,
    /// `None`: open to everyone.
    pub needs: Option<Scope>,
    /// Whether it is answered even while the API is at `limits.in_flight`: probes and scrapes.
    pub is_probe: bool,
    /// Does it.
    pub run: fn(Asked) -> Running,
    /// Says what it takes and answers. What follows from the fields above (key, scope, overload) is said already.
    pub describe: fn(&mut Describe<'_>),
}

/// A call in progress.
pub type Running = Pin<Box<dyn Future<Output = Result<Answer, Refusal>> + Send>>;

/// Calls that belong together.
pub struct Topic {
    /// The document's tag.
    pub name: &'static str,
    /// What they have in common, in a sentence.
    pub about: &'static str,
    /// The calls.
    pub calls: &'static [Call],
}

/// All topics, in the document's order.
pub static TOPICS: &[&Topic] = &[
    &push::TOPIC,
    &connections::TOPIC,
    &users::TOPIC,
    &rooms::TOPIC,
    &presence::TOPIC,
    &membership::TOPIC,
    &agents::TOPIC,
    &upstream::TOPIC,
    &operate::TOPIC,
    &page::TOPIC,
];

/// Every call.
pub fn all() -> impl Iterator<Item = &'static Call> {
    TOPICS.iter().flat_map(|topic| topic.calls)
}

/// A request's place among those in progress. Whoever answers the request holds it to the end, so that a call need not
/// think of it; one that waits for long, under a bound of its own, gives it back early. Probes have none.
#[derive(Clone)]
pub struct InProgress(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl InProgress {
    /// Holds a place.
    #[must_use]
    pub fn holding(place: Option<OwnedSemaphorePermit>) -> Self {
        Self(Arc::new(Mutex::new(place)))
    }

    /// Gives the place back.
    pub fn leave(&self) {
        self.0.lock().take();
    }
}

/// A request that its call may do.
pub struct Asked {
    /// What it is done with; each call passes on the parts that it needs.
    pub api: Arc<Api>,
    /// Who asks.
    pub caller: Caller,
    /// Its place among the requests in progress.
    pub place: InProgress,
    /// Parameters of the path, decoded.
    pub path: Vec<(String, String)>,
    /// Everything but the body.
    pub head: Parts,
    /// The body, unread, and the settings that hold for the request.
    pub body: Unread,
}

impl Asked {
    /// The limits that hold for the request.
    pub fn limits(&self) -> &LimitsConfig {
        &self.body.now.limits
    }

    /// What stands behind the `?`.
    pub fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// A parameter of the path, whatever it is; empty if the path has none of that name.
    pub fn param(&self, name: &str) -> &str {
        self.path.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// A room or user name of the path.
    ///
    /// # Errors
    /// [`Refusal::BadParameter`] if nothing can have that name.
    pub fn name(&self, name: &str) -> Result<String, Refusal> {
        let value = self.param(name);
        if is_valid_name(value) {
            return Ok(value.to_owned());
        }
        Err(Refusal::BadParameter {
            name: "the name in the path",
            expected: "1 to 128 bytes without control characters".into(),
        })
    }
}
