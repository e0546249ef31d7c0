//! What the wire costs: frames of clients, handshakes, requests, PUSH frames and backplane records, each by itself.
//! Figures are for comparing within one run on one machine; what must not regress is held by `tests/guard.rs` and `make guard`.
//! Inputs are made once, outside the timing; what decodes in place gets a fresh copy each time.

use std::hint::black_box;
use std::ops::ControlFlow::Continue;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use tidegate_protocol::handshake::{self, Origins, Parsed, Policy};
use tidegate_protocol::message;
use tidegate_protocol::push::{self, Numbering, Whom};
use tidegate_protocol::records::target::To;
use tidegate_protocol::records::{Lane, Push, PushBatch, Target};
use tidegate_protocol::ws::{Decoder, Limits};

const MASK: [u8; 4] = [0x1f, 0x00, 0xa5, 0xff];
const LIMITS: Limits = Limits { message_bytes: 1 << 20, fragments: 1_024, inflate_ratio: 100 };
/// As long as the messages of the delivery figures in the documentation.
const ITEM_BYTES: usize = 100;

/// A masked frame of a client; `first` is its first byte on the wire.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match u16::try_from(payload.len()).expect("frames here are below 64 KiB") {
        short @ 0..=125 => out.push(0x80 | short.to_be_bytes()[1]),
        long => {
            out.push(0x80 | 126);
            out.extend(long.to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// One text message in `count` fragments of 4 bytes.
fn fragments(count: usize) -> Vec<u8> {
    let first_byte = |i: usize| u8::from(i == 0) | if i + 1 == count { 0x80 } else { 0 };
    (0..count).flat_map(|i| client_frame(first_byte(i), b"abcd")).collect()
}

fn decoder(c: &mut Criterion) {
    let mut group = c.benchmark_group("decoder");
    let inputs = [
        ("text of 32 B", client_frame(0x81, br#"{"type":"PING","id":1,"data":{}}"#)),
        ("text of 16 KiB", client_frame(0x81, "x".repeat(16 * 1024).as_bytes())),
        ("1,000 fragments of 4 B", fragments(1_000)),
    ];
    for (name, input) in inputs {
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || input.clone(),
                |input| {
                    let mut decoder = Decoder::default();
                    let outcome = decoder.decode(input, &LIMITS, None, &mut |event| {
                        black_box(&event);
                        Continue(())
                    });
                    outcome.expect("a valid stream");
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn opening(c: &mut Criterion) {
    let request = b"GET /ws?user=ann&platform=web HTTP/1.1\r\n\
        Host: push.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
        Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
        Origin: https://app.example.com\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
        Sec-WebSocket-Protocol: tidegate.v1.json\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Connection: keep-alive, Upgrade\r\nSec-Fetch-Mode: websocket\r\nUpgrade: websocket\r\n\r\n";
    let origins = Origins::parse(&["https://app.example.com".to_owned()]).expect("a valid origin");
    let policy = Policy { paths: &["/ws", "/connect"], origins: &origins, head_bytes_max: 8 * 1024, deflate: true };
    let mut response = Vec::with_capacity(512);

    c.bench_function("handshake: a browser's request and the 101", |b| {
        b.iter(|| {
            let Ok(Parsed::Upgrade(upgrade, _)) = handshake::parse(black_box(request), &policy) else {
                panic!("the request is admissible");
            };
            response.clear();
            handshake::accept_response(&upgrade, &mut response);
            black_box(response.len())
        });
    });
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("message::parse");
    for (name, text) in [
        ("PING", r#"{"type":"PING","id":42,"data":{"sent":1700000000000}}"#),
        ("JOIN of one room", r#"{"type":"JOIN","id":42,"data":{"room":"flights/FRA"}}"#),
    ] {
        group.bench_function(name, |b| b.iter(|| message::parse(black_box(text)).expect("a request").id.is_some()));
    }
    group.finish();
}

fn item() -> Bytes {
    Bytes::from(format!("\"{}\"", "x".repeat(ITEM_BYTES - 2)))
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("push::encode");
    for count in [1u64, 100, 1_000] {
        let items: Vec<Bytes> = (0..count).map(|_| item()).collect();
        let numbering = Numbering { epoch: "19a2b3c4d5e", first: 1, last: count };
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} items of {ITEM_BYTES} B"), |b| {
            b.iter(|| push::encode(&Whom::Room("flights/FRA"), Some(numbering), black_box(&items)));
        });
    }
    group.finish();
}

fn records(c: &mut Criterion) {
    let pushes = (0..256).map(|n| Push {
        targets: vec![Target { to: Some(To::Room(format!("flights/{n:03}"))) }],
        messages: vec![item()],
        lane: Lane::Normal.into(),
        ..Push::default()
    });
    let batch = PushBatch { logic: 7, sequence: 1, epoch: 1, pushes: pushes.collect() };
    let wire = Bytes::from(batch.encode_to_vec());

    let mut group = c.benchmark_group("records: a batch of 256 pushes");
    group.throughput(Throughput::Elements(256));
    group.bench_function("encode", |b| b.iter(|| black_box(&batch).encode_to_vec()));
    group.bench_function("decode", |b| b.iter(|| PushBatch::decode(black_box(wire.clone())).expect("a batch")));
    group.finish();
}

criterion_group!(wire, decoder, opening, requests, encode, records);
criterion_main!(wire);
