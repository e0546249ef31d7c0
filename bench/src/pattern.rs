//! Names that depend on a client's number: `user-{i}`, `room-{i%100}`.
//! A file of its own because the swarm and its checker must agree on who is where.

use std::fmt::Write as _;
use std::str::FromStr;

/// A name with at most one `{i}` or `{i%M}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    source: String,
    before: String,
    /// Modulus of the number; `None` when the name is constant, 0 when the number is taken as it is.
    modulus: Option<u64>,
    after: String,
}

impl Pattern {
    /// The name of client `index`.
    pub fn name(&self, index: u64) -> String {
        let mut name = self.before.clone();
        if let Some(modulus) = self.modulus {
            let number = if modulus == 0 { index } else { index % modulus };
            write!(name, "{number}").expect("writing to a string cannot fail");
        }
        name.push_str(&self.after);
        name
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(source: &str) -> Result<Self, String> {
        let constant = || Self { source: source.into(), before: source.into(), modulus: None, after: String::new() };
        let Some((before, rest)) = source.split_once('{') else { return Ok(constant()) };
        let (inside, after) = rest.split_once('}').ok_or_else(|| format!("`{source}`: `{{` without `}}`"))?;
        let modulus = match inside.strip_prefix('i') {
            Some("") => 0,
            Some(modulo) => modulo
                .strip_prefix('%')
                .and_then(|number| number.parse().ok())
                .filter(|modulus| *modulus > 0)
                .ok_or_else(|| format!("`{source}`: expected `{{i}}` or `{{i%100}}`"))?,
            None => return Err(format!("`{source}`: expected `{{i}}` or `{{i%100}}`")),
        };
        Ok(Self { source: source.into(), before: before.into(), modulus: Some(modulus), after: after.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_numbers_clients_and_wraps_at_its_modulus() {
        let room: Pattern = "room-{i%100}".parse().expect("a pattern");
        let user: Pattern = "u{i}x".parse().expect("a pattern");
        let constant: Pattern = "lobby".parse().expect("a pattern");

        assert_eq!(room.name(1234), "room-34");
        assert_eq!(user.name(1234), "u1234x");
        assert_eq!(constant.name(1234), "lobby");
    }

    #[test]
    fn a_pattern_that_says_nothing_known_is_refused() {
        for source in ["a{j}", "a{i%0}", "a{i%x}", "a{i"] {
            assert!(source.parse::<Pattern>().is_err(), "{source}");
        }
    }
}
