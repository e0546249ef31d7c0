//! Compression of server messages (RFC 7692 section 7.2.1): each by itself, so that the bytes suit every client that has negotiated
//! permessage-deflate. Whom it is worth doing for is the caller's to know.
//! Invariant: a frame made here is smaller than the plain one and inflates to the same payload without any other.

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress, Status};

use super::OpCode;
use super::encode::{HEAD_BYTES_MAX, head};
use super::head::RSV1;

/// What an empty stored block ends with; left out on the wire.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Memory of the buffer that is kept for the next message.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// The state of compression, about 300 KiB; one for all messages that are compressed one after the other.
#[derive(Debug)]
pub struct Deflater {
    stream: Compress,
    out: Vec<u8>,
}

impl Deflater {
    /// A compressor of this level, 1 (fast) to 9 (small).
    #[must_use]
    pub fn new(level: u8) -> Self {
        debug_assert!((1..=9).contains(&level), "the configuration is checked before");
        Self { stream: Compress::new(Compression::new(u32::from(level.clamp(1, 9))), false), out: Vec::new() }
    }

    /// The compressed frame of a message; `None` where it would not be smaller than the plain one.
    pub fn frame(&mut self, opcode: OpCode, payload: &[u8]) -> Option<Bytes> {
        debug_assert!(!opcode.is_control(), "control frames are never compressed (RFC 7692 section 6.1)");
        let plain_bytes = head(opcode, payload.len()).len() + payload.len();
        self.stream.reset();
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES_MAX);
        // No more room than is worth using: a stream that does not end in it is one that saves nothing.
        self.out.reserve_exact(payload.len() + TAIL.len());
        let status = self.stream.compress_vec(payload, &mut self.out, FlushCompress::Sync);
        let is_whole = matches!(status, Ok(Status::Ok)) && self.stream.total_in() == payload.len() as u64;
        let deflated = self.out.strip_suffix(&TAIL).filter(|_| is_whole)?;
        let head = head(opcode, deflated.len());
        if head.len() + deflated.len() >= plain_bytes {
            return None;
        }
        let mut frame = BytesMut::with_capacity(HEAD_BYTES_MAX + deflated.len());
        frame.extend_from_slice(&head);
        frame[0] |= RSV1;
        frame.extend_from_slice(deflated);
        Some(frame.freeze())
    }
}
