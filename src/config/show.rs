//! `config show`: every key, its value and where it came from; secrets are masked.
//! The text form is a valid TOML file with the sources as comments, so that it can be the start of one.

use std::fmt::Write as _;

use super::merge::{Loaded, Origin, Setting};

/// Last words of keys whose values are never printed.
const SECRET_WORDS: [&str; 6] = ["secret", "secrets", "keys", "password", "token", "sinks"];
/// Keys that end in such a word and count something.
const COUNTS: [&str; 1] = ["logic.agents.keys"];

/// Whether a key's value is kept out of all output. It goes by names, since what is said of a key that does not exist, or
/// that has a value of the wrong type, may show a secret too.
pub fn is_secret(key: &str) -> bool {
    if COUNTS.contains(&key) {
        return false;
    }
    let name = key.rsplit('.').next().unwrap_or(key);
    SECRET_WORDS.iter().any(|word| name == *word || name.strip_suffix(word).is_some_and(|rest| rest.ends_with('_')))
}

/// One `key = value  # source` a line.
pub fn text(loaded: &Loaded) -> String {
    let lines: Vec<(String, &Origin)> = loaded.settings.iter().map(|s| (assignment(s), &s.origin)).collect();
    let width = lines.iter().map(|(line, _)| line.len()).filter(|&len| len <= 60).max().unwrap_or(0);
    let mut out = String::new();
    for (line, origin) in lines {
        let _ = writeln!(out, "{line:width$}  # {origin}");
    }
    out
}

/// A masked secret and an absent value are comments: read back, they must not become values.
fn assignment(setting: &Setting) -> String {
    match (&setting.value, masked(setting)) {
        (_, Some(mask)) => format!("# {} = {mask}", setting.key),
        (Some(value), None) => format!("{} = {value}", setting.key),
        (None, None) => format!("# {} is not set", setting.key),
    }
}

/// `{"key": {"value": …, "origin": …}}`
pub fn json(loaded: &Loaded) -> serde_json::Value {
    let entry = |setting: &Setting| {
        let value = match masked(setting) {
            Some(mask) => serde_json::Value::from(mask),
            None => serde_json::to_value(&setting.value).unwrap_or_default(),
        };
        (setting.key.clone(), serde_json::json!({ "value": value, "origin": setting.origin.to_string() }))
    };
    serde_json::Value::Object(loaded.settings.iter().map(entry).collect())
}

/// A secret's stand-in; an empty secret is no secret, and that it is empty is worth seeing.
fn masked(setting: &Setting) -> Option<&'static str> {
    let empty = match &setting.value {
        None => true,
        Some(toml::Value::String(text)) => text.is_empty(),
        Some(toml::Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    };
    (is_secret(&setting.key) && !empty).then_some("********")
}
