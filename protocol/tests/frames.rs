//! The bytes of every frame that is built by itself for one client, beside `protocol/tests/frames.golden`: what a client of an
//! older version was promised. `UPDATE=1` writes the file anew; a line that changes is a change of the protocol.

use bytes::Bytes;
use tidegate_protocol::command;
use tidegate_protocol::ids::CommandId;
use tidegate_protocol::push::{self, Numbering, Whom};
use tidegate_protocol::reply::{self, Error, Hello, JoinedRoom, Limits, Missing, Presence, Reconnect, RoomError};

/// A name that needs every kind of escape.
const AWKWARD: &str = "a\"\\/\u{7}\n\u{2028}ü";

fn hello() -> Hello<'static> {
    Hello {
        connection: "0e38q0x9w100fg000004000000",
        user: Some(AWKWARD),
        server: "tidegate/0.1.0",
        ping_ms: 25_000,
        merge_ms: 1_000,
        limits: Limits { message_bytes: 65_536, rooms: 100 },
        reconnect: Reconnect { base_ms: 500, max_ms: 20_000, jitter_percent: 50 },
        time_ms: 1_795_258_206_694,
        expires_ms: Some(1_795_258_806_000),
    }
}

/// One text a line, in the order of the functions.
struct Frames(Vec<String>);

impl Frames {
    fn take(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.0.push(String::from_utf8(out).expect("JSON is UTF-8"));
    }
}

fn greetings(frames: &mut Frames) {
    frames.take(|out| reply::hello(out, &hello()));
    frames.take(|out| reply::hello(out, &Hello { user: None, expires_ms: None, ..hello() }));
    for jitter_percent in [0, 7, 100] {
        let reconnect = Reconnect { base_ms: 1, max_ms: u32::MAX, jitter_percent };
        frames.take(|out| reply::hello(out, &Hello { reconnect, ..hello() }));
    }
    frames.take(|out| reply::pong(out, Some("7"), Some(r#" {"a": [1]} "#), 5));
    frames.take(|out| reply::pong(out, Some(r#""x""#), Some(r#"{"time_ms":1,"b":2}"#), 5));
    frames.take(|out| reply::pong(out, None, None, u64::MAX));
    frames.take(|out| reply::goaway(out, "draining", (0, 5_000)));
}

fn rooms(frames: &mut Frames) {
    let both = [
        JoinedRoom::Joined { room: AWKWARD, online: 3, epoch: "1a1fdb96e89-4", seq: u64::MAX },
        JoinedRoom::Refused { room: AWKWARD, error: RoomError { code: "invalid", message: AWKWARD } },
    ];
    frames.take(|out| reply::joined(out, Some("2"), &both));
    frames.take(|out| reply::joined(out, None, &both[..1]));
    frames.take(|out| reply::joined(out, Some("-1.5e3"), &[]));
    frames.take(|out| reply::left(out, Some(r#""\u00fc""#), AWKWARD));
    frames.take(|out| reply::left_because(out, AWKWARD, "kicked"));
    let sample = [AWKWARD.to_owned(), "bob".to_owned()];
    let some = Presence { room: AWKWARD, joined: 3, left: 1, online: 9_002, users: 8_713, sample: &sample };
    frames.take(|out| reply::presence(out, &some));
    frames.take(|out| reply::presence(out, &Presence { room: "r", ..Presence::default() }));
    let counts = br#"{"room":"chat:1","online":9002,"users":8713}"#;
    frames.take(|out| reply::told(out, "PRESENCE", Some("7"), counts));
    let members = br#"{"room":"chat:1","members":[{"connection":"c"}],"online":1,"users":0,"is_sample":true}"#;
    frames.take(|out| reply::told(out, "MEMBERS", None, members));
}

fn outcomes(frames: &mut Frames) {
    frames.take(|out| reply::sent(out, Some("4"), "01KAZ3V0N2F7R6Q4C1S7M5T9XW", 1_795_258_206_703));
    frames.take(|out| reply::sent(out, None, AWKWARD, 0));
    frames.take(|out| reply::refreshed(out, Some("4"), 1_795_258_806_000));
    frames.take(|out| reply::error(out, Some("5"), "unknown_type", AWKWARD, false));
    frames.take(|out| reply::error(out, None, AWKWARD, "m", true));
    let rate = Error { code: "rate", message: "slower", retryable: true, reason: None, retry_after_ms: Some(70) };
    frames.take(|out| reply::error_with(out, Some("6"), &rate));
    frames.take(|out| reply::error(out, None, "offline", "nobody", true));
    frames.take(|out| reply::unauthorized(out, Some("1"), "token_expired", AWKWARD));
}

fn what_comes_by_itself(frames: &mut Frames) {
    let range = Missing::Range { from: 5, to: 400 };
    frames.take(|out| reply::gap(out, Whom::Room(AWKWARD), range, "slow"));
    frames.take(|out| reply::gap(out, Whom::All, range, "expired"));
    frames.take(|out| reply::gap(out, Whom::User, range, "slow"));
    frames.take(|out| reply::gap(out, Whom::User, Missing::Count(3), "slow"));
    frames.take(|out| reply::gap(out, Whom::Room("r"), Missing::Count(1), "slow"));
    frames.take(|out| reply::gap(out, Whom::Connection, Missing::Count(2), "slow"));
    let id = CommandId { logic: 0x1f3a_6c0d_e8b2_4f57, number: 42, secret: 7 };
    frames.take(|out| out.extend(command::message(id, AWKWARD, r#"{"a": 1}"#, 5_000)));
    let items = [Bytes::from_static(br#"{"n": 1}"#), Bytes::from_static(b"3")];
    let numbering = Numbering { epoch: "1a1fdb96e89", first: 12, last: 13 };
    for subject in [Whom::All, Whom::Room(AWKWARD), Whom::User, Whom::Connection] {
        // Behind the two bytes or four of the frame's head.
        let frame = push::encode(&subject, Some(numbering), &items);
        frames.take(|out| out.extend_from_slice(&frame[if frame[1] == 126 { 4 } else { 2 }..]));
    }
    let frame = push::encode(&Whom::Room("r"), None, &items);
    frames.take(|out| out.extend_from_slice(&frame[2..]));
}

/// Rules C-5, L-1, R-1, R-2, M-1, M-3, S-1, S-3, E-1 and E-4: to the byte.
#[test]
fn frames_are_the_bytes_they_were() {
    let mut frames = Frames(Vec::new());
    greetings(&mut frames);
    rooms(&mut frames);
    outcomes(&mut frames);
    what_comes_by_itself(&mut frames);

    let text = frames.0.join("\n") + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frames.golden"), &text).expect("written");
    }
    let golden = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frames.golden")).expect("read");
    assert_eq!(text, golden);
}
