//! A stand-in for the gateway: a WebSocket server made with fastwebsockets and hyper, which does what it is told.
//! Not ours on purpose: the harness must be right against somebody else's frames, and see faults made to order.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use fastwebsockets::{CloseCode, Frame, OpCode, Payload, WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Frames that may wait for one client.
const QUEUE: usize = 65_536;

#[derive(Clone, Debug)]
pub enum Out {
    Text(String),
    Ping(&'static str),
    Close(u16, &'static str),
}

#[derive(Debug)]
pub struct StandIn {
    pub address: SocketAddr,
    clients: Arc<Mutex<Vec<Client>>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Debug)]
struct Client {
    /// Query of its request: who it says it is.
    query: String,
    frames: mpsc::Sender<Out>,
    pongs: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl StandIn {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let clients: Arc<Mutex<Vec<Client>>> = Arc::default();
        let accepted = Arc::clone(&clients);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let clients = Arc::clone(&accepted);
                let serve = service_fn(move |request| answer(request, Arc::clone(&clients)));
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), serve).with_upgrades());
            }
        });
        Self { address, clients, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Sends to every client whose query holds `who` (everyone: the empty string), in the order given.
    pub fn send(&self, who: &str, out: &Out) -> usize {
        let mut sent = 0;
        for client in lock(&self.clients).iter().filter(|client| client.query.contains(who)) {
            client.frames.try_send(out.clone()).expect("the queue is long enough");
            sent += 1;
        }
        sent
    }

    pub fn pongs(&self) -> Vec<Vec<u8>> {
        lock(&self.clients).iter().flat_map(|client| lock(&client.pongs).clone()).collect()
    }
}

/// A PUSH of publisher 1's messages `sequences`.
pub fn push(sequences: &[u32]) -> Out {
    Out::Text(format!(r#"{{"type":"PUSH","data":{{"items":[{}]}}}}"#, items(sequences)))
}

pub fn items(sequences: &[u32]) -> String {
    let now_ns = tidegate_bench::clock::now_ns();
    let items = sequences.iter().map(|n| format!(r#"{{"p":1,"n":{n},"t":{now_ns},"x":"{}"}}"#, "a".repeat(60)));
    items.collect::<Vec<_>>().join(",")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

async fn answer(
    mut request: Request<Incoming>,
    clients: Arc<Mutex<Vec<Client>>>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, socket) = upgrade::upgrade(&mut request)?;
    let query = request.uri().query().unwrap_or_default().to_owned();
    tokio::spawn(async move {
        if let Ok(socket) = socket.await {
            converse(socket, query, clients).await;
        }
    });
    Ok(response)
}

async fn converse(
    mut socket: fastwebsockets::WebSocket<TokioIo<hyper::upgrade::Upgraded>>,
    query: String,
    clients: Arc<Mutex<Vec<Client>>>,
) {
    socket.set_auto_pong(true);
    let (frames, mut inbox) = mpsc::channel(QUEUE);
    let pongs: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    // Before the greeting: who has been greeted can be sent to.
    let pong_list = Arc::clone(&pongs);
    lock(&clients).push(Client { query, frames, pongs });
    if socket.write_frame(text(r#"{"type":"HELLO","data":{"connection":"c"}}"#)).await.is_err() {
        return;
    }
    // Reading is not cancel-safe in fastwebsockets: two halves, two tasks.
    let (mut reader, mut writer) = socket.split(tokio::io::split);
    let (heard, mut replies) = mpsc::channel::<String>(16);
    tokio::spawn(async move {
        loop {
            let mut no_reply = |_| async { Ok::<_, WebSocketError>(()) };
            let Ok(frame) = reader.read_frame(&mut no_reply).await else { return };
            match frame.opcode {
                OpCode::Pong => lock(&pong_list).push(frame.payload.to_vec()),
                OpCode::Text => {
                    let message: serde_json::Value = serde_json::from_slice(&frame.payload).expect("clients send JSON");
                    let rooms = message["data"]["rooms"].as_array().cloned().unwrap_or_default();
                    let rooms: Vec<_> =
                        rooms.into_iter().map(|room| serde_json::json!({"room": room, "seq": 0})).collect();
                    let joined = serde_json::json!({"type": "JOINED", "id": 1, "data": {"rooms": rooms}});
                    if heard.send(joined.to_string()).await.is_err() {
                        return;
                    }
                }
                OpCode::Close => return,
                _ => {}
            }
        }
    });
    loop {
        let out = tokio::select! {
            out = inbox.recv() => out,
            Some(reply) = replies.recv() => Some(Out::Text(reply)),
        };
        let frame = match &out {
            None => return,
            Some(Out::Text(message)) => text(message),
            Some(Out::Ping(payload)) => Frame::new(true, OpCode::Ping, None, Payload::Borrowed(payload.as_bytes())),
            Some(Out::Close(code, reason)) => Frame::close(CloseCode::from(*code).into(), reason.as_bytes()),
        };
        if writer.write_frame(frame).await.is_err() {
            return;
        }
    }
}

fn text(message: &str) -> Frame<'_> {
    Frame::text(Payload::Borrowed(message.as_bytes()))
}
