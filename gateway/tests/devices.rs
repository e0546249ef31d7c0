//! One user, many devices: who stays and who goes when another connection of the user comes.

mod support;

use serde_json::json;
use support::tokens::{config, good};
use support::{Client, gateway};
use tidegate_gateway::{DevicePolicy, Gateway, GatewayConfig};

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
    let begun = std::time::Instant::now();
    while refused_or_open(&gateway).await {
        assert!(begun.elapsed() < support::PATIENCE, "the place is free once the first has gone");
    }
}

/// Whether the platform's place is still taken.
async fn refused_or_open(gateway: &Gateway) -> bool {
    let mut client = Client::open(gateway, "", None).await;
    client.auth(&token("tv", None)).await;
    client.next().await["type"] == "ERROR"
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
