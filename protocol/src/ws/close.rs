//! Payload of a close frame (RFC 6455 sections 5.5.1 and 7.4).
//! Does not decide what to answer.

use super::{Event, Violation};

/// Reads a whole, unmasked close payload.
pub(super) fn parse(payload: &[u8]) -> Result<Event<'_>, Violation> {
    match payload {
        [] => Ok(Event::Close { code: None, reason: "" }),
        [_] => Err(Violation::CloseCodeCut),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_allowed_on_wire(code) {
                return Err(Violation::CloseCode { code });
            }
            let reason = simdutf8::basic::from_utf8(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
            Ok(Event::Close { code: Some(code), reason })
        }
    }
}

/// 1004 is undefined; 1005, 1006 and 1015 stand for closes without a frame. 1012 to 1014 are registered with IANA
/// after the RFC, and Autobahn 25.10 no longer counts them as invalid. 3000-4999 belong to libraries and applications.
const fn is_allowed_on_wire(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
