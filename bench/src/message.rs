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

/// Airports of the rows, so that codes repeat as in real tables.
const AIRPORTS: [&str; 24] = [
    "ATL", "BOS", "BWI", "CLT", "DEN", "DFW", "DTW", "EWR", "HNL", "IAH", "JFK", "LAS", "LAX", "MCO", "MIA", "MSP",
    "ORD", "PHL", "PHX", "SAN", "SEA", "SFO", "SLC", "STL",
];

impl Stamp {
    /// Appends the message, filled up to `size` bytes with rows of a table that differ in their values. What is left after the
    /// last row that fits is padding.
    pub fn write_rows(&self, out: &mut Vec<u8>, size: usize) {
        let start = out.len();
        let Self { publisher, sequence, intended_ns } = self;
        write!(out, r#"{{"p":{publisher},"n":{sequence},"t":{intended_ns},"rows":["#).expect("a Vec takes everything");
        // Numbers that anyone can make again: a step of a linear congruence, whose high bits are good.
        let mut state = u64::from(*publisher) << 32 | u64::from(*sequence);
        let mut pick = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut separator = "";
        loop {
            let (month, day, hour, minute) = (pick(3) + 1, pick(28) + 1, pick(24), pick(60));
            let delay = pick(150) as i64 - 30;
            let distance = pick(2_500) + 90;
            let [origin, destination] = [pick(24), pick(24)].map(|i| AIRPORTS[i as usize]);
            let row = format!(
                r#"{separator}{{"date":"2001/{month:02}/{day:02} {hour:02}:{minute:02}","delay":{delay},"distance":{distance},"origin":"{origin}","destination":"{destination}"}}"#
            );
            if out.len() - start + row.len() + r#"],"x":""}"#.len() > size {
                break;
            }
            out.extend_from_slice(row.as_bytes());
            separator = ",";
        }
        out.extend_from_slice(br#"],"x":""#);
        let end = (start + size).saturating_sub(2).max(out.len());
        out.resize(end, b'a');
        out.extend_from_slice(br#""}"#);
    }

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
    fn rows_have_the_size_asked_for_and_compress_as_real_tables_do() {
        let mut all = Vec::new();
        for sequence in 0..20 {
            let stamp = Stamp { publisher: 1, sequence, intended_ns: 98_765_432_109 };
            let start = all.len();
            stamp.write_rows(&mut all, 512);
            assert_eq!(all.len() - start, 512);
            assert_eq!(serde_json::from_slice::<Stamp>(&all[start..]).expect("valid JSON"), stamp);
        }

        let mut deflated = Vec::with_capacity(all.len());
        let mut stream = flate2::Compress::new(flate2::Compression::new(6), false);
        stream.compress_vec(&all, &mut deflated, flate2::FlushCompress::Sync).expect("room");

        // 10 KB of src/demo/flights-2001.json come to 0.165.
        let ratio = deflated.len() as f64 / all.len() as f64;
        assert!((0.15..0.30).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_message_too_small_for_padding_goes_bare() {
        let stamp = Stamp { publisher: 0, sequence: 1, intended_ns: 2 };
        let mut out = Vec::new();

        stamp.write(&mut out, 10);

        assert_eq!(out, br#"{"p":0,"n":1,"t":2}"#);
    }
}
