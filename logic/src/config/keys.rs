//! `[[logic.keys]]`: who may call, and what makes a list of keys contradict itself.

use serde::{Deserialize, Serialize};
use tidegate_protocol::limits::{PATTERN_BYTES_MAX, PATTERNS_MAX};

use super::moment::Moment;

/// Most keys of a node: each request is compared with all of them, which at this many takes some 20 µs.
pub const KEYS_MAX: usize = 1_000;
/// Most keys of one id: the old and the new while callers change over.
const KEYS_OF_AN_ID_MAX: usize = 2;
/// Longest id, in bytes.
const ID_BYTES_MAX: usize = 64;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Send messages.
    Push,
    /// See connections, rooms, users, figures.
    Read,
    /// Close connections.
    Admin,
}

impl Scope {
    /// The scope as the configuration writes it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// `[[logic.keys]]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Name of the caller. Two keys may have the same, so that a caller can change over without a gap.
    pub id: String,
    /// SHA-256 of the key, 64 hex digits, as `tidegate keys create` and `sha256sum` print it.
    pub sha256: String,
    /// What its bearer may do.
    pub scopes: Vec<Scope>,
    /// From when it counts; absent: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Moment>,
    /// From when it does not count any more; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Moment>,
    /// Patterns of the rooms it may push to. With neither rooms nor users it may push to anyone; with either, to nobody else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<String>,
    /// Patterns of the users it may push to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
}

/// What is wrong with a list of keys, in the operator's words.
pub fn problems(keys: &[KeyConfig], out: &mut Vec<String>) {
    if keys.len() > KEYS_MAX {
        out.push(format!("logic.keys: {} keys, at most {KEYS_MAX}", keys.len()));
    }
    for (i, key) in keys.iter().enumerate() {
        let before = &keys[..i];
        let is_name = (1..=ID_BYTES_MAX).contains(&key.id.len()) && !key.id.chars().any(char::is_control);
        if !is_name {
            out.push(format!("logic.keys: id {:?} must be 1 to {ID_BYTES_MAX} bytes", key.id));
        }
        if before.iter().filter(|k| k.id == key.id).count() == KEYS_OF_AN_ID_MAX {
            out.push(format!("logic.keys: {:?} has more than {KEYS_OF_AN_ID_MAX} keys, an old and a new one", key.id));
        }
        if parse_sha256(&key.sha256).is_none() {
            out.push(format!("logic.keys: sha256 of {:?} must be 64 hex digits (the hash, not the key)", key.id));
        } else if let Some(same) = before.iter().find(|k| k.sha256.eq_ignore_ascii_case(&key.sha256)) {
            out.push(format!("logic.keys: {:?} and {:?} are the same key", same.id, key.id));
        }
        if key.scopes.is_empty() {
            out.push(format!("logic.keys: {:?} has no scopes; known are push, read and admin", key.id));
        }
        if key.not_before.zip(key.expires).is_some_and(|(from, to)| from >= to) {
            out.push(format!("logic.keys: {:?} expires before its not_before", key.id));
        }
        reach_problems(key, out);
    }
}

fn reach_problems(key: &KeyConfig, out: &mut Vec<String>) {
    let patterns = || key.rooms.iter().chain(&key.users);
    let fits = |pattern: &String| (1..=PATTERN_BYTES_MAX).contains(&pattern.len());
    if key.rooms.len().max(key.users.len()) > PATTERNS_MAX || !patterns().all(fits) {
        out.push(format!(
            "logic.keys: rooms and users of {:?} take {PATTERNS_MAX} patterns of 1 to {PATTERN_BYTES_MAX} bytes",
            key.id
        ));
    }
    if patterns().next().is_some() && !key.scopes.contains(&Scope::Push) {
        out.push(format!("logic.keys: rooms and users of {:?} bound pushes, but it has no scope push", key.id));
    }
}

/// 64 hex digits as 32 bytes.
pub fn parse_sha256(hex: &str) -> Option<[u8; 32]> {
    let mut out = [0u8; 32];
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, n: u8) -> KeyConfig {
        KeyConfig { id: id.into(), sha256: format!("{n:064x}"), scopes: vec![Scope::Push], ..KeyConfig::default() }
    }

    fn said(keys: &[KeyConfig]) -> Vec<String> {
        let mut out = Vec::new();
        problems(keys, &mut out);
        out
    }

    #[test]
    fn an_id_may_have_two_keys_and_no_third() {
        assert_eq!(said(&[key("a", 1), key("a", 2), key("b", 3)]), Vec::<String>::new());

        let problems = said(&[key("a", 1), key("a", 2), key("a", 3)]);

        assert!(problems.len() == 1 && problems[0].contains("more than 2 keys"), "{problems:?}");
    }

    #[test]
    fn each_contradiction_of_a_key_is_named() {
        let late = KeyConfig { not_before: Some(Moment(2)), expires: Some(Moment(2)), ..key("late", 1) };
        let reader = KeyConfig { scopes: vec![Scope::Read], rooms: vec!["*".into()], ..key("reader", 2) };
        let empty = KeyConfig { users: vec![String::new()], ..key("empty", 3) };
        let wide = KeyConfig { rooms: vec!["a".into(); PATTERNS_MAX + 1], ..key("wide", 4) };
        let again = KeyConfig { sha256: format!("{:064X}", 4), ..key("again", 4) };
        let long = key(&"x".repeat(ID_BYTES_MAX + 1), 5);

        let problems = said(&[late, reader, empty, wide, again, long]);

        assert_eq!(problems.len(), 6, "{problems:#?}");
    }

    #[test]
    fn keys_are_bounded() {
        let hash = |n: usize| format!("{n:064x}");
        let many = (0..=KEYS_MAX).map(|n| KeyConfig { id: n.to_string(), sha256: hash(n), ..key("", 0) });

        let problems = said(&many.collect::<Vec<_>>());

        assert_eq!(problems, ["logic.keys: 1001 keys, at most 1000"]);
    }
}
