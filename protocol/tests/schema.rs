//! The schema that clients are made of, held against what it speaks of: the types, the pages and the bytes.
//! `UPDATE=1` writes `docs/protocol.schema.json` anew.

#[path = "support/validator.rs"]
mod validator;

use serde_json::{Value, json};
use tidegate_protocol::schema::document;

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.schema.json");
const PAGE: &str = include_str!("../../docs/protocol.md");
const FRAMES: &str = include_str!("frames.golden");

fn fits(side: &str, value: &Value) -> bool {
    let document = document();
    validator::fits(&document, &document["$defs"][side], value)
}

fn is_a_frame_or_request(value: &Value) -> bool {
    let document = document();
    validator::fits(&document, &document, value)
}

/// Every JSON text of the page: what stands in its fences, and what a sentence quotes.
fn examples() -> Vec<Value> {
    let fenced = PAGE.split("\n```json\n").skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default());
    let quoted = PAGE.split('`').filter(|text| text.starts_with("{\"type\""));
    let texts = fenced.chain(quoted).flat_map(|text| serde_json::Deserializer::from_str(text).into_iter());
    texts.map(|value| value.expect("examples are JSON")).collect()
}

#[test]
fn the_schema_beside_the_page_is_that_of_the_types() {
    let document = document();
    if std::env::var_os("UPDATE").is_some() {
        let text = serde_json::to_string_pretty(&document).expect("JSON") + "\n";
        std::fs::write(SCHEMA, text).expect("written");
    }

    let written: Value = serde_json::from_str(&std::fs::read_to_string(SCHEMA).expect("read")).expect("JSON");

    assert!(
        written == document,
        "docs/protocol.schema.json is old: UPDATE=1 cargo test --package tidegate-protocol --test schema"
    );
}

#[test]
fn every_example_of_the_page_fits_the_schema() {
    let examples = examples();

    assert!(examples.len() >= 30, "the page has {} examples; its notation changed", examples.len());
    for example in examples {
        assert!(is_a_frame_or_request(&example), "{example}");
    }
}

#[test]
fn every_frame_that_is_written_fits_the_schema() {
    for line in FRAMES.lines() {
        let frame: Value = serde_json::from_str(line).expect("JSON");

        assert!(fits("Frame", &frame), "{line}");
    }
}

#[test]
fn what_is_no_request_does_not_fit_the_schema() {
    for wrong in [
        json!({"type": "FLY"}),
        json!({"type": "JOIN"}),
        json!({"type": "JOIN", "data": {"room": "a", "rooms": ["b"]}}),
        json!({"type": "JOIN", "data": {"romo": "a"}}),
        json!({"type": "LEAVE", "data": {"room": 7}}),
        json!({"type": "PING", "id": {}, "data": {}}),
        json!({"type": "SEND", "data": {"to": {"room": "a", "user": "b"}, "data": 1}}),
        json!({"type": "SEND", "data": {"to": {"room": "a"}, "route": "b", "data": 1}}),
        json!({"type": "SEND", "data": {"to": {"room": "a"}}}),
        json!({"type": "REPLY", "data": {"data": 1}}),
        json!({"type": "REPLY", "id": "c", "data": {"data": 1, "error": 2}}),
        json!({"type": "MEMBERS", "data": {"room": "a", "limit": 0}}),
    ] {
        assert!(!fits("Request", &wrong), "{wrong}");
    }
}
