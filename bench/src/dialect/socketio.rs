//! Socket.IO: events over Engine.IO over WebSocket. The message is the one argument of the event `m`.
//! How it is started stands in `peers`.
//! Words: packets of Engine.IO begin with one digit (0 open, 2 ping, 3 pong, 4 message), those of Socket.IO inside
//! with another (0 connect, 2 event): `0{…}`, `40`, `40{…}`, `42["m","…"]`, `2`, `3`.

use std::borrow::Cow;

use super::Dialect;
use super::content::{self, Advice, Content};
use super::form::Form;

#[derive(Debug)]
pub struct SocketIo;

impl Dialect for SocketIo {
    fn name(&self) -> &'static str {
        "socketio"
    }

    fn query(&self) -> Option<&'static str> {
        Some("EIO=4&transport=websocket")
    }

    fn join(&self, _rooms: &[String]) -> Option<Vec<u8>> {
        Some(b"40".to_vec())
    }

    fn pong(&self) -> &'static [u8] {
        b"3"
    }

    fn parse(&self, payload: &[u8]) -> Content {
        match payload {
            [b'0', b'{', ..] => Content::Hello(Advice::default()),
            b"2" => Content::Probe,
            [b'4', b'0', ..] => Content::Joined(Vec::new()),
            [b'4', b'2', event @ ..] => match serde_json::from_slice::<Vec<Cow<str>>>(event) {
                Ok(arguments) if arguments.first().is_some_and(|name| name == "m") => {
                    content::messages(arguments.iter().skip(1).map(|argument| argument.as_bytes()), false)
                }
                _ => Content::Invalid("an event that is not [\"m\", text]".to_owned()),
            },
            _ => Content::Other(String::from_utf8_lossy(&payload[..payload.len().min(40)]).into_owned()),
        }
    }

    fn form(&self) -> Form {
        Form::Post("/pub")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_message_and_a_handshake_is_none() {
        let Content::Push(push) = SocketIo.parse(br#"42["m","{\"p\":1,\"n\":7,\"t\":9,\"x\":\"aa\"}"]"#) else {
            panic!("not a push")
        };

        assert_eq!((push.runs[0].publisher, push.runs[0].first, push.messages(), push.foreign), (1, 7, 1, 0));
        assert_eq!(
            SocketIo.parse(br#"0{"sid":"a","upgrades":[],"pingInterval":25000}"#),
            Content::Hello(Advice::default())
        );
        assert_eq!(SocketIo.parse(br#"40{"sid":"b"}"#), Content::Joined(vec![]));
        assert_eq!(SocketIo.parse(b"2"), Content::Probe);
    }

    #[test]
    fn what_is_no_event_of_ours_is_seen() {
        assert!(matches!(SocketIo.parse(br#"42["other","x"]"#), Content::Invalid(_)));
        assert!(matches!(SocketIo.parse(br#"42["m","{\"hello\":1}"]"#), Content::Other(_)));
        assert!(matches!(SocketIo.parse(br#"44{"message":"no"}"#), Content::Other(_)));
        assert!(matches!(SocketIo.parse(b""), Content::Other(_)));
    }
}
