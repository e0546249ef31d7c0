//! Lays the sources over each other and builds the typed configuration.
//! Each value is also tried alone over the defaults, so that a value that does not parse ("localhost:80" as an
//! address) is named with its place, and all such values are named at once.
//! Invariant: `Loaded::settings` holds every key exactly once, and `Loaded::config` is made from exactly those values
//! and what is in the files that `logic.keys_file` and `logic.gateways_file` name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;
use tidegate_protocol::json::Objects;
use toml::Value;

use super::Config;
use super::address;
use super::gateways_file;
use super::keys_file;
use super::schema::Schema;
use super::show::is_secret;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File {
        name: String,
        line: usize,
    },
    Env(String),
    /// A secret in the file that the variable names.
    EnvFile {
        name: String,
        path: String,
    },
    Set,
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::EnvFile { name, path } => write!(f, "env {name} ({path})"),
            Self::Set => write!(f, "flag --set"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One key with its value and where that stands.
#[derive(Clone, Debug)]
pub struct Setting {
    pub key: String,
    /// `None`: absent by default.
    pub value: Option<Value>,
    pub origin: Origin,
}

/// The configuration, and how it came about.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// Every key, in order of name.
    pub settings: Vec<Setting>,
}

/// Later layers win. `problems` are those found while reading; any problem at all makes an error of the whole.
pub fn resolve(schema: &Schema, layers: Vec<Vec<Setting>>, mut problems: Vec<String>) -> Result<Loaded, Vec<String>> {
    let mut settings: BTreeMap<String, Setting> = BTreeMap::new();
    for key in schema.keys() {
        let value = at(schema.defaults(), key).cloned();
        settings.insert(key.into(), Setting { key: key.into(), value, origin: Origin::Default });
    }
    for setting in layers.into_iter().flatten() {
        if let Err(why) = alone(schema, &setting) {
            problems.push(why);
        }
        settings.insert(setting.key.clone(), setting);
    }
    let settings: Vec<Setting> = settings.into_values().collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut config = typed(schema, &settings).map_err(|error| vec![error.message().to_owned()])?;
    let added = [keys_file::add(&mut config.logic), gateways_file::add(&mut config.logic)];
    let problems: Vec<String> = added.into_iter().filter_map(Result::err).collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let problems = contradictions(&config, &settings);
    if problems.is_empty() { Ok(Loaded { config, settings }) } else { Err(problems) }
}

/// Whether one value, over defaults otherwise, makes a configuration.
fn alone(schema: &Schema, setting: &Setting) -> Result<(), String> {
    let Err(error) = typed(schema, std::slice::from_ref(setting)) else { return Ok(()) };
    let Setting { key, value, origin } = setting;
    if is_secret(key) {
        return Err(format!("{origin}: {key}: {}", error.message()));
    }
    let got = value.as_ref().map_or_else(String::new, |value| format!(" = {value}"));
    if let (Some(Value::String(default)), Some(Value::String(text))) = (at(schema.defaults(), key), value)
        && default.parse::<SocketAddr>().is_ok()
        && let Err(advice) = address::parse(text)
    {
        return Err(format!("{origin}: {key}{got}: {advice}; the default is \"{default}\""));
    }
    let hint = match at(schema.defaults(), key) {
        Some(default) if !matches!(default, Value::Array(list) if list.is_empty()) => {
            format!("; the default is {default}")
        }
        _ => String::new(),
    };
    Err(format!("{origin}: {key}{got}: {}{hint}", error.message().trim_end()))
}

fn typed(schema: &Schema, settings: &[Setting]) -> Result<Config, toml::de::Error> {
    let mut table = schema.defaults().clone();
    for setting in settings {
        if let Some(value) = &setting.value {
            put(&mut table, &setting.key, value.clone());
        }
    }
    Config::deserialize(Objects::new(Value::Table(table)))
}

/// What the parts say contradicts itself, each followed by the settings of its section that are not defaults.
fn contradictions(config: &Config, settings: &[Setting]) -> Vec<String> {
    let said = config.gateway.problems().into_iter().chain(config.logic.problems());
    said.map(|problem| {
        let section = problem.split([':', ' ']).next().unwrap_or_default();
        let near: Vec<String> = settings
            .iter()
            .filter(|s| s.origin != Origin::Default && !is_secret(&s.key) && s.key.starts_with(section))
            .filter_map(|s| Some(format!("{} = {} from {}", s.key, s.value.as_ref()?, s.origin)))
            .collect();
        if near.is_empty() { problem } else { format!("{problem} ({})", near.join(", ")) }
    })
    .collect()
}

fn at<'a>(table: &'a toml::Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let mut value = table.get(parts.next()?)?;
    for part in parts {
        value = value.as_table()?.get(part)?;
    }
    Some(value)
}

fn put(table: &mut toml::Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.into(), value);
        }
        Some((section, rest)) => {
            let below = table.entry(section).or_insert_with(|| Value::Table(toml::Table::new()));
            if let Value::Table(below) = below {
                put(below, rest, value);
            }
        }
    }
}
