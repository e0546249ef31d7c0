//! The ops listener of a gateway that is a process of its own: `/healthz`, `/readyz`, `/metrics` over HTTP/1.1.
//! On loopback unless told otherwise; never on the clients' port.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_protocol::exposition::Exposition;
use tidegate_protocol::places::Place;
use tokio::sync::oneshot;

use super::health::Health;
use super::{Sources, metrics};

/// Scrapers at once; one more takes the place of one that asks for nothing.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// Ends a connection by being dropped.
pub(crate) type Holder = oneshot::Sender<()>;

/// Appends metrics in Prometheus' text format, without an end mark.
pub type MetricsText = Arc<dyn Fn(&mut String) + Send + Sync>;

/// What the ops listener tells.
pub(crate) struct Ops {
    pub sources: Arc<Sources>,
    pub health: Health,
    pub more: MetricsText,
}

/// Binds the listener and serves it until the gateway stops.
///
/// # Errors
/// The system's, for example when the address is in use.
pub(crate) async fn listen(address: SocketAddr, ops: Ops) -> io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let ops = Arc::new(ops);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = ops.sources.host.lifecycle.stopped() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (holder, evicted) = oneshot::channel();
            // All are being served only while answers are made, which takes no time.
            let Some(place) = ops.sources.ops_places.take(holder) else { continue };
            let ops = Arc::clone(&ops);
            tokio::spawn(async move {
                tokio::select! {
                    () = serve(&ops, &place, stream) => {}
                    _ = evicted => {}
                }
            });
        }
    });
    Ok(bound)
}

async fn serve(ops: &Ops, place: &Arc<Place<Holder>>, stream: tokio::net::TcpStream) {
    let service = service_fn(|request| {
        let _served = place.serve();
        let response = respond(ops, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(5)).max_buf_size(16 * 1024);
    // A scraper that breaks off is not our error.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

fn respond(ops: &Ops, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n".into());
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // One meaning for each request (RFC 9112 section 3.2); HTTP/1.0 has no Host.
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return text(StatusCode::BAD_REQUEST, "text/plain", "HTTP/1.1 needs exactly one Host\n".into());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "text/plain", "ok\n".into()),
        "/readyz" => match ops.health.missing() {
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("not ready: {why}\n")),
            None => text(StatusCode::OK, "text/plain", "ready\n".into()),
        },
        "/metrics" => {
            let mut out = String::new();
            metrics::write(&ops.sources, &mut out);
            (ops.more)(&mut out);
            let accept = request.headers().get_all(header::ACCEPT).iter().filter_map(|field| field.to_str().ok());
            let format = Exposition::accepted(accept);
            let mut response = text(StatusCode::OK, format.content_type(), format.finish(out));
            response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("Accept"));
            response
        }
        _ => text(StatusCode::NOT_FOUND, "text/plain", "here are /healthz, /readyz and /metrics\n".into()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
