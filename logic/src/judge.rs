//! Whether a logic node would start with a configuration: what contradicts itself, and what the files and folders say that it
//! names. One judgement for `config check`, the start and a reload, so that none of them takes what another refuses.
//! Opens no listener and no spool: `config check` runs beside a node that works on both.

use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Access, access};

use crate::config::LogicConfig;
use crate::hook::Hook;
use crate::http_client::connect::system_resolver;
use crate::upstream::Webhook;

/// Why a logic node must not start with this configuration, each a sentence that names its key; empty when all is well.
#[must_use]
pub fn refusals(config: &LogicConfig) -> Vec<String> {
    let mut out = config.problems();
    if !out.is_empty() {
        // What stands on these would only be said twice.
        return out;
    }
    out.extend(certificates(config).err());
    out.extend(Hook::judge(&config.hook).err().map(|why| format!("logic.hook: {why}")));
    for sink in &config.upstream.sinks {
        let refused = Webhook::new(sink, system_resolver()).err();
        out.extend(refused.map(|why| format!("logic.upstream.sinks: {:?}: {why}", sink.name)));
    }
    if !config.upstream.sinks.is_empty() {
        let refused = unusable(Path::new(&config.upstream.spool));
        out.extend(refused.map(|why| format!("logic.upstream.spool: {}: {why}", config.upstream.spool)));
    }
    out
}

pub type Certificates = (Option<tidegate_tls::Server>, Option<Arc<tidegate_tls::Client>>);

/// Reads what is configured; the error names section and file.
pub fn certificates(config: &LogicConfig) -> Result<Certificates, String> {
    let api = match &config.tls {
        files if files.is_on() => {
            let server = tidegate_tls::Server::open(files, &["h2", "http/1.1"]);
            Some(server.map_err(|error| format!("logic.tls: {error}"))?)
        }
        _ => None,
    };
    let backplane = match &config.backplane_tls {
        files if files.is_on() => {
            let client = tidegate_tls::Client::open_mutual(files, &["h2"]);
            Some(Arc::new(client.map_err(|error| format!("logic.backplane_tls: {error}"))?))
        }
        _ => None,
    };
    Ok((api, backplane))
}

/// Why files cannot be made in a folder, which itself may have to be made first.
fn unusable(folder: &Path) -> Option<String> {
    let is_there = |path: &&Path| !path.as_os_str().is_empty() && path.exists();
    let nearest = folder.ancestors().find(is_there).unwrap_or(Path::new("."));
    if !nearest.is_dir() {
        return Some(format!("{} is not a folder", nearest.display()));
    }
    let may_write = access(nearest, Access::WRITE_OK | Access::EXEC_OK);
    may_write.err().map(|error| format!("{} cannot be written to: {error}", nearest.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_folder_may_be_made_but_not_below_a_file() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let file = scratch.path().join("file");
        std::fs::write(&file, "").expect("a scratch file");

        assert_eq!(unusable(&scratch.path().join("a/b/c")), None);
        assert_eq!(unusable(Path::new("a-folder-that-is-not-there")), None);
        for below in [file.clone(), file.join("spool")] {
            assert!(unusable(&below).is_some_and(|why| why.contains("is not a folder")), "{}", below.display());
        }
    }
}
