//! NATS over its WebSocket listener: lines of the client protocol in binary frames, several a frame under load.
//! Published over plain TCP, as a service would. How it is started stands in `peers`.
//! Words: `INFO {…}` greets; the client says CONNECT, SUB and PING at once; PONG means that all three were taken.

use super::Dialect;
use super::content::{self, Advice, Content};
use super::form::{Form, Stream};
use super::head;

#[derive(Debug)]
pub struct Nats;

impl Dialect for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn opcode(&self) -> u8 {
        head::BINARY
    }

    fn opening(&self) -> Option<Vec<u8>> {
        Some(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB tide 1\r\nPING\r\n".to_vec())
    }

    fn join(&self, _rooms: &[String]) -> Option<Vec<u8>> {
        None
    }

    fn pong(&self) -> &'static [u8] {
        b"PONG\r\n"
    }

    fn parse(&self, payload: &[u8]) -> Content {
        parse(payload).unwrap_or_else(|why| Content::Invalid(why.to_owned()))
    }

    fn form(&self) -> Form {
        Form::Stream(&Self)
    }
}

/// A frame's lines. Messages decide what the frame is; what else is in it is noted beside them.
fn parse(mut bytes: &[u8]) -> Result<Content, &'static str> {
    let (mut messages, mut probes, mut greets) = (Vec::new(), false, false);
    while !bytes.is_empty() {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").ok_or("a line is cut")?;
        let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
        bytes = rest;
        match line {
            b"PING" => probes = true,
            b"PONG" => greets = true,
            [b'I', b'N', b'F', b'O', b' ', ..] | b"+OK" => {}
            [b'M', b'S', b'G', b' ', words @ ..] => {
                let size = words.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
                let size = std::str::from_utf8(size).ok().and_then(|size| size.parse::<usize>().ok());
                let size = size.filter(|size| *size <= bytes.len()).ok_or("MSG has no size, or is cut")?;
                let (message, rest) = bytes.split_at(size);
                bytes = rest.strip_prefix(b"\r\n").ok_or("a message does not end with CRLF")?;
                messages.push(message);
            }
            _ => return Ok(Content::Other(String::from_utf8_lossy(line).into_owned())),
        }
    }
    Ok(match (messages.is_empty(), greets, probes) {
        (false, _, _) => content::messages(messages.into_iter(), probes),
        // A greeting answers our own PING; the server's comes seconds later and again.
        (true, true, _) => Content::Hello(Advice::default()),
        (true, false, true) => Content::Probe,
        (true, false, false) => Content::Aside,
    })
}

impl Stream for Nats {
    fn opening(&self) -> Vec<u8> {
        b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n".to_vec()
    }

    fn message(&self, message: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(format!("PUB tide {}\r\n", message.len()).as_bytes());
        out.extend_from_slice(message);
        out.extend_from_slice(b"\r\n");
    }

    fn flush(&self) -> &'static [u8] {
        b"PING\r\n"
    }

    fn flushed(&self) -> &'static [u8] {
        b"PONG\r\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_frame_are_one_push_and_a_probe_among_them_is_not_missed() {
        let wire =
            b"MSG tide 1 19\r\n{\"p\":1,\"n\":4,\"t\":9}\r\nPING\r\nMSG tide 1 19\r\n{\"p\":1,\"n\":5,\"t\":9}\r\n";

        let Content::Push(push) = Nats.parse(wire) else { panic!("{:?}", Nats.parse(wire)) };

        assert_eq!((push.runs.len(), push.runs[0].first, push.runs[0].last, push.probes), (1, 4, 5, true));
    }

    #[test]
    fn a_client_is_greeted_by_the_answer_to_its_ping() {
        assert_eq!(Nats.parse(b"INFO {\"server_id\":\"x\"}\r\n"), Content::Aside);
        assert_eq!(Nats.parse(b"PONG\r\n"), Content::Hello(Advice::default()));
        assert_eq!(Nats.parse(b"PING\r\n"), Content::Probe);
    }

    #[test]
    fn errors_and_cut_messages_are_seen() {
        assert_eq!(Nats.parse(b"-ERR 'Slow Consumer'\r\n"), Content::Other("-ERR 'Slow Consumer'".to_owned()));
        for cut in [&b"MSG tide 1 19\r\n{\"p\":1"[..], b"MSG tide 1\r\n\r\n", b"PIN", b"MSG tide 1 1\r\nxy\r\n"] {
            assert!(matches!(Nats.parse(cut), Content::Invalid(_)), "{}", String::from_utf8_lossy(cut));
        }
    }
}
