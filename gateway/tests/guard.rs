//! What one connection may cost in memory, held by sizes and capacities, so that it needs no clock and no allocator of our own.
//! Instructions per delivery are `make guard`'s, because they need valgrind and a release build.
//! The budget: at most 120 bytes of gateway heap for a connection without a name, a room or anything that waits.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_gateway::bucket::pending::{Pending, Waiting};
use tidegate_gateway::bucket::table::{Cold, Hot, Table};
use tidegate_gateway::topic::batch::Segment;
use tidegate_gateway::topic::encoding::{Encoding, Frames};
use tidegate_gateway::topic::target::Target;
use tidegate_protocol::records::Lane;

/// Most heap bytes of an anonymous, healthy connection.
const CONNECTION_BYTES_MAX: usize = 120;
/// Files that are not connections: the runtime's, the harness's.
const FILES_RESERVED: u64 = 64;

/// A power of two, so that the capacity of a doubling array is its length; 4,096, or what the open-files limit allows.
fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the limit as it was, which is read again below.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(FILES_RESERVED);
    let count = 1usize << files.clamp(1, 4_096).ilog2();
    assert!(count >= 128, "too few open files allowed for the arithmetic to mean anything: {files}");
    count
}

/// A file per connection, all of one kernel object.
fn file(of: &OwnedFd) -> OwnedFd {
    of.try_clone().expect("within the open-files limit")
}

/// Heap bytes of the table by what its arrays have room for. The list of vacant slots is private: one number a slot at most.
fn heap_bytes(table: &Table) -> usize {
    let vacant = table.hot.iter().filter(|hot| hot.fd.is_none()).count() * size_of::<u32>();
    table.hot.capacity() * size_of::<Hot>() + table.cold.capacity() * size_of::<Cold>() + vacant
}

#[test]
fn the_parts_of_a_connection_keep_their_sizes() {
    assert!(size_of::<Hot>() <= 32, "Hot: {}", size_of::<Hot>());
    assert!(size_of::<Cold>() <= 72, "Cold: {}", size_of::<Cold>());
    assert!(size_of::<Pending>() <= 72, "Pending: {}", size_of::<Pending>());
    // What waits for a slow peer; a segment itself is one a batch.
    assert!(size_of::<Waiting>() <= 64, "Waiting: {}", size_of::<Waiting>());
}

#[test]
fn an_anonymous_connection_stays_within_its_budget() {
    let (count, event) = (connections(), eventfd(0, EventfdFlags::CLOEXEC).expect("a file"));
    let mut table = Table::default();
    for _ in 0..count {
        table.insert(file(&event), Default::default(), 1);
    }

    let each = heap_bytes(&table) / count;
    assert!(each <= CONNECTION_BYTES_MAX, "{each} bytes for each of {count}");
    assert_eq!((table.rooms.capacity(), table.users.capacity()), (0, 0), "no index entry without a name or a room");
    assert!(
        table.cold.iter().all(|cold| cold.user.is_none() && !cold.rooms.spilled()),
        "nothing of its own on the heap"
    );
    assert!(table.hot.iter().all(|hot| hot.outbox.lock().is_none()), "nothing waits for a healthy connection");

    // Half of them leave and others come: slots are used again.
    for slot in (0..u32::try_from(count).expect("few")).step_by(2) {
        table.remove(slot).expect("is there");
    }
    for _ in 0..count / 2 {
        table.insert(file(&event), Default::default(), 2);
    }

    assert_eq!(table.hot.len(), count);
    assert_eq!(heap_bytes(&table) / count, each, "coming and going costs nothing");
}

#[test]
fn four_rooms_fit_inside_a_connection() {
    let mut cold = Cold::default();
    cold.rooms.extend([1, 2, 3, 4]);

    assert!(!cold.rooms.spilled());
}

#[test]
fn what_waits_is_the_shared_frame_and_no_copy() {
    let target = Target::everyone("e");
    let segment = Segment {
        frames: Frames::new(Bytes::from(vec![b'x'; 1_000])),
        messages: 1,
        first: 1,
        last: 1,
        lane: Lane::Normal,
        expires_at: 0,
        narrow: None,
    };
    let mut slow = [Pending::new(1), Pending::new(1)];

    for pending in &mut slow {
        let mut counts = Default::default();
        pending.push(&target, Waiting::new(&segment, Encoding::Plain), 8_192, 1, &mut counts);
        let mut slices = Vec::new();
        pending.slices(1, &mut counts, &mut slices);

        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0].as_ptr(), segment.frames.of(Encoding::Plain).as_ptr());
    }
}
