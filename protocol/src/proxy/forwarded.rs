//! `X-Forwarded-For`: who stood before the proxies. Each proxy appends the address it was called from, so the list is read
//! from its end, and only as long as the hop that wrote an entry is trusted; what lies left of that anyone may have written.

use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};

use httparse::{Header, Request};

use super::Networks;
use crate::handshake::HEADERS_MAX;

/// The client of a request that came from `peer`: the last hop, counted from here, that is not trusted. Without the
/// header, or when `peer` is not trusted, that is `peer`; a port of 0 is one that the header did not say.
#[must_use]
pub fn client(head: &[u8], peer: SocketAddr, trusted: &Networks) -> SocketAddr {
    if !trusted.contain(peer.ip()) {
        return peer;
    }
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
    let mut request = Request::new(&mut []);
    if request.parse_with_uninit_headers(head, &mut headers).is_err() {
        return peer;
    }
    let mut client = peer;
    let lines = request.headers.iter().rev().filter(|header| header.name.eq_ignore_ascii_case("x-forwarded-for"));
    for entry in lines.flat_map(|header| header.value.rsplit(|&byte| byte == b',')) {
        // What cannot be read is not skipped: the hop left of it is unknown.
        let Some(hop) = std::str::from_utf8(entry).ok().and_then(|text| hop(text.trim())) else { return client };
        client = hop;
        if !trusted.contain(hop.ip()) {
            return client;
        }
    }
    client
}

/// An address, with a port where a proxy writes one.
fn hop(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let hop = match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, 0),
        Err(_) => text.parse::<SocketAddr>().ok()?,
    };
    Some(SocketAddr::new(hop.ip().to_canonical(), hop.port()))
}
