//! What clients do to their sockets, and when: ends that come with the last bytes, frames that come with the handshake,
//! readers that pause. The connection must be gone, or be heard, all the same.

mod support;

use std::time::Duration;

use support::{Client, Logic, PATIENCE, counted, gateway, is_read, push};
use tidegate_protocol::records::target::To;
use tidegate_protocol::records::{Narrow, WaitReply, WaitRequest, path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEAD: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A masked text frame.
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).expect("short"), 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_with_its_last_bytes_is_gone() {
    let gateway = gateway(|_| {}).await;
    let mut sockets = Vec::new();
    for _ in 0..200 {
        let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
        socket.write_all(HEAD.as_bytes()).await.expect("open");
        sockets.push(socket);
    }
    counted(&gateway, "tidegate_gateway_connections", 200).await;

    for socket in &mut sockets {
        socket.write_all(&text_frame(r#"{"type":"PING"}"#)).await.expect("open");
        socket.shutdown().await.expect("open");
    }

    counted(&gateway, "tidegate_gateway_connections", 0).await;
}

/// Rule C-1: frames sent along with the handshake are the first to be heard.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_come_with_the_handshake_are_answered_first() {
    let gateway = gateway(|_| {}).await;
    for _ in 0..50 {
        let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
        let mut bytes = HEAD.as_bytes().to_vec();
        bytes.extend(text_frame(r#"{"type":"PING","id":1}"#));
        socket.write_all(&bytes).await.expect("open");
        socket.write_all(&text_frame(r#"{"type":"PING","id":2}"#)).await.expect("open");

        let mut text = String::new();
        while !text.contains(r#""id":2"#) {
            let mut buffer = [0; 4096];
            let n = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await.expect("in time").expect("open");
            assert!(n > 0, "closed after {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        assert!(text.find("HELLO") < text.find(r#""id":1"#) && text.find(r#""id":1"#) < text.find(r#""id":2"#));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_differently_narrowed_pushes_of_one_window_all_arrive() {
    let gateway = gateway(|c| (c.merge.min_ms, c.merge.max_ms) = (200, 200)).await;
    let mut logic = Logic::link(&gateway).await;
    let mut client = Client::connect(&gateway, "?user=ann").await;
    let narrowed = |n: usize| {
        let mut one = push(To::All(true), &[&n.to_string()]);
        one.narrow = Some(Narrow { except_users: vec![format!("u{n}")], ..Narrow::default() });
        one
    };

    logic.push((0..200).map(narrowed).collect()).await;

    for n in 0..200 {
        assert_eq!(client.next().await["data"]["items"][0], n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn written_counts_the_connections_of_the_push_that_waits() {
    let gateway = gateway(|c| (c.merge.min_ms, c.merge.max_ms) = (200, 200)).await;
    let mut logic = Logic::link(&gateway).await;
    let (_ann, _bob) = (Client::connect(&gateway, "?user=ann").await, Client::connect(&gateway, "?user=bob").await);
    let mut waited = push(To::All(true), &["2"]);
    waited.narrow = Some(Narrow { except_users: vec!["ann".into()], ..Narrow::default() });
    waited.wait_written = true;

    // The first opens the window, so that the other two leave together.
    let first = push(To::All(true), &["0"]);
    let receipts = logic.push(vec![first, push(To::All(true), &["1"]), waited]).await.receipts;
    let wait = WaitRequest { tickets: vec![receipts[2].ticket], timeout_ms: 3_000 };
    let reply: WaitReply = logic.ask(path::WAIT, &wait).await.expect("answered");

    assert_eq!((receipts[2].matched, reply.outcomes[0].written, reply.outcomes[0].is_done), (1, 1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_long_time_to_live_is_for_ever() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let mut client = Client::connect(&gateway, "").await;
    let mut long = push(To::All(true), &["1"]);
    long.ttl_ms = u32::MAX;

    logic.push(vec![long]).await;

    assert_eq!(client.next().await["data"]["items"][0], 1);
}

/// Unfinished messages are bounded over all connections.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_messages_beyond_the_bound_end_their_connection() {
    let gateway = gateway(|c| c.limits.partial_bytes_total = 10_000).await;
    let mut client = Client::connect(&gateway, "").await;
    let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    socket.write_all(HEAD.as_bytes()).await.expect("open");
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend(60_000u16.to_be_bytes());
    frame.extend([0; 4 + 20_000]);
    socket.write_all(&frame).await.expect("open");
    // A client in the middle of an upload goes on with it until it has read why it should not.
    for _ in 0..4 {
        is_read(&socket).await;
        if socket.write_all(&[0xff; 5_000]).await.is_err() {
            break;
        }
    }

    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("ends").expect("ends politely");

    assert!(String::from_utf8_lossy(&answer).contains("overload"));
    client.say(r#"{"type":"PING"}"#).await;
    assert_eq!(client.next().await["type"], "PONG");
}

/// Rule L-2, and the deadline of an unfinished message.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_must_be_complete_in_time() {
    let gateway = gateway(|c| c.limits.message_ms = 200).await;
    let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    socket.write_all(HEAD.as_bytes()).await.expect("open");
    socket.write_all(&[0x81, 0x85, 0, 0]).await.expect("open");

    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("ends").expect("ends politely");

    assert!(String::from_utf8_lossy(&answer).contains("limits.message_ms"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_guests_count_against_the_bound() {
    let gateway = gateway(|c| c.connections_max = 3).await;
    let _client = Client::connect(&gateway, "").await;
    let mut guests = Vec::new();
    for _ in 0..2 {
        guests.push(TcpStream::connect(gateway.listen_addr()).await.expect("listening"));
    }
    counted(&gateway, "tidegate_gateway_handshakes", 2).await;

    let mut late = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, late.read_to_string(&mut answer)).await.expect("answered").expect("politely");

    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("Retry-After"), "{answer}");
}

/// A peer whose every read ends in the middle of the next message is busy, not slow.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_keep_coming_cut_in_two_are_each_in_time() {
    let gateway = gateway(|c| c.limits.message_ms = 300).await;
    let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    socket.write_all(HEAD.as_bytes()).await.expect("open");
    let ping = text_frame(r#"{"type":"PING"}"#);
    socket.write_all(&ping[..9]).await.expect("open");
    for _ in 0..60 {
        // The time is what this is about: four times `message_ms` by the gateway's own clock, and far less than it each.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut next = ping[9..].to_vec();
        next.extend_from_slice(&ping[..9]);
        socket.write_all(&next).await.expect("still open");
    }
    socket.write_all(&ping[9..]).await.expect("still open");
    counted(&gateway, "tidegate_gateway_messages_received_total", 61).await;
}
