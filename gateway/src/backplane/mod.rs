//! The gateway's end of the backplane: an HTTP/2 server for logic nodes, over TCP or an in-memory pipe alike.
//! This file is the transport: listening, who may speak, bodies in and out, one task a request. What the requests do
//! is in [`push`] (pushes and waits), [`interest`], [`uplink`] (what clients say), [`queries`] (lists) and [`commands`].
//! Invariants: a body is read whole and decoded before anything is applied; a link that ends holds back no reply.

pub(crate) mod answers;
pub(crate) mod commands;
pub(crate) mod interest;
mod links;
pub(crate) mod push;
pub(crate) mod queries;
pub(crate) mod spare;
pub(crate) mod uplink;

pub use links::Links;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response, StatusCode, header};
use prost::Message;
use subtle::ConstantTimeEq;
use tidegate_protocol::limits::BACKPLANE_BODY_BYTES_MAX;
use tidegate_protocol::places::{Place, Places};
use tidegate_protocol::records::{
    Answers, CommandRequest, EventsRequest, PushBatch, QueryRequest, UplinkRequest, WaitRequest, path,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use self::commands::Commands;
use self::interest::Feed;
use self::push::Pushes;
use self::queries::Queries;
use self::uplink::Upward;
use crate::lifecycle::Lifecycle;

/// Room for several full batches in flight, so that a batch never waits for a window update.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Few frames a batch; small DATA frames also spend h2's budget.
const FRAME_BYTES_MAX: u32 = 1024 * 1024;
/// Requests of one logic node at once: one batch, one events request, and lists, waits and commands.
const STREAMS_MAX: u32 = 256;
/// Links at once; far above any fleet of logic nodes. One more takes the place of one that has proven nothing.
pub(crate) const LINKS_MAX: usize = 256;
/// From accept to the end of the HTTP/2 preface, and from there to the first authorised request: a stranger keeps no link.
const PREFACE: std::time::Duration = std::time::Duration::from_secs(5);
/// For the last frames of a link, when the gateway ends it.
pub(crate) const GOODBYE: std::time::Duration = std::time::Duration::from_millis(200);
/// From request head to the end of its body.
const BODY: std::time::Duration = std::time::Duration::from_secs(10);

/// Ends a link by being dropped.
pub(crate) type Holder = oneshot::Sender<()>;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Not a POST of a known path.
    #[error("unknown request")]
    Unknown,
    /// The secret is missing or wrong.
    #[error("backplane secret missing or wrong")]
    Unauthorized,
    /// Larger than any logic node sends.
    #[error("body larger than {BACKPLANE_BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// Not a record, or one that cannot be.
    #[error("{0}")]
    Bad(String),
    /// Meant for this gateway before its restart, or a number out of order.
    #[error("{0}")]
    Conflict(&'static str),
}

impl Refused {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
        }
    }
}

/// The backplane of a gateway, and what its requests reach.
#[derive(Debug)]
pub(crate) struct Backplane {
    /// What logic nodes prove themselves by; empty: nothing is asked.
    pub secret: String,
    pub tls: Option<tidegate_tls::Server>,
    /// Links; those that have proven themselves count as served.
    pub places: Arc<Places<Holder>>,
    pub lifecycle: Arc<Lifecycle>,
    pub links: Arc<Links>,
    pub pushes: Pushes,
    pub feed: Feed,
    pub upward: Upward,
    pub commands: Commands,
    pub queries: Queries,
}

impl Backplane {
    /// Binds the backplane's TCP address and serves it until the gateway stops.
    ///
    /// # Errors
    /// The system's, for example when the address is in use.
    pub async fn listen(self: &Arc<Self>, address: SocketAddr) -> io::Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        let this = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = this.lifecycle.stopped() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, _)) => {
                        let (holder, evicted) = oneshot::channel();
                        let Some(place) = this.places.take(holder) else { continue };
                        let _ = stream.set_nodelay(true);
                        tokio::spawn(Arc::clone(&this).shake_hands(place, evicted, stream));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "backplane: cannot accept");
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    }
                }
            }
        });
        Ok(bound)
    }

    /// Lets a logic node prove who it is, where certificates are configured, and serves it.
    async fn shake_hands(
        self: Arc<Self>,
        place: Arc<Place<Holder>>,
        mut evicted: oneshot::Receiver<()>,
        stream: tokio::net::TcpStream,
    ) {
        let Some(tls) = &self.tls else { return self.serve_in(Some((place, evicted)), stream).await };
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(PREFACE, tls.acceptor().accept(stream)) => shaken,
            _ = &mut evicted => return,
        };
        match shaken {
            Ok(Ok(stream)) => Arc::clone(&self).serve_in(Some((place, evicted)), stream).await,
            Ok(Err(error)) => tracing::warn!(%error, "backplane: a logic node does not prove who it is"),
            Err(_) => tracing::warn!("backplane: a logic node is silent"),
        }
    }

    /// Serves a link in memory.
    pub async fn serve<T>(self: Arc<Self>, io: T)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.serve_in(None, io).await;
    }

    /// Serves one link until it ends or the gateway stops. In a place at the listener it is safe once it has proven itself.
    async fn serve_in<T>(self: Arc<Self>, place: Option<(Arc<Place<Holder>>, oneshot::Receiver<()>)>, io: T)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(8 * 1024)
            .max_concurrent_reset_streams(20);
        let (place, evicted) = place.unzip();
        let mut evicted = std::pin::pin!(async move {
            match evicted {
                Some(evicted) => drop(evicted.await),
                None => std::future::pending().await,
            }
        });
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(PREFACE, builder.handshake::<_, Bytes>(io)) => handshake,
            () = &mut evicted => return,
        };
        let Ok(Ok(mut connection)) = handshake else { return };
        let mut served = None;
        let owner = self.links.next_owner();
        let _open = self.links.open();
        let mut is_proven = false;
        let mut patience = std::pin::pin!(tokio::time::sleep(PREFACE));
        loop {
            let next = tokio::select! {
                () = &mut patience, if !is_proven => {
                    tracing::warn!("backplane: a link without an authorised request is ended");
                    break;
                }
                () = &mut evicted, if !is_proven => break,
                () = self.lifecycle.stopped() => {
                    connection.graceful_shutdown();
                    // Requests that are held stay open; what the logic node has to hear is only that we go.
                    let _ = tokio::time::timeout(GOODBYE, std::future::poll_fn(|cx| connection.poll_closed(cx))).await;
                    break;
                }
                next = connection.accept() => next,
            };
            match next {
                Some(Ok((request, respond))) => {
                    if !is_proven && self.authorize(&request).is_ok() {
                        is_proven = true;
                        served = place.as_ref().map(Place::serve);
                    }
                    tokio::spawn(Arc::clone(&self).answer(owner, request, respond));
                }
                Some(Err(_)) | None => break,
            }
        }
        drop((served, place));
        self.upward.hang_up(owner);
        self.feed.hang_up(owner);
    }

    async fn answer(self: Arc<Self>, owner: u64, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (status, body) = match self.handle(owner, request).await {
            Ok(body) => (StatusCode::OK, body),
            Err(refused) => (refused.status(), Bytes::from(refused.to_string())),
        };
        let mut response = Response::new(());
        *response.status_mut() = status;
        // A link that has ended meanwhile needs no answer.
        let Ok(mut stream) = respond.send_response(response, body.is_empty()) else { return };
        if !body.is_empty() && stream.send_data(body, true).is_err() {
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    async fn handle(&self, owner: u64, request: Request<RecvStream>) -> Result<Bytes, Refused> {
        self.authorize(&request)?;
        if request.method() != Method::POST {
            return Err(Refused::Unknown);
        }
        let (parts, body) = request.into_parts();
        let body = tokio::time::timeout(BODY, collect(body))
            .await
            .map_err(|_| Refused::Bad("body took longer than 10 s".into()))??;
        match parts.uri.path() {
            path::PUSH => Ok(self.pushes.push(decode::<PushBatch>(body)?).await?),
            path::WAIT => Ok(encode(&self.pushes.wait(decode::<WaitRequest>(body)?).await)),
            path::EVENTS => Ok(encode(&self.feed.events(owner, &decode::<EventsRequest>(body)?).await)),
            path::UPLINK => Ok(encode(&self.upward.listen(owner, decode::<UplinkRequest>(body)?).await)),
            path::ANSWERS => self.upward.answers(decode::<Answers>(body)?).map(|()| Bytes::new()),
            path::QUERY => Ok(encode(&self.queries.answer(&decode::<QueryRequest>(body)?)?)),
            path::COMMAND => Ok(encode(&self.commands.command(&decode::<CommandRequest>(body)?).await?)),
            _ => Err(Refused::Unknown),
        }
    }

    fn authorize(&self, request: &Request<RecvStream>) -> Result<(), Refused> {
        let secret = self.secret.as_bytes();
        if secret.is_empty() {
            return Ok(());
        }
        let given = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], |v| v.as_bytes());
        let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
        if bool::from(given.ct_eq(secret)) { Ok(()) } else { Err(Refused::Unauthorized) }
    }
}

async fn collect(mut body: RecvStream) -> Result<Bytes, Refused> {
    let broken = |e: h2::Error| Refused::Bad(format!("body: {e}"));
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(broken)?;
        body.flow_control().release_capacity(chunk.len()).map_err(broken)?;
        // Most bodies are one DATA frame: that one is kept as it came, and messages stay slices of it.
        if let Some(one) = first.take() {
            whole.extend_from_slice(&one);
        } else if whole.is_empty() {
            first = Some(chunk);
            continue;
        }
        if whole.len() + chunk.len() > BACKPLANE_BODY_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

fn decode<R: Message + Default>(body: Bytes) -> Result<R, Refused> {
    R::decode(body).map_err(|e| Refused::Bad(e.to_string()))
}

fn encode(record: &impl Message) -> Bytes {
    record.encode_to_vec().into()
}
