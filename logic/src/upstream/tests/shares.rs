//! What one user can fill of what belongs to all: the spool, the dead letters.

use super::*;

/// 64 users whose every message is refused, with more of them than there is room for among the dead letters.
#[tokio::test]
async fn what_a_service_refuses_of_some_users_holds_up_nobody_else() {
    let has_poison = |body: &[u8]| body.windows(6).any(|word| word == b"poison");
    let hook = Hook::start(move |_, got| reply(if has_poison(&got.body) { 400 } else { 200 }, "")).await;
    let bed = Bed::new(&hook.url(), |sink| (sink.dead_bytes, sink.lanes) = (1024 * 1024, 16));
    let upstream = bed.start().await;
    let poison = format!("{{\"n\":0,\"poison\":\"{}\"}}", "x".repeat(24 * 1024));
    let mut outcomes = Vec::new();
    for n in 0..128 {
        let item = UpstreamItem { data: poison.clone().into(), ..message(&format!("mallory{}", n % 64), n) };
        outcomes.push(upstream.submit(&item));
    }
    for n in 0..30 {
        outcomes.push(upstream.submit(&message(&format!("honest{n}"), 1_000 + n)));
    }
    for outcome in outcomes {
        assert!(is_sent(&outcome.await.expect("is answered")));
    }

    drained(&upstream).await;

    let got = hook.got();
    let delivered = got.iter().filter(|got| !has_poison(&got.body)).flat_map(crate::http_client::service::Got::numbers);
    assert_eq!(delivered.filter(|(user, _)| user.starts_with("honest")).count(), 30);
    let sink = &upstream.sinks()[0];
    let labels = ReasonLabels { sink: "robots".into(), reason: "full" };
    let evicted = || sink.counts.metrics.dead.evicted.get_or_create(&labels).get();
    until("each that was refused counted", || sink.standing().books.dead.messages + evicted() == 128).await;
    assert!(sink.standing().books.dead.bytes <= 1024 * 1024 && evicted() > 80, "{}", evicted());
}

/// One user's dead letters have a bound of their own, and others' stay while they turn over.
#[tokio::test]
async fn a_users_dead_letters_make_room_for_that_users_before_others_are_dropped() {
    let hook = Hook::start(|_, _| reply(400, "")).await;
    let bed = Bed::new(&hook.url(), |sink| (sink.dead_user_bytes, sink.batch_messages) = (2_000, 1));
    let upstream = bed.start().await;
    sent(&upstream, &message("alice", 0)).await;
    drained(&upstream).await;
    for n in 1..=50 {
        sent(&upstream, &message("mallory", n)).await;
    }
    drained(&upstream).await;
    upstream.stop(Duration::from_secs(5)).await;
    drop(upstream);
    let upstream = bed.start().await;
    sent(&upstream, &message("mallory", 51)).await;
    drained(&upstream).await;

    let sink = &upstream.sinks()[0];
    let has = |dead: &super::super::Dead, word: &[u8]| dead.message.line.windows(word.len()).any(|part| part == word);
    let last_is_there = async {
        loop {
            let dead = sink.dead(0, 100).await.expect("reads");
            if dead.last().is_some_and(|dead| has(dead, b"\"n\":51}")) {
                break dead;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let dead = tokio::time::timeout(Duration::from_secs(20), last_is_there).await.expect("the last is a letter too");
    assert!(has(&dead[0], b"alice"), "hers stays: {dead:?}");
    let books = sink.standing().books.dead;
    assert!((4..10).contains(&books.messages) && books.messages == dead.len() as u64, "{books:?}");
}

/// While a service is down one user fills half of its spool and no more.
#[tokio::test]
async fn a_user_who_fills_the_spool_leaves_room_for_others() {
    let hook = Hook::start(|_, _| reply(503, "")).await;
    let bed = Bed::new(&hook.url(), |sink| sink.spool_bytes = 40_000);
    let upstream = bed.start().await;
    let mut n = 0;
    let refused = loop {
        match sent(&upstream, &message("mallory", n)).await {
            Outcome::Sent { .. } => n += 1,
            refused => break refused,
        }
    };
    assert_eq!(refused, Outcome::USER_OVERLOADED);

    for (n, user) in ["alice", "bob", "carol"].iter().enumerate() {
        assert!(is_sent(&sent(&upstream, &message(user, n)).await), "{user}");
    }

    assert!(upstream.sinks()[0].standing().books.waiting.bytes > 18_000);
}
