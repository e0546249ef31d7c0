//! A gateway with 1,000 clients that is given a number of pushes for everyone, one walk each: `walk PUSHES`.
//! For counting instructions (`make guard`): two runs that differ in their pushes alone differ in the cost of those alone,
//! in user space, from the backplane's bytes to the 1,000 calls of `send`. Measures no time.
//! All clients but one never read: what they are sent stays in the kernel, so it must be little. The one that reads has the
//! last slot of the only bucket, hence its frame ends a walk.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use prost::Message;
use tidegate_gateway::{BeforeLogic, Gateway, GatewayConfig, WriterKind};
use tidegate_protocol::records::target::To;
use tidegate_protocol::records::{EventsReply, EventsRequest, Lane, Push, PushBatch, PushReply, Target, path};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 1_000;
/// What the sockets' buffers surely hold.
const PUSHES_MAX: usize = 500;
/// Looks at the counters, 10 ms apart, before they are taken to be wrong.
const WAITS_MAX: usize = 500;
/// Longer than any run, so that no ping comes in between.
const NEVER_MS: u32 = 3_600_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let pushes: usize = std::env::args().nth(1).context("usage: walk PUSHES")?.parse().context("a number of pushes")?;
    ensure!(pushes <= PUSHES_MAX, "at most {PUSHES_MAX} pushes");
    let gateway = Gateway::start(config()).await?;
    let mut silent = Vec::with_capacity(CONNECTIONS);
    for _ in 1..CONNECTIONS {
        // Out of the runtime's sight: what arrives there costs no instruction here.
        silent.push(connect(&gateway).await?.into_std()?);
    }
    let mut last = connect(&gateway).await?;
    let mut link = Link::open(&gateway).await?;

    let mut read = Vec::new();
    for n in 0..pushes {
        let text = format!("\"{n:098}\"");
        link.push(n as u64 + 1, &text).await?;
        read_until(&mut last, &mut read, text.as_bytes()).await?;
    }

    // The last client may read its frame before the walk has added up its last chunk.
    let mut deliveries = written(&gateway)?;
    for _ in 0..WAITS_MAX {
        if deliveries == pushes * CONNECTIONS {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        deliveries = written(&gateway)?;
    }
    ensure!(deliveries == pushes * CONNECTIONS, "{deliveries} deliveries of {}", pushes * CONNECTIONS);
    println!("{deliveries}");
    Ok(())
}

/// One of everything that could be several.
fn config() -> GatewayConfig {
    let mut config = GatewayConfig { listen: ([127, 0, 0, 1], 0).into(), buckets: 1, ..GatewayConfig::default() };
    config.handshake.lobbies = 1;
    // Its clients come before its link.
    config.handshake.before_logic = BeforeLogic::Admit;
    config.fanout.threads = 1;
    // What valgrind can count: it knows no io_uring.
    config.fanout.writer = WriterKind::Send;
    config.heartbeat.idle_ms = NEVER_MS;
    config
}

/// A client that has read its HELLO.
async fn connect(gateway: &Gateway) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(gateway.listen_addr()).await?;
    let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    read_until(&mut stream, &mut Vec::new(), b"\"time_ms\":").await?;
    Ok(stream)
}

/// Reads until `mark` has come.
async fn read_until(stream: &mut TcpStream, read: &mut Vec<u8>, mark: &[u8]) -> anyhow::Result<()> {
    read.clear();
    while !read.windows(mark.len()).any(|window| window == mark) {
        ensure!(stream.read_buf(read).await? > 0, "the gateway hung up: {}", String::from_utf8_lossy(read));
    }
    Ok(())
}

/// Messages × connections that the kernel took, by the gateway's own account.
fn written(gateway: &Gateway) -> anyhow::Result<usize> {
    let mut text = String::new();
    gateway.metrics_text(&mut text);
    let line = text.lines().find_map(|line| line.strip_prefix("tidegate_gateway_messages_written_total "));
    Ok(line.context("the gateway counts what it writes")?.parse()?)
}

/// A logic node of a few lines.
struct Link {
    client: h2::client::SendRequest<Bytes>,
    epoch: u64,
}

impl Link {
    async fn open(gateway: &Gateway) -> anyhow::Result<Self> {
        let (client, connection) = h2::client::handshake(gateway.pipe()()).await?;
        tokio::spawn(connection);
        let mut link = Self { client, epoch: 0 };
        let request = EventsRequest { logic: 7, ..EventsRequest::default() };
        link.epoch = link.ask::<EventsReply>(path::EVENTS, &request).await?.epoch;
        Ok(link)
    }

    /// Pushes one message to everyone, urgently, so that it does not wait for a window.
    async fn push(&mut self, sequence: u64, text: &str) -> anyhow::Result<()> {
        let push = Push {
            targets: vec![Target { to: Some(To::All(true)) }],
            messages: vec![Bytes::copy_from_slice(text.as_bytes())],
            lane: Lane::Urgent.into(),
            ..Push::default()
        };
        let batch = PushBatch { logic: 7, sequence, epoch: self.epoch, pushes: vec![push] };
        self.ask::<PushReply>(path::PUSH, &batch).await?;
        Ok(())
    }

    async fn ask<R: Message + Default>(&mut self, path: &str, record: &impl Message) -> anyhow::Result<R> {
        let request = http::Request::post(format!("http://gateway{path}")).body(())?;
        let mut client = self.client.clone().ready().await?;
        let (response, mut body) = client.send_request(request, false)?;
        body.send_data(record.encode_to_vec().into(), true)?;
        let response = response.await?;
        ensure!(response.status() == 200, "{path} answered {}", response.status());
        let mut stream = response.into_body();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.data().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(R::decode(bytes.as_slice())?)
    }
}
