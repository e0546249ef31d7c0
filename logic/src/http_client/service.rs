//! A business service for tests: an HTTP server on loopback that records what it gets and answers as it is told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request.
#[derive(Clone, Debug)]
pub struct Got {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Got {
    /// The numbers of the test messages in it, with their users.
    pub fn numbers(&self) -> Vec<(String, u64)> {
        let line = |line: &[u8]| {
            let line: serde_json::Value = serde_json::from_slice(line).expect("a line is JSON");
            (line["user"].as_str().unwrap_or_default().to_owned(), line["data"]["n"].as_u64().unwrap_or_default())
        };
        self.body.split(|byte| *byte == b'\n').filter(|part| !part.is_empty()).map(line).collect()
    }
}

/// What to answer.
pub type Reply = Response<Full<Bytes>>;

/// A status with a body.
pub fn reply(status: u16, body: &str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body.to_owned())));
    *reply.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    reply
}

/// Marks an answer that never comes.
#[derive(Clone)]
struct Silence;

/// No answer.
pub fn silence() -> Reply {
    let mut reply = reply(200, "");
    reply.extensions_mut().insert(Silence);
    reply
}

/// A running service.
pub struct Hook {
    /// Where it listens.
    pub address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    task: JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    /// Answers by a function of the request and its place.
    pub async fn start(answer: impl Fn(usize, &Got) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let (seen, answer) = (Arc::clone(&got), Arc::new(answer));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("the listener lives");
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.expect("a whole body").to_bytes();
                        let got = Got { headers: head.headers, body };
                        let place = {
                            let mut seen = seen.lock();
                            seen.push(got.clone());
                            seen.len() - 1
                        };
                        let reply = answer(place, &got);
                        if reply.extensions().get::<Silence>().is_some() {
                            std::future::pending::<()>().await;
                        }
                        Ok::<_, Infallible>(reply)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, got, task }
    }

    /// Where to post.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// What has come so far.
    pub fn got(&self) -> Vec<Got> {
        self.got.lock().clone()
    }
}

/// Waits until something holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let patience = Duration::from_secs(20);
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(patience, wait).await.is_ok(), "{what} did not come true");
}
