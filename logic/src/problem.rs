//! Every way the API says no, and what each means on the wire: status, stable code, title, whether a retry can help.
//! The one place where a refusal becomes `application/problem+json` (RFC 9457); handlers only choose the variant.
//! Invariants: [`Refusal::rules`] is exhaustive; a code, once released, keeps its meaning.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

/// Why a request is not done, with the values that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    // What was sent is not JSON, or JSON nobody should pass on.
    BadJson { detail: String },
    JsonTooDeep { limit: usize },
    DuplicateKey { pointer: String },
    BadNumber { pointer: String },
    LoneSurrogate { pointer: String },
    // JSON, but not what the call takes.
    UnknownField { pointer: String, name: String },
    MissingField { pointer: String, name: &'static str },
    WrongType { pointer: String, expected: &'static str },
    BadValue { pointer: String, expected: String },
    // Limits.
    TooManyMessages { pointer: String, limit: usize },
    TooManyTargets { pointer: String, limit: usize },
    TooManyPushes { limit: usize },
    MessageTooLarge { pointer: String, bytes: usize, limit: usize },
    BodyTooLarge { limit: usize, key: &'static str },
    LineTooLarge { limit: usize },
    BodyTimeout { limit_ms: u32 },
    BodyCut,
    // Form and query.
    BadForm { detail: String },
    UnknownParameter { name: String },
    BadParameter { name: &'static str, expected: String },
    // Who and where.
    NoKey,
    BadKey,
    WrongScope { needs: &'static str },
    ForeignOrigin { origin: String },
    ForeignHost { host: String },
    NoSuchPath,
    NoSuchConnection,
    WrongMethod { allow: String },
    WrongMediaType { expected: &'static str },
    // Not now.
    NoGateway { failed: Vec<(String, &'static str)> },
    QueuesFull { failed: Vec<(String, &'static str)> },
    FirstFailed,
    Overloaded { what: &'static str, limit: usize },
    ShuttingDown,
}

/// What a refusal means on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable, for programs.
    pub code: &'static str,
    /// The same for every occurrence, for people.
    pub title: &'static str,
    /// Whether the same request can succeed later.
    pub is_retryable: bool,
}

const fn never(status: StatusCode, code: &'static str, title: &'static str) -> Rules {
    Rules { status, code, title, is_retryable: false }
}

const fn later(status: StatusCode, code: &'static str, title: &'static str) -> Rules {
    Rules { status, code, title, is_retryable: true }
}

impl Refusal {
    /// The consequence of each refusal.
    #[must_use]
    pub fn rules(&self) -> Rules {
        use StatusCode as S;
        match self {
            Self::BadJson { .. } => never(S::BAD_REQUEST, "bad_json", "The body is not JSON"),
            Self::JsonTooDeep { .. } => never(S::BAD_REQUEST, "json_too_deep", "The JSON is nested too deeply"),
            Self::DuplicateKey { .. } => never(S::BAD_REQUEST, "duplicate_key", "A key is given twice"),
            Self::BadNumber { .. } => never(S::BAD_REQUEST, "bad_number", "A number is beyond what JSON readers hold"),
            Self::LoneSurrogate { .. } => never(S::BAD_REQUEST, "lone_surrogate", "A string holds half a character"),
            Self::UnknownField { .. } => never(S::UNPROCESSABLE_ENTITY, "unknown_field", "A field is unknown"),
            Self::MissingField { .. } => never(S::UNPROCESSABLE_ENTITY, "missing_field", "A field is missing"),
            Self::WrongType { .. } => never(S::UNPROCESSABLE_ENTITY, "wrong_type", "A field has the wrong type"),
            Self::BadValue { .. } => {
                never(S::UNPROCESSABLE_ENTITY, "bad_value", "A field has a value that is not allowed")
            }
            Self::TooManyMessages { .. } => {
                never(S::UNPROCESSABLE_ENTITY, "too_many_messages", "Too many messages in one push")
            }
            Self::TooManyTargets { .. } => {
                never(S::UNPROCESSABLE_ENTITY, "too_many_targets", "Too many targets in one push")
            }
            Self::TooManyPushes { .. } => {
                never(S::UNPROCESSABLE_ENTITY, "too_many_pushes", "Too many pushes in one batch")
            }
            Self::MessageTooLarge { .. } => never(S::PAYLOAD_TOO_LARGE, "message_too_large", "A message is too large"),
            Self::BodyTooLarge { .. } => never(S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
            Self::LineTooLarge { .. } => {
                never(S::PAYLOAD_TOO_LARGE, "line_too_large", "A line of the body is too large")
            }
            Self::BodyTimeout { .. } => later(S::REQUEST_TIMEOUT, "body_timeout", "The body came too slowly"),
            Self::BodyCut => never(S::BAD_REQUEST, "body_cut", "The body ended early"),
            Self::BadForm { .. } => never(S::BAD_REQUEST, "bad_form", "The form cannot be read"),
            Self::UnknownParameter { .. } => {
                never(S::UNPROCESSABLE_ENTITY, "unknown_parameter", "A query parameter is unknown")
            }
            Self::BadParameter { .. } => {
                never(S::UNPROCESSABLE_ENTITY, "bad_parameter", "A parameter has a value that is not allowed")
            }
            Self::NoKey => never(S::UNAUTHORIZED, "no_key", "A key is needed"),
            Self::BadKey => never(S::UNAUTHORIZED, "bad_key", "The key is unknown"),
            Self::WrongScope { .. } => never(S::FORBIDDEN, "wrong_scope", "The key may not do this"),
            Self::ForeignOrigin { .. } => never(S::FORBIDDEN, "foreign_origin", "Pages of other sites may not call"),
            Self::ForeignHost { .. } => never(S::FORBIDDEN, "foreign_host", "This server is not called by that name"),
            Self::NoSuchPath => never(S::NOT_FOUND, "no_such_path", "There is nothing at this path"),
            Self::NoSuchConnection => never(S::NOT_FOUND, "no_such_connection", "There is no such connection"),
            Self::WrongMethod { .. } => never(S::METHOD_NOT_ALLOWED, "wrong_method", "This path takes other methods"),
            Self::WrongMediaType { .. } => {
                never(S::UNSUPPORTED_MEDIA_TYPE, "wrong_media_type", "The body has another media type")
            }
            Self::NoGateway { .. } => later(S::SERVICE_UNAVAILABLE, "no_gateway", "No gateway can be reached"),
            Self::QueuesFull { .. } => later(S::SERVICE_UNAVAILABLE, "queues_full", "The gateways are behind"),
            Self::FirstFailed => later(S::SERVICE_UNAVAILABLE, "first_failed", "The first push with this key failed"),
            Self::Overloaded { .. } => later(S::SERVICE_UNAVAILABLE, "overloaded", "The API is at one of its limits"),
            Self::ShuttingDown => later(S::SERVICE_UNAVAILABLE, "shutting_down", "This node is leaving"),
        }
    }

    /// A sentence a person can act on.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::BadJson { detail } | Self::BadForm { detail } => detail.clone(),
            Self::JsonTooDeep { limit } => {
                format!("arrays and objects may nest {limit} levels deep (limits.json_depth)")
            }
            Self::DuplicateKey { pointer } => format!("{pointer} is given twice; it is unclear which one is meant"),
            Self::BadNumber { pointer } => format!("{pointer} holds a number that reads as infinite"),
            Self::LoneSurrogate { pointer } => {
                format!("{pointer} holds \\ud800 to \\udfff without its other half, which is no text in UTF-8")
            }
            Self::UnknownField { pointer, name } => {
                format!("{pointer:?} is not known here: remove {name:?} or correct it")
            }
            Self::MissingField { pointer, name } => format!("{:?} needs {name}", root(pointer)),
            Self::WrongType { pointer, expected } => format!("{:?} must be {expected}", root(pointer)),
            Self::BadValue { pointer, expected } => format!("{:?} must be {expected}", root(pointer)),
            Self::TooManyMessages { limit, .. } => format!("a push holds at most {limit} messages (limits.messages)"),
            Self::TooManyTargets { limit, .. } => format!("a push has at most {limit} targets (limits.targets)"),
            Self::TooManyPushes { limit } => format!("a batch holds at most {limit} pushes (limits.batch_pushes)"),
            Self::MessageTooLarge { pointer, bytes, limit } => {
                format!("{pointer} has {bytes} bytes; a message has at most {limit} (limits.message_bytes)")
            }
            Self::BodyTooLarge { limit, key } => format!("a body has at most {limit} bytes ({key})"),
            Self::LineTooLarge { limit } => format!("a line has at most {limit} bytes (limits.body_bytes)"),
            Self::BodyTimeout { limit_ms } => {
                format!("the body must arrive within {limit_ms} ms (http.body_ms, http.ndjson_ms)")
            }
            Self::BodyCut => "the connection or the encoding of the body broke before its end".into(),
            Self::UnknownParameter { name } => format!("query parameter {name:?} is not known here"),
            Self::BadParameter { name, expected } => format!("{name} must be {expected}"),
            Self::NoKey => "send Authorization: Bearer <key>".into(),
            Self::BadKey => "the key in Authorization is not among the configured ones".into(),
            Self::WrongScope { needs } => format!("this call needs a key with the scope {needs}"),
            Self::ForeignOrigin { origin } => {
                format!("without keys only programs and this server's own pages may call, not a page of {origin}")
            }
            Self::ForeignHost { host } => format!(
                "without keys the Host must be an IP address, localhost or one of logic.allowed_hosts, not {host}"
            ),
            Self::NoSuchPath => "see docs/http-api.md for the paths there are".into(),
            Self::NoSuchConnection => "no gateway holds it: it has closed, or its gateway has restarted".into(),
            Self::WrongMethod { allow } => format!("allowed here: {allow}"),
            Self::WrongMediaType { expected } => format!("send Content-Type: {expected}"),
            Self::NoGateway { failed } => format!("no gateway took it: {}", named(failed)),
            Self::QueuesFull { failed } => format!("no gateway took it: {}", named(failed)),
            Self::FirstFailed => {
                "an earlier push with this dedupe key reached no gateway; the key is free again".into()
            }
            Self::Overloaded { what, limit } => format!("{what} is at its limit of {limit}"),
            Self::ShuttingDown => "ask another node".into(),
        }
    }

    fn pointer(&self) -> Option<&str> {
        match self {
            Self::DuplicateKey { pointer }
            | Self::BadNumber { pointer }
            | Self::LoneSurrogate { pointer }
            | Self::UnknownField { pointer, .. }
            | Self::MissingField { pointer, .. }
            | Self::WrongType { pointer, .. }
            | Self::BadValue { pointer, .. }
            | Self::TooManyMessages { pointer, .. }
            | Self::TooManyTargets { pointer, .. }
            | Self::MessageTooLarge { pointer, .. } => Some(pointer),
            _ => None,
        }
    }

    /// Whether the rest of the request's body is left unread, so that the connection cannot be used again.
    fn leaves_body(&self) -> bool {
        matches!(
            self,
            Self::BodyTooLarge { .. }
                | Self::LineTooLarge { .. }
                | Self::BodyTimeout { .. }
                | Self::BodyCut
                | Self::ShuttingDown
        ) || matches!(self, Self::Overloaded { .. })
    }

    /// The problem document, alone or as one item of a batch's answer.
    #[must_use]
    pub fn document(&self) -> Problem {
        let rules = self.rules();
        Problem {
            kind: format!("urn:tidegate:problem:{}", rules.code),
            title: rules.title,
            status: rules.status.as_u16(),
            detail: self.detail(),
            code: rules.code,
            retryable: rules.is_retryable,
            errors: self.pointer().map(|p| [Fault { pointer: p.to_owned(), detail: self.detail() }]),
        }
    }

    /// The whole answer.
    #[must_use]
    pub fn response(&self) -> Response<Full<Bytes>> {
        let document = self.document();
        // A struct of strings and numbers serialises without fail.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.rules().status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.leaves_body() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        match self {
            Self::WrongMethod { allow } => {
                if let Ok(value) = HeaderValue::from_str(allow) {
                    headers.insert(ALLOW, value);
                }
            }
            Self::NoKey | Self::BadKey => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ if self.rules().status == StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

fn root(pointer: &str) -> &str {
    if pointer.is_empty() { "the document" } else { pointer }
}

fn named(failed: &[(String, &'static str)]) -> String {
    if failed.is_empty() {
        return "no gateway is configured (logic.gateways)".into();
    }
    let names: Vec<String> = failed.iter().map(|(name, why)| format!("{name} ({why})")).collect();
    names.join(", ")
}

/// RFC 9457, section 3.1, with Tidegate's members.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<[Fault; 1]>,
}

/// Where in the document the fault is: a JSON pointer (RFC 6901).
#[derive(Clone, Debug, Serialize)]
struct Fault {
    pointer: String,
    detail: String,
}
