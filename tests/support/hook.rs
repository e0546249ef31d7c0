//! A business service behind a webhook: records the requests it gets and answers as it is told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request, and the status it was answered with.
#[derive(Clone, Debug)]
pub struct Got {
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`.
    pub timestamp: String,
    /// `webhook-signature`.
    pub signature: String,
    /// What was signed beside the two.
    pub body: Bytes,
    /// Its lines.
    pub lines: Vec<Value>,
    /// 2xx: they are the service's now.
    pub status: u16,
}

/// A running service; ends with the test.
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
    /// Answers with what the function makes of the request's place and lines: a status and a body.
    pub async fn start(answer: impl Fn(usize, &[Value]) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let (seen, answer) = (Arc::clone(&got), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                let service = service_fn(move |request| {
                    let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                    async move { Ok::<_, Infallible>(serve(&seen, &*answer, request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, got, task }
    }

    /// What has come so far.
    pub fn got(&self) -> Vec<Got> {
        self.got.lock().expect("no holder panics").clone()
    }

    /// Lines of requests that were answered with 2xx, in order of their coming.
    pub fn taken(&self) -> Vec<Value> {
        self.got().into_iter().filter(|got| got.status < 300).flat_map(|got| got.lines).collect()
    }

    /// The variables of a server whose routes all lead here; `more` are further members of the sink, in TOML.
    pub fn env(&self, folder: &std::path::Path, more: &str) -> Vec<(&'static str, String)> {
        let sink = format!(
            "[{{name = \"robots\", url = \"http://{}/hook\", allow_private = true, \
             secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"], {more}}}]",
            self.address
        );
        vec![
            ("TIDEGATE_LOGIC__UPSTREAM__SPOOL", folder.display().to_string()),
            ("TIDEGATE_LOGIC__UPSTREAM__ROUTES", "[{pattern = \"robot/*\", sink = \"robots\"}]".to_owned()),
            ("TIDEGATE_LOGIC__UPSTREAM__SINKS", sink),
        ]
    }
}

async fn serve(
    seen: &Mutex<Vec<Got>>,
    answer: &(impl Fn(usize, &[Value]) -> (u16, String) + ?Sized),
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (id, timestamp, signature) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    // A process that is killed leaves half a request; that one counts for nothing.
    let Ok(body) = request.into_body().collect().await else { return Response::default() };
    let body = body.to_bytes();
    let lines: Vec<Value> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("each line is JSON"))
        .collect();
    let (status, text) = {
        let mut seen = seen.lock().expect("no holder panics");
        let (status, text) = answer(seen.len(), &lines);
        seen.push(Got { id, timestamp, signature, body, lines, status });
        (status, text)
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = hyper::StatusCode::from_u16(status).expect("a status");
    response
}
