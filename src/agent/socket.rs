//! The agent's WebSocket: hyper shakes hands, fastwebsockets reads and writes frames. A file of its own because of what that
//! leaves to its user (ADR 36): a read that is given up half-way loses its place, so a task reads; a message in many frames
//! has no bound; nobody looks at `Sec-WebSocket-Accept`, nor at what a refusal says.
//! Knows nothing of Tidegate's messages. Invariant: of a message at most `MESSAGE_BYTES_MAX` are kept, and at most `AHEAD`
//! messages that nobody has taken yet; then nothing more is read.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket, WebSocketError, handshake::generate_key};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tidegate_protocol::handshake::accept_value;
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadHalf, Sink, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Largest message from the server, however many frames it comes in.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Messages that are read ahead of whoever takes them.
const AHEAD: usize = 16;
/// Most that is read of what a refusal says, and most of it that is told.
const WHY_BYTES_MAX: usize = 64 * 1024;
const WHY_CHARS_MAX: usize = 300;

type Stream = TokioIo<Upgraded>;
type Reader = WebSocket<Join<ReadHalf<Stream>, Sink>>;
type Writer = WebSocket<Join<tokio::io::Empty, WriteHalf<Stream>>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// An answer other than 101.
    #[error("the handshake was refused with {status}: {why}")]
    Refused {
        status: u16,
        retry_after: Option<Duration>,
        /// The beginning of its body: a problem document, which does not repeat what was sent.
        why: String,
    },
    #[error("the URL has no host")]
    NoHost,
    /// Names, TCP and TLS.
    #[error(transparent)]
    Unreachable(#[from] io::Error),
    #[error("the handshake broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the answer to the handshake has no good {0}")]
    Wrong(header::HeaderName),
}

/// What comes from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Text(String),
    /// To be answered with a pong of the same payload.
    Ping(Vec<u8>),
    /// The last: code and reason, if it gives any.
    Close(Option<(u16, String)>),
    /// Signs of life: pongs and binary messages.
    Other,
}

/// A connection. Dropping it ends it without a close.
pub struct Socket {
    writer: Writer,
    heard: mpsc::Receiver<Heard>,
    /// Reads; ends with the connection, or when this is dropped.
    _reading: JoinSet<()>,
}

impl Socket {
    /// Connects and shakes hands. `request` has the whole URL and what the caller has to say; the rest is added.
    pub async fn connect(request: Request<()>) -> Result<Self, ConnectError> {
        let uri = request.uri();
        let host = uri.host().ok_or(ConnectError::NoHost)?;
        let is_tls = uri.scheme_str() == Some("wss");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = TcpStream::connect(format!("{host}:{port}")).await?;
        stream.set_nodelay(true)?;
        if !is_tls {
            return Self::shake_hands(stream, request).await;
        }
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
        let stream = tls().connect(name, stream).await?;
        Self::shake_hands(stream, request).await
    }

    async fn shake_hands<S>(stream: S, request: Request<()>) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let key = generate_key();
        let request = upgrade(request, &key)?;
        let subprotocol = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL).cloned();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It is over with the upgrade, or fails as the request below does.
        tokio::spawn(connection.with_upgrades());
        let mut response = sender.send_request(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(response).await);
        }
        check(response.headers(), &key, subprotocol.as_ref()).map_err(ConnectError::Wrong)?;
        Ok(Self::over(TokioIo::new(hyper::upgrade::on(&mut response).await?)))
    }

    fn over(stream: Stream) -> Self {
        let (read, write) = tokio::io::split(stream);
        let mut reader = WebSocket::after_handshake(tokio::io::join(read, tokio::io::sink()), Role::Client);
        // The reading half has nowhere to write answers; who takes messages gives them.
        reader.set_auto_pong(false);
        reader.set_auto_close(false);
        // The library's bound is the first size that it refuses.
        reader.set_max_message_size(MESSAGE_BYTES_MAX + 1);
        let mut writer = WebSocket::after_handshake(tokio::io::join(tokio::io::empty(), write), Role::Client);
        writer.set_writev(false);
        let (told, heard) = mpsc::channel(AHEAD);
        let mut reading = JoinSet::new();
        reading.spawn(read_all(reader, told));
        Self { writer, heard, _reading: reading }
    }

    /// What comes next; `None` once the connection is over. May be given up at any time: nothing is lost.
    pub async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }

    pub async fn text(&mut self, text: &str) -> Result<(), WebSocketError> {
        self.write(Frame::text(Payload::Borrowed(text.as_bytes()))).await
    }

    pub async fn ping(&mut self) -> Result<(), WebSocketError> {
        self.write(Frame::new(true, OpCode::Ping, None, Payload::Borrowed(&[]))).await
    }

    pub async fn pong(&mut self, payload: &[u8]) -> Result<(), WebSocketError> {
        self.write(Frame::pong(Payload::Borrowed(payload))).await
    }

    /// Says or answers a close.
    pub async fn close(&mut self, code: Option<u16>) -> Result<(), WebSocketError> {
        self.write(code.map_or(Frame::close_raw(Payload::Borrowed(&[])), |code| Frame::close(code, b""))).await
    }

    /// One that is given up half-way has broken the connection: nothing may be written after it.
    async fn write(&mut self, frame: Frame<'_>) -> Result<(), WebSocketError> {
        self.writer.write_frame(frame).await?;
        self.writer.flush().await
    }
}

/// The handshake as it is sent (RFC 6455 section 4.1).
fn upgrade(request: Request<()>, key: &str) -> Result<Request<Empty<Bytes>>, ConnectError> {
    let (mut head, ()) = request.into_parts();
    let authority = head.uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| ConnectError::NoHost);
    let fixed = [(header::HOST, value(host)?), (header::SEC_WEBSOCKET_KEY, value(key)?)];
    head.headers.extend(fixed.map(|(name, value)| (Some(name), value)));
    head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    // A server is asked for a path; only proxies are asked for a URL.
    head.uri = head.uri.path_and_query().map_or_else(Default::default, |path| path.clone().into());
    Ok(Request::from_parts(head, Empty::new()))
}

/// Whether the answer is to this handshake: that of a cache, or of a server that knows no WebSocket, is not.
fn check(answer: &HeaderMap, key: &str, subprotocol: Option<&HeaderValue>) -> Result<(), header::HeaderName> {
    let is = |name: &header::HeaderName, word: &str| {
        let values = answer.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    let accept = answer.get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    let rules = [
        (header::UPGRADE, is(&header::UPGRADE, "websocket")),
        (header::CONNECTION, is(&header::CONNECTION, "upgrade")),
        (header::SEC_WEBSOCKET_ACCEPT, accept.is_some_and(|accept| *accept == accept_value(key))),
        (header::SEC_WEBSOCKET_PROTOCOL, answer.get(header::SEC_WEBSOCKET_PROTOCOL) == subprotocol),
        // None was offered.
        (header::SEC_WEBSOCKET_EXTENSIONS, !answer.contains_key(header::SEC_WEBSOCKET_EXTENSIONS)),
    ];
    rules.into_iter().find(|(_, holds)| !holds).map_or(Ok(()), |(name, _)| Err(name))
}

async fn refusal(response: Response<Incoming>) -> ConnectError {
    let status = response.status().as_u16();
    let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    // One that breaks or is too long says nothing.
    let body = Limited::new(response.into_body(), WHY_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let why = String::from_utf8_lossy(&body).chars().take(WHY_CHARS_MAX).collect();
    ConnectError::Refused { status, retry_after: seconds.map(Duration::from_secs), why }
}

/// The public authorities.
fn tls() -> TlsConnector {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("the provider has TLS 1.2 and 1.3");
    TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

async fn read_all(mut reader: Reader, told: mpsc::Sender<Heard>) {
    let mut unfinished = None;
    loop {
        let frame = match reader.read_frame().await {
            Ok(frame) => frame,
            Err(error) => return tracing::debug!(%error, "the connection broke"),
        };
        let message = match take(&mut unfinished, &frame) {
            Ok(Some(message)) => message,
            Ok(None) => continue,
            Err(fault) => return tracing::warn!(fault, "the server broke the protocol"),
        };
        let is_last = matches!(message, Heard::Close(_));
        if told.send(message).await.is_err() || is_last {
            return;
        }
    }
}

/// A text or binary message whose frames are still coming.
struct Unfinished {
    is_text: bool,
    bytes: Vec<u8>,
}

/// What a frame completes (RFC 6455 sections 5.4 to 5.6); the fault, if it may not come here.
fn take(unfinished: &mut Option<Unfinished>, frame: &Frame<'_>) -> Result<Option<Heard>, &'static str> {
    match frame.opcode {
        OpCode::Ping => return Ok(Some(Heard::Ping(frame.payload.to_vec()))),
        OpCode::Pong => return Ok(Some(Heard::Other)),
        OpCode::Close => return close(&frame.payload).map(Some),
        OpCode::Text | OpCode::Binary if unfinished.is_some() => return Err("a message begins inside another"),
        OpCode::Text | OpCode::Binary => {
            *unfinished = Some(Unfinished { is_text: frame.opcode == OpCode::Text, bytes: Vec::new() });
        }
        OpCode::Continuation => {}
    }
    let mut message = unfinished.take().ok_or("a message goes on that has not begun")?;
    if message.bytes.len() + frame.payload.len() > MESSAGE_BYTES_MAX {
        return Err("a message is too large");
    }
    message.bytes.extend_from_slice(&frame.payload);
    if !frame.fin {
        *unfinished = Some(message);
        return Ok(None);
    }
    if !message.is_text {
        return Ok(Some(Heard::Other));
    }
    let text = String::from_utf8(message.bytes).map_err(|_| "a text is not UTF-8")?;
    Ok(Some(Heard::Text(text)))
}

fn close(payload: &[u8]) -> Result<Heard, &'static str> {
    match payload {
        [] => Ok(Heard::Close(None)),
        [_] => Err("a close has half a code"),
        [high, low, reason @ ..] => {
            let reason = std::str::from_utf8(reason).map_err(|_| "the reason of a close is not UTF-8")?;
            Ok(Heard::Close(Some((u16::from_be_bytes([*high, *low]), reason.to_owned()))))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn frame(fin: bool, opcode: OpCode, payload: &[u8]) -> Frame<'static> {
        Frame::new(fin, opcode, None, Payload::Owned(payload.to_vec()))
    }

    /// What a client makes of these frames.
    fn taken(frames: &[Frame<'_>]) -> Result<Vec<Heard>, &'static str> {
        let mut unfinished = None;
        frames.iter().filter_map(|frame| take(&mut unfinished, frame).transpose()).collect()
    }

    #[test]
    fn a_message_in_frames_is_one_and_control_frames_come_between() {
        let frames = [
            frame(false, OpCode::Text, b"\xc3"),
            frame(true, OpCode::Ping, b"p"),
            frame(false, OpCode::Continuation, b"\xa9"),
            frame(true, OpCode::Continuation, b"!"),
            frame(true, OpCode::Close, b"\x0b\xb8{}"),
        ];

        let heard = [Heard::Text("é!".into()), Heard::Close(Some((3000, "{}".into())))];
        let [text, close] = heard;
        assert_eq!(taken(&frames), Ok(vec![Heard::Ping(b"p".to_vec()), text, close]));
    }

    #[test]
    fn a_message_is_bounded_however_small_its_frames_are() {
        let mut frames = vec![frame(false, OpCode::Text, &[b'x'; 1024])];
        frames.extend((1..1024).map(|_| frame(false, OpCode::Continuation, &[b'x'; 1024])));
        assert_eq!(taken(&frames), Ok(vec![]));

        frames.push(frame(true, OpCode::Continuation, b"x"));
        assert_eq!(taken(&frames), Err("a message is too large"));
    }

    #[test]
    fn frames_that_may_not_come_are_refused() {
        let begun = || frame(false, OpCode::Text, b"\xc3");
        let cases = [
            vec![begun(), frame(true, OpCode::Text, b"x")],
            vec![frame(true, OpCode::Continuation, b"x")],
            vec![begun(), frame(true, OpCode::Continuation, b"")],
            vec![frame(true, OpCode::Text, b"\xff")],
            vec![frame(true, OpCode::Close, b"\x03")],
            vec![frame(true, OpCode::Close, b"\x03\xe8\xff")],
        ];
        for frames in cases {
            assert!(taken(&frames).is_err());
        }
    }

    fn request() -> Request<()> {
        let request = Request::builder().uri("ws://me@a.example:8000/ws?user=x");
        request.header(header::SEC_WEBSOCKET_PROTOCOL, "tidegate.v1.json").body(()).expect("a request")
    }

    const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
                            Sec-WebSocket-Protocol: tidegate.v1.json\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n";

    /// Shakes hands with a server that gives this answer, in which `ACCEPT` stands for what belongs to the request; the
    /// server's end of the connection, and the head of the request.
    async fn shake_hands(answer: &str) -> (Result<Socket, ConnectError>, DuplexStream, String) {
        let (client, mut server) = duplex(64 * 1024);
        let answering = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(server.read_u8().await.expect("a request"));
            }
            let head = String::from_utf8(head).expect("ASCII");
            let accept = accept_value(value(&head, "sec-websocket-key").expect("a key"));
            let answer = answer.replace("ACCEPT", std::str::from_utf8(&accept).expect("base 64"));
            server.write_all(answer.as_bytes()).await.expect("the client listens");
            head
        };
        let (socket, head) = tokio::join!(Socket::shake_hands(client, request()), answering);
        (socket, server, head)
    }

    fn value<'h>(head: &'h str, name: &str) -> Option<&'h str> {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(n, v)| n.eq_ignore_ascii_case(name).then_some(v))
    }

    #[tokio::test]
    async fn the_handshake_asks_for_a_path_and_names_the_host_alone() {
        let (socket, _server, head) = shake_hands(ACCEPTED).await;

        assert!(socket.is_ok());
        assert!(head.starts_with("GET /ws?user=x HTTP/1.1\r\n"), "{head}");
        assert_eq!(value(&head, "host"), Some("a.example:8000"));
        assert_eq!(value(&head, "sec-websocket-version"), Some("13"));
        assert_eq!(value(&head, "sec-websocket-key").map(str::len), Some(24));
    }

    #[tokio::test]
    async fn an_answer_that_does_not_belong_to_the_request_is_none() {
        let cases = [
            (ACCEPTED.replace("ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "sec-websocket-accept"),
            (ACCEPTED.replace("tidegate.v1.json", "mqtt"), "sec-websocket-protocol"),
            (ACCEPTED.replace("Upgrade: websocket", "Upgrade: h2c"), "upgrade"),
            (ACCEPTED.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n"), "sec-websocket-extensions"),
        ];
        for (answer, wrong) in cases {
            let (socket, _server, _) = shake_hands(&answer).await;

            assert!(matches!(&socket, Err(ConnectError::Wrong(name)) if name == wrong), "{wrong}: {:?}", socket.err());
        }
    }

    #[tokio::test]
    async fn a_refusal_says_why_and_when_to_come_back() {
        let answer = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nslow";

        let (socket, _server, _) = shake_hands(answer).await;

        let Err(ConnectError::Refused { status, retry_after, why }) = socket else { panic!("{:?}", socket.err()) };
        assert_eq!((status, retry_after, why.as_str()), (429, Some(Duration::from_secs(7)), "slow"));
    }

    /// `read_frame` of the library forgets a head whose second half it had to wait for.
    #[tokio::test]
    async fn a_wait_that_is_given_up_amid_a_frame_loses_nothing() {
        let (socket, mut server, _) = shake_hands(ACCEPTED).await;
        let mut socket = socket.expect("it is accepted");
        let frame = [&[0x81, 126, 0, 200][..], &[b'x'; 200]].concat();

        let mut heard = None;
        for byte in frame {
            server.write_all(&[byte]).await.expect("the client listens");
            for _ in 0..3 {
                heard = heard.or(tokio::select! {
                    biased;
                    message = socket.next() => message,
                    () = tokio::task::yield_now() => None,
                });
            }
        }

        let heard = match heard {
            Some(heard) => heard,
            None => tokio::time::timeout(PATIENCE, socket.next()).await.expect("it is whole").expect("it is there"),
        };
        assert_eq!(heard, Heard::Text("x".repeat(200)));
    }

    #[tokio::test]
    async fn what_is_said_is_masked_and_whole() {
        let (socket, mut server, _) = shake_hands(ACCEPTED).await;
        let mut socket = socket.expect("it is accepted");

        socket.text(&"y".repeat(5_000)).await.expect("the server listens");
        socket.close(Some(1001)).await.expect("the server listens");

        let mut server = WebSocket::after_handshake(&mut server, Role::Server);
        let said = server.read_frame().await.expect("a frame");
        assert_eq!((said.opcode, &said.payload[..]), (OpCode::Text, "y".repeat(5_000).as_bytes()));
        let closed = server.read_frame().await.expect("a frame");
        assert_eq!((closed.opcode, &closed.payload[..]), (OpCode::Close, &[0x03, 0xe9][..]));
    }

    #[tokio::test]
    async fn the_end_of_the_socket_is_the_end_of_what_comes() {
        let (socket, server, _) = shake_hands(ACCEPTED).await;
        let mut socket = socket.expect("it is accepted");

        drop(server);

        assert_eq!(tokio::time::timeout(PATIENCE, socket.next()).await, Ok(None));
    }
}
