//! The push API as a publisher uses it: one keep-alive HTTP/1.1 connection, by hyper.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::PATIENCE;

/// A connection to an HTTP listener.
pub struct Api {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    key: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text()))
    }

    /// A refusal's stable `code`, with its status, from a problem+json body.
    pub fn problem(&self) -> (u16, String) {
        let kind = self.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{} is a problem, not {kind:?}", self.status);
        let code = self.json()["code"].as_str().unwrap_or_default().to_owned();
        (self.status, code)
    }
}

impl Api {
    /// Connects; panics when nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap_or_else(|| panic!("nobody listens on {address}"))
    }

    /// Connects, if somebody listens.
    pub async fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Self::over(stream, &address.to_string()).await
    }

    /// Speaks HTTP/1.1 over a stream that is there already, such as TLS.
    pub async fn over<S>(stream: S, host: &str) -> Option<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        Some(Self { sender, host: host.to_owned(), key: None })
    }

    /// The same connection with a key.
    pub fn with_key(mut self, key: &str) -> Self {
        self.key = Some(format!("Bearer {key}"));
        self
    }

    /// One request, or why it got no answer.
    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = &self.key {
            request = request.header("Authorization", key);
        }
        let request = request
            .header("Host", &self.host)
            .header("Content-Type", kind)
            .body(Full::new(body.into()))
            .expect("the request is well formed");
        let answer = async {
            // The connection is a task of its own and may not have seen the end of the answer before.
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        answer.map_err(|e| e.to_string())?.map_err(|e| format!("{e:?}"))
    }

    /// One request.
    pub async fn send(&mut self, method: &str, path: &str, kind: &str, body: impl Into<Bytes>) -> Answer {
        let answer = self.exchange(method, path, kind, body).await;
        answer.unwrap_or_else(|why| panic!("no answer to {method} {path}: {why}"))
    }

    /// A GET, if it is answered.
    pub async fn try_get(&mut self, path: &str) -> Option<Answer> {
        self.exchange("GET", path, "application/json", "").await.ok()
    }

    /// A GET.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, "application/json", "").await
    }

    /// A POST of these bytes as JSON.
    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send("POST", path, "application/json", body).await
    }

    /// A push that must be taken: its receipt.
    pub async fn push(&mut self, push: Value) -> Value {
        let answer = self.post("/v1/push", push.to_string()).await;
        assert!(matches!(answer.status, 200 | 202), "{push} was answered {} {}", answer.status, answer.text());
        answer.json()
    }

    /// One message to a room, taken.
    pub async fn push_room(&mut self, room: &str, message: Value) -> Value {
        self.push(json!({"to": {"room": room}, "messages": [message]})).await
    }
}
