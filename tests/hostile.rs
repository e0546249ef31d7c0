//! Hostile input (issue 2, point 8): each attack gets its named answer, costs the server less than 8 MB, and a
//! thousand healthy connections notice nothing. Peers that break the framing come from `support::raw`.
//! The attacks of one test run one after another against one server, and all failures are told together.

mod support;

use std::fmt::Write as _;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use support::{Api, Client, Crowd, Ending, Event, Heed, PATIENCE, Raw, Server, frame, masked, percentile};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// What resident memory may move during one attack.
const RSS_MOVES_MAX: u64 = 8 * 1024 * 1024;
/// Connections that should notice nothing.
const HEALTHY: usize = 1_000;
/// What two cores that also run the attackers may add to the slowest 1 %; a stall, which ends at a deadline, lasts seconds.
const P99_ALLOWANCE: Duration = Duration::from_millis(500);
/// A masked text frame, not final.
const TEXT_MORE: u8 = 0x01;
/// A masked continuation frame, not final.
const MORE: u8 = 0x00;

/// One test at a time: they compare latencies.
static QUIET: Mutex<()> = Mutex::const_new(());

/// A server with its healthy clients, and what went wrong so far.
struct Siege {
    server: Server,
    crowd: Crowd,
    api: Api,
    report: String,
    failures: Vec<String>,
}

impl Siege {
    async fn begin() -> Self {
        let server = Server::serve(&[]).await;
        let mut crowd = Crowd::connect(server.clients(), HEALTHY).await;
        let mut api = server.connect_api().await;
        // The first beats warm allocators and lazily made buffers on both sides.
        crowd.beats(&mut api, 5).await;
        Self { server, crowd, api, report: String::new(), failures: Vec::new() }
    }

    /// Runs one attack while beats go out; `attack` gives the reason why its answer is not the named one.
    async fn attack(&mut self, name: &str, attack: impl Future<Output = Result<(), String>> + Send + 'static) {
        // Calm is measured on both sides of each attack, and beats are compared by the median of their p99: whatever else
        // runs on this machine comes and goes.
        let mut calm = self.crowd.beats(&mut self.api, 2).await;
        let before = self.server.rss();
        let peak = Arc::new(AtomicU64::new(before));
        let is_over = Arc::new(AtomicBool::new(false));
        let watch = watch_rss(self.server.pid(), Arc::clone(&peak), Arc::clone(&is_over));
        let attack = tokio::spawn(attack);
        let mut beset = self.crowd.beats(&mut self.api, 3).await;
        while !attack.is_finished() {
            beset.extend(self.crowd.beats(&mut self.api, 1).await);
        }
        let answer = attack.await.unwrap_or_else(|e| Err(format!("the attacker failed: {e}")));
        is_over.store(true, Ordering::Relaxed);
        watch.await.expect("the watcher does not panic");
        calm.extend(self.crowd.beats(&mut self.api, 2).await);
        let grown = peak.load(Ordering::Relaxed).saturating_sub(before);
        let (calm, slowest) = (percentile(&mut calm, 50), percentile(&mut beset, 50));
        let _ = writeln!(self.report, "{name}: rss +{} KiB, p99 {slowest:?} (calm {calm:?})", grown / 1024);
        if let Err(why) = answer {
            self.failures.push(format!("{name}: {why}"));
        }
        if grown >= RSS_MOVES_MAX {
            self.failures.push(format!("{name}: resident memory grew by {} KiB", grown / 1024));
        }
        if slowest > 2 * calm + P99_ALLOWANCE {
            self.failures.push(format!("{name}: the healthy clients' p99 went from {calm:?} to {slowest:?}"));
        }
    }

    fn end(self) {
        println!("{}", self.report);
        assert!(self.failures.is_empty(), "{:#?}\n{}", self.failures, self.report);
        assert_eq!(self.crowd.connected(), HEALTHY, "the healthy clients are still connected");
    }
}

/// Keeps the highest resident memory until told to stop.
fn watch_rss(pid: u32, peak: Arc<AtomicU64>, is_over: Arc<AtomicBool>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while !is_over.load(Ordering::Relaxed) {
            look.tick().await;
            let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
            let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default();
            peak.fetch_max(pages * 4096, Ordering::Relaxed);
        }
    })
}

/// Whether the server closed with this code.
fn closed_with(ending: Ending, due: u16) -> Result<(), String> {
    match ending {
        Ending::Closed(code, _) if code == due => Ok(()),
        other => Err(format!("{other:?}, not a close with {due}")),
    }
}

/// The head of a masked text frame that claims `length` bytes, and ten bytes of them.
fn claim(length: u64) -> Vec<u8> {
    let mut head = vec![0x81, 0xff];
    head.extend_from_slice(&length.to_be_bytes());
    head.extend_from_slice(&[1, 2, 3, 4]);
    head.extend_from_slice(&[0x60; 10]);
    head
}

async fn claim_once(address: SocketAddr, length: u64, code: u16) -> Result<(), String> {
    let mut raw = Raw::open(address, "/ws").await;
    raw.write(&claim(length)).await.map_err(|e| e.to_string())?;
    closed_with(raw.ending().await, code)
}

async fn claim_from_a_hundred(address: SocketAddr) -> Result<(), String> {
    let mut claims = JoinSet::new();
    for _ in 0..100 {
        claims.spawn(claim_once(address, 15 * 1024 * 1024, 1009));
    }
    claims.join_all().await.into_iter().collect()
}

/// A message that never ends, in pieces of this size; `most` bytes in all, and the code that is due.
async fn endless_fragments(address: SocketAddr, piece: usize, most: usize, code: u16) -> Result<(), String> {
    let mut raw = Raw::open(address, "/ws").await;
    raw.write(&masked(TEXT_MORE, b"{")).await.map_err(|e| e.to_string())?;
    // Many frames a write, so that the attacker is not the bottleneck.
    let frames = masked(MORE, &vec![b' '; piece]).repeat((16 * 1024 / (piece + 6)).max(1));
    let sent = raw.flood(&frames, most, Heed::Close).await;
    closed_with(raw.ending().await, code).map_err(|why| format!("{why} after {sent} bytes"))
}

/// Pings without reading; the answer is read once nothing more is taken.
async fn ping_flood(address: SocketAddr) -> Result<(), String> {
    let mut raw = Raw::open(address, "/ws").await;
    let pings = masked(0x89, &[b'p'; 125]).repeat(256);
    let sent = raw.flood(&pings, 64 * 1024 * 1024, Heed::Nothing).await;
    closed_with(raw.ending().await, 3504).map_err(|why| format!("{why} after {sent} bytes"))
}

async fn unmasked(address: SocketAddr) -> Result<(), String> {
    for first in [0x81, 0x82, 0x89, 0x8a, 0x88] {
        let mut raw = Raw::open(address, "/ws").await;
        raw.write(&frame(first, None, &[0x03, 0xe8])).await.map_err(|e| e.to_string())?;
        closed_with(raw.ending().await, 1002).map_err(|why| format!("first byte {first:#x}: {why}"))?;
    }
    Ok(())
}

/// Whether each text gets an ERROR `bad_json`, and the connection lives.
async fn bad_json(address: SocketAddr, texts: Vec<String>) -> Result<(), String> {
    for text in texts {
        let mut client = Client::connect(address).await;
        client.send(&text).await;
        let answer = client.answer().await;
        let start: String = text.chars().take(40).collect();
        if answer["data"]["code"] != "bad_json" {
            return Err(format!("{start}: {answer}"));
        }
        client.say(json!({"type": "PING"})).await;
        let pong = client.answer().await;
        (pong["type"] == "PONG").then_some(()).ok_or(format!("{start}: afterwards {pong}"))?;
    }
    Ok(())
}

async fn too_large(address: SocketAddr, text: String) -> Result<(), String> {
    let mut client = Client::connect(address).await;
    client.send(&text).await;
    match client.ending().await.event {
        Event::Closed(1009, _) => Ok(()),
        other => Err(format!("{other:?}, not 1009")),
    }
}

/// JSON of a client nested this deep, within `data`.
fn deep(depth: usize) -> String {
    format!(r#"{{"type":"PING","data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
}

fn odd_numbers() -> Vec<String> {
    let numbers = ["NaN", "Infinity", "-Infinity", "nan", "01", "1.", ".5", "+1", "0x10", "1e", "-"];
    numbers.iter().map(|n| format!(r#"{{"type":"PING","data":{{"n":{n}}}}}"#)).collect()
}

fn duplicate_keys() -> Vec<String> {
    vec![
        r#"{"type":"PING","type":"JOIN","data":{"room":"r"}}"#.into(),
        r#"{"type":"PING","data":{},"data":{}}"#.into(),
        r#"{"type":"PING","id":1,"id":2}"#.into(),
    ]
}

/// Rules E-1 and E-2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_frames_are_closed_by_name_and_cost_nothing() {
    let _quiet = QUIET.lock().await;
    let mut siege = Siege::begin().await;
    let to = siege.server.clients();

    siege.attack("a claim of 2^63-1 bytes", claim_once(to, i64::MAX as u64, 1009)).await;
    siege.attack("a claim with the highest bit", claim_once(to, u64::MAX, 1002)).await;
    siege.attack("100 claims of 15 MiB", claim_from_a_hundred(to)).await;
    siege.attack("endless empty fragments", endless_fragments(to, 0, 64 * 1024 * 1024, 1008)).await;
    siege.attack("endless 1-byte fragments", endless_fragments(to, 1, 64 * 1024 * 1024, 1008)).await;
    siege.attack("100 MiB in 1 KiB fragments", endless_fragments(to, 1024, 100 * 1024 * 1024, 1009)).await;
    siege.attack("a ping flood that reads nothing", ping_flood(to)).await;
    siege.attack("unmasked frames", unmasked(to)).await;

    siege.end();
}

/// Rules E-1 and E-2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_json_of_clients_is_answered_by_name_and_costs_nothing() {
    let _quiet = QUIET.lock().await;
    let mut siege = Siege::begin().await;
    let to = siege.server.clients();

    siege.attack("JSON 30,000 deep", bad_json(to, vec![deep(30_000)])).await;
    siege.attack("60,000 arrays opened", bad_json(to, vec!["[".repeat(60_000)])).await;
    siege.attack("JSON 100,000 deep", too_large(to, deep(100_000))).await;
    siege.attack("numbers that are none", bad_json(to, odd_numbers())).await;
    siege.attack("duplicate keys", bad_json(to, duplicate_keys())).await;

    siege.end();
}

/// A push API request with this body is refused with this status and code.
async fn refused(api: SocketAddr, body: String, status: u16, codes: &'static [&'static str]) -> Result<(), String> {
    let start: String = body.chars().take(60).collect();
    let answer = Api::connect(api).await.post("/v1/push", body).await;
    let (got, code) = answer.problem();
    let is_named = got == status && codes.contains(&code.as_str());
    is_named.then_some(()).ok_or(format!("{start}: {got} {code}, not {status} {codes:?}"))
}

async fn refused_numbers(api: SocketAddr) -> Result<(), String> {
    for number in ["NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "0x10", "1e999", "-1e999"] {
        let body = format!(r#"{{"to":{{"all":true}},"message":{number}}}"#);
        refused(api, body, 400, &["bad_json", "bad_number"]).await?;
    }
    Ok(())
}

async fn refused_duplicates(api: SocketAddr) -> Result<(), String> {
    for body in [
        r#"{"to":{"all":true},"to":{"room":"r"},"message":1}"#,
        r#"{"to":{"all":true,"all":true},"message":1}"#,
        r#"{"to":{"all":true},"message":1,"message":2}"#,
    ] {
        refused(api, body.into(), 400, &["bad_json", "duplicate_key"]).await?;
    }
    Ok(())
}

async fn refused_depths(api: SocketAddr) -> Result<(), String> {
    for depth in [100, 60_000, 100_000, 400_000] {
        let body = format!(r#"{{"to":{{"all":true}},"message":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        let cut = format!(r#"{{"to":{{"all":true}},"message":{}"#, "[".repeat(depth));
        let codes = &["json_too_deep", "bad_json", "message_too_large"];
        let status = if depth >= 32 * 1024 { 0 } else { 400 };
        for body in [body, cut] {
            let answer = Api::connect(api).await.post("/v1/push", body).await;
            let (got, code) = answer.problem();
            // Past the size of a message its size is as good a reason as its depth.
            let is_named =
                codes.contains(&code.as_str()) && (got == status || (status == 0 && [400, 413].contains(&got)));
            is_named.then_some(()).ok_or(format!("{depth} deep: {got} {code}"))?;
        }
    }
    Ok(())
}

/// A body of 1 GB, streamed for as long as it is taken; the answer is 413 and the connection ends.
async fn huge_body(api: SocketAddr, head: &'static str, piece: Vec<u8>) -> Result<(), String> {
    let mut raw = Raw::connect(api).await;
    let request =
        format!("POST /v1/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{head}\r\n\r\n");
    raw.write(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let sent = raw.flood(&piece, 1_000_000_000, Heed::AnyInput).await;
    if sent > 64 * 1024 * 1024 {
        return Err(format!("{sent} bytes were taken"));
    }
    match raw.status().await {
        Some(413) => {}
        other => return Err(format!("{other:?}, not 413, after {sent} bytes")),
    }
    raw.is_gone_within(PATIENCE).await.then_some(()).ok_or("the connection stays open".into())
}

/// Refusals of http-api.md under attack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_pushes_are_refused_by_name_and_cost_nothing() {
    let _quiet = QUIET.lock().await;
    let mut siege = Siege::begin().await;
    let api = siege.server.api();
    let spaces = vec![b' '; 64 * 1024];
    let chunk = [b"10000\r\n", &spaces[..], b"\r\n"].concat();

    siege.attack("a body of 1 GB, announced", huge_body(api, "Content-Length: 1000000000", spaces)).await;
    siege.attack("a body of 1 GB, in chunks", huge_body(api, "Transfer-Encoding: chunked", chunk)).await;
    siege.attack("JSON up to 400,000 deep", refused_depths(api)).await;
    siege.attack("numbers that are none", refused_numbers(api)).await;
    siege.attack("duplicate keys", refused_duplicates(api)).await;

    siege.end();
}
