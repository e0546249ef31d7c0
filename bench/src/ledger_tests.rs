//! The checker must see each kind of fault, and only that one.
//! A file of its own because the code it tests is long enough.

use super::*;

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(2, 2, 1, true);
    ledger.enrol(0, ["red"].into_iter());
    ledger.enrol(1, ["blue"].into_iter());
    ledger
}

fn runs(runs: &[(u32, u32)]) -> Push {
    let runs = runs.iter().map(|(first, last)| Run { publisher: 1, first: *first, last: *last }).collect();
    Push { runs, ..Push::default() }
}

fn judge(ledger: &Ledger, count: u32, refused: u32) -> Standing {
    let mut standing = Standing::default();
    let expected = Expected { publisher: 1, count, refused, to: "all".into() };
    ledger.judge(0, 0, &[(&expected, true)], &mut standing);
    standing.examples.clear();
    standing
}

/// A standing with one client and these faults.
fn one(faulty: Standing) -> Standing {
    Standing { clients: 1, faulty_clients: u64::from(faulty.faults() > 0), ..faulty }
}

#[test]
fn everything_in_order_is_no_fault() {
    let mut ledger = ledger();

    ledger.push(0, &runs(&[(0, 4)]));
    ledger.push(0, &runs(&[(5, 9)]));

    assert_eq!(judge(&ledger, 10, 0), one(Standing::default()));
}

#[test]
fn a_lost_message_is_counted_wherever_it_was() {
    for received in [&[(1, 9)][..], &[(0, 3), (5, 9)], &[(0, 8)]] {
        let mut ledger = ledger();

        received.iter().for_each(|run| ledger.push(0, &runs(&[*run])));

        assert_eq!(judge(&ledger, 10, 0), one(Standing { lost: 1, ..Standing::default() }), "{received:?}");
    }
}

#[test]
fn a_duplicated_message_is_counted() {
    let mut ledger = ledger();

    ledger.push(0, &runs(&[(0, 4), (4, 9)]));

    assert_eq!(judge(&ledger, 10, 0), one(Standing { duplicated: 1, ..Standing::default() }));
}

#[test]
fn swapped_messages_are_disordered_and_not_lost() {
    let mut ledger = ledger();

    ledger.push(0, &runs(&[(0, 3), (5, 5), (4, 4), (6, 9)]));

    assert_eq!(judge(&ledger, 10, 0), one(Standing { disordered: 1, ..Standing::default() }));
}

#[test]
fn a_late_message_inside_a_wide_hole_leaves_the_rest_of_it_lost() {
    let mut ledger = ledger();

    ledger.push(0, &runs(&[(0, 1), (7, 9), (4, 4)]));

    assert_eq!(judge(&ledger, 10, 0), one(Standing { lost: 4, disordered: 1, ..Standing::default() }));
}

fn gap(from: u64, to: u64) -> Gap {
    Gap { room: None, from, to, reason: "slow".into() }
}

#[test]
fn a_gap_excuses_exactly_what_it_names() {
    for (to, lost, excused, overclaimed) in [(4, 1, 2, 0), (5, 0, 3, 0), (6, 0, 3, 1)] {
        let mut ledger = ledger();

        ledger.push(0, &runs(&[(0, 2), (6, 9)]));
        ledger.gap(0, &gap(3, to));

        let expected = Standing { lost, excused, overclaimed, ..Standing::default() };
        assert_eq!(judge(&ledger, 10, 0), one(expected));
    }
}

#[test]
fn refused_messages_are_not_lost() {
    let mut ledger = ledger();

    ledger.push(0, &runs(&[(0, 2), (6, 9)]));

    assert_eq!(judge(&ledger, 10, 3).lost, 0);
    assert_eq!(judge(&ledger, 10, 2).lost, 1);
}

#[test]
fn room_numbers_must_follow_on_each_other_unless_a_gap_lies_between() {
    let push = |first, last| Push { room: Some("red".into()), seq: Some((first, last)), ..Push::default() };
    let mut ledger = ledger();

    ledger.push(0, &push(100, 104));
    ledger.push(0, &push(105, 105));
    assert_eq!(judge(&ledger, 0, 0).seq_breaks, 0);

    ledger.gap(0, &Gap { room: Some("red".into()), from: 106, to: 107, reason: "slow".into() });
    ledger.push(0, &push(108, 108));
    assert_eq!(judge(&ledger, 0, 0).seq_breaks, 0);

    ledger.push(0, &push(110, 110));
    assert_eq!(judge(&ledger, 0, 0).seq_breaks, 1);
}

#[test]
fn a_message_to_somebody_else_is_stray() {
    let mut ledger = ledger();
    let expected = Expected { publisher: 1, count: 10, refused: 0, to: "room:red".into() };
    let mut standing = Standing::default();

    ledger.push(1, &runs(&[(0, 9)]));
    ledger.push(1, &Push { room: Some("red".into()), ..Push::default() });
    ledger.judge(1, 1, &[(&expected, false)], &mut standing);

    assert_eq!(standing.stray, 11);
}

#[test]
fn a_publisher_nobody_announced_is_stray() {
    let mut ledger = ledger();

    ledger.push(0, &Push { runs: vec![Run { publisher: 9, first: 0, last: 4 }], ..Push::default() });

    assert_eq!(judge(&ledger, 0, 0).stray, 5);
}

#[test]
fn who_comes_late_misses_nothing_before() {
    let mut ledger = Ledger::new(1, 2, 0, false);

    ledger.push(0, &runs(&[(5, 7)]));
    ledger.push(0, &runs(&[(9, 9)]));

    assert_eq!(judge(&ledger, 10, 0), one(Standing { lost: 1, ..Standing::default() }));
}
