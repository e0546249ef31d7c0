//! Test side of the frames: an encoder of client frames that shares no code with the decoder, and a driver that records events.

use std::ops::ControlFlow::Continue;

use super::{Decoder, Event, Inflater, Limits, Violation};

pub(super) const LIMITS: Limits = Limits { message_bytes: 1 << 20, fragments: 64, inflate_ratio: 100 };
pub(super) const MASK: [u8; 4] = [0x1f, 0x00, 0xa5, 0xff];

/// An event that owns its payload, and the end of a stream, so that whole runs can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Refused(Violation),
}

/// A masked frame with the first byte given as it goes on the wire, in the shortest length form.
pub(super) fn raw(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![first];
    let n = payload.len();
    if n < 126 {
        out.push(128 + n as u8);
    } else if n < 65_536 {
        out.extend([128 + 126, (n / 256) as u8, (n % 256) as u8]);
    } else {
        out.push(128 + 127);
        out.extend((n as u64).to_be_bytes());
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

pub(super) fn text(payload: impl AsRef<[u8]>) -> Vec<u8> {
    raw(0x81, payload.as_ref(), MASK)
}

/// One decoder fed with `reads`, one after the other; ends at a violation or a close, as a connection does.
pub(super) fn run<'a>(reads: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> (Vec<Seen>, Decoder) {
    run_with(reads, limits, None)
}

/// The same, with permessage-deflate negotiated if there is an inflater.
pub(super) fn run_with<'a>(
    reads: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
    mut inflater: Option<&mut Inflater>,
) -> (Vec<Seen>, Decoder) {
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    for read in reads {
        let outcome = decoder.decode(&mut read.to_vec(), limits, inflater.as_deref_mut(), &mut |event| {
            seen.push(match event {
                Event::Text(text) => Seen::Text(text.to_owned()),
                Event::Binary(bytes) => Seen::Binary(bytes.to_vec()),
                Event::Ping(bytes) => Seen::Ping(bytes.to_vec()),
                Event::Pong(bytes) => Seen::Pong(bytes.to_vec()),
                Event::Close { code, reason } => Seen::Close(code, reason.to_owned()),
            });
            Continue(())
        });
        if let Err(violation) = outcome {
            seen.push(Seen::Refused(violation));
        }
        if let Some(Seen::Refused(_) | Seen::Close(..)) = seen.last() {
            break;
        }
    }
    (seen, decoder)
}

/// What one read of `input` gives.
pub(super) fn decode(input: &[u8]) -> Vec<Seen> {
    run([input], &LIMITS).0
}

/// What `input` read byte by byte gives.
pub(super) fn decode_bytewise(input: &[u8], limits: &Limits) -> Vec<Seen> {
    run(input.chunks(1), limits).0
}
