//! Where the requests of an HTTP/1 connection begin and end, and whether two readers could disagree about it (RFC 9112
//! sections 3 and 6): hyper takes some of what a strict reader refuses, and refuses the rest without saying why.
//! Pure: bytes in, how many of them may be read on. What a head means is `routes`' affair.
//! Why: docs/adr/0029. Invariant: a head that passes has one length of body, and hyper reads the same; it is at least as strict within bodies.

use std::mem::MaybeUninit;

use http::{Method, Uri};
use httparse::{Header, Request, Status};

use super::HEADERS_MAX;
use crate::problem::Refusal;

/// What an HTTP/2 peer says first (RFC 9113 section 3.4); from then on h2 knows what is whole.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest request target that `http::Uri` holds.
const TARGET_BYTES_MAX: usize = 65_534;

/// How far one connection has been read.
pub struct Framing {
    at: At,
    head_bytes_max: usize,
    /// Bytes of an unfinished head that hold no line end, so that a head that dribbles in is not parsed at each byte.
    searched: usize,
    /// Heads passed.
    heads: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The connection's first bytes, which may be HTTP/2's.
    Start,
    Head,
    /// So many bytes of a body.
    Body(u64),
    Chunked(Chunk),
    Http2,
}

/// A place within a chunked body (RFC 9112 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// The first digit of a size.
    Start,
    /// More digits; the size so far.
    Size(u64),
    /// What may follow a size, to the end of its line; hyper bounds it.
    Extension(u64),
    /// The LF of that line.
    SizeEnd(u64),
    Data(u64),
    /// CR, then LF after the data.
    DataCr,
    DataLf,
    /// A line of the trailers, or the empty one at their end; hyper bounds them.
    TrailerStart,
    Trailer,
    TrailerEnd,
    /// The LF of the empty line.
    End,
}

/// What is wrong with the bytes that would come next.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// A head, which can be answered.
    Head(Refusal),
    /// The encoding of a body: nobody knows where it ends.
    Body,
}

impl Framing {
    /// A new connection.
    #[must_use]
    pub fn new(head_bytes_max: usize) -> Self {
        Self { at: At::Start, head_bytes_max, searched: 0, heads: 0 }
    }

    /// Heads passed so far.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Whether an HTTP/1 head is what has to come or to go on.
    #[must_use]
    pub fn awaits_head(&self) -> bool {
        matches!(self.at, At::Start | At::Head)
    }

    /// How many of `bytes` may be read on; the others are to be shown again, with more behind them if there is more.
    ///
    /// # Errors
    /// [`Fault`] of the first byte or head; after it nothing of the connection can be read.
    pub fn walk(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut passed = 0;
        while passed < bytes.len() {
            match self.step(&bytes[passed..]) {
                Ok(0) => break,
                Ok(n) => passed += n,
                Err(fault) if passed == 0 => return Err(fault),
                // Told once those before it are read.
                Err(_) => break,
            }
        }
        Ok(passed)
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        match self.at {
            At::Http2 => Ok(bytes.len()),
            At::Start if PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())]) => {
                if bytes.len() < PREFACE.len() {
                    return Ok(0);
                }
                self.at = At::Http2;
                Ok(bytes.len())
            }
            At::Start | At::Head => self.head(bytes).map_err(Fault::Head),
            At::Body(left) => {
                let n = least(left, bytes.len());
                self.at = body(left - n as u64);
                Ok(n)
            }
            At::Chunked(Chunk::Data(left)) => {
                let n = least(left, bytes.len());
                let left = left - n as u64;
                self.at = At::Chunked(if left == 0 { Chunk::DataCr } else { Chunk::Data(left) });
                Ok(n)
            }
            At::Chunked(chunk) => {
                self.at = chunk.step(bytes[0]).ok_or(Fault::Body)?;
                Ok(1)
            }
        }
    }

    /// The bytes of a whole head, or none yet.
    fn head(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let limit = self.head_bytes_max;
        let window = &bytes[..bytes.len().min(limit)];
        let is_full = window.len() == limit;
        if !is_full && !window[self.searched.min(window.len())..].contains(&b'\n') {
            self.searched = window.len();
            return Ok(0);
        }
        let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
        let mut request = Request::new(&mut []);
        let length = match request.parse_with_uninit_headers(window, &mut headers) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if is_full => return Err(Refusal::HeadTooLarge { limit }),
            Ok(Status::Partial) => {
                self.searched = window.len();
                return Ok(0);
            }
            Err(error) => return Err(malformed(error)),
        };
        self.at = check(&request)?;
        self.searched = 0;
        self.heads += 1;
        Ok(length)
    }
}

fn least(left: u64, here: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(here)
}

fn body(left: u64) -> At {
    if left == 0 { At::Head } else { At::Body(left) }
}

impl Chunk {
    /// Where one byte leads; none: nowhere.
    fn step(self, byte: u8) -> Option<At> {
        let next = match (self, byte) {
            (Self::Start, _) => Self::Size(u64::from(digit(byte)?)),
            (Self::Size(size), b'\r') => Self::SizeEnd(size),
            (Self::Size(size), b';' | b' ' | b'\t') => Self::Extension(size),
            (Self::Size(size), _) => {
                Self::Size(size.checked_mul(16)?.checked_add(u64::from(digit(byte)?)).filter(|n| *n < 1 << 62)?)
            }
            (Self::Extension(size), b'\r') => Self::SizeEnd(size),
            (Self::Extension(size), byte) if byte != b'\n' => Self::Extension(size),
            (Self::SizeEnd(0), b'\n') => Self::TrailerStart,
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Start,
            (Self::TrailerStart, b'\r') => Self::End,
            (Self::Trailer, b'\r') => Self::TrailerEnd,
            (Self::TrailerStart | Self::Trailer, byte) if byte != b'\n' => Self::Trailer,
            (Self::TrailerEnd, b'\n') => Self::TrailerStart,
            (Self::End, b'\n') => return Some(At::Head),
            _ => return None,
        };
        Some(At::Chunked(next))
    }
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).and_then(|n| u8::try_from(n).ok())
}

/// What follows a head, if only one reading of it is possible.
fn check(request: &Request<'_, '_>) -> Result<At, Refusal> {
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Refusal::MalformedRequest { what: "the request line" });
    };
    if target.len() > TARGET_BYTES_MAX {
        return Err(Refusal::TargetTooLong { limit: TARGET_BYTES_MAX });
    }
    if Method::from_bytes(method.as_bytes()).is_err() || target.parse::<Uri>().is_err() {
        return Err(Refusal::MalformedRequest { what: "the request line" });
    }
    let (mut length, mut codings) = (None, Vec::new());
    for Header { name, value } in request.headers.iter() {
        if name.eq_ignore_ascii_case("content-length") && length.replace(read_length(value)?).is_some() {
            return Err(Refusal::HeaderRepeated { header: "Content-Length" });
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            codings.extend(value.split(|b| *b == b',').map(<[u8]>::trim_ascii));
        }
    }
    if codings.is_empty() {
        return Ok(body(length.unwrap_or(0)));
    }
    if length.is_some() || version == 0 {
        return Err(Refusal::MalformedRequest { what: "Transfer-Encoding beside Content-Length, or in HTTP/1.0," });
    }
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    match (codings.last().is_some_and(is_chunked), codings.iter().filter(|c| is_chunked(c)).count()) {
        (true, 1) if codings.len() == 1 => Ok(At::Chunked(Chunk::Start)),
        (true, 1) => Err(Refusal::TransferCoding),
        // Where the body ends would be anyone's guess.
        (_, _) => Err(Refusal::MalformedRequest { what: "Transfer-Encoding, which must end with its only chunked," }),
    }
}

fn read_length(value: &[u8]) -> Result<u64, Refusal> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let length = text.and_then(|text| text.parse().ok()).filter(|n: &u64| *n < 1 << 62);
    length.ok_or(Refusal::MalformedRequest { what: "Content-Length" })
}

/// What `httparse` found, in our words.
fn malformed(error: httparse::Error) -> Refusal {
    let what = match error {
        httparse::Error::TooManyHeaders => return Refusal::TooManyHeaders { limit: HEADERS_MAX },
        httparse::Error::Version => return Refusal::HttpVersion,
        httparse::Error::HeaderName => "a header name",
        httparse::Error::HeaderValue => "a header value",
        httparse::Error::NewLine => "a line end",
        httparse::Error::Token | httparse::Error::Status => "the request line",
    };
    Refusal::MalformedRequest { what }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 512;
    const BODIES: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /\
        POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nGET /\r\n0A\r\n0123456789\r\n0\r\nT: 1\r\n\r\n\
        \r\nPUT /d HTTP/1.0\r\n\r\n";

    fn walk(text: &str) -> (Result<usize, Fault>, usize) {
        let mut framing = Framing::new(LIMIT);
        (framing.walk(text.as_bytes()), framing.heads())
    }

    /// What is found where the good part ends.
    fn fault(text: &str) -> Option<Fault> {
        let mut framing = Framing::new(LIMIT);
        let passed = framing.walk(text.as_bytes()).ok()?;
        framing.walk(&text.as_bytes()[passed..]).err()
    }

    #[test]
    fn requests_are_told_apart_whatever_their_bodies_look_like() {
        assert_eq!(walk(BODIES), (Ok(BODIES.len()), 4));
    }

    #[test]
    fn an_unfinished_head_is_kept_back_and_an_http2_connection_is_let_alone() {
        let head = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 1..head.len() {
            assert_eq!(walk(&head[..cut]), (Ok(0), 0), "{cut}");
        }
        let preface = std::str::from_utf8(PREFACE).expect("ASCII");
        assert_eq!(walk(&preface[..23]), (Ok(0), 0));
        assert_eq!(walk(&format!("{preface}\0\0\0 anything")), (Ok(PREFACE.len() + 12), 0));
        assert_eq!(fault(&format!("{head}{preface}")), Some(Fault::Head(Refusal::HttpVersion)));
    }

    #[test]
    fn a_broken_chunk_ends_the_connection() {
        let head = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for bad in [
            "\r\n",
            "x\r\n",
            "5\n",
            "5\rx",
            "-1\r\n",
            "1\r\nab",
            "1\r\na\nb",
            "0\r\n\n",
            "fffffffffffffffff\r\n",
            ";a\r\n",
        ] {
            assert_eq!(fault(&format!("{head}{bad}")), Some(Fault::Body), "{bad:?}");
        }
    }

    proptest! {
        /// However the bytes are cut, each is passed once, in order, and no head is seen twice.
        #[test]
        fn cuts_change_nothing(cuts in proptest::collection::vec(0..BODIES.len(), 0..8)) {
            let (mut framing, mut held, mut passed, mut from) = (Framing::new(LIMIT), Vec::new(), 0, 0);
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(BODIES.len());
            for cut in cuts {
                held.extend_from_slice(&BODIES.as_bytes()[from..cut]);
                from = cut;
                let n = framing.walk(&held).expect("well-formed");
                held.drain(..n);
                passed += n;
            }
            prop_assert_eq!((passed, framing.heads(), held.len()), (BODIES.len(), 4, 0));
        }

        #[test]
        fn no_bytes_make_it_panic_or_pass_more_than_there_is(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(n) = Framing::new(64).walk(&bytes) {
                prop_assert!(n <= bytes.len());
            }
        }
    }
}
