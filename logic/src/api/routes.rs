//! Every call of the API: its method, path, scope and name in metrics, in one table; and the way from a request to its
//! handler. Invariant: a path of the table answers other methods with 405 and its `Allow`.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, header};
use hyper::body::Incoming;
use matchit::Router;

use super::answer::Answer;
use super::{ask, batch, console, go_push, operate, push, query, steer};
use crate::keys::{Caller, Scope};
use crate::metrics::{RefusalLabels, RequestLabels};
use crate::node::Node;
use crate::problem::Refusal;
use tidegate_protocol::limits::is_valid_name;

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Push,
    PushBatch,
    GoPushAll,
    GoPushRoom,
    Connections,
    Connection,
    CloseConnection,
    User,
    CloseUser,
    Rooms,
    Room,
    Members,
    Gateways,
    Stats,
    Health,
    Readiness,
    Metrics,
    Page,
    PageFile,
    Settings,
}

/// One line of the table.
struct Entry {
    call: Call,
    name: &'static str,
    method: Method,
    path: &'static str,
    /// `None`: open to everyone.
    needs: Option<Scope>,
}

const fn entry(call: Call, name: &'static str, method: Method, path: &'static str, needs: Option<Scope>) -> Entry {
    Entry { call, name, method, path, needs }
}

static TABLE: [Entry; 20] = [
    entry(Call::Push, "push", Method::POST, "/v1/push", Some(Scope::Push)),
    entry(Call::PushBatch, "push_batch", Method::POST, "/v1/push/batch", Some(Scope::Push)),
    entry(Call::GoPushAll, "go_push_all", Method::POST, "/push/all", Some(Scope::Push)),
    entry(Call::GoPushRoom, "go_push_room", Method::POST, "/push/room", Some(Scope::Push)),
    entry(Call::Connections, "connections", Method::GET, "/v1/connections", Some(Scope::Read)),
    entry(Call::Connection, "connection", Method::GET, "/v1/connections/{id}", Some(Scope::Read)),
    entry(Call::CloseConnection, "close_connection", Method::DELETE, "/v1/connections/{id}", Some(Scope::Admin)),
    entry(Call::User, "user", Method::GET, "/v1/users/{user}", Some(Scope::Read)),
    entry(Call::CloseUser, "close_user", Method::DELETE, "/v1/users/{user}/connections", Some(Scope::Admin)),
    entry(Call::Rooms, "rooms", Method::GET, "/v1/rooms", Some(Scope::Read)),
    entry(Call::Room, "room", Method::GET, "/v1/rooms/{room}", Some(Scope::Read)),
    entry(Call::Members, "members", Method::GET, "/v1/rooms/{room}/members", Some(Scope::Read)),
    entry(Call::Gateways, "gateways", Method::GET, "/v1/gateways", Some(Scope::Read)),
    entry(Call::Stats, "stats", Method::GET, "/v1/stats", Some(Scope::Read)),
    entry(Call::Health, "health", Method::GET, "/healthz", None),
    entry(Call::Readiness, "readiness", Method::GET, "/readyz", None),
    entry(Call::Metrics, "metrics", Method::GET, "/metrics", Some(Scope::Read)),
    entry(Call::Page, "page", Method::GET, "/", None),
    entry(Call::PageFile, "page_file", Method::GET, "/console/{file}", None),
    entry(Call::Settings, "settings", Method::GET, "/console/config.json", None),
];

/// Finds calls by path.
pub struct Routes {
    router: Router<Vec<&'static Entry>>,
}

impl Routes {
    /// The table as a tree.
    #[must_use]
    pub fn new() -> Self {
        let mut router: Router<Vec<&'static Entry>> = Router::new();
        for entry in &TABLE {
            let calls = TABLE.iter().filter(|e| e.path == entry.path).collect();
            // Fails only for a path that is in already, with the same calls.
            let _ = router.insert(entry.path, calls);
        }
        Self { router }
    }

    /// Answers a request, whatever it is.
    pub async fn answer(&self, node: &Arc<Node>, request: Request<Incoming>) -> Answer {
        let (name, outcome) = match self.find(&request) {
            Ok((entry, name_in_path)) => (entry.name, serve(node, entry, name_in_path, request).await),
            Err(refusal) => ("none", Err(refusal)),
        };
        let answer = outcome.unwrap_or_else(|refusal| {
            node.metrics.refusals.get_or_create(&RefusalLabels { code: refusal.rules().code }).inc();
            refusal.response()
        });
        node.metrics.requests.get_or_create(&RequestLabels { call: name, status: answer.status().as_u16() }).inc();
        answer
    }

    fn find(&self, request: &Request<Incoming>) -> Result<(&'static Entry, String), Refusal> {
        let found = self.router.at(request.uri().path()).map_err(|_| Refusal::NoSuchPath)?;
        // hyper leaves the body out of an answer to HEAD.
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let Some(entry) = found.value.iter().find(|e| e.method == *method) else {
            let allow: Vec<&str> = found.value.iter().map(|e| e.method.as_str()).collect();
            return Err(Refusal::WrongMethod { allow: allow.join(", ") });
        };
        let name = match found.params.iter().next() {
            Some((_, value)) => query::decode_path(value).ok_or(Refusal::NoSuchPath)?,
            None => String::new(),
        };
        Ok((entry, name))
    }
}

async fn serve(node: &Arc<Node>, entry: &Entry, name: String, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let caller = match entry.needs {
        None => Caller::ANYONE,
        Some(scope) => {
            let key = request.headers().get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
            let caller = node.keys.check(key, scope)?;
            if node.keys.is_open() {
                refuse_foreign_hosts(&request, &node.config.allowed_hosts)?;
                if scope != Scope::Read {
                    refuse_foreign_pages(&request)?;
                }
            }
            caller
        }
    };
    // Probes and scrapes are answered when nothing else is.
    let _permit = match entry.call {
        Call::Health | Call::Readiness | Call::Metrics => None,
        _ => Some(node.in_flight.try_acquire().map_err(|_| {
            let limit = node.config.limits.in_flight;
            Refusal::Overloaded { what: "requests in progress (limits.in_flight)", limit }
        })?),
    };
    let (head, body) = request.into_parts();
    let (headers, query): (&HeaderMap, _) = (&head.headers, head.uri.query());
    match entry.call {
        Call::Push => push::one(node, caller, headers, body).await,
        Call::PushBatch => batch::many(node, caller, headers, body).await,
        Call::GoPushAll => go_push::all(node, caller, headers, body).await,
        Call::GoPushRoom => go_push::room(node, caller, headers, body).await,
        Call::Connections => ask::connections(node, query, None).await,
        Call::Connection => ask::one_connection(node, &name).await,
        Call::CloseConnection => steer::close_connection(node, &name, query).await,
        Call::User => Ok(ask::user(node, valid(name)?).await),
        Call::CloseUser => steer::close_user(node, valid(name)?, query).await,
        Call::Rooms => ask::rooms(node, query).await,
        Call::Room => Ok(ask::one_room(node, valid(name)?).await),
        Call::Members => ask::connections(node, query, Some(valid(name)?)).await,
        Call::Gateways => Ok(operate::gateways(node)),
        Call::Stats => Ok(operate::stats(node)),
        Call::Health => Ok(operate::health()),
        Call::Readiness => Ok(operate::readiness(node)),
        Call::Metrics => Ok(operate::metrics(node)),
        Call::Page => console::file("/"),
        Call::PageFile => console::file(&format!("/console/{name}")),
        Call::Settings => Ok(console::settings(node)),
    }
}

fn valid(name: String) -> Result<String, Refusal> {
    if is_valid_name(&name) {
        return Ok(name);
    }
    Err(Refusal::BadParameter {
        name: "the name in the path",
        expected: "1 to 128 bytes without control characters".into(),
    })
}

/// Without keys nothing but the browser's same-origin rule stands between a web page and a node on loopback, and that rule
/// goes by names: a stranger's name that resolves to loopback would pass. So only names that nobody else can own are good.
fn refuse_foreign_hosts(request: &Request<Incoming>, allowed: &[String]) -> Result<(), Refusal> {
    let host = host_of(request).unwrap_or_default();
    let name = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let is_ours = name.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|a| a.eq_ignore_ascii_case(name));
    let is_ours = is_ours && request.headers().get_all(header::HOST).iter().count() <= 1;
    if is_ours { Ok(()) } else { Err(Refusal::ForeignHost { host: name.chars().take(128).collect() }) }
}

fn host_of(request: &Request<Incoming>) -> Option<&str> {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    host.or_else(|| request.uri().authority().map(http::uri::Authority::as_str))
}

/// The same rule lets forms through. A page of ours has the origin it calls.
fn refuse_foreign_pages(request: &Request<Incoming>) -> Result<(), Refusal> {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("?");
    let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    match (site, host_of(request)) {
        (Some(site), Some(host)) if site.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(Refusal::ForeignOrigin { origin: origin.chars().take(128).collect() }),
    }
}
