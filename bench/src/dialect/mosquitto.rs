//! MQTT over WebSocket as Mosquitto has it: one control packet a binary frame. Published over plain TCP.
//! How it is started stands in `peers`.
//! Words (MQTT 3.1.1): CONNECT, CONNACK, SUBSCRIBE to `tide` at QoS 0, SUBACK, then PUBLISH.

use super::Dialect;
use super::content::{self, Advice, Content};
use super::form::{Form, Stream};
use super::head;

#[derive(Debug)]
pub struct Mosquitto;

/// Protocol MQTT, level 4, clean session, no keep-alive, no name: the broker gives one.
const CONNECT: [u8; 14] = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 0];
/// Packet 1: `tide` at QoS 0.
const SUBSCRIBE: [u8; 11] = [0x82, 9, 0, 1, 0, 4, b't', b'i', b'd', b'e', 0];

impl Dialect for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
    }

    fn subprotocol(&self) -> Option<&'static str> {
        Some("mqtt")
    }

    fn opcode(&self) -> u8 {
        head::BINARY
    }

    fn opening(&self) -> Option<Vec<u8>> {
        Some(CONNECT.to_vec())
    }

    fn join(&self, _rooms: &[String]) -> Option<Vec<u8>> {
        Some(SUBSCRIBE.to_vec())
    }

    fn parse(&self, payload: &[u8]) -> Content {
        parse(payload).unwrap_or_else(|why| Content::Invalid(why.to_owned()))
    }

    fn form(&self) -> Form {
        Form::Stream(&Self)
    }
}

/// A frame's control packets.
fn parse(mut bytes: &[u8]) -> Result<Content, &'static str> {
    let mut messages = Vec::new();
    while let Some((kind, rest)) = bytes.split_first() {
        let (length, rest) = remaining_length(rest)?;
        if rest.len() < length {
            return Err("a packet is cut");
        }
        let (body, after) = rest.split_at(length);
        bytes = after;
        match (kind, body) {
            (0x20, [_, 0]) => return Ok(Content::Hello(Advice::default())),
            (0x90, [0, 1, 0]) => return Ok(Content::Joined(Vec::new())),
            // QoS 0, whatever DUP and RETAIN are: topic, then the message.
            (0x30 | 0x31, [high, low, rest @ ..]) => {
                let topic = usize::from(u16::from_be_bytes([*high, *low]));
                messages.push(rest.get(topic..).ok_or("a topic is cut")?);
            }
            _ => return Ok(Content::Other(format!("packet {kind:#x} {:?}", &body[..body.len().min(8)]))),
        }
    }
    Ok(content::messages(messages.into_iter(), false))
}

/// MQTT 3.1.1 section 2.2.3: seven bits a byte, least first, at most four.
fn remaining_length(bytes: &[u8]) -> Result<(usize, &[u8]), &'static str> {
    let mut length = 0;
    for position in 0..4 {
        let byte = *bytes.get(position).ok_or("a length is cut")?;
        length |= usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Ok((length, &bytes[position + 1..]));
        }
    }
    Err("a length has more than four bytes")
}

fn write_remaining_length(mut length: usize, out: &mut Vec<u8>) {
    loop {
        let more = if length > 0x7f { 0x80 } else { 0 };
        out.push((length & 0x7f) as u8 | more);
        length >>= 7;
        if more == 0 {
            break;
        }
    }
}

impl Stream for Mosquitto {
    fn opening(&self) -> Vec<u8> {
        CONNECT.to_vec()
    }

    fn message(&self, message: &[u8], out: &mut Vec<u8>) {
        const TOPIC: &[u8] = b"\x00\x04tide";
        out.push(0x30);
        write_remaining_length(TOPIC.len() + message.len(), out);
        out.extend_from_slice(TOPIC);
        out.extend_from_slice(message);
    }

    /// PINGREQ …
    fn flush(&self) -> &'static [u8] {
        &[0xc0, 0]
    }

    /// … and PINGRESP.
    fn flushed(&self) -> &'static [u8] {
        &[0xd0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_what_a_client_reads_for_each_form_of_length() {
        for size in [30, 127, 128, 1_024, 20_000] {
            let mut wire = Vec::new();
            for sequence in [3, 4] {
                let mut message = Vec::new();
                crate::message::Stamp { publisher: 2, sequence, intended_ns: 5 }.write(&mut message, size);
                Stream::message(&Mosquitto, &message, &mut wire);
            }

            let Content::Push(push) = Mosquitto.parse(&wire) else { panic!("{size}: {:?}", Mosquitto.parse(&wire)) };

            assert_eq!((push.runs[0].first, push.runs[0].last, push.foreign), (3, 4, 0));
            assert!(matches!(Mosquitto.parse(&wire[..wire.len() - 1]), Content::Invalid(_)));
        }
    }

    #[test]
    fn a_client_is_in_once_both_its_packets_were_acknowledged() {
        assert_eq!(Mosquitto.parse(&[0x20, 2, 0, 0]), Content::Hello(Advice::default()));
        assert_eq!(Mosquitto.parse(&[0x90, 3, 0, 1, 0]), Content::Joined(vec![]));
        assert!(matches!(Mosquitto.parse(&[0x20, 2, 0, 5]), Content::Other(_)), "not authorized");
        assert!(matches!(Mosquitto.parse(&[0x90, 3, 0, 1, 0x80]), Content::Other(_)), "refused");
    }

    #[test]
    fn lengths_are_encoded_as_the_standard_shows() {
        for (length, bytes) in [(127, &[0x7f][..]), (128, &[0x80, 1]), (16_384, &[0x80, 0x80, 1])] {
            let mut out = Vec::new();
            write_remaining_length(length, &mut out);

            assert_eq!(out, bytes);
            assert_eq!(remaining_length(&out), Ok((length, &[][..])));
        }
    }
}
