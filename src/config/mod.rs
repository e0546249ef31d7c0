//! Everything an operator may set, and where each value came from: flags, then `TIDEGATE_*` environment, then the
//! TOML file, then defaults.
//! One mechanism for all keys: what exists is read off the serialised defaults (`schema`), each source is a list of
//! settings (`file`, `env`, flags), and `merge` lays them over each other. A new field in `GatewayConfig` or
//! `LogicConfig` is therefore a file key, a variable, a `--set` and a line of `config show` without a change here.
//! Does not judge what is safe to expose (see `exposure`) nor print (see `show`).

pub mod address;
mod env;
pub mod exposure;
mod file;
pub mod gateways_file;
mod keys_file;
mod merge;
mod schema;
pub mod show;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidegate_gateway::GatewayConfig;
use tidegate_logic::LogicConfig;

#[cfg(test)]
pub use env::OTHERS as VARIABLES_OF_FLAGS;
pub use merge::{Loaded, Origin, Setting};
use schema::Schema;

/// The whole configuration; each field is a section of the file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub gateway: GatewayConfig,
    pub logic: LogicConfig,
    pub auth: AuthConfig,
    pub log: LogConfig,
}

/// `[auth]`: what may be reached from other machines without proof. Who clients are is `[gateway.auth]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Let `gateway.listen` be reached from other machines although clients prove nothing.
    pub allow_open: bool,
    /// Let `gateway.ops` (health, metrics) be reached from other machines; it has no keys.
    pub allow_open_ops: bool,
}

/// `[log]`: what is written to standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// One line for people, or one JSON object a line.
    pub format: LogFormat,
    /// Least severe level that is written.
    pub level: LogLevel,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// What the command line says about configuration.
#[derive(Debug, Default)]
pub struct Given {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--set key=value`, in order.
    pub sets: Vec<String>,
    /// Flags that are short for a key: flag, key, values.
    pub flags: Vec<(&'static str, &'static str, Vec<String>)>,
}

impl Given {
    /// Adds a flag that stands for a key; one that was not given changes nothing.
    pub fn flag(&mut self, flag: &'static str, key: &'static str, values: impl IntoIterator<Item = String>) {
        let values: Vec<String> = values.into_iter().collect();
        if !values.is_empty() {
            self.flags.push((flag, key, values));
        }
    }
}

/// Reads all sources. The error lists every problem found, each a sentence that names the place and the remedy.
pub fn load(given: &Given) -> Result<Loaded, Vec<String>> {
    load_from(given, std::env::vars_os().map(|(name, value)| (lossy(&name), lossy(&value))))
}

fn lossy(text: &std::ffi::OsStr) -> String {
    text.to_string_lossy().into_owned()
}

fn load_from(given: &Given, variables: impl Iterator<Item = (String, String)>) -> Result<Loaded, Vec<String>> {
    let schema = Schema::of(&Config::default());
    let mut problems = Vec::new();
    let mut layers = Vec::new();
    if let Some(path) = &given.file {
        layers.push(file::read(path, &schema, &mut problems));
    }
    layers.push(env::read(variables, &schema, &mut problems));
    layers.push(flags(given, &schema, &mut problems));
    merge::resolve(&schema, layers, problems)
}

/// `--set` first, then the flags that are short for a key: the more specific spelling wins.
fn flags(given: &Given, schema: &Schema, problems: &mut Vec<String>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for set in &given.sets {
        let Some((key, text)) = set.split_once('=') else {
            problems.push(format!("--set {set}: expected key=value, such as --set gateway.merge.min_ms=50"));
            continue;
        };
        let key = key.trim();
        match schema.parse(key, text.trim()) {
            Ok(value) => settings.push(Setting { key: key.into(), value: Some(value), origin: Origin::Set }),
            Err(why) => problems.push(format!("--set {key}: {why}")),
        }
    }
    for (flag, key, values) in &given.flags {
        match schema.parse_all(key, values) {
            Ok(value) => settings.push(Setting { key: (*key).into(), value: Some(value), origin: Origin::Flag(flag) }),
            Err(why) => problems.push(format!("{flag}: {why}")),
        }
    }
    settings
}

/// The line of `text` that holds byte `at`, counted from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1
}

/// How a file is named in messages: as the operator wrote it.
fn file_name(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
