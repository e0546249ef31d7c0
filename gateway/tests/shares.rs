//! Pools that all clients draw from, filled by some who hold and never finish: whoever comes last gets through all the same, and
//! who held most or longest is told why it had to go. All peers have one address here, as behind a proxy.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::{Client, Logic, PATIENCE, gateway, metric, until};
use tidegate_gateway::{DevicePolicy, Gateway, GatewayConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Long enough for a thousand handshakes in a debug build beside other work.
const LONG: Duration = Duration::from_secs(60);

fn head(query: &str) -> String {
    format!(
        "GET /ws{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

fn evicted(gateway: &Gateway, pool: &str) -> u64 {
    metric(gateway, &format!("tidegate_gateway_evicted_total{{pool=\"{pool}\"}}"))
}

/// A connection that has sent the first `bytes` of a message and means to keep it at that.
async fn hold(gateway: &Gateway, query: &str, bytes: usize) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    socket.write_all(head(query).as_bytes()).await.expect("open");
    let length = u16::try_from(bytes).expect("a short message").to_be_bytes();
    let frame = [&[0x01, 0x80 | 126, length[0], length[1], 0, 0, 0, 0][..], &vec![b' '; bytes]].concat();
    // A holder that is let go before it has sent everything is none.
    let _ = socket.write_all(&frame).await;
    socket
}

/// Everything that comes until the end.
async fn rest(mut socket: TcpStream) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(Ok(n)) = tokio::time::timeout(LONG, socket.read(&mut piece)).await {
        if n == 0 {
            break;
        }
        text.extend_from_slice(&piece[..n]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Sends a message of 3 KB in two pieces, the second once the gateway has read the first; whether it is answered.
async fn gets_through(gateway: &Gateway) -> bool {
    let mut client = Client::connect(gateway, "").await;
    let text = format!(r#"{{"type":"PING","id":1,"data":{{"x":"{}"}}}}"#, "y".repeat(3_000));
    client.say_in_two(text.as_bytes()).await;
    let answer = tokio::time::timeout(PATIENCE, client.next()).await;
    answer.is_ok_and(|answer| answer["type"] == "PONG" && answer["data"]["x"].as_str().map(str::len) == Some(3_000))
}

/// 67 MB of unfinished messages, which is all the room there is, by holders who come back when they are let go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_3_kb_arrive_while_1022_clients_hold_all_room_for_unfinished_ones() {
    let gateway = Arc::new(gateway(|c| c.limits.message_ms = 600_000).await);
    let told = Arc::new(AtomicUsize::new(0));
    let mut holders = JoinSet::new();
    for _ in 0..1_022 {
        let (gateway, told) = (Arc::clone(&gateway), Arc::clone(&told));
        holders.spawn(async move {
            loop {
                let text = rest(hold(&gateway, "", 65_500).await).await;
                told.fetch_add(
                    usize::from(text.contains(r#"{"reason":"overload","retry_after_ms":1000}"#)),
                    Ordering::Relaxed,
                );
                // A client's own pause; half of what it is told to make.
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    let full = metric(&gateway, "tidegate_gateway_partial_bytes_max") / 100 * 98;
    until("the room is taken", LONG, || metric(&gateway, "tidegate_gateway_partial_bytes") >= full).await;

    let mut arrived = 0;
    for _ in 0..100 {
        arrived += u32::from(gets_through(&gateway).await);
    }

    assert_eq!(arrived, 100);
    assert!(evicted(&gateway, "unfinished") > 0 && told.load(Ordering::Relaxed) > 0);
    let most = metric(&gateway, "tidegate_gateway_partial_bytes_max") / 8 * 9 + 64 * 1024;
    assert!(metric(&gateway, "tidegate_gateway_partial_bytes") <= most);
    holders.abort_all();
}

/// A user's connections share a bucket: nothing of the honest one's own bucket could make room.
#[tokio::test(flavor = "multi_thread")]
async fn holders_in_another_bucket_make_room_too() {
    let gateway = gateway(|_| {}).await;
    let mut holders = Vec::new();
    for n in 1..=2_u64 {
        holders.push(hold(&gateway, "?user=mallory", 60_000).await);
        until("it is held", LONG, || metric(&gateway, "tidegate_gateway_partial_bytes") >= n * 60_000).await;
    }
    // Room for less than what the honest ones are about to begin, and more than what is soft of the bound.
    let mut tight = GatewayConfig::default();
    tight.limits.partial_bytes_total = metric(&gateway, "tidegate_gateway_partial_bytes") as usize + 12_000;
    gateway.reload(&tight).expect("no contradiction");
    let mut honest = Vec::new();
    for user in ["?user=a", "?user=b", "?user=c", "?user=d"] {
        let mut client = Client::connect(&gateway, user).await;
        client.say_first(&[b' '; 6_000]).await;
        honest.push(client);
    }

    until("one has gone", LONG, || evicted(&gateway, "unfinished") == 1).await;
    for client in &mut honest {
        client.say_last(br#"{"type":"PING"}"#).await;
        assert_eq!(client.next().await["type"], "PONG");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_of_those_who_do_not_finish_their_heads_makes_room() {
    let gateway = gateway(|c| (c.handshake.in_flight, c.handshake.lobbies) = (3, 1)).await;
    let mut holders = Vec::new();
    for n in 1..=3 {
        let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
        socket.write_all(b"GET /ws HT").await.expect("open");
        holders.push(socket);
        until("it waits", LONG, || metric(&gateway, "tidegate_gateway_handshakes") == n).await;
    }
    let mut honest = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    let head = head("");
    honest.write_all(&head.as_bytes()[..20]).await.expect("open");
    let oldest = holders.remove(0);

    let told = rest(oldest).await;
    honest.write_all(&head.as_bytes()[20..]).await.expect("open");
    let mut answer = [0; 12];
    honest.read_exact(&mut answer).await.expect("answered");

    assert!(told.starts_with("HTTP/1.1 503") && told.contains("overloaded") && told.contains("Retry-After"), "{told}");
    assert_eq!(&answer, b"HTTP/1.1 101");
    assert_eq!(evicted(&gateway, "handshakes"), 1);
}

#[tokio::test]
async fn sockets_that_ask_for_nothing_keep_no_scraper_out() {
    let gateway = gateway(|c| c.ops = ([127, 0, 0, 1], 0).into()).await;
    let ops = gateway.serve_ops(Arc::new(|_| {})).await.expect("a free port");
    let mut holders = Vec::new();
    for _ in 0..100 {
        holders.push(TcpStream::connect(ops).await.expect("listening"));
    }

    let mut scraper = TcpStream::connect(ops).await.expect("listening");
    scraper.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("open");

    assert!(rest(scraper).await.starts_with("HTTP/1.1 200"));
    assert!(evicted(&gateway, "ops") > 0);
}

#[tokio::test]
async fn links_that_prove_nothing_keep_no_logic_node_out() {
    let gateway = gateway(|c| {
        c.backplane = ([127, 0, 0, 1], 0).into();
        c.backplane_secret = "the fleet's own secret".into();
    })
    .await;
    let backplane = gateway.serve_backplane().await.expect("a free port");
    let ask = async |client: h2::client::SendRequest<bytes::Bytes>| {
        let mut client = client.ready().await.ok()?;
        let request = http::Request::post("http://gateway/nothing");
        let request =
            request.header("authorization", "Bearer the fleet's own secret").body(()).expect("a valid request");
        let (response, _) = client.send_request(request, true).ok()?;
        Some(response.await.ok()?.status().as_u16())
    };
    let link = async || {
        let socket = TcpStream::connect(backplane).await.expect("listening");
        let (client, connection) = h2::client::handshake(socket).await.expect("an HTTP/2 handshake");
        tokio::spawn(connection);
        client
    };
    let first = link().await;
    assert_eq!(ask(first.clone()).await, Some(404));
    let mut holders = Vec::new();
    for _ in 0..300 {
        holders.push(TcpStream::connect(backplane).await.expect("listening"));
    }

    assert_eq!(ask(link().await).await, Some(404), "a newcomer gets through");
    assert_eq!(ask(first).await, Some(404), "and who has proven itself stays");
    assert!(evicted(&gateway, "links") > 0);
}

/// Clients choose the names of their platforms: whoever has left is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_platforms_one_after_another_are_all_let_in() {
    let gateway = gateway(|_| {}).await;
    for round in 0..100 {
        let mut clients = Vec::new();
        for n in 0..100 {
            let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
            socket.write_all(head(&format!("?platform=x{round}-{n}")).as_bytes()).await.expect("open");
            clients.push(socket);
        }
        for socket in &mut clients {
            let mut answer = [0; 12];
            tokio::time::timeout(LONG, socket.read_exact(&mut answer)).await.expect("in time").expect("answered");
            assert_eq!(&answer, b"HTTP/1.1 101", "round {round}");
        }
        drop(clients);
        until("they have left", LONG, || metric(&gateway, "tidegate_gateway_connections") == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_that_strangers_hold_crowd_out_no_known_one() {
    let gateway = gateway(|c| {
        c.devices.platforms = [("kiosk".to_owned(), DevicePolicy::KeepNewest)].into();
    })
    .await;
    let mut held = Vec::new();
    for n in 0..238 {
        held.push(Client::connect(&gateway, &format!("?platform=x{n}")).await);
    }

    let mut refused = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    refused.write_all(head("?platform=y").as_bytes()).await.expect("open");
    let refused = rest(refused).await;

    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("bad_query"), "{refused}");
    assert!(refused.contains("as many different platforms as it can") && refused.contains("agent"), "{refused}");
    for known in ["agent", "web", "kiosk", "x0"] {
        Client::connect(&gateway, &format!("?platform={known}")).await;
    }
    drop(held);
    until("they have left", LONG, || metric(&gateway, "tidegate_gateway_connections") == 0).await;
    Client::connect(&gateway, "?platform=y").await;
}

/// The pools are each client's way in, so all of them show how near their bounds they are.
#[tokio::test]
async fn each_pool_says_how_many_had_to_make_room() {
    let gateway = gateway(|_| {}).await;
    let _logic = Logic::link(&gateway).await;

    for pool in ["unfinished", "handshakes", "unnamed", "tls_handshakes", "ops", "links"] {
        assert_eq!(evicted(&gateway, pool), 0);
    }
}
