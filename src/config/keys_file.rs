//! The file that `logic.keys_file` names: more `[[logic.keys]]`, apart from the rest of the configuration so that another
//! hand, or another program, can write it. The same notation as in the configuration file, so that what
//! `tidegate keys create` prints fits both.

use serde::Deserialize;
use tidegate_logic::{KeyConfig, LogicConfig};
use tidegate_protocol::json::Objects;

use super::line_of;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    logic: Section,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    keys: Vec<KeyConfig>,
}

/// Adds the file's keys to those of the configuration. A file that holds none is a problem: taken as it stands, it would
/// open the API to everyone on the machine.
pub fn add(config: &mut LogicConfig) -> Result<(), String> {
    let path = &config.keys_file;
    if path.is_empty() {
        return Ok(());
    }
    // A pipe would be waited for.
    if !std::fs::metadata(path).map_err(|error| format!("logic.keys_file: {path} cannot be read: {error}"))?.is_file() {
        return Err(format!("logic.keys_file: {path} is not a file"));
    }
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("logic.keys_file: {path} cannot be read: {error}"))?;
    let parsed = toml::Deserializer::parse(&text).and_then(|file| File::deserialize(Objects::new(file)));
    let file = parsed.map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(&text, span.start));
        format!("logic.keys_file: {path}:{line}: {}", error.message())
    })?;
    if file.logic.keys.is_empty() {
        return Err(format!("logic.keys_file: {path} holds no [[logic.keys]]; remove the setting if that is meant"));
    }
    config.keys.extend(file.logic.keys);
    Ok(())
}
