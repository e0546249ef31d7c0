//! Remembered keys: repeats, failures, conflicts; each bound and who makes room at it; what is kept of a receipt.

use std::time::Duration;

use super::*;
use crate::push::Caller;

fn memory(window_ms: u32, keys_max: usize) -> Dedupe {
    Dedupe::new(&DedupeConfig { window_ms, keys_max, ..DedupeConfig::default() })
}

const ANYONE: CallerId = Caller::ANYONE.id;

fn first(claim: Claim) -> Option<Guard> {
    match claim {
        Claim::First(guard) => Some(guard),
        Claim::Repeat(_) => None,
    }
}

#[tokio::test]
async fn a_repeat_gets_the_first_receipt_even_while_the_first_is_on_its_way() {
    let memory = memory(1_000, 10);
    let now = Instant::now();
    let guard = first(memory.claim(ANYONE, "a", now)).expect("free");
    let Claim::Repeat(earlier) = memory.claim(ANYONE, "a", now) else { panic!("claimed twice") };
    let waiting = tokio::spawn(earlier.receipt());

    guard.settle(&Receipt::new("01".into()));

    assert_eq!(waiting.await.expect("no panic").expect("settled").id, "01");
    let Claim::Repeat(later) = memory.claim(ANYONE, "a", now) else { panic!("claimed twice") };
    assert_eq!(later.receipt().await.expect("settled").id, "01");
}

#[tokio::test]
async fn a_failed_push_releases_its_key() {
    let memory = memory(1_000, 10);
    let now = Instant::now();
    let guard = first(memory.claim(ANYONE, "a", now)).expect("free");
    let Claim::Repeat(earlier) = memory.claim(ANYONE, "a", now) else { panic!("claimed twice") };

    drop(guard);

    assert_eq!(earlier.receipt().await, None);
    assert!(first(memory.claim(ANYONE, "a", now)).is_some());
}

#[tokio::test]
async fn a_key_is_free_again_after_the_window() {
    let memory = memory(1_000, 10);
    let now = Instant::now();
    first(memory.claim(ANYONE, "a", now)).expect("free").settle(&Receipt::new("01".into()));

    assert!(first(memory.claim(ANYONE, "a", now + Duration::from_millis(999))).is_none());
    assert!(first(memory.claim(ANYONE, "a", now + Duration::from_millis(1_000))).is_some());
}

#[tokio::test]
async fn a_key_taken_for_something_else_is_a_conflict() {
    let memory: Dedupe<Plain> =
        Dedupe::new(&DedupeConfig { window_ms: 1_000, keys_max: 10, ..DedupeConfig::default() });
    let now = Instant::now();
    let Ok(Claim::First(guard)) = memory.claim_exactly(ANYONE, "a", [1; 32], now) else { panic!("free") };
    guard.settle(&Plain);

    assert!(matches!(memory.claim_exactly(ANYONE, "a", [2; 32], now), Err(Conflict)));
    assert!(matches!(memory.claim_exactly(ANYONE, "a", [1; 32], now), Ok(Claim::Repeat(_))));
    assert!(memory.shed() && !memory.shed());
    assert!(matches!(memory.claim_exactly(ANYONE, "a", [2; 32], now), Ok(Claim::First(_))));
}

#[tokio::test]
async fn the_oldest_key_makes_room() {
    let memory = memory(1_000, 3);
    let now = Instant::now();
    for name in ["a", "b", "c", "d"] {
        first(memory.claim(ANYONE, name, now)).expect("free").settle(&Receipt::new(name.into()));
    }

    assert_eq!(memory.len(), 3);
    assert!(first(memory.claim(ANYONE, "d", now)).is_none());
    assert!(first(memory.claim(ANYONE, "a", now)).is_some());
}

#[tokio::test]
async fn a_key_whose_request_is_on_its_way_outlives_younger_ones_and_the_window() {
    let memory = memory(1_000, 3);
    let now = Instant::now();
    let slow = first(memory.claim(ANYONE, "slow", now)).expect("free");
    for name in ["a", "b", "c", "d"] {
        first(memory.claim(ANYONE, name, now)).expect("free").settle(&Receipt::new(name.into()));
    }
    assert!(memory.shed() && memory.shed() && !memory.shed());
    let later = now + Duration::from_secs(5);

    assert!(first(memory.claim(ANYONE, "slow", later)).is_none(), "it would be done twice");
    slow.settle(&Receipt::new("slow".into()));
    assert!(first(memory.claim(ANYONE, "slow", later + Duration::from_secs(1))).is_some());
}

#[tokio::test]
async fn when_all_are_on_their_way_the_oldest_makes_room() {
    let memory = memory(1_000, 2);
    let now = Instant::now();
    let _guards: Vec<_> = ["a", "b", "c"].map(|name| first(memory.claim(ANYONE, name, now))).into();

    assert_eq!(memory.len(), 2);
    assert!(first(memory.claim(ANYONE, "c", now)).is_none());
}

/// An outcome of which nothing is kept.
#[derive(Clone, Copy)]
struct Plain;

impl Outcome for Plain {
    type Kept = ();
    type Print = Print;
    fn keep(_: Arc<Self>) {}
    fn tell((): &()) -> Arc<Self> {
        Arc::new(Self)
    }
    fn bytes((): &()) -> usize {
        0
    }
}

fn settled(memory: &Dedupe, owner: &str, name: &str, now: Instant) {
    let id = ulid::Ulid::generate().to_string();
    if let Claim::First(guard) = memory.claim_owned(ANYONE, owner, name, now) {
        guard.settle(&Receipt::new(id));
    }
}

fn is_known(memory: &Dedupe, owner: &str, name: &str, now: Instant) -> bool {
    matches!(memory.claim_owned(ANYONE, owner, name, now), Claim::Repeat(_))
}

#[tokio::test]
async fn keys_are_bounded_in_bytes_and_the_oldest_makes_room() {
    let config = DedupeConfig { window_ms: 60_000, keys_max: 1_000_000, keys_bytes: 100_000 };
    let memory: Dedupe = Dedupe::new(&config);
    let now = Instant::now();
    for n in 0..2_000 {
        first(memory.claim(ANYONE, &format!("{n:0>128}"), now)).expect("free").settle(&Receipt::new("01".into()));
        assert!(memory.bytes() <= 100_000, "{n}: {}", memory.bytes());
    }

    assert!(memory.len() > 100, "{}", memory.len());
    assert!(first(memory.claim(ANYONE, &format!("{:0>128}", 1_999), now)).is_none());
    assert!(first(memory.claim(ANYONE, &format!("{:0>128}", 0), now)).is_some());
}

/// A receipt that names many gateways costs what it weighs.
#[tokio::test]
async fn long_receipts_count_with_all_their_bytes() {
    let config = DedupeConfig { window_ms: 60_000, keys_max: 1_000, keys_bytes: 100_000 };
    let memory: Dedupe = Dedupe::new(&config);
    let now = Instant::now();
    let mut long = Receipt::new("01".into());
    (0..100).for_each(|n| long.fail(format!("http://gateway-{n}.example.com:8002"), "unreachable"));
    for n in 0..100 {
        first(memory.claim(ANYONE, &n.to_string(), now)).expect("free").settle(&long);
        assert!(memory.bytes() <= 100_000, "{n}: {}", memory.bytes());
    }

    assert!((5..20).contains(&memory.len()), "{}", memory.len());
}

#[tokio::test]
async fn one_owners_keys_do_not_push_out_what_others_are_remembered_for() {
    let memory = memory(60_000, 1_000);
    let now = Instant::now();
    (0..100).for_each(|n| settled(&memory, &format!("u{n}"), "a", now));

    (0..20_000).for_each(|n| settled(&memory, "mallory", &n.to_string(), now));

    assert!((0..100).all(|n| is_known(&memory, &format!("u{n}"), "a", now)));
    assert!(is_known(&memory, "mallory", "19999", now) && memory.len() <= 1_000);
    settled(&memory, "late", "a", now);
    assert!(is_known(&memory, "late", "a", now), "there is room for one more");
}

#[tokio::test]
async fn an_owner_who_is_forgotten_takes_no_memory() {
    let memory = memory(1_000, 1_000);
    let now = Instant::now();
    (0..500).for_each(|n| settled(&memory, &format!("u{n}"), "a", now));
    assert!(memory.bytes() > 100_000);

    settled(&memory, "one", "a", now + Duration::from_secs(2));

    assert_eq!((memory.len(), memory.table.lock().owners.len()), (1, 1));
    assert!(memory.bytes() < 1_000, "{}", memory.bytes());
}

#[tokio::test]
async fn a_receipt_is_told_as_it_was_whatever_is_in_it() {
    let memory = memory(60_000, 10);
    let now = Instant::now();
    let mut plain = Receipt::new(ulid::Ulid::generate().to_string());
    (plain.gateways.sent, plain.matched, plain.queued) = (3, 5, 4);
    let mut dropped = plain.clone();
    dropped.dropped.insert("slow".into(), 1);
    for (name, receipt) in [("plain", plain), ("dropped", dropped), ("odd", Receipt::new("01kb".into()))] {
        first(memory.claim(ANYONE, name, now)).expect("free").settle(&receipt);

        let Claim::Repeat(earlier) = memory.claim(ANYONE, name, now) else { panic!("claimed twice") };
        assert_eq!(*earlier.receipt().await.expect("settled"), receipt);
    }
}

/// At the bounds as they are by default: what a million nonces of clients cost.
#[test]
fn a_nonce_costs_at_most_what_the_manual_says() {
    let receipt = KeptReceipt::Plain { id: [0; 16], sent: 1, matched: 1, queued: 1 };
    let entry: Entry<Receipt> = Entry { number: 0, owner: Some(1), print: (), state: State::Known(receipt) };

    assert!(Table::cost(&entry) <= 288, "{}", Table::cost(&entry));
}

#[tokio::test]
async fn keys_that_were_released_take_no_memory_and_none_of_their_owners_share() {
    let memory = memory(1_000, 100);
    let now = Instant::now();
    first(memory.claim_owned(ANYONE, "ann", "kept", now)).expect("free").settle(&Receipt::new("01".into()));
    let bytes = memory.bytes();

    // Messages to somebody who is not there.
    for n in 0..1_000 {
        drop(first(memory.claim_owned(ANYONE, "ann", &format!("in vain {n}"), now)).expect("free"));
    }

    let table = memory.table.lock();
    assert_eq!((table.bytes, table.owners.values().map(VecDeque::len).sum::<usize>()), (bytes, 1));
    drop(table);
    assert!(first(memory.claim_owned(ANYONE, "ann", "kept", now)).is_none(), "it is remembered");
}
