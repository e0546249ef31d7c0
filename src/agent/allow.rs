//! What the agent may do: the words of `--allow`, and the file that names programs. Nothing is done that stands in neither.
//! Invariants: a program is an absolute path with fixed arguments; what comes over the wire adds an argument only where the
//! entry lists it, word for word. No shell is involved anywhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tidegate_protocol::json::Objects;

/// Arguments that a command may add to a program, at most.
const ARGS_MAX: usize = 16;
/// Most bytes of output that an entry may allow: two such texts and what JSON adds still fit a message of a client.
const OUTPUT_BYTES_MAX: usize = 24 * 1024;
/// Longest time that an entry may allow.
const TIMEOUT_MS_MAX: u64 = 120_000;

/// What is allowed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// `ping`.
    pub ping: bool,
    /// `info`.
    pub info: bool,
    /// `exec:NAME` for these names.
    pub programs: BTreeMap<String, Program>,
}

/// One program of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Absolute path and fixed arguments.
    pub argv: Vec<String>,
    /// After that it is killed, with all it started; earlier if the command's deadline is.
    #[serde(default = "default_timeout_ms")]
    timeout_ms: u64,
    /// Most bytes kept of each of its two outputs; beyond it is killed.
    #[serde(default = "default_output_bytes")]
    pub output_bytes: usize,
    /// Arguments that a command may add, each exactly one of these.
    #[serde(default)]
    args: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    programs: BTreeMap<String, Program>,
}

fn default_timeout_ms() -> u64 {
    10_000
}

fn default_output_bytes() -> usize {
    16 * 1024
}

impl Allow {
    /// Reads `info,ping,exec:FILE`.
    pub fn read(words: &str) -> Result<Self, String> {
        let mut allow = Self::default();
        for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word.split_once(':') {
                None if word == "ping" => allow.ping = true,
                None if word == "info" => allow.info = true,
                Some(("exec", file)) => {
                    let path = PathBuf::from(file);
                    let text = std::fs::read_to_string(&path);
                    let text = text.map_err(|error| format!("--allow exec:{file}: cannot be read: {error}"))?;
                    allow.add_programs(&path, &text)?;
                }
                _ => {
                    return Err(format!("--allow {word:?} is unknown; known are ping, info and exec:FILE"));
                }
            }
        }
        if allow == Self::default() {
            return Err("--allow names nothing: an agent that may do nothing answers nothing".into());
        }
        Ok(allow)
    }

    fn add_programs(&mut self, path: &Path, text: &str) -> Result<(), String> {
        let path = path.display();
        let parsed = toml::Deserializer::parse(text).and_then(|file| File::deserialize(Objects::new(file)));
        let file = parsed.map_err(|error| format!("{path}: {error}"))?;
        for (name, program) in file.programs {
            program.check().map_err(|why| format!("{path}: programs.{name}: {why}"))?;
            if self.programs.insert(name.clone(), program).is_some() {
                return Err(format!("{path}: programs.{name} stands in another file as well"));
            }
        }
        Ok(())
    }

    /// The allowed commands, for the log.
    pub fn words(&self) -> String {
        let fixed = [("ping", self.ping), ("info", self.info)];
        let fixed = fixed.into_iter().filter(|(_, is)| *is).map(|(word, _)| word.to_owned());
        fixed.chain(self.programs.keys().map(|name| format!("exec:{name}"))).collect::<Vec<_>>().join(", ")
    }
}

impl Program {
    fn check(&self) -> Result<(), String> {
        match self.argv.first() {
            None => return Err("argv must name a program".into()),
            Some(path) if !Path::new(path).is_absolute() => {
                return Err(format!("argv must begin with an absolute path, not {path:?}"));
            }
            Some(_) => {}
        }
        if !(1..=TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return Err(format!("timeout_ms must be 1 to {TIMEOUT_MS_MAX}"));
        }
        if self.output_bytes > OUTPUT_BYTES_MAX {
            return Err(format!("output_bytes must be at most {OUTPUT_BYTES_MAX}"));
        }
        Ok(())
    }

    /// How long it may run.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Whether a command may add these arguments.
    pub fn admits(&self, args: &[String]) -> bool {
        args.len() <= ARGS_MAX && args.iter().all(|arg| self.args.contains(arg))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(text: &str) -> Result<Allow, String> {
        let mut allow = Allow::default();
        allow.add_programs(Path::new("allow.toml"), text).map(|()| allow)
    }

    #[test]
    fn only_known_words_allow_anything() {
        assert_eq!(Allow::read(" info, ping").map(|a| a.words()), Ok("ping, info".into()));
        assert!(Allow::read("exec").is_err_and(|e| e.contains("known are")));
        assert!(Allow::read("sh:x").is_err());
        assert!(Allow::read(" , ").is_err());
        assert!(Allow::read("exec:/nowhere/at/all").is_err_and(|e| e.contains("cannot be read")));
    }

    #[test]
    fn a_program_is_an_absolute_path_within_bounds() {
        let entry = |body: &str| programs(&format!("[programs.x]\n{body}"));

        assert!(entry("argv = [\"/bin/date\", \"-u\"]\nargs = [\"+%s\"]").is_ok());
        assert!(programs("programs = { x = [[\"/bin/date\"]] }").is_err_and(|e| e.contains("expected an object")));
        for (bad, why) in [
            ("argv = []", "name a program"),
            ("argv = [\"date\"]", "absolute"),
            ("argv = [\"/bin/date\"]\ntimeout_ms = 0", "timeout_ms"),
            ("argv = [\"/bin/date\"]\noutput_bytes = 100000", "output_bytes"),
            ("argv = [\"/bin/date\"]\nshell = true", "unknown field"),
        ] {
            assert!(entry(bad).is_err_and(|e| e.contains(why)), "{bad}");
        }
    }

    #[test]
    fn an_argument_is_admitted_word_for_word_or_not_at_all() {
        let allow = programs("[programs.x]\nargv = [\"/bin/date\"]\nargs = [\"-u\"]").expect("good");
        let admits =
            |args: &[&str]| allow.programs["x"].admits(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());

        assert!(admits(&[]) && admits(&["-u"]) && admits(&["-u", "-u"]));
        assert!(!admits(&["-u "]) && !admits(&["-u", "; id"]) && !admits(&["-u"; ARGS_MAX + 1]));
    }
}
