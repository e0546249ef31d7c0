//! One connection: from the handshake to its end. Hands commands on and writes replies, those of earlier connections
//! first. Knows nothing of what commands do. Invariant: a reply counts as sent once it is written, never before.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_protocol::json;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::RETRY_AFTER;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::{WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::commands::{Asked, Commands};
use super::policy::{Ending, Spacing, put_off_ms};

/// Longest time for a handshake, and for one write.
const CONNECT: Duration = Duration::from_secs(15);
const WRITE: Duration = Duration::from_secs(10);
/// A ping this often; a server that is silent for longer than `SILENT` is gone. Servers ping after 25 s of silence, but
/// proxies between may end a connection without a word.
const PING: Duration = Duration::from_secs(20);
const SILENT: Duration = Duration::from_secs(50);
/// Largest message from the server.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Replies that wait to be said again because there were too many.
const AGAIN_MAX: usize = 1_024;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How a connection is over.
pub enum Over {
    /// Because the agent was told to stop.
    Stopped,
    /// Otherwise.
    Ended(Ending),
}

/// What comes from the server, as far as an agent needs it.
#[derive(Debug)]
enum Told {
    Hello(Hello),
    Command(Asked),
    Goaway(Goaway),
    Error(Refused),
}

impl Told {
    /// Reads a message; none of what this version does not know, which is passed over as the protocol asks.
    fn read(text: &str) -> Option<(Self, Option<String>)> {
        let Envelope { kind, id, data } = json::from_str(text).ok()?;
        let data = data.map_or("null", RawValue::get);
        let told = match kind.as_str() {
            "HELLO" => Self::Hello(json::from_str(data).ok()?),
            "COMMAND" => Self::Command(json::from_str(data).ok()?),
            "GOAWAY" => Self::Goaway(json::from_str(data).ok()?),
            "ERROR" => Self::Error(json::from_str(data).ok()?),
            _ => return None,
        };
        Some((told, id))
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Hello {
    connection: String,
    #[serde(default)]
    user: Option<String>,
    reconnect: Reconnect,
}

#[derive(Debug, Deserialize)]
struct Reconnect {
    base_ms: u64,
    max_ms: u64,
}

#[derive(Debug, Deserialize)]
struct Goaway {
    reconnect_after_ms: (u64, u64),
}

#[derive(Debug, Deserialize)]
struct Refused {
    code: String,
    #[serde(default)]
    retryable: bool,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

struct Session<'a> {
    socket: Socket,
    commands: &'a mut Commands,
    spacing: &'a mut Spacing,
    heard: Instant,
    /// When to leave, after a GOAWAY.
    leave_at: Option<Instant>,
    /// Replies that the server had no room for, and when to say them again.
    again: Vec<(Instant, String)>,
}

/// Connects and stays until it is over.
pub async fn run(
    request: Request,
    commands: &mut Commands,
    spacing: &mut Spacing,
    stop: &mut watch::Receiver<bool>,
) -> Over {
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX));
    let connecting = timeout(CONNECT, connect_async_with_config(request, Some(config), true));
    let connected = tokio::select! {
        connected = connecting => connected,
        _ = stop.changed() => return Over::Stopped,
    };
    let socket = match connected {
        Ok(Ok((socket, _))) => socket,
        Ok(Err(error)) => return Over::Ended(refused(error)),
        Err(_) => {
            tracing::warn!("no answer to the handshake within {CONNECT:?}");
            return Over::Ended(Ending::Lost);
        }
    };
    let mut session = Session { socket, commands, spacing, heard: Instant::now(), leave_at: None, again: Vec::new() };
    session.live_on(stop).await
}

impl Session<'_> {
    async fn live_on(&mut self, stop: &mut watch::Receiver<bool>) -> Over {
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let again_at = self.again.iter().map(|(at, _)| *at).min();
            let step = tokio::select! {
                message = self.socket.next() => self.hear(message).await,
                id = self.commands.finished() => self.reply(&id).await,
                _ = pings.tick() => self.ping().await,
                () = at(again_at) => self.say_again().await,
                () = at(self.leave_at) => {
                    self.close(CloseCode::Normal).await;
                    Err(Ending::GoingAway)
                }
                _ = stop.changed() => {
                    self.close(CloseCode::Away).await;
                    return Over::Stopped;
                }
            };
            if let Err(ending) = step {
                return Over::Ended(ending);
            }
        }
    }

    async fn hear(&mut self, message: Option<Result<Message, Error>>) -> Result<(), Ending> {
        self.heard = Instant::now();
        match message {
            Some(Ok(Message::Text(text))) => self.told(&text).await,
            Some(Ok(Message::Close(frame))) => {
                let ending = closed(frame.as_ref());
                // Writes the answer to the close.
                let _ = timeout(WRITE, self.socket.flush()).await;
                Err(ending)
            }
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => {
                tracing::debug!(%error, "the connection broke");
                Err(Ending::Lost)
            }
            None => Err(Ending::Lost),
        }
    }

    async fn told(&mut self, text: &str) -> Result<(), Ending> {
        let Some((told, id)) = Told::read(text) else { return Ok(()) };
        match told {
            Told::Hello(hello) => {
                *self.spacing =
                    Spacing { base: put_off_ms(hello.reconnect.base_ms), max: put_off_ms(hello.reconnect.max_ms) };
                tracing::info!(connection = hello.connection, user = hello.user.unwrap_or_default(), "registered");
                for id in self.commands.memory.unsent() {
                    self.reply(&id).await?;
                }
            }
            Told::Command(asked) => {
                let Some(id) = id else { return Ok(()) };
                if let Some(reply) = self.commands.take(&id, asked) {
                    self.write(&id, &reply).await?;
                }
            }
            Told::Goaway(Goaway { reconnect_after_ms: (from, to) }) => {
                let delay = put_off_ms(fastrand::u64(from..=to.max(from)));
                tracing::info!(leave_in_ms = delay.as_millis() as u64, "the gateway is leaving");
                self.leave_at = Some(Instant::now() + delay);
            }
            Told::Error(refused) => self.refused(id, &refused),
        }
        Ok(())
    }

    /// A REPLY that could not go up.
    fn refused(&mut self, id: Option<String>, refused: &Refused) {
        let Some(id) = id.filter(|id| self.commands.memory.reply(id).is_some()) else {
            return tracing::warn!(code = refused.code, "the gateway refuses");
        };
        if refused.retryable && self.again.len() < AGAIN_MAX {
            let after = put_off_ms(refused.retry_after_ms.unwrap_or(1_000));
            self.again.push((Instant::now() + after, id));
        } else {
            tracing::warn!(code = refused.code, "a reply was refused");
        }
    }

    async fn say_again(&mut self) -> Result<(), Ending> {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.again).into_iter().partition(|(at, _)| *at <= now);
        self.again = later;
        let due: Vec<(Instant, String)> = due;
        for (_, id) in due {
            self.reply(&id).await?;
        }
        Ok(())
    }

    async fn reply(&mut self, id: &str) -> Result<(), Ending> {
        match self.commands.memory.reply(id) {
            Some(reply) => self.write(id, &reply).await,
            // Forgotten meanwhile.
            None => Ok(()),
        }
    }

    async fn write(&mut self, id: &str, reply: &Arc<str>) -> Result<(), Ending> {
        self.send(Message::text(reply.as_ref())).await?;
        self.commands.memory.sent(id);
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Ending> {
        if self.heard.elapsed() > SILENT {
            tracing::warn!("the server has been silent for {SILENT:?}");
            return Err(Ending::Lost);
        }
        self.send(Message::Ping(Bytes::new())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Ending> {
        match timeout(WRITE, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Ending::Lost),
        }
    }

    async fn close(&mut self, code: CloseCode) {
        let frame = CloseFrame { code, reason: "".into() };
        let _ = timeout(Duration::from_secs(2), async {
            self.socket.close(Some(frame)).await?;
            while self.socket.next().await.is_some_and(|message| message.is_ok()) {}
            Ok::<_, Error>(())
        })
        .await;
    }
}

/// At that time, or never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn closed(frame: Option<&CloseFrame>) -> Ending {
    let Some(frame) = frame else { return Ending::Closed { code: 1005, retry_after: None } };
    let reason = json::from_str::<Reason>(&frame.reason).ok();
    let retry_after = reason.and_then(|r| r.retry_after_ms).map(put_off_ms);
    Ending::Closed { code: frame.code.into(), retry_after }
}

fn refused(error: Error) -> Ending {
    match error {
        Error::Http(response) => {
            let seconds = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
            let retry_after = seconds.map(Duration::from_secs);
            // A problem document, which says what is wrong; it does not repeat what was sent.
            let why = response.body().as_deref().map(|body| String::from_utf8_lossy(body).into_owned());
            let why: String = why.unwrap_or_default().chars().take(300).collect();
            tracing::warn!(status = response.status().as_u16(), why, "the handshake was refused");
            Ending::Refused { status: response.status().as_u16(), retry_after }
        }
        error => {
            tracing::warn!(%error, "cannot connect");
            Ending::Lost
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_by_the_names_of_its_members_in_any_order() {
        let command = r#"{"data":{"command":"exec:say","data":{"args":[]}},"id":"c1","type":"COMMAND","later":1}"#;
        assert!(matches!(Told::read(command), Some((Told::Command(_), Some(id))) if id == "c1"));
        let goaway = r#"{"type":"GOAWAY","data":{"reason":"draining","reconnect_after_ms":[0,10000]}}"#;
        assert!(matches!(Told::read(goaway), Some((Told::Goaway(Goaway { reconnect_after_ms: (0, 10_000) }), None))));

        for text in [
            r#"["COMMAND","c1",{"command":"ping"}]"#,
            r#"{"type":"COMMAND","id":"c1","data":["ping"]}"#,
            r#"{"data":["ping"],"id":"c1","type":"COMMAND"}"#,
            r#"{"type":"HELLO","data":{"connection":"a","reconnect":[500,20000]}}"#,
            r#"{"type":"ERROR","id":"c1","data":["rate",true,5]}"#,
            r#"{"type":"PUSH","data":{"items":[1]}}"#,
        ] {
            assert!(Told::read(text).is_none(), "{text}");
        }
    }
}
