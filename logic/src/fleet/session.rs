//! The life of one link: dial, shake hands, learn the gateway's epoch, then batches, events and pings side by side until
//! the connection ends; and again. One task per gateway owns all of it. Invariant: the queue is `Up` only while a
//! connection to a known epoch is open, and `Down` at the latest `retry_ms` after its loss.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong};
use http::{HeaderValue, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::client::{CallError, Client, is_farewell};
use super::dial::{GatewayLink, PipeStream, delay};
use super::events::Position;
use super::sender::{BatchSender, SenderEnd};
use super::{Failure, Link, LinkState, Shared, uplink};

/// Flow control of answers: events pages of up to a few MB, batches' receipts of a few hundred KB
/// (research/performance.md section 5.2).
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 5 * 1024 * 1024;
const FRAME_BYTES: u32 = 256 * 1024;
/// At least two batches.
const SEND_BUFFER_BYTES: usize = 4 * 1024 * 1024;
const HEADER_LIST_BYTES: u32 = 8 * 1024;
/// Events requests in the time of one while a gateway is leaving.
const HOLDS_WHILE_DRAINING: u32 = 5;

/// An open connection.
struct Session {
    client: Client,
    pings: Option<PingPong>,
    /// Drives the connection's bytes; ends with it.
    driver: JoinHandle<()>,
    epoch: u64,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why a connection ended or did not come about.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("cannot connect: {0}")]
    Dial(#[from] std::io::Error),
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("closed")]
    Closed,
    #[error("silent")]
    Silent,
    #[error("restarted")]
    OtherEpoch,
}

impl End {
    /// Whether the gateway has ended the connection in good order, as it does when it leaves.
    fn is_farewell(&self) -> bool {
        matches!(self, Self::Call(CallError::Broken(error)) if is_farewell(error))
    }
}

/// Keeps a link for as long as the process lives.
pub(super) async fn keep(shared: &Shared, link: &Arc<Link>, how: &GatewayLink) {
    let request = Duration::from_millis(u64::from(shared.config.request_ms));
    let mut sender = BatchSender::new(shared.logic, shared.links.fetch_add(1, Ordering::Relaxed), request);
    let mut position = Position::default();
    let mut attempt = 0;
    let mut why = Failure::Unreachable;
    loop {
        let session = {
            let give_up = Instant::now() + Duration::from_millis(u64::from(shared.config.retry_ms));
            let connecting = connect(shared, link, how, &mut position, &mut attempt);
            tokio::pin!(connecting);
            tokio::select! {
                session = &mut connecting => session,
                () = sleep_until(give_up), if link.state() == LinkState::Joining => {
                    sender.fail(Failure::Lost);
                    link.queue.close(why);
                    tracing::warn!(gateway = %link.name, "link is down: pushes to it fail until it is back");
                    connecting.await
                }
            }
        };
        let session = match session {
            Ok(session) => shared.admit(link, &session.client).map(|()| session),
            Err(refused) => Err(refused),
        };
        let session = match session {
            Ok(session) => session,
            Err(refused) => {
                // Logged once by the change of state; an operator has to act.
                if why != refused {
                    tracing::error!(gateway = %link.name, reason = refused.label(), "gateway cannot be linked");
                }
                why = refused;
                // The batch that was under way may have been taken; what only waited was not.
                sender.fail(Failure::Lost);
                link.queue.close(refused);
                continue;
            }
        };
        why = Failure::Unreachable;
        sender.begin(session.epoch);
        link.life.came_up.notify_one();
        tracing::info!(gateway = %link.name, epoch = session.epoch, "link is up");

        let opened = Instant::now();
        let client = session.client.clone();
        let end = run(shared, link, session, &mut sender, &mut position).await;
        // Several see the end of a connection, and the first of them may not know how it came.
        let has_left = end.is_farewell() || client.heard_farewell().await;
        if opened.elapsed() >= Duration::from_millis(u64::from(shared.config.dial_max_ms)) {
            // It was a connection: the next is dialled at once. One that breaks as soon as it opens is not.
            attempt = 0;
        }

        link.calls.go_over(None);
        link.queue.lose();
        shared.interest.doubt(link.slot.index);
        if has_left && link.is_leaving() {
            sender.leave();
            shared.spare.forget(link.slot.index);
            return;
        }
        if has_left || shared.spare.is_draining(link.slot.index) {
            tracing::info!(gateway = %link.name, "gateway has left");
        } else {
            tracing::warn!(gateway = %link.name, reason = %end, "link is lost");
        }
        shared.spare.forget(link.slot.index);
    }
}

/// Dials until a connection is open and the gateway has said its epoch.
/// Errors only when the gateway refuses us, which another dial will hardly change.
async fn connect(
    shared: &Shared,
    link: &Link,
    how: &GatewayLink,
    position: &mut Position,
    attempt: &mut u32,
) -> Result<Session, Failure> {
    loop {
        sleep(delay(&shared.config, *attempt)).await;
        *attempt = attempt.saturating_add(1);
        link.metrics.dials.inc();
        match open(shared, link, how, position).await {
            Ok(session) => return Ok(session),
            Err(End::Call(CallError::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN))) => {
                return Err(Failure::Unauthorized);
            }
            Err(End::Call(CallError::Status(_) | CallError::Unreadable)) => return Err(Failure::Incompatible),
            Err(end) => tracing::debug!(gateway = %link.name, attempt = *attempt, reason = %end, "dial failed"),
        }
    }
}

async fn open(shared: &Shared, link: &Link, how: &GatewayLink, position: &mut Position) -> Result<Session, End> {
    let silence = Duration::from_millis(u64::from(shared.config.ping_ms));
    let stream = how.open(&shared.config, shared.tls.as_deref()).await?;
    let mut session = timeout(silence, shake_hands(shared, link, stream)).await.map_err(|_| End::Silent)??;
    position.begin();
    // Not held: the epoch is needed now.
    let first = position.step(shared, link, &session.client, Duration::ZERO);
    session.epoch = timeout(silence, first).await.map_err(|_| End::Silent)??;
    Ok(session)
}

async fn shake_hands(shared: &Shared, link: &Link, stream: Box<dyn PipeStream>) -> Result<Session, End> {
    let (send, mut connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(CallError::from)?;
    let pings = connection.ping_pong();
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "backplane connection ended");
        }
    });
    let bearer = match shared.secret.as_str() {
        "" => None,
        secret => HeaderValue::from_str(&format!("Bearer {secret}")).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        }),
    };
    let client = Client { send, authority: link.name.clone(), bearer };
    Ok(Session { client, pings, driver, epoch: 0 })
}

/// Batches, events and pings until one of them cannot go on.
async fn run(
    shared: &Shared,
    link: &Arc<Link>,
    mut session: Session,
    sender: &mut BatchSender,
    position: &mut Position,
) -> End {
    let silence = Duration::from_millis(u64::from(shared.config.ping_ms));
    let hold = Duration::from_millis(u64::from(shared.config.hold_ms));
    let pings = session.pings.take();
    let (client, epoch) = (session.client.clone(), session.epoch);
    let news = async {
        loop {
            // While one leaves at the rate that the others can take, their figures must not be old.
            let hold = if shared.spare.is_any_draining() { hold / HOLDS_WHILE_DRAINING } else { hold };
            match position.step(shared, link, &client, hold).await {
                Ok(now) if now == epoch => {}
                Ok(_) => return End::OtherEpoch,
                Err(error) => return End::Call(error),
            }
        }
    };
    let batches = async {
        match sender.run(link, &client).await {
            SenderEnd::Broken => End::Closed,
            SenderEnd::OtherEpoch => End::OtherEpoch,
        }
    };
    let clients = async {
        match uplink::listen(shared, link, &client, epoch).await {
            Ok(()) => End::OtherEpoch,
            Err(error) => End::Call(error),
        }
    };
    tokio::select! {
        end = clients => end,
        error = uplink::answer(shared, link, &client, epoch) => End::Call(error),
        end = batches => end,
        end = news => end,
        _ = &mut session.driver => End::Closed,
        () = watch(pings, silence) => End::Silent,
    }
}

/// Returns when the last pong is older than `silence`.
async fn watch(pings: Option<PingPong>, silence: Duration) {
    // Always there: it is taken once per connection.
    let Some(mut pings) = pings else { return };
    let mut heard = Instant::now();
    loop {
        let left = (heard + silence).saturating_duration_since(Instant::now());
        match timeout(left, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => heard = Instant::now(),
            // The connection is broken and not silent: its driver says so. Should it not, this is silence too.
            Ok(Err(_)) => return sleep_until(heard + silence).await,
            Err(_) => return,
        }
        sleep(silence / 4).await;
    }
}

impl LinkState {
    /// Whether pushes reach the gateway.
    #[must_use]
    pub fn is_up(self) -> bool {
        self == Self::Up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a broken link is called decides where an operator looks.
    #[tokio::test(start_paused = true)]
    async fn a_ping_that_cannot_be_sent_is_no_silence() {
        let (near, far) = tokio::io::duplex(1_024);
        let server =
            tokio::spawn(
                async move { h2::server::handshake(far).await.expect("shakes hands").accept().await.is_none() },
            );
        let (_send, mut connection) = h2::client::handshake(near).await.expect("shakes hands");
        let pings = connection.ping_pong();
        let driver = tokio::spawn(connection);
        server.abort();
        let _ = server.await;
        driver.await.expect("no panic").expect_err("the other side is gone");

        let silence = Duration::from_secs(1);
        let watched = timeout(silence / 2, watch(pings, silence)).await;

        assert!(watched.is_err(), "the driver's word comes first");
    }
}
