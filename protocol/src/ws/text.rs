//! Text that arrives in pieces: each piece is checked when it arrives, a character cut by a piece's end is kept aside.
//! Invariant: a byte that cannot belong to valid UTF-8 is refused by the piece that brings it (Autobahn 6.4: fail fast).

use super::Violation;

/// Longest beginning of a character that is not yet one: 3 of 4 bytes.
const CUT_BYTES_MAX: usize = 3;

/// Text of a message that is not finished.
#[derive(Debug, Default)]
pub(super) struct GrowingText {
    /// The characters that are complete.
    text: String,
    /// The beginning of the character after them, `cut_len` bytes of it.
    cut: [u8; CUT_BYTES_MAX],
    cut_len: u8,
}

impl GrowingText {
    /// Appends bytes that arrived; `bytes_max` bounds the capacity and is at least what has arrived.
    pub fn push(&mut self, mut piece: &[u8], bytes_max: usize) -> Result<(), Violation> {
        while self.cut_len > 0 {
            let Some((byte, rest)) = piece.split_first() else { return Ok(()) };
            self.extend_cut(*byte, bytes_max)?;
            piece = rest;
        }
        let (whole, cut) = piece.split_at(piece.len() - cut_character_len(piece));
        let whole = simdutf8::basic::from_utf8(whole).map_err(|_| Violation::TextNotUtf8)?;
        reserve(&mut self.text, whole.len(), bytes_max);
        self.text.push_str(whole);
        for byte in cut {
            self.extend_cut(*byte, bytes_max)?;
        }
        Ok(())
    }

    /// The whole text, once the last fragment has arrived.
    pub fn finish(&self) -> Result<&str, Violation> {
        if self.cut_len > 0 { Err(Violation::TextNotUtf8) } else { Ok(&self.text) }
    }

    /// Bytes allocated.
    pub fn capacity(&self) -> usize {
        self.text.capacity()
    }

    /// Adds one byte to the character that is cut; completes it, keeps it, or refuses it.
    fn extend_cut(&mut self, byte: u8, bytes_max: usize) -> Result<(), Violation> {
        let kept = usize::from(self.cut_len);
        let mut character = [0u8; CUT_BYTES_MAX + 1];
        character[..kept].copy_from_slice(&self.cut[..kept]);
        character[kept] = byte;
        match std::str::from_utf8(&character[..=kept]) {
            Ok(whole) => {
                reserve(&mut self.text, whole.len(), bytes_max);
                self.text.push_str(whole);
                self.cut_len = 0;
            }
            // Without `error_len` the bytes are the beginning of a character: 3 at most, since 4 make a whole one.
            Err(e) if e.error_len().is_none() => {
                self.cut[kept] = byte;
                self.cut_len += 1;
            }
            Err(_) => return Err(Violation::TextNotUtf8),
        }
        Ok(())
    }
}

/// How many bytes at the end of `piece` may be the beginning of a character; whether they are is not judged here.
fn cut_character_len(piece: &[u8]) -> usize {
    for (behind, byte) in piece.iter().rev().take(CUT_BYTES_MAX).enumerate() {
        let width = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            0x00..=0x7f => 1,
        };
        return if width > behind + 1 { behind + 1 } else { 0 };
    }
    0
}

/// Makes room for `more` bytes, doubling but never beyond `bytes_max`.
fn reserve(text: &mut String, more: usize, bytes_max: usize) {
    let capacity = super::partial::grown(text.capacity(), text.len() + more, bytes_max);
    text.reserve_exact(capacity - text.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pieces: &[&[u8]]) -> Result<String, Violation> {
        let mut text = GrowingText::default();
        for piece in pieces {
            text.push(piece, 1024)?;
        }
        text.finish().map(str::to_owned)
    }

    #[test]
    fn text_cut_at_any_two_places_reads_the_same() {
        let text = "aé€😀z\u{10ffff}\u{d7ff}\u{e000}";
        let bytes = text.as_bytes();
        for i in 0..=bytes.len() {
            for j in i..=bytes.len() {
                assert_eq!(pieces(&[&bytes[..i], &bytes[i..j], &bytes[j..]]).as_deref(), Ok(text), "{i} {j}");
            }
        }
    }

    #[test]
    fn the_first_byte_that_cannot_be_utf8_is_refused_at_once() {
        // Surrogate, above U+10FFFF, overlong, lone continuation, impossible byte: each wrong from its last byte on.
        for bad in [&b"\xed\xa0"[..], b"\xf4\x90", b"\xe0\x80", b"\xf0\x80", b"\xc0", b"\x80", b"\xff", b"\xf5"] {
            let (last, before) = bad.split_last().expect("not empty");
            let mut text = GrowingText::default();
            assert_eq!(text.push(before, 1024), Ok(()), "{bad:x?}");
            assert_eq!(text.push(&[*last], 1024), Err(Violation::TextNotUtf8), "{bad:x?}");
            assert_eq!(pieces(&[bad]), Err(Violation::TextNotUtf8), "{bad:x?} in one piece");
        }
    }

    #[test]
    fn every_pair_and_triple_of_bytes_is_judged_as_the_standard_library_does() {
        let sample = [
            0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xee, 0xf0, 0xf4,
            0xf5,
        ];
        for a in sample {
            for b in sample {
                for c in sample {
                    let bytes = [a, b, c];
                    let expected = std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| Violation::TextNotUtf8);
                    assert_eq!(pieces(&[&bytes]), expected, "{bytes:x?}");
                    assert_eq!(pieces(&[&[a], &[b], &[c]]), expected, "{bytes:x?} byte by byte");
                }
            }
        }
    }
}
