//! Specification of compressed messages (RFC 7692): which are read, which are refused and by what name, and what a bomb costs.

use super::payload as payload_of;
use super::testing::{LIMITS, MASK, Seen, raw, run, run_with};
use super::{Deflater, Inflater, Limits, OpCode, Violation};

const REFUSED_RSV1: Seen = Seen::Refused(Violation::ReservedBits { bits: 0b100 });
/// "Hello" of RFC 7692 section 7.2.3.1.
const HELLO: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

/// One read of a connection that negotiated permessage-deflate.
fn decode(wire: &[u8]) -> Vec<Seen> {
    run_with([wire], &LIMITS, Some(&mut Inflater::default())).0
}

fn decode_within(wire: &[u8], limits: &Limits) -> Vec<Seen> {
    run_with([wire], limits, Some(&mut Inflater::default())).0
}

/// The compressed payload of a message, without its frame.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let frame = Deflater::new(6).frame(OpCode::Text, payload).expect("compressible");
    payload_of(&frame).to_vec()
}

/// A compressed text message in one frame.
fn compressed(payload: &[u8]) -> Vec<u8> {
    raw(0xc1, payload, MASK)
}

/// JSON as services push it: rows that differ in their values.
fn rows(bytes: usize) -> String {
    let mut out = String::from("[");
    let mut i: u64 = 1;
    while out.len() < bytes {
        i = i.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        out += &format!(r#"{{"id":{},"delay":{},"origin":"{:x}"}},"#, i >> 40, i % 97, i >> 50);
    }
    out + "null]"
}

/// Rule M-5. The examples of RFC 7692 sections 7.2.3.1 and 7.2.3.3 to 7.2.3.6.
#[test]
fn the_examples_of_the_rfc_inflate() {
    let hello: [&[u8]; 5] = [
        HELLO,
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        // A stream that ends with its final block and nothing after it.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ];
    for payload in hello {
        assert_eq!(decode(&compressed(payload)), [Seen::Text("Hello".into())], "{payload:x?}");
        assert_eq!(decode(&raw(0xc2, payload, MASK)), [Seen::Binary(b"Hello".to_vec())], "{payload:x?}");
    }
    assert_eq!(decode(&compressed(&[0x00])), [Seen::Text(String::new())]);
}

/// RFC 7692 section 7.2.3.2: this refers to the message before, which the answer to the offer forbids.
#[test]
fn a_message_that_leans_on_the_one_before_is_broken() {
    let wire = [compressed(HELLO), compressed(&[0xf2, 0x00, 0x11, 0x00, 0x00])].concat();

    assert_eq!(decode(&wire), [Seen::Text("Hello".into()), Seen::Refused(Violation::DeflateBroken)]);
}

#[test]
fn plain_and_compressed_messages_may_take_turns() {
    let wire = [raw(0x81, b"plain", MASK), compressed(HELLO), raw(0x82, b"\xff", MASK), compressed(HELLO)].concat();
    let hello = Seen::Text("Hello".into());

    assert_eq!(decode(&wire), [Seen::Text("plain".into()), hello.clone(), Seen::Binary(vec![0xff]), hello]);
}

#[test]
fn the_first_reserved_bit_is_refused_where_nothing_was_negotiated() {
    assert_eq!(run([&compressed(HELLO)[..]], &LIMITS).0, [REFUSED_RSV1]);
}

#[test]
fn the_first_reserved_bit_is_for_the_first_frame_of_a_message_alone() {
    for first in [0xc8, 0xc9, 0xca, 0xc0, 0x40] {
        assert_eq!(decode(&raw(first, b"", MASK)), [Seen::Refused(Violation::CompressedBit)], "{first:x}");
    }
    for start in [raw(0x41, &HELLO[..3], MASK), raw(0x01, b"He", MASK)] {
        let wire = [start, raw(0xc0, &HELLO[3..], MASK)].concat();
        assert_eq!(decode(&wire), [Seen::Refused(Violation::CompressedBit)], "{wire:x?}");
    }
}

#[test]
fn the_other_reserved_bits_stay_refused() {
    for bits in [0b010, 0b001, 0b110, 0b101, 0b111, 0b011] {
        let wire = raw(0x81 | bits << 4, HELLO, MASK);
        assert_eq!(decode(&wire), [Seen::Refused(Violation::ReservedBits { bits })], "{bits:03b}");
    }
}

#[test]
fn a_compressed_message_cut_at_every_byte_reads_the_same() {
    let text = rows(300);
    let payload = deflated(text.as_bytes());
    let half = payload.len() / 2;
    let wire = [
        raw(0x41, &payload[..half], MASK),
        raw(0x89, b"mid", MASK),
        raw(0x00, b"", MASK),
        raw(0x80, &payload[half..], MASK),
        compressed(&payload),
    ]
    .concat();
    let expected = [Seen::Ping(b"mid".to_vec()), Seen::Text(text.clone()), Seen::Text(text)];
    let mut inflater = Inflater::default();

    for at in 0..=wire.len() {
        let (seen, decoder) = run_with([&wire[..at], &wire[at..]], &LIMITS, Some(&mut inflater));
        assert_eq!(seen, expected, "cut at {at}");
        assert!(decoder.is_idle());
    }
    assert_eq!(run_with(wire.chunks(1), &LIMITS, Some(&mut inflater)).0, expected, "byte by byte");
}

#[test]
fn a_stream_that_ends_early_is_broken_wherever_it_ends() {
    for payload in [HELLO.to_vec(), deflated(rows(400).as_bytes())] {
        for end in 0..payload.len() {
            assert_eq!(decode(&compressed(&payload[..end])), [Seen::Refused(Violation::DeflateBroken)], "{end}");
        }
    }
    let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65];
    assert_eq!(decode(&compressed(&stored)), [Seen::Refused(Violation::DeflateBroken)]);
}

#[test]
fn what_is_no_deflate_is_broken() {
    for payload in [&b"\xff\xff\xff"[..], b"Hello", &[HELLO, b"\xff"].concat(), &[HELLO, &[0, 0, 0xff]].concat()] {
        assert_eq!(decode(&compressed(payload)), [Seen::Refused(Violation::DeflateBroken)], "{payload:x?}");
    }
}

#[test]
fn final_blocks_without_end_are_broken() {
    let many = [0x03, 0x00].repeat(10_000);

    assert_eq!(decode(&compressed(&many)), [Seen::Refused(Violation::DeflateBroken)]);
}

#[test]
fn inflated_text_must_be_utf8_and_binary_need_not() {
    let payload = deflated(&[b"abcabcabcabcabcabcabc".as_slice(), &[0xff]].concat());

    assert_eq!(decode(&compressed(&payload)), [Seen::Refused(Violation::TextNotUtf8)]);
    assert!(matches!(decode(&raw(0xc2, &payload, MASK))[..], [Seen::Binary(_)]));
}

#[test]
fn the_limit_of_a_message_holds_for_what_it_inflates_to() {
    let text = rows(3_000);
    let wire = compressed(&deflated(text.as_bytes()));
    let limits = |message_bytes| Limits { message_bytes, ..LIMITS };

    assert_eq!(decode_within(&wire, &limits(text.len())), [Seen::Text(text.clone())]);
    let limit = text.len() - 1;
    assert_eq!(decode_within(&wire, &limits(limit)), [Seen::Refused(Violation::InflatesTooBig { limit })]);
}

/// 10 MB of zeros in about 10 KB, whole and in pieces: closed by name, and no memory for more than what is allowed.
#[test]
fn a_bomb_is_refused_after_as_much_as_a_message_may_have() {
    let bomb = deflated(&vec![0; 10 << 20]);
    assert!(bomb.len() < 11_000, "{}", bomb.len());
    let limits = Limits { message_bytes: 64 * 1024, inflate_ratio: 2_000, ..LIMITS };
    let mut inflater = Inflater::default();

    for pieces in [bomb.len(), bomb.len().div_ceil(60)] {
        let count = bomb.chunks(pieces).len();
        let frames = bomb.chunks(pieces).enumerate().map(|(i, piece)| {
            let opcode = if i == 0 { 0x41 } else { 0x00 };
            raw(opcode | if i + 1 == count { 0x80 } else { 0 }, piece, MASK)
        });
        let wire: Vec<u8> = frames.flatten().collect();
        let (seen, decoder) = run_with([&wire[..]], &limits, Some(&mut inflater));

        assert_eq!(seen, [Seen::Refused(Violation::InflatesTooBig { limit: 64 * 1024 })]);
        assert_eq!(decoder.buffered_bytes(), 0);
    }
    assert!(inflater.allocated_bytes() <= 2 * (64 + 16) * 1024, "{}", inflater.allocated_bytes());
}

#[test]
fn a_byte_may_become_only_so_many() {
    let limits = Limits { inflate_ratio: 50, ..LIMITS };
    let bomb = deflated(&[b'x'; 500_000]);

    assert_eq!(decode_within(&compressed(&bomb), &limits), [Seen::Refused(Violation::InflatesTooMuch { ratio: 50 })]);
    let small = "x".repeat(4_000);
    assert_eq!(decode_within(&compressed(&deflated(small.as_bytes())), &limits), [Seen::Text(small)], "small enough");
}

#[test]
fn memory_of_a_large_message_is_given_back_with_the_next() {
    let mut inflater = Inflater::default();
    let large = deflated(rows(900_000).as_bytes());

    run_with([&compressed(&large)[..]], &LIMITS, Some(&mut inflater));
    run_with([&compressed(HELLO)[..]], &LIMITS, Some(&mut inflater));

    assert!(inflater.allocated_bytes() <= 256 * 1024, "{}", inflater.allocated_bytes());
}

#[test]
fn each_violation_closes_by_its_code_and_name() {
    let table = [
        (Violation::CompressedBit, 1002, "compressed_bit"),
        (Violation::InflatesTooBig { limit: 1 }, 1009, "inflates_too_big"),
        (Violation::InflatesTooMuch { ratio: 1 }, 1008, "inflates_too_much"),
        (Violation::DeflateBroken, 1007, "deflate_broken"),
    ];
    for (violation, code, label) in table {
        assert_eq!((violation.close_code(), violation.label()), (code, label));
        assert!(violation.to_string().len() <= 123, "{violation} fits a close frame");
    }
}

#[test]
fn a_frame_inflates_to_what_was_compressed_at_every_level_and_length() {
    let mut inflater = Inflater::default();
    let limits = Limits { message_bytes: 1 << 20, ..LIMITS };
    for level in 1..=9 {
        let mut deflater = Deflater::new(level);
        for bytes in [120, 300, 4_000, 10_000, 140_000] {
            let text = rows(bytes);
            let frame = deflater.frame(OpCode::Text, text.as_bytes()).expect("compressible");
            assert_eq!(frame[0], 0xc1, "FIN, RSV1, text");
            assert!(frame.len() < text.len());

            let inflated = inflater.inflate(payload_of(&frame), &limits);

            assert_eq!(inflated, Ok(text.as_bytes()), "level {level}, {bytes} bytes");
        }
    }
}

#[test]
fn what_does_not_get_smaller_stays_plain() {
    let mut random = 1u64;
    let mut noise = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    };
    let mut deflater = Deflater::new(6);
    for bytes in [0, 1, 5, 100, 5_000] {
        let payload: Vec<u8> = (0..bytes).map(|_| noise()).collect();
        assert_eq!(deflater.frame(OpCode::Binary, &payload), None, "{bytes}");
    }
    assert!(deflater.frame(OpCode::Binary, &[7; 5_000]).is_some(), "the state is fresh after each");
}
