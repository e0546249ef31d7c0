//! Specification of the opening handshake: which requests become sessions, and what the others are told (rules C-1 to C-3).

use proptest::prelude::*;

use super::{HEADERS_MAX, Origins, Parsed, Policy, Refusal, Upgrade, accept_response, parse};

const HEAD_BYTES_MAX: usize = 4096;
/// Headers of a good request, in an order that `good` keeps.
const GOOD: [&str; 5] = [
    "Host: push.example.com",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn parse_with<'a>(input: &'a [u8], origins: &[&str]) -> Result<Parsed<'a>, Refusal> {
    let origins = Origins::parse(&origins.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>()).expect("valid");
    let policy =
        Policy { paths: &["/ws", "/connect"], origins: &origins, head_bytes_max: HEAD_BYTES_MAX, deflate: true };
    parse(input, &policy)
}

fn check(input: &[u8]) -> Result<Parsed<'_>, Refusal> {
    parse_with(input, &["https://app.example.com"])
}

fn request(line: &str, headers: &[&str]) -> Vec<u8> {
    let mut out = format!("{line}\r\n");
    for header in headers {
        out.push_str(header);
        out.push_str("\r\n");
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// The good request with headers added.
fn good(more: &[&str]) -> Vec<u8> {
    request("GET /ws?user=a HTTP/1.1", &[&GOOD[..], more].concat())
}

/// The good request with the header that begins with `name` replaced, or taken away by an empty `by`.
fn replaced(name: &str, by: &str) -> Vec<u8> {
    let headers: Vec<&str> =
        GOOD.iter().map(|h| if h.starts_with(name) { by } else { h }).filter(|h| !h.is_empty()).collect();
    request("GET /ws HTTP/1.1", &headers)
}

fn upgrade(input: &[u8]) -> Upgrade<'_> {
    match check(input) {
        Ok(Parsed::Upgrade(upgrade, _)) => upgrade,
        other => panic!("{other:?} for {}", String::from_utf8_lossy(input)),
    }
}

fn assert_refused(input: &[u8], status: u16, code: &str) {
    let refusal = check(input).expect_err(&String::from_utf8_lossy(input));
    assert_eq!((refusal.status(), refusal.code()), (status, code), "{}", String::from_utf8_lossy(input));
}

/// Rule C-1.
#[test]
fn a_good_request_becomes_an_upgrade_and_leaves_early_frames_alone() {
    let mut input = good(&["Authorization: Bearer abc", "Origin: https://app.example.com", "Cookie: a=b"]);
    let head_bytes = input.len();
    input.extend(b"\x81\x80\0\0\0\0");

    let expected = Upgrade {
        key: "dGhlIHNhbXBsZSBub25jZQ==",
        subprotocol: false,
        path: "/ws",
        query: "user=a",
        authorization: Some("Bearer abc"),
        deflate: None,
    };
    assert_eq!(check(&input), Ok(Parsed::Upgrade(expected, head_bytes)));
}

/// Rule C-1.
#[test]
fn requests_that_clients_and_proxies_really_send_are_accepted() {
    let table = [
        request("GET /connect HTTP/1.1", &GOOD),
        request("GET http://push.example.com/ws?a HTTP/1.1", &GOOD),
        replaced("Upgrade", "upgrade: WebSocket"),
        replaced("Upgrade", "Upgrade: h2c, websocket"),
        replaced("Connection", "CONNECTION:upgrade"),
        replaced("Sec-WebSocket-Key", "sec-websocket-key:   AAAAAAAAAAAAAAAAAAAAAA==  "),
        replaced("Sec-WebSocket-Key", "Sec-WebSocket-Key: zzzzzzzzzzzzzzzzzzzzzz=="),
        good(&["Content-Length: 0"]),
        good(&["Connection: close"]),
        good(&["Cookie: \u{e9}"]),
    ];
    for input in &table {
        upgrade(input);
    }
    assert_eq!(upgrade(&table[1]).query, "a");
}

#[test]
fn every_prefix_of_a_good_request_is_incomplete() {
    let input = good(&["Origin: https://app.example.com", "Sec-WebSocket-Protocol: tidegate.v1.json"]);
    for len in 0..input.len() {
        assert_eq!(check(&input[..len]), Ok(Parsed::Incomplete), "{len}");
    }
}

/// Rule C-1, threat row 17.
#[test]
fn a_request_line_that_is_not_ours_is_refused() {
    let table = [
        ("POST /ws HTTP/1.1", 405, "method_not_get"),
        ("HEAD /connect HTTP/1.1", 405, "method_not_get"),
        ("get /ws HTTP/1.1", 405, "method_not_get"),
        ("GET / HTTP/1.1", 404, "path_unknown"),
        ("GET /ws/ HTTP/1.1", 404, "path_unknown"),
        ("GET /WS HTTP/1.1", 404, "path_unknown"),
        ("GET /ws%00 HTTP/1.1", 404, "path_unknown"),
        ("GET * HTTP/1.1", 404, "path_unknown"),
        ("GET http://push.example.com HTTP/1.1", 404, "path_unknown"),
        ("POST /nowhere HTTP/1.1", 404, "path_unknown"),
        ("GET /ws HTTP/1.0", 400, "http_version"),
        ("GET /ws HTTP/2.0", 400, "http_version"),
        ("GET /ws", 400, "malformed_request"),
        ("GET  /ws HTTP/1.1", 400, "malformed_request"),
        ("G\u{e9}T /ws HTTP/1.1", 400, "malformed_request"),
        ("\u{16}\u{3}\u{1} tls", 400, "malformed_request"),
    ];
    for (line, status, code) in table {
        assert_refused(&request(line, &GOOD), status, code);
    }
}

/// Rule C-1, threat row 17.
#[test]
fn a_header_that_is_missing_or_wrong_is_refused() {
    let table = [
        ("Host", "", 400, "host_missing"),
        ("Host", "Host:", 400, "host_missing"),
        ("Upgrade", "", 426, "upgrade_not_websocket"),
        ("Upgrade", "Upgrade: h2c", 426, "upgrade_not_websocket"),
        ("Upgrade", "Upgrade: websockets", 426, "upgrade_not_websocket"),
        ("Connection", "", 426, "connection_not_upgrade"),
        ("Connection", "Connection: keep-alive", 426, "connection_not_upgrade"),
        ("Sec-WebSocket-Version", "", 426, "websocket_version"),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8", 426, "websocket_version"),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 013", 426, "websocket_version"),
        ("Sec-WebSocket-Key", "", 400, "key_missing"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key:", 400, "key_invalid"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: AAA=", 400, "key_invalid"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=", 400, "key_invalid"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWU=", 400, "key_invalid"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25_ZQ==", 400, "key_invalid"),
        ("Host", "Host : a", 400, "malformed_request"),
        ("Host", "Host: a\r\n folded", 400, "malformed_request"),
        ("Host", "Host: a\0b", 400, "malformed_request"),
        ("Host", "no colon", 400, "malformed_request"),
        ("Host", "Host: a\rb", 400, "malformed_request"),
    ];
    for (name, by, status, code) in table {
        assert_refused(&replaced(name, by), status, code);
    }
}

/// Rule C-1, threat row 17.
#[test]
fn a_header_that_makes_the_request_ambiguous_is_refused() {
    let table = [
        ("Host: other.example.com", 400, "header_repeated"),
        ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", 400, "header_repeated"),
        ("Sec-WebSocket-Version: 13", 400, "header_repeated"),
        ("Authorization: Bearer a\r\nAuthorization: Bearer b", 400, "header_repeated"),
        ("Authorization: Bearer \u{e9}\r\nContent-Length: 1", 400, "body_present"),
        ("Content-Length: 5", 400, "body_present"),
        ("Content-Length: 0\r\nContent-Length: 5", 400, "body_present"),
        ("Content-Length: +0", 400, "body_present"),
        ("Transfer-Encoding: chunked", 400, "transfer_encoding"),
        ("Transfer-Encoding: identity", 400, "transfer_encoding"),
    ];
    for (header, status, code) in table {
        assert_refused(&good(&[header]), status, code);
    }
    let not_utf8 = [&b"GET /ws HTTP/1.1\r\nAuthorization: \xff\r\n"[..], &request("", &GOOD)[2..]].concat();
    assert_refused(&not_utf8, 400, "malformed_request");
}

/// Rule C-1.
#[test]
fn a_plain_get_is_told_to_upgrade() {
    assert_refused(&request("GET /ws HTTP/1.1", &["Host: a", "Accept: */*"]), 426, "not_an_upgrade");
}

/// Rule C-1.
#[test]
fn a_head_over_the_bound_is_refused_even_before_it_ends() {
    let filler = format!("Cookie: {}", "x".repeat(HEAD_BYTES_MAX));
    let long = good(&[&filler]);
    let base = good(&["Cookie: "]).len();
    let fits = good(&[&format!("Cookie: {}", "x".repeat(HEAD_BYTES_MAX - base))]);

    assert_refused(&long, 431, "head_too_large");
    assert_refused(&long[..HEAD_BYTES_MAX], 431, "head_too_large");
    assert_eq!(check(&long[..HEAD_BYTES_MAX - 1]), Ok(Parsed::Incomplete));
    assert_eq!(fits.len(), HEAD_BYTES_MAX);
    upgrade(&fits);
    assert_refused(&good(&[&format!("Cookie: {}", "x".repeat(HEAD_BYTES_MAX - base + 1))]), 431, "head_too_large");
}

/// Rule C-1.
#[test]
fn more_headers_than_the_bound_are_refused() {
    let most = vec!["X: y"; HEADERS_MAX - GOOD.len()];

    upgrade(&good(&most));
    assert_refused(&good(&[&most[..], &["X: y"]].concat()), 431, "too_many_headers");
}

/// Rule C-2.
#[test]
fn our_subprotocol_is_chosen_if_it_is_among_those_offered() {
    let table = [
        (&[][..], false),
        (&["Sec-WebSocket-Protocol: tidegate.v1.json"], true),
        (&["Sec-WebSocket-Protocol: graphql-ws ,tidegate.v1.json, x"], true),
        (&["Sec-WebSocket-Protocol: a", "sec-websocket-protocol: tidegate.v1.json"], true),
        (&["Sec-WebSocket-Protocol: tidegate.v2.json"], false),
        (&["Sec-WebSocket-Protocol: Tidegate.v1.json"], false),
    ];
    for (headers, chosen) in table {
        let input = good(headers);
        let mut out = Vec::new();

        accept_response(&upgrade(&input), &mut out);

        let out = String::from_utf8(out).expect("ASCII");
        assert_eq!(out.contains("\r\nSec-WebSocket-Protocol: tidegate.v1.json\r\n"), chosen, "{headers:?}");
        assert_eq!(out.contains("Sec-WebSocket-Protocol"), chosen, "{headers:?}");
    }
}

/// Rule C-3.
#[test]
fn an_origin_must_be_allowed_if_there_is_one() {
    assert_refused(&good(&["Origin: https://evil.com"]), 403, "origin_not_allowed");
    assert_refused(&good(&["Origin: null"]), 403, "origin_not_allowed");
    assert_refused(&good(&["Origin: https://app.example.com", "Origin: https://evil.com"]), 403, "origin_not_allowed");
    upgrade(&good(&["Origin: https://app.example.com"]));

    let input = good(&["Origin: https://evil.com"]);
    assert!(matches!(parse_with(&input, &["*"]), Ok(Parsed::Upgrade(..))));
    assert_eq!(parse_with(&input, &[]), Err(Refusal::OriginNotAllowed));
}

/// RFC 6455 section 1.3.
#[test]
fn the_sample_key_of_the_rfc_gives_its_sample_accept() {
    let input = good(&[]);
    let mut out = Vec::new();

    accept_response(&upgrade(&input), &mut out);

    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

/// Head and JSON body of a refusal, the head's promises about the body checked.
fn response(refusal: Refusal) -> (String, serde_json::Value) {
    let mut out = Vec::new();
    refusal.response(&mut out);
    let text = String::from_utf8(out).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    assert!(head.contains("\r\nConnection: close"), "{head}");
    assert!(head.contains("\r\nContent-Type: application/problem+json\r\n"), "{head}");
    (head.to_owned() + "\r\n", serde_json::from_str(body).expect("JSON"))
}

#[test]
fn a_refusal_is_a_problem_document_with_the_headers_its_status_requires() {
    let table: [(Refusal, &str, &[&str], bool); 10] = [
        (Refusal::MethodNotGet, "405 Method Not Allowed", &["Allow: GET"], false),
        (
            Refusal::WebSocketVersion,
            "426 Upgrade Required",
            &["Upgrade: websocket", "Sec-WebSocket-Version: 13"],
            false,
        ),
        (
            Refusal::Unauthorized { code: "token_expired", what: "it has expired" },
            "401 Unauthorized",
            &["WWW-Authenticate: Bearer error=\"invalid_token\""],
            false,
        ),
        (
            Refusal::Unauthorized { code: "token_missing", what: "bring one" },
            "401 Unauthorized",
            &["WWW-Authenticate: Bearer"],
            false,
        ),
        (Refusal::DevicePresent, "409 Conflict", &[], false),
        (Refusal::HandshakeTimeout, "408 Request Timeout", &[], true),
        (Refusal::TooManyConnections { retry_after_s: 7 }, "503 Service Unavailable", &["Retry-After: 7"], true),
        (Refusal::Overloaded { retry_after_s: 8 }, "503 Service Unavailable", &["Retry-After: 8"], true),
        (Refusal::Draining { retry_after_s: 9 }, "503 Service Unavailable", &["Retry-After: 9"], true),
        (Refusal::BadQuery { what: "user \"twice\"" }, "400 Bad Request", &[], false),
    ];
    for (refusal, status, headers, retryable) in table {
        let (head, body) = response(refusal);

        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
        for header in headers {
            assert!(head.contains(&format!("\r\n{header}\r\n")), "{header} in {head}");
        }
        assert_eq!(body["type"], "about:blank");
        assert_eq!(body["title"], status[4..]);
        assert_eq!(body["status"], refusal.status());
        assert_eq!(body["code"], refusal.code());
        assert_eq!(body["detail"], refusal.to_string());
        assert_eq!(body["retryable"], retryable);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = check(&input);
    }

    #[test]
    fn a_good_request_with_one_byte_changed_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut input = good(&["Origin: https://app.example.com", "Authorization: Bearer a"]);
        let at = at.index(input.len());
        input[at] = byte;
        let _ = check(&input);
    }
}
