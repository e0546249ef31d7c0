//! What the business may order of a gateway: users put into rooms and out of them, rooms closed, users blocked.

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use support::{Client, Logic, PATIENCE, gateway, push, until_asked};
use tidegate_gateway::Gateway;
use tidegate_protocol::records::target::To;
use tidegate_protocol::records::{
    Block, CommandReply, CommandRequest, Move, QueryKind, QueryReply, QueryRequest, RoomInfo, path,
};

async fn order(logic: &mut Logic, request: CommandRequest) -> CommandReply {
    logic.ask(path::COMMAND, &request).await.expect("the order is well formed")
}

async fn put(logic: &mut Logic, user: &str, room: &str, is_in: bool) -> CommandReply {
    let step = Move { user: user.into(), room: room.into(), is_in, reason: "kicked".into() };
    order(logic, CommandRequest { moves: vec![step], ..CommandRequest::default() }).await
}

async fn room(logic: &mut Logic, name: &str) -> Option<RoomInfo> {
    let request = QueryRequest { kind: QueryKind::Room.into(), room: name.into(), ..QueryRequest::default() };
    let reply: QueryReply = logic.ask(path::QUERY, &request).await.expect("an answer");
    reply.rooms.into_iter().next()
}

fn block(user: &str, room: &str, ms: u64) -> Block {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    Block { user: user.into(), room: room.into(), until_ms: now + ms, set_ms: now, ..Block::default() }
}

async fn bar(logic: &mut Logic, block: Block) -> CommandReply {
    order(logic, CommandRequest { blocks: vec![block], ..CommandRequest::default() }).await
}

/// Rule R-5.
#[tokio::test]
async fn a_user_is_put_into_a_room_and_out_of_it_with_all_connections() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let mut phone = Client::connect(&gateway, "?user=ann").await;
    let mut laptop = Client::connect(&gateway, "?user=ann").await;
    laptop.join("r").await;

    let reply = put(&mut logic, "ann", "r", true).await;

    assert_eq!((reply.moved, reply.unmoved, reply.refused), (1, 1, 0));
    let joined = phone.next().await;
    assert_eq!((&joined["type"], &joined["id"]), (&"JOINED".into(), &serde_json::Value::Null));
    assert_eq!(joined["data"]["rooms"][0]["room"], "r");
    logic.push(vec![push(To::Room("r".into()), &["1"])]).await;
    assert_eq!(
        (phone.next().await["type"].clone(), laptop.next().await["type"].clone()),
        ("PUSH".into(), "PUSH".into())
    );

    let reply = put(&mut logic, "ann", "r", false).await;

    assert_eq!((reply.moved, reply.unmoved), (2, 0));
    for client in [&mut phone, &mut laptop] {
        let left = client.next().await;
        assert_eq!((&left["type"], &left["data"]["reason"]), (&"LEFT".into(), &"kicked".into()), "{left}");
    }
    assert_eq!(room(&mut logic, "r").await, None);
}

#[tokio::test]
async fn an_order_respects_the_limit_of_rooms() {
    let gateway = gateway(|config| config.limits.rooms = 1).await;
    let mut logic = Logic::link(&gateway).await;
    let mut client = Client::connect(&gateway, "?user=ann").await;
    client.join("a").await;

    let reply = put(&mut logic, "ann", "b", true).await;

    assert_eq!((reply.moved, reply.refused), (0, 1));
    assert_eq!(put(&mut logic, "nobody", "b", true).await, CommandReply::default());
    let bad = Move { user: "ann".into(), room: String::new(), is_in: true, reason: String::new() };
    let refused: Result<CommandReply, u16> =
        logic.ask(path::COMMAND, &CommandRequest { moves: vec![bad], ..CommandRequest::default() }).await;
    assert_eq!(refused, Err(400));
}

/// More members than leave in one turn, over several buckets.
#[tokio::test]
async fn a_room_is_closed_for_everyone() {
    let gateway = gateway(|c| c.devices.max = 150).await;
    let mut logic = Logic::link(&gateway).await;
    let mut clients = Vec::new();
    for n in 0..200 {
        // Named ones are spread over the buckets, and those of one user are together in one.
        let query = if n < 50 { format!("?user=u{n}") } else { "?user=all".into() };
        let mut client = Client::connect(&gateway, &query).await;
        client.join("r").await;
        clients.push(client);
    }
    let before = room(&mut logic, "r").await.expect("the room has members");
    assert_eq!((before.online, before.users), (200, 51));

    let reply = order(&mut logic, CommandRequest { close_room: "r".into(), ..CommandRequest::default() }).await;

    assert_eq!(reply.moved, 200);
    for client in &mut clients {
        let left = client.next().await;
        assert_eq!((&left["data"]["room"], &left["data"]["reason"]), (&"r".into(), &"closed".into()), "{left}");
    }
    assert_eq!(room(&mut logic, "r").await, None);
}

async fn is_let_in(gateway: &Gateway, user: &str) -> bool {
    let address = gateway.listen_addr();
    let request = format!(
        "GET /ws?user={user} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the gateway listens");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("the socket is open");
    let mut head = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head).await.expect("an answer");
    match &head {
        b"HTTP/1.1 101" => true,
        b"HTTP/1.1 403" => false,
        other => panic!("{}", String::from_utf8_lossy(other)),
    }
}

/// Rule E-3.
#[tokio::test]
async fn a_blocked_user_is_sent_away_and_not_let_in_until_the_time_is_over() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let mut client = Client::connect(&gateway, "?user=ann").await;

    let reply = bar(&mut logic, block("ann", "", 400)).await;

    assert_eq!(reply.closed, 1);
    assert_eq!(client.closed().await, 3505);
    assert!(!is_let_in(&gateway, "ann").await);
    assert!(is_let_in(&gateway, "bob").await);
    until_asked("the block ends", PATIENCE, async || is_let_in(&gateway, "ann").await).await;
}

#[tokio::test]
async fn a_lifted_block_lets_the_user_in_and_an_older_one_told_again_does_not_return() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let set = block("ann", "", 60_000);
    bar(&mut logic, set.clone()).await;
    assert!(!is_let_in(&gateway, "ann").await);

    bar(&mut logic, Block { is_lifted: true, set_ms: set.set_ms + 1, ..set.clone() }).await;
    bar(&mut logic, set).await;

    assert!(is_let_in(&gateway, "ann").await);
}

/// Rule R-6.
#[tokio::test]
async fn a_block_of_a_room_ends_the_membership_and_refuses_the_next_join() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let mut client = Client::connect(&gateway, "?user=ann").await;
    client.join("r").await;

    let reply = bar(&mut logic, block("ann", "r", 60_000)).await;

    assert_eq!((reply.moved, reply.closed), (1, 0));
    let left = client.next().await;
    assert_eq!((&left["type"], &left["data"]["reason"]), (&"LEFT".into(), &"blocked".into()));
    assert_eq!(client.join("r").await["error"]["code"], "forbidden");
    assert_eq!(client.join("other").await["error"], serde_json::Value::Null);
    assert_eq!(put(&mut logic, "ann", "r", true).await.refused, 1);
    for request in [
        json!({"type": "SEND", "data": {"to": {"room": "r"}, "data": 1}}),
        json!({"type": "PRESENCE", "data": {"room": "r"}}),
        json!({"type": "MEMBERS", "data": {"room": "r"}}),
    ] {
        client.say(&request.to_string()).await;
        assert_eq!(client.next().await["data"]["code"], "forbidden", "{request}");
    }
}

#[tokio::test]
async fn blocks_are_told_to_whoever_asks_for_what_changed() {
    let gateway = gateway(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    for user in ["a", "b", "c"] {
        bar(&mut logic, block(user, "", 60_000)).await;
    }
    let mut page = async |cursor: &str| {
        let kind = QueryKind::Blocks.into();
        let request = QueryRequest { kind, cursor: cursor.into(), limit: 2, ..QueryRequest::default() };
        logic.ask::<QueryReply>(path::QUERY, &request).await.expect("an answer")
    };

    let first = page("").await;
    let rest = page(&first.cursor).await;

    let users = |reply: &QueryReply| reply.blocks.iter().map(|b| b.user.clone()).collect::<String>();
    assert_eq!((users(&first), users(&rest)), ("ab".into(), "c".into()));
    assert!(page(&rest.cursor).await.blocks.is_empty());
}
