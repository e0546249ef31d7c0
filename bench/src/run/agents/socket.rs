//! The WebSocket of an agent of the bench, by fastwebsockets, which is not ours.
//! A file of its own because a read of the library that is given up half-way loses its place: a task reads, and answers pings.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket, WebSocketError, handshake};
use http_body_util::Empty;
use hyper::Request;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{Join, ReadHalf, Sink, WriteHalf, empty, join, sink, split};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

/// Messages that are read ahead of the agent.
const AHEAD: usize = 16;

type Stream = TokioIo<Upgraded>;
type Reader = FragmentCollector<Join<ReadHalf<Stream>, Sink>>;
type Writer = Arc<Mutex<WebSocket<Join<tokio::io::Empty, WriteHalf<Stream>>>>>;

pub(super) struct Socket {
    writer: Writer,
    messages: mpsc::Receiver<Value>,
    /// One task.
    reading: JoinSet<()>,
}

impl Socket {
    pub(super) async fn connect(clients: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(clients).await?;
        stream.set_nodelay(true)?;
        let request = Request::builder()
            .uri(path)
            .header("Host", clients.to_string())
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Key", handshake::generate_key())
            .header("Sec-WebSocket-Version", "13")
            .body(Empty::<Bytes>::new())?;
        let (socket, _) = handshake::client(&TokioExecutor::new(), request, stream).await?;
        let (read, write) = split(socket.into_inner());
        let mut reader = WebSocket::after_handshake(join(read, sink()), Role::Client);
        reader.set_auto_pong(false);
        reader.set_auto_close(false);
        let writer = WebSocket::after_handshake(join(empty(), write), Role::Client);
        let writer = Arc::new(Mutex::new(writer));
        let (told, messages) = mpsc::channel(AHEAD);
        let mut reading = JoinSet::new();
        reading.spawn(read_all(FragmentCollector::new(reader), Arc::clone(&writer), told));
        Ok(Self { writer, messages, reading })
    }

    /// The next text message; `None` once the connection is over. May be given up at any time.
    pub(super) async fn next(&mut self) -> Option<Value> {
        self.messages.recv().await
    }

    /// Ends the connection without a close; it is gone when this is done.
    pub(super) async fn cut(mut self) {
        self.reading.shutdown().await;
    }

    pub(super) async fn send(&mut self, text: &str) -> Result<(), WebSocketError> {
        self.writer.lock().await.write_frame(Frame::text(Payload::Owned(text.as_bytes().to_vec()))).await
    }
}

/// Reads until the end, or until nobody listens.
async fn read_all(mut reader: Reader, writer: Writer, told: mpsc::Sender<Value>) {
    while let Ok(frame) = reader.read_frame().await {
        match frame.opcode {
            OpCode::Text => {
                let Ok(message) = serde_json::from_slice(&frame.payload) else { continue };
                if told.send(message).await.is_err() {
                    return;
                }
            }
            OpCode::Ping => {
                let pong = Frame::pong(Payload::Owned(frame.payload.to_vec()));
                if writer.lock().await.write_frame(pong).await.is_err() {
                    return;
                }
            }
            OpCode::Close => return,
            OpCode::Binary | OpCode::Continuation | OpCode::Pong => {}
        }
    }
}
