//! The push API's server: accepts, bounds and serves HTTP/1.1 and HTTP/2 on one port.
//! Parts: `calls` (which there are, a file a topic), `routes` (which is meant), `openapi` (what they say of themselves);
//! `body`, `query` (what came in); `batch`, `go_push`, `lists`, `presence`, `membership`, `closing`, `command`,
//! `agents`, `upstream`, `operate`, `console` (what is done); `response`, `paging` (what goes out); `door` (how much at once), `socket` (deadlines),
//! `framing` and `guard` (heads that can be read in one way only).
//! Invariant: every spawned task holds what the `door` gave it for its connection.

mod agents;
mod batch;
mod body;
mod calls;
mod closing;
mod command;
mod console;
mod door;
mod extras;
mod framing;
mod go_push;
mod guard;
mod lists;
mod membership;
mod openapi;
mod operate;
mod paging;
mod presence;
mod push;
mod query;
mod response;
mod routes;
mod socket;
mod upstream;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tidegate_protocol::places::Place;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use self::door::Admitted;
pub use self::door::Door;
pub use self::extras::Extras;
use self::guard::Guard;
use self::response::Kept;
use self::routes::Routes;
use self::socket::{Requests, Socket};
use crate::agents::Agents;
use crate::blocklist::Blocklist;
use crate::config::{LogicConfig, PageConfig};
use crate::fleet::Fleet;
use crate::keys::Keys;
use crate::metrics::Scrape;
use crate::push::Engine;
use crate::settings::{Current, Settings};
use crate::upstream::Upstream;

/// Pause after a failed accept (out of files): long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
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

/// What the calls work on. Each gets the parts it needs; only `calls` and `routes` see all.
pub struct Api {
    /// How much there may be at once.
    pub door: Arc<Door>,
    /// Who may call.
    pub keys: Keys,
    /// What may change: taken once a request.
    pub settings: Arc<Settings>,
    /// Pushes.
    pub engine: Arc<Engine>,
    /// The gateways, and who has which rooms and users.
    pub fleet: Arc<Fleet>,
    /// Who is not to be let in.
    pub blocklist: Arc<Blocklist>,
    /// Commands and their replies.
    pub agents: Arc<Agents>,
    /// Business services.
    pub upstream: Arc<Upstream>,
    /// `/metrics`.
    pub scrape: Scrape,
    /// What the page and the document say.
    pub page: Page,
}

/// What is the same for as long as the node lives.
pub struct Page {
    extras: Extras,
    config: PageConfig,
    /// `/openapi.json`: says what the configuration says.
    openapi: Bytes,
}

impl Page {
    /// The page of a node with this configuration.
    #[must_use]
    pub fn new(config: &LogicConfig, extras: Extras) -> Self {
        Self { extras, config: config.page.clone(), openapi: openapi::bytes(config) }
    }
}

/// Serves until `leave` changes; then finishes what is in progress on each connection.
pub async fn serve(api: Arc<Api>, listener: TcpListener, mut leave: watch::Receiver<bool>) {
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
        let admitted = tokio::select! {
            admitted = api.door.admit() => admitted,
            _ = leave.changed() => return,
        };
        let Some(Admitted { place, evicted, permit }) = admitted else { return };
        let connection = Connection { api: Arc::clone(&api), routes: Arc::clone(&routes), leave: leave.clone(), place };
        tokio::spawn(async move {
            tokio::select! {
                () = connection.run(stream) => {}
                _ = evicted => {}
            }
            drop(permit);
        });
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
    api: Arc<Api>,
    routes: Arc<Routes>,
    leave: watch::Receiver<bool>,
    place: Arc<Place<oneshot::Sender<()>>>,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        // Answers are one write each; waiting for more would only delay them. A socket that refuses is broken anyway.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.api.door.tls else { return self.serve(stream).await };
        let deadline = Duration::from_millis(u64::from(self.api.settings.now().http.header_ms));
        // Boxed, so that a connection does not carry the handshake's state through its life.
        match timeout(deadline, Box::pin(tls.acceptor().accept(stream))).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake with an API caller failed"),
            Err(_) => tracing::debug!("TLS handshake with an API caller took too long"),
        }
    }

    async fn serve(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let current = self.api.settings.now();
        let http = &current.http;
        let ms = |ms: u32| Duration::from_millis(u64::from(ms));
        let requests = Arc::new(Requests::default());
        let socket = Socket::new(stream, Arc::clone(&requests), ms(http.header_ms), ms(http.write_ms));
        let guard = Guard::new(socket, Arc::clone(&requests), current.limits.header_bytes, http.header_ms);
        let service = service_fn(|request| {
            let (api, routes, requests) = (Arc::clone(&self.api), Arc::clone(&self.routes), Arc::clone(&requests));
            let refused = requests.begin();
            let served = self.place.serve();
            async move {
                let answer = match refused {
                    Some(refusal) => routes::refuse(&api.door.metrics, "none", &refusal),
                    None => routes.answer(&api, request).await,
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
