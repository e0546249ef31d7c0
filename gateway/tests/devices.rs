//! One user, many devices: who stays and who goes when another connection of the user comes.

mod support;

use bytes::Bytes;
use serde_json::json;
use support::tokens::{config, good};
use support::{Client, Logic, PATIENCE, gateway, metric, until_asked};
use tidegate_gateway::{DevicePolicy, Gateway, GatewayConfig};
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::records::answer::Outcome;
use tidegate_protocol::records::item::What;
use tidegate_protocol::records::{
    Answer, Answers, Claim, CommandReply, CommandRequest, Declined, DeviceRule, Item, Newcomer, UplinkReply,
    UplinkRequest, Wants, path,
};

async fn guarded(change: impl FnOnce(&mut GatewayConfig)) -> Gateway {
    gateway(|c| {
        c.auth = config();
        change(c);
    })
    .await
}

fn token(platform: &str, device: Option<&str>) -> String {
    match device {
        Some(device) => good(&json!({"plat": platform, "dev": device, "rooms": ["*"]})),
        None => good(&json!({"plat": platform, "rooms": ["*"]})),
    }
}

/// The answer's status and body, of a handshake that is to be refused.
async fn refused(gateway: &Gateway, token: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer {token}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("open");
    let mut text = String::new();
    tokio::time::timeout(support::PATIENCE, socket.read_to_string(&mut text))
        .await
        .expect("in time")
        .expect("politely");
    text
}

/// Rule C-7.
#[tokio::test(flavor = "multi_thread")]
async fn all_devices_stay_where_nothing_else_is_said() {
    let gateway = guarded(|_| {}).await;
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(Client::bearing(&gateway, &token("ios", None)).await);
    }
    for (n, client) in all.iter_mut().enumerate() {
        assert_eq!(client.join("a").await["online"], n as u64 + 1);
    }
}

/// Rule C-7.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_replaces_those_of_its_platform_and_device() {
    let gateway = guarded(|c| {
        c.devices.platforms.insert("ios".into(), DevicePolicy::KeepNewest);
    })
    .await;
    let mut web = Client::bearing(&gateway, &token("web", None)).await;
    let mut other = Client::bearing(&gateway, &good(&json!({"sub": "bob", "plat": "ios", "rooms": ["*"]}))).await;
    let mut phone = Client::bearing(&gateway, &token("ios", Some("phone"))).await;
    let mut tablet = Client::bearing(&gateway, &token("ios", Some("tablet"))).await;

    let mut newer = Client::bearing(&gateway, &token("ios", Some("phone"))).await;
    assert_eq!(phone.closed_because().await, (3503, r#"{"reason":"replaced"}"#.into()));
    assert_eq!(tablet.join("a").await["online"], 1, "another device of that platform");
    let mut nameless = Client::open(&gateway, "", None).await;
    nameless.auth(&token("ios", None)).await;
    let mut nameless = nameless.greeted().await;

    assert_eq!((newer.closed().await, tablet.closed().await), (3503, 3503), "no device: it is for the platform");
    for client in [&mut web, &mut other, &mut nameless] {
        client.join("b").await;
    }
}

/// Rule C-7.
#[tokio::test(flavor = "multi_thread")]
async fn the_older_one_stays_where_newer_ones_are_refused() {
    let gateway = guarded(|c| c.devices.policy = DevicePolicy::RefuseNewer).await;
    let first = Client::bearing(&gateway, &token("tv", None)).await;

    let answer = refused(&gateway, &token("tv", None)).await;
    let mut by_message = Client::open(&gateway, "", None).await;
    by_message.auth(&token("tv", Some("x"))).await;

    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("\"device_present\""), "{answer}");
    assert_eq!(by_message.next().await["data"]["code"], "device_present");
    assert_eq!(by_message.closed_because().await, (3503, r#"{"reason":"device_present"}"#.into()));
    Client::bearing(&gateway, &token("web", None)).await;
    drop(first);
    until_asked("the place is free once the first has gone", PATIENCE, async || {
        let mut client = Client::open(&gateway, "", None).await;
        client.auth(&token("tv", None)).await;
        client.next().await["type"] != "ERROR"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_connections_on_one_platform_are_bounded() {
    let gateway = guarded(|c| c.devices.max = 2).await;
    let _first = Client::bearing(&gateway, &token("ios", Some("1"))).await;
    let _second = Client::bearing(&gateway, &token("ios", Some("2"))).await;

    let answer = refused(&gateway, &token("ios", Some("3"))).await;

    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("\"device_limit\""), "{answer}");
    Client::bearing(&gateway, &token("web", None)).await;
}

/// What a logic node that judges, or one that does not know how, is told. The first request's answer only names the epoch.
async fn told(logic: &mut Logic, devices: bool, epoch: u64) -> UplinkReply {
    let wants = Some(Wants { devices, ..Wants::default() });
    let request = UplinkRequest { logic: 7, epoch, hold_ms: 50, wants, ..UplinkRequest::default() };
    logic.ask(path::UPLINK, &request).await.expect("an answer")
}

fn claim_of(item: &Item) -> Claim {
    match &item.what {
        Some(What::Device(claim)) => *claim,
        other => panic!("a claim was due, not {other:?}"),
    }
}

async fn newcomer(logic: &mut Logic, rule: DeviceRule, since_ms: u64, id: u128, device: &str) -> CommandReply {
    let newcomer = Newcomer {
        connection: Bytes::copy_from_slice(&id.to_be_bytes()),
        user: "ann".into(),
        platform: "ios".into(),
        device: device.into(),
        claim: Some(Claim { rule: rule.into(), since_ms }),
    };
    let request = CommandRequest { newcomer: Some(newcomer), ..CommandRequest::default() };
    logic.ask(path::COMMAND, &request).await.expect("the order is well formed")
}

/// Rule C-7: who is compared with a newcomer at another gateway goes or stays by opening time, then by id.
#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_elsewhere_closes_who_loses_and_hears_of_who_wins() {
    for (rule, reason) in [(DeviceRule::KeepNewest, "replaced"), (DeviceRule::RefuseNewer, "device_present")] {
        let gateway = guarded(|c| c.devices.policy = DevicePolicy::KeepNewest).await;
        let mut logic = Logic::link(&gateway).await;
        let epoch = told(&mut logic, true, 0).await.epoch;
        let mut phone = Client::bearing(&gateway, &token("ios", Some("phone"))).await;
        let items = told(&mut logic, true, epoch).await.items;
        let since_ms = claim_of(&items[0]).since_ms;
        let id =
            u128::from_be_bytes(items[0].from.as_ref().expect("a sender").connection[..].try_into().expect("an id"));
        // What wins and what loses against the connection that is here, by a millisecond and by an id.
        let (winner, loser) = match rule {
            DeviceRule::KeepNewest => ([(since_ms + 1, id - 1), (since_ms, id + 1)], (since_ms, id - 1)),
            DeviceRule::RefuseNewer => ([(since_ms - 1, id + 1), (since_ms, id - 1)], (since_ms, id + 1)),
        };

        let same = newcomer(&mut logic, rule, since_ms, id, "phone").await;
        let other_device = newcomer(&mut logic, rule, winner[0].0, winner[0].1, "tablet").await;
        let weaker = newcomer(&mut logic, rule, loser.0, loser.1, "phone").await;
        phone.join("a").await;
        let stronger = newcomer(&mut logic, rule, winner[1].0, winner[1].1, "").await;

        let counts = |reply: &CommandReply| (reply.closed, reply.stronger);
        assert_eq!((counts(&same), counts(&other_device)), ((0, 0), (0, 0)));
        assert_eq!((counts(&weaker), counts(&stronger)), ((0, 1), (1, 0)));
        assert_eq!(phone.closed_because().await, (3503, format!("{{\"reason\":\"{reason}\"}}")));
    }
}

/// Rule C-7: a connection claims its place once, under a policy that has one, and goes when it is told that another wins.
#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_claims_its_place_and_yields_it() {
    let gateway = guarded(|c| {
        c.devices.platforms.insert("ios".into(), DevicePolicy::RefuseNewer);
    })
    .await;
    let mut logic = Logic::link(&gateway).await;
    let epoch = told(&mut logic, true, 0).await.epoch;
    let _web = Client::bearing(&gateway, &token("web", None)).await;
    let mut phone = Client::bearing(&gateway, &token("ios", Some("phone"))).await;

    let items = told(&mut logic, true, epoch).await.items;
    let declined = Declined { code: "device_present".into(), ..Declined::default() };
    let answer = Answer { sequence: items[0].sequence, outcome: Some(Outcome::Refused(declined)) };
    let _: Answers =
        logic.ask(path::ANSWERS, &Answers { logic: 7, epoch, answers: vec![answer] }).await.expect("taken");

    assert_eq!(items.len(), 1, "the web needs no claim: {items:?}");
    let from = items[0].from.as_ref().expect("a sender");
    assert_eq!((from.user.as_str(), from.platform.as_str(), from.device.as_str()), ("ann", "ios", "phone"));
    let id: ConnectionId = phone.hello["connection"].as_str().expect("an id").parse().expect("an id");
    assert_eq!(from.connection, id.to_u128().to_be_bytes()[..]);
    assert_eq!(claim_of(&items[0]).rule(), DeviceRule::RefuseNewer);
    assert_eq!(phone.closed_because().await, (3503, r#"{"reason":"device_present"}"#.into()));
}

/// One that does not know what a claim is would never answer it.
#[tokio::test(flavor = "multi_thread")]
async fn a_logic_node_that_does_not_judge_is_told_of_no_claim() {
    let gateway = guarded(|c| c.devices.policy = DevicePolicy::KeepNewest).await;
    let mut logic = Logic::link(&gateway).await;
    let epoch = told(&mut logic, false, 0).await.epoch;
    let _phone = Client::bearing(&gateway, &token("ios", None)).await;

    assert_eq!(told(&mut logic, false, epoch).await.items.len(), 0);
}

/// Architecture, bounds: half of the uplink is for what clients say.
#[tokio::test(flavor = "multi_thread")]
async fn claims_give_way_to_what_clients_say() {
    let gateway = guarded(|c| {
        c.devices.policy = DevicePolicy::KeepNewest;
        c.uplink.items = 4;
    })
    .await;
    // A logic node that judges, and never answers.
    let mut logic = Logic::link(&gateway).await;
    let wants = Wants { devices: true, ..Wants::default() };
    let request = UplinkRequest { logic: 7, wants: Some(wants), ..UplinkRequest::default() };
    let _: UplinkReply = logic.ask(path::UPLINK, &request).await.expect("an answer");
    let mut all = Vec::new();
    for user in ["a", "b", "c", "d", "e"] {
        all.push(Client::bearing(&gateway, &good(&json!({"sub": user, "rooms": ["*"]}))).await);
    }

    assert_eq!(metric(&gateway, "tidegate_gateway_claims_dropped_total"), 2);
    assert_eq!(metric(&gateway, "tidegate_gateway_uplink_items_total"), 3);
}
