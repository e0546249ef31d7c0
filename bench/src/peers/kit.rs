//! Which peers are here: programs on PATH or in the folder that `bench/peers/install` fills, and their versions.
//! A file of its own because only this knows where packages put things. It installs nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A peer that can be started.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub version: String,
}

#[derive(Clone, Debug)]
pub struct Kit {
    folder: PathBuf,
}

/// Where `bench/peers/install` puts what is not a system package; git ignores it.
pub const FOLDER: &str = ".cache/peers";

impl Kit {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder: std::path::absolute(&folder).unwrap_or(folder) }
    }

    /// Where Node.js finds packages.
    pub fn modules(&self) -> PathBuf {
        self.folder.join("node_modules")
    }

    /// A program of the kit, of PATH, or of the folders of system services.
    pub fn program(&self, name: &str) -> Result<PathBuf, String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = [self.folder.join("venv/bin"), self.folder.join("bin")];
        let system = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
        let folders = own.into_iter().chain(std::env::split_paths(&path)).chain(system);
        folders.map(|folder| folder.join(name)).find(|file| file.is_file()).ok_or_else(|| format!("no `{name}`"))
    }

    /// Node.js with an npm package of the kit.
    pub fn node(&self, package: &str) -> Result<Program, String> {
        let node = self.program("node")?;
        let manifest = self.modules().join(package).join("package.json");
        let text = std::fs::read_to_string(&manifest).map_err(|_| format!("no npm package `{package}` in the kit"))?;
        let manifest: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let version = manifest["version"].as_str().unwrap_or("of unknown version");
        let runtime = self.answer(&node, &["--version"]);
        Ok(Program { version: format!("{version} on Node.js {}", runtime.trim_start_matches('v')), path: node })
    }

    /// First line that a program prints on either stream; empty when it cannot be run.
    pub fn answer(&self, program: &Path, arguments: &[&str]) -> String {
        let Ok(output) = Command::new(program).args(arguments).output() else { return String::new() };
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
    }

    /// Version of a Debian package without epoch and revision; `None` elsewhere.
    pub fn package(&self, name: &str) -> Option<String> {
        let output = Command::new("dpkg-query").args(["-W", "-f", "${Version}", name]).output().ok()?;
        let version = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        let version = version.split_once(':').map_or(version.as_str(), |(_, version)| version);
        Some(version.split(['+', '-']).next().unwrap_or(version).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let kit = Kit::new(std::env::temp_dir().join("tidegate-no-such-kit"));

        assert_eq!(kit.program("no-such-program-anywhere"), Err("no `no-such-program-anywhere`".to_owned()));
        assert!(kit.program("sh").is_ok());
    }
}
