//! One process, connections in memory, from 1,024 to 1,048,576: what a connection takes, and what a delivery, a join, a leave and a
//! push to one user cost, so that one sees that none of it grows with the number (`make scale`).
//! The real tables, rooms, windows and fan-out threads; a write adds to a counter of its connection instead of calling the
//! kernel. CPU time of the whole process, because the machine may be shared. Sizes are powers of two, at which the growing
//! arrays are full; between two of them they take up to twice as much.

use std::sync::Arc;

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tidegate_gateway::MergeConfig;
use tidegate_gateway::memory::{MemoryGateway, Place, To};
use tidegate_protocol::records::Lane;

/// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As a gateway on two cores has.
const BUCKETS: usize = 64;
const SIZES: [usize; 6] = [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20];
/// Deliveries, joins and pushes behind each figure.
const DELIVERIES: usize = 4 << 20;
const CHANGES: usize = 200_000;
const PUSHES: usize = 20_000;
/// Pushes to users between two ticks, so that the windows they opened are closed again.
const PUSHES_A_TICK: usize = 500;
const EVERYBODY: &str = "everybody";

/// What one size came to.
#[derive(serde::Serialize, serde::Deserialize)]
struct Row {
    connections: usize,
    /// Resident bytes a connection without a name or a room.
    anonymous_bytes: f64,
    /// The same with a user of its own, in the room of everybody and in one of 16.
    named_bytes: f64,
    /// CPU of a delivery to everyone, and in the room of everybody.
    delivery_ns: f64,
    room_delivery_ns: f64,
    join_ns: f64,
    leave_ns: f64,
    /// CPU of a push to one user, from the merger to the write by a fan-out thread.
    user_push_ns: f64,
    open_ns: f64,
    close_ns: f64,
    /// The writer's part of a delivery alone: the same counters in the same order, without a gateway.
    bare_ns: f64,
    /// One cache line of as many as there are connections, in an order no cache guesses: what "beyond caches" has to beat.
    line_ns: f64,
}

/// Without arguments, or with `--json FILE`: a process for each size, so that none finds memory another has left.
fn main() {
    let mut arguments = std::env::args().skip_while(|a| a != "--size" && a != "--json");
    let (option, value) = (arguments.next(), arguments.next());
    if option.as_deref() == Some("--size") {
        let size = value.and_then(|n| n.parse().ok()).expect("--size takes a number of connections");
        println!("{}", serde_json::to_string(&measure(size)).expect("numbers serialise"));
        return;
    }
    println!("{:>12} {}", "connections", COLUMNS.map(|(name, _)| format!("{name:>14}")).concat());
    let mut rows = Vec::new();
    for size in SIZES {
        let executable = std::env::current_exe().expect("this file");
        let output = std::process::Command::new(executable).args(["--size", &size.to_string()]).output().expect("runs");
        assert!(output.status.success(), "size {size}: {}", String::from_utf8_lossy(&output.stderr));
        let row: Row = serde_json::from_slice(&output.stdout).expect("a row");
        println!("{size:>12} {}", COLUMNS.map(|(_, of)| format!("{:>14.1}", of(&row))).concat());
        rows.push(row);
    }
    if let Some(path) = value {
        let text = serde_json::to_string_pretty(&rows).expect("numbers serialise");
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
    }
}

type Column = (&'static str, fn(&Row) -> f64);

const COLUMNS: [Column; 11] = [
    ("anonymous B", |r| r.anonymous_bytes),
    ("named B", |r| r.named_bytes),
    ("delivery ns", |r| r.delivery_ns),
    ("in a room ns", |r| r.room_delivery_ns),
    ("join ns", |r| r.join_ns),
    ("leave ns", |r| r.leave_ns),
    ("user push ns", |r| r.user_push_ns),
    ("open ns", |r| r.open_ns),
    ("close ns", |r| r.close_ns),
    ("bare loop ns", |r| r.bare_ns),
    ("cold line ns", |r| r.line_ns),
];

fn measure(size: usize) -> Row {
    let (anonymous_bytes, open_ns, close_ns) = anonymous(size);
    let gateway = start(size);
    let started = resident_bytes();
    let users: Vec<Arc<str>> = (0..size).map(|i| format!("user-{i:07}").into()).collect();
    let places: Vec<Place> = users.iter().map(|user| gateway.open(Some(user)).expect("room for all")).collect();
    for (i, place) in places.iter().enumerate() {
        assert!(gateway.join(*place, EVERYBODY) && gateway.join(*place, &format!("room-{}", i / 16)));
    }
    // The names are shared with the gateway, so they are a part of what a connection takes.
    let own = size * size_of::<Place>() + size * size_of::<Arc<str>>();
    let named = (resident_bytes() - started).saturating_sub(own as u64);

    let rounds = (DELIVERIES / size).max(4);
    let everyone = cost(rounds * size, || deliver(&gateway, To::All, rounds));
    let room = cost(rounds * size, || deliver(&gateway, To::Room(EVERYBODY), rounds));
    check(&gateway, size, 2 * rounds);
    let order = shuffled(size);
    let changed: Vec<Place> = order.iter().cycle().take(CHANGES).map(|&i| places[i]).collect();
    // In portions, each left and joined again, so that the room stays as large as it is.
    let (mut leave_ns, mut join_ns) = (0.0, 0.0);
    let portion = (size / 4).min(CHANGES);
    for places in changed.chunks(portion) {
        let share = places.len() as f64 / CHANGES as f64;
        leave_ns += share * cost(places.len(), || places.iter().for_each(|p| assert!(gateway.leave(*p, EVERYBODY))));
        join_ns += share * cost(places.len(), || places.iter().for_each(|p| assert!(gateway.join(*p, EVERYBODY))));
    }
    Row {
        connections: size,
        anonymous_bytes,
        named_bytes: named as f64 / size as f64,
        delivery_ns: everyone,
        room_delivery_ns: room,
        join_ns,
        leave_ns,
        user_push_ns: push_to_users(&gateway, &users, &order),
        open_ns,
        close_ns,
        bare_ns: bare(&gateway, &places, rounds),
        line_ns: cold_line(&order),
    }
}

/// Adds to the counters of all connections in the order of a walk.
fn bare(gateway: &MemoryGateway, places: &[Place], rounds: usize) -> f64 {
    let mut order: Vec<&Place> = places.iter().collect();
    order.sort_by_key(|place| place.key);
    let numbers: Vec<u32> = order.iter().map(|place| place.number).collect();
    cost(rounds * numbers.len(), || {
        (0..rounds).for_each(|_| numbers.iter().for_each(|&number| gateway.receive(number, 100)));
    })
}

/// One word of a line each, where the next one is known only from the last.
fn cold_line(order: &[usize]) -> f64 {
    #[repr(align(64))]
    #[derive(Clone, Default)]
    struct Line(usize);
    let mut lines = vec![Line::default(); order.len()];
    for pair in order.windows(2) {
        lines[pair[0]].0 = pair[1];
    }
    lines[order[order.len() - 1]].0 = order[0];
    let steps = order.len().max(1 << 20);
    let mut at = order[0];
    let ns = cost(steps, || (0..steps).for_each(|_| at = std::hint::black_box(lines[at].0)));
    assert!(at < order.len());
    ns
}

/// Bytes, and CPU of opening and closing, of connections without a name.
fn anonymous(size: usize) -> (f64, f64, f64) {
    let gateway = start(size);
    let mut places: Vec<Option<Place>> = vec![None; size];
    let before = resident_bytes();
    let open = cost(size, || places.iter_mut().for_each(|place| *place = gateway.open(None)));
    let taken = resident_bytes() - before;
    let order = shuffled(size);
    let close = cost(size, || {
        order.iter().for_each(|&i| assert!(places[i].is_some_and(|place| gateway.close(place))));
    });
    (taken as f64 / size as f64, open, close)
}

fn start(size: usize) -> MemoryGateway {
    let gateway = MemoryGateway::start(size, BUCKETS, 1, &MergeConfig::default()).expect("threads and epoll sets");
    // The counters of what was received belong to the bench: touched now, they do not count as the connections'.
    assert!((0..size).all(|number| gateway.received(u32::try_from(number).expect("few")) == (0, 0)));
    gateway
}

/// Pushes a message of 100 bytes so many times, each written before the next.
fn deliver(gateway: &MemoryGateway, to: To<'_>, rounds: usize) {
    let message = [Bytes::from(format!("\"{:098}\"", 0))];
    for _ in 0..rounds {
        assert!(gateway.push(to, &message, Lane::Urgent, gateway.now()), "it has members");
        gateway.settle();
    }
}

fn check(gateway: &MemoryGateway, size: usize, frames: usize) {
    let is_right = |number: usize| gateway.received(u32::try_from(number).expect("few")).0 as usize == frames;
    assert!((0..size).all(is_right), "every connection has every frame, once");
}

/// CPU of a push to one user among all, from the merger to the write.
fn push_to_users(gateway: &MemoryGateway, users: &[Arc<str>], order: &[usize]) -> f64 {
    let message = [Bytes::from_static(b"\"for one\"")];
    let mut names = order.iter().cycle().take(PUSHES).map(|&i| &users[i]);
    cost(PUSHES, || {
        for tick in 1..=u32::try_from(PUSHES / PUSHES_A_TICK).expect("few") {
            let now = gateway.now().wrapping_add(tick * 2_000);
            for name in names.by_ref().take(PUSHES_A_TICK) {
                assert!(gateway.push(To::User(name), &message, Lane::Urgent, now), "the user is here");
            }
            gateway.settle();
            gateway.merger.tick(now.wrapping_add(1_000));
        }
    })
}

/// CPU nanoseconds of this process for each of `count` things done.
fn cost(count: usize, work: impl FnOnce()) -> f64 {
    let now = || {
        let t = clock_gettime(ClockId::ProcessCPUTime);
        t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
    };
    let before = now();
    work();
    (now() - before) / count as f64
}

/// 0 to `size` in an order that no cache guesses, the same every time.
fn shuffled(size: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..size).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut order);
    order
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).expect("resident pages");
    pages * rustix::param::page_size() as u64
}
