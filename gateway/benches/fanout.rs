//! What the parts of fan-out cost: the table and its indexes, the window, a slow peer's queue, and the whole way from the
//! merger to the write over connections in memory. Nothing here does I/O: sockets are duplicates of one eventfd, or numbers.
//! `examples/walk.rs` counts instructions instead (`make guard`), `benches/scale.rs` shows the curve to a million.

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_gateway::MergeConfig;
use tidegate_gateway::bucket::pending::{Pending, Waiting};
use tidegate_gateway::bucket::table::{Cold, Table};
use tidegate_gateway::bucket::{Bucket, of_user};
use tidegate_gateway::key::{ConnectionKey, SlotKey};
use tidegate_gateway::memory::{MemoryGateway, To};
use tidegate_gateway::topic::Topic;
use tidegate_gateway::topic::batch::{Narrow, Segment};
use tidegate_gateway::topic::encoding::{Encoding, Frames};
use tidegate_gateway::topic::room::Room;
use tidegate_gateway::topic::target::Target;
use tidegate_gateway::topic::window::{Bounds, Window};
use tidegate_protocol::records::Lane;

/// Files that are not connections.
const FILES_RESERVED: u64 = 64;
/// As many as a large gateway has.
const BUCKETS: usize = 1_024;

/// Of 1,000 and 10,000 connections, what the open-files limit allows.
fn sizes() -> Vec<u32> {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the limit as it was, which is read again below.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(FILES_RESERVED);
    let (fit, too_many) = [1_000, 10_000].into_iter().partition::<Vec<u32>, _>(|n| u64::from(*n) <= files);
    for n in too_many {
        eprintln!("skipped: {n} connections, because only {files} files may be open (ulimit -n)");
    }
    fit
}

/// A bucket of `n` connections, each of a user of its own when `is_named`.
fn bucket(n: u32, is_named: bool) -> Bucket {
    let event = eventfd(0, EventfdFlags::CLOEXEC).expect("a file");
    let bucket = Bucket::new(0).expect("a bucket");
    let mut table = bucket.table.write();
    for i in 0..n {
        let slot = table.insert(event.try_clone().expect("a file"), Default::default(), 1).slot;
        if is_named {
            table.enter_user(slot, user(i), |_| 0);
        }
    }
    drop(table);
    bucket
}

fn user(n: u32) -> Arc<str> {
    format!("user-{n:06}").into()
}

fn a_room() -> Arc<Room> {
    Arc::new(Room {
        topic: Topic::default(),
        id: 1,
        name: "flights/FRA".into(),
        announced: 0,
        epoch: "e1".into(),
        buckets: (0..BUCKETS / 64).map(|_| AtomicU64::new(0)).collect(),
        users: 0.into(),
        changes: None,
        members: AtomicU64::new(0),
    })
}

fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("user lookup");
    group.bench_function("bucket of a user", |b| b.iter(|| of_user(black_box("user-000500"), BUCKETS)));
    for n in sizes() {
        let bucket = bucket(n, true);
        let mut names = (0..n).map(user).collect::<Vec<_>>().into_iter().cycle();
        group.bench_function(format!("present among {n}"), |b| {
            b.iter_batched(
                || names.next().expect("endless"),
                |name| bucket.table.read().user_slots(&name).expect("present").1,
                BatchSize::SmallInput,
            );
        });
        group.bench_function(format!("absent among {n}"), |b| {
            b.iter(|| bucket.table.read().user_slots(black_box("nobody")).is_none());
        });
    }
    group.finish();
}

/// One connection comes and goes; its file travels along and is neither opened nor closed.
fn come_and_go(table: &mut Table, file: &mut Option<OwnedFd>) {
    let slot = table.insert(file.take().expect("is here between rounds"), Default::default(), 1).slot;
    let (removed, _) = table.remove(slot).expect("was put in");
    *file = Some(removed.fd);
}

fn table(c: &mut Criterion) {
    let mut group = c.benchmark_group("table");
    for n in sizes() {
        let bucket = bucket(n, false);
        let mut file = Some(eventfd(0, EventfdFlags::CLOEXEC).expect("a file"));
        group.bench_function(format!("insert and remove beside {n}"), |b| {
            b.iter(|| come_and_go(&mut bucket.table.write(), &mut file));
        });
        let room = a_room();
        for slot in 0..n {
            bucket.table.write().join(slot, &room, 0, || 0);
        }
        group.bench_function(format!("leave and join a room of {n}"), |b| {
            b.iter(|| {
                let mut table = bucket.table.write();
                table.leave(n / 2, 1, 0);
                table.join(n / 2, &room, 0, || 0)
            });
        });
    }
    group.finish();
}

fn window(c: &mut Criterion) {
    const BOUNDS: Bounds = Bounds { min_ms: 20, max_ms: 1_000 };
    const TARGETS: usize = 1_000;
    let mut windows = vec![Window::default(); TARGETS];
    let mut now = 1;

    let mut group = c.benchmark_group("window");
    group.throughput(Throughput::Elements(TARGETS as u64));
    group.bench_function("a push and a tick of 1,000 targets", |b| {
        b.iter(|| {
            now += BOUNDS.tick_ms();
            for window in &mut windows {
                let length_ms = BOUNDS.length_ms(black_box(3_000));
                black_box(window.push(now, length_ms, BOUNDS));
                black_box(window.tick(now, length_ms, BOUNDS, true));
            }
        });
    });
    group.finish();
}

fn slow_peer(c: &mut Criterion) {
    let target = Target::from(a_room());
    let segment = Segment {
        frames: Frames::new(Bytes::from(vec![b'x'; 170])),
        messages: 1,
        first: 1,
        last: 1,
        lane: Lane::Normal,
        expires_at: 0,
        narrow: None,
    };
    let mut group = c.benchmark_group("slow peer");
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 frames wait, and leave in one write", |b| {
        b.iter(|| {
            let (mut pending, mut counts) = (Pending::new(1), Default::default());
            for _ in 0..64 {
                pending.push(&target, Waiting::new(&segment, Encoding::Plain), 1 << 20, 1, &mut counts);
            }
            let mut slices = Vec::with_capacity(64);
            pending.slices(1, &mut counts, &mut slices);
            let bytes = slices.iter().map(|slice| slice.len()).sum();
            pending.advance(bytes, 1, &mut counts);
            pending.is_empty()
        });
    });
    group.finish();
}

fn narrowed(c: &mut Criterion) {
    let key = |slot| ConnectionKey { bucket: 0, at: SlotKey { slot, generation: 0 } };
    let narrow = Narrow {
        except_connections: (0..100).map(key).collect(),
        except_users: (0..100).map(|n| user(n).to_string()).collect(),
        ..Narrow::default()
    };

    c.bench_function("narrow: 100 connections and 100 users left out", |b| {
        let who = Cold { user: Some("user-005000".into()), ..Cold::default() };
        b.iter(|| black_box(&who).is_meant(key(black_box(5_000)), &narrow));
    });
}

/// From the merger to the write: batches for everyone, for a room of a tenth, for twenty rooms at one tick, for one user.
fn memory(c: &mut Criterion) {
    const CONNECTIONS: usize = 10_000;
    let gateway = MemoryGateway::start(CONNECTIONS, 64, 1, &MergeConfig::default()).expect("threads");
    let rooms: Vec<String> = (0..20).map(|n| format!("hot-{n}")).collect();
    for n in 0..CONNECTIONS as u32 {
        let place = gateway.open(Some(&user(n))).expect("room for all");
        assert!(rooms.iter().all(|room| gateway.join(place, room)));
        assert!(n % 10 != 0 || gateway.join(place, "tenth"));
    }
    let messages: Vec<Bytes> = (0..20).map(|n| Bytes::from(format!("\"{n:098}\""))).collect();
    let mut now = gateway.now();
    let mut push = |targets: &[To<'_>], messages: &[Bytes]| {
        // Each round finds the windows slack, as after a pause.
        now = now.wrapping_add(2_000);
        for target in targets {
            assert!(gateway.push(*target, messages, Lane::Normal, now), "it has members");
        }
        gateway.settle();
        gateway.merger.tick(now.wrapping_add(1_000));
    };

    let mut group = c.benchmark_group("memory");
    group.throughput(Throughput::Elements(CONNECTIONS as u64));
    group.bench_function("20 merged messages to 10,000", |b| b.iter(|| push(&[To::All], &messages)));
    let targets: Vec<To<'_>> = rooms.iter().map(|room| To::Room(room)).collect();
    group.bench_function("one message in each of 20 rooms of 10,000", |b| b.iter(|| push(&targets, &messages[..1])));
    group.throughput(Throughput::Elements(CONNECTIONS as u64 / 10));
    group.bench_function("a room of 1,000", |b| b.iter(|| push(&[To::Room("tenth")], &messages[..1])));
    group.throughput(Throughput::Elements(1));
    group.bench_function("one user of 10,000", |b| b.iter(|| push(&[To::User("user-000500")], &messages[..1])));
    group.finish();
}

/// Gathering without a flush: what a push costs that finds its window open.
fn merge(c: &mut Criterion) {
    let gateway = MemoryGateway::start(
        1,
        64,
        1,
        &MergeConfig { messages: usize::MAX, bytes: usize::MAX, ..MergeConfig::default() },
    );
    let gateway = gateway.expect("threads");
    let message = [Bytes::from(format!("\"{:098}\"", 0))];
    let mut now = gateway.now();

    let mut group = c.benchmark_group("merge");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1,000 pushes gather, and leave as one frame", |b| {
        b.iter(|| {
            now = now.wrapping_add(2_000);
            (0..1_000).for_each(|_| assert!(gateway.push(To::All, &message, Lane::Normal, now)));
            gateway.merger.tick(now.wrapping_add(1_000));
        });
    });
    group.finish();
}

criterion_group!(fanout, lookups, table, window, slow_peer, narrowed, memory, merge);
criterion_main!(fanout);
