//! The TOML file as a list of settings, each with its line.
//! Parsed twice: once for the values, once for where they stand; files are small and the two need no agreement beyond
//! the text. Every unknown key and wrong type is a problem with its line, not only the first.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::merge::{Origin, Setting};
use super::schema::{Kind, Schema, join};
use super::show::is_secret;
use super::{file_name, line_of};

/// Reads the file; what is wrong with it goes to `problems`, what is right comes back.
pub fn read(path: &Path, schema: &Schema, problems: &mut Vec<String>) -> Vec<Setting> {
    let name = file_name(path);
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&name, &text, schema, problems),
        Err(error) => {
            problems.push(format!("{name}: cannot be read: {error}"));
            Vec::new()
        }
    }
}

fn parse(name: &str, text: &str, schema: &Schema, problems: &mut Vec<String>) -> Vec<Setting> {
    let parsed = DeTable::parse(text).and_then(|spans| Ok((spans, toml::from_str::<toml::Table>(text)?)));
    match parsed {
        Ok((spans, values)) => {
            let mut walk = Walk { name, text, schema, problems, found: Vec::new() };
            walk.table("", spans.get_ref(), &values);
            walk.found
        }
        Err(error) => {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            problems.push(format!("{name}:{line}: {}", error.message()));
            Vec::new()
        }
    }
}

struct Walk<'a> {
    name: &'a str,
    text: &'a str,
    schema: &'a Schema,
    problems: &'a mut Vec<String>,
    found: Vec<Setting>,
}

impl Walk<'_> {
    fn table(&mut self, path: &str, spans: &DeTable<'_>, values: &toml::Table) {
        for (name, place) in spans {
            let Some(value) = values.get(name.get_ref().as_ref()) else { continue };
            self.entry(&join(path, name.get_ref()), line_of(self.text, name.span().start), place, value);
        }
    }

    fn entry(&mut self, key: &str, line: usize, place: &Spanned<DeValue<'_>>, value: &toml::Value) {
        if self.schema.is_section(key) {
            match (place.get_ref(), value) {
                (DeValue::Table(spans), toml::Value::Table(values)) => self.table(key, spans, values),
                _ => self.problem(line, &format!("{key}: expected a section, got {}", describe(value))),
            }
            return;
        }
        match self.schema.kind(key) {
            None => self.problem(line, &self.schema.unknown(key)),
            Some(kind) if !kind.fits(value) => {
                self.problem(line, &format!("{key}: expected {}, got {}", kind.words(), masked(key, value)));
            }
            Some(_) => {
                let origin = Origin::File { name: self.name.into(), line };
                self.found.push(Setting { key: key.into(), value: Some(value.clone()), origin });
            }
        }
    }

    fn problem(&mut self, line: usize, what: &str) {
        self.problems.push(format!("{}:{line}: {what}", self.name));
    }
}

/// As [`describe`], but a secret is not shown.
fn masked(key: &str, value: &toml::Value) -> String {
    if is_secret(key) { "another type (not shown: it is a secret)".into() } else { describe(value) }
}

/// Type and text of a value, for "got …".
fn describe(value: &toml::Value) -> String {
    let kind = match value {
        toml::Value::String(_) => Kind::Text.words(),
        toml::Value::Integer(_) => Kind::Integer.words(),
        toml::Value::Float(_) => Kind::Float.words(),
        toml::Value::Boolean(_) => "the switch",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => Kind::List.words(),
        toml::Value::Table(_) => Kind::Map.words(),
    };
    format!("{kind} {value}")
}
