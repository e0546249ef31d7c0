//! Damaged spools: whatever is broken, the start succeeds, and each message is there or counted as lost.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use bytes::Bytes;

use super::frame::tests::old;
use super::{Change, Dead, Found, Spool, Stored};

const LANES: u16 = 4;
const MESSAGES: u64 = 300;
const LETTERS: u64 = 5;

fn stored(number: u64) -> Stored {
    let line = format!("{{\"id\":\"{number:026}\",\"data\":\"{}\"}}", "x".repeat((number % 60) as usize));
    Stored { number, shard: number as u32, taken_ms: 1_000 + number, line: Bytes::from(line) }
}

fn letter(number: u64) -> Dead {
    Dead { message: stored(number), died_ms: 9_000, attempts: 3, reason: "status 400".into() }
}

/// A spool with a past: of 345 messages 40 are delivered, 5 are dead letters, and 300 wait.
fn fill(path: &Path) -> Spool {
    let (spool, _) = Spool::open(path, LANES).expect("opens");
    let all = 40 + LETTERS + MESSAGES;
    for first in (1..=all).step_by(15) {
        let puts: Vec<Change> = (first..first + 15).map(|n| Change::Put(stored(n))).collect();
        spool.commit(&puts, first + 15).expect("commits");
    }
    let done = (0..LANES).map(|lane| Change::Done { lane, up_to: 40 }).collect::<Vec<_>>();
    spool.commit(&done, all + 1).expect("commits");
    let deaths = (41..=40 + LETTERS).map(|n| Change::Bury { lane: (n % u64::from(LANES)) as u16, dead: letter(n) });
    spool.commit(&deaths.collect::<Vec<_>>(), all + 1).expect("commits");
    spool
}

/// What can be read of a spool: numbers of messages, and of dead letters.
fn numbers(spool: &Spool) -> (BTreeSet<u64>, usize) {
    let mut messages = BTreeSet::new();
    for lane in 0..LANES {
        let page = spool.read(lane, 0, usize::MAX, usize::MAX).expect("reads");
        assert!(page.damaged.is_empty(), "what was damaged is not here any more");
        for message in page.messages {
            assert_eq!(message, stored(message.number), "a message is as it was or not there");
            messages.insert(message.number);
        }
    }
    (messages, spool.dead(0, usize::MAX).expect("reads").len())
}

struct Bed {
    folder: tempfile::TempDir,
    spool: Vec<u8>,
    acked: Vec<u8>,
}

impl Bed {
    fn new(is_closed: bool) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("made/s.redb");
        let made = fill(&path);
        if is_closed {
            made.close();
        }
        let read = |name: &str| std::fs::read(path.with_file_name(name)).expect("reads");
        let (spool, acked) = (read("s.redb"), read("s.acked"));
        drop(made);
        Self { folder, spool, acked }
    }

    /// Opens these bytes as a spool, in a folder of its own.
    fn open(&self, bytes: &[u8]) -> (Spool, Found, tempfile::TempDir) {
        let folder = tempfile::tempdir_in(self.folder.path()).expect("a scratch folder");
        let path = folder.path().join("s.redb");
        std::fs::write(&path, bytes).expect("writes");
        std::fs::write(path.with_extension("acked"), &self.acked).expect("writes");
        let (spool, found) = Spool::open(&path, LANES).expect("opens");
        (spool, found, folder)
    }

    /// Opens them with a byte changed, and holds that every message is there or counted; gives how many are lost.
    fn survive(&self, offset: usize, change: u8) -> u64 {
        let mut bytes = self.spool.clone();
        bytes[offset] ^= change;

        let (spool, found, folder) = self.open(&bytes);

        let (messages, letters) = numbers(&spool);
        let lost = found.damage.as_ref().map_or(0, |damage| damage.lost);
        let there = messages.len() as u64 + letters as u64;
        assert_eq!(there + lost, MESSAGES + LETTERS, "byte {offset} ^ {change}: {:?}", found.damage);
        assert_eq!((found.waiting.messages, found.dead.messages), (messages.len() as u64, letters as u64));
        assert!(messages.iter().all(|n| *n > 40), "byte {offset}: what was delivered does not come back");
        if let Some(damage) = &found.damage {
            assert!(damage.is_counted && std::fs::read(&damage.kept).expect("it is kept") == bytes, "byte {offset}");
            assert_eq!(spool.set_aside(), std::slice::from_ref(&damage.kept), "{}", folder.path().display());
        }
        lost
    }
}

/// How many bytes are tried; all of them when more than there are is asked for.
fn tries() -> usize {
    std::env::var("TIDEGATE_TEST_SPOOL_BYTES").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

#[test]
fn whichever_byte_of_a_spool_changes_each_message_is_delivered_or_counted() {
    for is_closed in [true, false] {
        let bed = Bed::new(is_closed);
        let header = (0..320).step_by((320 / tries()).max(16));
        // An odd step meets keys, lines, checksums and page numbers alike.
        let rest = (320..bed.spool.len()).step_by((bed.spool.len() / tries()).max(1) | 1);
        let (mut most, mut lost) = (0, 0);
        for (i, offset) in header.chain(rest).enumerate() {
            let lost_now = bed.survive(offset, if i % 2 == 0 { 0xff } else { 1 << (i / 2 % 8) });
            (most, lost) = (lost_now.max(most), lost + lost_now);
        }

        assert!(most <= 1, "one byte costs at most the message it is in, and cost {most}");
        println!("{lost} messages lost in all");
    }
}

/// Several pages at once: neither redb nor we may panic, and the sum holds as long as there is one.
#[test]
fn a_spool_with_holes_is_opened_and_the_sum_holds() {
    let bed = Bed::new(true);
    let mut counted = 0;
    for hole in 1..10 {
        let mut bytes = bed.spool.clone();
        for page in bytes[4_096..].chunks_mut(4_096).skip(hole).step_by(10) {
            page.fill(0);
        }

        let (spool, found, _folder) = bed.open(&bytes);

        let (messages, letters) = numbers(&spool);
        let damage = found.damage.expect("is damaged");
        counted += usize::from(damage.is_counted);
        let there = messages.len() as u64 + letters as u64;
        assert!(!damage.is_counted || there + damage.lost == MESSAGES + LETTERS, "{hole}: {there} and {damage:?}");
        assert_eq!(damage.saved, there, "{hole}");
    }
    assert!(counted > 5, "{counted} of 9 could be counted");
}

#[test]
fn a_spool_cut_short_and_one_that_is_none_are_set_aside_and_a_new_one_takes_messages() {
    let bed = Bed::new(true);
    let half = bed.spool.len() / 2;
    for bytes in [&bed.spool[..half], &bed.spool[..100], &[], b"not a spool at all, but a text"] {
        let (spool, found, _folder) = bed.open(bytes);

        let damage = found.damage.expect("is damaged");
        assert_eq!(std::fs::read(&damage.kept).expect("it is kept"), bytes);
        let next = found.next;
        spool.commit(&[Change::Put(Stored { number: next, ..stored(1) })], next + 1).expect("commits");
        assert!(spool.read(1, next - 1, 1, 1_000).expect("reads").messages.len() == 1);
    }
}

/// A copy from yesterday's backup, or a disk that lost what it had flushed: the file is sound and yet not all of it.
#[test]
fn a_spool_that_lost_commits_is_told_from_one_that_is_whole() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("s.redb");
    let (spool, _) = Spool::open(&path, LANES).expect("opens");
    spool.commit(&[Change::Put(stored(1))], 2).expect("commits");
    spool.close();
    let old = std::fs::read(&path).expect("reads");
    let (spool, _) = Spool::open(&path, LANES).expect("opens");
    spool.commit(&[Change::Put(stored(2))], 3).expect("commits");
    spool.close();
    std::fs::write(&path, &old).expect("writes");

    let (spool, found) = Spool::open(&path, LANES).expect("opens");

    let damage = found.damage.expect("is damaged");
    assert!(damage.why.contains("last commits") && !damage.is_counted, "{damage:?}");
    assert_eq!(numbers(&spool).0, BTreeSet::from([1]));
    drop(spool);
    assert_eq!(Spool::open(&path, LANES).expect("opens").1.damage, None, "the next start has nothing to say");
}

#[test]
fn a_spool_of_a_release_without_checksums_is_read_and_written_anew() {
    use redb::TableDefinition;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("s.redb");
    let database = redb::Database::create(&path).expect("makes");
    let transaction = database.begin_write().expect("begins");
    {
        let mut spool = transaction.open_table(TableDefinition::<(u16, u64), &[u8]>::new("spool")).expect("opens");
        let mut dead = transaction.open_table(TableDefinition::<u64, &[u8]>::new("dead")).expect("opens");
        let mut meta = transaction.open_table(TableDefinition::<&str, u64>::new("meta")).expect("opens");
        for n in 1..=30 {
            let (message, dead_letter) = old(&letter(n));
            match n {
                7 => dead.insert(n, dead_letter.as_slice()).map(drop),
                n => spool.insert(((n % 3) as u16, n), message.as_slice()).map(drop),
            }
            .expect("inserts");
        }
        meta.insert("lanes", 3).expect("inserts");
        meta.insert("next", 31).expect("inserts");
    }
    transaction.commit().expect("commits");
    drop(database);

    for _ in 0..2 {
        let (spool, found) = Spool::open(&path, LANES).expect("opens");

        assert_eq!((found.waiting.messages, found.dead.messages, found.damage), (29, 1, None));
        let dead = spool.dead(0, 10).expect("reads");
        assert_eq!((dead[0].message.line.clone(), dead[0].reason.as_str()), (stored(7).line, "status 400"));
        for lane in 0..LANES {
            let messages = spool.read(lane, 0, 100, 100_000).expect("reads").messages;
            assert!(messages.is_sorted_by_key(|message| message.taken_ms), "lane {lane}");
            assert!(messages.iter().all(|m| spool.lane(m.shard) == lane && m.line == stored(m.taken_ms - 1_000).line));
        }
    }
}

#[test]
fn a_spool_is_nobody_elses_to_read_also_one_that_was() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("a/b/s.redb");
    let mode = |path: &Path| path.metadata().expect("is there").permissions().mode() & 0o777;
    let all = || [folder.path().join("a/b"), path.clone(), path.with_extension("acked")].map(|path| mode(&path));
    drop(Spool::open(&path, LANES).expect("opens"));
    assert_eq!(all(), [0o700, 0o600, 0o600]);
    for (path, open) in [(folder.path().join("a/b"), 0o755), (path.clone(), 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(open)).expect("sets");
    }

    drop(Spool::open(&path, LANES).expect("opens"));

    assert_eq!(all(), [0o700, 0o600, 0o600]);
}

#[test]
fn a_spool_is_closed_when_it_is_dropped_and_not_when_the_process_is_killed() {
    let bed = Bed::new(true);
    assert!(!bed.open(&bed.spool).1.was_left_open);
    let bed = Bed::new(false);
    let (spool, found, _folder) = bed.open(&bed.spool);
    assert!(found.was_left_open && found.damage.is_none(), "{:?}", found.damage);
    assert_eq!(numbers(&spool).0.len() as u64, MESSAGES);
}

#[test]
fn a_message_that_is_damaged_while_the_node_runs_is_told_from_the_others() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let spool = fill(&folder.path().join("s.redb"));

    spool.spoil(1, 49);

    let page = spool.read(1, 0, usize::MAX, usize::MAX).expect("reads");
    assert_eq!((page.damaged.len(), page.messages.len()), (1, 74));
    let kept = spool.keep(49, &page.damaged[0].1).expect("keeps");
    assert_eq!(std::fs::metadata(kept).expect("is there").permissions().mode() & 0o777, 0o600);
    spool.close();
    let (_, found) = Spool::open(&folder.path().join("s.redb"), LANES).expect("opens");
    // An older copy of its page may still have it.
    let damage = found.damage.expect("is damaged");
    assert_eq!(damage.saved + damage.lost, MESSAGES + LETTERS, "{damage:?}");
}

/// The sum over two hundred commits of puts, deliveries and deaths: the stock says what the tables hold.
#[test]
fn the_stock_is_what_the_tables_hold() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("s.redb");
    drop(fill(&path));
    let file = std::fs::File::open(&path).expect("opens");
    let mut bytes = vec![0; file.metadata().expect("is there").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("reads");

    let stocks = bytes.windows(4).enumerate().filter(|(_, w)| *w == [0xff, 0xfe, b'T', 3]).filter_map(|(at, _)| {
        let length = super::frame::length(&bytes[at..])?;
        super::frame::read(bytes.get(at..at + length)?)
    });
    let newest = stocks
        .filter_map(|(_, frame)| match frame {
            super::frame::Frame::Stock(stock) => Some(stock),
            _ => None,
        })
        .max_by_key(|stock| (stock.era, stock.commits))
        .expect("there is one");

    assert_eq!((newest.waiting, newest.dead, newest.next), (MESSAGES, LETTERS, 346));
}
