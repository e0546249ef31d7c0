//! Bytes of a connection → whole server frames, each distinct one inflated and parsed once for all clients of the thread.
//! Knows nothing of sockets or clients. Hot path: a frame seen before costs a head, a fingerprint of its first bytes
//! and one memcmp; a frame cut across reads is remembered as "so far equal to that one", without a copy.
//! Invariants: a frame is equal to a remembered one only after every byte was compared; the cache keeps both bounds.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use hashbrown::HashMap;

use super::inflate::inflate;
use crate::dialect::content::Content;
use crate::dialect::head::{self, Head};
use crate::dialect::{Dialect, Tidegate};

/// A data frame some client received.
#[derive(Debug)]
pub struct Frame {
    /// Head and payload as on the wire.
    bytes: Box<[u8]>,
    pub content: Content,
    /// When the first and the last client of this thread had it, and how many have.
    pub arrival: Cell<Arrived>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Arrived {
    pub first_ns: u64,
    pub last_ns: u64,
    pub receivers: u64,
}

#[derive(Debug)]
pub enum Received {
    Text(Rc<Frame>),
    Ping(Vec<u8>),
    Pong,
    Close { code: u16, reason: String },
}

/// The unfinished frame of one connection; boxed by its owner because almost no connection has one.
#[derive(Debug)]
pub enum Partial {
    /// The first `have` bytes are those of this frame.
    Same { frame: Rc<Frame>, have: usize },
    /// Nothing known begins like this.
    Own(Vec<u8>),
}

/// Frames a thread remembers; older ones are parsed again when a slow client gets to them.
const FRAMES_MAX: usize = 4_096;
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes that tell frames apart: head, type, room, seq and the first message's stamp lie within.
const FINGERPRINT_BYTES: usize = 160;

/// The remembered frames.
#[derive(Debug)]
pub struct Cache {
    /// One fixed key: fingerprints never leave the thread.
    hasher: ahash::RandomState,
    /// What payloads mean.
    dialect: &'static dyn Dialect,
    frames: HashMap<u64, Rc<Frame>>,
    /// Fingerprints, oldest first; agrees with `frames` but for entries that were replaced.
    order: VecDeque<(u64, Rc<Frame>)>,
    bytes: usize,
    /// Frames that were forgotten since the last call of `forgotten`: their arrivals go into the report.
    forgotten: Vec<Rc<Frame>>,
    /// Whether the clients have negotiated permessage-deflate.
    deflate: bool,
}

impl Default for Cache {
    fn default() -> Self {
        Self::new(&Tidegate, false)
    }
}

impl Cache {
    /// A cache for clients of one dialect that have negotiated permessage-deflate, or have not.
    pub fn new(dialect: &'static dyn Dialect, deflate: bool) -> Self {
        Self {
            hasher: ahash::RandomState::with_seeds(1, 2, 3, 4),
            dialect,
            frames: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            forgotten: Vec::new(),
            deflate,
        }
    }

    /// Takes `bytes` as the continuation of a connection whose unfinished frame is `partial`; appends what became whole.
    pub fn feed(
        &mut self,
        partial: &mut Option<Box<Partial>>,
        mut bytes: &[u8],
        out: &mut Vec<Received>,
    ) -> Result<(), &'static str> {
        if let Some(unfinished) = partial.take() {
            let (frame, rest, left) = self.resume(*unfinished, bytes)?;
            out.extend(frame);
            *partial = left.map(Box::new);
            bytes = rest;
        }
        while !bytes.is_empty() {
            match head::parse(bytes, self.deflate)? {
                Some(head) if head.frame_bytes() <= bytes.len() => {
                    let (frame, rest) = bytes.split_at(head.frame_bytes());
                    out.push(self.receive(head, frame));
                    bytes = rest;
                }
                head => {
                    *partial = Some(Box::new(self.begin(head, bytes)));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Continues an unfinished frame: what became whole, the bytes after it, and what is still unfinished.
    #[expect(clippy::type_complexity, reason = "named parts would be read once, three lines above")]
    fn resume<'b>(
        &mut self,
        partial: Partial,
        bytes: &'b [u8],
    ) -> Result<(Option<Received>, &'b [u8], Option<Partial>), &'static str> {
        let mut own = match partial {
            Partial::Same { frame, have } => {
                let take = bytes.len().min(frame.bytes.len() - have);
                let (more, rest) = bytes.split_at(take);
                if frame.bytes[have..have + take] == *more {
                    let have = have + take;
                    let whole = have == frame.bytes.len();
                    return Ok(if whole {
                        (Some(Received::Text(frame)), rest, None)
                    } else {
                        (None, rest, Some(Partial::Same { frame, have }))
                    });
                }
                frame.bytes[..have].to_vec()
            }
            Partial::Own(own) => own,
        };
        // At most a head's 10 bytes until the length is known, then exactly to the frame's end.
        let mut rest = bytes;
        loop {
            let head = head::parse(&own, self.deflate)?;
            let goal = head.map_or(own.len() + 1, |head| head.frame_bytes());
            let (more, left) = rest.split_at(rest.len().min(goal - own.len()));
            own.extend_from_slice(more);
            rest = left;
            match head {
                Some(head) if own.len() == goal => return Ok((Some(self.receive(head, &own)), rest, None)),
                _ if rest.is_empty() => return Ok((None, rest, Some(self.begin(head, &own)))),
                _ => {}
            }
        }
    }

    /// Remembers an unfinished frame, as a share of a known one where its beginning is known.
    fn begin(&self, head: Option<Head>, bytes: &[u8]) -> Partial {
        let known = head.filter(|head| head.opcode == self.dialect.opcode()).and_then(|head| {
            let fingerprint = self.fingerprint(bytes.get(..head.frame_bytes().min(FINGERPRINT_BYTES))?);
            self.frames.get(&fingerprint).filter(|frame| frame.bytes.len() == head.frame_bytes())
        });
        match known {
            Some(frame) if frame.bytes.starts_with(bytes) => {
                Partial::Same { frame: Rc::clone(frame), have: bytes.len() }
            }
            _ => Partial::Own(bytes.to_vec()),
        }
    }

    fn receive(&mut self, head: Head, frame: &[u8]) -> Received {
        let payload = &frame[head.head_bytes..];
        match head.opcode {
            head::PING => Received::Ping(payload.to_vec()),
            head::PONG => Received::Pong,
            head::CLOSE => match payload {
                [high, low, reason @ ..] => Received::Close {
                    code: u16::from_be_bytes([*high, *low]),
                    reason: String::from_utf8_lossy(reason).into_owned(),
                },
                // 1005: the code RFC 6455 reserves for "none was given".
                _ => Received::Close { code: 1005, reason: String::new() },
            },
            data if data == self.dialect.opcode() => Received::Text(self.intern(frame, payload, head.is_compressed)),
            other => Received::Text(Rc::new(Frame::new(frame, Content::Invalid(format!("opcode {other}"))))),
        }
    }

    fn intern(&mut self, bytes: &[u8], payload: &[u8], is_compressed: bool) -> Rc<Frame> {
        let fingerprint = self.fingerprint(&bytes[..bytes.len().min(FINGERPRINT_BYTES)]);
        if let Some(frame) = self.frames.get(&fingerprint)
            && *frame.bytes == *bytes
        {
            return Rc::clone(frame);
        }
        let content = if is_compressed {
            inflate(payload).map_or_else(|why| Content::Invalid(why.to_owned()), |message| self.dialect.parse(&message))
        } else {
            self.dialect.parse(payload)
        };
        let frame = Rc::new(Frame::new(bytes, content));
        self.bytes += bytes.len();
        self.frames.insert(fingerprint, Rc::clone(&frame));
        self.order.push_back((fingerprint, Rc::clone(&frame)));
        while self.order.len() > FRAMES_MAX || self.bytes > BYTES_MAX {
            self.forget_oldest();
        }
        frame
    }

    fn forget_oldest(&mut self) {
        let Some((fingerprint, frame)) = self.order.pop_front() else { return };
        self.bytes -= frame.bytes.len();
        if self.frames.get(&fingerprint).is_some_and(|current| Rc::ptr_eq(current, &frame)) {
            self.frames.remove(&fingerprint);
        }
        self.forgotten.push(frame);
    }

    /// Forgets everything and gives back the frames forgotten since the last call.
    pub fn clear(&mut self) -> Vec<Rc<Frame>> {
        while !self.order.is_empty() {
            self.forget_oldest();
        }
        self.forgotten()
    }

    /// Frames that left the cache since the last call, for their arrivals.
    pub fn forgotten(&mut self) -> Vec<Rc<Frame>> {
        std::mem::take(&mut self.forgotten)
    }

    pub fn has_forgotten(&self) -> bool {
        !self.forgotten.is_empty()
    }

    fn fingerprint(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash_one(bytes)
    }
}

impl Frame {
    fn new(bytes: &[u8], content: Content) -> Self {
        Self { bytes: bytes.into(), content, arrival: Cell::default() }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Notes that one more client has this frame.
    pub fn arrived(&self, now_ns: u64) {
        let Arrived { first_ns, receivers, .. } = self.arrival.get();
        let first_ns = if receivers == 0 { now_ns } else { first_ns };
        self.arrival.set(Arrived { first_ns, last_ns: now_ns, receivers: receivers + 1 });
    }
}

#[cfg(test)]
#[path = "assembly_tests.rs"]
mod tests;
