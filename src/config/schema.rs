//! Which keys exist and of which type, read off the serialised defaults so that there is one source of truth.
//! Turns text (a variable, a flag) into a value of the key's type, and finds the key a typing error meant.
//! Invariant: a dotted key is either a section or a leaf, never both.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use toml::Value;

/// Type of a key, as its default shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    Float,
    Switch,
    List,
    /// A map with names of the operator's choice.
    Map,
    /// The default is "absent", so that the type is known to serde alone.
    Any,
}

impl Kind {
    /// The type in an operator's words, article included.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Integer => "an integer",
            Self::Float => "a number",
            Self::Switch => "true or false",
            Self::List => "a list",
            Self::Map => "a table",
            Self::Any => "a value",
        }
    }

    /// Whether a value of a file is of this type; an integer passes for a number.
    pub const fn fits(self, value: &Value) -> bool {
        matches!(
            (self, value),
            (Self::Text, Value::String(_))
                | (Self::Integer, Value::Integer(_))
                | (Self::Float, Value::Float(_) | Value::Integer(_))
                | (Self::Switch, Value::Boolean(_))
                | (Self::List, Value::Array(_))
                | (Self::Map, Value::Table(_))
                | (Self::Any, _)
        )
    }
}

/// All keys with their types.
#[derive(Debug)]
pub struct Schema {
    leaves: BTreeMap<String, Kind>,
    sections: BTreeSet<String>,
    defaults: toml::Table,
}

impl Schema {
    pub fn of<C: Serialize>(defaults: &C) -> Self {
        let tree = serde_json::to_value(defaults).expect("a configuration of plain values serialises");
        let table = toml::Table::try_from(defaults).expect("a configuration of plain values serialises");
        let mut schema = Self { leaves: BTreeMap::new(), sections: BTreeSet::new(), defaults: table };
        schema.gather("", &tree);
        schema
    }

    /// JSON rather than TOML shows the tree, since TOML leaves absent values out.
    fn gather(&mut self, path: &str, value: &serde_json::Value) {
        use serde_json::Value as Json;
        let kind = match value {
            Json::Object(fields) if !fields.is_empty() => {
                if !path.is_empty() {
                    self.sections.insert(path.into());
                }
                for (name, value) in fields {
                    self.gather(&join(path, name), value);
                }
                return;
            }
            Json::Object(_) => Kind::Map,
            Json::Null => Kind::Any,
            Json::Bool(_) => Kind::Switch,
            Json::Number(number) if number.is_f64() => Kind::Float,
            Json::Number(_) => Kind::Integer,
            Json::String(_) => Kind::Text,
            Json::Array(_) => Kind::List,
        };
        self.leaves.insert(path.into(), kind);
    }

    pub const fn defaults(&self) -> &toml::Table {
        &self.defaults
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.leaves.keys().map(String::as_str)
    }

    pub fn kind(&self, key: &str) -> Option<Kind> {
        self.leaves.get(key).copied()
    }

    pub fn is_section(&self, key: &str) -> bool {
        self.sections.contains(key)
    }

    /// What is wrong with a key that does not exist, with the one that was probably meant.
    pub fn unknown(&self, key: &str) -> String {
        match self.nearest(key) {
            Some(near) => format!("unknown key {key}; did you mean {near}?"),
            None => format!("unknown key {key}; `tidegate config show` lists all keys"),
        }
    }

    /// The key with the fewest typing errors to it (at most a third of its last word), or else the only one with the
    /// same last word in another section.
    pub fn nearest(&self, key: &str) -> Option<&str> {
        let known = || self.keys().chain(self.sections.iter().map(String::as_str));
        let close = known().map(|name| (strsim::damerau_levenshtein(name, key), name)).min();
        if let Some((errors, name)) = close
            && errors <= (last_word(name).len() / 3).max(2)
        {
            return Some(name);
        }
        let mut same = known().filter(|name| last_word(name) == last_word(key));
        same.next().filter(|_| same.next().is_none())
    }

    /// Parses text by the type of the key.
    pub fn parse(&self, key: &str, text: &str) -> Result<Value, String> {
        let kind = match self.kind(key) {
            Some(kind) => kind,
            None if self.is_section(key) => return Err(format!("{key} is a section; set one of its keys")),
            None => return Err(self.unknown(key)),
        };
        let wrong = || format!("{key}: expected {}, got {text:?}", kind.words());
        match kind {
            Kind::Text => Ok(Value::String(text.into())),
            Kind::Integer => text.replace('_', "").parse().map(Value::Integer).map_err(|_| wrong()),
            Kind::Float => text.parse().map(Value::Float).map_err(|_| wrong()),
            Kind::Switch => match text {
                "true" | "1" => Ok(Value::Boolean(true)),
                "false" | "0" => Ok(Value::Boolean(false)),
                _ => Err(wrong()),
            },
            Kind::List if text.starts_with('[') => literal(text).ok_or_else(wrong),
            Kind::List => Ok(items(text.split([',', '\n']))),
            Kind::Map => literal(text).filter(|value| kind.fits(value)).ok_or_else(wrong),
            Kind::Any => Ok(literal(text).unwrap_or_else(|| Value::String(text.into()))),
        }
    }

    /// Parses the values of a flag: a list takes them all, anything else the last one.
    pub fn parse_all(&self, key: &str, texts: &[String]) -> Result<Value, String> {
        if self.kind(key) == Some(Kind::List) {
            return Ok(items(texts.iter().map(String::as_str)));
        }
        self.parse(key, texts.last().map_or("", String::as_str))
    }
}

/// A key below a section.
pub fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.into() } else { format!("{section}.{name}") }
}

fn last_word(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn items<'a>(texts: impl Iterator<Item = &'a str>) -> Value {
    Value::Array(texts.map(str::trim).filter(|text| !text.is_empty()).map(|text| Value::String(text.into())).collect())
}

/// A value in TOML's own notation.
fn literal(text: &str) -> Option<Value> {
    toml::from_str::<toml::Table>(&format!("value = {text}")).ok()?.remove("value")
}
