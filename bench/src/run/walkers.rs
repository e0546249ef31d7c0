//! Connections that leave a room and come back, over and over, at a given pace; and one that stays and counts what it is told.
//! A file of its own because a swarm only listens. Open loop: a pair is written when it is due, whatever the server does.
//! Invariant: every pair ends in the room, so the room has the same members before and after a walk.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::clock;
use crate::dialect::head;
use crate::swarm::plan::Plan;

/// Time between two LEAVEs of one walker; its JOIN stands in the middle, for nobody leaves and comes in one packet.
pub(super) const STEP: Duration = Duration::from_millis(25);
/// Longest wait for an answer or for the last replies.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the walkers have heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    pub(super) joined: u64,
    pub(super) left: u64,
    /// PRESENCE frames at the one that stays.
    pub(super) presence: u64,
    /// The last of them.
    pub(super) last: Option<Value>,
    /// Anything else, by type.
    pub(super) odd: Vec<String>,
}

struct Walker {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// The walkers; the first stays.
pub(super) struct Walkers {
    walkers: Vec<Walker>,
    heard: Heard,
}

impl Walkers {
    /// Connects `count` of them, which join `rooms`.
    pub(super) fn connect(url: &str, count: u64, rooms: &[&str]) -> anyhow::Result<Self> {
        let mut plan = Plan::new(url, count)?;
        plan.user = Some("walker-{i}".parse().map_err(|e| anyhow::anyhow!("{e}"))?);
        let mut this = Self { walkers: Vec::new(), heard: Heard::default() };
        for index in 0..count {
            let mut stream = TcpStream::connect(plan.target).context("the gateway is gone")?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&plan.request(index))?;
            let unread = after_head(&mut stream)?;
            stream.set_nonblocking(true)?;
            this.walkers.push(Walker { stream, unread });
        }
        let join = serde_json::json!({"type": "JOIN", "id": 1, "data": {"rooms": rooms}});
        this.walkers.iter_mut().try_for_each(|walker| walker.say(&frame(&join)))?;
        this.listen_until(|heard| heard.joined == count)?;
        Ok(this)
    }

    /// Walks in and out of `room` for a while; gives the comings and goings, and how long they took.
    pub(super) fn walk(&mut self, room: &str, duration: Duration) -> anyhow::Result<(u64, f64)> {
        let leave = serde_json::json!({"type": "LEAVE", "data": {"room": room}});
        let join = serde_json::json!({"type": "JOIN", "data": {"room": room}});
        let (leave, join) = (frame(&leave), frame(&join));
        self.heard = Heard::default();
        let began_ns = clock::now_ns();
        let steps = (duration.as_nanos() / STEP.as_nanos()) as u64;
        for step in 0..steps {
            let due_ns = began_ns + step * STEP.as_nanos() as u64;
            for (what, after_ns) in [(&leave, 0), (&join, STEP.as_nanos() as u64 / 2)] {
                clock::sleep_until_ns(due_ns + after_ns);
                self.walkers.iter_mut().skip(1).try_for_each(|walker| walker.say(what))?;
                self.listen()?;
            }
        }
        let pairs = steps * (self.walkers.len() as u64 - 1);
        self.listen_until(|heard| heard.joined >= pairs && heard.left >= pairs)?;
        Ok((2 * pairs, (clock::now_ns() - began_ns) as f64 / 1e9))
    }

    /// Listens for a while.
    pub(super) fn rest(&mut self, duration: Duration) -> anyhow::Result<()> {
        let end_ns = clock::now_ns() + duration.as_nanos() as u64;
        while clock::now_ns() < end_ns {
            self.listen()?;
            clock::pause(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What has been heard since the last walk began.
    pub(super) fn heard(&self) -> &Heard {
        &self.heard
    }

    fn listen_until(&mut self, is_enough: impl Fn(&Heard) -> bool) -> anyhow::Result<()> {
        let end_ns = clock::now_ns() + PATIENCE.as_nanos() as u64;
        while !is_enough(&self.heard) {
            ensure!(clock::now_ns() < end_ns, "replies are missing after {PATIENCE:?}: {:?}", self.heard);
            self.listen()?;
            clock::pause(Duration::from_millis(1));
        }
        Ok(())
    }

    fn listen(&mut self) -> anyhow::Result<()> {
        let heard = &mut self.heard;
        for (index, walker) in self.walkers.iter_mut().enumerate() {
            walker.hear(|text| heard.note(text, index == 0))?;
        }
        Ok(())
    }
}

impl Heard {
    fn note(&mut self, text: &[u8], stays: bool) {
        let is_type =
            |kind: &str| text.strip_prefix(br#"{"type":""#).is_some_and(|rest| rest.starts_with(kind.as_bytes()));
        if is_type("JOINED\"") {
            self.joined += 1;
        } else if is_type("LEFT\"") {
            self.left += 1;
        } else if is_type("PRESENCE\"") {
            if stays {
                self.presence += 1;
                self.last = serde_json::from_slice(text).ok();
            }
        } else if !is_type("HELLO\"") && self.odd.len() < 10 {
            self.odd.push(String::from_utf8_lossy(text).chars().take(200).collect());
        }
    }
}

impl Walker {
    fn say(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                // The server is behind: its pause is ours.
                Err(error) if error.kind() == ErrorKind::WouldBlock => clock::pause(Duration::from_millis(1)),
                Err(error) => return Err(error).context("a walker cannot write"),
            }
        }
        Ok(())
    }

    fn hear(&mut self, mut note: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the server has closed a walker"),
                Ok(n) => self.unread.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("a walker cannot read"),
            }
        }
        let mut at = 0;
        while let Some(head) = head::parse(&self.unread[at..], false).map_err(|rule| anyhow::anyhow!(rule))? {
            let Some(payload) = self.unread.get(at + head.head_bytes..at + head.frame_bytes()) else { break };
            match head.opcode {
                head::TEXT => note(payload),
                head::CLOSE => bail!("the server has closed a walker: {}", String::from_utf8_lossy(payload)),
                _ => {}
            }
            at += head.frame_bytes();
        }
        self.unread.drain(..at);
        Ok(())
    }
}

fn frame(message: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    head::write_masked(&mut out, head::TEXT, message.to_string().as_bytes());
    out
}

/// Reads the 101; gives what came behind it.
fn after_head(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let (mut head, mut buffer) = (Vec::new(), [0; 4 * 1024]);
    loop {
        let n = stream.read(&mut buffer).context("no answer to a handshake")?;
        ensure!(n > 0, "the server has hung up on a handshake");
        head.extend_from_slice(&buffer[..n]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head[..end]));
            return Ok(head.split_off(end + 4));
        }
    }
}
