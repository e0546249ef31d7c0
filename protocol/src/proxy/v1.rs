//! Version 1 of the PROXY protocol: one line of text (section 2.1 of the specification).
//! Strict: single spaces, addresses as they are written shortest, ports without leading zeros, CRLF at the end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Header, HeaderError};

/// What every line begins with.
pub(super) const PREFIX: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN` and CRLF.
pub(super) const SHORTEST: usize = 15;
/// The longest line, CRLF included: two IPv6 addresses and two ports after `PROXY UNKNOWN`.
const BYTES_MAX: usize = 107;

pub(super) fn read(input: &[u8]) -> Result<Header, HeaderError> {
    let window = &input[..input.len().min(BYTES_MAX)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        if window.len() == BYTES_MAX {
            return Err(HeaderError::Malformed("no end within 107 bytes"));
        }
        return Ok(Header::Incomplete);
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(HeaderError::Malformed("a line end that is not CRLF"))?;
    let line = std::str::from_utf8(line).map_err(|_| HeaderError::Malformed("bytes that are no text"))?;
    Ok(Header::Complete { source: source(line)?, bytes: end + 1 })
}

/// The client of a line without its end.
fn source(line: &str) -> Result<Option<SocketAddr>, HeaderError> {
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // The rest of the line, whatever it is, must be ignored.
        return Ok(None);
    }
    let [Some(from), Some(to), Some(from_port), Some(to_port), None] = [(); 5].map(|()| words.next()) else {
        return Err(HeaderError::Malformed("not two addresses and two ports"));
    };
    let read: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(HeaderError::Malformed("a family that is not TCP4, TCP6 or UNKNOWN")),
    };
    let bad = HeaderError::Malformed("an address that is not of its family");
    let (from, _to) = (read(from).ok_or(bad)?, read(to).ok_or(bad)?);
    let bad = HeaderError::Malformed("a port that is not 0 to 65535");
    let (from_port, _to_port) = (port(from_port).ok_or(bad)?, port(to_port).ok_or(bad)?);
    Ok(Some(SocketAddr::new(from.to_canonical(), from_port)))
}

fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}
