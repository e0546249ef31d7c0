//! A file whose changes are acted on while the process runs. It is looked at once a second, since that works on every file
//! system and for a file that is replaced; what has changed counts once two looks agree.

use std::fs;
use std::future::pending;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use tokio::time::sleep;

const LOOK: Duration = Duration::from_secs(1);

/// What tells one state of a file from another: inode, length, time of the last change. None: there is no file.
type Stamp = Option<(u64, u64, i64, i64)>;

/// The file, or none.
pub struct Watched {
    path: String,
    /// Last acted on.
    known: Stamp,
}

impl Watched {
    /// The file as it is now counts as known. An empty path is no file.
    pub fn new(path: &str) -> Self {
        Self { path: path.to_owned(), known: stamp(path) }
    }

    /// Another path may be configured by now.
    pub fn follow(&mut self, path: &str) {
        if self.path != path {
            *self = Self::new(path);
        }
    }

    /// Resolves when the file has changed. A file that is gone is no change.
    pub async fn changed(&mut self) {
        if self.path.is_empty() {
            return pending().await;
        }
        let mut before = self.known;
        loop {
            sleep(LOOK).await;
            let now = stamp(&self.path);
            if now.is_some() && now == before && now != self.known {
                self.known = now;
                return;
            }
            before = now;
        }
    }
}

fn stamp(path: &str) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_counts_once_and_when_it_has_settled() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateways");
        let write = |text: &str| fs::write(&path, text).expect("written");
        write("1\n");
        let mut watched = Watched::new(path.to_str().expect("plain"));
        let hour = Duration::from_secs(3_600);

        assert!(tokio::time::timeout(hour, watched.changed()).await.is_err(), "nothing has changed");
        write("12\n");
        watched.changed().await;
        assert!(tokio::time::timeout(hour, watched.changed()).await.is_err(), "it was acted on");
        fs::remove_file(&path).expect("there");
        assert!(tokio::time::timeout(hour, watched.changed()).await.is_err(), "a file that is gone says nothing");
        write("123\n");
        watched.changed().await;
    }
}
