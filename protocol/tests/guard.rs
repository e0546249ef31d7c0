//! What the hot paths of the wire must not begin to do: hold memory when idle, or copy what they could lend.
//! Proven without a clock and without an allocator of our own (that would need `unsafe`): by sizes, and by addresses –
//! what lies inside the input was not copied, and what fills its buffer exactly was allocated once.

use std::ops::ControlFlow::Continue;

use bytes::Bytes;
use prost::Message as _;
use tidegate_protocol::handshake::{self, Origins, Parsed, Policy};
use tidegate_protocol::message::{self, Verb};
use tidegate_protocol::push::{self, Numbering, Whom};
use tidegate_protocol::records::{Push, PushBatch};
use tidegate_protocol::ws::{Decoder, Event, Limits};

const MASK: [u8; 4] = [0x1f, 0x00, 0xa5, 0xff];
const LIMITS: Limits = Limits { message_bytes: 1 << 20, fragments: 64, inflate_ratio: 100 };

/// A masked frame of a client with a payload below 126 bytes.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let short = u8::try_from(payload.len()).expect("short");
    let masked = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [first, 0x80 | short].into_iter().chain(MASK).chain(masked).collect()
}

/// Whether `part` lies inside `whole`, by address.
fn is_lent(whole: &[u8], part: &[u8]) -> bool {
    let (whole, part) = (whole.as_ptr_range(), part.as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}

#[test]
fn an_idle_decoder_is_one_empty_pointer() {
    assert_eq!(size_of::<Decoder>(), 8);
    assert_eq!(Decoder::default().buffered_bytes(), 0);
}

#[test]
fn whole_messages_are_decoded_in_place() {
    let mut input: Vec<u8> = [(0x81, "text"), (0x82, "binary"), (0x89, "ping")]
        .iter()
        .flat_map(|f| client_frame(f.0, f.1.as_bytes()))
        .collect();
    let read = input.as_ptr_range();
    let mut decoder = Decoder::default();
    let mut lent = 0;

    let outcome = decoder.decode(&mut input, &LIMITS, None, &mut |event| {
        let payload = match event {
            Event::Text(text) => text.as_bytes(),
            Event::Binary(bytes) | Event::Ping(bytes) | Event::Pong(bytes) => bytes,
            Event::Close { .. } => panic!("none was sent"),
        };
        assert!(read.contains(&payload.as_ptr()), "{event:?} was copied");
        lent += 1;
        Continue(())
    });

    assert_eq!((outcome, lent), (Ok(()), 3));
    assert!(decoder.is_idle());
}

#[test]
fn a_decoder_holds_nothing_once_what_was_cut_is_whole() {
    let frame = client_frame(0x81, b"cut at every byte");
    for cut in 1..frame.len() {
        let (mut head, mut tail) = (frame[..cut].to_vec(), frame[cut..].to_vec());
        let mut decoder = Decoder::default();

        decoder.decode(&mut head, &LIMITS, None, &mut |_| Continue(())).expect("a valid stream");
        assert!(decoder.buffered_bytes() > 0, "cut at {cut}");
        decoder.decode(&mut tail, &LIMITS, None, &mut |_| Continue(())).expect("a valid stream");

        assert_eq!(decoder.buffered_bytes(), 0, "cut at {cut}");
    }
}

#[test]
fn an_upgrade_borrows_from_the_request() {
    let request = b"GET /ws?user=ann HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer x\r\n\r\n";
    let origins = Origins::parse(&[]).expect("none");
    let policy = Policy { paths: &["/ws"], origins: &origins, head_bytes_max: 4_096, deflate: true };

    let Ok(Parsed::Upgrade(upgrade, _)) = handshake::parse(request, &policy) else { panic!("an admissible request") };

    for part in [upgrade.key, upgrade.path, upgrade.query, upgrade.authorization.expect("was sent")] {
        assert!(is_lent(request, part.as_bytes()), "{part} was copied");
    }
}

#[test]
fn the_101_fits_the_buffer_it_is_given() {
    let upgrade = handshake::Upgrade {
        key: "dGhlIHNhbXBsZSBub25jZQ==",
        subprotocol: true,
        path: "/ws",
        query: "",
        authorization: None,
        deflate: None,
    };
    let mut response = Vec::with_capacity(256);
    let before = response.capacity();

    handshake::accept_response(&upgrade, &mut response);

    assert_eq!(response.capacity(), before, "{} bytes made it grow", response.len());
}

#[test]
fn a_ping_borrows_from_its_text() {
    let text = r#"{"type":"PING","id":"a","data":{"n":1}}"#;

    let request = message::parse(text).expect("a request");

    let Verb::Ping(Some(data)) = request.verb else { panic!("a PING with data") };
    for part in [data, request.id.expect("an id")] {
        assert!(is_lent(text.as_bytes(), part.as_bytes()), "{part} was copied");
    }
}

#[test]
fn a_push_frame_is_allocated_once_at_its_size() {
    for count in [1, 100, 1_000] {
        let items = vec![Bytes::from(vec![b'1'; 100]); count];
        let numbering = Numbering { epoch: "e", first: 1, last: count as u64 };

        let frame = push::encode(&Whom::Room("r"), Some(numbering), &items);

        let len = frame.len();
        let whole = frame.try_into_mut().expect("nobody else has it yet");
        assert_eq!(whole.capacity(), len, "{count} items");
    }
}

#[test]
fn messages_of_a_batch_are_parts_of_its_body() {
    let push = Push { messages: vec![Bytes::from_static(b"{\"a\":1}"); 3], ..Push::default() };
    let batch = PushBatch { logic: 1, sequence: 1, epoch: 1, pushes: vec![push; 256] };
    let body = Bytes::from(batch.encode_to_vec());

    let batch = PushBatch::decode(body.clone()).expect("a batch");

    let mut messages = batch.pushes.iter().flat_map(|push| &push.messages);
    assert!(messages.all(|message| is_lent(&body, message)), "the payload was copied on its way in");
}
