//! The swarm against a server that is not ours: what is right passes, and each fault made to order is seen.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use support::{Out, StandIn, items, push};
use tidegate_bench::ledger::{Expected, Standing};
use tidegate_bench::swarm::crew::Crew;
use tidegate_bench::swarm::plan::Plan;
use tidegate_bench::swarm::tally::Tally;

const CLIENTS: u64 = 40;
/// Nothing for this long means that nothing more comes: loopback, and all was sent before.
const SETTLE_MS: u64 = 300;

struct Bed {
    server: StandIn,
    crew: Crew,
}

impl Bed {
    fn new(change: impl FnOnce(&mut Plan)) -> Self {
        let server = StandIn::start();
        let mut plan = Plan::new(&server.url(), CLIENTS).expect("a plan");
        plan.user = Some("u{i}x".parse().expect("a pattern"));
        plan.sample_every = 1;
        change(&mut plan);
        let mut crew = Crew::threads(&Arc::new(plan), 0, CLIENTS, 2).expect("threads");
        let ready = crew.ready(|_| {}).expect("ready");
        assert_eq!((ready.open, ready.failed), (CLIENTS, 0), "{:?}", ready.oddities);
        Self { server, crew }
    }

    fn report(&mut self, count: u32) -> Tally {
        let expected = Expected { publisher: 1, count, refused: 0, to: "all".into() };
        self.crew.report(&[expected], SETTLE_MS).expect("a report")
    }

    /// Sends 0..10 one by one to all; client 7 gets `instead`.
    fn send_but_to_seven(&self, instead: &[&[u32]]) {
        for client in (0..CLIENTS).map(|client| format!("u{client}x")) {
            let frames: Vec<Vec<u32>> = match client.as_str() {
                "u7x" => instead.iter().map(|frame| frame.to_vec()).collect(),
                _ => (0..10).map(|n| vec![n]).collect(),
            };
            for frame in frames {
                assert_eq!(self.server.send(&client, &push(&frame)), 1);
            }
        }
    }
}

/// Where a fleet is looked at on the way up, its clients come in steps.
#[test]
fn a_paused_swarm_connects_as_far_as_it_is_told_and_no_further() {
    let server = StandIn::start();
    let mut plan = Plan::new(&server.url(), CLIENTS).expect("a plan");
    plan.user = Some("u{i}x".parse().expect("a pattern"));
    (plan.paused, plan.abortive) = (true, true);
    let mut crew = Crew::threads(&Arc::new(plan), 0, CLIENTS, 2).expect("threads");
    let most = AtomicU64::new(0);
    let heard = |open| {
        most.fetch_max(open, Ordering::Relaxed);
    };

    let steps = [
        crew.ready(|_| {}).expect("ready").open,
        crew.dial(500, 2, &heard).expect("half").open,
        most.load(Ordering::Relaxed),
        crew.dial(1_000, 1, &heard).expect("all").open,
        most.load(Ordering::Relaxed),
    ];

    assert_eq!(steps, [0, CLIENTS / 2, CLIENTS / 2, CLIENTS, CLIENTS]);
}

fn faults(tally: &Tally) -> Standing {
    Standing { examples: Vec::new(), ..tally.standing.clone() }
}

fn clean() -> Standing {
    Standing { clients: CLIENTS, ..Standing::default() }
}

#[test]
fn every_client_with_every_message_is_no_fault() {
    let mut bed = Bed::new(|_| {});

    for first in (0..1_000).step_by(10) {
        bed.server.send("", &push(&(first..first + 10).collect::<Vec<_>>()));
    }
    let tally = bed.report(1_000);

    assert_eq!(faults(&tally), clean());
    assert_eq!((tally.messages, tally.frames), (1_000 * CLIENTS, 100 * CLIENTS));
    assert_eq!(tally.latency_us.count(), 1_000 * CLIENTS);
    assert_eq!(tally.per_frame.percentiles().p50, 10);
    assert_eq!(tally.arrivals.len(), 100);
    assert!(tally.arrivals.iter().all(|arrival| arrival.receivers == CLIENTS && arrival.first_ns <= arrival.last_ns));
}

#[test]
fn one_lost_message_at_one_client_is_seen() {
    let lost: [&[&[u32]]; 3] = [
        &[&[1], &[2], &[3], &[4], &[5], &[6], &[7], &[8], &[9]],
        &[&[0, 1, 2], &[4, 5], &[6, 7, 8, 9]],
        &[&[0, 1, 2, 3, 4, 5, 6, 7, 8]],
    ];
    for instead in lost {
        let mut bed = Bed::new(|_| {});

        bed.send_but_to_seven(instead);
        let tally = bed.report(10);

        assert_eq!(faults(&tally), Standing { lost: 1, faulty_clients: 1, ..clean() }, "{instead:?}");
        assert!(tally.standing.examples[0].starts_with("client 7:"), "{:?}", tally.standing.examples);
    }
}

#[test]
fn one_duplicated_message_at_one_client_is_seen() {
    let mut bed = Bed::new(|_| {});

    bed.send_but_to_seven(&[&[0, 1, 2], &[2, 3, 4], &[5, 6, 7, 8, 9]]);
    let tally = bed.report(10);

    assert_eq!(faults(&tally), Standing { duplicated: 1, faulty_clients: 1, ..clean() });
}

#[test]
fn swapped_messages_at_one_client_are_seen() {
    for instead in [&[&[0, 1, 3, 2, 4, 5, 6, 7, 8, 9][..]][..], &[&[0, 1, 3], &[2], &[4, 5, 6, 7, 8, 9]]] {
        let mut bed = Bed::new(|_| {});

        bed.send_but_to_seven(instead);
        let tally = bed.report(10);

        assert_eq!(faults(&tally), Standing { disordered: 1, faulty_clients: 1, ..clean() });
    }
}

#[test]
fn a_gap_excuses_what_it_names_and_is_counted() {
    let mut bed = Bed::new(|plan| plan.rooms = vec!["red".parse().expect("a pattern")]);
    let room_push = |first: u32, last: u32| {
        let items = items(&(first..=last).collect::<Vec<_>>());
        let (from, to) = (first + 100, last + 100);
        Out::Text(format!(
            r#"{{"type":"PUSH","data":{{"room":"red","epoch":1,"seq":[{from},{to}],"items":[{items}]}}}}"#
        ))
    };
    let gap = r#"{"type":"GAP","data":{"room":"red","from":103,"to":104,"reason":"slow"}}"#;

    bed.server.send("", &room_push(0, 2));
    bed.server.send("", &Out::Text(gap.to_owned()));
    bed.server.send("", &room_push(5, 9));
    let tally = bed.report(10);

    assert_eq!(faults(&tally), Standing { excused: 2 * CLIENTS, ..clean() });
    let slow = tally.gaps.get("slow").expect("counted");
    assert_eq!((slow.frames, slow.messages), (CLIENTS, 2 * CLIENTS));
}

#[test]
fn frames_longer_than_the_read_buffer_are_checked_whole() {
    let mut bed = Bed::new(|_| {});

    for first in (0..6_000).step_by(2_000) {
        // About 200 KB a frame: three and more reads.
        bed.server.send("", &push(&(first..first + 2_000).collect::<Vec<_>>()));
    }
    let tally = bed.report(6_000);

    assert_eq!(faults(&tally), clean());
    assert_eq!(tally.frames, 3 * CLIENTS);
}

#[test]
fn pings_are_answered_with_their_payload() {
    let mut bed = Bed::new(|_| {});

    bed.server.send("", &Out::Ping("are you there"));
    bed.server.send("", &push(&[0]));
    let tally = bed.report(1);

    assert_eq!(tally.pings, CLIENTS);
    let patience = std::time::Duration::from_secs(5);
    tidegate_bench::clock::until(patience, || bed.server.pongs().len() as u64 == CLIENTS);
    assert_eq!(bed.server.pongs(), vec![b"are you there".to_vec(); CLIENTS as usize]);
}

#[test]
fn a_client_that_is_closed_loses_the_rest_and_says_how_it_ended() {
    let mut bed = Bed::new(|_| {});

    bed.server.send("", &push(&[0, 1]));
    bed.server.send("u7x", &Out::Close(3_001, "idle"));
    for client in (0..CLIENTS).filter(|client| *client != 7) {
        bed.server.send(&format!("u{client}x"), &push(&[2]));
    }
    let tally = bed.report(3);

    assert_eq!(faults(&tally), Standing { lost: 1, faulty_clients: 1, ..clean() });
    assert_eq!(tally.closed.get("3001"), Some(&1));
    assert_eq!(tally.open, CLIENTS - 1);
}

#[test]
fn stalled_clients_are_judged_apart_and_read_again_when_told() {
    let mut bed = Bed::new(|_| {});

    bed.crew.stall(10).expect("done");
    bed.server.send("", &push(&[0, 1]));
    let during = bed.report(2);
    bed.crew.resume().expect("done");
    let after = bed.report(2);

    assert_eq!((during.standing.clients, during.stalled.clients), (36, 4));
    assert_eq!((during.standing.faults(), during.stalled.lost), (0, 8));
    assert_eq!((after.standing.faults(), after.stalled.faults()), (0, 0));
}

#[test]
fn a_reset_forgets_latency_but_not_what_was_received() {
    let mut bed = Bed::new(|_| {});

    bed.server.send("", &push(&[0, 1]));
    bed.report(2);
    bed.crew.reset().expect("done");
    bed.server.send("", &push(&[2]));
    let tally = bed.report(3);

    assert_eq!(faults(&tally), clean());
    assert_eq!((tally.messages, tally.latency_us.count()), (CLIENTS, CLIENTS));
}

#[test]
fn nobody_there_is_a_failure_with_its_reason() {
    let free = tidegate_bench::sockets::free_address().expect("an address");
    let plan = Plan::new(&format!("ws://{free}/ws"), 3).expect("a plan");

    let ready = Crew::threads(&Arc::new(plan), 0, 3, 1).expect("threads").ready(|_| {}).expect("an answer");

    assert_eq!((ready.open, ready.failed), (0, 3));
    assert!(ready.oddities.keys().all(|why| why.contains("connect")), "{:?}", ready.oddities);
}

#[test]
fn a_peer_whose_frames_are_bare_messages_is_checked_like_any_other() {
    let dialect = tidegate_bench::dialect::named("nchan").expect("a dialect");
    let mut bed = Bed::new(|plan| plan.dialect = dialect);
    let bare = |n: u32| Out::Text(format!(r#"{{"p":1,"n":{n},"t":1}}"#));

    // The stand-in's greeting is nothing this dialect knows. Who has it is also registered to be sent to.
    let has_greeted = |tally: &Tally| tally.oddities.values().sum::<u64>() == CLIENTS;
    assert!((0..500).any(|_| has_greeted(&bed.report(0))), "not everyone was greeted");
    (0..10).for_each(|n| assert_eq!(bed.server.send("", &bare(n)), CLIENTS as usize));
    let whole = bed.report(10);
    bed.server.send("", &bare(11));
    let holed = bed.report(12);

    assert_eq!((faults(&whole), whole.messages), (clean(), 10 * CLIENTS));
    assert_eq!(holed.standing.lost, CLIENTS, "number 10 was never sent");
}
