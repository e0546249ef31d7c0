//! Refusals that need a socket of one's own: bodies without end, peers that dawdle or do not listen, requests that two readers
//! could read in two ways, names and origins of strangers.

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{FakeGateway, call, config, get, node, node_with, post};
use tidegate_logic::Logic;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const GOOD: &str = r#"{"to":{"all":true},"message":1}"#;

/// Without keys, a form on any web page could push to a node on loopback.
#[tokio::test]
async fn a_page_of_another_site_may_not_push_to_an_open_node() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;
    let addr = logic.api_addr();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let own = format!("http://{addr}");

    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let reply = call(addr, "POST", "/push/all", &[form, ("origin", origin)], "items=[1]").await;
        assert_eq!((reply.status.as_u16(), reply.code()), (403, "foreign_origin"), "{origin}");
    }
    assert_eq!(call(addr, "POST", "/push/all", &[form, ("origin", &own)], "items=[1]").await.status, 202);
}

/// A name that a stranger points at loopback is the stranger's origin: the browser would let its pages read and push.
#[tokio::test]
async fn an_open_node_answers_only_to_names_nobody_else_can_own() {
    let gateway = FakeGateway::start(1).await;
    let mut named = config();
    named.allowed_hosts = vec!["push.example".into()];
    let logic = node_with(named, &[&gateway]).await;
    let ask = async |request: &str, host: &str| {
        let head = format!("{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        let mut socket = raw(&logic, &format!("{head}Content-Length: 0\r\n\r\n")).await;
        read_to_end(&mut socket).await
    };

    for host in ["evil.example", "evil.example:8001", "127.0.0.1.evil.example", "", "localhost.evil.example:1"] {
        for request in ["GET /v1/stats", "POST /v1/push", "DELETE /v1/users/ann/connections"] {
            let answer = ask(request, host).await;
            assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("foreign_host"), "{host:?}: {answer}");
        }
    }
    for host in ["127.0.0.1", "127.0.0.1:8001", "[::1]:8001", "LOCALHOST:1", "push.example:8001"] {
        assert!(ask("GET /v1/stats", host).await.starts_with("HTTP/1.1 200"), "{host}");
    }
}

async fn raw(logic: &Logic, request: &str) -> TcpStream {
    let mut socket = TcpStream::connect(logic.api_addr()).await.expect("connect");
    socket.write_all(request.as_bytes()).await.expect("write");
    socket
}

async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut text)).await.expect("closed in time");
    String::from_utf8_lossy(&text).into_owned()
}

/// 1 GB, declared or chunked: refused once it passes the limit, the rest not read into memory, the answer readable.
#[tokio::test]
async fn a_body_of_a_gigabyte_is_refused_early_and_the_peer_sees_why() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;
    const HEAD: &str = "POST /v1/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

    let mut declared = raw(&logic, &format!("{HEAD}Content-Length: 1000000000\r\n\r\n")).await;
    let answer = read_to_end(&mut declared).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");

    let chunked = raw(&logic, &format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n")).await;
    let (mut read, mut write) = chunked.into_split();
    let sender = tokio::spawn(async move {
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
        let mut sent = 0usize;
        while sent < 1 << 30 && write.write_all(chunk.as_bytes()).await.is_ok() {
            sent += 65_536;
        }
        sent
    });
    let mut answer = Vec::new();
    let _ = read.read_to_end(&mut answer).await;
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 413"));
    assert!(sender.await.expect("sent") < 1 << 30, "the rest is not read");
    let metrics = get(&logic, "/metrics").await.text();
    assert!(metrics.contains("tidegate_logic_bodies_bytes 0\n"), "{metrics}");
}

/// Many clients write their whole body before they look for an answer.
#[tokio::test]
async fn a_peer_that_sends_its_whole_body_first_still_reads_the_refusal() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;
    let head = "POST /v1/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 16777216\r\n\r\n";
    let mut socket = raw(&logic, head).await;

    for _ in 0..16 {
        socket.write_all(&[b' '; 1024 * 1024]).await.expect("taken until we have said all we have to say");
    }

    assert!(read_to_end(&mut socket).await.starts_with("HTTP/1.1 413"));
}

/// Bodies that are begun and not ended hold all the room there is; the one that held most for longest makes some.
#[tokio::test]
async fn unfinished_bodies_make_room_for_whole_ones() {
    let gateway = FakeGateway::start(1).await;
    let mut small = config();
    small.limits.bodies_bytes = 2 * small.limits.body_bytes;
    let logic = node_with(small, &[&gateway]).await;
    let head = "POST /v1/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n";
    let mut slow = Vec::new();
    for n in 1..=2 {
        slow.push(raw(&logic, &format!("{head}{}", " ".repeat(1024 * 1024 - 1))).await);
        let held = format!("tidegate_logic_bodies_bytes {}\n", n * (1024 * 1024 - 1));
        support::until(|| async { get(&logic, "/metrics").await.text().contains(&held) }).await;
    }

    let whole = post(&logic, "/v1/push", GOOD).await;
    let told = read_to_end(&mut slow[0]).await;

    assert_eq!(whole.status, 202);
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("overloaded"), "{told}");
    let metrics = get(&logic, "/metrics").await.text().to_owned();
    assert!(metrics.contains("tidegate_logic_evicted_total{pool=\"bodies\"} 1\n"), "{metrics}");
}

/// Callers who connect and ask for nothing hold all places; who asks is answered long before their deadlines.
#[tokio::test]
async fn callers_who_ask_for_nothing_keep_nobody_out() {
    let gateway = FakeGateway::start(1).await;
    let mut few = config();
    few.limits.connections = 3;
    (few.http.header_ms, few.http.idle_ms) = (600_000, 600_000);
    let logic = node_with(few, &[&gateway]).await;
    let mut holders = Vec::new();
    for _ in 0..10 {
        holders.push(raw(&logic, "").await);
    }

    assert_eq!(post(&logic, "/v1/push", GOOD).await.status, 202);
    let metrics = get(&logic, "/metrics").await.text().to_owned();
    assert!(metrics.contains("tidegate_logic_evicted_total{pool=\"connections\"}"), "{metrics}");
}

/// A command's lines come for as long as agents answer; a newcomer waits for the end of them rather than cause it.
#[tokio::test]
async fn whoever_is_told_line_by_line_makes_room_for_nobody() {
    let gateway = FakeGateway::start(1).await;
    let known = gateway.connect_user("ann");
    let mut one = config();
    one.limits.connections = 1;
    let logic = node_with(one, &[&gateway]).await;
    gateway.acked(known).await;
    let body = r#"{"command":"info","expect":"all","timeout_ms":1000}"#;
    let head = "POST /v1/agents/ann/command HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let mut lines = raw(&logic, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
    let mut begun = [0; 12];
    lines.read_exact(&mut begun).await.expect("it begins once the command is sent");
    assert_eq!(&begun, b"HTTP/1.1 200");

    let probe = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut newcomer = raw(&logic, probe).await;

    let (told, answer) = tokio::join!(read_to_end(&mut lines), read_to_end(&mut newcomer));
    assert!(told.ends_with("0\r\n\r\n"), "cut off: {told}");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// reliability.md, threat 3: no socket stays open by saying nothing, little, or by not listening.
#[tokio::test]
async fn slow_peers_are_gone_by_their_deadlines() {
    let gateway = FakeGateway::start(1).await;
    let mut short = config();
    (short.http.header_ms, short.http.idle_ms, short.http.body_ms) = (300, 600, 300);
    let logic = node_with(short, &[&gateway]).await;
    let started = Instant::now();

    let silent = raw(&logic, "").await;
    let half_preface = raw(&logic, "PRI * HT").await;
    let half_head = raw(&logic, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ").await;
    let idle = raw(&logic, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    for mut socket in [silent, half_preface, half_head, idle] {
        read_to_end(&mut socket).await;
    }
    let head =
        "POST /v1/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n12";
    let answer = read_to_end(&mut raw(&logic, head).await).await;

    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timeout"), "{answer}");
    // 0.6 s for all four and 0.3 s for the last; by default it would be tens of seconds.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

/// A 408 that nobody has asked for would be taken for the answer to the next request.
#[tokio::test]
async fn an_empty_line_behind_a_request_is_no_head_that_is_late() {
    let gateway = FakeGateway::start(1).await;
    let mut short = config();
    (short.http.header_ms, short.http.idle_ms) = (500, 4_000);
    let logic = node_with(short, &[&gateway]).await;
    let mut socket = raw(&logic, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut answer = String::new();
    while !answer.ends_with("ok\n") {
        answer.push(char::from(socket.read_u8().await.expect("an answer")));
    }

    socket.write_all(b"\r\n").await.expect("written");

    assert_eq!(read_to_end(&mut socket).await, "");
}

/// Publishers keep connections: only a head that has begun is in a hurry.
#[tokio::test]
async fn a_kept_connection_may_idle_but_its_next_head_may_not_dawdle() {
    let gateway = FakeGateway::start(1).await;
    let mut short = config();
    short.http.header_ms = 200;
    let logic = node_with(short, &[&gateway]).await;
    const REQUEST: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut socket = raw(&logic, REQUEST).await;
    let mut buffer = [0; 1024];

    for _ in 0..2 {
        assert!(socket.read(&mut buffer).await.expect("answer") > 0);
        // Longer than `header_ms`, by a real clock, as the sockets are real; nothing happens meanwhile, as is to be shown.
        tokio::time::sleep(Duration::from_millis(500)).await;
        socket.write_all(REQUEST.as_bytes()).await.expect("still open");
    }
    assert!(socket.read(&mut buffer).await.expect("answer") > 0);
    socket.write_all(&REQUEST.as_bytes()[..10]).await.expect("still open");
    let started = Instant::now();

    let answer = read_to_end(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("head_timeout"), "{answer}");
    // 0.2 s; a connection that idles has 75 s.
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_peer_that_reads_no_answers_is_cut_off() {
    let gateway = FakeGateway::start(1).await;
    let mut short = config();
    short.http.write_ms = 200;
    let logic = node_with(short, &[&gateway]).await;

    let mut socket = raw(&logic, "").await;
    let page = "GET /console/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let cut = async {
        // Never reads; sooner or later nothing can be written, and then the other side hangs up.
        while socket.write_all(page.as_bytes()).await.is_ok() {}
    };

    assert!(tokio::time::timeout(Duration::from_secs(10), cut).await.is_ok());
}

/// reliability.md, threat 19.
#[tokio::test]
async fn requests_that_two_readers_could_read_in_two_ways_are_refused() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;
    for bad in [
        "POST /v1/push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        "POST /v1/push HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST /v1/push HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHo st: x\r\n\r\n",
    ] {
        let answer = read_to_end(&mut raw(&logic, bad).await).await;
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"), "{bad:?}: {answer}");
    }
    let long = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: {}\r\n\r\n", "x".repeat(64 * 1024));
    let answer = read_to_end(&mut raw(&logic, &long).await).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

/// RFC 9113 section 8.3.1: `:authority` counts, and a Host that names another is no request.
#[tokio::test]
async fn of_http2_the_authority_counts_and_nothing_stands_there_twice() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;
    let addr = logic.api_addr();

    for (authority, headers, status, code) in [
        ("localhost", &[][..], 200, "none"),
        ("localhost", &[("host", "localhost")], 200, "none"),
        ("localhost", &[("host", "LOCALHOST")], 200, "none"),
        ("localhost", &[("host", "evil.example")], 400, "malformed_request"),
        ("evil.example", &[("host", "localhost")], 400, "malformed_request"),
        ("evil.example", &[], 403, "foreign_host"),
        ("localhost", &[("host", "localhost"), ("host", "localhost")], 400, "header_repeated"),
        ("localhost", &[("authorization", "Bearer a"), ("authorization", "Bearer b")], 400, "header_repeated"),
    ] {
        let stream = TokioIo::new(TcpStream::connect(addr).await.expect("connect"));
        let (mut send, connection) =
            http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut request = http::Request::get(format!("http://{authority}/v1/stats"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).expect("a request");
        let (head, body) = send.send_request(request).await.expect("an answer").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("JSON");

        let found = (head.status.as_u16(), problem["code"].as_str().unwrap_or("none"));
        assert_eq!(found, (status, code), "{authority} {headers:?}");
    }
}

#[tokio::test]
async fn requests_in_progress_are_bounded_and_probes_are_not() {
    let gateway = FakeGateway::start(1).await;
    let mut narrow = config();
    narrow.limits.in_flight = 1;
    let logic = node_with(narrow, &[&gateway]).await;
    gateway.close_gate();
    let addr = logic.api_addr();
    let stuck =
        tokio::spawn(call(addr, "POST", "/v1/push", &[("content-type", "application/json")], Bytes::from(GOOD)));
    support::until(|| async { gateway.state.lock().received.len() == 1 }).await;

    let refused = post(&logic, "/v1/push", GOOD).await;

    assert_eq!((refused.status.as_u16(), refused.code()), (503, "overloaded"));
    assert_eq!(
        (get(&logic, "/readyz").await.status.as_u16(), get(&logic, "/metrics").await.status.as_u16()),
        (200, 200)
    );
    gateway.open_gate();
    assert_eq!(stuck.await.expect("answer").status, 202);
}
