//! Parameters of a query string, as forms and URLSearchParams write them.
//! Only values are decoded: a name written with escapes is another name, here and for the check of duplicates alike.

use std::borrow::Cow;

use super::Refusal;

/// First value of `name`, percent-decoded, `+` read as a space. Allocates only if something had to be decoded.
///
/// # Errors
///
/// [`Refusal::BadQuery`] if the value has a broken escape or decodes to bytes that are not UTF-8: a client that meant to name
/// itself must not go on as nobody.
pub fn query_value<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
    pairs(query).find(|(n, _)| *n == name).map(|(_, value)| decode(value)).transpose()
}

/// Whether `name` appears more than once, so that two readers could see two different values.
#[must_use]
pub fn query_has_duplicates(query: &str, name: &str) -> bool {
    pairs(query).filter(|(n, _)| *n == name).nth(1).is_some()
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn decode(value: &str) -> Result<Cow<'_, str>, Refusal> {
    if !value.bytes().any(|b| b == b'%' || b == b'+') {
        return Ok(Cow::Borrowed(value));
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => out.push(b' '),
            b'%' => {
                let (byte, after) =
                    escape(rest).ok_or(Refusal::BadQuery { what: "% must begin an escape such as %20" })?;
                out.push(byte);
                rest = after;
            }
            plain => out.push(*plain),
        }
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| Refusal::BadQuery { what: "a value does not decode to UTF-8" })
}

/// The byte of two hexadecimal digits, and what follows them.
fn escape(input: &[u8]) -> Option<(u8, &[u8])> {
    let ([high, low], rest) = input.split_first_chunk::<2>()?;
    let digit = |b: u8| (b as char).to_digit(16);
    let byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
    Some((byte, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_the_first_one_wins() {
        let query = "user=J%c3%B6rg+K&token=a.b-c_d&user=other&empty=&flag";
        let value = |name| query_value(query, name).expect("well-formed");

        assert_eq!(value("user").as_deref(), Some("Jörg K"));
        assert!(matches!(value("token"), Some(Cow::Borrowed("a.b-c_d"))));
        assert_eq!(value("empty").as_deref(), Some(""));
        assert_eq!(value("flag").as_deref(), Some(""));
        assert_eq!(value("use"), None);
        assert_eq!(query_value("", "user"), Ok(None));
    }

    #[test]
    fn broken_escapes_are_refused_only_where_they_are_read() {
        for bad in ["%", "%4", "%zz", "a%2", "%+1", "%ff", "%c3%"] {
            let query = format!("token={bad}&user=a");
            assert!(matches!(query_value(&query, "token"), Err(Refusal::BadQuery { .. })), "{bad}");
            assert_eq!(query_value(&query, "user").expect("untouched").as_deref(), Some("a"));
        }
    }

    #[test]
    fn duplicates_are_seen_whatever_their_values() {
        assert!(query_has_duplicates("user=a&x=1&user=a", "user"));
        assert!(query_has_duplicates("user&user=", "user"));
        assert!(!query_has_duplicates("user=a&users=b&xuser=c", "user"));
        assert!(!query_has_duplicates("", "user"));
    }
}
