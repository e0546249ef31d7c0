//! A small HTTP/1.1 client: one connection a request.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::SocketAddr;
use tidegate_logic::Logic;
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Null when the body is no JSON.
    pub json: Value,
}

impl Reply {
    /// The problem's code.
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or("none")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub async fn get(logic: &Logic, path: &str) -> Reply {
    call(logic.api_addr(), "GET", path, &[], "").await
}

pub async fn delete(logic: &Logic, path: &str) -> Reply {
    call(logic.api_addr(), "DELETE", path, &[], "").await
}

/// Posts JSON.
pub async fn post(logic: &Logic, path: &str, body: impl Into<Bytes>) -> Reply {
    call(logic.api_addr(), "POST", path, &[("content-type", "application/json")], body).await
}

pub async fn call(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Reply {
    let stream = TcpStream::connect(addr).await.expect("connect");
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("handshake");
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", addr.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("request");
    let (head, body) = send.send_request(request).await.expect("answer").into_parts();
    let body = body.collect().await.expect("body").to_bytes();
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Reply { status: head.status, headers: head.headers, body, json }
}
