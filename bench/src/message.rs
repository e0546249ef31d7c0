//! The message that publishers send and clients check: who, which, when, and padding to a size.
//! A file of its own because both ends must agree on it: `{"p":publisher,"n":sequence,"t":intended_ns,"x":"…"}`.

use std::io::Write as _;

use serde::Deserialize;

/// What a client needs of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Stamp {
    /// Publisher: one API connection, hence one order (rule M-4).
    #[serde(rename = "p")]
    pub publisher: u32,
    /// Number within the publisher, from 0 without holes.
    #[serde(rename = "n")]
    pub sequence: u32,
    /// When it was due on CLOCK_MONOTONIC in ns, whether or not it left in time.
    #[serde(rename = "t")]
    pub intended_ns: u64,
}

/// `,"x":""`: what padding costs before its first byte.
const PADDING_FRAME: usize = 7;

impl Stamp {
    /// Appends the message, padded to `size` bytes where that leaves room for the padding's own seven bytes.
    pub fn write(&self, out: &mut Vec<u8>, size: usize) {
        let start = out.len();
        let Self { publisher, sequence, intended_ns } = self;
        write!(out, r#"{{"p":{publisher},"n":{sequence},"t":{intended_ns}"#).expect("a Vec takes everything");
        let bare = out.len() - start + 1;
        if size >= bare + PADDING_FRAME {
            out.extend_from_slice(br#","x":""#);
            out.resize(start + size - 2, b'a');
            out.push(b'"');
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_size_asked_for_and_says_what_it_was_given() {
        let stamp = Stamp { publisher: 7, sequence: 123_456, intended_ns: 98_765_432_109 };

        for size in [100, 1_000, 4_096] {
            let mut out = b"before".to_vec();
            stamp.write(&mut out, size);

            assert_eq!(out.len() - 6, size);
            assert_eq!(serde_json::from_slice::<Stamp>(&out[6..]).expect("valid JSON"), stamp);
        }
    }

    #[test]
    fn a_message_too_small_for_padding_goes_bare() {
        let stamp = Stamp { publisher: 0, sequence: 1, intended_ns: 2 };
        let mut out = Vec::new();

        stamp.write(&mut out, 10);

        assert_eq!(out, br#"{"p":0,"n":1,"t":2}"#);
    }
}
