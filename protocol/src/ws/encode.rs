//! Frames of a server: unmasked, never fragmented.
//! A broadcast is encoded once: [`head`] gives the few bytes before a payload that many connections share.

use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};

use super::OpCode;
use crate::limits::CONTROL_BYTES_MAX;

/// Longest head of a server: 2 bytes and 8 of length.
pub const HEAD_BYTES_MAX: usize = 10;
/// What a close frame has left for its reason after the code.
const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// Head of an unfragmented server frame; reads as its 2, 4 or 10 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    len: u8,
}

impl Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The head of a frame with `payload_len` bytes: FIN set, unmasked, shortest length.
#[must_use]
pub fn head(opcode: OpCode, payload_len: usize) -> Head {
    debug_assert!(!opcode.is_control() || payload_len <= CONTROL_BYTES_MAX, "control frames carry at most 125 bytes");
    let mut bytes = [0u8; HEAD_BYTES_MAX];
    bytes[0] = 0x80 | opcode as u8;
    let len = if let Ok(short @ 0..=125) = u8::try_from(payload_len) {
        bytes[1] = short;
        2
    } else if let Ok(medium) = u16::try_from(payload_len) {
        bytes[1] = 126;
        bytes[2..4].copy_from_slice(&medium.to_be_bytes());
        4
    } else {
        bytes[1] = 127;
        bytes[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
        10
    };
    Head { bytes, len }
}

/// A whole frame in one piece.
#[must_use]
pub fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let head = head(opcode, payload.len());
    let mut out = BytesMut::with_capacity(head.len() + payload.len());
    out.put_slice(&head);
    out.put_slice(payload);
    out.freeze()
}

/// The payload of a whole server frame; the frame must be one that this file could have made.
#[must_use]
pub fn payload(frame: &[u8]) -> &[u8] {
    let head_bytes = match frame[1] {
        126 => 4,
        127 => HEAD_BYTES_MAX,
        _ => 2,
    };
    &frame[head_bytes..]
}

/// A close frame; `reason` is cut at a character so that it fits its 123 bytes.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    let head = head(OpCode::Close, 2 + reason.len());
    let mut out = BytesMut::with_capacity(head.len() + 2 + reason.len());
    out.put_slice(&head);
    out.put_u16(code);
    out.put_slice(reason);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_their_shortest_form() {
        let cases: [(usize, &[u8]); 7] = [
            (0, &[0x82, 0]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (255, &[0x82, 126, 0, 255]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (1 << 40, &[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]),
        ];
        for (len, expected) in cases {
            assert_eq!(&*head(OpCode::Binary, len), expected, "{len}");
        }
    }

    /// The example of RFC 6455 section 5.7.
    #[test]
    fn the_unmasked_hello_of_the_rfc_is_what_frame_writes() {
        assert_eq!(&frame(OpCode::Text, b"Hello")[..], &[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    }

    #[test]
    fn a_frame_gives_its_payload_back_at_every_form_of_length() {
        for len in [0, 125, 126, 65_535, 65_536] {
            let sent = vec![b'x'; len];
            assert_eq!(payload(&frame(OpCode::Text, &sent)), sent);
        }
    }

    #[test]
    fn a_long_close_reason_is_cut_between_characters() {
        let reason = format!("{}€", "x".repeat(121));

        let close = close_frame(1001, &reason);

        assert_eq!(&close[..4], &[0x88, 2 + 121, 0x03, 0xe9]);
        assert_eq!(&close[4..], "x".repeat(121).as_bytes());
        assert_eq!(close_frame(1000, &"x".repeat(200)).len(), 2 + CONTROL_BYTES_MAX);
    }

    #[test]
    fn an_empty_close_reason_leaves_only_the_code() {
        assert_eq!(&close_frame(1000, "")[..], &[0x88, 2, 0x03, 0xe8]);
    }
}
