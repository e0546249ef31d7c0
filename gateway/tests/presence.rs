//! Who is here: counts of rooms, users and platforms, and the one frame a tick that tells members who comes and goes.

mod support;

use std::time::Instant;

use serde_json::Value;
use support::{Client, Logic, PATIENCE, gateway, until_asked};
use tidegate_protocol::records::{EventsReply, EventsRequest, QueryKind, QueryReply, QueryRequest, path};

async fn counts(logic: &mut Logic, room: &str) -> (u64, u64) {
    let request = QueryRequest { kind: QueryKind::Room.into(), room: room.into(), ..QueryRequest::default() };
    let reply: QueryReply = logic.ask(path::QUERY, &request).await.expect("an answer");
    reply.rooms.first().map_or((0, 0), |room| (room.online, room.users))
}

/// A user is counted once, from the first of its connections in the room to the last.
#[tokio::test]
async fn a_room_counts_connections_and_different_users() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let mut phone = Client::connect(&gateway, "?user=ann").await;
    let mut laptop = Client::connect(&gateway, "?user=ann").await;
    let mut stranger = Client::connect(&gateway, "").await;
    for client in [&mut phone, &mut laptop, &mut stranger] {
        client.join("r").await;
    }
    assert_eq!(counts(&mut logic, "r").await, (3, 1));

    phone.say(r#"{"type":"LEAVE","data":{"room":"r"}}"#).await;
    phone.next().await;
    assert_eq!(counts(&mut logic, "r").await, (2, 1));
    drop(laptop);

    let what = "the last connection of the user takes it out of the count";
    until_asked(what, PATIENCE, async || counts(&mut logic, "r").await == (1, 0)).await;
}

#[tokio::test]
async fn a_gateway_counts_its_platforms() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let clients = [Client::connect(&gateway, "?platform=ios").await, Client::connect(&gateway, "?platform=ios").await];
    let _web = Client::connect(&gateway, "?platform=web").await;
    let _none = Client::connect(&gateway, "").await;

    assert_eq!(platforms(&mut logic).await, [("web".into(), 1), ("ios".into(), 2)]);
    drop(clients);

    let left = [("web".into(), 1)];
    until_asked("who has left is not counted", PATIENCE, async || platforms(&mut logic).await == left).await;
}

async fn platforms(logic: &mut Logic) -> Vec<(String, u64)> {
    let request = EventsRequest { logic: 9, ..EventsRequest::default() };
    let reply: EventsReply = logic.ask(path::EVENTS, &request).await.expect("an answer");
    let info = reply.gateway.expect("the gateway's account of itself");
    info.platforms.into_iter().map(|p| (p.name, p.connections)).collect()
}

/// Rule P-3, by a gateway that no logic node follows.
#[tokio::test]
async fn members_are_told_once_a_tick_who_comes_and_goes() {
    const INTERVAL_MS: u32 = 200;
    let gateway = gateway(|config| {
        config.presence.rooms = vec!["chat:*".into()];
        config.presence.interval_ms = INTERVAL_MS;
        config.presence.sample = 2;
    })
    .await;
    let mut watcher = Client::connect(&gateway, "?user=watcher").await;
    watcher.join("chat:1").await;
    watcher.join("quiet").await;
    let first = watcher.next().await;
    assert_eq!(
        (&first["type"], &first["data"]["online"], &first["data"]["sample"][0]),
        (&"PRESENCE".into(), &1.into(), &"watcher".into())
    );

    let begun = Instant::now();
    let mut others = Vec::new();
    for n in 0..20 {
        let mut client = Client::connect(&gateway, &format!("?user=u{n}")).await;
        client.join("quiet").await;
        client.join("chat:1").await;
        others.push(client);
    }
    drop(others);

    let (mut joined, mut left, mut frames) = (0, 0, 0);
    let last = loop {
        let told = watcher.next().await;
        assert_eq!((&told["type"], &told["data"]["room"]), (&"PRESENCE".into(), &"chat:1".into()));
        assert!(told["data"]["sample"].as_array().map_or(0, Vec::len) <= 2, "{told}");
        joined += number(&told, "joined");
        left += number(&told, "left");
        frames += 1;
        if left == 20 {
            break told;
        }
    };
    assert_eq!((joined, number(&last, "online"), number(&last, "users")), (20, 1, 1));
    // Some were told in the tick that was going on.
    let ticks = begun.elapsed().as_millis() / u128::from(INTERVAL_MS) + 1;
    assert!(frames <= ticks, "{frames} frames in {ticks} ticks");
}

fn number(message: &Value, key: &str) -> u64 {
    message["data"][key].as_u64().unwrap_or_else(|| panic!("{key} in {message}"))
}
