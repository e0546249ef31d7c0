//! The request bodies of the demo: what `POST /v1/push/batch` gets.
//! A file of its own because these are the shapes the page draws (`logic/src/api/console/departures.js`).
//! Built by hand from types that need no escaping, except texts, which serde_json quotes.

use super::Speed;
use super::flights::{Flight, Minute};

/// How far the replay is, for the clock message.
pub struct Progress {
    pub departed: usize,
    pub of: usize,
    pub speed: Speed,
    pub lap: u32,
}

/// One departure, to the room of its origin.
pub fn departure_push(flight: &Flight, dedupe: &str) -> String {
    let Flight { departs, delay, distance, origin, destination } = flight;
    format!(
        r#"{{"to":{{"room":"airport:{origin}"}},"message":{{"departs":"{departs}","delay":{delay},"distance":{distance},"origin":"{origin}","destination":"{destination}"}},"dedupe":{}}}"#,
        quoted(dedupe)
    )
}

/// The simulated clock, to everyone. No dedupe key: a clock shown twice is no error.
pub fn clock_push(clock: Minute, progress: &Progress) -> String {
    let Progress { departed, of, speed, lap } = progress;
    format!(
        r#"{{"to":{{"all":true}},"message":{{"clock":"{clock}","departed":{departed},"of":{of},"speed":{speed},"lap":{lap}}}}}"#
    )
}

/// A sentence, to everyone.
pub fn note_push(text: &str, dedupe: &str) -> String {
    format!(r#"{{"to":{{"all":true}},"message":{{"note":{}}},"dedupe":{}}}"#, quoted(text), quoted(dedupe))
}

/// The body of one batch, in the order given.
pub fn batch_body(pushes: &[String]) -> bytes::Bytes {
    format!(r#"{{"pushes":[{}]}}"#, pushes.join(",")).into()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::flights::load;
    use super::*;

    #[test]
    fn a_departure_goes_to_the_room_of_its_origin() {
        let push: Value = serde_json::from_str(&departure_push(&load()[0], "k-1")).expect("valid JSON");

        let message = json!({
            "departs": "2001-01-01T00:47", "delay": 66, "distance": 1750, "origin": "DTW", "destination": "LAS",
        });
        assert_eq!(push, json!({"to": {"room": "airport:DTW"}, "message": message, "dedupe": "k-1"}));
    }

    #[test]
    fn the_clock_goes_to_everyone_and_says_how_far_the_replay_is() {
        let progress = Progress { departed: 12, of: 10_000, speed: Speed::default(), lap: 2 };

        let push: Value = serde_json::from_str(&clock_push(load()[0].departs, &progress)).expect("valid JSON");

        let message = json!({"clock": "2001-01-01T00:47", "departed": 12, "of": 10_000, "speed": 200, "lap": 2});
        assert_eq!(push, json!({"to": {"all": true}, "message": message}));
    }

    #[test]
    fn a_batch_of_every_flight_is_valid_json_in_order() {
        let flights = load();
        let pushes: Vec<String> = flights.iter().map(|flight| departure_push(flight, "k")).collect();

        let body: Value = serde_json::from_slice(&batch_body(&pushes)).expect("valid JSON");

        let delays = body["pushes"].as_array().expect("an array").iter().map(|push| push["message"]["delay"].as_i64());
        assert!(delays.eq(flights.iter().map(|flight| Some(i64::from(flight.delay)))));
    }

    #[test]
    fn the_largest_batch_stays_under_the_body_limit_of_the_api() {
        let flights = load();
        let longest = flights.iter().map(|flight| departure_push(flight, &"k".repeat(40))).max_by_key(String::len);
        let pushes = vec![longest.expect("there are flights"); super::super::BATCH_MAX + 1];

        assert!(batch_body(&pushes).len() < 1024 * 1024 / 4);
    }

    #[test]
    fn texts_are_quoted() {
        let push: Value = serde_json::from_str(&note_push("a \"b\"\n", "k")).expect("valid JSON");

        assert_eq!(push["message"]["note"], "a \"b\"\n");
    }
}
