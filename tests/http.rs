//! HTTP by the letter on the ports of the binary: heads that two readers could read in two ways, answers to HEAD, requests
//! that have come to the wrong port, formats of metrics. What the requests mean is tested elsewhere.

mod support;

use std::net::SocketAddr;

use serde_json::Value;
use support::{Api, PATIENCE, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Status, code; none where the answer is no problem.
type Due = (u16, Option<&'static str>);

const OK: Due = (200, None);
const TAKEN: Due = (202, None);
const UPGRADED: Due = (101, None);
const MALFORMED: Due = (400, Some("malformed_request"));
const REPEATED: Due = (400, Some("header_repeated"));
const NO_HOST: Due = (400, Some("host_missing"));
const CUT: Due = (400, Some("body_cut"));
const CODING: Due = (501, Some("transfer_coding"));
const TOO_MANY: Due = (431, Some("too_many_headers"));
const TOO_LARGE: Due = (431, Some("head_too_large"));
const VERSION: Due = (505, Some("http_version"));
const OLD_VERSION: Due = (400, Some("http_version"));

/// Sends the bytes, ends its side where that is no answer's end, and reads to the end.
async fn ask(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.expect("somebody listens");
    let _ = socket.write_all(bytes).await;
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    // Peers that keep connections are read until they have said nothing for a while after an answer.
    loop {
        let patience = if text.is_empty() { PATIENCE } else { std::time::Duration::from_millis(300) };
        match tokio::time::timeout(patience, socket.read(&mut piece)).await {
            Ok(Ok(n)) if n > 0 => text.extend_from_slice(&piece[..n]),
            _ => return String::from_utf8_lossy(&text).into_owned(),
        }
    }
}

/// The answers: the status of each, and the code of the problem in it.
fn answers(text: &str) -> Vec<(u16, Option<String>)> {
    // What a problem says of HTTP/1.1 has no status behind it.
    let status = |at: usize| text.get(at + 9..at + 12).and_then(|digits| digits.parse::<u16>().ok());
    let begins = text.match_indices("HTTP/1.").filter_map(|(at, _)| status(at).map(|status| (at, status)));
    let begins: Vec<_> = begins.chain([(text.len(), 0)]).collect();
    begins
        .windows(2)
        .map(|pair| {
            let body = text[pair[0].0..pair[1].0].split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let problem = serde_json::from_str::<Value>(body).unwrap_or_default();
            (pair[0].1, problem["code"].as_str().map(str::to_owned))
        })
        .collect()
}

async fn assert_answers(address: SocketAddr, table: &[(&str, Vec<u8>, &[Due])]) {
    let mut wrong = Vec::new();
    for (name, bytes, due) in table {
        let text = ask(address, bytes).await;
        let due: Vec<_> = due.iter().map(|(status, code)| (*status, code.map(str::to_owned))).collect();
        if answers(&text) != due {
            wrong.push(format!(
                "{name}: {:?}, not {due:?}: {}",
                answers(&text),
                text.chars().take(300).collect::<String>()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const BODY: &str = r#"{"to":{"all":true},"message":1}"#;
const GET: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A push with these header lines and this body behind a good Host and type.
fn push(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /v1/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{lines}\r\n{body}")
        .into_bytes()
}

fn get(lines: &str) -> Vec<u8> {
    format!("GET /healthz HTTP/1.1\r\n{lines}\r\n").into_bytes()
}

/// A body in one chunk, with an extension.
fn chunked(extension: &str) -> String {
    format!("{:x}{extension}\r\n{BODY}\r\n0\r\n\r\n", BODY.len())
}

fn length() -> String {
    format!("Content-Length: {}\r\n", BODY.len())
}

/// RFC 9112 sections 2.2, 3.2, 5.1, 5.2, 6.1, 6.3 and 7.1. A second answer would be a smuggled request's.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table: a row for each request")]
async fn the_api_reads_each_request_in_one_way_or_not_at_all() {
    let server = Server::serve(&[]).await;
    let hidden = "GET /v1/stats HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let twice = |line: &str| push(&format!("{line}{line}"), BODY);
    let te = |value: &str| push(&format!("Transfer-Encoding: {value}\r\n"), &chunked(""));

    assert_answers(
        server.direct_api(),
        &[
            ("a length", push(&length(), BODY), &[TAKEN]),
            ("chunks", te("chunked"), &[TAKEN]),
            ("chunks in capitals", te("CHUNKED"), &[TAKEN]),
            ("two in a row", [GET, GET].concat().into_bytes(), &[OK, OK]),
            (
                "a body that looks like a request",
                push(&format!("Content-Length: {}\r\n", GET.len()), GET),
                &[(400, Some("bad_json"))],
            ),
            ("no Host", get(""), &[NO_HOST]),
            ("two Hosts", get("Host: localhost\r\nHost: localhost\r\n"), &[REPEATED]),
            ("a Host with a user", get("Host: a@localhost\r\n"), &[MALFORMED]),
            ("a Host with a path", get("Host: localhost/a\r\n"), &[MALFORMED]),
            ("HTTP/1.0 without Host", b"GET /healthz HTTP/1.0\r\n\r\n".to_vec(), &[OK]),
            (
                "two Authorizations",
                get("Host: localhost\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n"),
                &[REPEATED],
            ),
            ("two Content-Types", push(&format!("Content-Type: application/json\r\n{}", length()), BODY), &[REPEATED]),
            ("a folded line", get("Host: localhost\r\nA: b\r\n c\r\n"), &[MALFORMED]),
            ("bare LF", b"GET /healthz HTTP/1.1\nHost: localhost\n\n".to_vec(), &[OK]),
            ("a bare CR", get("Host: localhost\r\nA: b\rc\r\n"), &[MALFORMED]),
            ("NUL", get("Host: localhost\r\nA: b\0c\r\n"), &[MALFORMED]),
            ("a space before the colon", get("Host : localhost\r\n"), &[MALFORMED]),
            (
                "a space before the colon of a length",
                push(&format!("Content-Length : {}\r\n", BODY.len()), BODY),
                &[MALFORMED],
            ),
            ("no name", get("Host: localhost\r\n: x\r\n"), &[MALFORMED]),
            (
                "length and chunks",
                push(&format!("{}Transfer-Encoding: chunked\r\n", length()), &chunked("")),
                &[MALFORMED],
            ),
            (
                "chunks and length",
                push(&format!("Transfer-Encoding: chunked\r\n{}", length()), &chunked("")),
                &[MALFORMED],
            ),
            (
                "no length, chunks and a request",
                push("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{hidden}")),
                &[MALFORMED],
            ),
            ("two lengths", push(&format!("{}Content-Length: 6\r\n", length()), BODY), &[REPEATED]),
            ("one length twice", twice(&length()), &[REPEATED]),
            ("a list of lengths", push("Content-Length: 31, 31\r\n", BODY), &[MALFORMED]),
            ("a length with a sign", push("Content-Length: +31\r\n", BODY), &[MALFORMED]),
            ("a length in hex", push("Content-Length: 0x1f\r\n", BODY), &[MALFORMED]),
            ("no number", push("Content-Length: \r\n", BODY), &[MALFORMED]),
            ("a length beyond everything", push("Content-Length: 99999999999999999999\r\n", BODY), &[MALFORMED]),
            ("gzip, chunked", te("gzip, chunked"), &[CODING]),
            ("gzip and chunked on two lines", te("gzip\r\nTransfer-Encoding: chunked"), &[CODING]),
            ("chunked, identity", te("chunked, identity"), &[MALFORMED]),
            ("chunked twice", te("chunked, chunked"), &[MALFORMED]),
            ("chunked with a letter", te("xchunked"), &[MALFORMED]),
            ("chunked behind a tab of its own", te("\x0bchunked"), &[MALFORMED]),
            ("chunked in quotes", te("\"chunked\""), &[MALFORMED]),
            (
                "chunks in HTTP/1.0",
                b"POST /v1/push HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
                &[MALFORMED],
            ),
            ("a chunk with an extension", push("Transfer-Encoding: chunked\r\n", &chunked(";a=b")), &[TAKEN]),
            (
                "64 KiB of extension",
                push("Transfer-Encoding: chunked\r\n", &chunked(&format!(";{}", "a".repeat(65_536)))),
                &[CUT],
            ),
            ("an extension with a bare LF", push("Transfer-Encoding: chunked\r\n", "5;\n12345\r\n0\r\n\r\n"), &[CUT]),
            (
                "a chunk with another end",
                push("Transfer-Encoding: chunked\r\n", &format!("2\r\n12XX0\r\n\r\n{hidden}")),
                &[CUT],
            ),
            ("a chunk of a negative size", push("Transfer-Encoding: chunked\r\n", "-1\r\n"), &[CUT]),
            ("a chunk beyond everything", push("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"), &[CUT]),
            ("another version", b"GET /healthz HTTP/1.2\r\nHost: localhost\r\n\r\n".to_vec(), &[VERSION]),
            ("HTTP/2 later", [GET, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].concat().into_bytes(), &[OK, VERSION]),
            ("no version", b"GET /healthz\r\nHost: localhost\r\n\r\n".to_vec(), &[MALFORMED]),
            ("a space in the target", b"GET /health z HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), &[VERSION]),
            (
                "a target that is none",
                b"GET healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
                &[(404, Some("no_such_path"))],
            ),
            ("the absolute form", b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), &[OK]),
            (
                "a stranger's absolute form",
                b"GET http://evil.example/v1/stats HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
                &[(403, Some("foreign_host"))],
            ),
            (
                "an absolute form beside a stranger's Host",
                b"GET http://localhost/v1/stats HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec(),
                &[OK],
            ),
            ("65 headers", get(&format!("Host: localhost\r\n{}", "A: b\r\n".repeat(64))), &[TOO_MANY]),
            ("10,000 headers", get(&"A: b\r\n".repeat(10_000)), &[TOO_MANY]),
            ("a large head", get(&format!("Host: localhost\r\nA: {}\r\n", "x".repeat(65_536))), &[TOO_LARGE]),
            ("a large target", format!("GET /{} HTTP/1.1\r\n", "x".repeat(65_536)).into_bytes(), &[TOO_LARGE]),
            ("a good one, and a bad one", [GET, "GET / HTTP/1.1\r\n\r\n", GET].concat().into_bytes(), &[OK, NO_HOST]),
            (
                "a good one, and one that cannot be read",
                [GET, "GET /\r\n\r\n", GET].concat().into_bytes(),
                &[OK, MALFORMED],
            ),
            ("noise", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), &[MALFORMED]),
        ],
    )
    .await;
}

/// The same on the clients' port, where every answer is the last.
#[tokio::test]
async fn the_client_port_reads_each_request_in_one_way_or_not_at_all() {
    const FIELDS: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let server = Server::serve(&[]).await;
    let open = |lines: &str| format!("GET /ws HTTP/1.1\r\n{FIELDS}{lines}\r\n").into_bytes();
    let with = |lines: &str| open(&format!("Host: localhost\r\n{lines}"));

    assert_answers(
        server.direct_clients(),
        &[
            ("a good one", with(""), &[UPGRADED]),
            ("no Host", open(""), &[NO_HOST]),
            ("two Hosts", with("Host: localhost\r\n"), &[REPEATED]),
            ("two Authorizations", with("Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), &[REPEATED]),
            ("a folded line", with("A: b\r\n c\r\n"), &[MALFORMED]),
            ("bare LF", String::from_utf8_lossy(&with("")).replace('\r', "").into_bytes(), &[UPGRADED]),
            ("a bare CR", with("A: b\rc\r\n"), &[MALFORMED]),
            ("a space before the colon", with("A : b\r\n"), &[MALFORMED]),
            ("a length", with("Content-Length: 5\r\n"), &[(400, Some("body_present"))]),
            ("two lengths", with("Content-Length: 0\r\nContent-Length: 5\r\n"), &[(400, Some("body_present"))]),
            ("chunks", with("Transfer-Encoding: chunked\r\n"), &[(400, Some("transfer_encoding"))]),
            (
                "length and chunks",
                with("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
                &[(400, Some("transfer_encoding"))],
            ),
            ("HTTP/1.0", String::from_utf8_lossy(&with("")).replace("/1.1", "/1.0").into_bytes(), &[OLD_VERSION]),
            ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[OLD_VERSION]),
            (
                "the absolute form",
                String::from_utf8_lossy(&with("")).replace("/ws", "http://localhost/ws").into_bytes(),
                &[UPGRADED],
            ),
            ("65 headers", with(&"A: b\r\n".repeat(60)), &[TOO_MANY]),
            ("a large head", with(&format!("A: {}\r\n", "x".repeat(65_536))), &[TOO_LARGE]),
            (
                "a broken escape",
                String::from_utf8_lossy(&with("")).replace("/ws", "/ws?user=%zz").into_bytes(),
                &[(400, Some("bad_query"))],
            ),
            ("noise", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), &[MALFORMED]),
        ],
    )
    .await;
}

/// RFC 9110 section 9.3.2: nothing follows the head, which is that of GET.
#[tokio::test]
async fn an_answer_to_head_has_no_body_on_any_port() {
    let server = Server::serve(&[]).await;
    let head =
        |path: &str, lines: &str| format!("HEAD {path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n").into_bytes();
    let host = "Host: localhost\r\n";

    for (address, path, lines, status) in [
        (server.direct_clients(), "/ws", host, 405),
        (server.direct_clients(), "/none", host, 404),
        (server.direct_clients(), "/v1/push", "", 404),
        (server.direct_api(), "/healthz", host, 200),
        (server.direct_api(), "/metrics", host, 200),
        (server.direct_api(), "/none", host, 404),
        (server.direct_api(), "/v1/push", host, 405),
        (server.direct_api(), "/healthz", "", 400),
        (server.direct_api(), "/healthz", "Host: localhost\r\nContent-Length: x\r\n", 400),
    ] {
        let text = ask(address, &head(path, lines)).await;
        let (fields, body) = text.split_once("\r\n\r\n").expect("a whole head");

        assert!(fields.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {fields}");
        assert!(fields.to_ascii_lowercase().contains("\r\ncontent-length: "), "{path}: {fields}");
        assert_eq!(body, "", "{path}");
    }
}

#[tokio::test]
async fn who_knows_one_port_only_is_told_of_the_other() {
    let server = Server::serve(&[]).await;

    let pushed = Api::connect(server.direct_clients()).await.post("/v1/push", BODY).await;
    let page = Api::connect(server.direct_clients()).await.get("/").await;
    let web_socket = Api::connect(server.direct_api()).await.get("/ws").await;

    for (answer, code, port) in
        [(pushed, "path_unknown", "8001"), (page, "path_unknown", "8001"), (web_socket, "no_such_path", "8000")]
    {
        assert_eq!(answer.problem(), (404, code.to_owned()));
        assert!(answer.json()["detail"].as_str().is_some_and(|d| d.contains(port)), "{}", answer.text());
    }
}

#[tokio::test]
async fn the_ops_port_wants_one_host() {
    let gateway = Server::gateway("gw-1", &[]).await;

    for (lines, status) in [("Host: localhost\r\n", 200), ("", 400), ("Host: a\r\nHost: b\r\n", 400)] {
        let text = ask(gateway.health(), &get(&format!("{lines}Connection: close\r\n"))).await;

        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{lines:?}: {text}");
    }
}

/// What Prometheus 3 sends, what it sends where OpenMetrics is switched off, and curl.
#[tokio::test]
async fn a_scraper_gets_the_metrics_in_the_format_it_asks_for() {
    const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    let (gateway, logic) = Server::pair(&[]).await;

    for address in [gateway.health(), logic.health()] {
        for (accept, kind) in [
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
              text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OPEN,
            ),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", TEXT),
            ("*/*", TEXT),
        ] {
            let request =
                format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
            let text = ask(address, request.as_bytes()).await;

            assert!(text.to_ascii_lowercase().contains(&format!("\r\ncontent-type: {kind}\r\n")), "{accept}: {text}");
            assert_eq!(text.ends_with("# EOF\n"), kind == OPEN, "{accept}");
            let counters = text.lines().filter(|line| line.starts_with("# TYPE") && line.ends_with(" counter"));
            assert!(
                counters.map(|line| line.contains("_total ")).all(|is_total| is_total == (kind == TEXT)),
                "{accept}"
            );
        }
    }
}
