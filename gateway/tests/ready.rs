//! A gateway whose logic node has not spoken yet (docs/adr/0031): who comes early waits or is refused by name, and is treated by
//! what logic says and not by guesses; `/readyz` says so; and what the last logic node wanted stays known.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use support::{Client, Logic, PATIENCE, gateway, metric, until};
use tidegate_gateway::{BeforeLogic, Gateway, GatewayConfig};
use tidegate_protocol::records::item::What;
use tidegate_protocol::records::{UplinkReply, UplinkRequest, Wants, path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A gateway as it is by default.
async fn waiting(change: impl FnOnce(&mut GatewayConfig)) -> Gateway {
    gateway(|config| {
        config.handshake.before_logic = BeforeLogic::Wait;
        change(config);
    })
    .await
}

/// What a fleet with a hook and a service for events wants.
fn everything() -> Wants {
    Wants { events: vec!["connected".into()], connects: true, headers: vec!["cookie".into()], ..Wants::default() }
}

/// Says what a logic node wants, and gives what clients said since.
async fn say(logic: &mut Logic, wants: Wants, hold_ms: u32) -> UplinkReply {
    let request = UplinkRequest { logic: 7, hold_ms, wants: Some(wants), ..UplinkRequest::default() };
    logic.ask(path::UPLINK, &request).await.expect("an answer")
}

fn head(query: &str) -> String {
    format!(
        "GET /ws{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nCookie: session=7\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

async fn knock(gateway: &Gateway) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("the kernel takes it");
    socket.write_all(head("?user=early").as_bytes()).await.expect("sent");
    socket
}

async fn all_of(mut socket: TcpStream) -> String {
    let mut text = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut text)).await.expect("answered and closed").expect("a whole answer");
    String::from_utf8_lossy(&text).into_owned()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("the ops listener");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    all_of(socket).await
}

async fn ops(gateway: &Gateway) -> SocketAddr {
    gateway.serve_ops(Arc::new(|_: &mut String| ())).await.expect("a free port")
}

#[tokio::test]
async fn the_first_client_waits_for_logics_first_word_and_is_asked_about_with_its_headers() {
    let gateway = waiting(|_| ()).await;
    let _early = knock(&gateway).await;
    let mut logic = Logic::link(&gateway).await;
    assert_eq!(metric(&gateway, "tidegate_gateway_accepted_total"), 0, "it waits in the kernel's queue");

    let first = say(&mut logic, everything(), 5_000).await;

    let Some(What::Connect(question)) = &first.items[0].what else { panic!("{first:?}") };
    assert_eq!((question.headers[0].name.as_str(), question.headers[0].value.as_str()), ("cookie", "session=7"));
}

#[tokio::test]
async fn the_first_clients_coming_is_told() {
    let gateway = waiting(|_| ()).await;
    let early = tokio::spawn({
        let address = gateway.listen_addr();
        async move {
            let mut socket = TcpStream::connect(address).await.expect("the kernel takes it");
            socket.write_all(head("?user=early").as_bytes()).await.expect("sent");
            let mut start = [0; 12];
            socket.read_exact(&mut start).await.expect("an answer");
            (socket, start)
        }
    });
    let mut logic = Logic::link(&gateway).await;

    let wants = Wants { events: vec!["connected".into()], ..Wants::default() };
    let first = say(&mut logic, wants, 5_000).await;

    let Some(What::Event(event)) = &first.items[0].what else { panic!("{first:?}") };
    let user = first.items[0].from.as_ref().map(|from| from.user.as_str());
    assert_eq!((event.kind.as_str(), user), ("connected", Some("early")));
    assert_eq!(&early.await.expect("no panic").1, b"HTTP/1.1 101");
}

#[tokio::test]
async fn who_may_not_wait_is_refused_by_name_and_told_when_to_come_back() {
    let gateway = waiting(|config| config.handshake.before_logic = BeforeLogic::Refuse).await;

    let refused = all_of(knock(&gateway).await).await;

    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("\"code\":\"not_ready\"") && refused.contains("Retry-After: "), "{refused}");
    let mut logic = Logic::link(&gateway).await;
    say(&mut logic, Wants::default(), 0).await;
    Client::connect(&gateway, "").await;
}

#[tokio::test]
async fn nobody_waits_longer_than_a_handshake_may_take() {
    let gateway = waiting(|config| config.handshake.deadline_ms = 200).await;

    let late = all_of(knock(&gateway).await).await;

    assert!(late.starts_with("HTTP/1.1 503 ") && late.contains("not_ready"), "{late}");
}

/// More than half of the kernel's queue: those who came first are refused, so that it never fills.
#[tokio::test]
async fn the_queue_of_those_who_wait_does_not_fill() {
    let gateway = waiting(|config| {
        config.handshake.deadline_ms = 60_000;
        // Two seconds at the rate may wait: one of them.
        config.handshake.rate_max = 1;
    })
    .await;
    let mut strangers = Vec::new();
    for _ in 0..8 {
        strangers.push(knock(&gateway).await);
    }

    until("all but two are refused", PATIENCE, || metric(&gateway, "tidegate_gateway_turned_away_total") == 6).await;

    let refused = all_of(strangers.remove(0)).await;
    assert!(refused.contains("not_ready"), "{refused}");
    assert_eq!(metric(&gateway, "tidegate_gateway_accept_queue"), 2);
}

#[tokio::test]
async fn readiness_says_in_words_what_is_missing() {
    let gateway = waiting(|config| {
        config.ops = ([127, 0, 0, 1], 0).into();
        config.uplink.wait_ms = 300;
    })
    .await;
    let ops = ops(&gateway).await;

    let alone = get(ops, "/readyz").await;
    let mut logic = Logic::link(&gateway).await;
    say(&mut logic, Wants::default(), 0).await;
    let linked = get(ops, "/readyz").await;
    drop(logic);
    let lost = async {
        loop {
            let answer = get(ops, "/readyz").await;
            if answer.contains(" 503 ") {
                return answer;
            }
        }
    };
    let lost = timeout(PATIENCE, lost).await.expect("a gateway without logic nodes is not ready for long");

    assert!(alone.contains(" 503 ") && alone.contains("no logic node has said yet"), "{alone}");
    assert!(linked.contains(" 200 ") && linked.contains("ready"), "{linked}");
    assert!(lost.contains("pushes do not reach"), "{lost}");
    Client::open(&gateway, "", None).await.greeted().await;
}

#[tokio::test]
async fn what_the_last_logic_node_wanted_stays_known_when_it_is_lost() {
    let gateway = waiting(|_| ()).await;
    let mut logic = Logic::link(&gateway).await;
    say(&mut logic, everything(), 0).await;
    drop(logic);
    until("the loss", PATIENCE, || metric(&gateway, "tidegate_gateway_uplink_nodes") == 0).await;

    let _stranger = knock(&gateway).await;
    until("a question", PATIENCE, || metric(&gateway, "tidegate_gateway_uplink_kept") == 1).await;
    let mut next = Logic::link(&gateway).await;
    let heard = say(&mut next, everything(), 5_000).await;

    let Some(What::Connect(question)) = &heard.items[0].what else { panic!("{heard:?}") };
    assert_eq!(question.headers.len(), 1, "with the headers that the hook wants: {question:?}");
}
