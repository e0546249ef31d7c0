//! The hook's decisions, with a service that answers from memory and time that is simulated.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::*;

/// Answers each question the same, and counts them.
fn service(reply: impl Fn() -> Reply + Send + Sync + 'static) -> (Post, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let post: Post = Arc::new(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        let reply = reply();
        Box::pin(async move { reply })
    });
    (post, asked)
}

fn body(value: &serde_json::Value) -> Reply {
    Reply::Body(value.to_string().into())
}

fn on(change: impl FnOnce(&mut HookConfig)) -> HookConfig {
    let mut config = HookConfig { url: "http://hook.example/".into(), ..HookConfig::default() };
    change(&mut config);
    config
}

fn hook(config: &HookConfig, post: Post) -> Hook {
    Hook::new(config, post, &Arc::default())
}

fn stranger(user: &str, address: &str) -> Stranger {
    let from = Sender { user: user.into(), address: address.into(), ..Sender::default() };
    let connect = Connect { fingerprint: Bytes::from_static(b"f"), ..Connect::default() };
    Stranger { id: "01J".into(), time_ms: 1, gateway: "g1".into(), from, connect }
}

fn counted(hook: &Hook, result: &'static str) -> u64 {
    hook.metrics.answers.get_or_create(&HookLabels { result }).get()
}

#[tokio::test]
async fn what_the_service_says_is_the_verdict() {
    let (yes, _) = service(|| body(&json!({"accept": true, "user": "alice"})));
    let (no, _) = service(|| body(&json!({"accept": false, "status": 429, "code": "slow_down"})));
    let (denied, _) = service(|| Reply::Status(401));
    let (yes, no, denied) = (hook(&on(|_| ()), yes), hook(&on(|_| ()), no), hook(&on(|_| ()), denied));

    let accepted = yes.verdict(&stranger("", "192.0.2.1:1")).await;
    let refused = no.verdict(&stranger("", "192.0.2.1:1")).await;
    let by_status = denied.verdict(&stranger("", "192.0.2.1:1")).await;

    assert_eq!((accepted.status, accepted.user.as_str()), (0, "alice"));
    assert_eq!((refused.status, refused.code.as_str()), (429, "slow_down"));
    assert_eq!((by_status.status, by_status.code.as_str()), (401, "unauthorized"));
    assert_eq!((counted(&yes, "accepted"), counted(&no, "refused"), counted(&denied, "refused")), (1, 1, 1));
}

#[tokio::test]
async fn a_hook_that_fails_lets_nobody_in_unless_it_is_away_and_that_is_wanted() {
    let body = |text: &'static str| move || Reply::Body(text.into());
    let cases: [(Box<dyn Fn() -> Reply + Send + Sync>, bool); 9] = [
        (Box::new(|| Reply::Away("unreachable".into())), true),
        (Box::new(|| Reply::Status(500)), true),
        (Box::new(|| Reply::Status(503)), true),
        (Box::new(|| Reply::Status(302)), false),
        (Box::new(|| Reply::Status(404)), false),
        (Box::new(|| Reply::Status(429)), false),
        (Box::new(|| Reply::Failed("too much".into())), false),
        (Box::new(body("{\"accept\":true,\"user\":")), false),
        (Box::new(body("{\"accept\":true,\"rooms\":[\"*\"]}")), false),
    ];
    for (reply, may_open) in cases {
        let what = format!("{:?}", reply());
        let post = service(reply).0;
        let closed = hook(&on(|_| ()), Arc::clone(&post));
        let open = hook(&on(|c| c.fail_open = true), post);

        let (no, other) = (closed.verdict(&stranger("a", "")).await, open.verdict(&stranger("a", "")).await);

        assert_eq!((no.status, no.code.as_str()), (503, UNAVAILABLE), "{what}");
        assert_eq!(other, if may_open { Verdict::default() } else { no }, "as the token says, and no more: {what}");
        assert_eq!((counted(&closed, "failed"), counted(&open, "failed")), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_late_is_none() {
    let post: Post = Arc::new(|_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(101)).await;
            body(&json!({"accept": true}))
        })
    });
    let open = on(|c| (c.timeout_ms, c.fail_open) = (100, true));
    let (hook, open) = (hook(&on(|c| c.timeout_ms = 100), Arc::clone(&post)), hook(&open, post));
    let started = Instant::now();

    let verdict = hook.verdict(&stranger("a", "")).await;

    assert_eq!((verdict.status, started.elapsed()), (503, Duration::from_millis(100)));
    assert_eq!(open.verdict(&stranger("a", "")).await, Verdict::default());
}

#[tokio::test(start_paused = true)]
async fn an_answer_holds_for_the_same_client_and_its_time() {
    let (post, asked) = service(|| body(&json!({"accept": true})));
    let hook = hook(&on(|c| c.cache_ms = 1_000), post);
    let questions = || asked.load(Ordering::Relaxed);

    hook.verdict(&stranger("a", "192.0.2.1:1")).await;
    hook.verdict(&stranger("a", "192.0.2.1:2")).await;
    assert_eq!((questions(), counted(&hook, "cached")), (1, 1), "another port is the same client");
    hook.verdict(&stranger("b", "192.0.2.1:1")).await;
    hook.verdict(&stranger("a", "192.0.2.2:1")).await;
    let mut other_token = stranger("a", "192.0.2.1:1");
    other_token.connect.fingerprint = Bytes::from_static(b"g");
    hook.verdict(&other_token).await;
    assert_eq!(questions(), 4, "another user, address or token is another client");
    tokio::time::advance(Duration::from_secs(1)).await;
    hook.verdict(&stranger("a", "192.0.2.1:1")).await;

    assert_eq!(questions(), 5);
}

#[tokio::test]
async fn a_refusal_is_remembered_and_a_failure_is_not() {
    let (no, asked_no) = service(|| body(&json!({"accept": false})));
    let (broken, asked_broken) = service(|| Reply::Status(500));
    let config = on(|c| c.cache_ms = 60_000);
    let (no, broken) = (hook(&config, no), hook(&config, broken));

    for _ in 0..3 {
        no.verdict(&stranger("a", "")).await;
        broken.verdict(&stranger("a", "")).await;
    }

    assert_eq!((asked_no.load(Ordering::Relaxed), asked_broken.load(Ordering::Relaxed)), (1, 3));
    assert_eq!((no.remembered(), broken.remembered()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_oldest_answer_makes_room() {
    let (post, asked) = service(|| body(&json!({"accept": true})));
    let hook = hook(&on(|c| (c.cache_ms, c.cache_max) = (60_000, 2)), post);
    for user in ["a", "b", "c", "b"] {
        hook.verdict(&stranger(user, "192.0.2.1:1")).await;
    }

    hook.verdict(&stranger("a", "192.0.2.1:1")).await;

    assert_eq!((hook.remembered(), asked.load(Ordering::Relaxed), counted(&hook, "cached")), (2, 4, 1));
}

#[tokio::test(start_paused = true)]
async fn one_question_more_than_in_flight_is_a_failure_at_once() {
    let post: Post = Arc::new(|_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            body(&json!({"accept": true}))
        })
    });
    let hook = Arc::new(hook(&on(|c| (c.in_flight, c.fail_open) = (1, true)), post));
    let (first, second) = (stranger("a", ""), stranger("b", ""));

    let (first, second) = tokio::join!(hook.verdict(&first), hook.verdict(&second));

    assert_eq!((first.status, second.status), (0, 503), "a crowd opens nothing, though the hook may fail open");
}

#[test]
fn parts_of_a_client_do_not_run_into_each_other() {
    let mut device = stranger("a", "");
    device.from.device = "b".into();

    assert_ne!(client(&stranger("ab", "")), client(&device));
    assert_ne!(client(&stranger("a", "[2001:db8::1]:1")), client(&stranger("a", "[2001:db8::2]:1")));
}
