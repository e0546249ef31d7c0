//! Properties of the decoder: however reads cut the stream, it says the same; and nothing makes it panic.

use proptest::prelude::*;
use proptest::sample::Index;

use super::testing::{LIMITS, MASK, Seen, decode, raw, run, text};
use super::{Limits, Violation};

/// Small limits, so that arbitrary bytes reach them.
const TIGHT: Limits = Limits { message_bytes: 40, fragments: 3, inflate_ratio: 100 };

/// A message and how it goes on the wire.
#[derive(Clone, Debug)]
struct Sent {
    payload: Seen,
    mask: [u8; 4],
    /// Where it is cut into frames, and the ping or pong sent at each cut.
    cuts: Vec<(Index, Option<Control>)>,
}

/// Whether it is a ping (else a pong), and its payload.
type Control = (bool, Vec<u8>);

fn control_payload() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=125)
}

fn sent() -> impl Strategy<Value = Sent> {
    let payload = prop_oneof![
        3 => ".{0,200}".prop_map(Seen::Text),
        2 => prop::collection::vec(any::<u8>(), 0..400).prop_map(Seen::Binary),
        1 => prop::collection::vec(any::<u8>(), 65_530..65_545).prop_map(Seen::Binary),
        1 => control_payload().prop_map(Seen::Ping),
        1 => control_payload().prop_map(Seen::Pong),
    ];
    let cut = (any::<Index>(), prop::option::of((any::<bool>(), control_payload())));
    (payload, any::<[u8; 4]>(), prop::collection::vec(cut, 0..5)).prop_map(|(payload, mask, cuts)| Sent {
        payload,
        mask,
        cuts,
    })
}

/// Bytes on the wire, and the events they stand for.
fn encode(messages: &[Sent]) -> (Vec<u8>, Vec<Seen>) {
    let mut wire = Vec::new();
    let mut events = Vec::new();
    for Sent { payload, mask, cuts } in messages {
        let (opcode, bytes) = match payload {
            Seen::Text(text) => (1u8, text.as_bytes()),
            Seen::Binary(bytes) => (2, &bytes[..]),
            Seen::Ping(bytes) => (9, &bytes[..]),
            Seen::Pong(bytes) => (10, &bytes[..]),
            Seen::Close(..) | Seen::Refused(_) => unreachable!("not generated"),
        };
        let mut first = opcode;
        let mut from = 0;
        if opcode < 8 {
            let mut cuts: Vec<_> = cuts.iter().map(|(at, control)| (at.index(bytes.len() + 1), control)).collect();
            cuts.sort_by_key(|(at, _)| *at);
            for (at, control) in cuts {
                wire.extend(raw(first, &bytes[from..at], *mask));
                (first, from) = (0, at);
                if let Some((is_ping, payload)) = control {
                    wire.extend(raw(if *is_ping { 0x89 } else { 0x8a }, payload, *mask));
                    events.push(if *is_ping { Seen::Ping(payload.clone()) } else { Seen::Pong(payload.clone()) });
                }
            }
        }
        wire.extend(raw(0x80 | first, &bytes[from..], *mask));
        events.push(payload.clone());
    }
    (wire, events)
}

/// `wire` cut into reads at `cuts`.
fn reads<'a>(wire: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|i| i.index(wire.len() + 1)).collect();
    at.extend([0, wire.len()]);
    at.sort_unstable();
    at.windows(2).map(|w| &wire[w[0]..w[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_frames_give_their_events_however_they_are_read(
        messages in prop::collection::vec(sent(), 0..6),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let (wire, events) = encode(&messages);

        let (seen, decoder) = run([&wire[..]], &LIMITS);
        prop_assert_eq!(&seen, &events);
        prop_assert!(decoder.is_idle());

        let (seen, decoder) = run(reads(&wire, &cuts), &LIMITS);
        prop_assert_eq!(&seen, &events);
        prop_assert!(decoder.is_idle());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic_and_are_judged_alike_however_they_are_read(
        wire in prop::collection::vec(any::<u8>(), 0..200),
        cuts in prop::collection::vec(any::<Index>(), 0..8),
    ) {
        prop_assert_eq!(run(reads(&wire, &cuts), &TIGHT).0, run([&wire[..]], &TIGHT).0);
    }

    /// Arbitrary bytes rarely get past a head; these have plausible ones.
    #[test]
    fn arbitrary_frames_never_panic_and_are_judged_alike_however_they_are_read(
        frames in prop::collection::vec(
            (prop::sample::select(vec![0x00u8, 0x01, 0x02, 0x80, 0x81, 0x82, 0x89, 0x8a, 0x88, 0x08, 0xc1, 0x83]),
             prop::collection::vec(prop_oneof![any::<u8>(), Just(b'a'), Just(0xc3), Just(0xa9)], 0..16),
             any::<[u8; 4]>()), 0..12),
        cuts in prop::collection::vec(any::<Index>(), 0..8),
    ) {
        let wire: Vec<u8> = frames.iter().flat_map(|(first, payload, mask)| raw(*first, payload, *mask)).collect();

        let (seen, decoder) = run(reads(&wire, &cuts), &TIGHT);

        prop_assert_eq!(seen, run([&wire[..]], &TIGHT).0);
        prop_assert!(decoder.buffered_bytes() <= 512);
    }
}

#[test]
fn each_fixed_case_cut_at_every_byte_says_the_same() {
    let refused = |v| vec![Seen::Refused(v)];
    let long = "ü".repeat(40_000);
    let cases: Vec<(Vec<u8>, Vec<Seen>)> = vec![
        (text("häß😀"), vec![Seen::Text("häß😀".into())]),
        (text(""), vec![Seen::Text(String::new())]),
        (
            [raw(0x01, b"\xf0\x9f\x98", MASK), raw(0x89, b"mid", MASK), raw(0x80, b"\x80!", MASK), text("next")]
                .concat(),
            vec![Seen::Ping(b"mid".to_vec()), Seen::Text("😀!".into()), Seen::Text("next".into())],
        ),
        (raw(0x82, &[9; 300], MASK), vec![Seen::Binary(vec![9; 300])]),
        (raw(0x88, b"\x03\xe9bye", MASK), vec![Seen::Close(Some(1001), "bye".into())]),
        (text(b"ok\xf5"), refused(Violation::TextNotUtf8)),
        (raw(0x83, b"x", MASK), refused(Violation::ReservedOpcode { opcode: 3 })),
        (raw(0xb1, b"x", MASK), refused(Violation::ReservedBits { bits: 0b011 })),
        (vec![0x81, 0x05, b'h', b'e', b'l', b'l', b'o'], refused(Violation::Unmasked)),
        (
            raw(0x82, &vec![0; LIMITS.message_bytes + 1], MASK)[..600].to_vec(),
            refused(Violation::MessageTooBig { claimed: LIMITS.message_bytes as u64 + 1, limit: LIMITS.message_bytes }),
        ),
        ([raw(0x02, b"x", MASK), raw(0x82, b"y", MASK)].concat(), refused(Violation::MessageInsideMessage)),
    ];
    for (wire, expected) in &cases {
        assert_eq!(&decode(wire), expected);
        for at in 0..=wire.len() {
            assert_eq!(&run([&wire[..at], &wire[at..]], &LIMITS).0, expected, "cut at {at}");
        }
        assert_eq!(&run(wire.chunks(1), &LIMITS).0, expected, "byte by byte");
    }
    let wire = text(&long);
    assert_eq!(run(wire.chunks(1), &LIMITS).0, [Seen::Text(long)]);
}
