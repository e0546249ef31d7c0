//! Chat from client to client (rule S-1), over one gateway and over two, and what happens when the logic tier is away.

mod support;

use serde_json::{Value, json};
use support::{Client, PATIENCE, Server, until};

fn to_room(id: u32, room: &str, data: &Value) -> Value {
    json!({"type": "SEND", "id": id, "data": {"to": {"room": room}, "data": data}})
}

fn to_user(id: u32, user: &str, data: &Value) -> Value {
    json!({"type": "SEND", "id": id, "data": {"to": {"user": user}, "data": data}})
}

/// The next SENT or ERROR and the items of PUSHes before it.
async fn answer_of(client: &mut Client) -> (Value, Vec<Value>) {
    let mut items = Vec::new();
    loop {
        let message = client.next_json().await;
        match message["type"].as_str() {
            Some("PUSH") => items.extend(message["data"]["items"].as_array().expect("rule M-1").iter().cloned()),
            _ => return (message, items),
        }
    }
}

/// Rule S-1: members of a room hear who spoke; the sender gets the message's id, and hears itself unless it asks not to.
#[tokio::test]
async fn a_message_to_a_room_carries_its_senders_name_to_every_gateway() {
    let gateways = [Server::gateway("g0", &[]).await, Server::gateway("g1", &[]).await];
    let _logic = Server::logic(&[&gateways[0], &gateways[1]], &[]).await;
    let mut alice = Client::named(gateways[0].clients(), "alice", "web").await;
    let mut bob = Client::named(gateways[1].clients(), "bob", "web").await;
    let mut nobody = Client::connect(gateways[1].clients()).await;
    for client in [&mut alice, &mut bob, &mut nobody] {
        client.join("chat:1").await;
    }

    let image = json!({"kind": "image", "url": "https://example.com/a.png", "from": "mallory"});
    alice.say(to_room(7, "chat:1", &image)).await;
    let (sent, mut echoed) = answer_of(&mut alice).await;
    let heard = bob.items(1).await;
    if echoed.is_empty() {
        echoed = alice.items(1).await;
    }

    assert_eq!((&sent["type"], &sent["id"]), (&json!("SENT"), &json!(7)), "{sent}");
    assert_eq!((&heard[0]["from"], &heard[0]["data"], &heard[0]["id"]), (&json!("alice"), &image, &sent["data"]["id"]));
    assert_eq!(echoed, heard);
    assert_eq!(nobody.items(1).await, heard);

    let quiet = json!({"type": "SEND", "id": 8, "data": {"to": {"room": "chat:1"}, "data": 2, "echo": false}});
    nobody.say(quiet).await;
    let (sent, echoed) = answer_of(&mut nobody).await;
    assert_eq!((sent["type"].as_str(), echoed.len()), (Some("SENT"), 0));
    let heard = alice.items(1).await;
    assert_eq!((&heard[0]["from"], &heard[0]["connection"]), (&Value::Null, &json!(nobody.id())));
}

/// Rule S-1: single chat, by user and by connection.
#[tokio::test]
async fn a_message_to_one_reaches_it_or_says_that_it_is_offline() {
    let server = Server::serve(&[]).await;
    let mut alice = Client::named(server.clients(), "alice", "web").await;
    let mut bob = Client::named(server.clients(), "bob", "web").await;
    let mut phone = Client::named(server.clients(), "bob", "ios").await;

    alice.say(to_user(1, "bob", &json!("hi"))).await;
    assert_eq!(answer_of(&mut alice).await.0["type"], "SENT");
    assert_eq!(bob.items(1).await, phone.items(1).await);

    let to_phone = json!({"type": "SEND", "id": 2, "data": {"to": {"connection": phone.id()}, "data": 2}});
    alice.say(to_phone).await;
    assert_eq!(answer_of(&mut alice).await.0["type"], "SENT");
    assert_eq!(phone.items(1).await[0]["data"], 2);

    alice.say(to_user(3, "carol", &json!("anyone?"))).await;
    let (refused, _) = answer_of(&mut alice).await;
    assert_eq!((&refused["id"], &refused["data"]["code"]), (&json!(3), &json!("offline")));
}

/// `logic.dedupe.keys_max` holds for each kind alone.
#[tokio::test]
async fn nonces_of_clients_do_not_push_out_keys_of_publishers() {
    let server = Server::serve(&[("TIDEGATE_LOGIC__DEDUPE__KEYS_MAX", "4")]).await;
    let mut api = server.connect_api().await;
    let mut alice = Client::named(server.clients(), "alice", "web").await;
    let push = json!({"to": {"all": true}, "message": "once", "dedupe": "order-7"});
    let first = api.push(push.clone()).await;
    alice.items(1).await;

    for n in 0..4 {
        let data = json!({"to": {"room": "r"}, "data": n, "nonce": format!("n{n}")});
        alice.say(json!({"type": "SEND", "data": data})).await;
        answer_of(&mut alice).await;
    }
    let again = api.push(push).await;

    assert_eq!(again["id"], first["id"]);
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("tidegate_logic_nonces"), 2, "one sender has half of the room, and its oldest made some");
    assert_eq!(metrics.sum("tidegate_logic_dedupe_keys"), 1);
}

/// Rule S-1: a retry with the same nonce, also from another connection of the user, sends nothing and gets the first SENT.
#[tokio::test]
async fn a_nonce_makes_a_retry_harmless() {
    let server = Server::serve(&[]).await;
    let mut bob = Client::named(server.clients(), "bob", "web").await;
    let mut alice = Client::named(server.clients(), "alice", "web").await;
    let mut again = Client::named(server.clients(), "alice", "ios").await;
    let mut mallory = Client::named(server.clients(), "mallory", "web").await;
    let request = |data: u32| json!({"type": "SEND", "data": {"to": {"user": "bob"}, "data": data, "nonce": "n1"}});

    alice.say(request(1)).await;
    let (first, _) = answer_of(&mut alice).await;
    again.say(request(2)).await;
    let (second, _) = answer_of(&mut again).await;
    mallory.say(request(3)).await;
    let (other, _) = answer_of(&mut mallory).await;

    assert_eq!(first["data"]["id"], second["data"]["id"], "{first} {second}");
    assert_ne!(first["data"]["id"], other["data"]["id"], "nonces are each user's own");
    let heard = bob.items(2).await;
    assert_eq!(heard.iter().map(|item| item["data"].clone()).collect::<Vec<_>>(), [1, 3]);
}

/// Rule S-1: what found nobody was not sent, so that its retry is.
#[tokio::test]
async fn a_nonce_that_found_nobody_may_be_used_again() {
    let server = Server::serve(&[]).await;
    let mut alice = Client::named(server.clients(), "alice", "web").await;
    let request = json!({"type": "SEND", "data": {"to": {"user": "bob"}, "data": 1, "nonce": "n1"}});

    alice.say(request.clone()).await;
    assert_eq!(answer_of(&mut alice).await.0["data"]["code"], "offline");
    let mut bob = Client::named(server.clients(), "bob", "web").await;
    alice.say(request).await;

    assert_eq!(answer_of(&mut alice).await.0["type"], "SENT");
    assert_eq!(bob.items(1).await[0]["data"], 1);
}

/// Messages of one sender arrive in the order in which they were sent.
#[tokio::test]
async fn messages_of_one_sender_keep_their_order() {
    let server = Server::serve(&[
        ("TIDEGATE_GATEWAY__LIMITS__REQUESTS_PER_S", "0"),
        ("TIDEGATE_GATEWAY__LIMITS__USER_SENDS_PER_S", "0"),
    ])
    .await;
    let mut bob = Client::named(server.clients(), "bob", "web").await;
    let mut alice = Client::named(server.clients(), "alice", "web").await;
    bob.join("r").await;

    for number in 0..2_000 {
        alice.say(to_room(number, "r", &json!(number))).await;
    }

    let heard: Vec<u64> = bob.items(2_000).await.iter().filter_map(|item| item["data"].as_u64()).collect();
    assert!(heard.iter().copied().eq(0..2_000), "{heard:?}");
    for _ in 0..2_000 {
        assert_eq!(answer_of(&mut alice).await.0["type"], "SENT");
    }
}

/// The bounds of `gateway.limits`: requests of a connection, and SENDs of a user on all its connections.
#[tokio::test]
async fn too_many_requests_are_refused_with_the_time_to_wait() {
    let server = Server::serve(&[
        ("TIDEGATE_GATEWAY__LIMITS__REQUESTS_PER_S", "2"),
        ("TIDEGATE_GATEWAY__LIMITS__REQUESTS_BURST", "5"),
        ("TIDEGATE_GATEWAY__LIMITS__USER_SENDS_PER_S", "1"),
        ("TIDEGATE_GATEWAY__LIMITS__USER_SENDS_BURST", "3"),
    ])
    .await;
    let _bob = Client::named(server.clients(), "bob", "web").await;
    let mut one = Client::named(server.clients(), "alice", "web").await;
    let mut two = Client::named(server.clients(), "alice", "ios").await;
    let mut carol = Client::named(server.clients(), "carol", "web").await;

    for is_first in [true, false, true] {
        let client = if is_first { &mut one } else { &mut two };
        client.say(to_user(1, "bob", &json!(1))).await;
        assert_eq!(answer_of(client).await.0["type"], "SENT");
    }
    two.say(to_user(2, "bob", &json!(1))).await;
    let (refused, _) = answer_of(&mut two).await;
    assert_eq!((&refused["data"]["code"], &refused["data"]["retryable"]), (&json!("rate"), &json!(true)), "{refused}");
    let wait_ms = refused["data"]["retry_after_ms"].as_u64().expect("says when");
    assert!((1..=1_000).contains(&wait_ms), "{refused}");

    for _ in 0..5 {
        assert_eq!(carol.ask(json!({"type": "PING"})).await["type"], "PONG");
    }
    let refused = carol.ask(json!({"type": "JOIN", "id": 9, "data": {"room": "r"}})).await;
    assert_eq!((&refused["id"], &refused["data"]["code"]), (&json!(9), &json!("rate")), "{refused}");
    assert_eq!(server.metrics().await.sum("tidegate_gateway_rate_refused_total"), 1);
}

/// What is said while no logic node is there waits for one, and is answered when none comes.
#[tokio::test]
async fn what_is_said_while_logic_is_away_waits_for_it() {
    let patient = Server::gateway_alone("g0", &[]).await;
    let hasty = Server::gateway_alone("g1", &[("TIDEGATE_GATEWAY__UPLINK__WAIT_MS", "300")]).await;
    let mut alice = Client::named(patient.clients(), "alice", "web").await;
    alice.join("r").await;
    alice.say(to_room(1, "r", &json!(1))).await;
    let mut bob = Client::named(hasty.clients(), "bob", "web").await;
    bob.say(to_room(2, "r", &json!(1))).await;

    let (refused, _) = answer_of(&mut bob).await;
    let logic = Server::logic(&[&patient], &[]).await;
    let (sent, _) = answer_of(&mut alice).await;

    assert_eq!((&refused["data"]["code"], &refused["data"]["retryable"]), (&json!("unavailable"), &json!(true)));
    assert_eq!(sent["type"], "SENT", "{sent}");
    drop(logic);
}

/// The bound of `gateway.uplink.items`.
#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let gateway = Server::gateway_alone("g0", &[("TIDEGATE_GATEWAY__UPLINK__ITEMS", "3")]).await;
    let mut clients = Vec::new();
    for number in 0..4 {
        let client = Client::connect(gateway.clients()).await;
        client.say(to_room(number, "r", &json!(1))).await;
        until("it is kept or refused", PATIENCE, async || {
            let kept = gateway.metrics().await.sum("tidegate_gateway_uplink_kept");
            (kept == u64::from(number + 1).min(3)).then_some(())
        })
        .await;
        clients.push(client);
    }

    let (refused, _) = answer_of(&mut clients[3]).await;
    assert_eq!((&refused["id"], &refused["data"]["code"]), (&json!(3), &json!("overloaded")), "{refused}");
    clients[0].say(to_room(9, "r", &json!(1))).await;
    let (refused, _) = answer_of(&mut clients[0]).await;
    assert_eq!((&refused["id"], &refused["data"]["code"]), (&json!(9), &json!("overloaded")), "{refused}");
    assert_eq!(gateway.metrics().await.sum("tidegate_gateway_uplink_kept"), 3);
}

/// A logic node that dies with a message unanswered: the gateway hands it to the next.
#[tokio::test]
async fn a_message_outlives_the_logic_node_that_had_it() {
    let gateway = Server::gateway("g0", &[]).await;
    let mut logic = Server::logic(&[&gateway], &[]).await;
    let mut alice = Client::named(gateway.clients(), "alice", "web").await;
    alice.join("r").await;
    alice.say(to_room(0, "r", &json!(0))).await;
    assert_eq!(answer_of(&mut alice).await.0["type"], "SENT");

    logic.kill();
    for number in 1..=20 {
        alice.say(to_room(number, "r", &json!(number))).await;
    }
    let logic = logic.restart().await;

    let mut answered = Vec::new();
    for _ in 1..=20 {
        let (sent, _) = answer_of(&mut alice).await;
        assert_eq!(sent["type"], "SENT", "{sent}");
        answered.push(sent["id"].as_u64());
    }
    answered.sort_unstable();
    assert!(answered.into_iter().flatten().eq(1..=20));
    drop(logic);
}
