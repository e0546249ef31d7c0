//! What a decoder remembers between reads: a cut head, an unfinished frame, an unfinished message.
//! Reached only when a frame or message is cut; whole messages pass through `decoder` without coming here.
//! Invariants: `message.bytes` is what arrived and never passes `Limits::message_bytes`; capacities follow what arrived, at most
//! doubled; a frame in `frame` has been admitted.

use std::ops::ControlFlow::{self, Continue};

use super::decoder::{deliver, read_control, read_data};
use super::head::{CLIENT_HEAD_BYTES_MAX, ClientHead};
use super::text::GrowingText;
use super::{Event, Inflater, Limits, OpCode, Violation, unmask};
use crate::limits::CONTROL_BYTES_MAX;

/// First allocation of a message in pieces, so that small pieces do not start at 1, 2, 4 bytes.
const GROWTH_BYTES_MIN: usize = 64;

/// Where the stream stands.
///
/// ```text
///   frame = None ──head complete──► frame = Some ──payload complete──► frame = None
/// ```
///
/// `message` spans frames: begun by a text or binary frame, ended by the first of its frames with FIN.
#[derive(Debug)]
pub(super) struct Partial {
    /// The frame whose payload is awaited; a head is awaited without it.
    frame: Option<Frame>,
    /// The message under way.
    message: Option<Message>,
    /// A head that is cut, `head_len` bytes of it; empty while `frame` is there.
    head: [u8; CLIENT_HEAD_BYTES_MAX],
    head_len: u8,
    /// A control payload that is cut, unmasked; it may lie between fragments, so it cannot share `message`.
    control: [u8; CONTROL_BYTES_MAX],
    control_len: u8,
}

/// A frame whose payload is arriving.
#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    is_compressed: bool,
    opcode: OpCode,
    mask: [u8; 4],
    /// Payload bytes that arrived.
    arrived: usize,
    /// Payload bytes still to come.
    remaining: usize,
}

/// A message that needs more pieces.
#[derive(Debug)]
pub(super) struct Message {
    body: Body,
    /// Payload that arrived, over all fragments.
    bytes: usize,
    /// Frames that ended.
    fragments: u32,
}

#[derive(Debug)]
enum Body {
    Text(GrowingText),
    Binary(Vec<u8>),
    /// As it came, to be inflated in one go once it is whole: a stretch of DEFLATE that waits for its rest would need its window.
    Compressed(OpCode, Vec<u8>),
}

impl Default for Partial {
    fn default() -> Self {
        Self {
            frame: None,
            message: None,
            head: [0; CLIENT_HEAD_BYTES_MAX],
            head_len: 0,
            control: [0; CONTROL_BYTES_MAX],
            control_len: 0,
        }
    }
}

impl Partial {
    /// Nothing is unfinished.
    pub fn is_idle(&self) -> bool {
        self.frame.is_none() && self.message.is_none() && self.head_len == 0
    }

    /// Bytes allocated, this struct included.
    pub fn allocated_bytes(&self) -> usize {
        let body = match self.message.as_ref().map(|m| &m.body) {
            None => 0,
            Some(Body::Text(text)) => text.capacity(),
            Some(Body::Binary(bytes) | Body::Compressed(_, bytes)) => bytes.capacity(),
        };
        size_of::<Self>() + body
    }

    /// Consumes the rest of one frame, or what there is of it; gives the bytes used, at least one of a non-empty `input`.
    pub fn step(
        &mut self,
        input: &mut [u8],
        limits: &Limits,
        inflater: Option<&mut Inflater>,
        on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<(usize, ControlFlow<()>), Violation> {
        let head_bytes = if self.frame.is_none() { self.read_head(input, limits, inflater.is_some())? } else { 0 };
        let Some(frame) = &mut self.frame else { return Ok((head_bytes, Continue(()))) };

        let input = &mut input[head_bytes..];
        let len = frame.remaining.min(input.len());
        let piece = &mut input[..len];
        unmask(piece, frame.mask, frame.arrived);
        frame.arrived += len;
        frame.remaining -= len;

        let Frame { fin, is_compressed, opcode, remaining, .. } = *frame;
        let ends = remaining == 0;
        if ends {
            self.frame = None;
        }
        let flow = if opcode.is_control() {
            self.take_control(opcode, piece, ends, on)?
        } else {
            let message = self.message.get_or_insert_with(|| Message::begin(opcode, is_compressed));
            message.push(piece, limits.message_bytes)?;
            message.fragments += u32::from(ends);
            if ends && fin { self.finish_message(limits, inflater, on)? } else { Continue(()) }
        };
        Ok((head_bytes + len, flow))
    }

    /// Collects a head over reads; sets `frame` once it is complete and admitted. Gives the bytes used.
    fn read_head(&mut self, input: &[u8], limits: &Limits, has_deflate: bool) -> Result<usize, Violation> {
        let kept = usize::from(self.head_len);
        let more = input.len().min(CLIENT_HEAD_BYTES_MAX - kept);
        self.head[kept..kept + more].copy_from_slice(&input[..more]);

        let Some(head) = ClientHead::parse(&self.head[..kept + more], has_deflate)? else {
            self.head_len += more as u8;
            return Ok(more);
        };
        let remaining = admit(&head, self.message.as_ref(), limits)?;
        let ClientHead { fin, is_compressed, opcode, mask, .. } = head;
        self.frame = Some(Frame { fin, is_compressed, opcode, mask, arrived: 0, remaining });
        self.head_len = 0;
        Ok(head.bytes - kept)
    }

    /// A piece of a control payload: passed on in place when it is whole, collected when it is cut.
    fn take_control(
        &mut self,
        opcode: OpCode,
        piece: &[u8],
        ends: bool,
        on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        if ends && self.control_len == 0 {
            return Ok(deliver(read_control(opcode, piece)?, on));
        }
        let kept = usize::from(self.control_len);
        let len = kept + piece.len();
        self.control[kept..len].copy_from_slice(piece);
        self.control_len = len as u8;
        if !ends {
            return Ok(Continue(()));
        }
        self.control_len = 0;
        Ok(deliver(read_control(opcode, &self.control[..len])?, on))
    }

    /// The message under way is whole.
    fn finish_message(
        &mut self,
        limits: &Limits,
        inflater: Option<&mut Inflater>,
        on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        let flow = match (self.message.as_ref().map(|m| &m.body), inflater) {
            (Some(Body::Text(text)), _) => deliver(Event::Text(text.finish()?), on),
            (Some(Body::Binary(bytes)), _) => deliver(Event::Binary(bytes), on),
            (Some(Body::Compressed(opcode, bytes)), Some(inflater)) => {
                deliver(read_data(*opcode, inflater.inflate(bytes, limits)?)?, on)
            }
            (Some(Body::Compressed(..)), None) | (None, _) => {
                unreachable!("a frame has just been added, and none is compressed without an inflater")
            }
        };
        self.message = None;
        Ok(flow)
    }
}

impl Message {
    fn begin(opcode: OpCode, is_compressed: bool) -> Self {
        debug_assert!(matches!(opcode, OpCode::Text | OpCode::Binary), "admit lets no continuation begin a message");
        let body = match opcode {
            _ if is_compressed => Body::Compressed(opcode, Vec::new()),
            OpCode::Text => Body::Text(GrowingText::default()),
            _ => Body::Binary(Vec::new()),
        };
        Self { body, bytes: 0, fragments: 0 }
    }

    fn push(&mut self, piece: &[u8], bytes_max: usize) -> Result<(), Violation> {
        self.bytes += piece.len();
        debug_assert!(self.bytes <= bytes_max, "admit refuses frames that pass the limit");
        match &mut self.body {
            Body::Text(text) => text.push(piece, bytes_max),
            Body::Binary(bytes) | Body::Compressed(_, bytes) => {
                let capacity = grown(bytes.capacity(), bytes.len() + piece.len(), bytes_max);
                bytes.reserve_exact(capacity - bytes.len());
                bytes.extend_from_slice(piece);
                Ok(())
            }
        }
    }
}

/// Whether a well-formed frame may come now, from its head alone; gives its payload's length.
pub(super) fn admit(head: &ClientHead, message: Option<&Message>, limits: &Limits) -> Result<usize, Violation> {
    let before = match (head.opcode, message) {
        // The head's own checks hold it to 125 bytes.
        (OpCode::Close | OpCode::Ping | OpCode::Pong, _) => return Ok(head.payload_len as usize),
        (OpCode::Text | OpCode::Binary, None) => 0,
        (OpCode::Text | OpCode::Binary, Some(_)) => return Err(Violation::MessageInsideMessage),
        (OpCode::Continuation, None) => return Err(Violation::ContinuationWithoutStart),
        (OpCode::Continuation, Some(message)) if message.fragments >= limits.fragments => {
            return Err(Violation::TooManyFragments { limit: limits.fragments });
        }
        (OpCode::Continuation, Some(message)) => message.bytes,
    };
    // No overflow: lengths are below 2^63 and `before` is memory that exists.
    let claimed = head.payload_len + before as u64;
    if claimed > limits.message_bytes as u64 {
        return Err(Violation::MessageTooBig { claimed, limit: limits.message_bytes });
    }
    Ok(head.payload_len as usize)
}

/// Capacity for `needed` bytes: doubling, but never beyond `max` (which `needed` does not pass).
pub(super) fn grown(capacity: usize, needed: usize, max: usize) -> usize {
    if needed <= capacity { capacity } else { needed.max((capacity * 2).max(GROWTH_BYTES_MIN).min(max)) }
}
