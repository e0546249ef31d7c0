//! The upstream with a service on loopback: order and at-least-once under failures, each bound, dead letters, restarts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use tidegate_protocol::records;

use super::item::tests::message;
use super::spool::Spool;
use super::wishes::{Acting, Action};
use super::*;
use crate::config::{DeadFull, EventsConfig, SinkConfig};
use crate::fleet::interest::{GatewayIndex, Interest};
use crate::http_client::connect::system_resolver;
use crate::http_client::service::{Hook, reply, until};

/// Remembers what it was to do.
#[derive(Default)]
struct Noted(Mutex<Vec<Action>>);

impl Actions for Noted {
    fn act(&self, action: Action) -> Acting<'_> {
        self.0.lock().push(action);
        Box::pin(async { true })
    }
}

struct Bed {
    folder: tempfile::TempDir,
    config: UpstreamConfig,
    noted: Arc<Noted>,
}

impl Bed {
    fn new(url: &str, change: impl Fn(&mut SinkConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let mut sink = SinkConfig {
            name: "robots".into(),
            url: url.into(),
            secrets: vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()],
            allow_private: true,
            linger_ms: 1,
            retry_base_ms: 1,
            retry_max_ms: 20,
            lanes: 4,
            ..SinkConfig::default()
        };
        change(&mut sink);
        let routes = vec![RouteConfig { pattern: "robot/*".into(), sink: "robots".into() }];
        let spool = folder.path().display().to_string();
        let config = UpstreamConfig { spool, routes, sinks: vec![sink] };
        Self { folder, config, noted: Arc::default() }
    }

    async fn start(&self) -> Upstream {
        let metrics = Arc::default();
        let upstream = Upstream::open(&self.config, 64, &metrics, &system_resolver()).expect("opens");
        let actions: Arc<dyn Actions> = Arc::clone(&self.noted) as _;
        upstream.run(&actions).await;
        upstream
    }
}

async fn sent(upstream: &Upstream, item: &UpstreamItem) -> Outcome {
    upstream.submit(item).await.expect("each message is answered")
}

async fn drained(upstream: &Upstream) {
    until("an empty spool", || upstream.sinks()[0].standing().books.waiting.messages == 0).await;
}

fn is_sent(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Sent { .. })
}

/// Each user's numbers in the order of their first arrival in an answered request.
fn firsts(got: &[crate::http_client::service::Got]) -> HashMap<String, Vec<u64>> {
    let mut out: HashMap<String, Vec<u64>> = HashMap::new();
    for (user, n) in got.iter().flat_map(crate::http_client::service::Got::numbers) {
        let seen = out.entry(user).or_default();
        if !seen.contains(&n) {
            seen.push(n);
        }
    }
    out
}

mod outlets;
mod poison;
mod shares;

#[tokio::test]
async fn a_fifth_of_the_requests_failing_loses_nothing_and_keeps_each_users_order() {
    let hook = Hook::start(|place, _| match place % 10 {
        3 => reply(500, ""),
        7 => reply(503, ""),
        _ => reply(200, "OK"),
    })
    .await;
    let bed = Bed::new(&hook.url(), |sink| sink.batch_messages = 7);
    let upstream = bed.start().await;
    let users = ["alice", "bob", "carol", "dave", "erin", "frank", "grace"];

    let outcomes: Vec<_> = (0..1_400).map(|n| upstream.submit(&message(users[n % 7], n))).collect();
    for outcome in outcomes {
        assert!(is_sent(&outcome.await.expect("is answered")));
    }
    drained(&upstream).await;

    let firsts = firsts(&hook.got());
    for (i, user) in users.iter().enumerate() {
        let expected: Vec<u64> = (0..200).map(|n| n * 7 + i as u64).collect();
        assert_eq!(firsts[*user], expected, "{user}");
    }
}

#[tokio::test]
async fn what_was_told_sent_is_delivered_after_a_restart() {
    let is_up = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_up);
    let hook = Hook::start(move |_, _| reply(if switch.load(Ordering::Relaxed) { 200 } else { 503 }, "")).await;
    let bed = Bed::new(&hook.url(), |_| ());
    let upstream = bed.start().await;
    for n in 0..50 {
        assert!(is_sent(&sent(&upstream, &message("alice", n)).await));
    }
    upstream.stop(Duration::from_secs(5)).await;
    drop(upstream);
    is_up.store(true, Ordering::Relaxed);

    let upstream = bed.start().await;
    assert!(is_sent(&sent(&upstream, &message("alice", 50)).await));
    drained(&upstream).await;

    assert_eq!(firsts(&hook.got())["alice"], (0..=50).collect::<Vec<u64>>());
}

#[tokio::test]
async fn what_was_delivered_is_not_sent_again_after_a_stop() {
    let hook = Hook::start(|_, _| reply(200, "")).await;
    let bed = Bed::new(&hook.url(), |_| ());
    let upstream = bed.start().await;
    for n in 0..20 {
        sent(&upstream, &message("alice", n)).await;
    }
    drained(&upstream).await;
    upstream.stop(Duration::from_secs(5)).await;
    drop(upstream);

    let upstream = bed.start().await;
    sent(&upstream, &message("alice", 20)).await;
    drained(&upstream).await;

    assert_eq!(hook.got().iter().map(|got| got.numbers().len()).sum::<usize>(), 21);
}

#[tokio::test]
async fn a_full_spool_refuses_and_takes_again_when_the_sink_is_back() {
    let is_up = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_up);
    let hook = Hook::start(move |_, _| reply(if switch.load(Ordering::Relaxed) { 200 } else { 503 }, "")).await;
    let bed = Bed::new(&hook.url(), |sink| sink.spool_bytes = 4_000);
    let upstream = bed.start().await;

    let mut taken = 0;
    let refused = loop {
        match sent(&upstream, &message("alice", taken)).await {
            Outcome::Sent { .. } => taken += 1,
            refused => break refused,
        }
    };
    assert_eq!(refused, Outcome::USER_OVERLOADED);
    assert!(taken > 5 && upstream.sinks()[0].standing().books.waiting.bytes <= 4_000, "{taken}");

    is_up.store(true, Ordering::Relaxed);
    drained(&upstream).await;
    assert!(is_sent(&sent(&upstream, &message("alice", taken)).await));
}

#[tokio::test]
async fn one_message_that_the_sink_refuses_becomes_the_only_dead_letter() {
    let mends = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&mends);
    let hook = Hook::start(move |_, got| {
        let is_bad = got.numbers().iter().any(|(_, n)| *n == 13) && !switch.load(Ordering::Relaxed);
        reply(if is_bad { 422 } else { 200 }, "")
    })
    .await;
    let bed = Bed::new(&hook.url(), |sink| sink.linger_ms = 50);
    let upstream = bed.start().await;
    let outcomes: Vec<_> = (0..40).map(|n| upstream.submit(&message("alice", n))).collect();
    for outcome in outcomes {
        outcome.await.expect("is answered");
    }
    drained(&upstream).await;
    let sink = &upstream.sinks()[0];

    let dead = sink.dead(0, 10).await.expect("reads");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, "status 422");
    assert_eq!(sink.tend(&Which::Id("nobody".into()), Deed::Forget).await.expect("works"), 0);
    mends.store(true, Ordering::Relaxed);
    assert_eq!(sink.tend(&Which::Id(format!("{:026}", 13)), Deed::Retry).await.expect("works"), 1);
    drained(&upstream).await;

    assert_eq!(sink.standing().books.dead.messages, 0);
    let last = hook.got().pop().expect("it came").numbers();
    assert_eq!(last, [("alice".to_owned(), 13)]);
}

#[tokio::test]
async fn told_to_hold_dead_letters_beyond_their_bound_stay_in_the_spool_until_there_is_room() {
    let hook = Hook::start(|_, _| reply(400, "")).await;
    let bed = Bed::new(&hook.url(), |sink| {
        (sink.dead_bytes, sink.lanes, sink.dead_full) = (500, 1, DeadFull::Hold);
    });
    let upstream = bed.start().await;
    for n in 0..5 {
        assert!(is_sent(&sent(&upstream, &message("alice", n)).await));
    }
    let sink = &upstream.sinks()[0];
    let is_stuck = || sink.standing().trouble.is_some_and(|(_, words)| words.contains("dead_bytes"));
    until("full dead letters", is_stuck).await;

    let books = sink.standing().books;
    assert!(books.dead.bytes <= 500 && books.dead.messages + books.waiting.messages == 5, "{books:?}");
    assert_eq!(sink.tend(&Which::All, Deed::Forget).await.expect("works"), books.dead.messages);
    until("the rest is dead too", || sink.standing().books.waiting.messages < books.waiting.messages).await;
}

#[tokio::test]
async fn answers_ask_for_replies_and_pushes_and_bad_ones_for_nothing() {
    let hook = Hook::start(|place, got| {
        let line: serde_json::Value = serde_json::from_slice(got.body.trim_ascii()).expect("one line");
        let id = line["id"].as_str().expect("an id");
        match place {
            0 => reply(200, &format!(r#"{{"replies":[{{"to_id":"{id}","data":"hi"}}],"pushes":[{{"to":1}}]}}"#)),
            _ => reply(200, "{\"replies\":"),
        }
    })
    .await;
    let bed = Bed::new(&hook.url(), |_| ());
    let upstream = bed.start().await;
    let mut item = message("alice", 1);
    let connection = tidegate_protocol::ids::ConnectionId::from_u128(9);
    item.connection = Some(connection);

    sent(&upstream, &item).await;
    drained(&upstream).await;
    sent(&upstream, &message("alice", 2)).await;
    drained(&upstream).await;

    let reply = Action::Reply { to: connection, to_id: item.id, data: "\"hi\"".into() };
    assert_eq!(*bed.noted.0.lock(), [reply, Action::Push("{\"to\":1}".into())]);
    let labels = ReasonLabels { sink: "robots".into(), reason: "bad_answer" };
    assert_eq!(upstream.metrics.outlet.actions.get_or_create(&labels).get(), 1);
}

#[tokio::test]
async fn a_sink_that_asks_for_a_pause_gets_it_on_every_lane() {
    let came: Arc<Mutex<Vec<std::time::Instant>>> = Arc::default();
    let hook = Hook::start({
        let came = Arc::clone(&came);
        move |place, _| {
            came.lock().push(std::time::Instant::now());
            let mut reply = reply(if place == 0 { 429 } else { 200 }, "");
            reply.headers_mut().insert("retry-after", "1".parse().expect("a number"));
            reply
        }
    })
    .await;
    let bed = Bed::new(&hook.url(), |_| ());
    let upstream = bed.start().await;
    sent(&upstream, &message("alice", 0)).await;
    until("the wish is heard", || upstream.sinks()[0].standing().trouble.is_some()).await;
    for (n, user) in ["bob", "carol", "dave", "erin"].iter().enumerate() {
        sent(&upstream, &message(user, n + 1)).await;
    }

    drained(&upstream).await;
    let came = came.lock();
    let pauses = came[1..].iter().map(|at| *at - came[0]);
    assert!(pauses.clone().all(|pause| pause >= Duration::from_millis(990)), "{:?}", pauses.collect::<Vec<_>>());
}

#[tokio::test]
async fn events_go_to_the_sinks_that_want_their_kind() {
    let hook = Hook::start(|_, _| reply(200, "")).await;
    let bed = Bed::new(&hook.url(), |sink| sink.events = vec!["connected".into()]);
    let upstream = bed.start().await;
    assert_eq!(upstream.wants(), ["connected"]);

    for (n, kind) in ["connected", "disconnected"].iter().enumerate() {
        upstream.tell(&UpstreamItem { what: What::Event { kind: (*kind).into() }, ..message("alice", n) });
    }
    until("the event", || !hook.got().is_empty()).await;
    drained(&upstream).await;

    let got = hook.got();
    assert_eq!(got.len(), 1);
    let line: serde_json::Value = serde_json::from_slice(got[0].body.trim_ascii()).expect("one line");
    assert_eq!((line["kind"].as_str(), line["event"].as_str()), (Some("event"), Some("connected")));
}

#[tokio::test]
async fn who_is_back_before_the_news_of_it_was_never_gone() {
    let hook = Hook::start(|_, _| reply(200, "")).await;
    let bed = Bed::new(&hook.url(), |sink| {
        (sink.batch_messages, sink.events) = (1, vec!["user_online".into(), "user_offline".into()]);
    });
    let upstream = Arc::new(bed.start().await);
    let interest = Arc::new(Interest::new(1, 10));
    let at = GatewayIndex::new(0).expect("small");
    let has_alice = |is_present| {
        let kind = records::InterestKind::User.into();
        let interest = vec![records::Interest { kind, name: "alice".into(), is_present }];
        records::EventsReply { epoch: 1, cursor: 1, is_snapshot: false, page: String::new(), interest, gateway: None }
    };
    let events = Events::new(Arc::clone(&upstream), Arc::clone(&interest), &EventsConfig::default());
    let happened = |kind: &str, n| {
        events.happened(Some(at), UpstreamItem { what: What::Event { kind: kind.into() }, ..message("alice", n) });
    };

    happened("user_online", 0);
    happened("user_offline", 1);
    interest.apply(at, &has_alice(true));
    events.tell_due(crate::clock::unix_ms() + 5_000);
    happened("user_online", 2);
    assert_eq!(events.pending(), 0);
    interest.apply(at, &has_alice(false));
    happened("user_offline", 3);
    events.tell_due(crate::clock::unix_ms() + 5_000);
    until("her end", || hook.got().len() >= 2).await;
    drained(&upstream).await;

    let kind = |got: &crate::http_client::service::Got| {
        let line: serde_json::Value = serde_json::from_slice(got.body.trim_ascii()).expect("one line");
        line["event"].as_str().expect("an event").to_owned()
    };
    assert_eq!(hook.got().iter().map(kind).collect::<Vec<_>>(), ["user_online", "user_offline"]);
}

/// By a stop, by one whose patience ends, and when the start goes no further.
#[tokio::test]
async fn a_spool_is_closed_on_every_way_out() {
    let hook = Hook::start(|_, _| reply(503, "")).await;
    let bed = Bed::new(&hook.url(), |sink| (sink.retry_base_ms, sink.retry_max_ms) = (60_000, 60_000));
    let was_left_open = || {
        let path = bed.folder.path().join("robots.redb");
        Spool::open(&path, 4).expect("the last one has let go of it").1.was_left_open
    };
    for patience in [Duration::from_secs(5), Duration::ZERO] {
        let upstream = bed.start().await;
        assert!(is_sent(&sent(&upstream, &message("alice", 1)).await));
        upstream.stop(patience).await;
        assert!(!was_left_open(), "{patience:?}");
        drop(upstream);
    }

    drop(Upstream::open(&bed.config, 64, &Arc::default(), &system_resolver()).expect("opens"));

    assert!(!was_left_open());
}

#[tokio::test]
async fn messages_that_are_damaged_while_the_node_runs_are_counted_and_the_others_delivered() {
    let is_up = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_up);
    let hook = Hook::start(move |_, _| reply(if switch.load(Ordering::Relaxed) { 200 } else { 503 }, "")).await;
    let bed = Bed::new(&hook.url(), |sink| (sink.lanes, sink.batch_messages) = (1, 2));
    let upstream = bed.start().await;
    for n in 0..20 {
        assert!(is_sent(&sent(&upstream, &message("alice", n)).await));
    }
    let sink = &upstream.sinks()[0];
    // The last one too, behind which nothing moves the lane on. Numbers begin with 1.
    for number in [3, 4, 5, 9, 20] {
        sink.spool.spoil(0, number);
    }

    is_up.store(true, Ordering::Relaxed);
    drained(&upstream).await;

    let mut delivered: Vec<u64> = firsts(&hook.got())["alice"].clone();
    delivered.retain(|n| ![2, 3, 4, 8, 19].contains(n));
    assert_eq!(delivered.len(), 15, "{delivered:?}");
    until("five counted", || sink.counts.metrics.intake.damaged.get_or_create(&sink.counts.labels).get() == 5).await;
    assert_eq!(sink.standing().books.waiting, Amount::default());
    upstream.stop(Duration::from_secs(5)).await;
    drop(upstream);
    let (_spool, found) = Spool::open(&bed.folder.path().join("robots.redb"), 1).expect("opens");
    assert_eq!(found.damage, None, "they are counted once");
}

#[tokio::test]
async fn routes_are_tried_in_order_and_an_unknown_one_is_refused() {
    let hook = Hook::start(|_, _| reply(200, "")).await;
    let upstream = Bed::new(&hook.url(), |_| ()).start().await;
    let mut item = message("alice", 0);
    item.what = What::Message { route: "human/say".into(), nonce: String::new() };

    assert_eq!(sent(&upstream, &item).await, Outcome::NO_ROUTE);
    item.what = What::Message { route: "robot/say".into(), nonce: String::new() };
    item.data = "{".into();
    assert_eq!(sent(&upstream, &item).await, Outcome::BAD_DATA);
}

#[tokio::test]
async fn a_spool_that_is_in_use_stops_the_start_with_a_sentence() {
    let bed = Bed::new("http://127.0.0.1:9/", |_| ());
    let _first = bed.start().await;

    let second = Upstream::open(&bed.config, 64, &Arc::default(), &system_resolver());

    let why = second.err().expect("is in use");
    assert!(why.contains("robots") && why.contains("another process"), "{why}");
    assert!(bed.folder.path().join("robots.redb").exists());
}

#[test]
fn stars_stand_for_any_characters() {
    for (pattern, route) in [
        ("a", "a"),
        ("*", ""),
        ("*", "x/y"),
        ("robot/*", "robot/"),
        ("robot/*", "robot/a/b"),
        ("*/say", "robot/say"),
        ("a*b*c", "abc"),
        ("a*b*c", "a1b2b3c"),
        ("a**", "a"),
    ] {
        assert!(fits(pattern, route), "{pattern} {route}");
    }
    for (pattern, route) in [
        ("a", "b"),
        ("a", "aa"),
        ("robot/*", "robot"),
        ("*/say", "robot/says"),
        ("a*b*c", "acb"),
        ("ab*b", "ab"),
        ("", "a"),
    ] {
        assert!(!fits(pattern, route), "{pattern} {route}");
    }
}
