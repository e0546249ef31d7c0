//! One keep-alive HTTP/1.1 connection to the push API, and what its answers mean for the replay.
//! A file of its own because it is the only part of the demo that meets a socket. It sends a request once; whether to send it again
//! is `demo`'s decision.
//! Invariants: one request in flight; after any error the connection is dropped, and the next request dials anew.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tidegate_protocol::json;
use tokio::net::TcpStream;

/// For the whole of one request, dialling included: loopback and a batch of 100 KB take milliseconds.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Bytes of one answer: 501 receipts of some 200 B, with room to spare.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The API as this client sees it.
pub struct ApiClient {
    api: SocketAddr,
    key: Option<String>,
    /// `None` until the first request, and after an error.
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// What became of a batch that was taken.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// Pushes refused for good, alone in their batch.
    pub refused: usize,
    /// The first refusal's own words.
    pub refusal: Option<String>,
}

/// Why a batch has to be sent again.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("no connection to the push API: {0}")]
    Unreachable(#[from] std::io::Error),
    #[error("the connection to the push API broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("no answer from the push API within {} s", REQUEST_MAX.as_secs())]
    Late,
    #[error("answer cut short: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
    #[error("push API answers {status}: {reason}")]
    Refused { status: StatusCode, retry_after: Option<Duration>, reason: String },
    #[error("push API is too busy for {pushes} of the batch: {reason}")]
    Busy { pushes: usize, reason: String },
}

impl PushError {
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Unreachable(_) | Self::Broken(_) | Self::Late | Self::Answer(_) | Self::Busy { .. } => None,
        }
    }
}

impl ApiClient {
    pub fn new(api: SocketAddr, key: Option<String>) -> Self {
        Self { api, key, sender: None }
    }

    /// `POST /v1/push/batch`, once.
    pub async fn push_batch(&mut self, body: Bytes) -> Result<Outcome, PushError> {
        // Taken out: an error on any way out leaves `None`, and so does being cancelled.
        let sender = self.sender.take();
        let exchange = self.exchange(sender, body);
        let (sender, status, headers, answer) =
            tokio::time::timeout(REQUEST_MAX, exchange).await.map_err(|_| PushError::Late)??;
        self.sender = Some(sender);
        read_answer(status, &headers, &answer)
    }

    async fn exchange(
        &self,
        sender: Option<SendRequest<Full<Bytes>>>,
        body: Bytes,
    ) -> Result<(SendRequest<Full<Bytes>>, StatusCode, HeaderMap, Bytes), PushError> {
        let mut sender = match sender {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.dial().await?,
        };
        sender.ready().await?;
        let (head, body) = sender.send_request(self.request(body)).await?.into_parts();
        let answer = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(PushError::Answer)?.to_bytes();
        Ok((sender, head.status, head.headers, answer))
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, PushError> {
        let stream = TcpStream::connect(self.api).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends when `sender` is dropped or the peer closes; its error reaches the request in flight.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request =
            Request::post("/v1/push/batch").header(HOST, self.api.to_string()).header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        request
            .body(Full::new(body))
            .expect("path and headers are fixed; a key with control characters is refused by the CLI")
    }
}

/// The parts of an answer that matter here. Receipts carry `id`, refusals (RFC 9457) `code`.
#[derive(Deserialize)]
struct Entry {
    code: Option<String>,
    detail: Option<String>,
    title: Option<String>,
    #[serde(default)]
    retryable: bool,
}

impl Entry {
    fn is_refusal(&self) -> bool {
        self.code.is_some()
    }

    fn words(&self) -> String {
        [&self.detail, &self.title, &self.code].into_iter().flatten().next().cloned().unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct BatchAnswer {
    receipts: Vec<Entry>,
}

fn read_answer(status: StatusCode, headers: &HeaderMap, answer: &[u8]) -> Result<Outcome, PushError> {
    if !status.is_success() {
        let reason = match json::from_slice::<Entry>(answer) {
            Ok(problem) => problem.words(),
            Err(_) => String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned(),
        };
        return Err(PushError::Refused { status, retry_after: retry_after(headers), reason });
    }
    // An answer of another shape is still a success: the API took the batch.
    let receipts = json::from_slice::<BatchAnswer>(answer).map_or_else(|_| Vec::new(), |batch| batch.receipts);
    let refused: Vec<&Entry> = receipts.iter().filter(|entry| entry.is_refusal()).collect();
    if let Some(busy) = refused.iter().find(|entry| entry.retryable) {
        let pushes = refused.iter().filter(|entry| entry.retryable).count();
        return Err(PushError::Busy { pushes, reason: busy.words() });
    }
    Ok(Outcome { refused: refused.len(), refusal: refused.first().map(|entry| entry.words()) })
}

/// Only the form in seconds: the push API sends no dates.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_503_asks_for_the_wait_it_names() {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("7"))]);
        let problem = br#"{"code":"unavailable","detail":"No gateway is connected.","retryable":true}"#;

        let error = read_answer(StatusCode::SERVICE_UNAVAILABLE, &headers, problem).expect_err("a refusal");

        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert!(error.to_string().contains("No gateway is connected."), "{error}");
    }

    #[test]
    fn one_bad_push_in_a_batch_is_counted_and_the_batch_is_done() {
        let answer = br#"{"receipts":[{"id":"01J","matched":1},{"code":"bad_room","title":"No","retryable":false}]}"#;

        let outcome = read_answer(StatusCode::OK, &HeaderMap::new(), answer).expect("the batch was taken");

        assert_eq!(outcome, Outcome { refused: 1, refusal: Some("No".to_owned()) });
    }

    #[test]
    fn a_batch_with_a_push_that_may_succeed_later_is_sent_again() {
        let answer = br#"{"receipts":[{"id":"01J"},{"code":"queue_full","retryable":true}]}"#;

        let error = read_answer(StatusCode::ACCEPTED, &HeaderMap::new(), answer).expect_err("a retry");

        assert!(matches!(error, PushError::Busy { pushes: 1, .. }), "{error}");
    }

    #[tokio::test]
    async fn requests_share_one_connection_and_a_broken_one_is_dialled_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let mut client = ApiClient::new(listener.local_addr().expect("bound"), Some("secret".to_owned()));
        let server = tokio::spawn(async move {
            let mut heads = Vec::new();
            for answers in [2, 1] {
                let (mut stream, _) = listener.accept().await.expect("a client");
                for _ in 0..answers {
                    let mut request = vec![0; 4096];
                    let length = stream.read(&mut request).await.expect("a request");
                    heads.push(String::from_utf8_lossy(&request[..length]).into_owned());
                    stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}").await.expect("open");
                }
            }
            heads
        });

        let mut taken = 0;
        // The third request may meet the connection that the server has closed; the caller sends it again.
        for _ in 0..6 {
            taken += usize::from(client.push_batch(Bytes::from_static(b"{}")).await.is_ok());
            if taken == 3 {
                break;
            }
        }

        assert_eq!(taken, 3);
        let heads = server.await.expect("the server ends");
        assert!(heads.iter().all(|head| head.starts_with("POST /v1/push/batch HTTP/1.1\r\n")), "{heads:?}");
        assert!(heads.iter().all(|head| head.contains("authorization: Bearer secret\r\n")), "{heads:?}");
    }

    #[tokio::test]
    async fn nobody_listening_is_an_error_and_not_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let mut client = ApiClient::new(listener.local_addr().expect("bound"), None);
        drop(listener);

        let error = client.push_batch(Bytes::new()).await.expect_err("no server");

        assert!(matches!(error, PushError::Unreachable(_)), "{error}");
    }
}
