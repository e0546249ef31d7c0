//! A well-behaved WebSocket client, by fastwebsockets: an implementation that is not ours.
//! One task reads and puts what comes into a bounded queue; the test writes. A client that is paused reads nothing,
//! so that the server sees a peer that stopped reading.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket, handshake};
use http_body_util::Empty;
use hyper::Request;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadHalf, Sink, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;

use super::PATIENCE;

type Stream = TokioIo<Upgraded>;
type Reader = FragmentCollector<Join<ReadHalf<Stream>, Sink>>;
type Writer = Arc<Mutex<WebSocket<Join<tokio::io::Empty, WriteHalf<Stream>>>>>;

/// What came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping; already answered.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// The server's close frame.
    Closed(u16, String),
    /// The end of the socket without a close frame.
    Lost,
}

/// An event and when it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it was read.
    pub at: Instant,
    /// What it was.
    pub event: Event,
}

/// A connected client, past HELLO.
pub struct Client {
    writer: Writer,
    events: mpsc::Receiver<Received>,
    paused: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// `data` of the HELLO.
    pub hello: Value,
}

/// Events a test may leave unread before the client itself stops reading.
const EVENTS_MAX: usize = 16 * 1024;

impl Client {
    /// Connects to `/ws`.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::open(address, "/ws", None).await
    }

    /// Connects as this user.
    pub async fn named(address: SocketAddr, user: &str, platform: &str) -> Self {
        Self::open(address, &format!("/ws?user={user}&platform={platform}"), None).await
    }

    /// Connects with a token.
    pub async fn bearing(address: SocketAddr, token: &str) -> Self {
        Self::open(address, &format!("/ws?token={token}"), None).await
    }

    /// Connects with all choices; `receive_bytes` bounds what the kernel takes for a client that stops reading.
    pub async fn open(address: SocketAddr, path: &str, receive_bytes: Option<u32>) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket is free");
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes).expect("the kernel takes a buffer size");
        }
        let stream = socket.connect(address).await.expect("the gateway listens");
        Self::through(stream, address, path, &[]).await
    }

    /// Connects from a loopback address of its own, with these headers too.
    pub async fn from(source: Ipv4Addr, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket is free");
        socket.bind((source, 0).into()).expect("all of 127.0.0.0/8 is ours");
        let stream = socket.connect(address).await.expect("somebody listens");
        Self::through(stream, address, path, headers).await
    }

    /// Connects with these headers too.
    pub async fn open_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        Self::from(Ipv4Addr::LOCALHOST, address, path, headers).await
    }

    async fn through(stream: TcpStream, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        stream.set_nodelay(true).expect("the socket is open");
        Self::shake_hands(stream, &address.to_string(), path, headers).await
    }

    /// Shakes hands over a stream that is there already, such as TLS.
    pub async fn shake_hands<S>(stream: S, host: &str, path: &str, headers: &[(&str, &str)]) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut request = Request::builder()
            .uri(path)
            .header("Host", host)
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Key", handshake::generate_key())
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Protocol", "tidegate.v1.json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("the request is well formed");
        let executor = TokioExecutor::new();
        let upgrade = handshake::client(&executor, request, stream);
        let opened = tokio::time::timeout(PATIENCE, upgrade).await.expect("a handshake takes less than the patience");
        let (ws, _) = opened.unwrap_or_else(|e| panic!("no upgrade on {path}: {e}"));
        let mut client = Self::over(ws.into_inner());
        let hello = client.next_json().await;
        assert_eq!(hello["type"], "HELLO", "HELLO comes first (rule C-5), not {hello}");
        client.hello = hello["data"].clone();
        client
    }

    fn over(stream: Stream) -> Self {
        let (read, write) = tokio::io::split(stream);
        let mut reader = WebSocket::after_handshake(tokio::io::join(read, tokio::io::sink()), Role::Client);
        reader.set_auto_pong(false);
        reader.set_auto_close(false);
        let writer = WebSocket::after_handshake(tokio::io::join(tokio::io::empty(), write), Role::Client);
        let writer = Arc::new(Mutex::new(writer));
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (paused, gate) = watch::channel(false);
        let task = tokio::spawn(read_all(FragmentCollector::new(reader), Arc::clone(&writer), sender, gate));
        Self { writer, events, paused, task, hello: Value::Null }
    }

    /// This connection's id.
    pub fn id(&self) -> String {
        self.hello["connection"].as_str().expect("HELLO names the connection (rule C-5)").to_owned()
    }

    /// Stops or resumes reading from the socket.
    pub fn pause(&self, is_paused: bool) {
        self.paused.send_replace(is_paused);
    }

    /// Sends a text message.
    pub async fn send(&self, text: &str) {
        let frame = Frame::text(Payload::Owned(text.as_bytes().to_vec()));
        self.writer.lock().await.write_frame(frame).await.expect("the connection is open");
    }

    /// Sends a request over a connection that may have broken; false when it has.
    pub async fn try_say(&self, request: Value) -> bool {
        let frame = Frame::text(Payload::Owned(request.to_string().into_bytes()));
        self.writer.lock().await.write_frame(frame).await.is_ok()
    }

    /// Sends a request.
    pub async fn say(&self, request: Value) {
        self.send(&request.to_string()).await;
    }

    /// Sends an RFC 6455 ping.
    pub async fn ping(&self, payload: &[u8]) {
        let frame = Frame::new(true, OpCode::Ping, None, Payload::Owned(payload.to_vec()));
        self.writer.lock().await.write_frame(frame).await.expect("the connection is open");
    }

    /// Sends a close frame.
    pub async fn close(&self, code: u16) {
        self.writer.lock().await.write_frame(Frame::close(code, b"")).await.expect("the connection is open");
    }

    /// Whatever comes next, if it comes in time.
    pub async fn next_within(&mut self, patience: Duration) -> Option<Received> {
        tokio::time::timeout(patience, self.events.recv()).await.ok().flatten()
    }

    /// Whatever comes next.
    pub async fn next(&mut self) -> Received {
        let next = self.next_within(PATIENCE).await;
        next.unwrap_or_else(|| panic!("nothing came within {PATIENCE:?}"))
    }

    /// The next text; pings and pongs are passed over, an end is a failure.
    pub async fn next_text(&mut self) -> String {
        loop {
            match self.next().await.event {
                Event::Text(text) => return text,
                Event::Ping(_) | Event::Pong(_) => {}
                other => panic!("a text was due, not {other:?}"),
            }
        }
    }

    /// The next text as JSON.
    pub async fn next_json(&mut self) -> Value {
        let text = self.next_text().await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// The next message, which must be of this type; its `data`.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let mut message = self.next_json().await;
        assert_eq!(message["type"], kind, "{kind} was due, not {message}");
        message["data"].take()
    }

    /// The next message that is no PUSH, as JSON.
    pub async fn answer(&mut self) -> Value {
        loop {
            let message = self.next_json().await;
            if message["type"] != "PUSH" {
                return message;
            }
        }
    }

    /// Asks and gets the whole answer; pushes that come between are a failure.
    pub async fn ask(&mut self, request: Value) -> Value {
        self.say(request).await;
        self.next_json().await
    }

    /// Joins one room; `{room, online, epoch, seq}`.
    pub async fn join(&mut self, room: &str) -> Value {
        let answer = self.ask(json!({"type": "JOIN", "id": 1, "data": {"room": room}})).await;
        assert_eq!(answer["type"], "JOINED", "rule R-1: {answer}");
        assert_eq!(answer["id"], 1, "rule R-1: {answer}");
        answer["data"]["rooms"][0].clone()
    }

    /// The next `n` items pushed, over as many frames as they take.
    pub async fn items(&mut self, n: usize) -> Vec<Value> {
        let mut items = Vec::with_capacity(n);
        while items.len() < n {
            let push = self.expect("PUSH").await;
            items.extend(push["items"].as_array().expect("items are an array (rule M-1)").iter().cloned());
        }
        items
    }

    /// How the server ends it; what comes before is passed over.
    pub async fn ending(&mut self) -> Received {
        self.ending_within(PATIENCE).await
    }

    /// How the server ends it, in time.
    pub async fn ending_within(&mut self, patience: Duration) -> Received {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(received) = self.next_within(left).await else { panic!("still open after {patience:?}") };
            if matches!(received.event, Event::Closed(..) | Event::Lost) {
                return received;
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads until the end; answers pings and the close.
async fn read_all(mut reader: Reader, writer: Writer, events: mpsc::Sender<Received>, mut gate: watch::Receiver<bool>) {
    loop {
        if gate.wait_for(|is_paused| !is_paused).await.is_err() {
            return;
        }
        let Ok(frame) = reader.read_frame().await else {
            let _ = events.send(Received { at: Instant::now(), event: Event::Lost }).await;
            return;
        };
        let payload = frame.payload.to_vec();
        let event = match frame.opcode {
            OpCode::Text => Event::Text(String::from_utf8(payload).expect("a text is UTF-8 (RFC 6455 section 5.6)")),
            OpCode::Binary | OpCode::Continuation => Event::Binary(payload),
            OpCode::Ping => {
                // The server may have gone meanwhile.
                let _ = writer.lock().await.write_frame(Frame::pong(Payload::Owned(payload.clone()))).await;
                Event::Ping(payload)
            }
            OpCode::Pong => Event::Pong(payload),
            OpCode::Close => {
                let code = payload.get(..2).map_or(1005, |c| u16::from_be_bytes([c[0], c[1]]));
                let _ = writer.lock().await.write_frame(Frame::close_raw(Payload::Owned(payload.clone()))).await;
                Event::Closed(code, String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned())
            }
        };
        let is_over = matches!(event, Event::Closed(..));
        if events.send(Received { at: Instant::now(), event }).await.is_err() || is_over {
            return;
        }
    }
}
