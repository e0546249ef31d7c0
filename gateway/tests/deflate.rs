//! permessage-deflate from the handshake to the last counter (rule M-5), with a client that frames and inflates by hand.

mod support;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use serde_json::Value;
use support::{Client, Logic, PATIENCE, counted, gateway, metric, push};
use tidegate_gateway::Gateway;
use tidegate_protocol::records::target::To;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// A client that says what it likes and sees what is on the wire.
struct Bare {
    stream: TcpStream,
    inbound: Vec<u8>,
    /// The head of the 101.
    response: String,
}

/// A frame of the server.
struct Frame {
    first: u8,
    payload: Vec<u8>,
}

impl Frame {
    fn is_compressed(&self) -> bool {
        self.first & 0x40 != 0
    }

    fn json(&self) -> Value {
        if !self.is_compressed() {
            return serde_json::from_slice(&self.payload).expect("JSON");
        }
        let mut text = Vec::with_capacity(1 << 20);
        let deflated = [&self.payload[..], &TAIL].concat();
        // A new state for each: what the server sends must stand by itself.
        Decompress::new(false).decompress_vec(&deflated, &mut text, FlushDecompress::None).expect("raw DEFLATE");
        serde_json::from_slice(&text).expect("JSON")
    }
}

impl Bare {
    /// Connects, offering `extensions` if there are any, and reads HELLO, which is never compressed.
    async fn connect(gateway: &Gateway, extensions: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
        let offer = extensions.map(|e| format!("Sec-WebSocket-Extensions: {e}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{offer}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("open");
        let mut client = Self { stream, inbound: Vec::new(), response: String::new() };
        let end = loop {
            if let Some(at) = client.inbound.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(client.fill().await, "closed before the 101");
        };
        let head: Vec<u8> = client.inbound.drain(..end).collect();
        client.response = String::from_utf8(head).expect("ASCII");
        let hello = client.next().await;
        assert_eq!((hello.json()["type"].as_str(), hello.is_compressed()), (Some("HELLO"), false));
        client
    }

    async fn fill(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        let n = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("in time").expect("open");
        self.inbound.extend_from_slice(&buffer[..n]);
        n > 0
    }

    /// The next frame, control frames included.
    async fn next(&mut self) -> Frame {
        loop {
            if let Some((head, len)) = frame_bytes(&self.inbound)
                && self.inbound.len() >= head + len
            {
                let frame: Vec<u8> = self.inbound.drain(..head + len).collect();
                return Frame { first: frame[0], payload: frame[head..].to_vec() };
            }
            assert!(self.fill().await, "closed without a frame");
        }
    }

    async fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match u16::try_from(payload.len()).expect("below 64 KiB") {
            short @ 0..=125 => frame.push(0x80 | short.to_be_bytes()[1]),
            long => {
                frame.push(0x80 | 126);
                frame.extend(long.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame).await.expect("open");
    }

    /// Code and text of the close frame that comes next.
    async fn closed(&mut self) -> (u16, String) {
        let frame = self.next().await;
        assert_eq!(frame.first, 0x88, "a close frame");
        let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
        (code, String::from_utf8_lossy(&frame.payload[2..]).into_owned())
    }
}

/// Bytes of the head and of the payload of the frame that begins here.
fn frame_bytes(wire: &[u8]) -> Option<(usize, usize)> {
    match *wire.get(1)? {
        126 => Some((4, usize::from(u16::from_be_bytes(wire.get(2..4)?.try_into().ok()?)))),
        127 => Some((10, usize::try_from(u64::from_be_bytes(wire.get(2..10)?.try_into().ok()?)).ok()?)),
        short => Some((2, usize::from(short))),
    }
}

fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 64);
    Compress::new(Compression::new(9), false).compress_vec(payload, &mut out, FlushCompress::Sync).expect("room");
    out.truncate(out.len() - TAIL.len());
    out
}

fn rows(n: usize) -> String {
    let row = |i: usize| format!(r#"{{"origin":"FRA","delay":{},"distance":{}}}"#, i * 7 % 90, i * 131 % 4_000);
    format!("[{}]", (0..n).map(row).collect::<Vec<_>>().join(","))
}

/// Rule M-5.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_an_offer_says_that_messages_stand_by_themselves() {
    let gateway = gateway(|_| {}).await;
    let line = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    let browser = Bare::connect(&gateway, Some("permessage-deflate; client_max_window_bits")).await;
    let limited = Bare::connect(&gateway, Some("permessage-deflate; server_max_window_bits=10")).await;
    let strange = Bare::connect(&gateway, Some("permessage-deflate; unheard_of")).await;
    let none = Bare::connect(&gateway, None).await;

    assert!(browser.response.contains(&format!("{line}\r\n")), "{}", browser.response);
    assert!(limited.response.contains(&format!("{line}; server_max_window_bits=10\r\n")), "{}", limited.response);
    for plain in [strange, none] {
        assert!(!plain.response.contains("Extensions"), "{}", plain.response);
    }
    assert_eq!(metric(&gateway, "tidegate_gateway_connections_deflate"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_it_where_it_is_off() {
    let gateway = gateway(|c| c.deflate.level = 0).await;

    let mut client = Bare::connect(&gateway, Some("permessage-deflate")).await;

    assert!(!client.response.contains("Extensions"), "{}", client.response);
    client.send(0xc1, &deflate(b"{\"type\":\"PING\"}")).await;
    assert_eq!(client.closed().await.0, 1002);
}

/// Rule M-5: encoded == targets × ticks × encodings, and everyone reads the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_audience_gets_identical_items_from_two_encodings() {
    let gateway = gateway(|c| (c.merge.min_ms, c.merge.max_ms) = (300, 300)).await;
    let mut logic = Logic::link(&gateway).await;
    let (mut plain, mut deflating) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        plain.push(Client::connect(&gateway, "").await);
        deflating.push(Bare::connect(&gateway, Some("permessage-deflate")).await);
    }
    let rows = rows(40);

    // The first leaves at once, the 20 behind it with the end of the window: two ticks of one target, two encodings each.
    let pushes = (0..21).map(|n| push(To::All(true), &[&format!(r#"{{"n":{n},"rows":{rows}}}"#)])).collect();
    logic.push(pushes).await;

    let mut expected = Vec::new();
    for client in &mut plain {
        let both = [client.next().await, client.next().await];
        let got: Vec<Value> = both.iter().map(|m| m["data"]["items"].clone()).collect();
        assert_eq!(got.iter().map(|items| items.as_array().expect("items").len()).sum::<usize>(), 21);
        if expected.is_empty() {
            expected = both.to_vec();
        }
        assert_eq!(both.as_slice(), expected);
    }
    for client in &mut deflating {
        for message in &expected {
            let frame = client.next().await;
            assert!(frame.is_compressed());
            assert_eq!(frame.json(), *message);
        }
    }
    assert_eq!(metric(&gateway, "tidegate_gateway_frames_encoded_total"), 2 * 2);
    assert_eq!(metric(&gateway, "tidegate_gateway_frames_deflated_total"), 2);
    counted(&gateway, "tidegate_gateway_frames_written_total", 2 * 40).await;
    counted(&gateway, "tidegate_gateway_messages_written_total", 21 * 40).await;
    let (before, after) = (
        metric(&gateway, "tidegate_gateway_deflate_bytes_before_total"),
        metric(&gateway, "tidegate_gateway_deflate_bytes_after_total"),
    );
    assert!(after * 3 < before, "{after} of {before}");
}

/// Nothing is compressed for those who do not take it, and nothing that is too small.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_someone_takes_is_compressed() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let (mut ann, mut bare) = (Client::connect(&gateway, "?user=ann").await, None);
    let rows = rows(20);

    logic.push(vec![push(To::All(true), &[&rows])]).await;
    ann.next().await;
    assert_eq!(metric(&gateway, "tidegate_gateway_frames_deflated_total"), 0, "nobody takes it");

    let client = bare.insert(Bare::connect(&gateway, Some("permessage-deflate")).await);
    logic.push(vec![push(To::User("ann".into()), &[&rows])]).await;
    ann.next().await;
    assert_eq!(metric(&gateway, "tidegate_gateway_frames_deflated_total"), 0, "the user does not take it");

    logic.push(vec![push(To::All(true), &["1"])]).await;
    ann.next().await;
    assert!(!client.next().await.is_compressed(), "too small");
    assert_eq!(metric(&gateway, "tidegate_gateway_frames_deflated_total"), 0);

    logic.push(vec![push(To::All(true), &[&rows])]).await;
    assert!(client.next().await.is_compressed());
    assert_eq!(metric(&gateway, "tidegate_gateway_frames_deflated_total"), 1);
}

/// Rule M-5: requests may come compressed, cut anywhere; the answers are plain.
#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_request_is_answered() {
    let gateway = gateway(|_| {}).await;
    let mut client = Bare::connect(&gateway, Some("permessage-deflate")).await;
    let join = deflate(br#"{"type":"JOIN","id":1,"data":{"room":"news"}}"#);

    client.send(0xc1, &join).await;
    client.send(0x41, &join[..9]).await;
    client.send(0x80, &join[9..]).await;
    client.send(0x81, br#"{"type":"PING","id":2}"#).await;

    for kind in ["JOINED", "JOINED", "PONG"] {
        let frame = client.next().await;
        assert_eq!((frame.json()["type"].as_str(), frame.is_compressed()), (Some(kind), false));
    }
}

/// Rule E-2.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_extensions_rules_closes_by_its_code() {
    let gateway = gateway(|_| {}).await;
    let zeros = deflate(&vec![0; 10 << 20]);
    let cases: [(&str, u8, &[u8], u16, &str); 6] = [
        ("a bomb", 0xc1, &zeros, 1009, "65536 bytes"),
        ("a small bomb", 0xc1, &deflate(&[b' '; 60_000]), 1008, "200 times"),
        ("no DEFLATE", 0xc1, b"\xff\xff\xff\xff", 1007, "DEFLATE"),
        ("no UTF-8", 0xc1, &deflate(&[0xff; 100]), 1007, "UTF-8"),
        ("a compressed ping", 0xc9, b"", 1002, "RSV1"),
        ("another bit", 0xa1, b"", 1002, "reserved bits"),
    ];
    for (what, first, payload, code, words) in cases {
        let mut client = Bare::connect(&gateway, Some("permessage-deflate")).await;
        client.send(first, payload).await;

        let (got, text) = client.closed().await;
        assert_eq!(got, code, "{what}: {text}");
        assert!(text.contains(words), "{what}: {text}");
    }
    assert_eq!(metric(&gateway, "tidegate_gateway_violations_total"), 6);
}

/// 10 MB from 10 KB, from 200 clients at once: what a gateway keeps is bounded by its threads, not by what it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn bombs_leave_no_memory_behind() {
    let gateway = gateway(|_| {}).await;
    let bomb = deflate(&vec![0; 10 << 20]);
    assert!((9_000..12_000).contains(&bomb.len()));
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(Bare::connect(&gateway, Some("permessage-deflate")).await);
    }
    let before = resident_bytes();

    for client in &mut clients {
        client.send(0xc1, &bomb).await;
    }
    for client in &mut clients {
        assert_eq!(client.closed().await.0, 1009);
    }

    // Each would be 10 MB, and 64 KiB where the limit alone held.
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for 200 bombs");
    assert_eq!(metric(&gateway, "tidegate_gateway_partial_bytes"), 0);
}

/// Resident memory of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a line of it");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}

/// Rule M-3: compressed frames wait, give way and are told of like plain ones, and the counters balance.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_of_compressed_frames_is_told_what_it_missed() {
    let gateway = gateway(|c| {
        (c.merge.min_ms, c.merge.max_ms) = (1, 1);
        (c.pending.bytes, c.pending.kernel_bytes, c.pending.age_ms) = (16 * 1024, 4_096, 60_000);
    })
    .await;
    let mut logic = Logic::link(&gateway).await;
    let mut client = Bare::connect(&gateway, Some("permessage-deflate")).await;
    let mut sent = 0;
    // Rows that hardly compress, so that the kernel's buffers are full soon.
    let mut random = 7u64;
    while metric(&gateway, "tidegate_gateway_messages_dropped_total{reason=\"slow\"}") < 20 {
        let mut row = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{random:016x}")
        };
        let body = format!(r#"{{"n":{sent},"row":"{}"}}"#, (0..400).map(|_| row()).collect::<String>());
        logic.push(vec![push(To::All(true), &[&body])]).await;
        sent += 1;
        assert!(sent < 20_000, "nothing was ever dropped");
    }

    let (mut next, mut compressed, mut missing) = (1u64, 0, 0);
    while next <= sent {
        let frame = client.next().await;
        compressed += u64::from(frame.is_compressed());
        let message = frame.json();
        let data = &message["data"];
        let number = |v: &Value| v.as_u64().expect("a number");
        let (first, last) = match message["type"].as_str() {
            Some("PUSH") => (number(&data["seq"][0]), number(&data["seq"][1])),
            Some("GAP") => {
                missing += number(&data["to"]) + 1 - number(&data["from"]);
                (number(&data["from"]), number(&data["to"]))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(first, next, "nothing is missing untold");
        next = last + 1;
    }

    assert!(compressed > 0 && missing >= 20);
    let of = |name: &str| metric(&gateway, &format!("tidegate_gateway_{name}"));
    counted(&gateway, "tidegate_gateway_messages_pending", 0).await;
    let dropped = of("messages_dropped_total{reason=\"slow\"}");
    assert_eq!((of("messages_pending"), of("pending_bytes"), dropped), (0, 0, missing));
    counted(&gateway, "tidegate_gateway_messages_written_total", of("messages_queued_total") - dropped).await;
}
