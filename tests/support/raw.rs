//! A peer that says whatever it likes: bytes on a TCP socket, and a reader of what comes back.
//! Frames are built and read here by hand, because a library refuses to send what hostile peers send.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::PATIENCE;

/// A socket and what was read from it but not yet used.
pub struct Raw {
    stream: TcpStream,
    inbound: BytesMut,
}

/// How the server ended a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a close frame: code and reason.
    Closed(u16, String),
    /// With FIN or RST alone.
    Dropped,
}

/// What ends a flood early, so that the answer is not lost to a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heed {
    /// Only that nothing more is taken: a peer that never reads.
    Nothing,
    /// Any byte of an answer.
    AnyInput,
    /// A close frame; other frames are passed over.
    Close,
}

/// A handshake that is right in every point; `{extra}` headers end in CRLF.
pub fn get_request(path: &str, extra: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    )
}

/// A frame of a client: first byte as given, then the length, and a mask when `key` is there.
pub fn frame(first: u8, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mask_bit = if key.is_some() { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(mask_bit | n as u8),
        n @ 126..=65_535 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    let key_bytes = key.unwrap_or_default();
    out.extend_from_slice(if key.is_some() { &key_bytes } else { &[] });
    out.extend(payload.iter().zip(key_bytes.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// A frame as RFC 6455 wants it from a client.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, Some([0x37, 0xfa, 0x21, 0x3d]), payload)
}

impl Raw {
    /// A connected socket, nothing said.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.expect("somebody listens")
    }

    /// A connected socket with a loopback address of its own.
    pub async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket is free");
        socket.bind((source, 0).into()).expect("all of 127.0.0.0/8 is ours");
        Self { stream: socket.connect(address).await.expect("somebody listens"), inbound: BytesMut::new() }
    }

    /// The same where nobody may be listening any more.
    pub async fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self { stream, inbound: BytesMut::new() })
    }

    /// A connected socket with these bytes said in the same breath, so that they are there when it is accepted.
    pub fn connect_saying(address: SocketAddr, bytes: &[u8]) -> Self {
        let mut stream = std::net::TcpStream::connect(address).expect("somebody listens");
        stream.write_all(bytes).expect("a fresh socket takes a request");
        stream.set_nonblocking(true).expect("the socket is open");
        Self { stream: TcpStream::from_std(stream).expect("the socket is open"), inbound: BytesMut::new() }
    }

    /// A WebSocket past HELLO.
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        let mut raw = Self::connect(address).await;
        raw.write(get_request(path, "").as_bytes()).await.expect("a fresh socket takes a request");
        let head = raw.head().await.expect("a good handshake is answered");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let (opcode, hello) = raw.frame(PATIENCE).await.expect("HELLO comes first (rule C-5)");
        assert!(opcode == 1 && hello.starts_with(br#"{"type":"HELLO""#), "HELLO comes first (rule C-5)");
        raw
    }

    /// Writes bytes; an error says that the server has ended the connection.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        written.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
    }

    /// Writes `piece` until the server ends it in a way that is heeded, or `most` bytes went out. Gives the bytes taken.
    pub async fn flood(&mut self, piece: &[u8], most: usize, heed: Heed) -> usize {
        let mut sent = 0;
        while sent < most {
            let is_over = match heed {
                Heed::Nothing => false,
                Heed::AnyInput => timeout(Duration::ZERO, self.stream.peek(&mut [0u8; 1])).await.is_ok(),
                Heed::Close => self.is_closing(),
            };
            if is_over {
                return sent;
            }
            let written = timeout(Duration::from_secs(2), self.stream.write_all(piece)).await;
            if !matches!(written, Ok(Ok(()))) {
                return sent;
            }
            sent += piece.len();
        }
        sent
    }

    /// Takes the frames that are there, up to a close; true at a close or at the end of the socket.
    fn is_closing(&mut self) -> bool {
        let end = match self.stream.try_read_buf(&mut self.inbound) {
            Ok(n) => n == 0,
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
        };
        while let Some((skip, length)) = frame_length(&self.inbound) {
            if self.inbound[0] & 0x0f == 8 || self.inbound.len() < skip + length {
                break;
            }
            self.inbound.advance(skip + length);
        }
        end || self.inbound.first().is_some_and(|first| first & 0x0f == 8)
    }

    /// The response head, or none when the socket ends first.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.inbound.windows(4).position(|w| w == b"\r\n\r\n") {
                return Some(String::from_utf8_lossy(&self.inbound.split_to(end + 4)).into_owned());
            }
            if !self.fill(PATIENCE).await {
                return None;
            }
        }
    }

    /// The response's status, or none when the socket ends without one.
    pub async fn status(&mut self) -> Option<u16> {
        self.head().await?.split(' ').nth(1)?.parse().ok()
    }

    /// The body with a stated length that follows a head already read.
    pub async fn body(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.inbound.len() < length {
            if !self.fill(PATIENCE).await {
                return None;
            }
        }
        Some(self.inbound.split_to(length).to_vec())
    }

    /// The next frame of the server: opcode and payload; none at the end or when `patience` is over.
    pub async fn frame(&mut self, patience: Duration) -> Option<(u8, Vec<u8>)> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some((skip, length)) = frame_length(&self.inbound)
                && self.inbound.len() >= skip + length
            {
                let opcode = self.inbound[0] & 0x0f;
                self.inbound.advance(skip);
                return Some((opcode, self.inbound.split_to(length).to_vec()));
            }
            if !self.fill(deadline.saturating_duration_since(Instant::now())).await {
                return None;
            }
        }
    }

    /// Reads on, whatever comes, to the close frame or the end.
    pub async fn ending(&mut self) -> Ending {
        self.ending_within(PATIENCE).await
    }

    /// The same with a patience of its own.
    pub async fn ending_within(&mut self, patience: Duration) -> Ending {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the server keeps the connection after {patience:?}");
            match self.frame(left).await {
                Some((8, payload)) => {
                    let code = payload.get(..2).map_or(1005, |c| u16::from_be_bytes([c[0], c[1]]));
                    return Ending::Closed(code, String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into());
                }
                Some(_) => {}
                None if Instant::now() < deadline => return Ending::Dropped,
                None => {}
            }
        }
    }

    /// Waits for the end of the socket, whatever comes before it; false when `patience` is over first.
    pub async fn is_gone_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            self.inbound.clear();
            if !self.fill(deadline.saturating_duration_since(Instant::now())).await {
                return Instant::now() < deadline;
            }
        }
    }

    /// Ends the socket with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("the socket is open");
    }

    /// Reads some; false at the end of the socket or of the patience.
    async fn fill(&mut self, patience: Duration) -> bool {
        matches!(timeout(patience, self.stream.read_buf(&mut self.inbound)).await, Ok(Ok(n)) if n > 0)
    }
}

/// Head and payload length of the frame that begins `bytes`, once the head is whole.
fn frame_length(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 0x7f {
        126 => Some((4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])))),
        127 => {
            let long: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
            Some((10, usize::try_from(u64::from_be_bytes(long)).ok()?))
        }
        short => Some((2, usize::from(short))),
    }
}
