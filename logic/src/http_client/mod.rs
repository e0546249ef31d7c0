//! One signed POST to a service, and what its answer means. Everything has a bound: time, size of the answer, addresses.
//! Follows no redirect and heeds no proxy of the environment: only the configured URL is ever called.
//! Parts: `connect` and `address` (who is called, and that it is them), `sign`. Does not decide when to try again.

mod address;
pub mod connect;
pub mod sign;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use self::address::check_public;
use self::connect::{Connect, Resolve};
use self::sign::{Secret, signature};

/// How long a connection idles before we close it: shorter than the usual minute of servers, so that few are found closed.
const IDLE: Duration = Duration::from_secs(20);
/// Longest `Retry-After` that is heeded; a longer one is a mistake or a mischief.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// A service's URL, checked as far as it can be without asking for its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(Uri);

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(text: &str, allow_private: bool) -> Result<Self, String> {
        const EXPECTED: &str = "expected http:// or https://, a host and a path";
        let uri: Uri = text.parse().map_err(|_| EXPECTED.to_owned())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(EXPECTED.into());
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(EXPECTED)?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("a user and a password do not belong into a URL; use headers".into());
        }
        if let Ok(ip) = host.trim_matches(['[', ']']).parse()
            && let (false, Err(kind)) = (allow_private, check_public(ip))
        {
            return Err(format!("{host} is {kind}; set allow_private = true if that is meant"));
        }
        Ok(Self(uri))
    }
}

/// A URL without its query, which may hold a secret.
fn shown(url: &Uri) -> String {
    url.to_string().split('?').next().unwrap_or_default().to_owned()
}

/// A service, and how it is called.
#[derive(Clone, Default)]
pub struct Endpoint {
    /// Where it is; see [`Url::read`].
    pub url: String,
    /// Keys of the signature, `whsec_…`; several sign side by side.
    pub secrets: Vec<String>,
    /// Headers of each request.
    pub headers: BTreeMap<String, String>,
    /// Whether the URL may lead to a private address.
    pub allow_private: bool,
    /// A PEM file of authorities that its certificate may come from; empty: the public ones.
    pub ca: String,
    /// Largest answer that is read.
    pub answer_bytes: usize,
    /// Most connections kept for the next requests.
    pub idle_max: usize,
    /// Which answers are good.
    pub good: Good,
}

/// Of which answers the body is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Good {
    /// Any of the statuses 2xx.
    #[default]
    Success,
    /// 200 alone: the answer is the point, and no other status has one.
    Ok,
}

impl Good {
    fn is(self, status: StatusCode) -> bool {
        match self {
            Self::Success => status.is_success(),
            Self::Ok => status == StatusCode::OK,
        }
    }
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// Not before this time again, as the service wishes.
    pub after: Option<Duration>,
    /// The body of a good answer.
    pub said: Said,
}

/// The body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Not looked at, because the answer is no good one.
    Unread,
    /// The bytes; often none.
    Body(Bytes),
    /// More than `answer_bytes`.
    TooMuch,
    /// It ended early or came late.
    Broken,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No connection; why. The service has nothing of the request.
    Unreachable(String),
    /// Nothing complete in time.
    Timeout,
    /// The connection broke before the answer.
    Broken,
}

impl Trouble {
    /// One word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
        }
    }

    /// A few words for operators; never of what the service or a client said.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Unreachable(why) => format!("unreachable: {why}"),
            Self::Timeout => "no answer in time".into(),
            Self::Broken => "the connection broke before the answer".into(),
        }
    }
}

/// Calls a service, and keeps its secrets and connections.
pub struct Client {
    url: Uri,
    secrets: Vec<Secret>,
    headers: HeaderMap,
    answer_bytes: usize,
    good: Good,
    http: HttpClient<HttpsConnector<Connect>, Full<Bytes>>,
}

impl Client {
    /// Calls this service and nothing else.
    ///
    /// # Errors
    /// What cannot be used, in words: a file of authorities, mostly.
    pub fn new(endpoint: &Endpoint, resolve: Resolve) -> Result<Self, String> {
        let Url(url) = Url::read(&endpoint.url, endpoint.allow_private)?;
        let secrets: Result<Vec<Secret>, &str> = endpoint.secrets.iter().map(|text| Secret::read(text)).collect();
        let mut headers = HeaderMap::new();
        for (name, value) in &endpoint.headers {
            let name = HeaderName::try_from(name).map_err(|error| format!("headers: {error}"))?;
            let mut value = HeaderValue::try_from(value).map_err(|error| format!("headers: {error}"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(&endpoint.ca)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connect { allow_private: endpoint.allow_private, resolve });
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(endpoint.idle_max)
            .build(connector);
        let Endpoint { answer_bytes, good, .. } = *endpoint;
        Ok(Self { url, secrets: secrets?, headers, answer_bytes, good, http })
    }

    /// The URL without its query, which may hold a secret.
    #[must_use]
    pub fn shown_url(&self) -> String {
        shown(&self.url)
    }

    /// Posts a body, signed for this moment. `id` is the request's name; a repeat with the same body has the same.
    ///
    /// # Errors
    /// [`Trouble`]; an answer of any status is none.
    pub async fn post(&self, id: &str, body: Bytes, until: Instant) -> Result<Answered, Trouble> {
        let request = self.request(id, body).map_err(|error| Trouble::Unreachable(error.to_string()))?;
        let response = match timeout_at(until, self.http.request(request)).await {
            Err(_) => return Err(Trouble::Timeout),
            Ok(Err(error)) if error.is_connect() => return Err(Trouble::Unreachable(innermost(&error))),
            Ok(Err(_)) => return Err(Trouble::Broken),
            Ok(Ok(response)) => response,
        };
        let (status, after) = (response.status(), retry_after(response.headers(), SystemTime::now()));
        let said = if self.good.is(status) { self.said(response.into_body(), until).await } else { Said::Unread };
        Ok(Answered { status: status.as_u16(), after, said })
    }

    fn request(&self, id: &str, body: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut request = Request::post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature(&self.secrets, id, seconds, &body))
            .body(Full::new(body))?;
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        Ok(request)
    }

    async fn said(&self, body: Incoming, until: Instant) -> Said {
        match timeout_at(until, Limited::new(body, self.answer_bytes).collect()).await {
            Ok(Ok(whole)) => Said::Body(whole.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Said::TooMuch,
            Ok(Err(_)) | Err(_) => Said::Broken,
        }
    }
}

/// The reason at the bottom: "connection refused" says more than "client error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Trusts the public authorities, or those of a file instead.
fn tls(ca: &str) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if ca.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    } else {
        let read = |error: &dyn std::fmt::Display| format!("ca: {ca}: {error}");
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| read(&error))? {
            roots.add(certificate.map_err(|error| read(&error))?).map_err(|error| read(&error))?;
        }
        if roots.is_empty() {
            return Err(format!("ca: {ca} holds no certificate"));
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
pub mod service;
#[cfg(test)]
mod tests;
