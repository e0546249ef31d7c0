//! Version 2 of the PROXY protocol: sixteen bytes, addresses, and extensions (section 2.2 of the specification).
//! Extensions (TLVs) are checked for their lengths and skipped: nothing here needs what they say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Header, HeaderError};

/// What every header begins with.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;
/// Largest header taken, though the length could say 65,551: addresses are 216 bytes at most, and the extensions that proxies add by
/// themselves a few hundred.
pub const BYTES_MAX: usize = 4096;

pub(super) fn read(input: &[u8]) -> Result<Header, HeaderError> {
    let Some((fixed, rest)) = input.split_at_checked(FIXED) else { return Ok(Header::Incomplete) };
    let (version, command) = (fixed[12] >> 4, fixed[12] & 0x0f);
    if version != 2 {
        return Err(HeaderError::Malformed("a version that is not 2"));
    }
    let bytes = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if bytes > BYTES_MAX {
        return Err(HeaderError::Malformed("more than 4096 bytes"));
    }
    // A family that means nothing here is refused before its bytes are waited for.
    let length = addresses(fixed[13])?;
    if bytes - FIXED < length {
        return Err(HeaderError::Malformed("a length too small for its addresses"));
    }
    let Some(body) = rest.get(..bytes - FIXED) else { return Ok(Header::Incomplete) };
    let (addresses, extensions) = body.split_at(length);
    let source = match command {
        // The proxy's own connection, such as a health check; whatever the rest says must be discarded.
        0 => None,
        1 => {
            check(extensions)?;
            source(fixed[13], addresses)
        }
        _ => return Err(HeaderError::Malformed("a command that is not LOCAL or PROXY")),
    };
    Ok(Header::Complete { source, bytes })
}

/// Bytes of a header that begins with `input`, as far as that says.
pub(super) fn length(input: &[u8]) -> usize {
    let body = input.get(14..FIXED).map_or(0, |two| usize::from(u16::from_be_bytes([two[0], two[1]])));
    FIXED + body
}

/// Bytes of the addresses of a family and transport. A datagram's header cannot stand before a stream's bytes.
fn addresses(family: u8) -> Result<usize, HeaderError> {
    match family {
        0x00 => Ok(0),
        0x11 => Ok(12),
        0x21 => Ok(36),
        0x31 => Ok(216),
        _ => Err(HeaderError::Malformed("a family or transport that is no stream")),
    }
}

fn source(family: u8, addresses: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    match family {
        0x11 => {
            let ip: [u8; 4] = addresses[..4].try_into().ok()?;
            Some(SocketAddr::new(Ipv4Addr::from(ip).into(), port(8)))
        }
        0x21 => {
            let ip: [u8; 16] = addresses[..16].try_into().ok()?;
            Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)).to_canonical(), port(32)))
        }
        // A UNIX socket's path says nothing of a client elsewhere.
        _ => None,
    }
}

/// Extensions are a type, a length of two bytes, and as many bytes.
fn check(mut extensions: &[u8]) -> Result<(), HeaderError> {
    while let [_kind, high, low, rest @ ..] = extensions {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        extensions = rest.get(length..).ok_or(HeaderError::Malformed("an extension longer than the header"))?;
    }
    if extensions.is_empty() { Ok(()) } else { Err(HeaderError::Malformed("bytes that are no extension")) }
}
