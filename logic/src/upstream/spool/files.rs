//! Where a spool lies: its folder, who may read it, the files beside it. `<sink>.redb` is the spool; `<sink>.acked` says which
//! of its commits was told of last and whether it was closed; `<sink>.damaged-<time>.redb` is one that was set aside and is
//! kept until an operator removes it; `<sink>.new` is one that is being made.
//! Only the owner reads any of them: messages of clients are nobody else's business.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::clock::unix_ms;

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// Everyone but the owner.
const OTHERS: u32 = 0o077;
/// A folder like `/tmp`, which belongs to all.
const STICKY: u32 = 0o1000;
/// Commits (8), whether it was closed (1), checksum (4).
const ACKED_BYTES: usize = 13;

/// The place of one spool.
#[derive(Debug)]
pub struct Place {
    /// `<sink>.redb`
    pub path: PathBuf,
}

/// The last that was told of a spool's commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acked {
    /// Commits whose messages may have been told SENT.
    pub commits: u64,
    /// Whether the last process closed it.
    pub is_closed: bool,
}

impl Place {
    /// Makes the folder where it is missing, and keeps others out of it.
    ///
    /// # Errors
    /// What the system said.
    pub fn make(path: &Path) -> io::Result<Self> {
        let folder = folder_of(path);
        let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|path| !path.exists()).collect();
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
        // A folder without a name on the disk is lost with the machine.
        missing.iter().filter(|path| !path.as_os_str().is_empty()).try_for_each(|path| sync_name(path))?;
        let place = Self { path: path.to_owned() };
        let about = folder.metadata()?;
        if about.mode() & STICKY == 0 {
            narrow(folder, FOLDER_MODE);
        }
        let others = [place.beside("acked")].into_iter().chain(place.set_aside());
        others.chain([place.path.clone()]).filter(|path| path.exists()).for_each(|path| narrow(&path, FILE_MODE));
        Ok(place)
    }

    /// Opens one of the files, made if it is missing.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
    }

    /// `<sink>.<ending>`
    #[must_use]
    pub fn beside(&self, ending: &str) -> PathBuf {
        self.path.with_extension(ending)
    }

    /// The damaged ones that are kept, by age.
    #[must_use]
    pub fn set_aside(&self) -> Vec<PathBuf> {
        let Some(stem) = self.path.file_stem().and_then(|stem| stem.to_str()) else { return Vec::new() };
        let begins = format!("{stem}.damaged-");
        let entries = std::fs::read_dir(folder_of(&self.path)).into_iter().flatten().flatten();
        let is_one = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&begins))
        };
        let mut out: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_one).collect();
        out.sort();
        out
    }

    /// Keeps the file under a name of its own and, with one, puts another in its place; gives the name.
    ///
    /// # Errors
    /// What the system said; then the file is where it was.
    pub fn replace(&self, by: &Path) -> io::Result<PathBuf> {
        let kept = self.beside(&format!("damaged-{}.redb", unix_ms()));
        // A second name first: at no moment is the file without one.
        if std::fs::hard_link(&self.path, &kept).is_err() {
            // Not every file system has second names.
            std::fs::copy(&self.path, &kept)?;
        }
        std::fs::rename(by, &self.path)?;
        sync_name(&self.path)?;
        Ok(kept)
    }

    /// What was told last; nothing when nobody said so or it cannot be read.
    #[must_use]
    pub fn acked(&self) -> Option<Acked> {
        let bytes = std::fs::read(self.beside("acked")).ok()?;
        let (said, sum) = bytes.split_at_checked(ACKED_BYTES - 4)?;
        let (commits, closed) = said.split_first_chunk()?;
        let is_sound = crc32fast::hash(said).to_le_bytes() == sum;
        is_sound.then(|| Acked { commits: u64::from_le_bytes(*commits), is_closed: closed == [1] })
    }

    /// Opens the file for [`note`].
    ///
    /// # Errors
    /// What the system said.
    pub fn acks(&self) -> io::Result<File> {
        Self::open(&self.beside("acked"))
    }

    /// Flushes the folder: what is on the disk without a name there is lost with the machine.
    ///
    /// # Errors
    /// What the system said.
    pub fn sync(&self) -> io::Result<()> {
        sync_name(&self.path)
    }
}

/// Writes what was told. Not flushed: it outlives the process at once and the machine mostly; where it is behind, a commit that
/// is missing is taken for one that nobody was told of.
///
/// # Errors
/// What the system said.
pub fn note(file: &File, acked: Acked) -> io::Result<()> {
    let mut bytes = [0; ACKED_BYTES];
    bytes[..8].copy_from_slice(&acked.commits.to_le_bytes());
    bytes[8] = u8::from(acked.is_closed);
    let sum = crc32fast::hash(&bytes[..9]);
    bytes[9..].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&bytes, 0)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => path,
    }
}

fn sync_name(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// Takes from others what they may do. Somebody else's file stays as it is: that it can be used at all is the operator's doing.
fn narrow(path: &Path, mode: u32) {
    let is_open = path.metadata().is_ok_and(|about| about.mode() & OTHERS != 0);
    if is_open && let Err(error) = std::fs::set_permissions(path, Permissions::from_mode(mode)) {
        tracing::warn!(path = %path.display(), "others may read messages of clients here: {error}");
    }
}
