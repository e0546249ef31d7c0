//! Compresses a frame once for everyone who takes it compressed (rule M-5, docs/adr/0013). Whether anyone does is `merge`'s to know.
//! Runs under the flush lock, so one compressor serves a gateway and none is made before it is needed.
//! Invariant: what it gives is smaller than what it was given and says the same.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tidegate_protocol::ws::{self, Deflater, OpCode};

use crate::config::DeflateConfig;
use crate::locks::{Mutex, rank};

/// What compresses, and what it has done.
#[derive(Debug)]
pub struct Compressor {
    level: u8,
    bytes_min: usize,
    /// About 300 KiB once there is one.
    deflater: Mutex<Option<Deflater>, { rank::COMPRESSOR }>,
    /// Frames that exist compressed too.
    pub frames: AtomicU64,
    /// Their bytes as they were.
    pub bytes_before: AtomicU64,
    /// And as they became.
    pub bytes_after: AtomicU64,
}

impl Compressor {
    /// One that works as the operator says; at level 0 not at all.
    #[must_use]
    pub fn new(config: &DeflateConfig) -> Self {
        Self {
            level: config.level,
            bytes_min: config.min_bytes,
            deflater: Mutex::default(),
            frames: AtomicU64::new(0),
            bytes_before: AtomicU64::new(0),
            bytes_after: AtomicU64::new(0),
        }
    }

    /// The compressed twin of a frame; none where it would be no smaller, or is too small to be tried.
    pub fn compress(&self, frame: &Bytes) -> Option<Bytes> {
        if self.level == 0 || frame.len() < self.bytes_min {
            return None;
        }
        let mut deflater = self.deflater.lock();
        let deflater = deflater.get_or_insert_with(|| Deflater::new(self.level));
        let compressed = deflater.frame(OpCode::Text, ws::payload(frame))?;
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes_before.fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.bytes_after.fetch_add(compressed.len() as u64, Ordering::Relaxed);
        Some(compressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressor(level: u8, min_bytes: usize) -> Compressor {
        Compressor::new(&DeflateConfig { level, min_bytes, ..DeflateConfig::default() })
    }

    #[test]
    fn only_what_is_worth_it_is_compressed() {
        let rows = ws::frame(OpCode::Text, br#"{"origin":"FRA","delay":1}"#.repeat(20).as_slice());

        assert_eq!(compressor(0, 0).compress(&rows), None, "off");
        assert_eq!(compressor(6, rows.len() + 1).compress(&rows), None, "too small to be tried");
        assert_eq!(compressor(6, 0).compress(&ws::frame(OpCode::Text, b"{\"n\":17}")), None, "no smaller");
        let compressor = compressor(6, rows.len());
        let compressed = compressor.compress(&rows).expect("smaller");

        let counted =
            [&compressor.frames, &compressor.bytes_before, &compressor.bytes_after].map(|c| c.load(Ordering::Relaxed));
        assert_eq!(counted, [1, rows.len() as u64, compressed.len() as u64]);
        assert!(compressed.len() < rows.len() / 3, "{}", compressed.len());
    }
}
