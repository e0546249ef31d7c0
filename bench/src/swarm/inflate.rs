//! Inflation of what a server sends compressed (RFC 7692): each message by itself, because that is what the swarm negotiates.
//! A file of its own and not `tidegate_protocol`'s: the checker must not share a fault with what it checks. Runs once for each
//! distinct frame (see `assembly`).

use flate2::{Decompress, FlushDecompress, Status};

/// What a sender takes off the end of a message (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Longest message believed: the largest merge bound is far smaller.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Output of one step.
const STEP_BYTES: usize = 64 * 1024;

/// The message of a compressed payload, or why there is none.
pub fn inflate(payload: &[u8]) -> Result<Vec<u8>, &'static str> {
    let wire = [payload, &TAIL].concat();
    let mut stream = Decompress::new(false);
    let mut message = Vec::new();
    loop {
        message.reserve(STEP_BYTES);
        let used = stream.total_in() as usize;
        let status = stream.decompress_vec(&wire[used..], &mut message, FlushDecompress::None);
        if message.len() > MESSAGE_BYTES_MAX {
            return Err("a compressed message is longer than 16 MiB");
        }
        match status {
            Ok(Status::Ok | Status::BufError) if message.len() == message.capacity() => {}
            Ok(Status::Ok | Status::BufError) if stream.total_in() == wire.len() as u64 => return Ok(message),
            Ok(Status::StreamEnd) => return Err("a compressed message ends its stream"),
            Ok(Status::Ok | Status::BufError) | Err(_) => return Err("a compressed message is no DEFLATE"),
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    fn deflate(message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() + 64);
        Compress::new(Compression::new(6), false).compress_vec(message, &mut out, FlushCompress::Sync).expect("room");
        out.truncate(out.len() - TAIL.len());
        out
    }

    #[test]
    fn messages_of_any_length_come_back() {
        // STEP_BYTES exactly, too: then there is no room left that would show that all is out.
        for bytes in [0, 1, 10_000, STEP_BYTES, STEP_BYTES + 1, 300_000] {
            let message: Vec<u8> = (0..bytes).map(|i| (i * i % 251) as u8).collect();
            assert_eq!(inflate(&deflate(&message)), Ok(message), "{bytes}");
        }
        // RFC 7692 section 7.2.3.1.
        assert_eq!(inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]), Ok(b"Hello".to_vec()));
    }

    #[test]
    fn what_needs_an_earlier_message_is_refused() {
        // RFC 7692 section 7.2.3.2: "Hello" again, by reference to the one before.
        assert!(inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00]).is_err());
        assert!(inflate(b"\xff\xff\xff").is_err());
        assert!(inflate(&deflate(&vec![0; MESSAGE_BYTES_MAX + 1])).is_err());
    }
}
