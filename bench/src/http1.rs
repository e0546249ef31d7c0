//! The little HTTP/1.1 the harness speaks: pipelined requests out, responses in, blocking sockets.
//! A file of its own because hyper's client does not pipeline: it sends a request only after the previous answer,
//! and an open-loop publisher must not wait. Heads are parsed by `httparse`; bodies have a length or are chunked.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// Longest answer taken: `/metrics` of a node is far smaller.
const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;
const HEADERS_MAX: usize = 64;

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Reads responses off one connection in order.
#[derive(Debug)]
pub struct Reader<S> {
    stream: S,
    /// Bytes read and not yet consumed.
    buffer: Vec<u8>,
}

struct Head {
    bytes: usize,
    status: u16,
    body: Body,
}

enum Body {
    Length(usize),
    Chunked,
    UntilClose,
}

impl<S: Read> Reader<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The next response, whole.
    pub fn response(&mut self) -> anyhow::Result<Response> {
        let head = loop {
            if let Some(head) = parse_head(&self.buffer)? {
                break head;
            }
            ensure!(self.fill()? > 0, "the connection ended inside a response head");
        };
        self.buffer.drain(..head.bytes);
        let body = match head.body {
            Body::Length(length) => self.take(length)?,
            Body::Chunked => self.chunks()?,
            Body::UntilClose => {
                while self.fill()? > 0 {}
                std::mem::take(&mut self.buffer)
            }
        };
        Ok(Response { status: head.status, body })
    }

    fn chunks(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                    break self.take(end + 2)?;
                }
                ensure!(self.fill()? > 0, "the connection ended inside a chunk's length");
            };
            let digits = std::str::from_utf8(&line)?.trim().split(';').next().unwrap_or_default().to_owned();
            let length = usize::from_str_radix(&digits, 16).context("a chunk's length is not hexadecimal")?;
            ensure!(body.len().saturating_add(length) <= RESPONSE_BYTES_MAX, "the response is too long");
            body.extend(self.take(length)?);
            ensure!(self.take(2)? == b"\r\n", "a chunk does not end with CRLF");
            if length == 0 {
                return Ok(body);
            }
        }
    }

    fn take(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        ensure!(length <= RESPONSE_BYTES_MAX, "a response of {length} bytes is too long");
        while self.buffer.len() < length {
            ensure!(self.fill()? > 0, "the connection ended inside a response");
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn fill(&mut self) -> anyhow::Result<usize> {
        ensure!(self.buffer.len() <= RESPONSE_BYTES_MAX, "the response is too long");
        let mut chunk = [0; 16 * 1024];
        let read = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read)
    }
}

fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes)? else { return Ok(None) };
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok().map(str::trim)
    };
    let body = match (value("content-length"), value("transfer-encoding")) {
        (_, Some(encoding)) if encoding.eq_ignore_ascii_case("chunked") => Body::Chunked,
        (Some(length), _) => Body::Length(length.parse().context("content-length is not a number")?),
        (None, _) if response.code == Some(204) => Body::Length(0),
        (None, _) => Body::UntilClose,
    };
    Ok(Some(Head { bytes: length, status: response.code.unwrap_or(0), body }))
}

/// `http://127.0.0.1:8001` → its address. Only plain HTTP: a bench of TLS would measure the harness.
pub fn parse_authority(url: &str) -> anyhow::Result<SocketAddr> {
    let authority = url.strip_prefix("http://").with_context(|| format!("`{url}` does not begin with http://"))?;
    let authority = authority.trim_end_matches('/');
    authority.to_socket_addrs()?.next().with_context(|| format!("`{authority}` has no address"))
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, path: &str, timeout: Duration) -> anyhow::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    Reader::new(stream).response()
}

/// The samples of a Prometheus page, by name with labels as printed.
pub fn scrape(address: SocketAddr, timeout: Duration) -> anyhow::Result<BTreeMap<String, f64>> {
    let response = get(address, "/metrics", timeout)?;
    if response.status != 200 {
        bail!("GET /metrics answered {}", response.status);
    }
    Ok(parse_metrics(&String::from_utf8_lossy(&response.body)))
}

fn parse_metrics(text: &str) -> BTreeMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        // Labels may hold spaces; the value is what follows the last `}` or, without labels, the name.
        let end = line.rfind('}').map_or_else(|| line.find(' '), |brace| Some(brace + 1))?;
        let value = line.get(end..)?.split_ascii_whitespace().next()?.parse().ok()?;
        Some((line[..end].to_owned(), value))
    });
    samples.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelined_responses_come_out_one_by_one() {
        let wire = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
        let mut reader = Reader::new(&wire[..]);

        let first = reader.response().expect("a response");
        let second = reader.response().expect("a response");

        assert_eq!((first.status, first.body.as_slice()), (202, &b"{}"[..]));
        assert_eq!((second.status, second.body.len()), (503, 0));
        assert!(reader.response().is_err());
    }

    #[test]
    fn chunks_are_joined() {
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";

        let response = Reader::new(&wire[..]).response().expect("a response");

        assert_eq!(response.body, b"abcde");
    }

    #[test]
    fn metrics_keep_their_labels() {
        let metrics = parse_metrics("# TYPE a counter\na_total 3\nb{reason=\"too slow\"} 4.5\nbroken\n");

        assert_eq!(metrics.get("a_total"), Some(&3.0));
        assert_eq!(metrics.get("b{reason=\"too slow\"}"), Some(&4.5));
        assert_eq!(metrics.len(), 2);
    }
}
