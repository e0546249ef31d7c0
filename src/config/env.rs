//! The `TIDEGATE_*` variables as a list of settings: `TIDEGATE_GATEWAY__MERGE__MIN_MS` is `gateway.merge.min_ms`.
//! The double underscore nests because a single one occurs in names. A variable that means nothing is a problem: a
//! setting that was silently ignored is found in production.
//! For a secret, the same name with `_FILE` names a file that holds it, so that it need not stand in the environment.

use super::merge::{Origin, Setting};
use super::schema::Schema;
use super::show::is_secret;

const PREFIX: &str = "TIDEGATE_";

/// Variables that are not keys: the configuration file itself (read by `cli`).
const OTHERS: [&str; 1] = ["TIDEGATE_CONFIG"];

/// Reads the variables that start with `TIDEGATE_`.
pub fn read(
    variables: impl Iterator<Item = (String, String)>,
    schema: &Schema,
    problems: &mut Vec<String>,
) -> Vec<Setting> {
    let mut ours: Vec<(String, String)> =
        variables.filter(|(name, _)| name.starts_with(PREFIX) && !is_foreign(name)).collect();
    ours.sort();
    let mut found: Vec<Setting> = Vec::new();
    for (name, text) in ours {
        match setting(&name, &text, schema) {
            Ok(setting) if found.iter().any(|other| other.key == setting.key) => {
                problems.push(format!("{name}: {} is also set by its other variable; set one of the two", setting.key));
            }
            Ok(setting) => found.push(setting),
            Err(why) => problems.push(format!("environment variable {name}: {why}")),
        }
    }
    found
}

fn setting(name: &str, text: &str, schema: &Schema) -> Result<Setting, String> {
    let key = key_of(name);
    if schema.kind(&key).is_some() {
        let value = schema.parse(&key, text)?;
        return Ok(Setting { key, value: Some(value), origin: Origin::Env(name.into()) });
    }
    if let Some(secret) = key.strip_suffix("_file")
        && schema.kind(secret).is_some()
    {
        return secret_file(name, secret, text, schema);
    }
    match schema.nearest(&key) {
        Some(near) if schema.kind(near).is_some() => {
            Err(format!("there is no key {key}; did you mean {}?", name_of(near)))
        }
        _ => Err(format!("there is no key {key}; `tidegate config show` lists all keys")),
    }
}

fn secret_file(name: &str, key: &str, path: &str, schema: &Schema) -> Result<Setting, String> {
    if !is_secret(key) {
        return Err(format!("only secrets are read from files of their own; set {} instead", name_of(key)));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(format!("{path} is empty"));
    }
    let value = schema.parse(key, text).map_err(|_| format!("{path} does not hold a value for {key}"))?;
    Ok(Setting {
        key: key.into(),
        value: Some(value),
        origin: Origin::EnvFile { name: name.into(), path: path.into() },
    })
}

fn key_of(name: &str) -> String {
    name[PREFIX.len()..].to_lowercase().replace("__", ".")
}

fn name_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// Variables with our prefix that others set: tests, and the links that Kubernetes puts into each pod when a Service is
/// called `tidegate` or `tidegate-…` (`TIDEGATE_SERVICE_HOST`, `TIDEGATE_PORT_8000_TCP_ADDR`, …).
fn is_foreign(name: &str) -> bool {
    let rest = &name[PREFIX.len()..];
    if OTHERS.contains(&name) || rest.starts_with("TEST_") {
        return true;
    }
    let link = |word: &str| rest.starts_with(word) || rest.contains(&format!("_{word}"));
    let port_of_link =
        rest.split_once("PORT_").is_some_and(|(_, after)| after.starts_with(|c: char| c.is_ascii_digit()));
    !rest.contains("__")
        && (link("SERVICE_HOST") || link("SERVICE_PORT") || port_of_link || rest == "PORT" || rest.ends_with("_PORT"))
}
