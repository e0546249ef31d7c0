//! From the backplane to real sockets: who gets what, in which frames, with which numbers.

mod support;

use support::{Client, Logic, counted, gateway, metric, push};
use tidegate_protocol::records::target::To;
use tidegate_protocol::records::{Lane, Narrow, Push, WaitReply, WaitRequest, path};

/// Rules C-5 and M-1.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_everyone_reaches_every_connection() {
    let gateway = gateway(|_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(Client::connect(&gateway, "").await);
    }
    let mut logic = Logic::link(&gateway).await;

    let reply = logic.push(vec![push(To::All(true), &[r#"{"n":1}"#, "2"])]).await;

    assert_eq!(reply.receipts[0].matched, 50);
    for client in &mut clients {
        let message = client.next().await;
        assert_eq!(message["type"], "PUSH");
        assert_eq!(message["data"]["items"], serde_json::json!([{"n": 1}, 2]));
        assert_eq!(message["data"]["seq"], serde_json::json!([1, 2]));
    }
}

/// Rules R-1, R-4 and M-2.
#[tokio::test(flavor = "multi_thread")]
async fn only_members_get_a_rooms_push_and_numbers_go_on_from_joined() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let (mut a, mut b) = (Client::connect(&gateway, "").await, Client::connect(&gateway, "").await);
    assert_eq!(a.join("r").await["seq"], 0);
    logic.push(vec![push(To::Room("r".into()), &["1", "2"])]).await;
    assert_eq!(a.next().await["data"]["seq"], serde_json::json!([1, 2]));

    let joined = b.join("r").await;
    logic.push(vec![push(To::Room("r".into()), &["3"]), push(To::Room("nobody".into()), &["9"])]).await;

    assert_eq!(joined["seq"], 2);
    assert_eq!(joined["online"], 2);
    for client in [&mut a, &mut b] {
        let message = client.next().await;
        assert_eq!(message["data"]["room"], "r");
        assert_eq!(message["data"]["epoch"], joined["epoch"]);
        assert_eq!(message["data"]["seq"], serde_json::json!([3, 3]));
    }
}

/// Rule M-1: a user's push names no room, and its numbers are the user's.
#[tokio::test(flavor = "multi_thread")]
async fn a_users_push_reaches_all_its_connections_and_nobody_else() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let mut web = Client::connect(&gateway, "?user=ann&platform=web").await;
    let mut ios = Client::connect(&gateway, "?user=ann&platform=ios").await;
    let mut bob = Client::connect(&gateway, "?user=bob").await;
    assert_eq!(web.hello["user"], "ann");

    let mut only_ios = push(To::User("ann".into()), &["1"]);
    only_ios.narrow = Some(Narrow { platforms: vec!["ios".into()], ..Narrow::default() });
    let reply =
        logic.push(vec![only_ios, push(To::User("ann".into()), &["2"]), push(To::User("bob".into()), &["3"])]).await;

    assert_eq!(reply.receipts.iter().map(|r| r.matched).collect::<Vec<_>>(), [1, 2, 1]);
    assert_eq!(ios.next().await["data"]["items"][0], 1);
    let second = ios.next().await;
    assert_eq!((&second["data"]["user"], &second["data"]["items"][0]), (&true.into(), &2.into()));
    assert_eq!(web.next().await["data"]["items"][0], 2);
    assert_eq!(bob.next().await["data"]["items"][0], 3);
}

/// What arrives inside a window is one frame; `frames_encoded` counts ticks, not connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_encoded_once_a_tick() {
    let gateway = gateway(|c| (c.merge.min_ms, c.merge.max_ms) = (200, 200)).await;
    let mut logic = Logic::link(&gateway).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::connect(&gateway, "").await);
    }

    // One batch: the first push opens the window, and the others follow within a millisecond.
    logic.push((0..100).map(|n| push(To::All(true), &[&n.to_string()])).collect()).await;

    for client in &mut clients {
        let (mut got, mut frames) = (0, 0);
        while got < 100 {
            let message = client.next().await;
            for item in message["data"]["items"].as_array().expect("items") {
                assert_eq!(item, got);
                got += 1;
            }
            frames += 1;
        }
        assert!(frames <= 3, "{frames} frames");
    }
    let encoded = metric(&gateway, "tidegate_gateway_frames_encoded_total");
    assert!((2..=3).contains(&encoded), "{encoded}");
    counted(&gateway, "tidegate_gateway_frames_written_total", encoded * 20).await;
    counted(&gateway, "tidegate_gateway_messages_written_total", 2_000).await;
}

/// One write per connection per tick, however many rooms.
#[tokio::test(flavor = "multi_thread")]
async fn rooms_of_one_connection_leave_in_one_write() {
    let gateway = gateway(|c| (c.merge.min_ms, c.merge.max_ms) = (800, 800)).await;
    let mut logic = Logic::link(&gateway).await;
    let mut client = Client::connect(&gateway, "").await;
    for i in 0..20 {
        client.join(&format!("r{i}")).await;
    }
    // The second of two messages comes with the tick: what follows has a whole window before it.
    logic.push(vec![push(To::All(true), &["1"]), push(To::All(true), &["2"])]).await;
    client.next().await;
    client.next().await;
    let to_all = |n: &str| (0..20).map(|i| push(To::Room(format!("r{i}")), &[n])).collect::<Vec<_>>();
    // The first message of an idle room leaves at once, the second waits for the common tick.
    logic.push(to_all("1")).await;
    for _ in 0..20 {
        client.next().await;
    }
    let writes = || metric(&gateway, "tidegate_gateway_writes_total");
    // On a busy machine the walk may begin between two flushes of a tick, and takes the rest with a second write.
    let mut messages = 2 + 20;
    for round in 1.. {
        counted(&gateway, "tidegate_gateway_messages_written_total", messages).await;
        let before = writes();
        logic.push(to_all("2")).await;
        for _ in 0..20 {
            assert_eq!(client.next().await["data"]["items"][0], 2);
        }
        messages += 20;
        counted(&gateway, "tidegate_gateway_messages_written_total", messages).await;
        let took = writes() - before;
        if took == 1 {
            break;
        }
        assert!(took <= 3 && round < 5, "round {round}: {took} writes for 20 rooms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn urgent_takes_along_what_had_gathered_and_waits_for_nothing() {
    let gateway = gateway(|c| (c.merge.min_ms, c.merge.max_ms) = (1_000, 1_000)).await;
    let mut logic = Logic::link(&gateway).await;
    let mut client = Client::connect(&gateway, "").await;
    client.join("r").await;
    let (room, all) = (|n| push(To::Room("r".into()), &[n]), |n| push(To::All(true), &[n]));
    let urgent = Push { lane: Lane::Urgent.into(), ..all("5") };

    // The first message of each target opens its window and leaves. What comes last shows how long a window's end takes.
    logic.push(vec![room("1"), room("6"), all("2"), all("4"), urgent]).await;

    let mut items = Vec::new();
    for _ in 0..5 {
        items.push(client.next().await["data"]["items"][0].clone());
    }
    assert_eq!(items, [1, 2, 4, 5, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sent_again_is_answered_and_not_applied() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let mut client = Client::connect(&gateway, "").await;
    let first = logic.push(vec![push(To::All(true), &["1"])]).await;

    let again = logic.repeat(vec![push(To::All(true), &["1"])]).await;
    logic.push(vec![push(To::All(true), &["2"])]).await;

    assert_eq!(again.expect("answered"), first);
    assert_eq!(client.next().await["data"]["items"][0], 1);
    assert_eq!(client.next().await["data"]["items"][0], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_when_everyone_has_been_written_to() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let _clients = [Client::connect(&gateway, "").await, Client::connect(&gateway, "").await];
    let mut waited = push(To::All(true), &["1"]);
    waited.wait_written = true;

    let ticket = logic.push(vec![waited]).await.receipts[0].ticket;
    let wait = WaitRequest { tickets: vec![ticket], timeout_ms: 3_000 };
    let reply: WaitReply = logic.ask(path::WAIT, &wait).await.expect("answered");

    assert!(reply.outcomes[0].is_done);
    assert_eq!(reply.outcomes[0].written, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_one_bad_push_is_refused_whole() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let mut client = Client::connect(&gateway, "").await;
    logic.push(vec![push(To::All(true), &["1"])]).await;

    let bad = logic.repeat(vec![push(To::All(true), &["8"]), push(To::All(true), &[])]).await;
    logic.push(vec![push(To::All(true), &["2"])]).await;

    assert_eq!(bad, Err(400));
    assert_eq!(client.next().await["data"]["items"][0], 1);
    assert_eq!(client.next().await["data"]["items"][0], 2);
}

/// Rules S-3 and M-2: a ready-made message is a frame of its own, urgent, and takes no number.
#[tokio::test(flavor = "multi_thread")]
async fn a_ready_made_message_passes_the_window_and_the_numbering() {
    let gateway = gateway(|c| (c.merge.min_ms, c.merge.max_ms) = (200, 200)).await;
    let mut logic = Logic::link(&gateway).await;
    let mut ann = Client::connect(&gateway, "?user=ann&platform=web").await;
    ann.join("r").await;
    let control = |to| Push { control: r#"{"type":"COMMAND","id":"c"}"#.into(), ..push(to, &[]) };
    let (room, user) = (|| To::Room("r".into()), || To::User("ann".into()));

    let pushes = vec![
        push(room(), &["1"]),
        push(room(), &["2"]),
        control(room()),
        control(user()),
        control(To::All(true)),
        control(To::User("nobody".into())),
        push(room(), &["3"]),
    ];
    let reply = logic.push(pushes).await;

    assert_eq!(reply.receipts.iter().map(|r| r.matched).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 0, 1]);
    let named: Vec<_> = reply.receipts.iter().map(|r| r.connections.len()).collect();
    assert_eq!(named, [0, 0, 0, 1, 0, 0, 0], "who was sent a ready-made message for a user is named");
    assert_eq!(ann.next().await["data"]["seq"], serde_json::json!([1, 1]));
    for _ in 0..3 {
        assert_eq!(ann.next().await, serde_json::json!({"type": "COMMAND", "id": "c"}));
    }
    assert_eq!(ann.next().await["data"]["seq"], serde_json::json!([2, 3]));
}

/// The names in a receipt are bounded: a user with more connections is sent a ready-made message as a whole, and nobody is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_many_connections_gets_a_ready_made_message_without_being_named() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let control = || Push { control: r#"{"type":"COMMAND"}"#.into(), ..push(To::User("ann".into()), &[]) };
    let mut clients = Vec::new();
    for _ in 0..64 {
        clients.push(Client::connect(&gateway, "?user=ann").await);
    }

    let few = logic.push(vec![control()]).await;
    clients.push(Client::connect(&gateway, "?user=ann").await);
    let many = logic.push(vec![control()]).await;

    let counts = [few, many].map(|reply| (reply.receipts[0].matched, reply.receipts[0].connections.len()));
    assert_eq!(counts, [(64, 64), (65, 0)]);
    for client in &mut clients {
        assert_eq!(client.next().await["type"], "COMMAND");
    }
}

/// A waiter for a ready-made message hears of its write; one that nobody can be meant by is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_ready_made_message_can_be_waited_for_and_narrowed() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let mut web = Client::connect(&gateway, "?user=ann&platform=web").await;
    let _ios = Client::connect(&gateway, "?user=ann&platform=ios").await;
    let narrow = Some(Narrow { platforms: vec!["web".into()], ..Narrow::default() });
    let control = Push {
        control: r#"{"type":"COMMAND"}"#.into(),
        narrow,
        wait_written: true,
        ..push(To::User("ann".into()), &[])
    };

    let reply = logic.push(vec![control]).await;
    let ticket = reply.receipts[0].ticket;
    let request = WaitRequest { tickets: vec![ticket], timeout_ms: 5_000 };
    let waited: WaitReply = logic.ask(path::WAIT, &request).await.expect("a reply");

    assert_eq!(reply.receipts[0].matched, 1);
    assert_eq!(web.next().await["type"], "COMMAND");
    assert_eq!((waited.outcomes[0].is_done, waited.outcomes[0].written), (true, 1));
}
