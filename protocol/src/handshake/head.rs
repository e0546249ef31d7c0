//! Header fields of a request that has been accepted, for those few that more than the handshake wants to know: a connect
//! hook's. Apart from `request`, which is the hot path and keeps only what it checks.

use std::mem::MaybeUninit;

use httparse::{Header, Request};

use super::HEADERS_MAX;

/// The value of a field in `head`, if that has exactly one and it is text; names are compared without case.
#[must_use]
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let mut headers = [const { MaybeUninit::<Header<'a>>::uninit() }; HEADERS_MAX];
    let mut request = Request::new(&mut []);
    request.parse_with_uninit_headers(head, &mut headers).ok()?;
    let mut found = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
    let value = found.next().map(|h| h.value)?;
    if found.next().is_some() {
        return None;
    }
    std::str::from_utf8(value).ok()
}

/// A query without its token: what may be shown to others.
#[must_use]
pub fn without_token(query: &str) -> String {
    let is_harmless = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        // A name in escapes may be the token's too.
        name != "token" && !name.contains(['%', '+'])
    };
    query.split('&').filter(is_harmless).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] =
        b"GET /ws HTTP/1.1\r\nHost: a\r\nCookie: s=1\r\ncookie2: x\r\nX-A: 1\r\nx-a: 2\r\nX-Bytes: \xff\r\n\r\nframes";

    #[test]
    fn a_field_that_stands_there_once_is_found_whatever_its_case() {
        assert_eq!(header(HEAD, "cookie"), Some("s=1"));
        assert_eq!(header(HEAD, "HOST"), Some("a"));
        for none in ["x-a", "x-bytes", "origin", ""] {
            assert_eq!(header(HEAD, none), None, "{none}");
        }
    }

    #[test]
    fn a_query_is_shown_without_its_token() {
        assert_eq!(without_token("user=a&token=CANARY&platform=web"), "user=a&platform=web");
        assert_eq!(without_token("token=CANARY"), "");
        assert_eq!(without_token("%74oken=CANARY&t+oken=CANARY&tokens=3"), "tokens=3");
        assert_eq!(without_token(""), "");
    }
}
