//! What a gateway takes of the processor while it waits for others: for answers to its closes, for the rest of a message or
//! of a request, for a pong, for a reader, for the connect hook. A handler that causes the event that calls it is seen here.
//! The measurement at full size: `TIDEGATE_TEST_CLOSES=1000 TIDEGATE_TEST_DRAIN=19000 cargo test --release --test waiting --
//! --nocapture measured`, on a machine with nothing else to do.

mod support;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::json;
use support::tls::{self, Authority};
use support::{Api, PATIENCE, Raw, Server, get_request, masked, tokens, until};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// How long a gateway is watched: shorter than its patience with an answer, which is 2 s.
const WATCH: Duration = Duration::from_secs(1);
/// Most of a core that a gateway may take while nothing happens. A loop over one event takes all of it.
const REST: f64 = 0.15;
/// Clients in one state at once.
const CLIENTS: usize = 5;

/// The share of a core that a server takes for a while.
async fn share_of_a_core(server: &Server) -> f64 {
    let (began, before) = (Instant::now(), server.cpu());
    // No condition to wait for: what is looked for is that nothing happens.
    tokio::time::sleep(WATCH).await;
    (server.cpu() - before).as_secs_f64() / began.elapsed().as_secs_f64()
}

/// What a client does that ends its connection, and the code that it is told.
fn faults() -> Vec<(u16, Vec<u8>)> {
    let frame_too_long = [&[0x82, 0xff][..], &[0, 0, 0, 0, 0x7f, 0, 0, 0], &[0; 4]].concat();
    vec![
        (1002, vec![0x83, 0x80, 0, 0, 0, 0]),
        (1007, masked(0x81, b"\xff\xfe")),
        (1009, frame_too_long),
        (3501, masked(0x81, b"{").repeat(3)),
        (3504, masked(0x89, b"").repeat(30)),
    ]
}

/// Shakes hands, says something, and reads to the Close that it is told; the socket stays open and the Close unanswered.
async fn provoke<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, said: &[u8], code: u16) -> S {
    let request = [get_request("/ws?user=ann", "").as_bytes(), said].concat();
    stream.write_all(&request).await.expect("a fresh socket takes a request");
    let mut heard = Vec::new();
    let close = |window: &[u8]| window[0] == 0x88 && window[2..] == code.to_be_bytes();
    while !heard.windows(4).any(close) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut heard)).await;
        let n = read.expect("a close in time").expect("a close before the end");
        assert!(n > 0, "{code} was due after {}", String::from_utf8_lossy(&heard));
    }
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_that_is_not_answered_takes_no_processor() {
    for (code, said) in faults() {
        let server = Server::gateway_alone("g1", &[("TIDEGATE_GATEWAY__LIMITS__CONTROL_PER_S", "20")]).await;
        let mut held = Vec::new();
        for _ in 0..CLIENTS {
            let stream = TcpStream::connect(server.direct_clients()).await.expect("the gateway listens");
            held.push(provoke(stream, &said, code).await);
        }

        let share = share_of_a_core(&server).await;

        assert!(share < REST, "{share:.2} of a core while {code} waited");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_that_is_not_answered_takes_no_processor_over_tls() {
    let authority = Authority::new("test");
    let issued = authority.issue("server", &["localhost", "127.0.0.1"]);
    let files = [("TIDEGATE_GATEWAY__TLS__CERT", &*issued.cert), ("TIDEGATE_GATEWAY__TLS__KEY", &*issued.key)];
    let server = Server::serve(&files).await;
    let mut held = Vec::new();
    for (code, said) in faults().into_iter().take(4) {
        let stream = tls::connect_from(&authority.connector(), Ipv4Addr::LOCALHOST, server.direct_clients()).await;
        held.push(provoke(stream.expect("a good certificate"), &said, code).await);
    }

    let share = share_of_a_core(&server).await;

    assert!(share < REST, "{share:.2} of a core");
}

#[tokio::test]
async fn a_kick_that_is_not_answered_takes_no_processor() {
    let (gateway, logic) = Server::pair(&[]).await;
    let mut held = Vec::new();
    for _ in 0..CLIENTS {
        held.push(Raw::open(gateway.direct_clients(), "/ws?user=ann").await);
    }

    let answer = logic.connect_api().await.send("DELETE", "/v1/users/ann/connections", "text/plain", "").await;
    assert_eq!(answer.json()["closed"], CLIENTS);
    for raw in &mut held {
        raw.ending().await;
    }
    let share = share_of_a_core(&gateway).await;

    assert!(share < REST, "{share:.2} of a core");
}

#[tokio::test]
async fn a_drain_whose_closes_are_not_answered_takes_no_processor() {
    let no_delay = [("TIDEGATE_GATEWAY__DRAIN__DELAY_MS", "0"), ("TIDEGATE_GATEWAY__DRAIN__SPREAD_MS", "1")];
    let gateway = Server::gateway_alone("g1", &no_delay).await;
    let mut held = Vec::new();
    for _ in 0..CLIENTS {
        held.push(Raw::open(gateway.direct_clients(), "/ws").await);
    }

    gateway.terminate();
    for raw in &mut held {
        raw.ending().await;
    }
    let share = share_of_a_core(&gateway).await;

    assert!(share < REST, "{share:.2} of a core");
}

/// The rest of a message, the rest of a request and a pong that does not come.
#[tokio::test]
async fn a_client_that_stops_half_way_takes_no_processor() {
    let pings = [("TIDEGATE_GATEWAY__HEARTBEAT__IDLE_MS", "1000"), ("TIDEGATE_GATEWAY__HEARTBEAT__PONG_MS", "9000")];
    let gateway = Server::gateway_alone("g1", &pings).await;
    let mut held = Vec::new();
    for _ in 0..CLIENTS {
        let mut in_a_message = Raw::open(gateway.direct_clients(), "/ws").await;
        in_a_message.write(&[0x81, 0xfe, 0x10, 0, 1, 2, 3, 4, 5]).await.expect("the connection is open");
        let mut in_a_request = Raw::connect(gateway.direct_clients()).await;
        in_a_request.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n").await.expect("the gateway listens");
        held.extend([in_a_message, in_a_request]);
    }
    until("the pings to be out", PATIENCE, async || {
        (gateway.metrics().await.sum("tidegate_gateway_pings_total") >= CLIENTS as u64).then_some(())
    })
    .await;

    let share = share_of_a_core(&gateway).await;

    assert!(share < REST, "{share:.2} of a core");
}

/// What such a client asks for is not read while its answers wait; also when it has said that it will say no more.
#[tokio::test]
async fn a_client_that_asks_and_does_not_read_takes_no_processor() {
    let bounds = [("TIDEGATE_GATEWAY__PENDING__AGE_MS", "60000"), ("TIDEGATE_GATEWAY__LIMITS__REQUESTS_PER_S", "0")];
    let gateway = Server::gateway_alone("g1", &bounds).await;
    let piece = masked(0x81, br#"{"type":"PING","data":{"note":"a note that comes back"}}"#).repeat(200);
    let mut held = Vec::new();
    for is_half_closed in [false, true] {
        let socket = TcpSocket::new_v4().expect("a socket is free");
        socket.set_recv_buffer_size(4_096).expect("a small buffer");
        let mut stream = socket.connect(gateway.direct_clients()).await.expect("the gateway listens");
        stream.write_all(get_request("/ws", "").as_bytes()).await.expect("a fresh socket takes a request");
        while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), stream.write_all(&piece)).await {
            written.expect("the connection is open");
        }
        if is_half_closed {
            stream.shutdown().await.expect("the connection is open");
        }
        held.push(stream);
    }
    let stalls = gateway.metrics().await.sum("tidegate_gateway_stalls_total");
    assert!(stalls >= 2, "both wait to be read: {stalls}");

    let share = share_of_a_core(&gateway).await;

    assert!(share < REST, "{share:.2} of a core");
    assert_eq!(gateway.metrics().await.sum("tidegate_gateway_connections"), 2);
}

/// Guests are watched level-triggered: what they have sent and nobody reads, and their half-closed sockets, must not call.
#[tokio::test]
async fn a_guest_that_waits_takes_no_processor() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/connect", silent.local_addr().expect("bound"));
    let mut env = tokens::required().to_vec();
    env.extend([("TIDEGATE_GATEWAY__HOOK__REQUIRED", "true"), ("TIDEGATE_GATEWAY__HANDSHAKE__DEADLINE_MS", "9000")]);
    let gateway = Server::gateway("g1", &env).await;
    let asks = [
        ("TIDEGATE_LOGIC__HOOK__URL", url.as_str()),
        ("TIDEGATE_LOGIC__HOOK__ALLOW_PRIVATE", "true"),
        ("TIDEGATE_LOGIC__HOOK__SECRETS", "[\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]"),
        ("TIDEGATE_LOGIC__HOOK__TIMEOUT_MS", "8000"),
    ];
    let logic = Server::logic(&[&gateway], &asks).await;
    let mut held = Vec::new();
    for (is_named, is_half_closed) in [(false, false), (false, true), (true, false), (true, true)] {
        let token = if is_named { tokens::mint(json!({"sub": "ann", "rooms": ["*"]})) } else { String::new() };
        let path = if is_named { format!("/ws?token={token}") } else { "/ws".to_owned() };
        let mut stream = TcpStream::connect(gateway.direct_clients()).await.expect("the gateway listens");
        stream.write_all(get_request(&path, "").as_bytes()).await.expect("a fresh socket takes a request");
        if is_named {
            let (question, _) = silent.accept().await.expect("the hook is asked");
            held.push(question);
        } else {
            assert!(stream.read(&mut [0; 1_024]).await.expect("a 101") > 0);
        }
        // Half of a frame, which an unnamed client's is read and an asked one's is not.
        stream.write_all(&[0x81, 0xfe, 0x10, 0, 1, 2, 3, 4, 5]).await.expect("the socket is open");
        if is_half_closed {
            stream.shutdown().await.expect("the socket is open");
        }
        held.push(stream);
    }

    let (at_the_gateway, at_the_logic) = tokio::join!(share_of_a_core(&gateway), share_of_a_core(&logic));

    assert!(at_the_gateway < REST && at_the_logic < REST, "{at_the_gateway:.2} and {at_the_logic:.2} of a core");
}

/// The ops listener and the push API, with requests that stop half way and with half-closed sockets.
#[tokio::test]
async fn a_caller_that_stops_half_way_takes_no_processor() {
    let (gateway, logic) = Server::pair(&[]).await;
    let mut held = Vec::new();
    for address in [gateway.health(), logic.direct_api()] {
        let said = [
            "",
            "POST /v1/push HTTP/1.1\r\nHost: x\r\n",
            "POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        ];
        for (said, is_half_closed) in said.into_iter().flat_map(|said| [(said, false), (said, true)]) {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream.write_all(said.as_bytes()).await.expect("it is open");
            if is_half_closed {
                stream.shutdown().await.expect("it is open");
            }
            held.push(stream);
        }
    }
    let mut refused = Api::connect(logic.direct_api()).await;
    assert_eq!(refused.post("/v1/push", "{").await.status, 400);

    let (at_the_gateway, at_the_logic) = tokio::join!(share_of_a_core(&gateway), share_of_a_core(&logic));

    assert!(at_the_gateway < REST && at_the_logic < REST, "{at_the_gateway:.2} and {at_the_logic:.2} of a core");
}

/// How many, from the environment or as told.
fn size(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |n| n.parse().expect("a number"))
}

/// This process holds as many sockets as the system lets it.
fn raise_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
}

/// 2 % of a core for closes that are answered after a second, in a release build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_that_wait_a_second_are_measured_and_cheap() {
    raise_files();
    let gateway = Server::gateway_alone("g1", &[]).await;
    let mut clients = Vec::new();
    for _ in 0..size("TIDEGATE_TEST_CLOSES", 100) {
        clients.push(Raw::open(gateway.direct_clients(), "/ws").await);
    }
    for client in &mut clients {
        client.write(&faults()[0].1).await.expect("the connection is open");
    }
    for client in &mut clients {
        client.ending().await;
    }

    let share = share_of_a_core(&gateway).await;
    for client in &mut clients {
        let _ = client.write(&masked(0x88, &1002u16.to_be_bytes())).await;
    }

    println!("{} closes waited: {:.1} % of a core", clients.len(), share * 100.0);
    assert!(share <= if cfg!(debug_assertions) { 0.1 } else { 0.02 }, "{share}");
}

/// Processor time of a drain whose clients answer after a while.
async fn drained(clients: usize, answer_after: Duration) -> Duration {
    let spread = [("TIDEGATE_GATEWAY__DRAIN__DELAY_MS", "0"), ("TIDEGATE_GATEWAY__DRAIN__SPREAD_MS", "2000")];
    let mut gateway = Server::gateway_alone("g1", &spread).await;
    let mut seen_off = JoinSet::new();
    for _ in 0..clients {
        let mut client = Raw::open(gateway.direct_clients(), "/ws").await;
        seen_off.spawn(async move {
            client.ending_within(6 * PATIENCE).await;
            // A late client is what this is about; the gateway counts its patience by a clock of its own.
            tokio::time::sleep(answer_after).await;
            let _ = client.write(&masked(0x88, &3000u16.to_be_bytes())).await;
        });
    }
    let before = gateway.cpu();
    gateway.terminate();
    seen_off.join_all().await;
    let used = gateway.cpu_at_its_end(PATIENCE).await - before;
    assert_eq!(gateway.exit(PATIENCE).await.code(), Some(0));
    used
}

/// A drain costs the same whenever its clients answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_measured_and_late_answers_cost_no_more() {
    raise_files();
    let clients = size("TIDEGATE_TEST_DRAIN", 200);
    let at_once = drained(clients, Duration::ZERO).await;

    let late = drained(clients, Duration::from_millis(100)).await;

    println!("{clients} clients: {at_once:?} when they answer at once, {late:?} when they answer after 100 ms");
    // Ticks of 10 ms, and few of them, at the size of the suite.
    assert!(late <= at_once.mul_f64(1.3) + Duration::from_millis(150), "{at_once:?}, {late:?}");
}
