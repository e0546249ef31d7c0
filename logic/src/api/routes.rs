//! The way from a request to its call: path and method, key and scope, a place among the requests in progress.
//! Knows no call by name; they are in `calls`. Invariant: a known path answers other methods with 405 and its `Allow`.

use std::sync::Arc;

use http::uri::Authority;
use http::{Method, Request, Version, header};
use hyper::body::Incoming;
use matchit::Router;

use super::body::Unread;
use super::calls::{self, Asked, Call};
use super::response::{Answer, Body};
use super::{Api, query};
use crate::config::{Moment, Scope};
use crate::keys::Keys;
use crate::metrics::api::{ApiMetrics, RefusalLabels, RequestLabels};
use crate::problem::Refusal;
use crate::push::Caller;
use crate::settings::Current;

/// Finds calls by path.
pub struct Routes {
    router: Router<Vec<&'static Call>>,
}

impl Routes {
    /// The calls as a tree.
    #[must_use]
    pub fn new() -> Self {
        let mut router: Router<Vec<&'static Call>> = Router::new();
        for call in calls::all() {
            let same_path = calls::all().filter(|c| c.path == call.path).collect();
            // Fails only for a path that is in already, with the same calls.
            let _ = router.insert(call.path, same_path);
        }
        Self { router }
    }

    /// Answers a request, whatever it is.
    pub async fn answer(&self, api: &Arc<Api>, request: Request<Incoming>) -> Answer {
        let found = refuse_ambiguous(&request).and_then(|()| self.find(&request));
        let (name, outcome) = match found {
            Ok((call, path)) => (call.name, serve(api, call, path, request).await),
            Err(refusal) => ("none", Err(refusal)),
        };
        match outcome {
            Ok(answer) => counted(&api.door.metrics, name, answer),
            Err(refusal) => refuse(&api.door.metrics, name, &refusal),
        }
    }

    fn find(&self, request: &Request<Incoming>) -> Result<(&'static Call, Params), Refusal> {
        let path = request.uri().path();
        let found = self.router.at(path).map_err(|_| no_such_path(path))?;
        // hyper leaves the body out of an answer to HEAD.
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let Some(call) = found.value.iter().find(|call| call.method == *method) else {
            let allow: Vec<&str> = found.value.iter().map(|call| call.method.as_str()).collect();
            return Err(Refusal::WrongMethod { allow: allow.join(", ") });
        };
        let params = found.params.iter();
        let decoded = params.map(|(name, text)| Some((name.to_owned(), query::decode(text)?)));
        Ok((call, decoded.collect::<Option<Params>>().ok_or(Refusal::BadEscape { place: "path" })?))
    }
}

fn counted(metrics: &ApiMetrics, call: &'static str, answer: Answer) -> Answer {
    metrics.requests.get_or_create(&RequestLabels { call, status: answer.status().as_u16() }).inc();
    answer
}

/// The answer to a request of the call, or of none, that is refused.
pub fn refuse(metrics: &ApiMetrics, call: &'static str, refusal: &Refusal) -> Answer {
    metrics.refusals.get_or_create(&RefusalLabels { code: refusal.rules().code }).inc();
    counted(metrics, call, refusal.response().map(Body::Whole))
}

/// WebSockets are looked for here by those who know one port only.
fn no_such_path(path: &str) -> Refusal {
    if matches!(path, "/ws" | "/connect" | "/chat") { Refusal::NoWebSocket } else { Refusal::NoSuchPath }
}

/// Fields of which two would leave open which one counts.
const SINGLE: [(header::HeaderName, &str); 5] = [
    (header::HOST, "Host"),
    (header::AUTHORIZATION, "Authorization"),
    (header::ORIGIN, "Origin"),
    (header::CONTENT_TYPE, "Content-Type"),
    (header::CONTENT_ENCODING, "Content-Encoding"),
];

/// One meaning for each head, whatever its version (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
fn refuse_ambiguous(request: &Request<Incoming>) -> Result<(), Refusal> {
    let headers = request.headers();
    for (name, header) in SINGLE {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(Refusal::HeaderRepeated { header });
        }
    }
    let Some(host) = headers.get(header::HOST) else {
        let is_named = request.version() == Version::HTTP_10 || request.uri().authority().is_some();
        return if is_named && request.version() != Version::HTTP_11 { Ok(()) } else { Err(Refusal::HostMissing) };
    };
    let is_authority = |host: &str| host.is_empty() || (host.parse::<Authority>().is_ok() && !host.contains('@'));
    let Some(host) = host.to_str().ok().filter(|host| is_authority(host)) else {
        return Err(Refusal::MalformedRequest { what: "Host" });
    };
    match request.uri().authority() {
        // Of HTTP/1.1's absolute form, the target counts and Host is passed over (RFC 9112 section 3.2.2).
        Some(authority) if request.version() == Version::HTTP_2 && !authority.as_str().eq_ignore_ascii_case(host) => {
            Err(Refusal::MalformedRequest { what: "Host beside another :authority" })
        }
        _ => Ok(()),
    }
}

/// Parameters of a path and their decoded values.
type Params = Vec<(String, String)>;

async fn serve(api: &Arc<Api>, call: &Call, path: Params, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let now = api.settings.now();
    let caller = match call.needs {
        None => Caller::ANYONE,
        Some(scope) => caller(&api.keys, &now, scope, &request)?,
    };
    let place = api.door.begin(call.is_probe)?;
    let (head, incoming) = request.into_parts();
    let body = Unread { incoming, budget: Arc::clone(&api.door.budget), now };
    let answer = (call.run)(Asked { api: Arc::clone(api), caller, place: place.clone(), path, head, body }).await;
    place.leave();
    answer
}

fn caller(keys: &Keys, now: &Current, scope: Scope, request: &Request<Incoming>) -> Result<Caller, Refusal> {
    let key = request.headers().get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
    let ring = keys.now();
    let caller = ring.check(key, scope, Moment::now())?;
    if ring.is_open() {
        refuse_foreign_hosts(request, &now.allowed_hosts)?;
        if scope != Scope::Read {
            refuse_foreign_pages(request)?;
        }
    }
    Ok(caller)
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
    if is_ours { Ok(()) } else { Err(Refusal::ForeignHost { host: name.chars().take(128).collect() }) }
}

/// Whom a request is for: its target's authority, which HTTP/2 calls `:authority`, before its Host.
fn host_of(request: &Request<Incoming>) -> Option<&str> {
    let host = || request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    request.uri().authority().map(Authority::as_str).or_else(host)
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
