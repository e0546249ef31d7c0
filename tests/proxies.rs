//! Behind proxies (deploy/README.md): whose word about a client's address is taken, and the shipped configurations of nginx
//! and HAProxy, run by the real programs before two gateways and a logic node.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use support::front::skipped;
use support::suite::clients_are_served;
use support::{Api, Balance, Client, Event, Front, Kind, PATIENCE, Raw, Server, front, get_request, masked, until};

/// A client with an address of its own; proxies call gateways from 127.0.0.1.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);
/// What a liar says.
const FORGED: &str = "203.0.113.66";

/// Two gateways and a logic node behind a proxy.
struct Site {
    gateways: [Server; 2],
    logic: Server,
    front: Front,
}

impl Site {
    async fn start(kind: Kind, balance: Balance, env: &[(&str, &str)]) -> Self {
        let env: Vec<(&str, &str)> = kind.gateway_settings().into_iter().chain(env.iter().copied()).collect();
        let gateways = [Server::gateway("g0", &env).await, Server::gateway("g1", &env).await];
        let logic = Server::logic(&[&gateways[0], &gateways[1]], &[]).await;
        // HAProxy asks once before it begins, and passes nobody on for two seconds to a gateway that was not ready then.
        for gateway in &gateways {
            gateway.ready().await;
        }
        let of = [front::of(&gateways[0]), front::of(&gateways[1])];
        let front = Front::start(kind, balance, &of, &[logic.direct_api()]).await;
        Self { gateways, logic, front }
    }

    async fn connections(&self) -> [u64; 2] {
        let [a, b] = &self.gateways;
        [a.metrics().await.sum("tidegate_gateway_connections"), b.metrics().await.sum("tidegate_gateway_connections")]
    }
}

/// Both proxies that are here; those that are not are named, loudly.
fn proxies(test: &str) -> Vec<Kind> {
    let (here, absent): (Vec<_>, Vec<_>) =
        [Kind::Nginx, Kind::Haproxy].into_iter().partition(|k| k.program().is_some());
    absent.into_iter().for_each(|kind| skipped(test, kind));
    here
}

/// The addresses of a user's connections, as `/v1/connections` lists them.
async fn addresses(api: SocketAddr, user: &str) -> Vec<String> {
    let rows = Api::connect(api).await.get(&format!("/v1/connections?user={user}")).await.json();
    let rows = rows["connections"].as_array().expect("a list").clone();
    rows.iter().map(|row| row["address"].as_str().expect("an address").to_owned()).collect()
}

/// The address without a port, which a header may not have said.
fn ip(address: &str) -> &str {
    address.split(':').next().unwrap_or_default()
}

#[tokio::test]
async fn every_client_check_passes_directly_and_behind_each_proxy() {
    let server = Server::serve(&[]).await;
    clients_are_served(async |path| Client::open(server.clients(), &path, None).await, &mut server.connect_api().await)
        .await;

    for kind in proxies("every_client_check_passes_directly_and_behind_each_proxy") {
        for balance in [Balance::LeastConnections, Balance::User] {
            let site = Site::start(kind, balance, &[]).await;
            let clients = site.front.clients();
            let mut api = Api::connect(site.front.api()).await;
            clients_are_served(async |path| Client::open(clients, &path, None).await, &mut api).await;
        }
    }
}

/// nginx ends a connection after 1,000 requests unless it is told otherwise: a publisher of 200 a second would lose it every five
/// seconds.
#[tokio::test]
async fn a_busy_publisher_keeps_its_connection() {
    const PUSHES: usize = 1_100;
    for kind in proxies("a_busy_publisher_keeps_its_connection") {
        let site = Site::start(kind, Balance::LeastConnections, &[]).await;
        let mut api = Api::connect(site.front.api()).await;
        for n in 0..PUSHES {
            api.push_room("nobody", json!(n)).await;
        }
    }
}

#[tokio::test]
async fn lists_show_the_clients_own_address_behind_each_proxy() {
    for kind in proxies("lists_show_the_clients_own_address_behind_each_proxy") {
        let site = Site::start(kind, Balance::LeastConnections, &[]).await;

        let _honest = Client::from(CLIENT, site.front.clients(), "/ws?user=honest", &[]).await;
        let forged = format!("{FORGED}, 127.0.0.1");
        let _liar = Client::from(CLIENT, site.front.clients(), "/ws?user=liar", &[("X-Forwarded-For", &forged)]).await;

        for user in ["honest", "liar"] {
            let shown = addresses(site.front.api(), user).await;
            assert_eq!(shown.len(), 1);
            // What nginx's header says of 127.0.0.1 was the client's own word; nginx's is behind it.
            assert_eq!(ip(&shown[0]), CLIENT.to_string(), "{kind:?}, {user}: {shown:?}");
        }
    }
}

#[tokio::test]
async fn least_connections_spread_and_a_user_sticks() {
    const CLIENTS: u64 = 40;
    for kind in proxies("least_connections_spread_and_a_user_sticks") {
        let site = Site::start(kind, Balance::LeastConnections, &[]).await;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(Client::connect(site.front.clients()).await);
        }
        let [a, b] = site.connections().await;
        assert_eq!(a + b, CLIENTS, "{kind:?}");
        assert!(a.abs_diff(b) <= 2, "{kind:?}: {a} and {b} connections");

        let site = Site::start(kind, Balance::User, &[]).await;
        let mut homes: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
        let mut clients = Vec::new();
        for round in 0..3 {
            for user in 0..20 {
                let path = format!("/ws?user=user-{user}&platform=web");
                let source = Ipv4Addr::new(127, 0, 1 + round, 1);
                let client = Client::from(source, site.front.clients(), &path, &[]).await;
                // The front of a connection's id is its gateway.
                homes.entry(user).or_default().insert(client.id()[..4].to_owned());
                clients.push(client);
            }
        }
        assert!(homes.values().all(|homes| homes.len() == 1), "{kind:?}: a user is at one gateway: {homes:?}");
        let used: BTreeSet<&String> = homes.values().flatten().collect();
        assert_eq!(used.len(), 2, "{kind:?}: users are at both gateways");
        // Those without a name are spread all the same.
        let before = site.connections().await;
        for _ in 0..16 {
            clients.push(Client::connect(site.front.clients()).await);
        }
        let after = site.connections().await;
        assert!(after[0] > before[0] && after[1] > before[1], "{kind:?}: {before:?}, then {after:?}");
    }
}

/// Rules E-3 and E-4 through a proxy.
#[tokio::test]
async fn clients_of_a_gateway_that_drains_are_told_and_find_the_other() {
    for kind in proxies("clients_of_a_gateway_that_drains_are_told_and_find_the_other") {
        let drain = [("TIDEGATE_GATEWAY__DRAIN__SPREAD_MS", "300"), ("TIDEGATE_GATEWAY__DRAIN__DELAY_MS", "200")];
        let mut site = Site::start(kind, Balance::LeastConnections, &drain).await;
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(Client::connect(site.front.clients()).await);
        }
        let [going, staying] = site.connections().await;
        assert!(going > 0 && staying > 0, "{kind:?}");

        site.gateways[0].terminate();
        let mut told = 0;
        for client in &mut clients {
            while let Some(received) = client.next_within(Duration::from_millis(700)).await {
                if matches!(received.event, Event::Closed(3000, _)) {
                    told += 1;
                    break;
                }
                assert!(matches!(received.event, Event::Text(_)), "{kind:?}: {received:?}");
            }
        }
        assert_eq!(told, going, "{kind:?}: each client of the gateway that left was closed 3000");
        assert_eq!(site.gateways[0].exit(2 * PATIENCE).await.code(), Some(0));
        // Nobody who comes now is refused: the proxy passes over a port that is closed.
        for _ in 0..going {
            clients.push(Client::connect(site.front.clients()).await);
        }
        let left = site.gateways[1].metrics().await.sum("tidegate_gateway_connections");
        assert_eq!(left, going + staying, "{kind:?}");
        let receipt =
            Api::connect(site.logic.direct_api()).await.push(json!({"to": {"all": true}, "message": 1})).await;
        assert_eq!(receipt["matched"], going + staying, "{kind:?}: {receipt}");
    }
}

#[tokio::test]
async fn compressed_frames_pass_each_proxy_as_they_are() {
    for kind in proxies("compressed_frames_pass_each_proxy_as_they_are") {
        let site = Site::start(kind, Balance::LeastConnections, &[]).await;
        let mut raw = Raw::connect(site.front.clients()).await;
        let request = get_request("/ws?user=small", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
        raw.write(request.as_bytes()).await.expect("the proxy listens");
        let head = raw.head().await.expect("an answer").to_lowercase();
        assert!(head.contains("sec-websocket-extensions: permessage-deflate"), "{kind:?}: {head}");
        raw.frame(PATIENCE).await.expect("HELLO comes first");
        let text = "the same words again and again; ".repeat(200);

        Api::connect(site.front.api()).await.push(json!({"to": {"user": "small"}, "message": text})).await;

        let (_, payload) = raw.frame(PATIENCE).await.expect("the push arrives");
        assert!(payload.len() < text.len() / 10, "{kind:?}: {} bytes", payload.len());
        let push = inflated(&payload);
        assert_eq!(push["data"]["items"][0], text.as_str(), "{kind:?}");
    }
}

/// RFC 7692 section 7.2.2.
fn inflated(payload: &[u8]) -> Value {
    let deflated = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut text = Vec::with_capacity(1 << 20);
    let mut inflater = flate2::Decompress::new(false);
    inflater.decompress_vec(&deflated, &mut text, flate2::FlushDecompress::None).expect("raw DEFLATE");
    serde_json::from_slice(&text).expect("JSON")
}

const ANNOUNCED: [(&str, &str); 2] =
    [("TIDEGATE_GATEWAY__PROXY__TRUSTED", "127.0.0.1"), ("TIDEGATE_GATEWAY__PROXY__PROTOCOL", "v1_v2")];
const FORWARDED: [(&str, &str); 2] =
    [("TIDEGATE_GATEWAY__PROXY__TRUSTED", "127.0.0.1"), ("TIDEGATE_GATEWAY__PROXY__FORWARDED", "true")];

fn v1() -> Vec<u8> {
    format!("PROXY TCP4 {FORGED} 10.0.0.1 4711 8000\r\n").into_bytes()
}

fn v2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f".to_vec();
    header.extend([203, 0, 113, 66, 10, 0, 0, 1, 0x12, 0x67, 0x1f, 0x40, 0x04, 0, 0]);
    header
}

/// The code of a refusal's problem body.
async fn refusal(raw: &mut Raw) -> (u16, String) {
    let head = raw.head().await.expect("a refusal is answered");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")?.trim().parse().ok());
    let body = raw.body(length.expect("a length")).await.expect("the body");
    let problem: Value = serde_json::from_slice(&body).expect("a problem is JSON");
    (status, problem["code"].as_str().unwrap_or_default().to_owned())
}

/// Threat 5: a spoofed header from an untrusted peer is ignored.
#[tokio::test]
async fn a_stranger_cannot_name_another_address() {
    let forwarded = Server::serve(&FORWARDED).await;
    let _liar = Client::from(CLIENT, forwarded.direct_clients(), "/ws?user=liar", &[("X-Forwarded-For", FORGED)]).await;
    let _proxied =
        Client::open_with(forwarded.direct_clients(), "/ws?user=proxied", &[("X-Forwarded-For", FORGED)]).await;

    assert_eq!(ip(&addresses(forwarded.direct_api(), "liar").await[0]), CLIENT.to_string());
    assert_eq!(addresses(forwarded.direct_api(), "proxied").await, [FORGED]);

    let announced = Server::serve(&ANNOUNCED).await;
    let open = Server::serve(&[]).await;
    for header in [v1(), v2()] {
        let request = [&header[..], get_request("/ws", "").as_bytes()].concat();
        let mut raw = Raw::connect_from(CLIENT, announced.direct_clients()).await;
        raw.write(&request).await.expect("the gateway listens");
        assert_eq!(refusal(&mut raw).await, (400, "proxy_header".into()), "from an untrusted peer");
        let mut raw = Raw::connect(open.direct_clients()).await;
        raw.write(&request).await.expect("the gateway listens");
        assert_eq!(refusal(&mut raw).await, (400, "proxy_header".into()), "where the protocol is off");
    }
    let _plain = Client::from(CLIENT, announced.direct_clients(), "/ws?user=plain", &[]).await;
    assert_eq!(
        ip(&addresses(announced.direct_api(), "plain").await[0]),
        CLIENT.to_string(),
        "an untrusted peer may come"
    );
}

#[tokio::test]
async fn a_trusted_proxy_must_introduce_its_client() {
    let server = Server::serve(&ANNOUNCED).await;
    for bad in ["", "PROXY TCP4 1.2.3.4\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n"] {
        let mut raw = Raw::connect(server.direct_clients()).await;
        raw.write(format!("{bad}{}", get_request("/ws", "")).as_bytes()).await.expect("the gateway listens");

        assert_eq!(refusal(&mut raw).await, (400, "proxy_header".into()), "{bad:?}");
    }
    let refused = server.metrics().await;
    assert_eq!(refused.sum("tidegate_gateway_handshakes_refused_total"), 3);
}

#[tokio::test]
async fn a_header_cut_at_every_byte_is_put_together_again() {
    let server = Server::serve(&ANNOUNCED).await;
    for (user, header) in [("one", v1()), ("two", v2())] {
        let request = [&header[..], get_request(&format!("/ws?user={user}"), "").as_bytes()].concat();
        let mut bytes = request;
        bytes.extend(masked(0x81, br#"{"type":"PING","id":1}"#));
        let mut raw = Raw::connect(server.direct_clients()).await;
        for byte in bytes {
            raw.write(&[byte]).await.expect("the gateway waits for the rest");
            tokio::task::yield_now().await;
        }

        assert_eq!(raw.status().await, Some(101), "{user}");
        raw.frame(PATIENCE).await.expect("HELLO comes first");
        let (_, pong) = raw.frame(PATIENCE).await.expect("PONG comes second");
        assert!(pong.starts_with(br#"{"type":"PONG""#));
        assert_eq!(addresses(server.direct_api(), user).await, [format!("{FORGED}:4711")]);
    }
}

/// Rule C-1's deadline holds for what comes before the request too.
#[tokio::test]
async fn half_a_header_is_gone_by_the_deadline() {
    let mut env = ANNOUNCED.to_vec();
    env.push(("TIDEGATE_GATEWAY__HANDSHAKE__DEADLINE_MS", "500"));
    let server = Server::serve(&env).await;
    let mut halves = Vec::new();
    for header in [v1(), v2()] {
        let mut raw = Raw::connect(server.direct_clients()).await;
        raw.write(&header[..header.len() / 2]).await.expect("the gateway listens");
        halves.push(raw);
    }

    for raw in &mut halves {
        assert_eq!(refusal(raw).await, (408, "handshake_timeout".into()));
    }
    until("no handshake to be left", PATIENCE, async || {
        (server.metrics().await.sum("tidegate_gateway_handshakes") == 0).then_some(())
    })
    .await;
}
