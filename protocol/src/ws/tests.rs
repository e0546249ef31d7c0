//! Specification of the decoder: what each rule of RFC 6455 admits and refuses, and what a hostile peer costs (rule E-2).

use std::ops::ControlFlow::Break;

use super::testing::{LIMITS, MASK, Seen, decode, decode_bytewise, raw, run, text};
use super::{Decoder, Event, Limits, Violation};

/// One violation, seen both in one read and byte by byte, and nothing held after it.
fn assert_refused(input: &[u8], violation: Violation) {
    let (seen, decoder) = run([input], &LIMITS);
    assert_eq!(seen, [Seen::Refused(violation)], "{input:x?}");
    assert!(decoder.is_idle());
    assert_eq!(decode_bytewise(input, &LIMITS), [Seen::Refused(violation)], "{input:x?} byte by byte");
}

#[test]
fn an_unmasked_frame_is_refused() {
    for first in [0x81, 0x82, 0x88, 0x89, 0x8a] {
        assert_refused(&[first, 0], Violation::Unmasked);
    }
}

#[test]
fn each_reserved_bit_is_refused() {
    for (bit, bits) in [(0x40, 0b100), (0x20, 0b010), (0x10, 0b001)] {
        assert_refused(&raw(0x81 | bit, b"x", MASK), Violation::ReservedBits { bits });
    }
}

#[test]
fn each_reserved_opcode_is_refused() {
    for opcode in (0x3..=0x7).chain(0xb..=0xf) {
        assert_refused(&raw(0x80 | opcode, b"", MASK), Violation::ReservedOpcode { opcode });
    }
}

#[test]
fn a_length_that_is_not_in_its_shortest_form_is_refused() {
    assert_refused(&[0x82, 0xfe, 0, 125], Violation::LengthNotMinimal { length: 125, used: 2 });
    assert_refused(
        &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        Violation::LengthNotMinimal { length: 65_535, used: 8 },
    );
}

#[test]
fn a_length_of_2_to_the_63_or_more_is_refused() {
    assert_refused(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], Violation::LengthTopBit);
}

#[test]
fn a_control_frame_of_more_than_125_bytes_is_refused() {
    assert_refused(&raw(0x89, &[0; 126], MASK), Violation::ControlTooLong);
    assert_eq!(decode(&raw(0x89, &[7; 125], MASK)), [Seen::Ping(vec![7; 125])]);
}

#[test]
fn a_fragmented_control_frame_is_refused() {
    for first in [0x08, 0x09, 0x0a] {
        assert_refused(&raw(first, b"", MASK), Violation::ControlFragmented);
    }
}

#[test]
fn a_continuation_without_a_start_is_refused() {
    assert_refused(&raw(0x80, b"x", MASK), Violation::ContinuationWithoutStart);
    assert_refused(&raw(0x00, b"x", MASK), Violation::ContinuationWithoutStart);

    let input = [text("whole"), raw(0x80, b"x", MASK)].concat();
    let expected = [Seen::Text("whole".into()), Seen::Refused(Violation::ContinuationWithoutStart)];
    assert_eq!(decode(&input), expected);
}

#[test]
fn a_message_inside_a_message_is_refused() {
    for second in [0x81, 0x01, 0x82, 0x02] {
        let input = [raw(0x01, b"a", MASK), raw(second, b"b", MASK)].concat();
        assert_refused(&input, Violation::MessageInsideMessage);
    }
}

#[test]
fn a_message_over_the_limit_is_refused_from_its_header_alone() {
    let limits = Limits { message_bytes: 1000, ..LIMITS };
    let head = &raw(0x82, &[0; 1001], MASK)[..8];

    let (seen, decoder) = run([head], &limits);

    assert_eq!(seen, [Seen::Refused(Violation::MessageTooBig { claimed: 1001, limit: 1000 })]);
    assert_eq!(decoder.buffered_bytes(), 0);
    assert_eq!(run([&raw(0x82, &[0; 1000], MASK)[..]], &limits).0, [Seen::Binary(vec![0; 1000])]);
}

#[test]
fn the_size_of_a_message_counts_over_all_its_fragments() {
    let limits = Limits { message_bytes: 10, ..LIMITS };
    let fits = [raw(0x02, &[1; 6], MASK), raw(0x80, &[2; 4], MASK)].concat();
    let over = [&raw(0x02, &[1; 6], MASK)[..], &raw(0x80, &[2; 5], MASK)[..6]].concat();

    assert_eq!(run([&fits[..]], &limits).0, [Seen::Binary(vec![1, 1, 1, 1, 1, 1, 2, 2, 2, 2])]);
    assert_eq!(run([&over[..]], &limits).0, [Seen::Refused(Violation::MessageTooBig { claimed: 11, limit: 10 })]);
}

#[test]
fn a_claimed_length_of_2_to_the_63_minus_1_allocates_nothing() {
    let unlimited = Limits { message_bytes: usize::MAX, ..LIMITS };
    let input = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 9, 9, 9];

    let (refused, none) = run([&input[..]], &LIMITS);
    let (seen, decoder) = run([&input[..]], &unlimited);

    let claimed = (1 << 63) - 1;
    assert_eq!(refused, [Seen::Refused(Violation::MessageTooBig { claimed, limit: LIMITS.message_bytes })]);
    assert_eq!(none.buffered_bytes(), 0);
    assert_eq!(seen, []);
    assert!(decoder.buffered_bytes() < 512, "{} bytes for 3 that arrived", decoder.buffered_bytes());
}

#[test]
fn memory_follows_what_arrived_and_is_given_back() {
    let message = raw(0x82, &[5; 100_000], MASK);
    let (_, decoder) = run([&message[..1000]], &LIMITS);
    assert!(decoder.buffered_bytes() < 2 * 1000 + 512, "{}", decoder.buffered_bytes());

    let (seen, decoder) = run(message.chunks(999), &LIMITS);
    assert_eq!(seen, [Seen::Binary(vec![5; 100_000])]);
    assert!(decoder.is_idle());
    assert_eq!(decoder.buffered_bytes(), 0);
}

#[test]
fn capacity_never_passes_the_message_limit() {
    let limits = Limits { message_bytes: 1000, ..LIMITS };
    for first in [0x82, 0x81] {
        let message = raw(first, &[b'x'; 1000], MASK);
        let (_, decoder) = run(message[..1007].chunks(90), &limits);
        assert!(decoder.buffered_bytes() <= 1000 + 256, "{}", decoder.buffered_bytes());
    }
}

#[test]
fn one_byte_fragments_stop_at_the_fragment_bound() {
    let limits = Limits { fragments: 4, ..LIMITS };
    for payload in [&b"x"[..], b""] {
        let fits = [vec![raw(0x01, payload, MASK)], vec![raw(0x00, payload, MASK); 2], vec![raw(0x80, payload, MASK)]];
        let over = [vec![raw(0x01, payload, MASK)], vec![raw(0x00, payload, MASK); 4]];

        assert_eq!(
            run([&fits.concat().concat()[..]], &limits).0,
            [Seen::Text(String::from_utf8_lossy(payload).repeat(4))]
        );
        let refused = [Seen::Refused(Violation::TooManyFragments { limit: 4 })];
        assert_eq!(run([&over.concat().concat()[..]], &limits).0, refused);
        assert_eq!(decode_bytewise(&over.concat().concat(), &limits), refused);
    }
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    for bad in [&b"\xff"[..], b"a\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"] {
        assert_refused(&text(bad), Violation::TextNotUtf8);
    }
    assert_eq!(decode(&raw(0x82, b"\xff", MASK)), [Seen::Binary(vec![0xff])]);
}

/// Autobahn 6.4.1 and 6.4.2: the second fragment brings the bad byte, the third never arrives.
#[test]
fn bad_utf8_is_refused_in_the_fragment_that_brings_it() {
    let input = [raw(0x01, "κόσμε".as_bytes(), MASK), raw(0x00, b"\xf4\x90", MASK)].concat();

    assert_refused(&input, Violation::TextNotUtf8);
}

/// Autobahn 6.4.3 and 6.4.4: one frame in several reads.
#[test]
fn bad_utf8_is_refused_inside_an_unfinished_frame() {
    let frame = text(b"\xce\xba\xf4\x90\x80\x80edited");
    let up_to_bad = 6 + 4;

    assert_eq!(run([&frame[..up_to_bad - 1]], &LIMITS).0, []);
    assert_eq!(run([&frame[..up_to_bad]], &LIMITS).0, [Seen::Refused(Violation::TextNotUtf8)]);
    assert_eq!(decode_bytewise(&frame[..up_to_bad], &LIMITS), [Seen::Refused(Violation::TextNotUtf8)]);
}

#[test]
fn a_character_may_be_cut_by_a_fragment_but_not_by_the_message() {
    let whole = [raw(0x01, b"\xf0\x9f", MASK), raw(0x00, b"", MASK), raw(0x80, b"\x98\x80", MASK)].concat();
    let cut = [raw(0x01, b"\xf0\x9f", MASK), raw(0x80, b"\x98", MASK)].concat();

    assert_eq!(decode(&whole), [Seen::Text("😀".into())]);
    assert_refused(&cut, Violation::TextNotUtf8);
}

#[test]
fn control_frames_between_fragments_leave_the_message_alone() {
    let input = [
        raw(0x01, b"one ", MASK),
        raw(0x89, b"ping", MASK),
        raw(0x00, b"two ", MASK),
        raw(0x8a, b"", MASK),
        raw(0x80, b"three", MASK),
    ]
    .concat();
    let expected = [Seen::Ping(b"ping".to_vec()), Seen::Pong(vec![]), Seen::Text("one two three".into())];

    assert_eq!(decode(&input), expected);
    assert_eq!(decode_bytewise(&input, &LIMITS), expected);
}

#[test]
fn a_close_may_be_empty_or_carry_a_valid_code_and_reason() {
    assert_eq!(decode(&raw(0x88, b"", MASK)), [Seen::Close(None, String::new())]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999u16] {
        let payload = [&code.to_be_bytes()[..], "füür".as_bytes()].concat();
        assert_eq!(decode(&raw(0x88, &payload, MASK)), [Seen::Close(Some(code), "füür".into())]);
    }
}

#[test]
fn a_close_with_one_byte_is_refused() {
    assert_refused(&raw(0x88, b"\x03", MASK), Violation::CloseCodeCut);
}

/// Autobahn 7.9.
#[test]
fn a_close_code_that_must_not_be_sent_is_refused() {
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535u16] {
        assert_refused(&raw(0x88, &code.to_be_bytes(), MASK), Violation::CloseCode { code });
    }
}

/// Autobahn 7.5.1.
#[test]
fn a_close_reason_that_is_not_utf8_is_refused() {
    assert_refused(&raw(0x88, b"\x03\xe8\xed\xa0\x80", MASK), Violation::CloseReasonNotUtf8);
}

#[test]
fn nothing_after_a_close_is_decoded() {
    let input = [raw(0x88, b"\x03\xe8", MASK), b"\xff\xff\xff".to_vec()].concat();

    assert_eq!(decode(&input), [Seen::Close(Some(1000), String::new())]);
}

#[test]
fn a_break_discards_the_rest_of_the_read_and_what_was_kept() {
    let mut input = [raw(0x01, b"begun", MASK), raw(0x89, b"", MASK), raw(0x80, b"end", MASK)].concat();
    let mut decoder = Decoder::default();
    let mut calls = 0;

    let outcome = decoder.decode(&mut input, &LIMITS, None, &mut |_| {
        calls += 1;
        Break(())
    });

    assert_eq!((outcome, calls), (Ok(()), 1));
    assert!(decoder.is_idle());
}

#[test]
fn a_whole_message_is_a_slice_of_the_input() {
    let mut input = [text("first"), text("second")].concat();
    let bounds = input.as_ptr_range();
    let mut inside = 0;

    let outcome = Decoder::default().decode(&mut input, &LIMITS, None, &mut |event| {
        if let Event::Text(text) = event {
            inside += usize::from(bounds.contains(&text.as_ptr()));
        }
        std::ops::ControlFlow::Continue(())
    });

    assert_eq!((outcome, inside), (Ok(()), 2));
}

#[test]
fn close_codes_are_those_of_the_rfc() {
    assert_eq!(Violation::Unmasked.close_code(), 1002);
    assert_eq!(Violation::TextNotUtf8.close_code(), 1007);
    assert_eq!(Violation::CloseReasonNotUtf8.close_code(), 1007);
    assert_eq!(Violation::MessageTooBig { claimed: 2, limit: 1 }.close_code(), 1009);
    assert_eq!(Violation::TooManyFragments { limit: 1 }.close_code(), 1008);
    assert_eq!(Violation::TooManyFragments { limit: 1 }.label(), "too_many_fragments");
}

#[test]
fn what_follows_a_break_is_left_for_another_decoder() {
    let (first, second) = (text("one"), text("two"));
    for cut in 0..first.len() {
        let mut decoder = Decoder::default();
        let mut wire: Vec<u8> = first.iter().chain(&second).copied().collect();
        let mut stop = |_: Event<'_>| Break(());
        decoder.decode_some(&mut wire[..cut], &LIMITS, None, &mut stop).expect("lawful");

        let used = decoder.decode_some(&mut wire[cut..], &LIMITS, None, &mut stop).expect("lawful");

        assert_eq!((cut + used, &wire[cut + used..]), (first.len(), &second[..]), "cut at {cut}");
    }
}
