//! What the push API's JSON costs: one message for a room, a hundred small ones, a large one, many targets, a refusal.
//! The whole way from a body's bytes to a checked push; messages stay slices of the body.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_logic::messages_of;

const ITEM: &str = r#"{"id":4711,"from":"ann","text":"The tide is high but I am holding on","at":1700000000123}"#;

fn list(item: &str, count: usize) -> String {
    vec![item; count].join(",")
}

fn push(c: &mut Criterion) {
    let users: Vec<String> = (0..1_000).map(|n| format!("\"user-{n:06}\"")).collect();
    let many: Vec<String> = (0..10_000).map(|n| format!("\"user-{n:06}\"")).collect();
    let large = format!("[{}]", list(ITEM, 500));
    let cases = [
        ("one message for a room", format!(r#"{{"to":{{"room":"flights/FRA"}},"message":{ITEM}}}"#), Some(1)),
        (
            "100 messages for everyone",
            format!(r#"{{"to":{{"all":true}},"messages":[{}]}}"#, list(ITEM, 100)),
            Some(100),
        ),
        ("one message of 44 KB", format!(r#"{{"to":{{"all":true}},"message":{large}}}"#), Some(1)),
        ("1,000 users", format!(r#"{{"to":{{"users":[{}]}},"message":{ITEM}}}"#, users.join(",")), Some(1)),
        ("10,000 users", format!(r#"{{"to":{{"users":[{}]}},"message":{ITEM}}}"#, many.join(",")), Some(1)),
        ("a misspelt field is refused", format!(r#"{{"to":{{"all":true}},"mesage":{ITEM}}}"#), None),
    ];
    let mut group = c.benchmark_group("push");
    for (name, body, messages) in cases {
        let body = Bytes::from(body);
        assert_eq!(messages_of(&body), messages, "{name}");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| b.iter(|| messages_of(black_box(&body))));
    }
    group.finish();
}

criterion_group!(json, push);
criterion_main!(json);
