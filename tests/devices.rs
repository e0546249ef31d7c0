//! Which of a user's connections stay when they are at several gateways (rule C-7), with the real binary: two gateways and a
//! logic node between them. What holds at one gateway is tested at the gateway (`gateway/tests/devices.rs`).

mod support;

use std::net::SocketAddr;

use serde_json::{Value, json};
use support::{Client, Ending, Event, PATIENCE, Raw, Server, get_request, masked, tokens};

/// Races of two newcomers: enough that an order of events with one chance in twenty is met.
const RACES: usize = 50;

async fn fleet(policy: &str) -> ([Server; 2], Server) {
    let mut env = tokens::required().to_vec();
    env.push(("TIDEGATE_GATEWAY__DEVICES__POLICY", policy));
    let gateways = [Server::gateway("g0", &env).await, Server::gateway("g1", &env).await];
    let logic = Server::logic(&[&gateways[0], &gateways[1]], &[]).await;
    (gateways, logic)
}

fn token(user: &str, platform: &str, device: Option<&str>) -> String {
    let mut claims = json!({"sub": user, "plat": platform, "rooms": ["*"]});
    if let Some(device) = device {
        claims["dev"] = device.into();
    }
    tokens::mint(claims)
}

/// Let in; what then comes first, HELLO or the end, is left open.
async fn entered(address: SocketAddr, token: &str) -> Raw {
    let mut raw = Raw::connect(address).await;
    raw.write(get_request(&format!("/ws?token={token}"), "").as_bytes()).await.expect("a fresh socket takes a request");
    let head = raw.head().await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    raw
}

/// Its close frame, when it comes to that.
async fn ended(raw: &mut Raw) -> (u16, String) {
    match raw.ending().await {
        Ending::Closed(code, text) => (code, text),
        Ending::Dropped => panic!("without a word"),
    }
}

/// Answers, after whatever else has come before.
async fn lives(raw: &mut Raw) -> bool {
    raw.write(&masked(0x81, br#"{"type":"PING","id":"alive"}"#)).await.expect("the socket is open");
    while let Some((opcode, payload)) = raw.frame(PATIENCE).await {
        if opcode == 8 {
            return false;
        }
        let message: Value = serde_json::from_slice(&payload).unwrap_or_default();
        if message["type"] == "PONG" {
            return true;
        }
    }
    false
}

/// Rule C-7.
#[tokio::test]
async fn the_newest_replaces_its_like_at_another_gateway() {
    let ([here, there], _logic) = fleet("keep_newest").await;
    let mut phone = Client::bearing(here.clients(), &token("ann", "ios", Some("phone"))).await;
    let mut tablet = Client::bearing(here.clients(), &token("ann", "ios", Some("tablet"))).await;
    let mut web = Client::bearing(here.clients(), &token("ann", "web", None)).await;
    let mut bob = Client::bearing(here.clients(), &token("bob", "ios", Some("phone"))).await;
    for client in [&mut phone, &mut tablet, &mut web, &mut bob] {
        client.join("a").await;
    }

    let mut newer = Client::bearing(there.clients(), &token("ann", "ios", Some("phone"))).await;
    let ending = phone.ending().await.event;
    for client in [&mut newer, &mut tablet, &mut web, &mut bob] {
        client.join("b").await;
    }
    let _back = Client::bearing(here.clients(), &token("ann", "ios", Some("phone"))).await;

    let replaced = Event::Closed(3503, r#"{"reason":"replaced"}"#.into());
    assert_eq!(ending, replaced);
    assert_eq!(newer.ending().await.event, replaced, "and so on, back and forth");
}

/// Rule C-7.
#[tokio::test]
async fn a_newer_one_is_sent_away_from_another_gateway_where_the_older_stays() {
    let ([here, there], _logic) = fleet("refuse_newer").await;
    let mut first = Client::bearing(here.clients(), &token("ann", "tv", None)).await;
    first.join("a").await;

    let mut second = entered(there.clients(), &token("ann", "tv", None)).await;
    let ending = ended(&mut second).await;

    assert_eq!(ending, (3503, r#"{"reason":"device_present"}"#.into()));
    first.join("b").await;
    Client::bearing(there.clients(), &token("ann", "web", None)).await.join("a").await;
}

/// Of two newcomers at the same moment exactly one is there in the end, whoever it is.
async fn races(policy: &str, reason: &str) {
    let ([here, there], _logic) = fleet(policy).await;
    let mut survivors = Vec::new();
    for race in 0..RACES {
        let token = token(&format!("user-{race}"), "ios", None);
        let (mut one, mut other) = tokio::join!(entered(here.clients(), &token), entered(there.clients(), &token));
        let (ending, is_one) = tokio::select! {
            ending = ended(&mut one) => (ending, false),
            ending = ended(&mut other) => (ending, true),
        };
        assert_eq!(ending, (3503, format!("{{\"reason\":\"{reason}\"}}")), "race {race}");
        survivors.push(if is_one { one } else { other });
    }
    for (race, survivor) in survivors.iter_mut().enumerate() {
        assert!(lives(survivor).await, "race {race}: nobody is left");
    }
}

/// Rule C-7.
#[tokio::test]
async fn of_two_at_once_one_is_left_where_the_newest_stays() {
    races("keep_newest", "replaced").await;
}

/// Rule C-7.
#[tokio::test]
async fn of_two_at_once_one_is_left_where_newer_ones_are_refused() {
    races("refuse_newer", "device_present").await;
}
