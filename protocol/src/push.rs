//! The PUSH frame: a batch of messages of one target, encoded and framed once for all its receivers (rule M-1).
//! The payload of a message is copied here, from the publisher's bytes into the frame, and nowhere after.
//! Invariant: the bytes returned are one whole unmasked WebSocket text frame.

use bytes::Bytes;

use crate::json::write_string;
use crate::ws;

/// Whom a PUSH or a GAP is for, as its receiver is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom<'a> {
    /// For everyone at this gateway.
    All,
    /// For the members of a room.
    Room(&'a str),
    /// For the connections of the user who gets it.
    User,
    /// For this connection.
    Connection,
}

/// Where a batch stands in its target's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering<'a> {
    /// Life of the numbering; a new one begins at 1 again.
    pub epoch: &'a str,
    /// Number of the first message.
    pub first: u64,
    /// Number of the last message.
    pub last: u64,
}

/// Encodes and frames one batch. `numbering` is absent for messages outside the numbering (narrowed pushes).
#[must_use]
pub fn encode(whom: &Whom<'_>, numbering: Option<Numbering<'_>>, items: &[Bytes]) -> Bytes {
    let mut prefix = Vec::with_capacity(96);
    prefix.extend_from_slice(br#"{"type":"PUSH","data":{"#);
    match whom {
        Whom::All | Whom::Connection => {}
        Whom::Room(room) => {
            prefix.extend_from_slice(br#""room":"#);
            write_string(&mut prefix, room);
            prefix.push(b',');
        }
        Whom::User => prefix.extend_from_slice(br#""user":true,"#),
    }
    if let Some(n) = numbering {
        prefix.extend_from_slice(br#""epoch":"#);
        write_string(&mut prefix, n.epoch);
        prefix.extend_from_slice(format!(r#","seq":[{},{}],"#, n.first, n.last).as_bytes());
    }
    prefix.extend_from_slice(br#""items":["#);
    let suffix = b"]}}";
    let commas = items.len().saturating_sub(1);
    let payload = prefix.len() + items.iter().map(Bytes::len).sum::<usize>() + commas + suffix.len();

    let head = ws::head(ws::OpCode::Text, payload);
    let mut frame = Vec::with_capacity(head.len() + payload);
    frame.extend_from_slice(&head);
    frame.extend_from_slice(&prefix);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            frame.push(b',');
        }
        frame.extend_from_slice(item);
    }
    frame.extend_from_slice(suffix);
    debug_assert_eq!(frame.len(), head.len() + payload, "the head states the payload's length");
    Bytes::from(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(frame: &Bytes) -> String {
        let skip = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        String::from_utf8_lossy(&frame[skip..]).into_owned()
    }

    /// Rule M-1.
    #[test]
    fn items_are_the_publishers_bytes_in_order() {
        let items = [Bytes::from_static(b"{\"a\": 1}"), Bytes::from_static(b"\"x\""), Bytes::from_static(b"3")];
        let numbering = Numbering { epoch: "e1", first: 7, last: 9 };

        let frame = encode(&Whom::Room("r\"1"), Some(numbering), &items);

        assert_eq!(
            text(&frame),
            r#"{"type":"PUSH","data":{"room":"r\"1","epoch":"e1","seq":[7,9],"items":[{"a": 1},"x",3]}}"#
        );
    }

    #[test]
    fn every_whom_is_valid_json() {
        let items = [Bytes::from_static(b"null")];
        for whom in [Whom::All, Whom::Room("r"), Whom::User, Whom::Connection] {
            let frame = encode(&whom, None, &items);
            let json: Result<serde_json::Value, _> = serde_json::from_str(&text(&frame));
            assert!(json.is_ok(), "{whom:?}");
        }
    }

    #[test]
    fn long_batches_carry_the_long_head() {
        let items = vec![Bytes::from(vec![b'1'; 70_000])];
        let frame = encode(&Whom::All, None, &items);
        assert_eq!(frame[0], 0x81);
        assert_eq!(frame[1], 127);
        assert_eq!(frame.len(), 10 + text(&frame).len());
    }
}
