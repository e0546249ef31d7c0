//! Reads and checks one request head. Hot path of a reconnect storm: one pass over the headers, no allocation.
//! Does not decide what a refusal looks like (see `refusal`).
//! Invariants: a prefix of an admissible request is `Incomplete`; nothing past `head_bytes_max` is looked at.

use std::mem::MaybeUninit;

use httparse::{Header, Request, Status};

use super::{Deflate, HEADERS_MAX, Parsed, Policy, Refusal, SUBPROTOCOL, Upgrade};

/// Base 64 of 16 bytes: 22 characters and two of padding.
const KEY_CHARS: usize = 22;

/// Reads the request head at the start of `input`.
///
/// Line ends and spacing are judged by `httparse`: a bare LF ends a line (RFC 9112 section 2.2 allows it), folded lines are refused.
///
/// # Errors
///
/// The first reason not to upgrade: what is malformed, then path, method, headers, and the origin last.
pub fn parse<'a>(input: &'a [u8], policy: &Policy<'_>) -> Result<Parsed<'a>, Refusal> {
    let window = &input[..input.len().min(policy.head_bytes_max)];
    let mut headers = [const { MaybeUninit::<Header<'a>>::uninit() }; HEADERS_MAX];
    let mut request = Request::new(&mut []);

    let head_bytes = match request.parse_with_uninit_headers(window, &mut headers) {
        Ok(Status::Complete(bytes)) => bytes,
        Ok(Status::Partial) if window.len() == policy.head_bytes_max => {
            return Err(Refusal::HeadTooLarge { limit: policy.head_bytes_max });
        }
        Ok(Status::Partial) => return Ok(Parsed::Incomplete),
        Err(e) => return Err(malformed(e)),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Refusal::Malformed { what: "the request line" });
    };
    if version != 1 {
        return Err(Refusal::HttpVersion);
    }
    let (path, query) = split_target(target);
    if !policy.paths.contains(&path) {
        return Err(if is_of_api(path) { Refusal::ApiPath } else { Refusal::PathUnknown });
    }
    if method != "GET" {
        return Err(Refusal::MethodNotGet);
    }
    let upgrade = Fields::read(request.headers, policy)?.check(path, query)?;
    Ok(Parsed::Upgrade(upgrade, head_bytes))
}

/// Whether it is asked for what the other tier has.
fn is_of_api(path: &str) -> bool {
    const FOLDERS: [&str; 4] = ["/v1/", "/push/", "/agents", "/console"];
    const FILES: [&str; 5] = ["/", "/healthz", "/readyz", "/metrics", "/openapi.json"];
    FILES.contains(&path) || FOLDERS.iter().any(|folder| path.starts_with(folder))
}

/// What the headers say, each kept as found until all are read.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    has_connection_upgrade: bool,
    has_upgrade_header: bool,
    has_upgrade_websocket: bool,
    version: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    authorization: Option<&'a [u8]>,
    has_subprotocol: bool,
    has_bad_origin: bool,
    deflate: Option<Deflate>,
}

impl<'a> Fields<'a> {
    /// Collects the fields that matter; refuses what no other header can make good.
    fn read(headers: &[Header<'a>], policy: &Policy<'_>) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for &Header { name, value } in headers {
            // Lengths differ for nearly all of them, so most names cost one comparison of integers.
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
            match name.len() {
                4 if is("host") => set_once(&mut fields.host, value, "Host")?,
                6 if is("origin") => fields.has_bad_origin |= !policy.origins.allows(value),
                7 if is("upgrade") => {
                    fields.has_upgrade_header = true;
                    fields.has_upgrade_websocket |= tokens(value).any(|t| t.eq_ignore_ascii_case(b"websocket"));
                }
                10 if is("connection") => {
                    fields.has_connection_upgrade |= tokens(value).any(|t| t.eq_ignore_ascii_case(b"upgrade"));
                }
                13 if is("authorization") => set_once(&mut fields.authorization, value, "Authorization")?,
                14 if is("content-length") && value.trim_ascii() != b"0" => return Err(Refusal::BodyPresent),
                17 if is("transfer-encoding") => return Err(Refusal::TransferEncoding),
                17 if is("sec-websocket-key") => set_once(&mut fields.key, value, "Sec-WebSocket-Key")?,
                21 if is("sec-websocket-version") => set_once(&mut fields.version, value, "Sec-WebSocket-Version")?,
                22 if is("sec-websocket-protocol") => {
                    fields.has_subprotocol |= tokens(value).any(|t| t == SUBPROTOCOL.as_bytes());
                }
                24 if policy.deflate && is("sec-websocket-extensions") => {
                    fields.deflate = Deflate::choose(fields.deflate, value);
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    /// The upgrade that these headers ask for.
    fn check(self, path: &'a str, query: &'a str) -> Result<Upgrade<'a>, Refusal> {
        if self.host.is_none_or(<[u8]>::is_empty) {
            return Err(Refusal::HostMissing);
        }
        if !self.has_upgrade_header && self.key.is_none() {
            return Err(Refusal::NotAnUpgrade);
        }
        if !self.has_upgrade_websocket {
            return Err(Refusal::UpgradeNotWebSocket);
        }
        if !self.has_connection_upgrade {
            return Err(Refusal::ConnectionNotUpgrade);
        }
        if self.version.is_none_or(|version| version != b"13") {
            return Err(Refusal::WebSocketVersion);
        }
        let key = self.key.ok_or(Refusal::KeyMissing)?;
        let key = valid_key(key).ok_or(Refusal::KeyInvalid)?;
        let authorization = match self.authorization.map(std::str::from_utf8) {
            None => None,
            Some(Ok(value)) => Some(value),
            Some(Err(_)) => return Err(Refusal::Malformed { what: "the Authorization header" }),
        };
        if self.has_bad_origin {
            return Err(Refusal::OriginNotAllowed);
        }
        Ok(Upgrade { key, subprotocol: self.has_subprotocol, path, query, authorization, deflate: self.deflate })
    }
}

/// Headers of which two would leave open which one counts.
fn set_once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8], header: &'static str) -> Result<(), Refusal> {
    match slot.replace(value.trim_ascii()) {
        None => Ok(()),
        Some(_) => Err(Refusal::HeaderRepeated { header }),
    }
}

/// Members of a comma-separated list (RFC 9110 section 5.6.1).
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

/// `key` if it is base 64 of 16 bytes. The four bits after the last byte may be anything: they change no decoded byte,
/// and some clients draw the characters at random.
fn valid_key(key: &[u8]) -> Option<&str> {
    let characters = key.strip_suffix(b"==")?;
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || *b == b'+' || *b == b'/';
    if characters.len() != KEY_CHARS || !characters.iter().all(is_base64) {
        return None;
    }
    std::str::from_utf8(key).ok()
}

/// Path and query of a request target; the absolute form must be understood (RFC 9112 section 3.2.2).
fn split_target(target: &str) -> (&str, &str) {
    let mut target = target;
    if !target.starts_with('/')
        && let Some((_, rest)) = target.split_once("://")
    {
        target = rest.find('/').map_or("", |slash| &rest[slash..]);
    }
    target.split_once('?').unwrap_or((target, ""))
}

/// What `httparse` found, in our words.
fn malformed(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::TooManyHeaders,
        httparse::Error::Version => Refusal::HttpVersion,
        httparse::Error::HeaderName => Refusal::Malformed { what: "a header name" },
        httparse::Error::HeaderValue => Refusal::Malformed { what: "a header value" },
        httparse::Error::NewLine => Refusal::Malformed { what: "a line end" },
        httparse::Error::Token | httparse::Error::Status => Refusal::Malformed { what: "the request line" },
    }
}
