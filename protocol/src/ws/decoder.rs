//! The inbound hot path: whole messages of a read become events in place, without allocation.
//! What is cut by the end of a read goes to `partial`. Logs nothing, answers nothing.
//! Invariant: the box exists exactly while a frame or a message is unfinished, so an idle connection pays 8 bytes.

use std::ops::ControlFlow::{self, Break, Continue};

use super::head::ClientHead;
use super::partial::{Partial, admit};
use super::{Event, Inflater, Limits, OpCode, Violation, close, unmask};

/// Decoder of one connection's inbound stream.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What is unfinished; changed by `decode` only.
    partial: Option<Box<Partial>>,
}

const _: () = assert!(size_of::<Decoder>() == 8, "part of every connection's budget");

impl Decoder {
    /// The stream stands between two messages, with nothing of the next one read.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Heap bytes held, for the accounting of a bucket; 0 when idle.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.allocated_bytes())
    }

    /// Decodes all of `input`, unmasking it in place, and calls `on` for each event in the order of the wire. An `inflater` is given
    /// exactly if permessage-deflate was negotiated; it holds nothing from one message to the next, so a thread needs one for all.
    ///
    /// Stops early, discarding the rest, when `on` breaks or after a close frame (RFC 6455 section 5.5.1: nothing follows it).
    /// After a violation, a break or a close the stream is over: the decoder holds nothing and must not be fed again.
    ///
    /// # Errors
    ///
    /// The first thing that RFC 6455 or `limits` forbids; events before it have been given to `on`.
    pub fn decode(
        &mut self,
        input: &mut [u8],
        limits: &Limits,
        inflater: Option<&mut Inflater>,
        on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<(), Violation> {
        self.decode_some(input, limits, inflater, on).map(|_| ())
    }

    /// The same, but gives the bytes used: what follows them after `on` has broken is as it came, for another decoder.
    ///
    /// # Errors
    ///
    /// As [`Decoder::decode`].
    pub fn decode_some(
        &mut self,
        input: &mut [u8],
        limits: &Limits,
        mut inflater: Option<&mut Inflater>,
        on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<usize, Violation> {
        let mut at = 0;
        while at < input.len() {
            let rest = &mut input[at..];
            let (used, flow) = if let Some(mut partial) = self.partial.take() {
                let step = partial.step(rest, limits, inflater.as_deref_mut(), on)?;
                if step.1.is_continue() && !partial.is_idle() {
                    self.partial = Some(partial);
                }
                step
            } else if let Some((event, used)) = whole_message(rest, limits, inflater.as_deref_mut())? {
                (used, deliver(event, on))
            } else {
                self.partial = Some(Box::default());
                continue;
            };
            at += used;
            if flow.is_break() {
                break;
            }
        }
        Ok(at)
    }
}

/// The unfragmented message or control frame at the start of `input`, and its bytes on the wire; `None` if it is cut or fragmented.
#[inline]
fn whole_message<'i>(
    input: &'i mut [u8],
    limits: &Limits,
    inflater: Option<&'i mut Inflater>,
) -> Result<Option<(Event<'i>, usize)>, Violation> {
    let Some(head) = ClientHead::parse(input, inflater.is_some())? else { return Ok(None) };
    let len = admit(&head, None, limits)?;
    if !head.fin || input.len() - head.bytes < len {
        return Ok(None);
    }
    let end = head.bytes + len;
    let payload = &mut input[head.bytes..end];
    unmask(payload, head.mask, 0);
    let payload: &[u8] = match inflater {
        Some(inflater) if head.is_compressed => inflater.inflate(payload, limits)?,
        _ => payload,
    };
    let event = match head.opcode {
        OpCode::Text | OpCode::Binary => read_data(head.opcode, payload)?,
        control => read_control(control, payload)?,
    };
    Ok(Some((event, end)))
}

/// The event of a whole message, inflated if it was compressed.
pub(super) fn read_data(opcode: OpCode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    if opcode == OpCode::Text {
        Ok(Event::Text(simdutf8::basic::from_utf8(payload).map_err(|_| Violation::TextNotUtf8)?))
    } else {
        Ok(Event::Binary(payload))
    }
}

/// The event of a whole, unmasked control payload.
pub(super) fn read_control(opcode: OpCode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match opcode {
        OpCode::Ping => Ok(Event::Ping(payload)),
        OpCode::Pong => Ok(Event::Pong(payload)),
        OpCode::Close => close::parse(payload),
        OpCode::Continuation | OpCode::Text | OpCode::Binary => {
            unreachable!("data frames are told apart by OpCode::is_control")
        }
    }
}

/// Hands an event to the caller; a close frame ends the stream whatever the caller says.
pub(super) fn deliver(event: Event<'_>, on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
    let is_close = matches!(event, Event::Close { .. });
    match on(event) {
        Continue(()) if !is_close => Continue(()),
        Continue(()) | Break(()) => Break(()),
    }
}
