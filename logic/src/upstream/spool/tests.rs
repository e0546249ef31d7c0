//! The spool: what a commit keeps over starts, other lanes, bounds of a batch, dead letters.

use bytes::Bytes;

use super::*;

fn stored(number: u64, shard: u32) -> Stored {
    Stored { number, shard, taken_ms: 1_000 + number, line: Bytes::from(format!("{{\"n\":{number}}}")) }
}

fn numbers(messages: &[Stored]) -> Vec<u64> {
    messages.iter().map(|message| message.number).collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch folder")
}

#[test]
fn what_was_committed_is_there_after_the_next_start_and_what_is_done_is_not() {
    let folder = folder();
    let path = folder.path().join("a/robots.redb");
    let (spool, found) = Spool::open(&path, 4).expect("opens");
    assert_eq!((found.next, found.waiting), (1, Amount::default()));
    let puts: Vec<Change> = (1..=8).map(|n| Change::Put(stored(n, n as u32))).collect();
    spool.commit(&puts, 9).expect("commits");
    spool.commit(&[Change::Done { lane: 1, up_to: 1 }, Change::Done { lane: 2, up_to: 6 }], 9).expect("commits");
    drop(spool);

    let (spool, found) = Spool::open(&path, 4).expect("opens");

    assert_eq!((found.next, found.waiting.messages), (9, 5));
    assert_eq!(found.lanes, [(2, 8), (1, 5), (0, 0), (2, 7)]);
    assert_eq!(spool.read(0, 0, 10, 1_000).expect("reads").messages, [stored(4, 4), stored(8, 8)]);
    assert_eq!(numbers(&spool.read(3, 3, 10, 1_000).expect("reads").messages), [7]);
}

#[test]
fn other_lanes_after_a_start_keep_every_message_and_each_shards_order() {
    let folder = folder();
    let path = folder.path().join("robots.redb");
    let (spool, _) = Spool::open(&path, 4).expect("opens");
    let puts: Vec<Change> = (1..=30).map(|n| Change::Put(stored(n, (n % 7) as u32))).collect();
    spool.commit(&puts, 31).expect("commits");
    drop(spool);

    let (spool, found) = Spool::open(&path, 3).expect("opens");

    assert_eq!(found.waiting.messages, 30);
    let mut all = Vec::new();
    for lane in 0..3 {
        let messages = spool.read(lane, 0, 100, 10_000).expect("reads").messages;
        assert!(messages.is_sorted_by_key(|message| message.number), "lane {lane}");
        assert!(messages.iter().all(|message| spool.lane(message.shard) == lane), "lane {lane}");
        all.extend(numbers(&messages));
    }
    all.sort_unstable();
    assert_eq!(all, (1..=30).collect::<Vec<_>>());
}

#[test]
fn a_batch_ends_at_its_bounds_but_has_a_message() {
    let folder = folder();
    let (spool, _) = Spool::open(&folder.path().join("s.redb"), 1).expect("opens");
    let puts: Vec<Change> = (1..=5).map(|n| Change::Put(stored(n, 0))).collect();
    spool.commit(&puts, 6).expect("commits");

    assert_eq!(numbers(&spool.read(0, 0, 2, 1_000).expect("reads").messages), [1, 2]);
    assert_eq!(numbers(&spool.read(0, 2, 10, 17).expect("reads").messages), [3, 4], "two lines of 8 bytes");
    assert_eq!(numbers(&spool.read(0, 2, 10, 1).expect("reads").messages), [3]);
    assert_eq!(numbers(&spool.read(0, 5, 10, 1_000).expect("reads").messages), [] as [u64; 0]);
}

#[test]
fn a_message_dies_and_lives_again_in_one_step_each() {
    let folder = folder();
    let path = folder.path().join("s.redb");
    let (spool, _) = Spool::open(&path, 1).expect("opens");
    spool.commit(&[Change::Put(stored(1, 0)), Change::Put(stored(2, 0))], 3).expect("commits");
    let letter = Dead { message: stored(1, 0), died_ms: 5_000, attempts: 3, reason: "status 400".into() };

    spool.commit(&[Change::Bury { lane: 0, dead: letter.clone() }], 3).expect("commits");

    assert_eq!(numbers(&spool.read(0, 0, 10, 1_000).expect("reads").messages), [2]);
    assert_eq!(spool.dead(0, 10).expect("reads"), [letter]);
    drop(spool);
    let (spool, found) = Spool::open(&path, 1).expect("opens");
    assert_eq!((found.dead.messages, found.waiting.messages), (1, 1));
    let again = Stored { number: 3, ..stored(1, 0) };
    spool.commit(&[Change::Revive { number: 1, again }], 4).expect("commits");
    assert_eq!(numbers(&spool.read(0, 0, 10, 1_000).expect("reads").messages), [2, 3]);
    assert_eq!(spool.dead(0, 10).expect("reads"), []);
}

#[test]
fn two_nodes_on_one_spool_are_told_so() {
    let folder = folder();
    let path = folder.path().join("s.redb");
    let _first = Spool::open(&path, 1).expect("opens");

    let second = Spool::open(&path, 1).expect_err("is in use");

    assert!(matches!(second, SpoolError::InUse(_)), "{second}");
}
