//! The push API's server: accepts, bounds and serves HTTP/1.1 and HTTP/2 on one port.
//! Parts: `calls` (which there are, a file a topic), `routes` (which is meant), `openapi` (what they say of themselves);
//! `body`, `query` (what came in); `batch`, `go_push`, `lists`, `presence`, `membership`, `closing`, `command`,
//! `agents`, `upstream`, `operate`, `console` (what is done); `response`, `paging` (what goes out); `socket` (deadlines),
//! `framing` and `guard` (heads that can be read in one way only).
//! Invariant: every spawned task holds a permit of `Node::connections` and a place of `Node::places`.

mod agents;
mod batch;
pub(crate) mod body;
mod calls;
pub mod closing;
mod command;
mod console;
mod framing;
mod go_push;
mod guard;
pub mod lists;
mod membership;
pub(crate) mod openapi;
mod operate;
pub mod paging;
mod presence;
mod push;
mod query;
pub mod response;
mod routes;
mod socket;
mod upstream;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tidegate_protocol::places::Place;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::{sleep, timeout};

use self::guard::Guard;
use self::response::Kept;
use self::routes::Routes;
use self::socket::{Requests, Socket};
use crate::node::Node;
use crate::settings::Current;

/// Pause after a failed accept (out of files): long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a connection is looked for that could make room for a newcomer.
const ROOM_EVERY: Duration = Duration::from_millis(50);
/// Most header fields of a request.
const HEADERS_MAX: usize = 64;
/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 100;
/// Flow control of request bodies: what HTTP/2 peers may have in our buffers unread.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2 peers that are gone without a word are noticed by pings.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);

/// Serves until `leave` changes; then finishes what is in progress on each connection.
pub async fn serve(node: Arc<Node>, listener: TcpListener, mut leave: watch::Receiver<bool>) {
    let routes = Arc::new(Routes::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = leave.changed() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an API connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let permit = tokio::select! {
            permit = permit(&node) => permit,
            _ = leave.changed() => return,
        };
        let (holder, evicted) = oneshot::channel();
        let (Some(permit), Some(place)) = (permit, node.places.take(holder)) else { return };
        let connection =
            Connection { node: Arc::clone(&node), routes: Arc::clone(&routes), leave: leave.clone(), place };
        tokio::spawn(async move {
            tokio::select! {
                () = connection.run(stream) => {}
                _ = evicted => {}
            }
            drop(permit);
        });
    }
}

/// A permit for a connection. When there is none left, a caller that asks for nothing at the moment has to go; the others are
/// waited for.
async fn permit(node: &Node) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(&node.connections).try_acquire_owned() {
        return Some(permit);
    }
    loop {
        node.places.make_room();
        // Those whose requests end meanwhile can make room as well.
        let permit = timeout(ROOM_EVERY, Arc::clone(&node.connections).acquire_owned()).await;
        if let Ok(permit) = permit {
            // The semaphore is never closed.
            return permit.ok();
        }
    }
}

type Builder = auto::Builder<TokioExecutor>;

fn builder(config: &Current) -> Builder {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        // Without a timer hyper has no deadlines at all (research/reliability.md, finding 4). This one runs while a
        // connection idles, so it is the idle deadline; `socket` has the one for heads.
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(u64::from(config.http.idle_ms)))
        // Never reached: `guard` passes whole heads within the limit.
        .max_buf_size(config.limits.header_bytes + 8 * 1024)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(20)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(config.limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER);
    builder
}

struct Connection {
    node: Arc<Node>,
    routes: Arc<Routes>,
    leave: watch::Receiver<bool>,
    place: Arc<Place<oneshot::Sender<()>>>,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        // Answers are one write each; waiting for more would only delay them. A socket that refuses is broken anyway.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.node.tls else { return self.serve(stream).await };
        let deadline = Duration::from_millis(u64::from(self.node.settings.now().http.header_ms));
        // Boxed, so that a connection does not carry the handshake's state through its life.
        match timeout(deadline, Box::pin(tls.acceptor().accept(stream))).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake with an API caller failed"),
            Err(_) => tracing::debug!("TLS handshake with an API caller took too long"),
        }
    }

    async fn serve(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let current = self.node.settings.now();
        let http = &current.http;
        let ms = |ms: u32| Duration::from_millis(u64::from(ms));
        let requests = Arc::new(Requests::default());
        let socket = Socket::new(stream, Arc::clone(&requests), ms(http.header_ms), ms(http.write_ms));
        let guard = Guard::new(socket, Arc::clone(&requests), current.limits.header_bytes, http.header_ms);
        let service = service_fn(|request| {
            let (node, routes, requests) = (Arc::clone(&self.node), Arc::clone(&self.routes), Arc::clone(&requests));
            let refused = requests.begin();
            let served = self.place.serve();
            async move {
                let answer = match refused {
                    Some(refusal) => routes::refuse(&node, "none", &refusal),
                    None => routes.answer(&node, request).await,
                };
                requests.end();
                // Lines that come one by one are served to their end.
                Ok::<_, Infallible>(answer.map(|body| Kept::new(body, served)))
            }
        });
        let builder = builder(&current);
        let connection = builder.serve_connection(TokioIo::new(guard), service);
        tokio::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            _ = self.leave.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(error = %error, "API connection ended");
        }
    }
}
