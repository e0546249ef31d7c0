//! A real gateway on a free port, a WebSocket client that is not ours, and a logic node of a few lines on the in-memory
//! pipe: what the tests of this folder share.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod tokens;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload, WebSocket};
use http_body_util::Empty;
use hyper::Request;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::Value;
use tidegate_gateway::{BeforeLogic, Gateway, GatewayConfig};
use tidegate_protocol::records::target::To;
use tidegate_protocol::records::{EventsReply, EventsRequest, Push, PushBatch, PushReply, Target, path};
use tokio::net::TcpStream;

/// Longest any single answer may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A gateway on free ports, which is tested alone: it lets clients in although no logic node has said what it wants.
pub async fn gateway(change: impl FnOnce(&mut GatewayConfig)) -> Gateway {
    let mut config = GatewayConfig { listen: ([127, 0, 0, 1], 0).into(), buckets: 64, ..GatewayConfig::default() };
    config.handshake.before_logic = BeforeLogic::Admit;
    change(&mut config);
    Gateway::start(config).await.expect("a gateway starts on a free port")
}

/// A metric's value, by its name and labels.
pub fn metric(gateway: &Gateway, name: &str) -> u64 {
    let mut text = String::new();
    gateway.metrics_text(&mut text);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no metric {name} in\n{text}"))
}

/// Waits for a condition that nothing announces.
pub async fn until(what: &str, patience: Duration, condition: impl Fn() -> bool) {
    until_asked(what, patience, async || condition()).await;
}

/// Waits for a condition that has to be asked for.
pub async fn until_asked(what: &str, patience: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < patience, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until a metric is at `expected`. A walk, for one, counts what it wrote when it is through, so that clients may have
/// it a moment before.
pub async fn counted(gateway: &Gateway, name: &str, expected: u64) {
    until(&format!("{name} = {expected}"), PATIENCE, || metric(gateway, name) == expected).await;
}

/// Waits until the gateway has read all that this socket has sent, or has let go of it: the kernel's queues are empty.
pub async fn is_read(socket: &TcpStream) {
    let name = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port()),
        SocketAddr::V6(_) => unreachable!("gateways of tests listen on 127.0.0.1"),
    };
    let ours = name(socket.local_addr().expect("a connected socket"));
    let theirs = name(socket.peer_addr().expect("a connected socket"));
    until("the gateway reads", PATIENCE, || {
        let table = std::fs::read_to_string("/proc/self/net/tcp").expect("Linux lists its sockets");
        table.lines().all(|line| {
            // proc(5): number, local address, remote address, state, bytes sent and not acknowledged : received and not read.
            let columns: Vec<&str> = line.split_whitespace().take(5).collect();
            let is_from = |from: &str, to: &str| columns[1] == from && columns[2] == to;
            (!is_from(&ours, &theirs) || columns[4].starts_with("00000000:"))
                && (!is_from(&theirs, &ours) || columns[4].ends_with(":00000000"))
        })
    })
    .await;
}

/// A client.
pub struct Client {
    socket: WebSocket<TokioIo<Upgraded>>,
    /// Data of HELLO.
    pub hello: Value,
}

impl Client {
    /// Connects and reads HELLO.
    pub async fn connect(gateway: &Gateway, query: &str) -> Self {
        Self::open(gateway, query, None).await.greeted().await
    }

    /// Connects, with a token in a header.
    pub async fn bearing(gateway: &Gateway, token: &str) -> Self {
        Self::open(gateway, "", Some(token)).await.greeted().await
    }

    /// Connects without waiting for HELLO.
    pub async fn open(gateway: &Gateway, query: &str, token: Option<&str>) -> Self {
        let address = gateway.listen_addr();
        let stream = TcpStream::connect(address).await.expect("the gateway listens");
        let request = match token {
            Some(token) => Request::builder().header("Authorization", format!("Bearer {token}")),
            None => Request::builder(),
        };
        let request = request
            .uri(format!("/ws{query}"))
            .header("Host", address.to_string())
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", fastwebsockets::handshake::generate_key())
            .body(Empty::<Bytes>::new())
            .expect("a valid request");
        let (socket, _) = fastwebsockets::handshake::client(&TokioExecutor::new(), request, stream)
            .await
            .expect("the handshake succeeds");
        let mut client = Self { socket, hello: Value::Null };
        client.socket.set_auto_pong(true);
        client
    }

    /// Reads HELLO, which comes first.
    pub async fn greeted(mut self) -> Self {
        let hello = self.next().await;
        assert_eq!(hello["type"], "HELLO");
        self.hello = hello["data"].clone();
        self
    }

    /// Sends AUTH, as a first message.
    pub async fn auth(&mut self, token: &str) {
        self.say(&serde_json::json!({"type": "AUTH", "id": 1, "data": {"token": token}}).to_string()).await;
    }

    /// The next JSON message.
    pub async fn next(&mut self) -> Value {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.read_frame())
                .await
                .expect("a message in time")
                .expect("an open connection");
            match frame.opcode {
                OpCode::Text => return serde_json::from_slice(&frame.payload).expect("JSON"),
                OpCode::Ping | OpCode::Pong => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The close code, once the server closes.
    pub async fn closed(&mut self) -> u16 {
        self.closed_because().await.0
    }

    /// The close code and the reason's text.
    pub async fn closed_because(&mut self) -> (u16, String) {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.read_frame()).await.expect("a close in time");
            match frame {
                Ok(frame) if frame.opcode == OpCode::Close => {
                    let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
                    return (code, String::from_utf8_lossy(&frame.payload[2..]).into_owned());
                }
                Ok(_) => {}
                Err(error) => panic!("closed without a code: {error}"),
            }
        }
    }

    /// Sends a text message.
    pub async fn say(&mut self, text: &str) {
        self.socket.write_frame(Frame::text(Payload::Borrowed(text.as_bytes()))).await.expect("an open connection");
    }

    /// Sends a text message in two fragments, the second once the gateway has read the first.
    pub async fn say_in_two(&mut self, text: &[u8]) {
        let (first, last) = text.split_at(text.len() / 2);
        self.say_first(first).await;
        self.say_last(last).await;
    }

    /// Sends the first fragment of a text message, and waits until the gateway has read it.
    pub async fn say_first(&mut self, text: &[u8]) {
        let first = Frame::new(false, OpCode::Text, None, Payload::Borrowed(text));
        self.socket.write_frame(first).await.expect("an open connection");
        let ping = Frame::new(true, OpCode::Ping, None, Payload::Borrowed(b"read"));
        self.socket.write_frame(ping).await.expect("an open connection");
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.read_frame()).await.expect("an answer in time");
            match frame.expect("an open connection").opcode {
                OpCode::Pong => return,
                OpCode::Close => panic!("closed in the middle of a message"),
                _ => {}
            }
        }
    }

    /// Sends the last fragment of a message.
    pub async fn say_last(&mut self, text: &[u8]) {
        let last = Frame::new(true, OpCode::Continuation, None, Payload::Borrowed(text));
        self.socket.write_frame(last).await.expect("an open connection");
    }

    /// Joins a room; gives its part of JOINED.
    pub async fn join(&mut self, room: &str) -> Value {
        self.say(&format!(r#"{{"type":"JOIN","id":1,"data":{{"room":"{room}"}}}}"#)).await;
        let joined = self.next().await;
        assert_eq!(joined["type"], "JOINED", "{joined}");
        joined["data"]["rooms"][0].clone()
    }
}

/// A logic node without routing: it sends what it is told.
pub struct Logic {
    client: h2::client::SendRequest<Bytes>,
    epoch: u64,
    sequence: u64,
}

impl Logic {
    /// Links to a gateway.
    pub async fn link(gateway: &Gateway) -> Self {
        let (client, connection) = h2::client::handshake(gateway.pipe()()).await.expect("an HTTP/2 handshake");
        tokio::spawn(connection);
        let mut logic = Self { client, epoch: 0, sequence: 0 };
        let reply = logic.events(0, 0).await;
        logic.epoch = reply.epoch;
        let mut follower = Self { client: logic.client.clone(), epoch: reply.epoch, sequence: 0 };
        tokio::spawn(async move {
            let mut cursor = reply.cursor;
            loop {
                cursor = follower.events(follower.epoch, cursor).await.cursor;
            }
        });
        logic
    }

    /// Asks what happened after `cursor`, and acknowledges what was before.
    async fn events(&mut self, epoch: u64, cursor: u64) -> EventsReply {
        let request = EventsRequest { logic: 7, epoch, cursor, hold_ms: 10_000, ..EventsRequest::default() };
        self.ask(path::EVENTS, &request).await.expect("events")
    }

    /// Sends a record and reads the answer.
    pub async fn ask<R: Message + Default>(&mut self, path: &str, record: &impl Message) -> Result<R, u16> {
        let request = http::Request::post(format!("http://gateway{path}")).body(()).expect("a valid request");
        self.client = self.client.clone().ready().await.expect("a live link");
        let (response, mut body) = self.client.send_request(request, false).expect("a stream");
        body.send_data(record.encode_to_vec().into(), true).expect("an open stream");
        let response = response.await.expect("an answer");
        let status = response.status().as_u16();
        let mut stream = response.into_body();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.data().await {
            bytes.extend_from_slice(&chunk.expect("a whole body"));
        }
        if status == 200 { Ok(R::decode(bytes.as_slice()).expect("a record")) } else { Err(status) }
    }

    /// Pushes, in one batch.
    pub async fn push(&mut self, pushes: Vec<Push>) -> PushReply {
        self.sequence += 1;
        let batch = PushBatch { logic: 7, sequence: self.sequence, epoch: self.epoch, pushes };
        self.ask(path::PUSH, &batch).await.expect("applied")
    }

    /// Sends the last batch's number again, with other pushes.
    pub async fn repeat(&mut self, pushes: Vec<Push>) -> Result<PushReply, u16> {
        let batch = PushBatch { logic: 7, sequence: self.sequence, epoch: self.epoch, pushes };
        self.ask(path::PUSH, &batch).await
    }
}

/// A push of some messages.
pub fn push(to: To, messages: &[&str]) -> Push {
    Push {
        targets: vec![Target { to: Some(to) }],
        messages: messages.iter().map(|m| Bytes::copy_from_slice(m.as_bytes())).collect(),
        ..Push::default()
    }
}
