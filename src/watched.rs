//! A file whose changes are acted on while the process runs. It is looked at once a second, since that works on every file
//! system and for a file that is replaced; what has changed counts once two looks agree, or has changed for a while. What could
//! not be used is read again after a minute: what stood in the way may be gone.

use std::fs;
use std::future::pending;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use tokio::time::{Instant, sleep};

const LOOK: Duration = Duration::from_secs(1);

/// A file that is written all the time is used all the same, after so many looks.
const UNSETTLED_MAX: u32 = 5;

/// When a file that could not be used is read again.
const RETRY: Duration = Duration::from_secs(60);

/// What tells one state of a file from another: inode, length, time of its last change, which no copy can set back. None: no file.
type Stamp = Option<(u64, u64, i64, i64)>;

/// The file, or none.
pub struct Watched {
    path: String,
    /// Last acted on.
    known: Stamp,
    /// It could not be used.
    retry: Option<Instant>,
}

impl Watched {
    /// Nothing is known of the file: it may have changed since it was read. An empty path is no file.
    pub fn new(path: &str) -> Self {
        Self { path: path.to_owned(), known: None, retry: None }
    }

    /// Another path may be configured by now.
    pub fn follow(&mut self, path: &str) {
        if self.path != path {
            *self = Self::new(path);
        }
    }

    /// Resolves when the file has changed, once after the beginning, and a minute after it was refused. A file that is gone is no
    /// change.
    pub async fn changed(&mut self) {
        if self.path.is_empty() {
            return pending().await;
        }
        let (mut before, mut unsettled) = (self.known, 0);
        loop {
            sleep(LOOK).await;
            let now = stamp(&self.path);
            unsettled = if now == self.known { 0 } else { unsettled + 1 };
            let has_settled = now == before || unsettled >= UNSETTLED_MAX;
            let is_due = self.retry.is_some_and(|at| at <= Instant::now());
            if now.is_some() && (is_due || now != self.known && has_settled) {
                (self.known, self.retry) = (now, None);
                return;
            }
            before = now;
        }
    }

    /// It could not be used as it is.
    pub fn refuse(&mut self) {
        self.retry = Some(Instant::now() + RETRY);
    }
}

fn stamp(path: &str) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
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

        watched.changed().await;
        assert!(tokio::time::timeout(hour, watched.changed()).await.is_err(), "nothing has changed");
        write("12\n");
        watched.changed().await;
        assert!(tokio::time::timeout(hour, watched.changed()).await.is_err(), "it was acted on");
        fs::remove_file(&path).expect("there");
        assert!(tokio::time::timeout(hour, watched.changed()).await.is_err(), "a file that is gone says nothing");
        write("123\n");
        watched.changed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_read_again_and_what_never_rests_is_read_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateways");
        let write = |text: &str| fs::write(&path, text).expect("written");
        write("1\n");
        let mut watched = Watched::new(path.to_str().expect("plain"));
        watched.changed().await;

        let refused = Instant::now();
        watched.refuse();
        watched.changed().await;
        assert!(refused.elapsed() >= RETRY, "not at once");
        assert!(tokio::time::timeout(10 * RETRY, watched.changed()).await.is_err(), "once, unless it is refused again");

        let restless = async {
            for n in 1.. {
                write(&"1".repeat(n));
                sleep(LOOK / 2).await;
            }
        };
        tokio::select! {
            () = watched.changed() => {}
            () = restless => unreachable!("it goes on"),
        }
    }
}
