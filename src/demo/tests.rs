//! What the replay promises as a whole; its parts have their tests beside them.

use super::*;

#[test]
fn a_speed_is_a_number_of_minutes_from_one_to_a_hundred_thousand() {
    assert_eq!("200".parse(), Ok(Speed::default()));
    assert_eq!("1.5".parse::<Speed>().map(Speed::minutes_per_second), Ok(1.5));
    assert!(["0", "-3", "NaN", "inf", "1e9", "fast", ""].iter().all(|text| text.parse::<Speed>().is_err()));
}

#[test]
fn back_off_doubles_to_its_bound_and_spreads_over_all_of_it() {
    let waits: Vec<Duration> = (0..40).map(|attempts| back_off(&PushError::Late, attempts, 1.0)).collect();

    assert_eq!(waits[..3], [250, 500, 1_000].map(Duration::from_millis));
    assert_eq!(waits[39], BACK_OFF_MAX);
    assert_eq!(back_off(&PushError::Late, 39, 0.5), BACK_OFF_MAX / 2);
    assert!(back_off(&PushError::Late, 39, 0.0) > Duration::ZERO);
}

#[test]
fn back_off_never_undercuts_what_the_api_asks_for() {
    let error = PushError::Refused {
        status: hyper::StatusCode::SERVICE_UNAVAILABLE,
        retry_after: Some(Duration::from_secs(2)),
        reason: String::new(),
    };

    assert_eq!(back_off(&error, 0, 0.0), Duration::from_secs(2));
    assert!(back_off(&error, 9, 0.99) < Duration::from_millis(2_250));
}

#[test]
fn no_two_pushes_of_a_run_share_a_dedupe_key() {
    let mut replay = Replay::new(([127, 0, 0, 1], 1).into(), DemoOptions::default());
    let mut keys: Vec<String> = (0..replay.flights.len()).map(|index| replay.dedupe_key(index)).collect();
    replay.lap += 1;
    keys.extend((0..replay.flights.len()).map(|index| replay.dedupe_key(index)));

    let distinct: std::collections::HashSet<&String> = keys.iter().collect();

    assert_eq!(distinct.len(), keys.len());
}
