//! One caller: sends commands one after the other over one HTTP connection, and has each answer judged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::agent::Shared;
use super::dice;
use super::truth::{Exchange, name};
use crate::clock;
use crate::distribution::Distribution;

/// What callers have heard.
#[derive(Default)]
pub(super) struct Heard {
    pub replied: u64,
    pub late: u64,
    pub nobody: u64,
    pub wrong: Vec<String>,
    /// Of those that were replied to.
    pub round_trip_us: Distribution,
}

impl Heard {
    pub(super) fn add(&mut self, other: Self) {
        self.replied += other.replied;
        self.late += other.late;
        self.nobody += other.nobody;
        self.wrong.extend(other.wrong);
        self.round_trip_us.merge(&other.round_trip_us);
    }

    pub(super) fn answers(&self) -> u64 {
        self.replied + self.late + self.nobody
    }
}

/// Takes commands off `left` until none is left.
pub(super) async fn call(
    shared: Arc<Shared>,
    api: SocketAddr,
    left: Arc<AtomicU64>,
    timeout_ms: u64,
    is_calm: bool,
) -> anyhow::Result<Heard> {
    let stream = TcpStream::connect(api).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut heard = Heard::default();
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
        let agent = usize::try_from(dice()).unwrap_or_default() % shared.kills.len();
        let nonce = dice();
        let body = json!({"command": "say", "timeout_ms": timeout_ms, "data": {"nonce": nonce, "calm": is_calm}});
        let begun_ns = clock::now_ns();
        let (status, body) = post(&mut sender, api, &format!("/v1/agents/{}/command", name(agent)), &body).await?;
        let exchange = Exchange { agent, nonce, begun_ns, ended_ns: clock::now_ns(), status, body };
        match exchange.status {
            200 => {
                heard.replied += 1;
                heard.round_trip_us.record_span_ns(exchange.begun_ns, exchange.ended_ns);
            }
            504 => heard.late += 1,
            404 => heard.nobody += 1,
            _ => {}
        }
        heard.wrong.extend(shared.truth.judge(&exchange).err());
    }
    Ok(heard)
}

async fn post(
    sender: &mut SendRequest<Full<Bytes>>,
    host: SocketAddr,
    path: &str,
    body: &Value,
) -> anyhow::Result<(u16, Value)> {
    let request = Request::post(path)
        .header("Host", host.to_string())
        .header("Content-Type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, serde_json::from_slice(&body).with_context(|| format!("{status}: an answer that is no JSON"))?))
}
