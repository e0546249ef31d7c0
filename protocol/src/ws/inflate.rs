//! Inflation of compressed messages (RFC 7692 section 7.2.2), in steps that are counted: a message costs at most what the limits
//! say, however small it was on the wire. Whether a frame may be compressed is `head`'s to say.
//! Invariants: nothing is kept from one message to the next but memory, and of that at most [`KEPT_BYTES_MAX`]; what comes out is
//! at most `Limits::message_bytes` long, and memory at most twice that and a step.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Limits, Violation};

/// Output of one step. Bounds are looked at between steps, so this is also how far a bomb gets beyond them.
const STEP_BYTES: usize = 16 * 1024;
/// The smallest first step.
const STEP_BYTES_MIN: usize = 256;
/// Most final blocks in a message; beyond its end DEFLATE knows none, so more than one is a rarity and many are work for nothing.
const FINAL_BLOCKS_MAX: usize = 16;
/// Memory of the buffer that is kept for the next message.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// What any message may inflate to whatever its ratio: small JSON of many equal rows is honest at several hundred to one.
const RATIO_FREE_BYTES: usize = 4 * 1024;
/// What a sender takes off the end of a message, and then an empty last block: if the message ended where a block ends, the
/// stream ends here and nowhere else.
const TAIL: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];

/// The state of inflation, about 50 KiB; a thread has one for all its connections.
#[derive(Debug)]
pub struct Inflater {
    stream: Decompress,
    out: Vec<u8>,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { stream: Decompress::new(false), out: Vec::new() }
    }
}

/// How far a message has been inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// All input is used, and no block is final so far.
    Input,
    /// A final block ended with this much of the input unused.
    StreamEnd(usize),
}

impl Inflater {
    /// Bytes of the buffer, for accounting.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.out.capacity()
    }

    /// The message whose compressed payload is `payload`.
    ///
    /// # Errors
    /// What is not raw DEFLATE up to the end of a block, and what inflates beyond `limits`; nothing is held after it.
    pub fn inflate(&mut self, payload: &[u8], limits: &Limits) -> Result<&[u8], Violation> {
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES_MAX);
        let ratio_bytes = payload.len().saturating_mul(limits.inflate_ratio as usize).max(RATIO_FREE_BYTES);
        let bounds = Bounds { bytes: limits.message_bytes, ratio_bytes, ratio: limits.inflate_ratio };
        self.stream.reset(false);
        let (mut rest, mut final_blocks) = (payload, 0);
        // A message may hold final blocks too (RFC 7692 section 7.2.3.4); what follows one is a stream of its own.
        while let Reached::StreamEnd(left) = self.run(rest, &bounds)? {
            rest = &rest[rest.len() - left..];
            if rest.is_empty() {
                return Ok(&self.out);
            }
            final_blocks += 1;
            if final_blocks > FINAL_BLOCKS_MAX {
                return Err(Violation::DeflateBroken);
            }
            self.stream.reset(false);
        }
        let len = self.out.len();
        match self.run(&TAIL, &bounds)? {
            Reached::StreamEnd(0) if self.out.len() == len => Ok(&self.out),
            Reached::StreamEnd(_) | Reached::Input => Err(Violation::DeflateBroken),
        }
    }

    fn run(&mut self, input: &[u8], bounds: &Bounds) -> Result<Reached, Violation> {
        // Most messages are small and come to a few times their size; clearing a whole step for them would cost more than they do.
        let first = input.len().saturating_mul(8).clamp(STEP_BYTES_MIN, STEP_BYTES);
        let mut rest = input;
        loop {
            let step = if self.out.is_empty() { first } else { STEP_BYTES };
            // One byte beyond the bound shows that it is passed.
            let step = step.min(bounds.bytes.saturating_add(1) - self.out.len());
            let (used, made) = (self.stream.total_in(), self.out.len());
            self.out.resize(made + step, 0);
            let produced = self.stream.total_out();
            let status = self.stream.decompress(rest, &mut self.out[made..], FlushDecompress::None);
            #[expect(clippy::cast_possible_truncation, reason = "at most a step, and at most the input")]
            let (used, produced) =
                ((self.stream.total_in() - used) as usize, (self.stream.total_out() - produced) as usize);
            self.out.truncate(made + produced);
            rest = &rest[used..];
            bounds.check(self.out.len())?;
            match status {
                Ok(Status::StreamEnd) => return Ok(Reached::StreamEnd(rest.len())),
                // Room was left, so all that the input holds is out.
                Ok(Status::Ok | Status::BufError) if produced < step && rest.is_empty() => return Ok(Reached::Input),
                Ok(Status::Ok) if used > 0 || produced > 0 => {}
                Ok(Status::BufError) if produced == step => {}
                Ok(Status::Ok | Status::BufError) | Err(_) => return Err(Violation::DeflateBroken),
            }
        }
    }
}

/// What a message may inflate to.
struct Bounds {
    bytes: usize,
    ratio_bytes: usize,
    ratio: u32,
}

impl Bounds {
    fn check(&self, len: usize) -> Result<(), Violation> {
        if len > self.bytes {
            return Err(Violation::InflatesTooBig { limit: self.bytes });
        }
        if len > self.ratio_bytes {
            return Err(Violation::InflatesTooMuch { ratio: self.ratio });
        }
        Ok(())
    }
}
