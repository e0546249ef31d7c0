//! What a sink has not got yet, on disk: one redb file a sink, with the messages by lane and number, the dead letters, and the
//! stock of both (ADR 22). A commit returns when it is on the disk, so what was told SENT outlives a crash; a message moves to
//! the dead letters and back in one transaction. Blocking: called from `tokio::task::spawn_blocking`.
//! Knows nothing of bounds (see `ledger`) nor of HTTP; `frame` has the form of what is in it, `salvage` what is done when that is
//! damaged. Invariant: within a lane, numbers grow in the order of acceptance.

mod files;
pub mod frame;
pub mod salvage;
mod takeover;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, RwLock};
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable, Table, TableDefinition, WriteTransaction};

use self::files::{Acked, Place};
pub use self::frame::{Dead, Stored};
use self::frame::{Frame, Stock};
use self::salvage::Damage;
use self::takeover::take_stock;
use super::graves::Grave;

/// (lane, number) → frame of a message.
pub const MESSAGES: TableDefinition<'_, (u16, u64), &[u8]> = TableDefinition::new("messages");
/// Number → frame of a dead letter.
pub const LETTERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("letters");
/// The frame of the stock, twice, so that damage to one leaves the other.
pub const STOCK: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("stock");
/// Pages that redb keeps in memory; the kernel keeps the rest.
pub const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// What a message weighs beside its line: frame, key, its share of pages.
pub const MESSAGE_WEIGHT: u64 = 96;

/// [`MESSAGES`] in a transaction.
pub type MessageTable<'a> = Table<'a, (u16, u64), &'static [u8]>;
/// [`LETTERS`] in a transaction.
pub type LetterTable<'a> = Table<'a, u64, &'static [u8]>;

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

impl Stored {
    /// What it counts against a bound.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.line.len() as u64 + MESSAGE_WEIGHT
    }
}

impl Dead {
    /// As it is booked.
    #[must_use]
    pub fn grave(&self) -> Grave {
        let Stored { number, shard, .. } = self.message;
        Grave { number, shard, bytes: self.message.weight() }
    }
}

/// One change.
#[derive(Debug)]
pub enum Change {
    /// A new message; its number is given before.
    Put(Stored),
    /// The sink has the lane's messages up to this number.
    Done { lane: u16, up_to: u64 },
    /// The sink has this one, before those ahead of it in the lane.
    Take { lane: u16, number: u64 },
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
    /// Counts one more.
    pub fn add(&mut self, message: &Stored) {
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
    /// Bytes of messages by shard.
    pub waiting_of: HashMap<u32, u64>,
    /// The dead letters.
    pub graves: Vec<Grave>,
    /// The next number.
    pub next: u64,
    /// Whether the last process ended without closing the file.
    pub was_left_open: bool,
    /// What was wrong with the file of before, which is kept.
    pub damage: Option<Damage>,
}

/// A lane's next messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Those that are as they were written.
    pub messages: Vec<Stored>,
    /// Number and bytes of those that are not.
    pub damaged: Vec<(u64, Vec<u8>)>,
}

/// The file.
#[derive(Debug)]
pub struct Spool {
    place: Place,
    lanes: u16,
    file: RwLock<State>,
    /// As of the last commit; only commits change it.
    stock: Mutex<Stock>,
    acks: File,
}

#[derive(Debug)]
enum State {
    Open(Database),
    /// It could not be opened again after an error of the disk; the next commit tries once more.
    Broken,
    /// The node leaves.
    Closed,
}

impl Spool {
    /// Opens or makes the file, and counts what is in it. A damaged one is replaced by what can be read of it, and kept.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn open(path: &Path, lanes: u16) -> Result<(Self, Found), SpoolError> {
        let failed = |error: String| SpoolError::Unusable { path: path.to_owned(), error };
        let place = Place::make(path).map_err(|error| failed(format!("its folder cannot be used: {error}")))?;
        let was_left_open = place.acked().is_some_and(|acked| !acked.is_closed);
        let damage = salvage::prepare(&place, lanes)?;
        let database = database(path)?;
        // The file's name also when it was there: the process before may have ended between the two.
        place.sync().map_err(|error| failed(format!("its folder cannot be flushed: {error}")))?;
        let acks = place.acks().map_err(|error| failed(error.to_string()))?;
        let (stock, mut found) = take_stock(&database, lanes).map_err(|error| failed(error.to_string()))?;
        (found.was_left_open, found.damage) = (was_left_open, damage);
        let (file, stock) = (RwLock::new(State::Open(database)), Mutex::new(stock));
        let spool = Self { place, lanes, file, stock, acks };
        spool.acknowledge(false);
        Ok((spool, found))
    }

    /// Closes the file, so that the next process need not repair it. Nothing can be done with it any more.
    pub fn close(&self) {
        // Held to the end, so that whoever closes it a second time returns when it is closed.
        let mut file = self.file.write();
        let State::Open(database) = std::mem::replace(&mut *file, State::Closed) else { return };
        match database.close() {
            Ok(()) => self.acknowledge(true),
            Err(error) => tracing::warn!(path = %self.place.path.display(), "the spool was not closed well: {error}"),
        }
    }

    fn acknowledge(&self, is_closed: bool) {
        let acked = Acked { commits: self.stock.lock().commits, is_closed };
        // One that is behind only weakens what the next start can tell about damage.
        if let Err(error) = files::note(&self.acks, acked) {
            tracing::warn!(path = %self.place.path.display(), "cannot note a commit beside the spool: {error}");
        }
    }

    /// Files that were set aside as damaged and are still there.
    #[must_use]
    pub fn set_aside(&self) -> Vec<PathBuf> {
        self.place.set_aside()
    }

    /// Keeps a damaged message beside the spool, for whoever can read it; gives the file's name.
    ///
    /// # Errors
    /// What the system said.
    pub fn keep(&self, number: u64, bytes: &[u8]) -> std::io::Result<PathBuf> {
        let path = self.place.beside(&format!("damaged-message-{number}"));
        std::os::unix::fs::FileExt::write_all_at(&Place::open(&path)?, bytes, 0)?;
        Ok(path)
    }

    /// Breaks a message, as a disk may.
    #[cfg(test)]
    pub fn spoil(&self, lane: u16, number: u64) {
        let state = self.file.read();
        let State::Open(database) = &*state else { panic!("is open") };
        let transaction = database.begin_write().expect("begins");
        {
            let mut messages = transaction.open_table(MESSAGES).expect("opens");
            let mut frame = messages.get((lane, number)).expect("reads").expect("is there").value().to_vec();
            frame[40] ^= 1;
            messages.insert((lane, number), frame.as_slice()).expect("inserts");
        }
        transaction.commit().expect("commits");
    }

    /// The lane of a shard.
    #[must_use]
    pub fn lane(&self, shard: u32) -> u16 {
        lane_of(shard, self.lanes)
    }

    /// Makes changes, all or none; on the disk when it returns. `next` is the next number that nobody has.
    ///
    /// # Errors
    /// What the disk says; then the file is opened again for the next call.
    pub fn commit(&self, changes: &[Change], next: u64) -> Result<(), SpoolError> {
        let outcome = match &*self.file.read() {
            State::Open(database) => self.write(database, changes, next),
            State::Broken | State::Closed => Err(redb::Error::PreviousIo),
        };
        let stock = outcome.map_err(|error| {
            self.reopen();
            self.unusable(&error)
        })?;
        *self.stock.lock() = stock;
        self.acknowledge(false);
        Ok(())
    }

    fn write(&self, database: &Database, changes: &[Change], next: u64) -> Result<Stock, redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
        let mut stock = self.stock.lock().clone();
        (stock.commits, stock.next) = (stock.commits + 1, next);
        self.apply(&transaction, changes, &mut stock)?;
        transaction.commit()?;
        Ok(stock)
    }

    fn apply(&self, transaction: &WriteTransaction, changes: &[Change], stock: &mut Stock) -> Result<(), redb::Error> {
        let mut messages = transaction.open_table(MESSAGES)?;
        let mut letters = transaction.open_table(LETTERS)?;
        for change in changes {
            match change {
                Change::Put(message) => put(&mut messages, self.lane(message.shard), message, stock)?,
                Change::Done { lane, up_to } => {
                    let mut gone = 0;
                    messages.retain_in((*lane, 0)..=(*lane, *up_to), |_, _| {
                        gone += 1;
                        false
                    })?;
                    settle(stock, *lane, *up_to, gone);
                }
                Change::Take { lane, number } => {
                    let gone = messages.remove((*lane, *number))?.is_some();
                    stock.waiting = stock.waiting.saturating_sub(u64::from(gone));
                }
                Change::Bury { lane, dead } => {
                    let gone = messages.remove((*lane, dead.message.number))?.is_some();
                    settle(stock, *lane, dead.message.number, u64::from(gone));
                    bury(&mut letters, dead, stock)?;
                }
                Change::Revive { number, again } => {
                    forget(&mut letters, *number, stock)?;
                    put(&mut messages, self.lane(again.shard), again, stock)?;
                }
                Change::Forget { number } => forget(&mut letters, *number, stock)?,
            }
        }
        put_stock(&mut transaction.open_table(STOCK)?, stock)
    }

    /// A lane's next messages, after a number: at least one if there is one, then as long as they fit.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read(&self, lane: u16, after: u64, most: usize, bytes: usize) -> Result<Page, SpoolError> {
        self.look(|database| {
            let messages = database.begin_read()?.open_table(MESSAGES)?;
            let (mut out, mut size) = (Page::default(), 0);
            for entry in messages.range((lane, after + 1)..=(lane, u64::MAX))? {
                let (key, value) = entry?;
                let number = key.value().1;
                let Some(message) = message(number, value.value()) else {
                    out.damaged.push((number, value.value().to_vec()));
                    continue;
                };
                size += message.line.len() + 1;
                if out.messages.len() == most || (!out.messages.is_empty() && size > bytes) {
                    break;
                }
                out.messages.push(message);
            }
            Ok(out)
        })
    }

    /// Shows a lane's messages after a number, as they lie there, until it has seen enough.
    ///
    /// # Errors
    /// What the disk says.
    pub fn each(&self, lane: u16, after: u64, mut is_enough: impl FnMut(u64, &[u8]) -> bool) -> Result<(), SpoolError> {
        self.look(|database| {
            let messages = database.begin_read()?.open_table(MESSAGES)?;
            for entry in messages.range((lane, after + 1)..=(lane, u64::MAX))? {
                let (key, value) = entry?;
                if is_enough(key.value().1, value.value()) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Dead letters after a number, in order.
    ///
    /// # Errors
    /// What the disk says.
    pub fn dead(&self, after: u64, most: usize) -> Result<Vec<Dead>, SpoolError> {
        self.look(|database| {
            let letters = database.begin_read()?.open_table(LETTERS)?;
            let mut out = Vec::new();
            for entry in letters.range(after.saturating_add(1)..)?.take(most) {
                let (key, value) = entry?;
                out.extend(letter(key.value(), value.value()));
            }
            Ok(out)
        })
    }

    fn look<T>(&self, with: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, SpoolError> {
        match &*self.file.read() {
            State::Open(database) => with(database).map_err(|error| self.unusable(&error)),
            State::Broken | State::Closed => Err(self.unusable(&redb::Error::PreviousIo)),
        }
    }

    /// After an error of the disk redb wants the file opened anew, which finds the last commit. One that is not whole is left
    /// to the next start, which saves what it can.
    fn reopen(&self) {
        let mut state = self.file.write();
        if matches!(*state, State::Closed) {
            return;
        }
        *state = State::Broken;
        let opened = database(&self.place.path).and_then(|database| {
            let commits = commits_of(&database).map_err(|error| self.unusable(&error))?;
            Ok((database, commits))
        });
        let mut stock = self.stock.lock();
        match opened {
            Ok((database, commits)) if commits >= stock.commits => {
                // What is written again under the same numbers counts more than what may be left of this failure.
                (stock.commits, stock.era) = (commits, stock.era + 1);
                *state = State::Open(database);
            }
            Ok(_) => tracing::error!(
                path = %self.place.path.display(),
                "the spool has lost commits; messages are refused until this node is restarted, which saves what can be read"
            ),
            Err(error) => tracing::error!("the spool cannot be opened again: {error}"),
        }
    }

    fn unusable(&self, error: &redb::Error) -> SpoolError {
        SpoolError::Unusable { path: self.place.path.clone(), error: error.to_string() }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.close();
    }
}

fn database(path: &Path) -> Result<Database, SpoolError> {
    let unusable = |error: String| SpoolError::Unusable { path: path.to_owned(), error };
    let file = Place::open(path).map_err(|error| unusable(error.to_string()))?;
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    // Without it redb trusts what it reads, and may panic.
    builder.set_check_integrity_on_open(true);
    let opened = redb::backends::FileBackend::new(file).and_then(|file| builder.create_with_backend(file));
    opened.map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => SpoolError::InUse(path.to_owned()),
        error => unusable(error.to_string()),
    })
}

fn commits_of(database: &Database) -> Result<u64, redb::Error> {
    Ok(newest(&database.begin_read()?.open_table(STOCK)?)?.map_or(0, |stock| stock.commits))
}

/// The lane of a shard.
#[must_use]
pub fn lane_of(shard: u32, lanes: u16) -> u16 {
    u16::try_from(shard % u32::from(lanes)).unwrap_or(0)
}

fn put(messages: &mut MessageTable<'_>, lane: u16, message: &Stored, stock: &mut Stock) -> Result<(), redb::Error> {
    messages.insert((lane, message.number), frame::of_message(message, stock.era).as_slice())?;
    stock.waiting += 1;
    Ok(())
}

fn bury(letters: &mut LetterTable<'_>, dead: &Dead, stock: &mut Stock) -> Result<(), redb::Error> {
    letters.insert(dead.message.number, frame::of_dead(dead, stock.era).as_slice())?;
    stock.dead += 1;
    Ok(())
}

fn forget(letters: &mut LetterTable<'_>, number: u64, stock: &mut Stock) -> Result<(), redb::Error> {
    let gone = letters.remove(number)?.is_some();
    stock.dead = stock.dead.saturating_sub(u64::from(gone));
    Ok(())
}

/// A lane's messages up to a number are not waiting any more.
fn settle(stock: &mut Stock, lane: u16, up_to: u64, gone: u64) {
    stock.waiting = stock.waiting.saturating_sub(gone);
    if let Some(done) = stock.done.get_mut(usize::from(lane)) {
        *done = (*done).max(up_to);
    }
}

/// Writes the stock.
///
/// # Errors
/// What the disk says.
pub fn put_stock(table: &mut Table<'_, u8, &'static [u8]>, stock: &Stock) -> Result<(), redb::Error> {
    let frame = frame::of_stock(stock);
    table.insert(0, frame.as_slice())?;
    table.insert(1, frame.as_slice())?;
    Ok(())
}

/// The stock, if one of its two frames can be read.
///
/// # Errors
/// What the disk says.
pub fn newest(table: &impl ReadableTable<u8, &'static [u8]>) -> Result<Option<Stock>, redb::Error> {
    for entry in table.iter()? {
        if let Some((_, Frame::Stock(stock))) = frame::read(entry?.1.value()) {
            return Ok(Some(stock));
        }
    }
    Ok(None)
}

/// Reads a message; none when it is not as it was written.
#[must_use]
pub fn message(number: u64, value: &[u8]) -> Option<Stored> {
    match frame::read(value)?.1 {
        Frame::Message(message) if message.number == number => Some(message),
        _ => None,
    }
}

/// Reads a dead letter; likewise.
#[must_use]
pub fn letter(number: u64, value: &[u8]) -> Option<Dead> {
    match frame::read(value)?.1 {
        Frame::Dead(dead) if dead.message.number == number => Some(dead),
        _ => None,
    }
}

#[cfg(test)]
mod salvage_tests;
#[cfg(test)]
mod tests;
