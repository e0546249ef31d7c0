//! The `TIDEGATE_*` variables as a list of settings: `TIDEGATE_GATEWAY__MERGE__MIN_MS` is `gateway.merge.min_ms`.
//! The double underscore nests because a single one occurs in names. A variable that means nothing is a problem: a
//! setting that was silently ignored is found in production.
//! For a secret, the same name with `_FILE` names a file that holds it, so that it need not stand in the environment.

use super::merge::{Origin, Setting};
use super::schema::Schema;
use super::show::is_secret;

const PREFIX: &str = "TIDEGATE_";

/// Variables that stand for flags and not for keys; `cli` reads them.
pub const OTHERS: [&str; 2] = ["TIDEGATE_CONFIG", "TIDEGATE_AGENT_TOKEN"];

/// Reads the variables that start with `TIDEGATE_`.
pub fn read(
    variables: impl Iterator<Item = (String, String)>,
    schema: &Schema,
    problems: &mut Vec<String>,
) -> Vec<Setting> {
    let mut ours: Vec<(String, String)> =
        variables.filter(|(name, _)| name.starts_with(PREFIX) && !is_foreign(name, schema)).collect();
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

/// Whether a variable with our prefix is not meant for the configuration: what only flags read, tests, what Kubernetes puts into
/// each pod for a Service that is called `tidegate` or `tidegate-…`, and names that no key could have. A name that is a key, or
/// nearly one, is ours.
fn is_foreign(name: &str, schema: &Schema) -> bool {
    let rest = &name[PREFIX.len()..];
    let key = key_of(name);
    if schema.kind(&key).is_some() {
        return false;
    }
    if OTHERS.contains(&name) || rest.starts_with("TEST_") || is_service_link(rest) {
        return true;
    }
    // Every key is in a section, so its variable has a double underscore.
    let is_in_section = schema.is_section(key.split('_').next().unwrap_or_default());
    !rest.contains("__") && !is_in_section && schema.nearest(&key).is_none()
}

/// `SERVICE_HOST`, `SERVICE_PORT`, `SERVICE_PORT_HTTP`, `PORT`, `PORT_8000_TCP`, `PORT_8000_TCP_ADDR`, after the rest of the
/// Service's name if it has one (`SUPPORT_`, which has a PORT of its own).
fn is_service_link(rest: &str) -> bool {
    let begins = |at: &usize| *at == 0 || rest[..*at].ends_with('_');
    let mut tails = (0..rest.len()).filter(|at| rest.is_char_boundary(*at)).filter(begins).map(|at| &rest[at..]);
    tails.any(|tail| {
        matches!(tail, "SERVICE_HOST" | "SERVICE_PORT" | "PORT")
            || tail.strip_prefix("SERVICE_PORT_").is_some_and(|port| !port.is_empty())
            || tail.strip_prefix("PORT_").is_some_and(is_port_of_link)
    })
}

/// `8000_TCP`, `8000_TCP_ADDR` and the like.
fn is_port_of_link(text: &str) -> bool {
    let mut parts = text.split('_');
    let is_port = parts.next().is_some_and(|port| port.parse::<u16>().is_ok());
    let is_protocol = parts.next().is_some_and(|word| matches!(word, "TCP" | "UDP" | "SCTP"));
    let is_detail = parts.next().is_none_or(|word| matches!(word, "PROTO" | "PORT" | "ADDR"));
    is_port && is_protocol && is_detail && parts.next().is_none()
}
