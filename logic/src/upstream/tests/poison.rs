//! Messages that a service chokes on, one at the head of every lane: the others' way past them, and what an outage is not.

use std::sync::atomic::AtomicUsize;

use super::super::spool::lane_of;
use super::*;
use crate::http_client::service::{Got, silence};

/// So many users of each lane.
fn users_of_each_lane(lanes: u16, each: usize) -> Vec<String> {
    let mut of = vec![0; usize::from(lanes)];
    let mut out = Vec::new();
    for n in 0.. {
        let user = format!("mallory{n}");
        let lane = usize::from(lane_of(message(&user, 0).shard(), lanes));
        if of[lane] < each {
            of[lane] += 1;
            out.push(user);
        }
        if out.len() == each * of.len() {
            break;
        }
    }
    out
}

/// One message of each of the poisoned, then two of each of thirty others; all are on the disk when it returns.
async fn poisoned_first(upstream: &Upstream, poisoned: &[String]) {
    let mut outcomes = Vec::new();
    for (n, user) in poisoned.iter().enumerate() {
        outcomes.push(upstream.submit(&message(user, n)));
    }
    for n in 0..60 {
        outcomes.push(upstream.submit(&message(&format!("honest{}", n % 30), 1_000 + n)));
    }
    for outcome in outcomes {
        assert!(is_sent(&outcome.await.expect("is answered")));
    }
}

fn has_poison(got: &Got) -> bool {
    got.body.windows(7).any(|word| word == b"mallory")
}

fn delivered(hook: &Hook) -> HashMap<String, Vec<u64>> {
    let taken: Vec<Got> = hook.got().into_iter().filter(|got| !has_poison(got)).collect();
    firsts(&taken)
}

fn holds_all_in_order(delivered: &HashMap<String, Vec<u64>>) {
    for user in 0..30 {
        assert_eq!(delivered[&format!("honest{user}")], [1_000 + user, 1_030 + user], "honest{user}");
    }
}

/// Waits until the poisoned are dead letters and all else is delivered, while visitors go on to come: what is left alone with
/// a service that takes nothing cannot be told from an outage.
async fn settled(upstream: &Upstream, poisoned: &[String]) {
    let sink = &upstream.sinks()[0];
    let all = async {
        for n in 0.. {
            assert!(is_sent(&sent(upstream, &message(&format!("visitor{}", n % 8), 10_000 + n)).await));
            let dead = sink.dead(0, 1_000).await.expect("reads");
            if dead.len() >= poisoned.len() {
                return dead;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Vec::new()
    };
    let dead = tokio::time::timeout(Duration::from_secs(30), all).await.expect("each poisoned is dead");
    drained(upstream).await;
    assert_eq!(dead.len(), poisoned.len());
    let is_poison = |dead: &Dead| dead.message.line.windows(7).any(|word| word == b"mallory");
    assert!(dead.iter().all(is_poison), "{dead:?}");
}

#[tokio::test]
async fn messages_answered_500_at_the_head_of_every_lane_hold_up_nobody_for_long() {
    let hook = Hook::start(|_, got| reply(if has_poison(got) { 500 } else { 200 }, "")).await;
    let bed = Bed::new(&hook.url(), |sink| (sink.lanes, sink.attempts_max) = (16, 3));
    let upstream = bed.start().await;
    let poisoned = users_of_each_lane(16, 2);

    poisoned_first(&upstream, &poisoned).await;
    settled(&upstream, &poisoned).await;

    holds_all_in_order(&delivered(&hook));
}

#[tokio::test]
async fn messages_that_a_service_hangs_on_at_the_head_of_every_lane_hold_up_nobody_for_long() {
    let hook = Hook::start(|_, got| if has_poison(got) { silence() } else { reply(200, "") }).await;
    let bed = Bed::new(&hook.url(), |sink| {
        (sink.lanes, sink.attempts_max, sink.batch_messages, sink.timeout_ms) = (4, 3, 4, 400);
    });
    let upstream = bed.start().await;
    let poisoned = users_of_each_lane(4, 1);

    poisoned_first(&upstream, &poisoned).await;
    settled(&upstream, &poisoned).await;

    holds_all_in_order(&delivered(&hook));
}

/// Also not while each lane has tried in vain to get others' messages past its head.
#[tokio::test]
async fn an_outage_makes_no_dead_letters_and_each_users_order_is_kept_after_it() {
    const FAILING: usize = 400;
    let hook = Hook::start(|place, _| reply(if place < FAILING { 503 } else { 200 }, "")).await;
    let bed = Bed::new(&hook.url(), |sink| (sink.lanes, sink.attempts_max, sink.batch_messages) = (4, 3, 5));
    let upstream = bed.start().await;
    for n in 0..120 {
        assert!(is_sent(&sent(&upstream, &message(&format!("honest{}", n % 12), n)).await));
    }

    drained(&upstream).await;

    let got = hook.got();
    assert_eq!(upstream.sinks()[0].standing().books.dead.messages, 0);
    let alone = got[..FAILING].iter().filter(|got| got.numbers().len() == 1);
    let tried = alone.flat_map(Got::numbers).map(|(user, _)| user).collect::<std::collections::HashSet<_>>();
    assert_eq!(tried.len(), 12, "each user's first was tried alone: {tried:?}");
    let firsts = firsts(&got[FAILING..]);
    for user in 0..12 {
        let expected: Vec<u64> = (0..10).map(|n| n * 12 + user).collect();
        assert_eq!(firsts[&format!("honest{user}")], expected, "honest{user}");
    }
}

/// The node stops while others' messages have been taken past heads that fail: none of them is lost, none comes again.
#[tokio::test]
async fn what_was_sent_past_a_failing_head_is_settled_across_a_restart() {
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let hook = Hook::start(move |_, got| {
        if has_poison(got) {
            return reply(500, "");
        }
        counted.fetch_add(1, Ordering::Relaxed);
        reply(200, "")
    })
    .await;
    // So many attempts that no head is given up here.
    let mut bed = Bed::new(&hook.url(), |sink| (sink.lanes, sink.attempts_max) = (4, 1_000));
    let upstream = bed.start().await;
    let poisoned = users_of_each_lane(4, 1);
    poisoned_first(&upstream, &poisoned).await;
    until("some taken past the heads", || taken.load(Ordering::Relaxed) >= 8).await;
    upstream.stop(Duration::from_secs(5)).await;
    let waiting = upstream.sinks()[0].standing().books.waiting.messages;
    drop(upstream);

    bed.config.sinks[0].attempts_max = 3;
    let upstream = bed.start().await;
    assert_eq!(upstream.sinks()[0].standing().books.waiting.messages, waiting);
    settled(&upstream, &poisoned).await;

    holds_all_in_order(&delivered(&hook));
    let got = hook.got();
    let taken = got.iter().filter(|got| !has_poison(got)).flat_map(Got::numbers);
    assert_eq!(taken.filter(|(user, _)| user.starts_with("honest")).count(), 60, "each once");
}
