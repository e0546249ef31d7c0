//! Heads of server frames (RFC 6455 section 5.2), and the client frames a swarm sends.
//! A file of its own and not `tidegate_protocol`'s: the checker must not share a fault with what it checks.

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub opcode: u8,
    /// RSV1 is set: the payload is compressed.
    pub is_compressed: bool,
    pub head_bytes: usize,
    pub payload_bytes: usize,
}

impl Head {
    pub fn frame_bytes(&self) -> usize {
        self.head_bytes + self.payload_bytes
    }
}

/// Longest frame believed: the largest merge bound is far smaller.
const PAYLOAD_BYTES_MAX: u64 = 16 * 1024 * 1024;

const RSV1: u8 = 0x40;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The head at the start of `bytes`; `Ok(None)` when more bytes are needed; the rule that was broken otherwise. `deflate`:
/// permessage-deflate was negotiated.
pub fn parse(bytes: &[u8], deflate: bool) -> Result<Option<Head>, &'static str> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let is_compressed = first & 0x7f == RSV1 | TEXT;
    if first & 0x70 != 0 && !(deflate && is_compressed) {
        return Err("reserved bits are set");
    }
    if first & 0x80 == 0 {
        return Err("the server fragmented a message");
    }
    if second & 0x80 != 0 {
        return Err("the server masked a frame");
    }
    let opcode = first & 0x0f;
    let (head_bytes, length) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (4, u64::from(u16::from_be_bytes([a, b]))),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|length| <[u8; 8]>::try_from(length).ok()) {
            Some(length) => (10, u64::from_be_bytes(length)),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    let minimal = match head_bytes {
        2 => true,
        4 => length > 125,
        _ => length > 65_535,
    };
    if !minimal {
        return Err("a length is not minimal");
    }
    if length > PAYLOAD_BYTES_MAX {
        return Err("a frame is longer than 16 MiB");
    }
    if opcode >= CLOSE && length > 125 {
        return Err("a control frame is longer than 125 bytes");
    }
    Ok(Some(Head { opcode, is_compressed, head_bytes, payload_bytes: length as usize }))
}

/// Appends a client frame. The masking key is zero: legal on the wire, and the payload stays as it is.
pub fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Appends a server text frame: what the bare loop sends and tests feed.
pub fn write_server_text(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(0x80 | TEXT);
    match payload.len() {
        length @ 0..=125 => out.push(length as u8),
        length @ 126..=65_535 => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_where_its_frame_ends_for_each_form_of_length() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut frame = Vec::new();
            write_server_text(&mut frame, &vec![b'x'; length]);

            let head = parse(&frame, false).expect("legal").expect("complete");

            assert_eq!(head.frame_bytes(), frame.len());
            assert_eq!(parse(&frame[..head.head_bytes - 1], false), Ok(None));
        }
    }

    #[test]
    fn frames_no_server_may_send_are_refused() {
        let cases: [&[u8]; 5] = [&[0xc1, 0], &[0x01, 0], &[0x81, 0x80], &[0x81, 126, 0, 5], &[0x89, 126, 0, 200]];
        for wire in cases {
            assert!(parse(wire, false).is_err(), "{wire:?}");
        }
        let compressed = parse(&[0xc1, 0], true).expect("negotiated").expect("complete");
        assert!(compressed.is_compressed && compressed.opcode == TEXT);
        for first in [0xc2, 0xc8, 0xc9, 0xca, 0xe1, 0xd1, 0xa1] {
            assert!(parse(&[first, 0], true).is_err(), "{first:x}");
        }
    }
}
