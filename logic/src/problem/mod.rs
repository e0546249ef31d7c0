//! Every way the API says no, with the values that matter; what each means on the wire is in [`rules`].
//! The one place where a refusal becomes `application/problem+json` (RFC 9457); handlers only choose the variant.
//! Invariants: [`Refusal::rules`] is exhaustive; a code, once released, keeps its meaning.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use utoipa::ToSchema;

mod known;
pub mod rules;

pub use self::known::Known;
pub use self::rules::Rules;

/// Why a request is not done, with the values that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    // The head of the request.
    MalformedRequest { what: &'static str },
    HeaderRepeated { header: &'static str },
    HostMissing,
    HeadTooLarge { limit: usize },
    TooManyHeaders { limit: usize },
    TargetTooLong { limit: usize },
    HeadTimeout { limit_ms: u32 },
    HttpVersion,
    TransferCoding,
    BadEscape { place: &'static str },
    // What was sent is not JSON, or JSON nobody should pass on.
    BadJson { detail: String },
    JsonTooDeep { limit: usize },
    DuplicateKey { pointer: String },
    BadNumber { pointer: String },
    LoneSurrogate { pointer: String },
    // JSON, but not what the call takes.
    UnknownField { pointer: String, name: String, known: String },
    MissingField { pointer: String, name: &'static str },
    WrongType { pointer: String, expected: &'static str },
    NumberForText { pointer: String, number: String },
    BadValue { pointer: String, expected: String },
    // Limits.
    TooManyMessages { pointer: String, limit: usize },
    TooManyTargets { pointer: String, limit: usize },
    TooManyUsers { pointer: String, limit: usize },
    TooManyPushes { limit: usize },
    MessageTooLarge { pointer: String, bytes: usize, limit: usize },
    BodyTooLarge { limit: usize, key: &'static str },
    LineTooLarge { limit: usize },
    BodyTimeout { limit_ms: u32 },
    BodyCut,
    // Form and query.
    BadForm { detail: String },
    UnknownParameter { name: String, known: String },
    BadParameter { name: &'static str, expected: String },
    // Who and where.
    NoKey,
    BadKey,
    KeyNotYet { from: String },
    KeyExpired { since: String },
    WrongScope { needs: &'static str },
    TargetNotAllowed { what: String, allowed: String },
    ForeignOrigin { origin: String },
    ForeignHost { host: String },
    NoSuchPath,
    NoWebSocket,
    NoSuchConnection,
    NoSuchSink,
    WrongMethod { allow: String },
    WrongMediaType { expected: &'static str },
    ContentEncoding,
    // Commands to agents.
    NobodyThere,
    NoSuchAgent,
    AgentError { known: Box<Known> },
    CommandTimeout { known: Box<Known> },
    IdempotencyConflict,
    // Not now.
    NoGateway { failed: Vec<(String, &'static str)> },
    QueuesFull { failed: Vec<(String, &'static str)> },
    GatewayLost { failed: Vec<(String, &'static str)> },
    FirstFailed,
    SpoolFailed,
    Overloaded { what: &'static str, limit: usize },
    ShuttingDown,
}

impl Refusal {
    /// The consequence of each refusal.
    #[must_use]
    pub fn rules(&self) -> Rules {
        match self {
            Self::MalformedRequest { .. } => rules::MALFORMED_REQUEST,
            Self::HeaderRepeated { .. } => rules::HEADER_REPEATED,
            Self::HostMissing => rules::HOST_MISSING,
            Self::HeadTooLarge { .. } => rules::HEAD_TOO_LARGE,
            Self::TooManyHeaders { .. } => rules::TOO_MANY_HEADERS,
            Self::TargetTooLong { .. } => rules::TARGET_TOO_LONG,
            Self::HeadTimeout { .. } => rules::HEAD_TIMEOUT,
            Self::HttpVersion => rules::HTTP_VERSION,
            Self::TransferCoding => rules::TRANSFER_CODING,
            Self::BadEscape { .. } => rules::BAD_ESCAPE,
            Self::BadJson { .. } => rules::BAD_JSON,
            Self::JsonTooDeep { .. } => rules::JSON_TOO_DEEP,
            Self::DuplicateKey { .. } => rules::DUPLICATE_KEY,
            Self::BadNumber { .. } => rules::BAD_NUMBER,
            Self::LoneSurrogate { .. } => rules::LONE_SURROGATE,
            Self::UnknownField { .. } => rules::UNKNOWN_FIELD,
            Self::MissingField { .. } => rules::MISSING_FIELD,
            Self::WrongType { .. } | Self::NumberForText { .. } => rules::WRONG_TYPE,
            Self::BadValue { .. } => rules::BAD_VALUE,
            Self::TooManyMessages { .. } => rules::TOO_MANY_MESSAGES,
            Self::TooManyTargets { .. } | Self::TooManyUsers { .. } => rules::TOO_MANY_TARGETS,
            Self::TooManyPushes { .. } => rules::TOO_MANY_PUSHES,
            Self::MessageTooLarge { .. } => rules::MESSAGE_TOO_LARGE,
            Self::BodyTooLarge { .. } => rules::BODY_TOO_LARGE,
            Self::LineTooLarge { .. } => rules::LINE_TOO_LARGE,
            Self::BodyTimeout { .. } => rules::BODY_TIMEOUT,
            Self::BodyCut => rules::BODY_CUT,
            Self::BadForm { .. } => rules::BAD_FORM,
            Self::UnknownParameter { .. } => rules::UNKNOWN_PARAMETER,
            Self::BadParameter { .. } => rules::BAD_PARAMETER,
            Self::NoKey => rules::NO_KEY,
            Self::BadKey => rules::BAD_KEY,
            Self::KeyNotYet { .. } => rules::KEY_NOT_YET,
            Self::KeyExpired { .. } => rules::KEY_EXPIRED,
            Self::TargetNotAllowed { .. } => rules::TARGET_NOT_ALLOWED,
            Self::WrongScope { .. } => rules::WRONG_SCOPE,
            Self::ForeignOrigin { .. } => rules::FOREIGN_ORIGIN,
            Self::ForeignHost { .. } => rules::FOREIGN_HOST,
            Self::NoSuchPath | Self::NoWebSocket => rules::NO_SUCH_PATH,
            Self::NoSuchConnection => rules::NO_SUCH_CONNECTION,
            Self::NoSuchSink => rules::NO_SUCH_SINK,
            Self::WrongMethod { .. } => rules::WRONG_METHOD,
            Self::WrongMediaType { .. } => rules::WRONG_MEDIA_TYPE,
            Self::ContentEncoding => rules::CONTENT_ENCODING,
            Self::NobodyThere => rules::NOBODY_THERE,
            Self::NoSuchAgent => rules::NO_SUCH_AGENT,
            Self::AgentError { .. } => rules::AGENT_ERROR,
            Self::CommandTimeout { .. } => rules::COMMAND_TIMEOUT,
            Self::IdempotencyConflict => rules::IDEMPOTENCY_CONFLICT,
            Self::NoGateway { .. } => rules::NO_GATEWAY,
            Self::QueuesFull { .. } => rules::QUEUES_FULL,
            Self::GatewayLost { .. } => rules::GATEWAY_LOST,
            Self::FirstFailed => rules::FIRST_FAILED,
            Self::SpoolFailed => rules::SPOOL_FAILED,
            Self::Overloaded { .. } => rules::OVERLOADED,
            Self::ShuttingDown => rules::SHUTTING_DOWN,
        }
    }

    /// A sentence a person can act on.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a line or two for each refusal, all in one place")]
    pub fn detail(&self) -> String {
        match self {
            Self::MalformedRequest { what } => {
                format!(
                    "{what} can be read in more than one way, or in none; send HTTP/1.1 or 2 as RFC 9112 and 9113 define it"
                )
            }
            Self::HeaderRepeated { header } => format!("{header} stands there more than once; send it once"),
            Self::HostMissing => "HTTP/1.1 needs exactly one Host".into(),
            Self::HeadTooLarge { limit } => {
                format!("the head of a request has at most {limit} bytes (logic.limits.header_bytes)")
            }
            Self::TooManyHeaders { limit } => format!("a request has at most {limit} headers"),
            Self::TargetTooLong { limit } => format!("the target of a request has at most {limit} bytes"),
            Self::HeadTimeout { limit_ms } => {
                format!("the head of a request must arrive within {limit_ms} ms (logic.http.header_ms)")
            }
            Self::HttpVersion => "this port speaks HTTP/1.1 and HTTP/2".into(),
            Self::TransferCoding => "the only transfer coding here is chunked".into(),
            Self::BadEscape { place } => {
                format!("in the {place} each % must begin an escape such as %20, and what comes out must be UTF-8")
            }
            Self::BadJson { detail } | Self::BadForm { detail } => detail.clone(),
            Self::JsonTooDeep { limit } => {
                format!("arrays and objects may nest {limit} levels deep (logic.limits.json_depth)")
            }
            Self::DuplicateKey { pointer } => format!("{pointer} is given twice; it is unclear which one is meant"),
            Self::BadNumber { pointer } => format!("{pointer} holds a number that reads as infinite"),
            Self::LoneSurrogate { pointer } => {
                format!("{pointer} holds \\ud800 to \\udfff without its other half, which is no text in UTF-8")
            }
            Self::UnknownField { pointer, name, known } => {
                format!("{pointer:?} is not known here: remove {name:?} or correct it; known are {known}")
            }
            Self::NumberForText { pointer, number } => {
                format!("{:?} must be a string: write \"{number}\"", root(pointer))
            }
            Self::MissingField { pointer, name } => format!("{:?} needs {name}", root(pointer)),
            Self::WrongType { pointer, expected } => format!("{:?} must be {expected}", root(pointer)),
            Self::BadValue { pointer, expected } => format!("{:?} must be {expected}", root(pointer)),
            Self::TooManyMessages { limit, .. } => {
                format!("a push holds at most {limit} messages (logic.limits.messages)")
            }
            Self::TooManyTargets { limit, .. } => format!("a push has at most {limit} targets (logic.limits.targets)"),
            Self::TooManyUsers { limit, .. } => format!("a question is about at most {limit} users"),
            Self::TooManyPushes { limit } => {
                format!("a batch holds at most {limit} pushes (logic.limits.batch_pushes)")
            }
            Self::MessageTooLarge { pointer, bytes, limit } => {
                format!("{pointer} has {bytes} bytes; a message has at most {limit} (logic.limits.message_bytes)")
            }
            Self::BodyTooLarge { limit, key } => format!("a body has at most {limit} bytes ({key})"),
            Self::LineTooLarge { limit } => format!("a line has at most {limit} bytes (logic.limits.body_bytes)"),
            Self::BodyTimeout { limit_ms } => {
                format!("the body must arrive within {limit_ms} ms (logic.http.body_ms, logic.http.ndjson_ms)")
            }
            Self::BodyCut => "the connection or the encoding of the body broke before its end".into(),
            Self::UnknownParameter { name, known } if known.is_empty() => {
                format!("query parameter {name:?} is not known here, nor is any other")
            }
            Self::UnknownParameter { name, known } => {
                format!("query parameter {name:?} is not known here; known are {known}")
            }
            Self::BadParameter { name, expected } => format!("{name} must be {expected}"),
            Self::NoKey => "send Authorization: Bearer <key>".into(),
            Self::BadKey => "the key in Authorization is not among the configured ones".into(),
            Self::KeyNotYet { from } => format!("the key counts from {from} on (its not_before in logic.keys)"),
            Self::KeyExpired { since } => format!("the key has expired at {since}; ask for a new one"),
            Self::TargetNotAllowed { what, allowed } => format!("not {what}: this key may push to {allowed}"),
            Self::WrongScope { needs } => format!("this call needs a key with the scope {needs}"),
            Self::ForeignOrigin { origin } => {
                format!("without keys only programs and this server's own pages may call, not a page of {origin}")
            }
            Self::ForeignHost { host } => format!(
                "without keys the Host must be an IP address, localhost or one of logic.allowed_hosts, not {host}"
            ),
            Self::NoSuchPath => "see docs/http-api.md for the paths there are".into(),
            Self::NoWebSocket => {
                "this is the push API; WebSockets are opened on the gateway's port (8000 by default)".into()
            }
            Self::NoSuchSink => "sinks are those of the configuration (logic.upstream.sinks)".into(),
            Self::NoSuchConnection => "no gateway holds it: it has closed, or its gateway has restarted".into(),
            Self::WrongMethod { allow } => format!("allowed here: {allow}"),
            Self::WrongMediaType { expected } => format!("send Content-Type: {expected}"),
            Self::ContentEncoding => "send the body as it is, without Content-Encoding".into(),
            Self::NobodyThere => {
                "nobody of the target is connected; with \"wait_for_agent\": true a command waits for its user".into()
            }
            Self::NoSuchAgent => "no connected agent has that connection id or user name".into(),
            Self::AgentError { .. } => "its error is in command.reply.error".into(),
            Self::CommandTimeout { known } => format!(
                "sent to {} connections, no reply within {} ms; {}",
                known.delivered,
                known.took_ms,
                if known.connected { "someone of the target is connected" } else { "nobody of it is connected now" }
            ),
            Self::IdempotencyConflict => {
                "an earlier command with this key asked for something else; take a new key for a new command".into()
            }
            Self::NoGateway { failed } => format!("no gateway took it: {}", named(failed)),
            Self::QueuesFull { failed } => format!("no gateway took it: {}", named(failed)),
            Self::GatewayLost { failed } => {
                format!("no gateway has said that it took it, and one may have: {}", named(failed))
            }
            Self::FirstFailed => "the first request with this key reached nobody; the key is free again".into(),
            Self::SpoolFailed => "the disk refuses; the log of this node says why (logic.upstream.spool)".into(),
            Self::Overloaded { what, limit } => format!("{what} is at its limit of {limit}"),
            Self::ShuttingDown => "ask another node".into(),
        }
    }

    fn known(&self) -> Option<Box<Known>> {
        match self {
            Self::AgentError { known } | Self::CommandTimeout { known } => Some(known.clone()),
            _ => None,
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
            | Self::NumberForText { pointer, .. }
            | Self::BadValue { pointer, .. }
            | Self::TooManyMessages { pointer, .. }
            | Self::TooManyTargets { pointer, .. }
            | Self::TooManyUsers { pointer, .. }
            | Self::MessageTooLarge { pointer, .. } => Some(pointer),
            _ => None,
        }
    }

    /// Whether the rest of the request's body is left unread, or nobody knows where it ends, so that the connection cannot be
    /// used again.
    fn leaves_body(&self) -> bool {
        matches!(
            self,
            Self::MalformedRequest { .. }
                | Self::HeaderRepeated { .. }
                | Self::HostMissing
                | Self::BodyTooLarge { .. }
                | Self::ContentEncoding
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
            command: self.known(),
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
            Self::NoKey | Self::BadKey | Self::KeyNotYet { .. } | Self::KeyExpired { .. } => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::ContentEncoding => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
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

/// Why a request was not done: RFC 9457, section 3.1, with three members of Tidegate's (`code`, `retryable`, `errors`,
/// and of commands `command`).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:tidegate:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(pattern = "^urn:tidegate:problem:[a-z_]+$")]
    kind: String,
    /// The same for every occurrence of the code, for people.
    title: &'static str,
    /// The HTTP status once more.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// A sentence a person can act on; it names the limit's configuration key where there is one.
    detail: String,
    /// For programs: a code keeps its meaning for ever.
    #[schema(pattern = "^[a-z_]+$")]
    code: &'static str,
    /// Whether the same request can succeed later.
    retryable: bool,
    /// What is known of a command without a good answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Box<Known>>,
    /// Where in the request's JSON the fault is; absent where it is nowhere in particular.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Fault>>, min_items = 1, max_items = 1)]
    errors: Option<[Fault; 1]>,
}

/// A place in the request's JSON.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Fault {
    /// JSON pointer (RFC 6901); empty: the whole document.
    pointer: String,
    /// What is wrong there.
    detail: String,
}
