//! The file that `logic.gateways_file` names: more gateways, one URL a line, so that whatever starts and ends gateways can write
//! it. Blank lines and lines that begin with `#` are passed over.
//! Invariant: a file that may be half written, or names nobody, is refused whole.

use std::fs::{self, File};
use std::io::Read as _;

use tidegate_logic::LogicConfig;

/// Far more than the 128 gateways that there may be.
const BYTES_MAX: u64 = 64 * 1024;

/// Adds the file's gateways to those of the configuration. What they look like is judged with the rest.
pub fn add(config: &mut LogicConfig) -> Result<(), String> {
    if config.gateways_file.is_empty() {
        return Ok(());
    }
    config.gateways.extend(read(&config.gateways_file)?);
    Ok(())
}

/// The URLs of the file.
pub fn read(path: &str) -> Result<Vec<String>, String> {
    let cannot = |error| format!("logic.gateways_file: {path} cannot be read: {error}");
    let mut text = String::new();
    // A pipe would be waited for, and with it every connection of this node.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(format!("logic.gateways_file: {path} is not a file"));
    }
    File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text)).map_err(cannot)?;
    parse(&text).map_err(|why| format!("logic.gateways_file: {path} {why}"))
}

fn parse(text: &str) -> Result<Vec<String>, &'static str> {
    if text.len() as u64 > BYTES_MAX {
        return Err("is larger than 64 KiB");
    }
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("does not end with a line break, as if it were half written; write another file and rename it");
    }
    // Editors of one system begin every file with a byte order mark.
    let lines = text
        .trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let urls: Vec<String> = lines.map(str::to_owned).collect();
    if urls.is_empty() {
        return Err("names no gateway; remove the setting if that is meant");
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_url_a_line_and_nothing_else() {
        let text = "\u{feff}# two of them\n\nhttp://10.0.0.1:8002\n  http://10.0.0.2:8002  \n";
        assert_eq!(parse(text), Ok(vec!["http://10.0.0.1:8002".into(), "http://10.0.0.2:8002".into()]));
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).expect("a pipe");

        for path in [folder.path(), &pipe] {
            assert!(read(path.to_str().expect("plain")).expect_err("refused").contains("is not a file"));
        }
    }

    #[test]
    fn what_may_be_half_a_file_is_refused() {
        for (text, why) in [
            ("http://10.0.0.1:8002\nhttp://10.0", "half written"),
            ("", "names no gateway"),
            ("# nobody\n", "names no gateway"),
            (&"#".repeat(70_000), "64 KiB"),
        ] {
            assert!(parse(text).expect_err("refused").contains(why), "{why}");
        }
    }
}
