//! Negotiation of permessage-deflate (RFC 7692 sections 5 and 7): which offer is taken up, and the words of the answer (rule M-5).
//! Both sides reset their context with every message, so that a batch is compressed once for all (docs/adr/0013); compressing
//! is `ws::Deflater`'s, inflating `ws::Inflater`'s.
//! Invariants: one pass, no allocation; what is not an offer we know to the letter is passed over, never guessed at.

/// Window of DEFLATE without a limit: 2^15 bytes.
const WINDOW_BITS_MAX: u8 = 15;
/// Smallest window that may be asked for (RFC 7692 section 7.1.2.1).
const WINDOW_BITS_MIN: u8 = 8;

/// permessage-deflate as it was negotiated; `no_context_takeover` holds in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The client's limit on the server's window, which the answer has to repeat; 8 to 15.
    server_max_window_bits: Option<u8>,
}

impl Deflate {
    /// Largest window the server may use towards this client, as a power of two.
    #[must_use]
    pub fn window_bits(self) -> u8 {
        self.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX)
    }

    /// Whether frames compressed for everyone suit this client: they use the whole window.
    #[must_use]
    pub fn takes_shared_frames(self) -> bool {
        self.window_bits() == WINDOW_BITS_MAX
    }

    /// Takes up the first offer of `header` that lets the server use its whole window, and a limited one only while there is no
    /// other: the order is the client's preference, but the server may choose (RFC 7692 section 5).
    pub(super) fn choose(before: Option<Self>, header: &[u8]) -> Option<Self> {
        let mut best = before;
        let mut offers = Offers { rest: header };
        while !best.is_some_and(Self::takes_shared_frames)
            && let Some(offer) = offers.next()
        {
            best = match (best, offer) {
                (_, Some(offer)) if offer.takes_shared_frames() => Some(offer),
                (best, offer) => best.or(offer),
            };
        }
        best
    }

    /// Appends the header line that says what was accepted. `client_max_window_bits` is never answered: the inflater's window is
    /// the thread's, whatever the client uses of it.
    pub(super) fn answer(self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        );
        if let Some(bits) = self.server_max_window_bits {
            out.extend_from_slice(b"; server_max_window_bits=");
            if bits >= 10 {
                out.push(b'1');
            }
            out.push(b'0' + bits % 10);
        }
    }
}

/// The offers of one header, in order: `Some` for one of permessage-deflate that can be accepted, `None` for any other. Ends where
/// the header stops being a list of extensions (RFC 6455 section 9.1).
struct Offers<'a> {
    rest: &'a [u8],
}

impl Iterator for Offers<'_> {
    type Item = Option<Deflate>;

    fn next(&mut self) -> Option<Option<Deflate>> {
        // Empty members of a list are allowed (RFC 9110 section 5.6.1).
        while let Some(rest) = skip(self.rest, b',') {
            self.rest = rest;
        }
        let name = token(&mut self.rest)?;
        let mut parameters = Parameters::default();
        // Extension names and parameters are tokens, compared as such clients write them: without regard to case.
        let mut is_good = name.eq_ignore_ascii_case(b"permessage-deflate");
        while let Some(rest) = skip(self.rest, b';') {
            self.rest = rest;
            let Some(name) = token(&mut self.rest) else { return self.give_up() };
            let value = match skip(self.rest, b'=') {
                None => None,
                Some(rest) => {
                    self.rest = rest;
                    let Some(value) = value(&mut self.rest) else { return self.give_up() };
                    Some(value)
                }
            };
            is_good &= parameters.take(name, value).is_some();
        }
        self.rest = self.rest.trim_ascii_start();
        if !self.rest.is_empty() && self.rest[0] != b',' {
            return self.give_up();
        }
        Some(is_good.then_some(Deflate { server_max_window_bits: parameters.server_max_window_bits }))
    }
}

impl Offers<'_> {
    /// From here on the header is no list: nothing of it counts.
    fn give_up(&mut self) -> Option<Option<Deflate>> {
        self.rest = &[];
        None
    }
}

/// Parameters of one offer; each may appear once (RFC 7692 section 7.1).
#[derive(Default)]
struct Parameters {
    has_server_no_context_takeover: bool,
    has_client_no_context_takeover: bool,
    has_client_max_window_bits: bool,
    server_max_window_bits: Option<u8>,
}

impl Parameters {
    /// Notes a parameter; `None` if it is unknown, repeated, or has a value it must not have.
    fn take(&mut self, name: &[u8], value: Option<&[u8]>) -> Option<()> {
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        let is_repeated = if is(b"server_no_context_takeover") && value.is_none() {
            std::mem::replace(&mut self.has_server_no_context_takeover, true)
        } else if is(b"client_no_context_takeover") && value.is_none() {
            std::mem::replace(&mut self.has_client_no_context_takeover, true)
        } else if is(b"server_max_window_bits") {
            self.server_max_window_bits.replace(window_bits(value?)?).is_some()
        } else if is(b"client_max_window_bits") {
            value.map_or(Some(WINDOW_BITS_MAX), window_bits)?;
            std::mem::replace(&mut self.has_client_max_window_bits, true)
        } else {
            return None;
        };
        (!is_repeated).then_some(())
    }
}

/// 8 to 15, written without leading zeros (RFC 7692 section 7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    let bits = match *value {
        [digit @ b'8'..=b'9'] => digit - b'0',
        [b'1', digit @ b'0'..=b'5'] => 10 + digit - b'0',
        _ => return None,
    };
    debug_assert!((WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&bits), "the patterns are the range");
    Some(bits)
}

/// What follows `separator` and the space around it.
fn skip(input: &[u8], separator: u8) -> Option<&[u8]> {
    let rest = input.trim_ascii_start().strip_prefix(&[separator])?;
    Some(rest.trim_ascii_start())
}

/// Takes a token off the front (RFC 9110 section 5.6.2).
fn token<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let end = input.iter().position(|b| !is_token(b)).unwrap_or(input.len());
    let (token, rest) = input.split_at(end);
    *input = rest;
    (!token.is_empty()).then_some(token)
}

/// Takes a value off the front: a token, bare or in quotes (RFC 6455 section 9.1: what is quoted must be a token too). A value with
/// an escape comes out with its backslash in it, and no value with one is good for any parameter.
fn value<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let Some(quoted) = input.strip_prefix(b"\"") else { return token(input) };
    let mut is_escaped = false;
    let end = quoted.iter().position(|b| {
        let is_end = *b == b'"' && !is_escaped;
        is_escaped = *b == b'\\' && !is_escaped;
        is_end
    })?;
    *input = &quoted[end + 1..];
    Some(&quoted[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(headers: &[&str]) -> Option<u8> {
        let deflate = headers.iter().fold(None, |best, header| Deflate::choose(best, header.as_bytes()))?;
        Some(deflate.server_max_window_bits.unwrap_or(0))
    }

    /// Rule M-5. 0 stands for an answer without a limit.
    #[test]
    fn an_offer_is_taken_up_exactly_if_it_is_one_to_the_letter() {
        let table: [(&str, Option<u8>); 42] = [
            ("permessage-deflate", Some(0)),
            ("Permessage-Deflate", Some(0)),
            ("permessage-deflate; client_max_window_bits", Some(0)),
            ("permessage-deflate;client_max_window_bits=8", Some(0)),
            ("permessage-deflate; client_max_window_bits=\"15\"", Some(0)),
            ("permessage-deflate ; server_no_context_takeover ; client_no_context_takeover", Some(0)),
            ("permessage-deflate; server_max_window_bits=15", Some(15)),
            ("permessage-deflate; server_max_window_bits=\"10\"", Some(10)),
            ("permessage-deflate; server_max_window_bits = 8", Some(8)),
            ("x-webkit-deflate-frame, permessage-deflate", Some(0)),
            ("foo; a=\"b, permessage-deflate; c\"; d, permessage-deflate", Some(0)),
            ("foo; a=\"\\\"\", permessage-deflate", Some(0)),
            (",, permessage-deflate,", Some(0)),
            ("permessage-deflate; nonsense, permessage-deflate", Some(0)),
            // The first without a limit, else the first.
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", Some(0)),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate; server_max_window_bits=9", Some(10)),
            ("permessage-deflate; server_max_window_bits=7, permessage-deflate; server_max_window_bits=9", Some(9)),
            ("", None),
            ("   ", None),
            ("permessage-bzip2", None),
            ("permessage-deflate2", None),
            ("permessage-deflate; unknown", None),
            ("permessage-deflate; unknown=1", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; client_no_context_takeover=\"\"", None),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
            ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", None),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits=9", None),
            ("permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", None),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=", None),
            ("permessage-deflate; server_max_window_bits=7", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=010", None),
            ("permessage-deflate; server_max_window_bits=+9", None),
            ("permessage-deflate; client_max_window_bits=0", None),
            ("permessage-deflate; client_max_window_bits=\"1\\5\"", None),
            ("permessage-deflate;", None),
            ("permessage-deflate; ; client_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=\"10", None),
            ("permessage-deflate client_max_window_bits", None),
            ("=, permessage-deflate", None),
        ];
        for (header, expected) in table {
            assert_eq!(chosen(&[header]), expected, "{header}");
        }
    }

    #[test]
    fn several_headers_are_one_list() {
        assert_eq!(chosen(&["foo", "permessage-deflate"]), Some(0));
        assert_eq!(chosen(&["permessage-deflate; server_max_window_bits=9", "permessage-deflate"]), Some(0));
        assert_eq!(chosen(&["permessage-deflate", "permessage-deflate; server_max_window_bits=9"]), Some(0));
        assert_eq!(
            chosen(&["permessage-deflate; broken=\"", "permessage-deflate"]),
            Some(0),
            "a new line is a new chance"
        );
    }

    #[test]
    fn what_a_broken_header_says_behind_its_fault_counts_for_nothing() {
        assert_eq!(chosen(&["permessage-deflate; a=\", permessage-deflate"]), None);
        assert_eq!(chosen(&["permessage-deflate; server_max_window_bits=9, a b, permessage-deflate"]), Some(9));
    }

    #[test]
    fn the_answer_repeats_a_limit_and_nothing_else() {
        let answer = |bits| {
            let mut out = Vec::new();
            Deflate { server_max_window_bits: bits }.answer(&mut out);
            String::from_utf8(out).expect("ASCII")
        };
        let plain =
            "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover";

        assert_eq!(answer(None), plain);
        for bits in 8..=15 {
            assert_eq!(answer(Some(bits)), format!("{plain}; server_max_window_bits={bits}"));
        }
    }

    #[test]
    fn only_the_whole_window_takes_shared_frames() {
        for bits in 8..=15 {
            let deflate = Deflate { server_max_window_bits: Some(bits) };
            assert_eq!((deflate.window_bits(), deflate.takes_shared_frames()), (bits, bits == 15));
        }
    }
}
