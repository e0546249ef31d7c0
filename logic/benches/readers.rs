//! Readers of large JSON bodies that have a type: ours (`tidegate_protocol::json`, which is serde_json with objects read by
//! name) beside simd-json. What is read here is all typed; a push's messages are not, they stay slices of the body, which
//! simd-json cannot give. It parses in place: bytes that are shared must be copied for it first, bytes of its own need not.
//! The figures and what follows from them are in the decisions (docs/adr).

use std::borrow::Cow;
use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use tidegate_protocol::json::{self, Objects};

/// A name, which is a slice of the body unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The targets of a push, or the users of a query.
#[derive(Deserialize)]
struct Users<'a> {
    #[serde(borrow)]
    users: Vec<Name<'a>>,
}

/// A batch whose messages are of this one type: the best that a reader without raw values could do.
#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    pushes: Vec<Push<'a>>,
}

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(borrow)]
    to: Room<'a>,
    #[serde(borrow)]
    message: Chat<'a>,
}

#[derive(Deserialize)]
struct Room<'a> {
    #[serde(borrow)]
    room: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Chat<'a> {
    id: u64,
    #[serde(borrow)]
    from: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
    at: u64,
}

/// Keys of an identity provider.
#[derive(Deserialize)]
struct Jwks<'a> {
    #[serde(borrow)]
    keys: Vec<Jwk<'a>>,
}

#[derive(Deserialize)]
struct Jwk<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(borrow)]
    kid: Cow<'a, str>,
    #[serde(borrow)]
    n: Cow<'a, str>,
    #[serde(borrow)]
    e: Cow<'a, str>,
}

/// What a connect hook answers.
#[derive(Deserialize)]
struct Answer {
    accept: bool,
    user: String,
    join: Vec<String>,
}

/// A line of the demo's file.
#[derive(Deserialize)]
struct Flight<'a> {
    #[serde(borrow)]
    date: Cow<'a, str>,
    delay: i32,
    distance: u32,
    #[serde(borrow)]
    origin: Cow<'a, str>,
    #[serde(borrow)]
    destination: Cow<'a, str>,
}

const FLIGHTS: &str = include_str!("../../src/demo/flights-2001.json");

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

/// Ours on shared bytes; simd-json on a copy of them; simd-json on bytes of its own.
fn readers(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, body: &str, read: Read) {
    let Read { ours, simd } = read;
    assert_eq!(ours(body.as_bytes()), simd(&mut body.as_bytes().to_vec()), "{name}");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function(format!("{name}: ours"), |b| b.iter(|| ours(black_box(body.as_bytes()))));
    group.bench_function(format!("{name}: simd-json, copied"), |b| {
        b.iter(|| simd(&mut black_box(body.as_bytes()).to_vec()));
    });
    group.bench_function(format!("{name}: simd-json, in place"), |b| {
        b.iter_batched_ref(|| body.as_bytes().to_vec(), |own| simd(own), BatchSize::SmallInput);
    });
}

/// Each reads a body and says how much was in it.
struct Read {
    ours: fn(&[u8]) -> usize,
    simd: fn(&mut [u8]) -> usize,
}

/// The two readers of a type, and what is counted of it.
macro_rules! read {
    ($type:ty, $count:expr) => {
        Read {
            ours: |body| $count(&json::from_slice::<$type>(body).expect("good JSON")),
            simd: |body| {
                let mut parser = simd_json::Deserializer::from_slice(body).expect("good JSON");
                $count(&<$type>::deserialize(Objects::new(&mut parser)).expect("good JSON"))
            },
        }
    };
}

fn of_users(read: &Users<'_>) -> usize {
    read.users.iter().map(|name| name.0.len()).sum()
}

fn of_batch(read: &Batch<'_>) -> usize {
    let size = |Push { to, message }: &Push<'_>| {
        to.room.len() + message.from.len() + message.text.len() + (message.id + message.at) as usize
    };
    read.pushes.iter().map(size).fold(0, usize::wrapping_add)
}

fn of_keys(read: &Jwks<'_>) -> usize {
    read.keys.iter().map(|key| key.kty.len() + key.kid.len() + key.n.len() + key.e.len()).sum()
}

fn of_answer(read: &Answer) -> usize {
    usize::from(read.accept) + read.user.len() + read.join.len()
}

fn of_flights(read: &Vec<Flight<'_>>) -> usize {
    let size = |flight: &Flight<'_>| {
        let words = flight.date.len() + flight.origin.len() + flight.destination.len();
        words + flight.distance as usize + flight.delay.unsigned_abs() as usize
    };
    read.iter().map(size).sum()
}

fn users(count: usize) -> String {
    format!(r#"{{"users":[{}]}}"#, list(count, |n| format!("\"user-{n:06}\"")))
}

fn batch(count: usize) -> String {
    let chat = r#"{"id":4711,"from":"ann","text":"The tide is high but I am holding on","at":1700000000123}"#;
    let pushes = list(count, |n| format!(r#"{{"to":{{"room":"flights/{n}"}},"message":{chat}}}"#));
    format!(r#"{{"pushes":[{pushes}]}}"#)
}

fn jwks(count: usize) -> String {
    let modulus = "Ab3_".repeat(86);
    let key = |n| format!(r#"{{"kty":"RSA","use":"sig","alg":"RS256","kid":"key-{n}","e":"AQAB","n":"{modulus}"}}"#);
    format!(r#"{{"keys":[{}]}}"#, list(count, key))
}

fn answer(count: usize) -> String {
    format!(r#"{{"accept":true,"user":"ann","join":[{}]}}"#, list(count, |n| format!("\"room-{n}\"")))
}

fn typed(c: &mut Criterion) {
    let mut group = c.benchmark_group("typed");
    for count in [10, 100, 1_000, 10_000] {
        readers(&mut group, &format!("{count} users"), &users(count), read!(Users<'_>, of_users));
    }
    readers(&mut group, "1,000 pushes of one type", &batch(1_000), read!(Batch<'_>, of_batch));
    for count in [2, 20] {
        readers(&mut group, &format!("{count} keys of a JWKS"), &jwks(count), read!(Jwks<'_>, of_keys));
    }
    for count in [1, 100] {
        readers(&mut group, &format!("a hook's answer with {count} rooms"), &answer(count), read!(Answer, of_answer));
    }
    readers(&mut group, "10,000 flights", FLIGHTS, read!(Vec<Flight<'_>>, of_flights));
    // As the demo reads its own file: nobody strange wrote it, so objects need not be checked for being objects.
    let trusted = Read {
        ours: |body| of_flights(&serde_json::from_slice(body).expect("good JSON")),
        simd: |body| of_flights(&simd_json::serde::from_slice(body).expect("good JSON")),
    };
    readers(&mut group, "10,000 flights, trusted", FLIGHTS, trusted);
    group.finish();
}

criterion_group!(benches, typed);
criterion_main!(benches);
