//! One connection: from the handshake to its end. Hands commands on and writes replies, those of earlier connections
//! first. Knows nothing of what commands do. Invariant: a reply counts as sent once it is written, never before.

use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_protocol::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::commands::{Asked, Commands};
use super::policy::{Ending, Spacing, put_off_ms};
use super::socket::{ConnectError, Heard, Socket};

/// Longest time for a handshake, and for one write.
const CONNECT: Duration = Duration::from_secs(15);
const WRITE: Duration = Duration::from_secs(10);
/// Longest wait for the answer to a close.
const GOODBYE: Duration = Duration::from_secs(2);
/// A ping this often; a server that is silent for longer than `SILENT` is gone. Servers ping after 25 s of silence, but
/// proxies between may end a connection without a word.
const PING: Duration = Duration::from_secs(20);
const SILENT: Duration = Duration::from_secs(50);
/// Replies that wait to be said again because there were too many.
const AGAIN_MAX: usize = 1_024;
/// Close codes of RFC 6455 section 7.4.1: the connection has served its purpose; the agent goes away.
const NORMAL: u16 = 1000;
const AWAY: u16 = 1001;
/// What stands for a close without a code.
const NO_CODE: u16 = 1005;

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
    request: Request<()>,
    commands: &mut Commands,
    spacing: &mut Spacing,
    stop: &mut watch::Receiver<bool>,
) -> Over {
    let connecting = timeout(CONNECT, Socket::connect(request));
    let connected = tokio::select! {
        connected = connecting => connected,
        _ = stop.changed() => return Over::Stopped,
    };
    let socket = match connected {
        Ok(Ok(socket)) => socket,
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
                heard = self.socket.next() => self.hear(heard).await,
                id = self.commands.finished() => self.reply(&id).await,
                _ = pings.tick() => self.ping().await,
                () = at(again_at) => self.say_again().await,
                () = at(self.leave_at) => {
                    self.close(NORMAL).await;
                    Err(Ending::GoingAway)
                }
                _ = stop.changed() => {
                    self.close(AWAY).await;
                    return Over::Stopped;
                }
            };
            if let Err(ending) = step {
                return Over::Ended(ending);
            }
        }
    }

    async fn hear(&mut self, heard: Option<Heard>) -> Result<(), Ending> {
        self.heard = Instant::now();
        match heard {
            Some(Heard::Text(text)) => self.told(&text).await,
            Some(Heard::Ping(payload)) => in_time(self.socket.pong(&payload)).await,
            Some(Heard::Other) => Ok(()),
            Some(Heard::Close(close)) => {
                // The answer is a courtesy: the connection is over with or without it.
                let _ = in_time(self.socket.close(close.as_ref().map(|(code, _)| *code))).await;
                Err(closed(close))
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
        in_time(self.socket.text(reply)).await?;
        self.commands.memory.sent(id);
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Ending> {
        if self.heard.elapsed() > SILENT {
            tracing::warn!("the server has been silent for {SILENT:?}");
            return Err(Ending::Lost);
        }
        in_time(self.socket.ping()).await
    }

    /// Says goodbye and waits for the answer, within reason.
    async fn close(&mut self, code: u16) {
        let _ = timeout(GOODBYE, async {
            if self.socket.close(Some(code)).await.is_ok() {
                while self.socket.next().await.is_some() {}
            }
        })
        .await;
    }
}

/// A write; one that takes too long has broken the connection.
async fn in_time<E>(writing: impl Future<Output = Result<(), E>>) -> Result<(), Ending> {
    match timeout(WRITE, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Ending::Lost),
    }
}

/// At that time, or never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn closed(close: Option<(u16, String)>) -> Ending {
    let (code, reason) = close.unwrap_or((NO_CODE, String::new()));
    let reason = json::from_str::<Reason>(&reason).ok();
    let retry_after = reason.and_then(|r| r.retry_after_ms).map(put_off_ms);
    Ending::Closed { code, retry_after }
}

fn refused(error: ConnectError) -> Ending {
    match error {
        ConnectError::Refused { status, retry_after, why } => {
            tracing::warn!(status, why, "the handshake was refused");
            Ending::Refused { status, retry_after }
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
