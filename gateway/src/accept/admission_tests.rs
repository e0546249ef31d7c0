//! What admission promises, in simulated time.

use super::*;

const QUEUE: Queue = Queue { length: 0, length_max: 4_096 };

fn queue(length: u32) -> Option<Queue> {
    Some(Queue { length, ..QUEUE })
}

/// Strangers let in over `ms` when more than enough of them knock every millisecond.
fn rush(admission: &mut Admission, from: Millis, ms: u32, lag_ms: u32) -> u32 {
    let mut taken = 0;
    for now in from + 1..=from + ms {
        taken += admission.take(1_000, now);
        if now % LOOK_MS == 0 {
            admission.look(lag_ms, now);
        }
    }
    taken
}

#[test]
fn a_rush_gets_the_rate_and_one_burst() {
    let mut admission = Admission::new(1_000, 50, 0);

    let taken = rush(&mut admission, 0, 10_000, 0);

    assert!((10_000..=10_000 + 100).contains(&taken), "{taken} in ten seconds at 1,000 a second");
}

#[test]
fn a_long_pause_saves_no_more_than_a_burst() {
    let mut admission = Admission::new(1_000, 50, 0);

    assert_eq!(admission.take(u32::MAX, 3_600_000), 100);
    assert_eq!(admission.take(u32::MAX, 3_600_000), 0);
}

#[test]
fn what_was_not_used_can_be_taken_again_and_is_not_counted() {
    let mut admission = Admission::new(1_000, 50, 0);

    let granted = admission.take(64, 0);
    admission.give_back(granted - 4);

    assert_eq!(admission.take(u32::MAX, 0), 96);
    admission.give_back(96);
    admission.look(0, 1_000);
    assert_eq!(admission.spare(usize::MAX), 1_000 - 4, "only the four were taken");
}

#[test]
fn lag_cuts_the_rate_by_parts_and_its_absence_raises_it_by_steps() {
    let mut admission = Admission::new(1_000, 50, 0);
    rush(&mut admission, 0, 1_000, 0);
    let before = admission.rate();

    rush(&mut admission, 1_000, 50, 51);
    let once = admission.rate();
    rush(&mut admission, 1_050, 50, 51);
    let twice = admission.rate();
    rush(&mut admission, 1_100, 50, 50);
    let after = admission.rate();

    assert!((once / before - 0.7).abs() < 1e-9 && (twice / once - 0.7).abs() < 1e-9, "{before} {once} {twice}");
    assert!((after - twice - 1_000.0 / 40.0).abs() < 1e-9, "{twice} then {after}");
}

#[test]
fn a_rate_that_nobody_used_falls_to_what_was_taken_at_the_first_lag() {
    let mut admission = Admission::new(40_000, 50, 0);
    for now in (50..=2_000).step_by(50) {
        admission.take(50, now);
        admission.look(0, now);
    }

    admission.look(60, 2_050);

    assert!(admission.rate() < 2.0 * 1_000.0, "{}", admission.rate());
}

#[test]
fn lag_without_end_leaves_the_floor_and_two_calm_seconds_the_full_rate() {
    let mut admission = Admission::new(10_000, 50, 0);

    let lagging = rush(&mut admission, 0, 60_000, 1_000);
    assert!((admission.rate() - 50.0).abs() < 1e-9, "{}", admission.rate());
    assert!(lagging >= 50 * 59, "strangers still get in: {lagging}");
    rush(&mut admission, 60_000, 2_050, 0);

    assert!((admission.rate() - 10_000.0).abs() < 1e-9, "{}", admission.rate());
}

#[test]
fn strangers_wait_in_the_queue_while_it_is_short_in_length_and_in_time() {
    let fast = Admission::new(10_000, 50, 0);
    let slow = Admission::new(100, 50, 0);

    assert_eq!(fast.excess(queue(2_048)), 0, "half of the kernel's queue");
    assert_eq!(fast.excess(queue(2_148)), 100, "the rest is kept free");
    assert_eq!(slow.excess(queue(200)), 0, "two seconds at 100 a second");
    assert_eq!(slow.excess(queue(300)), 100, "those would wait longer");
    assert_eq!(fast.excess(None), u32::MAX, "nobody waits in a queue that cannot be seen");
}

/// The bound that keeps `ListenOverflows` at zero: what the acceptor leaves waiting never passes half of the queue.
#[test]
fn a_storm_far_above_the_rate_never_fills_the_queue() {
    let mut admission = Admission::new(2_000, 50, 0);
    let (mut waiting, mut longest, mut served) = (0_u32, 0, 0);
    for now in 1..=2_000 {
        waiting += 60;
        longest = longest.max(waiting);
        let granted = admission.take(512, now).min(waiting);
        (waiting, served) = (waiting - granted, served + granted);
        if granted == 0 || now % 2 == 0 {
            let excess = admission.excess(queue(waiting));
            let told = (0..excess).map(|_| admission.refuse());
            assert!(told.max().unwrap_or(1) <= RETRY_AFTER_MAX_S);
            waiting -= excess;
        }
        if now % LOOK_MS == 0 {
            admission.look(0, now);
        }
    }

    assert!(longest < QUEUE.length_max * 3 / 4, "{longest} of {}", QUEUE.length_max);
    assert!((4_000..=4_300).contains(&served), "and those who get in get in at the rate: {served}");
}

#[test]
fn each_refused_is_told_a_second_that_has_room_for_it() {
    let mut admission = Admission::new(1_000, 50, 0);
    let mut back = [0_u32; RETRY_AFTER_MAX_S as usize + 1];

    for _ in 0..5_000 {
        back[admission.refuse() as usize] += 1;
    }
    for now in (50..=2_000).step_by(50) {
        admission.look(0, now);
    }
    let two_seconds_later = admission.refuse();

    assert_eq!(back, [0, 1_000, 1_000, 1_000, 1_000, 1_000, 0, 0, 0]);
    assert_eq!(two_seconds_later, 4, "3,000 are still to come");
}

#[test]
fn more_refused_than_all_seconds_have_room_for_take_turns() {
    let mut admission = Admission::new(100, 50, 0);

    let told: Vec<u32> = (0..2_000).map(|_| admission.refuse()).collect();

    assert!(told.iter().all(|second| (1..=RETRY_AFTER_MAX_S).contains(second)));
    let of = |second| told.iter().filter(|told| **told == second).count();
    assert!((1..=RETRY_AFTER_MAX_S).all(|second| (200..=300).contains(&of(second))), "evenly");
}

#[test]
fn what_can_be_spared_is_rate_less_use_and_never_more_than_there_is_room() {
    let mut admission = Admission::new(1_000, 50, 0);
    assert_eq!(admission.spare(5_000), 1_000);
    assert_eq!(admission.spare(7), 7);

    for now in (50..=10_000).step_by(50) {
        admission.take(20, now);
        admission.look(0, now);
    }
    let busy = admission.spare(5_000);

    assert!((595..=605).contains(&busy), "400 a second are taken: {busy}");
}

/// A standby that nobody connects to for half the clock's round (25 days), and then somebody does.
#[test]
fn strangers_are_let_in_after_weeks_without_any() {
    let mut admission = Admission::new(1_000, 50, 0);
    let month = u32::MAX / 2 + 3_600_000;
    for now in (0..month).step_by(60_000) {
        admission.look(0, now);
    }

    let taken: u32 = (1..=20).map(|look| admission.take(100, month + look * 50)).sum();

    assert!(taken >= 900, "a second at the full rate: {taken}");
}
