//! What a sink has not got yet, on disk: one redb file a sink, with the messages by lane and number, and the dead letters
//! (ADR 22). A commit returns when it is on the disk, so what was told SENT outlives a crash; a message moves to the dead
//! letters and back in one transaction. Blocking: called from `tokio::task::spawn_blocking`.
//! Knows nothing of bounds (see `ledger`) nor of HTTP. Invariant: within a lane, numbers grow in the order of acceptance.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use parking_lot::RwLock;
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition, WriteTransaction};

/// (lane, number) → shard, time, line.
const SPOOL: TableDefinition<'_, (u16, u64), &[u8]> = TableDefinition::new("spool");
/// Number → shard, time, time of death, attempts, reason, line.
const DEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Keys of [`META`].
const LANES: &str = "lanes";
const NEXT: &str = "next";
/// Pages that redb keeps in memory; the kernel keeps the rest.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// What a message weighs beside its line: keys, header, its share of pages.
pub const MESSAGE_WEIGHT: u64 = 64;

type SpoolTable<'a> = Table<'a, (u16, u64), &'static [u8]>;
type DeadTable<'a> = Table<'a, u64, &'static [u8]>;

/// What the disk or redb says.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process works on it.
    #[error("{} is in use by another process; each logic node needs a spool folder of its own", .0.display())]
    InUse(PathBuf),
    /// The folder or the file cannot be used.
    #[error("{}: {error}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number in the spool.
    pub number: u64,
    /// Decides its lane.
    pub shard: u32,
    /// When it was accepted, Unix milliseconds.
    pub taken_ms: u64,
    /// Without its end.
    pub line: Bytes,
}

impl Stored {
    /// What it counts against a bound.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.line.len() as u64 + MESSAGE_WEIGHT
    }
}

/// A message nobody could deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// The message.
    pub message: Stored,
    /// When it was given up, Unix milliseconds.
    pub died_ms: u64,
    /// How often it was sent in vain.
    pub attempts: u32,
    /// Why, in a word or two.
    pub reason: String,
}

/// One change.
#[derive(Debug)]
pub enum Change {
    /// A new message; its number is given before.
    Put(Stored),
    /// The sink has the lane's messages up to this number.
    Done { lane: u16, up_to: u64 },
    /// A message is given up.
    Bury { lane: u16, dead: Dead },
    /// A dead letter is a message again, under a new number.
    Revive { number: u64, again: Stored },
    /// A dead letter is forgotten.
    Forget { number: u64 },
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub messages: u64,
    /// Their weight.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, message: &Stored) {
        self.messages += 1;
        self.bytes += message.weight();
    }
}

/// What a spool held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Messages.
    pub waiting: Amount,
    /// Dead letters.
    pub dead: Amount,
    /// For each lane: how many messages, and the last number.
    pub lanes: Vec<(u64, u64)>,
    /// The next number.
    pub next: u64,
    /// Whether the last process ended without closing the file, so that it was repaired.
    pub was_repaired: bool,
}

/// The file.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    lanes: u16,
    /// Absent while it cannot be opened again after an error of the disk.
    database: RwLock<Option<Database>>,
}

impl Spool {
    /// Opens or makes the file, and counts what is in it.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn open(path: &Path, lanes: u16) -> Result<(Self, Found), SpoolError> {
        let (database, was_repaired) = database(path)?;
        let spool = Self { path: path.to_owned(), lanes, database: RwLock::new(Some(database)) };
        let mut found = spool.take_stock().map_err(|error| spool.unusable(&error))?;
        found.was_repaired = was_repaired;
        Ok((spool, found))
    }

    /// The lane of a shard.
    #[must_use]
    pub fn lane(&self, shard: u32) -> u16 {
        lane_of(shard, self.lanes)
    }

    /// Puts messages of before into this start's lanes, and counts.
    fn take_stock(&self) -> Result<Found, redb::Error> {
        let mut found = Found { lanes: vec![(0, 0); usize::from(self.lanes)], ..Found::default() };
        let guard = self.database.read();
        let Some(database) = guard.as_ref() else { return Ok(found) };
        let transaction = database.begin_write()?;
        {
            let mut spool = transaction.open_table(SPOOL)?;
            let dead = transaction.open_table(DEAD)?;
            let mut meta = transaction.open_table(META)?;
            let lanes = meta.get(LANES)?.map(|lanes| lanes.value());
            if lanes.is_some_and(|lanes| lanes != u64::from(self.lanes)) {
                relane(&mut spool, self.lanes)?;
            }
            meta.insert(LANES, u64::from(self.lanes))?;
            found.next = meta.get(NEXT)?.map_or(1, |next| next.value());
            for entry in spool.iter()? {
                let (key, value) = entry?;
                let (lane, number) = key.value();
                let Some(message) = message(number, value.value()) else { continue };
                found.waiting.add(&message);
                if let Some((count, last)) = found.lanes.get_mut(usize::from(lane)) {
                    *count += 1;
                    *last = number;
                }
            }
            for entry in dead.iter()? {
                let (key, value) = entry?;
                if let Some(dead) = dead_letter(key.value(), value.value()) {
                    found.dead.add(&dead.message);
                }
            }
        }
        transaction.commit()?;
        Ok(found)
    }

    /// Makes changes, all or none; on the disk when it returns. `next` is the next number that nobody has.
    ///
    /// # Errors
    /// What the disk says; then the file is opened again for the next call.
    pub fn commit(&self, changes: &[Change], next: u64) -> Result<(), SpoolError> {
        let outcome = match self.database.read().as_ref() {
            Some(database) => self.write(database, changes, next),
            None => Err(redb::Error::PreviousIo),
        };
        outcome.map_err(|error| {
            self.reopen();
            self.unusable(&error)
        })
    }

    fn write(&self, database: &Database, changes: &[Change], next: u64) -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
        self.apply(&transaction, changes, next)?;
        transaction.commit()?;
        Ok(())
    }

    fn apply(&self, transaction: &WriteTransaction, changes: &[Change], next: u64) -> Result<(), redb::Error> {
        let mut spool = transaction.open_table(SPOOL)?;
        let mut dead = transaction.open_table(DEAD)?;
        transaction.open_table(META)?.insert(NEXT, next)?;
        for change in changes {
            match change {
                Change::Put(message) => put(&mut spool, self.lane(message.shard), message)?,
                Change::Done { lane, up_to } => {
                    spool.retain_in((*lane, 0)..=(*lane, *up_to), |_, _| false)?;
                }
                Change::Bury { lane, dead: letter } => {
                    spool.remove((*lane, letter.message.number))?;
                    bury(&mut dead, letter)?;
                }
                Change::Revive { number, again } => {
                    dead.remove(*number)?;
                    put(&mut spool, self.lane(again.shard), again)?;
                }
                Change::Forget { number } => {
                    dead.remove(*number)?;
                }
            }
        }
        Ok(())
    }

    /// A lane's next messages, after a number: at least one if there is one, then as long as they fit.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read(&self, lane: u16, after: u64, most: usize, bytes: usize) -> Result<Vec<Stored>, SpoolError> {
        self.look(|database| {
            let spool = database.begin_read()?.open_table(SPOOL)?;
            let (mut out, mut size) = (Vec::new(), 0);
            for entry in spool.range((lane, after + 1)..=(lane, u64::MAX))? {
                let (key, value) = entry?;
                let Some(message) = message(key.value().1, value.value()) else { continue };
                size += message.line.len() + 1;
                if out.len() == most || (!out.is_empty() && size > bytes) {
                    break;
                }
                out.push(message);
            }
            Ok(out)
        })
    }

    /// Dead letters after a number, in order.
    ///
    /// # Errors
    /// What the disk says.
    pub fn dead(&self, after: u64, most: usize) -> Result<Vec<Dead>, SpoolError> {
        self.look(|database| {
            let dead = database.begin_read()?.open_table(DEAD)?;
            let mut out = Vec::new();
            for entry in dead.range(after.saturating_add(1)..)?.take(most) {
                let (key, value) = entry?;
                out.extend(dead_letter(key.value(), value.value()));
            }
            Ok(out)
        })
    }

    fn look<T>(&self, with: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, SpoolError> {
        match self.database.read().as_ref() {
            Some(database) => with(database).map_err(|error| self.unusable(&error)),
            None => Err(self.unusable(&redb::Error::PreviousIo)),
        }
    }

    /// After an error of the disk redb wants the file opened anew, which finds the last commit.
    fn reopen(&self) {
        let mut guard = self.database.write();
        drop(guard.take());
        *guard = database(&self.path).ok().map(|(database, _)| database);
    }

    fn unusable(&self, error: &redb::Error) -> SpoolError {
        SpoolError::Unusable { path: self.path.clone(), error: error.to_string() }
    }
}

fn database(path: &Path) -> Result<(Database, bool), SpoolError> {
    let unusable = |error: String| SpoolError::Unusable { path: path.to_owned(), error };
    let created: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| unusable(error.to_string()))?;
    }
    let was_repaired = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let repaired = std::sync::Arc::clone(&was_repaired);
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.set_repair_callback(move |_| repaired.store(true, std::sync::atomic::Ordering::Relaxed));
    let database = match builder.create(path) {
        Ok(database) => database,
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Err(SpoolError::InUse(path.to_owned())),
        Err(error) => return Err(unusable(error.to_string())),
    };
    // The file's own also when it was there: the process before may have ended between the two.
    for path in std::iter::once(path).chain(created.into_iter().skip(1)) {
        sync_name(path).map_err(|error| unusable(format!("its folder cannot be flushed: {error}")))?;
    }
    Ok((database, was_repaired.load(std::sync::atomic::Ordering::Relaxed)))
}

/// Flushes the folder that a path is in: what is on the disk without a name there is lost with the machine.
fn sync_name(path: &Path) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Ok(()),
    };
    std::fs::File::open(folder)?.sync_all()
}

fn lane_of(shard: u32, lanes: u16) -> u16 {
    u16::try_from(shard % u32::from(lanes)).unwrap_or(0)
}

/// The number of lanes has changed: each message goes to the lane it has now, in its order.
fn relane(spool: &mut SpoolTable<'_>, lanes: u16) -> Result<(), redb::Error> {
    let mut moved = Vec::new();
    for entry in spool.iter()? {
        let (key, value) = entry?;
        let (lane, number) = key.value();
        if let Some(message) = message(number, value.value())
            && lane_of(message.shard, lanes) != lane
        {
            moved.push(((lane, number), lane_of(message.shard, lanes)));
        }
    }
    for ((lane, number), now) in moved {
        let value = spool.remove((lane, number))?.map(|value| value.value().to_vec());
        if let Some(value) = value {
            spool.insert((now, number), value.as_slice())?;
        }
    }
    Ok(())
}

fn put(spool: &mut SpoolTable<'_>, lane: u16, message: &Stored) -> Result<(), redb::Error> {
    let mut value = spool.insert_reserve((lane, message.number), 12 + message.line.len())?;
    let (head, line) = value.as_mut().split_at_mut(12);
    head[..4].copy_from_slice(&message.shard.to_le_bytes());
    head[4..].copy_from_slice(&message.taken_ms.to_le_bytes());
    line.copy_from_slice(&message.line);
    Ok(())
}

fn message(number: u64, value: &[u8]) -> Option<Stored> {
    let (shard, rest) = value.split_first_chunk()?;
    let (taken_ms, line) = rest.split_first_chunk()?;
    Some(Stored {
        number,
        shard: u32::from_le_bytes(*shard),
        taken_ms: u64::from_le_bytes(*taken_ms),
        line: Bytes::copy_from_slice(line),
    })
}

fn bury(table: &mut DeadTable<'_>, dead: &Dead) -> Result<(), redb::Error> {
    let reason = &dead.reason.as_bytes()[..dead.reason.len().min(255)];
    let mut value = Vec::with_capacity(32 + reason.len() + dead.message.line.len());
    value.extend(dead.message.shard.to_le_bytes());
    value.extend(dead.message.taken_ms.to_le_bytes());
    value.extend(dead.died_ms.to_le_bytes());
    value.extend(dead.attempts.to_le_bytes());
    value.push(u8::try_from(reason.len()).unwrap_or(u8::MAX));
    value.extend(reason);
    value.extend(&dead.message.line);
    table.insert(dead.message.number, value.as_slice())?;
    Ok(())
}

fn dead_letter(number: u64, value: &[u8]) -> Option<Dead> {
    let (shard, rest) = value.split_first_chunk()?;
    let (taken_ms, rest) = rest.split_first_chunk()?;
    let (died_ms, rest) = rest.split_first_chunk()?;
    let (attempts, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first()?;
    let (reason, line) = rest.split_at_checked(usize::from(*length))?;
    Some(Dead {
        message: Stored {
            number,
            shard: u32::from_le_bytes(*shard),
            taken_ms: u64::from_le_bytes(*taken_ms),
            line: Bytes::copy_from_slice(line),
        },
        died_ms: u64::from_le_bytes(*died_ms),
        attempts: u32::from_le_bytes(*attempts),
        reason: String::from_utf8_lossy(reason).into_owned(),
    })
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
