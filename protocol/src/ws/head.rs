//! Head of a client's frame (RFC 6455 section 5.2): the checks that need nothing but the head itself.
//! Whether the frame fits the message under way is `partial`'s to say.
//! Invariant: each check depends on a fixed prefix of the head, so the verdict does not depend on how reads cut it.

use super::Violation;

/// Longest head of a client: 2 bytes, 8 of length, 4 of mask.
pub(super) const CLIENT_HEAD_BYTES_MAX: usize = 14;
/// `payload len` values that announce a longer form.
const LEN_16: u8 = 126;
const LEN_64: u8 = 127;
/// The first reserved bit of a head's first byte, which permessage-deflate gives its meaning.
pub(super) const RSV1: u8 = 0x40;

/// What a frame is (RFC 6455 section 11.8); the value is the one on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OpCode {
    /// Next fragment of the message under way.
    Continuation = 0x0,
    /// A text message or its first fragment.
    Text = 0x1,
    /// A binary message or its first fragment.
    Binary = 0x2,
    /// Ends the connection.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xa,
}

impl OpCode {
    /// Close, ping and pong: at most 125 bytes, never fragmented, allowed between fragments.
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    const fn from_wire(opcode: u8) -> Option<Self> {
        match opcode {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }
}

/// A head that is well-formed by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientHead {
    pub fin: bool,
    /// RSV1: the message that begins here is compressed (RFC 7692 section 6).
    pub is_compressed: bool,
    pub opcode: OpCode,
    pub mask: [u8; 4],
    /// Claimed by the client; below 2^63, for control frames at most 125.
    pub payload_len: u64,
    /// Bytes of the head itself, 6, 8 or 14.
    pub bytes: usize,
}

impl ClientHead {
    /// Reads the head at the start of `input`; `None` while it is cut. `has_deflate`: permessage-deflate was negotiated.
    #[inline]
    pub fn parse(input: &[u8], has_deflate: bool) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = input else { return Ok(None) };
        let (fin, opcode, short_len) = check_fixed_part(*first, *second, has_deflate)?;
        let is_compressed = first & RSV1 != 0;

        let (payload_len, rest) = match short_len {
            LEN_16 => {
                let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
                let length = u64::from(u16::from_be_bytes(*length));
                if length < u64::from(LEN_16) {
                    return Err(Violation::LengthNotMinimal { length, used: 2 });
                }
                (length, rest)
            }
            LEN_64 => {
                let Some((length, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
                let length = u64::from_be_bytes(*length);
                if length >> 63 != 0 {
                    return Err(Violation::LengthTopBit);
                }
                if length <= u64::from(u16::MAX) {
                    return Err(Violation::LengthNotMinimal { length, used: 8 });
                }
                (length, rest)
            }
            short => (u64::from(short), rest),
        };
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        Ok(Some(Self { fin, is_compressed, opcode, mask: *mask, payload_len, bytes: input.len() - rest.len() }))
    }
}

/// Checks the two bytes that every head has; gives FIN, the opcode and the 7-bit length.
#[inline]
fn check_fixed_part(first: u8, second: u8, has_deflate: bool) -> Result<(bool, OpCode, u8), Violation> {
    let fin = first & 0x80 != 0;
    let bits = (first >> 4) & 0b111;
    if bits != 0 && !(has_deflate && first & RSV1 == bits << 4) {
        return Err(Violation::ReservedBits { bits });
    }
    let Some(opcode) = OpCode::from_wire(first & 0x0f) else {
        return Err(Violation::ReservedOpcode { opcode: first & 0x0f });
    };
    if bits != 0 && !matches!(opcode, OpCode::Text | OpCode::Binary) {
        return Err(Violation::CompressedBit);
    }
    if second & 0x80 == 0 {
        return Err(Violation::Unmasked);
    }
    let short_len = second & 0x7f;
    if opcode.is_control() {
        if !fin {
            return Err(Violation::ControlFragmented);
        }
        if short_len >= LEN_16 {
            return Err(Violation::ControlTooLong);
        }
    }
    Ok((fin, opcode, short_len))
}
