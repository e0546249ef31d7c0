//! The part of the house style that a machine can keep, so that reviews are about design.
//! Each test is one rule over the whole tree; a list of exceptions may only shrink.

mod arrows;
mod floors;
mod pages;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest file without a wall.
const LINES_MAX: usize = 500;

/// Files that are longer, with the length they must not pass. Shrink a line or remove it; never add one.
const LONG_FILES: &[(&str, usize)] = &[];

/// Crate, and what it must not depend on, for any purpose.
const FORBIDDEN_ARROWS: &[(&str, &[&str])] = &[
    (
        "protocol",
        &[
            "tidegate-gateway",
            "tidegate-logic",
            "tidegate-bench",
            "tokio",
            "h2",
            "hyper",
            "hyper-util",
            "socket2",
            "rustix",
            "tracing",
        ],
    ),
    ("tls", &["tidegate-protocol", "tidegate-gateway", "tidegate-logic", "tidegate-bench", "hyper", "h2"]),
    ("gateway", &["tidegate-logic", "tidegate-bench"]),
    ("logic", &["tidegate-gateway", "tidegate-bench"]),
    ("bench", &["tidegate-gateway", "tidegate-logic"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Path below the root and contents of every Rust file of the workspace.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in ["src", "tests", "protocol", "tls", "gateway", "logic", "bench"] {
        gather(&root().join(folder), &mut files);
    }
    files.sort();
    assert!(files.len() > 20, "the sources were not found below {}", root().display());
    files
}

fn gather(folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path: PathBuf = entry.expect("a readable folder").path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                gather(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            files.push((name, fs::read_to_string(&path).expect("a readable source")));
        }
    }
}

/// A page of `docs/`.
fn page(name: &str) -> String {
    let path = root().join("docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_none(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

#[test]
fn every_file_opens_with_what_it_is() {
    let bare = sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name);

    assert_none("these files do not open with `//! `", &bare.collect::<Vec<_>>());
}

#[test]
fn no_file_outgrows_a_screen_or_ten() {
    let allowed = |name: &str| LONG_FILES.iter().find(|(file, _)| *file == name).map_or(LINES_MAX, |(_, lines)| *lines);
    let files: Vec<(String, usize)> = sources().into_iter().map(|(name, text)| (name, text.lines().count())).collect();

    let long = files.iter().filter(|(name, lines)| *lines > allowed(name));
    let long: Vec<String> =
        long.map(|(name, lines)| format!("{name}: {lines} lines, at most {}", allowed(name))).collect();
    assert_none("these files want a wall", &long);
    for (name, _) in LONG_FILES {
        let still = files.iter().any(|(file, lines)| file == name && *lines > LINES_MAX);
        assert!(still, "{name} is no exception any more: take it off the list");
    }
}

#[test]
fn crates_depend_only_downwards() {
    let mut wrong = Vec::new();
    for (member, forbidden) in FORBIDDEN_ARROWS {
        let text = fs::read_to_string(root().join(member).join("Cargo.toml")).expect("a member's manifest");
        let manifest: toml::Table = toml::from_str(&text).expect("a manifest");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let names = manifest.get(section).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
            let bad = names.filter(|name| forbidden.contains(&name.as_str()));
            wrong.extend(bad.map(|name| format!("{member}/Cargo.toml [{section}]: {name}")));
        }
    }

    assert_none("these arrows are not in the architecture", &wrong);
}

#[test]
fn every_dependency_says_what_for() {
    let text = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let versions = text.split("[workspace.dependencies]").nth(1).and_then(|rest| rest.split("\n[").next());

    let mut said = false;
    let mut silent = Vec::new();
    for line in versions.expect("the version list").lines() {
        match line.trim() {
            "" => said = false,
            line if line.starts_with('#') => said = true,
            line if !said && !line.contains("path = ") => silent.push(line.to_owned()),
            _ => {}
        }
    }
    assert_none("these dependencies have no line above them that says what for", &silent);
}

/// Modules that may hold unsafe code.
const UNSAFE_FILES: &[&str] = &["gateway/src/writer/ring.rs"];

#[test]
fn unsafe_code_stays_in_its_module_and_says_why_it_is_sound() {
    // Put together here, so that this file does not offend.
    let (lint, block) = (["(unsafe", "_code"].concat(), ["unsafe", " {"].concat());
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let is_allowed = UNSAFE_FILES.contains(&name.as_str());
        if text.contains(&lint) && !is_allowed {
            wrong.push(format!("{name}: lifts the lint"));
        }
        let blocks = text.matches(&block).count();
        let reasons = text.matches("// SAFETY: ").count();
        if is_allowed && (blocks == 0 || blocks != reasons) {
            wrong.push(format!("{name}: {blocks} blocks, {reasons} SAFETY lines"));
        }
    }

    assert_none("unsafe code", &wrong);
}

/// Ways around `tidegate_protocol::json`, which takes an object only by its members' names, each once.
const LOOSE_READERS: &[&str] = &[
    "serde_json::from_",
    "serde_json::Deserializer",
    "simd_json::",
    "toml::from_",
    "toml::Deserializer",
    "::deserialize(",
];

/// Attributes of a type that is read by which serde keeps a value aside and reads it again by itself.
const KEPT_ASIDE: &[&str] = &["serde(untagged", "serde(flatten", "serde(tag"];

/// Files that may go around it, and why they do no harm.
const READ_LOOSELY: &[(&str, &str)] = &[
    ("protocol/src/json/", "is the reader"),
    ("logic/src/json.rs", "reads members one level at a time, itself by name and each once"),
    ("logic/src/upstream/wishes.rs", "only cuts a text into documents"),
    ("src/config/file.rs", "reads a table of whatever there is"),
    ("src/config/schema.rs", "reads a table of whatever there is"),
    ("src/demo/flights.rs", "reads what is compiled in"),
    ("logic/src/http_client/service.rs", "is a service of tests"),
];

#[test]
fn what_comes_from_outside_is_read_by_names_alone() {
    let is_of_product = |name: &str| {
        ["src/", "protocol/src", "tls/src", "gateway/src", "logic/src"].iter().any(|p| name.starts_with(p))
    };
    let is_test = |name: &str| name.ends_with("tests.rs") || name.contains("/tests/");
    let is_excused = |name: &str| READ_LOOSELY.iter().any(|(file, _)| name.starts_with(file));
    let mut loose = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| is_of_product(name) && !is_test(name) && !is_excused(name))
    {
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_read = product.contains("Deserialize");
        let lines = product.lines().enumerate().filter(|(_, line)| {
            let is_loose = LOOSE_READERS.iter().any(|reader| line.contains(reader)) && !line.contains("Objects::new(");
            is_loose || is_read && KEPT_ASIDE.iter().any(|attribute| line.contains(attribute))
        });
        loose.extend(lines.map(|(n, line)| format!("{name}:{}: {}", n + 1, line.trim())));
    }
    let unused = READ_LOOSELY.iter().filter(|(file, _)| {
        !sources()
            .iter()
            .any(|(name, text)| name.starts_with(file) && LOOSE_READERS.iter().any(|reader| text.contains(reader)))
    });

    loose.extend(unused.map(|(file, _)| format!("{file} is no exception any more: take it off the list")));
    assert_none(
        "these lines take an array for an object; use tidegate_protocol::json, or Objects around the reader",
        &loose,
    );
}

#[test]
fn nothing_is_left_for_later_in_the_sources() {
    // Put together here, so that this file does not offend.
    let marks = ["TO\u{200b}DO", "FIX\u{200b}ME", "to\u{200b}do!(", "unimplement\u{200b}ed!(", "db\u{200b}g!("];
    let marks = marks.map(|mark| mark.replace('\u{200b}', ""));
    let mut left = Vec::new();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                left.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }

    assert_none("these lines promise something that is not there", &left);
}

/// A rule is a table row or list item of `docs/protocol.md` with its id (`C-3`) and the word `now` for its status.
#[test]
fn every_rule_of_the_protocol_in_force_has_a_test() {
    let page = page("protocol.md");
    let rules: BTreeSet<String> = page.lines().filter_map(rule_in_force).collect();
    let tested: BTreeSet<String> = sources().iter().flat_map(|(_, text)| text.lines().flat_map(rules_tested)).collect();

    let untested: Vec<String> = rules.difference(&tested).cloned().collect();
    assert!(!rules.is_empty(), "docs/protocol.md names no rule that is in force; its notation changed");
    assert_none("no test says `/// Rule …` with these ids of docs/protocol.md", &untested);
}

/// The id of a row such as `| **C-3** | now | … |`.
fn rule_in_force(line: &str) -> Option<String> {
    let mut cells = line.trim().strip_prefix('|')?.split('|').map(|cell| cell.trim().trim_matches(['*', '`']));
    let id = cells.next().filter(|cell| is_rule_id(cell))?;
    cells.any(|cell| cell == "now").then(|| id.to_owned())
}

/// The ids of a doc line such as `/// Rule C-3.` or `/// Rules C-3 and C-4: …`.
fn rules_tested(line: &str) -> Vec<String> {
    let Some(rest) = line.trim().strip_prefix("/// Rule") else { return Vec::new() };
    let words = rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| is_rule_id(word)).map(str::to_owned).collect()
}

fn is_rule_id(word: &str) -> bool {
    word.split_once('-').is_some_and(|(group, number)| {
        group.len() == 1
            && group.bytes().all(|byte| byte.is_ascii_uppercase())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Every key with its default.
fn defaults() -> serde_json::Map<String, serde_json::Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["config", "show", "--json"]).output();
    let keys: serde_json::Value = serde_json::from_slice(&output.expect("the binary was built").stdout).expect("JSON");
    let keys = keys.as_object().expect("an object of keys").clone();
    assert!(keys.len() > 30, "`config show` lists every key");
    keys
}

#[test]
fn every_configuration_key_has_a_line_for_operators() {
    let page = page("reference/configuration.md");

    let unlisted: Vec<String> = defaults().keys().filter(|key| !page.contains(&format!("`{key}`"))).cloned().collect();
    assert_none("docs/reference/configuration.md does not mention these keys in backticks", &unlisted);
}

#[test]
fn defaults_are_told_to_operators_as_they_are() {
    let page = page("reference/configuration.md");
    let defaults = defaults();
    let told = page.lines().filter_map(key_and_default);
    let told: Vec<(&str, String)> = told.filter(|(key, _)| defaults.contains_key(*key)).collect();

    let wrong = told.iter().filter_map(|(key, told)| {
        let is = match &defaults[*key]["value"] {
            serde_json::Value::String(text) if text.is_empty() || text.contains("**") => return None,
            serde_json::Value::String(text) => text.clone(),
            number_or_bool @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => number_or_bool.to_string(),
            _ => return None,
        };
        // What 0 stands for is told behind a colon.
        let is_told = *told == is || told.starts_with(&format!("{is}: "));
        (!is_told).then(|| format!("{key}: {is}, told as {told}"))
    });
    assert!(told.len() > 100, "the tables of keys were not found");
    assert_none("docs/reference/configuration.md tells other defaults", &wrong.collect::<Vec<_>>());
}

/// Of a row such as ``| `gateway.merge.max_ms` | 1,000 | … |``, its key and its default without ornament.
fn key_and_default(line: &str) -> Option<(&str, String)> {
    let mut cells = line.strip_prefix("| `")?.split('|');
    let key = cells.next()?.trim().strip_suffix('`')?;
    let default = cells.next()?.trim().replace([',', '`', '"'], "");
    (!default.is_empty()).then_some((key, default))
}

/// `(limits.in_flight)` is no key: whoever reads it looks for it in vain.
#[test]
fn keys_in_texts_are_whole_keys() {
    let defaults = defaults();
    let keys: Vec<&String> = defaults.keys().collect();
    // A section is named like a key, and a section that is a list is no key itself.
    let is_key = |word: &str| {
        let section = format!("{word}.");
        let is_in_list = ["logic.keys", "logic.upstream."].iter().any(|list| word.starts_with(list));
        is_in_list || keys.iter().any(|key| *key == word || key.starts_with(&section))
    };
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let is_ours = ["logic/src/", "gateway/src/", "protocol/src/"].iter().any(|folder| name.starts_with(folder));
        let lines = text.lines().enumerate().take_while(|(_, line)| is_ours && !line.starts_with("#[cfg(test)]"));
        for (number, line) in lines.filter(|(_, line)| !line.trim().starts_with("//")) {
            wrong.extend(
                keys_named(line).filter(|word| !is_key(word)).map(|word| format!("{name}:{}: {word}", number + 1)),
            );
        }
    }

    assert_none("these are no configuration keys", &wrong);
}

/// Words in parentheses that look like keys, and words that begin with a tier, within the string literals of a line.
fn keys_named(line: &str) -> impl Iterator<Item = &str> {
    let literals = line.split('"').skip(1).step_by(2);
    literals.flat_map(|literal| {
        let words = literal
            .split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '(' | ')')));
        words.filter_map(|word| {
            let bare = word.trim_matches(['(', ')', '.']);
            let is_dotted = bare.split('.').count() > 1 && bare.split('.').all(|part| !part.is_empty());
            let is_named = word.starts_with('(') || bare.starts_with("logic.") || bare.starts_with("gateway.");
            (is_dotted && is_named && !bare.contains(['(', ')'])).then_some(bare)
        })
    })
}

#[test]
fn keys_are_found_in_texts_only() {
    let found = |line| keys_named(line).collect::<Vec<_>>();

    assert_eq!(found(r#"f(a.b, "at most {n} (limits.body_bytes)");"#), ["limits.body_bytes"]);
    assert_eq!(
        found(r#""over logic.http.body_ms, or logic.http.ndjson_ms.""#),
        ["logic.http.body_ms", "logic.http.ndjson_ms"]
    );
    assert_eq!(found(r#"call(limits.page) + "see docs/http-api.md (or not)""#), Vec::<&str>::new());
}

#[test]
fn rule_ids_are_read_as_written() {
    assert_eq!(rule_in_force("| **C-3** | now | Origin |"), Some("C-3".into()));
    assert_eq!(rule_in_force("| C-4 | later | JWT |"), None);
    assert_eq!(rule_in_force("- **C-3** now"), None);
    assert_eq!(rules_tested("    /// Rules C-1 and M-12: both."), ["C-1", "M-12"]);
    assert_eq!(rules_tested("// Rule C-1."), Vec::<String>::new());
}
