//! Whether a spool is as it was written, and what can be saved of one that is not (ADR 28). A file is tried on a copy of its
//! pages in memory first, so nothing in it changes before it is known to be whole, and redb, which may panic on pages that are
//! not its own, only ever works on one that is. What is not whole is read frame by frame into a new file; the old is kept.
//! Blocking. Invariant: what the newest stock says was waiting is afterwards in the new file or counted as lost.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, StorageBackend};

use super::files::{self, Acked, Place};
use super::frame::{self, Frame, HEAD, Kind, MARK, Stock};
use super::{CACHE_BYTES, LETTERS, MESSAGES, STOCK, SpoolError, lane_of, newest, put_stock};

/// Read at a time by a scan.
const WINDOW: usize = 4 * 1024 * 1024;
/// No frame is longer: the largest batch of a sink, of which one message may be.
const FRAME_MAX: usize = 64 * 1024 * 1024;
/// Pages of the copy in memory.
const BLOCK: usize = 4096;
/// Frames put into the new file by one transaction.
const PAGE: usize = 4_096;

/// What was wrong with a spool, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where the file is now.
    pub kept: PathBuf,
    /// Why it was not used.
    pub why: String,
    /// Messages and dead letters that were read from it.
    pub saved: u64,
    /// Messages and dead letters that could not be.
    pub lost: u64,
    /// Whether the file still says how many there were.
    pub is_counted: bool,
}

/// Makes sure that the file at this place can be used; where it cannot, saves what can be read and sets it aside.
///
/// # Errors
/// The file is in use, or the disk does not let us.
pub fn prepare(place: &Place, lanes: u16) -> Result<Option<Damage>, SpoolError> {
    let unusable = |error: io::Error| SpoolError::Unusable { path: place.path.clone(), error: error.to_string() };
    let acked = place.acked().unwrap_or_default();
    if !place.path.exists() {
        if acked.commits > 0 {
            tracing::warn!(spool = %place.path.display(), "there was a spool here and it is gone; a new one begins");
        }
        return Ok(None);
    }
    let file = Place::open(&place.path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(SpoolError::InUse(place.path.clone())),
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    let why = match look(&file) {
        Ok(Seen { is_whole: true, commits }) if commits >= acked.commits => return Ok(None),
        Ok(Seen { is_whole: true, .. }) => "its last commits are not in it".to_owned(),
        Ok(_) => "messages in it are not as they were written".to_owned(),
        Err(redb::Error::Io(error)) if error.raw_os_error().is_some() => return Err(unusable(error)),
        Err(error) => error.to_string(),
    };
    save(place, &file, acked, lanes, why).map(Some)
}

/// What a file looks like that redb opens.
struct Seen {
    commits: u64,
    /// Whether each frame is as it was written.
    is_whole: bool,
}

fn look(file: &File) -> Result<Seen, redb::Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    // Without it redb trusts what it reads.
    builder.set_check_integrity_on_open(true);
    let database = builder.create_with_backend(Trial::of(file)?)?;
    let transaction = database.begin_read()?;
    let commits = match transaction.open_table(STOCK) {
        Ok(table) => newest(&table)?.map_or(0, |stock| stock.commits),
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Seen { commits: 0, is_whole: true }),
        Err(error) => return Err(error.into()),
    };
    let mut is_whole = commits > 0;
    for entry in transaction.open_table(MESSAGES)?.iter()? {
        is_whole &= frame::read(entry?.1.value()).is_some();
    }
    for entry in transaction.open_table(LETTERS)?.iter()? {
        is_whole &= frame::read(entry?.1.value()).is_some();
    }
    Ok(Seen { commits, is_whole })
}

/// The file with what is written kept beside it in memory: the few pages of a repair.
#[derive(Debug)]
struct Trial {
    file: File,
    length: Mutex<u64>,
    written: Mutex<BTreeMap<u64, Box<[u8; BLOCK]>>>,
}

impl Trial {
    fn of(file: &File) -> io::Result<Self> {
        let length = Mutex::new(file.metadata()?.len());
        Ok(Self { file: file.try_clone()?, length, written: Mutex::default() })
    }

    fn block(&self, number: u64) -> io::Result<Box<[u8; BLOCK]>> {
        let mut block = Box::new([0; BLOCK]);
        let mut filled = 0;
        // Beyond the end of the file there are zeros.
        while filled < BLOCK {
            match self.file.read_at(&mut block[filled..], number * BLOCK as u64 + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(block)
    }
}

/// The parts of a range by block: number of the block, where in it, where in the range.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == length {
            return None;
        }
        let place = offset + at as u64;
        let within = usize::try_from(place % BLOCK as u64).unwrap_or(0);
        let size = (BLOCK - within).min(length - at);
        at += size;
        Some((place / BLOCK as u64, within..within + size, at - size..at))
    })
}

impl StorageBackend for Trial {
    fn len(&self) -> io::Result<u64> {
        Ok(*self.length.lock())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.saturating_add(out.len() as u64) > *self.length.lock() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let written = self.written.lock();
        for (number, within, place) in parts(offset, out.len()) {
            match written.get(&number) {
                Some(block) => out[place].copy_from_slice(&block[within]),
                None => out[place].copy_from_slice(&self.block(number)?[within]),
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        *self.length.lock() = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        for (number, within, place) in parts(offset, data.len()) {
            let block = match written.entry(number) {
                std::collections::btree_map::Entry::Occupied(block) => block.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => free.insert(self.block(number)?),
            };
            block[within].copy_from_slice(&data[place]);
        }
        Ok(())
    }
}

/// A frame that counts.
struct At {
    era: u32,
    offset: u64,
    length: usize,
}

#[derive(Default)]
struct Index {
    messages: BTreeMap<u64, At>,
    letters: BTreeMap<u64, At>,
}

fn save(place: &Place, file: &File, acked: Acked, lanes: u16, why: String) -> Result<Damage, SpoolError> {
    let unusable = |error: redb::Error| SpoolError::Unusable { path: place.path.clone(), error: error.to_string() };
    let newest = newest_in(file).map_err(|error| unusable(error.into()))?;
    let mut index = index(file, newest.as_ref(), lanes).map_err(|error| unusable(error.into()))?;
    let is_counted = newest.as_ref().is_some_and(|stock| stock.commits >= acked.commits);
    let said = newest.unwrap_or_default();
    // The oldest are what leftovers of forgotten letters mostly are.
    while index.letters.len() as u64 > said.dead && is_counted {
        index.letters.pop_first();
    }
    let found = index.messages.range(..said.next).count() as u64;
    let lost = said.waiting.saturating_sub(found) + said.dead.saturating_sub(index.letters.len() as u64);
    let numbers = index.messages.keys().chain(index.letters.keys());
    let stock = Stock {
        commits: said.commits.max(acked.commits) + 1,
        era: said.era + 1,
        era_min: said.era + 1,
        next: numbers.max().map_or(1, |last| last + 1).max(said.next),
        waiting: index.messages.len() as u64,
        dead: index.letters.len() as u64,
        done: if said.done.is_empty() { vec![0; usize::from(lanes)] } else { said.done },
    };
    let new = place.beside("new");
    write(&new, file, &index, &stock).map_err(unusable)?;
    let kept = place.replace(&new).map_err(|error| unusable(error.into()))?;
    let acks = place.acks().map_err(|error| unusable(error.into()))?;
    files::note(&acks, Acked { commits: stock.commits, is_closed: true }).map_err(|error| unusable(error.into()))?;
    Ok(Damage { kept, why, saved: stock.waiting + stock.dead, lost, is_counted })
}

fn newest_in(file: &File) -> io::Result<Option<Stock>> {
    let mut newest: Option<Stock> = None;
    scan(file, Some(Kind::Stock), |_, _, _, frame| {
        if let Frame::Stock(stock) = frame
            && newest.as_ref().is_none_or(|other| (other.era, other.commits) < (stock.era, stock.commits))
        {
            newest = Some(stock);
        }
    })?;
    Ok(newest)
}

/// Where the frames are that count: of each number the latest, less what is delivered.
fn index(file: &File, stock: Option<&Stock>, lanes: u16) -> io::Result<Index> {
    let mut index = Index::default();
    let (era_min, done) = stock.map_or((0, &[][..]), |stock| (stock.era_min, stock.done.as_slice()));
    let lanes = u16::try_from(done.len()).ok().filter(|lanes| *lanes > 0).unwrap_or(lanes);
    scan(file, None, |offset, length, era, frame| {
        let (map, number) = match frame {
            Frame::Message(message) => {
                let done = done.get(usize::from(lane_of(message.shard, lanes))).copied().unwrap_or(0);
                if era < era_min || message.number <= done {
                    return;
                }
                (&mut index.messages, message.number)
            }
            Frame::Dead(dead) => (&mut index.letters, dead.message.number),
            Frame::Stock(_) => return,
        };
        if map.get(&number).is_none_or(|other| other.era < era) {
            map.insert(number, At { era, offset, length });
        }
    })?;
    Ok(index)
}

/// Gives every sound frame of the file: where it is, how long, of which era.
fn scan(file: &File, only: Option<Kind>, mut each: impl FnMut(u64, usize, u32, Frame)) -> io::Result<()> {
    let end = file.metadata()?.len();
    let (mut window, mut apart, mut base) = (vec![0; WINDOW], Vec::new(), 0_u64);
    while base + (HEAD as u64) <= end {
        let size = usize::try_from(end - base).unwrap_or(WINDOW).min(WINDOW);
        file.read_exact_at(&mut window[..size], base)?;
        let (bytes, mut at) = (&window[..size], 0);
        while let Some(next) = bytes[at..].iter().position(|byte| *byte == MARK[0]) {
            at += next;
            if at + HEAD > size {
                break;
            }
            let here = &bytes[at..];
            let offset = base + at as u64;
            let is_meant = only.is_none_or(|kind| here[3] == kind as u8);
            let length = frame::length(here)
                .filter(|length| is_meant && *length <= FRAME_MAX && offset + *length as u64 <= end)
                .unwrap_or(0);
            let whole = match here.get(..length) {
                Some(whole) => whole,
                None => {
                    apart.resize(length, 0);
                    file.read_exact_at(&mut apart, offset)?;
                    &apart
                }
            };
            match frame::read(whole) {
                Some((era, frame)) => {
                    each(offset, length, era, frame);
                    at += length;
                }
                None => at += 1,
            }
            if at >= size {
                break;
            }
        }
        // What begins near the end is looked at again from its beginning; a frame across it is behind us.
        base += if at + HEAD > size { at.max(1) as u64 } else { (size - HEAD + 1) as u64 };
    }
    Ok(())
}

/// Makes the new file: the frames by lane, the stock, all on the disk.
fn write(path: &Path, from: &File, index: &Index, stock: &Stock) -> Result<(), redb::Error> {
    if path.exists() {
        // Of a start that did not get to its end.
        std::fs::remove_file(path)?;
    }
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let backend = redb::backends::FileBackend::new(Place::open(path)?)?;
    let database = builder.create_with_backend(backend)?;
    let lanes = u16::try_from(stock.done.len()).unwrap_or(u16::MAX);
    let read = |at: &At| -> io::Result<Option<Frame>> {
        let mut bytes = vec![0; at.length];
        from.read_exact_at(&mut bytes, at.offset)?;
        Ok(frame::read(&bytes).map(|(_, frame)| frame))
    };
    let all: Vec<&At> = index.messages.values().chain(index.letters.values()).collect();
    for page in all.chunks(PAGE) {
        let transaction = database.begin_write()?;
        {
            let mut messages = transaction.open_table(MESSAGES)?;
            let mut letters = transaction.open_table(LETTERS)?;
            for at in page {
                match read(at)? {
                    Some(Frame::Message(message)) => {
                        let key = (lane_of(message.shard, lanes), message.number);
                        messages.insert(key, frame::of_message(&message, stock.era).as_slice())?;
                    }
                    Some(Frame::Dead(dead)) => {
                        letters.insert(dead.message.number, frame::of_dead(&dead, stock.era).as_slice())?;
                    }
                    Some(Frame::Stock(_)) | None => {}
                }
            }
        }
        transaction.commit()?;
    }
    let transaction = database.begin_write()?;
    {
        transaction.open_table(MESSAGES)?;
        transaction.open_table(LETTERS)?;
        put_stock(&mut transaction.open_table(STOCK)?, stock)?;
    }
    transaction.commit()?;
    database.close()?;
    Ok(())
}
