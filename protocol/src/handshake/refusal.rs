//! Every reason not to open a session, and the HTTP response that says so (RFC 9457 problem details).
//! Invariants: status, code, title and retry advice of a refusal are decided in `facts` and nowhere else; no byte of the
//! request is ever echoed.

use std::io::Write as _;

use serde::Serialize;

use super::HEADERS_MAX;

/// Why a connection gets an HTTP answer instead of a session; its text is meant for whoever wrote the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{what} is malformed; send an HTTP/1.1 request as RFC 9112 defines it")]
    Malformed { what: &'static str },
    #[error("the PROXY protocol header is not taken: {what}")]
    ProxyHeader { what: &'static str },
    #[error("the request must be HTTP/1.1; older versions have no upgrade, and HTTP/2 is not spoken on this port")]
    HttpVersion,
    #[error(
        "the request head is larger than {limit} bytes (gateway.handshake.head_bytes); send fewer or shorter headers and cookies"
    )]
    HeadTooLarge { limit: usize },
    #[error("the request has more than {HEADERS_MAX} headers; send fewer")]
    TooManyHeaders,
    #[error("no WebSocket is served at this path; the usual one is /ws")]
    PathUnknown,
    #[error(
        "this port opens WebSockets, usually at /ws; the push API and the page are the logic tier's (port 8001 by default), and a \
         gateway of its own has an ops port (gateway.ops) for probes and metrics"
    )]
    ApiPath,
    #[error("a WebSocket is opened with GET")]
    MethodNotGet,
    #[error("the Host header is missing or empty; HTTP/1.1 requires exactly one")]
    HostMissing,
    #[error("{header} appears more than once; send it exactly once")]
    HeaderRepeated { header: &'static str },
    #[error("the request carries a body (Content-Length); an upgrade must have none")]
    BodyPresent,
    #[error("the request has a Transfer-Encoding; an upgrade must have no body")]
    TransferEncoding,
    #[error("only WebSockets are served here; send Upgrade: websocket, or use a WebSocket client")]
    NotAnUpgrade,
    #[error("the Upgrade header does not name websocket; if a proxy is in between, it must pass Upgrade on")]
    UpgradeNotWebSocket,
    #[error("the Connection header does not name upgrade; if a proxy is in between, it must send Connection: Upgrade")]
    ConnectionNotUpgrade,
    #[error("Sec-WebSocket-Version must be 13 (RFC 6455)")]
    WebSocketVersion,
    #[error("the Sec-WebSocket-Key header is missing")]
    KeyMissing,
    #[error("Sec-WebSocket-Key must be 16 random bytes in base 64 (24 characters)")]
    KeyInvalid,
    #[error("pages of this origin may not connect; the operator lists origins in gateway.allowed_origins")]
    OriginNotAllowed,
    #[error("the query is not usable: {what}")]
    BadQuery { what: &'static str },
    #[error(
        "clients of this gateway have no names of their own choice; leave ?user= out, or have the operator set \
         gateway.auth.mode = \"jwt\", or gateway.open.names = true if anyone may take any name"
    )]
    NameNotTaken,
    #[error("the token was not accepted: {what}")]
    Unauthorized { code: &'static str, what: &'static str },
    #[error("this user is connected on this platform or device already, and the operator lets the older one stay")]
    DevicePresent,
    #[error("this user has as many connections on this platform as the operator allows")]
    DeviceLimit,
    #[error("this user is blocked for a time")]
    Blocked,
    #[error("the service that says who may connect has said no")]
    HookRefused,
    #[error("the service that says who may connect cannot be asked; try again in {retry_after_s} s")]
    HookUnavailable { retry_after_s: u32 },
    #[error("this gateway has just started and is not ready yet; try again in {retry_after_s} s")]
    NotReady { retry_after_s: u32 },
    #[error("the request head did not arrive in time; send it at once after connecting")]
    HandshakeTimeout,
    #[error("this gateway holds as many connections as it may; try again in {retry_after_s} s")]
    TooManyConnections { retry_after_s: u32 },
    #[error("this gateway is shedding load; try again in {retry_after_s} s")]
    Overloaded { retry_after_s: u32 },
    #[error("this gateway is shutting down; connect again in {retry_after_s} s and another one will answer")]
    Draining { retry_after_s: u32 },
}

/// What follows from a refusal.
struct Facts {
    status: u16,
    /// Reason phrase of the status (RFC 9110 section 15).
    title: &'static str,
    code: &'static str,
    /// The same request may succeed later without change.
    is_retryable: bool,
    /// How many seconds later, where we know.
    retry_after_s: Option<u32>,
    /// Headers that the status requires, each with its line end.
    headers: &'static str,
}

/// Body of the response, in the order of RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    retryable: bool,
}

impl Refusal {
    /// HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.facts().status
    }

    /// Stable name in `snake_case`, for clients and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.facts().code
    }

    /// Appends the whole response; the connection is to be closed after it.
    pub fn response(&self, out: &mut Vec<u8>) {
        let facts = self.facts();
        write_response(out, &facts, facts.code, &self.to_string());
    }

    /// As [`Refusal::response`], to a request of which `head` has come: an answer to HEAD ends with its own head (RFC 9110
    /// section 9.3.2).
    pub fn response_to(&self, head: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        self.response(out);
        if head.trim_ascii_start().starts_with(b"HEAD ") {
            let end = out[start..].windows(4).position(|bytes| bytes == b"\r\n\r\n");
            out.truncate(end.map_or(out.len(), |end| start + end + 4));
        }
    }

    fn facts(&self) -> Facts {
        match self {
            Self::Malformed { .. } => bad_request("malformed_request"),
            Self::ProxyHeader { .. } => bad_request("proxy_header"),
            // 505 would be HTTP's own word, but rule C-1 promises a 4xx: the client is what has to change.
            Self::HttpVersion => bad_request("http_version"),
            Self::HeadTooLarge { .. } => fault(431, "Request Header Fields Too Large", "head_too_large"),
            Self::TooManyHeaders => fault(431, "Request Header Fields Too Large", "too_many_headers"),
            Self::PathUnknown | Self::ApiPath => fault(404, "Not Found", "path_unknown"),
            Self::MethodNotGet => {
                Facts { headers: "Allow: GET\r\n", ..fault(405, "Method Not Allowed", "method_not_get") }
            }
            Self::HostMissing => bad_request("host_missing"),
            Self::HeaderRepeated { .. } => bad_request("header_repeated"),
            Self::BodyPresent => bad_request("body_present"),
            Self::TransferEncoding => bad_request("transfer_encoding"),
            Self::NotAnUpgrade => upgrade_required("not_an_upgrade"),
            Self::UpgradeNotWebSocket => upgrade_required("upgrade_not_websocket"),
            Self::ConnectionNotUpgrade => upgrade_required("connection_not_upgrade"),
            Self::WebSocketVersion => upgrade_required("websocket_version"),
            Self::KeyMissing => bad_request("key_missing"),
            Self::KeyInvalid => bad_request("key_invalid"),
            Self::OriginNotAllowed => fault(403, "Forbidden", "origin_not_allowed"),
            Self::BadQuery { .. } => bad_request("bad_query"),
            Self::NameNotTaken => fault(403, "Forbidden", "name_not_taken"),
            // RFC 6750 section 3: an error is named only where a token was presented.
            Self::Unauthorized { code: "token_missing", .. } => {
                Facts { headers: "WWW-Authenticate: Bearer\r\n", ..fault(401, "Unauthorized", "token_missing") }
            }
            Self::Unauthorized { code, .. } => Facts {
                headers: "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n",
                ..fault(401, "Unauthorized", code)
            },
            Self::DevicePresent => fault(409, "Conflict", "device_present"),
            Self::DeviceLimit => fault(409, "Conflict", "device_limit"),
            Self::Blocked => fault(403, "Forbidden", "blocked"),
            Self::HookRefused => fault(403, "Forbidden", "hook_refused"),
            Self::HookUnavailable { retry_after_s } => unavailable("hook_unavailable", *retry_after_s),
            Self::NotReady { retry_after_s } => unavailable("not_ready", *retry_after_s),
            Self::HandshakeTimeout => {
                Facts { is_retryable: true, ..fault(408, "Request Timeout", "handshake_timeout") }
            }
            Self::TooManyConnections { retry_after_s } => unavailable("too_many_connections", *retry_after_s),
            Self::Overloaded { retry_after_s } => unavailable("overloaded", *retry_after_s),
            Self::Draining { retry_after_s } => unavailable("draining", *retry_after_s),
        }
    }
}

/// Appends the response of a refusal that a connect hook has decided: its code and its sentence, under one of 401, 403,
/// 429 and 503. The caller has checked that they are short and of one line.
pub fn refusal_of_others(out: &mut Vec<u8>, status: u16, code: &str, detail: &str) {
    let facts = match status {
        401 => Facts { headers: "WWW-Authenticate: Bearer\r\n", ..fault(401, "Unauthorized", "") },
        429 => Facts { title: "Too Many Requests", status: 429, ..unavailable("", 2) },
        503 => unavailable("", 2),
        _ => fault(403, "Forbidden", ""),
    };
    write_response(out, &facts, code, detail);
}

fn write_response(out: &mut Vec<u8>, facts: &Facts, code: &str, detail: &str) {
    let &Facts { status, title, is_retryable, retry_after_s, headers, .. } = facts;
    let problem = Problem { r#type: "about:blank", title, status, code, detail, retryable: is_retryable };
    let body = serde_json::to_vec(&problem).expect("strings, a number and a bool serialise into memory");
    write!(
        out,
        "HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n{headers}",
        body.len()
    )
    .expect("a Vec takes every write");
    if let Some(seconds) = retry_after_s {
        write!(out, "Retry-After: {seconds}\r\n").expect("a Vec takes every write");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&body);
}

/// A refusal that only a changed request cures.
const fn fault(status: u16, title: &'static str, code: &'static str) -> Facts {
    Facts { status, title, code, is_retryable: false, retry_after_s: None, headers: "" }
}

const fn bad_request(code: &'static str) -> Facts {
    fault(400, "Bad Request", code)
}

/// RFC 9110 section 15.5.22 wants Upgrade (and Connection naming it), RFC 6455 section 4.2.2 the versions.
const fn upgrade_required(code: &'static str) -> Facts {
    Facts {
        headers: "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        ..fault(426, "Upgrade Required", code)
    }
}

const fn unavailable(code: &'static str, retry_after_s: u32) -> Facts {
    Facts { is_retryable: true, retry_after_s: Some(retry_after_s), ..fault(503, "Service Unavailable", code) }
}
