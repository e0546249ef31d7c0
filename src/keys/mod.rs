//! `tidegate keys`: makes API keys and looks at them. A new key is printed once and stored nowhere; the configuration gets its
//! hash. A key to look at comes by standard input, never by the command line, which other users of the machine can read.

mod format;

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;
use tidegate_logic::{KeyConfig, LogicConfig, Moment, Scope};

use self::format::ApiKey;
use crate::cli::KeysCreate;
use crate::config::Loaded;
use crate::failure::Failure;
use crate::out;

/// Longest input that can be a key.
const INPUT_BYTES_MAX: u64 = 4 * 1024;

/// A piece of the configuration file, written as one would.
#[derive(Serialize)]
struct Snippet {
    logic: Section,
}

#[derive(Serialize)]
struct Section {
    keys: Vec<KeyConfig>,
}

/// Prints a new key, and what the configuration must hold for it.
pub fn create(args: KeysCreate) -> Result<ExitCode, Failure> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    let usage = |why: String| Failure::Usage(vec![why]);
    let key = ApiKey::new(&args.id, &random).map_err(|error| usage(format!("--id {:?}: {error}", args.id)))?;
    let now = Moment::now();
    let entry = KeyConfig {
        id: args.id,
        sha256: format::sha256_hex(key.reveal()),
        scopes: args.scopes,
        not_before: args.not_before.map(|when| when.from(now)),
        expires: args.expires.map(|when| when.from(now)),
        rooms: args.rooms,
        users: args.users,
    };
    let alone = LogicConfig { keys: vec![entry.clone()], ..LogicConfig::default() };
    let problems = alone.problems();
    if !problems.is_empty() {
        return Err(Failure::Usage(problems));
    }
    if args.json {
        out::answer(&format!("{:#}\n", serde_json::json!({ "key": key.reveal(), "config": entry })))?;
        return Ok(ExitCode::SUCCESS);
    }
    let snippet = toml::to_string(&Snippet { logic: Section { keys: vec![entry] } });
    out::answer(&format!(
        "# The key, shown this once: give it to the caller, who sends it as Authorization: Bearer <key>.\n{}\n\n\
         # Add this to the configuration file or to the file that logic.keys_file names, on every logic node, then reload\n\
         # (SIGHUP, systemctl reload). A caller changes over without a gap while the old entry of its id stands beside it.\n{}\n",
        key.reveal(),
        snippet.context("a key of plain values is TOML")?.trim_end()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Says of a key on standard input what it is, and what this configuration makes of it.
pub fn inspect(loaded: &Loaded) -> Result<ExitCode, Failure> {
    let text = read_key()?;
    let (format, is_whole) = match format::id_of(&text) {
        Ok(id) => (format!("tidegate_sk, id {id:?}, checksum fits"), true),
        Err(error) => (error.to_string(), error == format::FormatError::Foreign),
    };
    let sha256 = format::sha256_hex(&text);
    let here = standing(&loaded.config.logic, &sha256, Moment::now());
    out::answer(&format!("format: {format}\nsha256: {sha256}\nhere:   {here}\n"))?;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a key with this hash may do by this configuration.
fn standing(config: &LogicConfig, sha256: &str, now: Moment) -> String {
    let Some(key) = config.keys.iter().find(|key| key.sha256.eq_ignore_ascii_case(sha256)) else {
        return "not among the configured keys (logic.keys, logic.keys_file)".into();
    };
    let scopes: Vec<&str> = key.scopes.iter().copied().map(Scope::label).collect();
    let mut words = vec![format!("{:?} may {}", key.id, scopes.join(", "))];
    let patterns = [("rooms", &key.rooms), ("users", &key.users)];
    words.extend(
        patterns.iter().filter(|(_, list)| !list.is_empty()).map(|(n, list)| format!("{n} {}", list.join(", "))),
    );
    words.extend(key.not_before.map(|from| format!("{} {from}", if now < from { "NOT BEFORE" } else { "since" })));
    words.extend(key.expires.map(|end| format!("{} {end}", if now >= end { "EXPIRED" } else { "until" })));
    words.join("; ")
}

fn read_key() -> Result<String, Failure> {
    let mut input = std::io::stdin();
    if input.is_terminal() {
        out::remark("paste the key, then Ctrl-D:");
    }
    let mut text = String::new();
    let read = input.by_ref().take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.context("standard input cannot be read as text")?;
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::Usage(vec!["no key on standard input: `tidegate keys inspect < key-file`".into()]));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_000_000);

    fn with(key: KeyConfig) -> LogicConfig {
        LogicConfig { keys: vec![key], ..LogicConfig::default() }
    }

    #[test]
    fn a_key_s_standing_names_what_it_may_and_when() {
        let sha256 = format::sha256_hex("secret");
        let key = KeyConfig {
            id: "billing".into(),
            sha256: sha256.clone(),
            scopes: vec![Scope::Push, Scope::Read],
            expires: Some(Moment(NOW.0)),
            rooms: vec!["chat:*".into()],
            ..KeyConfig::default()
        };

        let said = standing(&with(key), &sha256, NOW);

        assert_eq!(said, "\"billing\" may push, read; rooms chat:*; EXPIRED 1970-01-12T13:46:40Z");
        assert!(standing(&LogicConfig::default(), &sha256, NOW).contains("not among"));
    }
}
