//! Who is here, over a fleet: counts, users, the PRESENCE that members get, what clients may ask, and the orders of the business
//! about rooms and users.

mod support;

use serde_json::{Value, json};
use support::{Api, Client, Event, PATIENCE, Raw, Server, get_request, until};

const WATCHED: (&str, &str) = ("TIDEGATE_GATEWAY__PRESENCE__ROOMS", r#"["chat:*"]"#);
const OFTEN: (&str, &str) = ("TIDEGATE_GATEWAY__PRESENCE__INTERVAL_MS", "100");
const LOGIC_OFTEN: (&str, &str) = ("TIDEGATE_LOGIC__PRESENCE__INTERVAL_MS", "100");

async fn fleet() -> ([Server; 2], Server) {
    let env = [WATCHED, OFTEN];
    let gateways = [Server::gateway("g0", &env).await, Server::gateway("g1", &env).await];
    let logic = Server::logic(&[&gateways[0], &gateways[1]], &[LOGIC_OFTEN]).await;
    (gateways, logic)
}

async fn get(api: &mut Api, path: &str) -> Value {
    let answer = api.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

async fn order(api: &mut Api, method: &str, path: &str, body: &str) -> Value {
    let answer = api.send(method, path, "application/json", body.to_owned()).await;
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
    answer.json()
}

/// Asks until an answer is as wanted: what gateways tell takes up to a second.
async fn settled(api: &mut Api, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    until(path, PATIENCE, async || Some(get(api, path).await).filter(&is_wanted)).await
}

/// Rule P-3: the figures of a frame are of all gateways, and members at all of them get it.
#[tokio::test]
async fn members_at_every_gateway_are_told_the_sum() {
    let (gateways, _logic) = fleet().await;
    let mut here = Client::named(gateways[0].clients(), "ann", "web").await;
    let mut there = Client::named(gateways[1].clients(), "bob", "web").await;
    here.join("chat:1").await;
    there.say(json!({"type": "JOIN", "id": 1, "data": {"room": "chat:1"}})).await;

    for client in [&mut here, &mut there] {
        loop {
            let told = client.next_json().await;
            if told["type"] != "PRESENCE" {
                continue;
            }
            assert_eq!(told["data"]["room"], "chat:1");
            if told["data"]["online"] == 2 {
                assert_eq!(told["data"]["users"], 2, "{told}");
                break;
            }
        }
    }
    drop(there);
    loop {
        let told = here.expect("PRESENCE").await;
        if told["online"] == 1 {
            assert_eq!((&told["users"], &told["left"]), (&json!(1), &json!(1)), "{told}");
            break;
        }
    }
}

/// Rule P-3: from one frame to the next, who is there grows by who came and shrinks by who went, however many gateways they
/// are at; and a frame names eight users at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_is_of_one_moment_over_all_gateways() {
    let (gateways, _logic) = fleet().await;
    let mut watcher = Client::named(gateways[0].clients(), "watcher", "web").await;
    watcher.join("chat:1").await;
    // Somebody stays at each gateway, so that both are in every frame.
    let mut there = Client::named(gateways[1].clients(), "there", "web").await;
    there.join("chat:1").await;
    let (mut here, mut online) = (Vec::new(), None);
    for round in 1..=6 {
        for n in 0..12 {
            let client = Client::named(gateways[n % 2].clients(), &format!("u{round}-{n}"), "web").await;
            client.say(json!({"type": "JOIN", "id": 1, "data": {"room": "chat:1"}})).await;
            here.push(client);
        }
        here.drain(..4);
        let goal = Some(2 + 8 * round);
        while online != goal {
            let told = watcher.expect("PRESENCE").await;
            let figure = |name: &str| told[name].as_i64().expect("a figure");
            if let Some(before) = online {
                assert_eq!(figure("online") - before, figure("joined") - figure("left"), "{before} before {told}");
            }
            assert!(told["sample"].as_array().expect("names").len() <= 8, "{told}");
            online = Some(figure("online"));
        }
    }
}

/// Rules P-1 and P-2.
#[tokio::test]
async fn a_client_asks_how_many_and_who_is_in_a_room() {
    let (gateways, _logic) = fleet().await;
    let mut asker = Client::named(gateways[0].clients(), "ann", "web").await;
    let mut others = Vec::new();
    for n in 0..5 {
        let mut client = Client::named(gateways[n % 2].clients(), &format!("u{n}"), "ios").await;
        client.join("r").await;
        others.push(client);
    }

    let told = asker.ask(json!({"type": "PRESENCE", "id": 1, "data": {"room": "r"}})).await;
    let nobody = asker.ask(json!({"type": "PRESENCE", "id": 2, "data": {"room": "empty"}})).await;
    assert_eq!((&told["type"], &told["id"]), (&json!("PRESENCE"), &json!(1)), "{told}");
    assert_eq!(told["data"], json!({"room": "r", "online": 5, "users": 5}));
    assert_eq!(nobody["data"], json!({"room": "empty", "online": 0, "users": 0}));

    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let data = json!({"room": "r", "limit": 2, "cursor": cursor});
        let page = asker.ask(json!({"type": "MEMBERS", "id": 3, "data": data})).await;
        assert_eq!((&page["type"], &page["data"]["online"]), (&json!("MEMBERS"), &json!(5)), "{page}");
        let members = page["data"]["members"].as_array().expect("members are an array (rule P-2)");
        assert!(members.len() <= 2 && members.iter().all(|m| m["platform"] == "ios"), "{page}");
        seen.extend(members.iter().map(|m| m["user"].as_str().expect("named").to_owned()));
        cursor = page["data"]["cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, ["u0", "u1", "u2", "u3", "u4"]);
    let bad = asker.ask(json!({"type": "MEMBERS", "data": {"room": "r", "cursor": "%"}})).await;
    assert_eq!(bad["data"]["code"], "bad_data");
    for limit in [0, 1_001, u32::MAX] {
        let refused = asker.ask(json!({"type": "MEMBERS", "data": {"room": "r", "limit": limit}})).await;
        assert_eq!(refused["data"]["code"], "bad_data", "{limit}: {refused}");
        assert!(refused["data"]["message"].as_str().is_some_and(|m| m.contains("limit")), "{limit}: {refused}");
    }
}

/// Rule P-2.
#[tokio::test]
async fn of_a_large_room_a_client_gets_a_sample_and_the_count() {
    let env = [("TIDEGATE_LOGIC__PRESENCE__LIST_MAX", "3"), ("TIDEGATE_LOGIC__PRESENCE__SAMPLE", "2")];
    let server = Server::serve(&env).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(server.clients()).await;
        client.join("r").await;
        clients.push(client);
    }

    let page = clients[0].ask(json!({"type": "MEMBERS", "id": 1, "data": {"room": "r", "limit": 100}})).await;

    assert_eq!((&page["data"]["online"], &page["data"]["is_sample"]), (&json!(4), &json!(true)), "{page}");
    assert_eq!(page["data"]["members"].as_array().map(Vec::len), Some(2));
    assert_eq!(page["data"]["cursor"], Value::Null);
}

#[tokio::test]
async fn the_fleets_counts_are_those_of_its_gateways() {
    let (gateways, logic) = fleet().await;
    let mut api = logic.connect_api().await;
    let mut phone = Client::named(gateways[0].clients(), "ann", "ios").await;
    let laptop = Client::named(gateways[1].clients(), "ann", "web").await;
    let _stranger = Client::connect(gateways[1].clients()).await;
    phone.join("r").await;

    let told = settled(&mut api, "/v1/presence", |p| p["online"] == 3).await;
    assert_eq!((&told["users"], &told["rooms"]), (&json!(1), &json!(1)), "{told}");
    assert_eq!(told["platforms"], json!({"ios": 1, "web": 1}));
    assert_eq!((&told["gateways"][1]["online"], &told["gateways"][1]["users"]), (&json!(2), &json!(1)), "{told}");
    let user = get(&mut api, "/v1/users/ann").await;
    let since = user["since_ms"].as_u64().expect("since when");
    assert!(user["connections"].as_array().is_some_and(|c| c.len() == 2 && c.iter().any(|c| c["since_ms"] == since)));
    let room = get(&mut api, "/v1/rooms/r").await;
    assert_eq!((&room["online"], &room["users_online"]), (&json!(1), &json!(1)), "{room}");
    assert_eq!(get(&mut api, "/v1/users/ann/rooms").await["rooms"], json!([{"room": "r", "connections": 1}]));

    let question = json!({"users": ["ann", "nobody"]}).to_string();
    let found = order(&mut api, "POST", "/v1/users/query", &question).await;
    assert_eq!(found["users"], json!([{"user": "ann", "online": true}, {"user": "nobody", "online": false}]));
    drop((phone, laptop));
    // The gateways say that she is not there a moment before the news of it has reached the logic node.
    let gone = settled(&mut api, "/v1/users/ann", |u| u["online"] == false && u["last_seen_ms"].is_u64()).await;
    assert!(gone["last_seen_ms"].as_u64() >= Some(since), "{gone}");
    let found = order(&mut api, "POST", "/v1/users/query", &question).await;
    assert_eq!(found["users"][0]["last_seen_ms"], gone["last_seen_ms"]);
}

/// Rule R-5, by the API.
#[tokio::test]
async fn a_user_is_moved_and_a_room_closed_at_every_gateway() {
    let (gateways, logic) = fleet().await;
    let mut api = logic.connect_api().await;
    let mut phone = Client::named(gateways[0].clients(), "ann", "ios").await;
    let mut laptop = Client::named(gateways[1].clients(), "ann", "web").await;

    let put = order(&mut api, "PUT", "/v1/rooms/a%2Fb/members/ann", "").await;
    assert_eq!((&put["moved"], &put["gateways"]["sent"]), (&json!(2), &json!(2)), "{put}");
    for client in [&mut phone, &mut laptop] {
        let joined = client.expect("JOINED").await;
        assert_eq!(joined["rooms"][0]["room"], "a/b");
    }
    let receipt = api.push_room("a/b", json!(1)).await;
    assert_eq!(receipt["matched"], 2, "a push right after JOINED reaches both (rule R-4)");
    assert_eq!((phone.items(1).await, laptop.items(1).await), (vec![json!(1)], vec![json!(1)]));

    let closed = order(&mut api, "DELETE", "/v1/rooms/a%2Fb", "").await;
    assert_eq!(closed["moved"], 2, "{closed}");
    for client in [&mut phone, &mut laptop] {
        assert_eq!(client.expect("LEFT").await, json!({"room": "a/b", "reason": "closed"}));
    }
    let again = order(&mut api, "DELETE", "/v1/rooms/a%2Fb/members/ann", "").await;
    assert_eq!((&again["moved"], &again["unmoved"]), (&json!(0), &json!(2)), "{again}");
    assert_eq!(order(&mut api, "PUT", "/v1/rooms/r/members/nobody", "").await["moved"], 0);
}

/// Rule E-3: a block outlives the gateway's memory, because logic tells it anew before anyone is let in.
#[tokio::test]
async fn a_block_holds_at_a_gateway_that_comes_back_and_ends_when_another_node_lifts_it() {
    let (gateways, logic) = fleet().await;
    let other = Server::logic(&[&gateways[0], &gateways[1]], &[]).await;
    let (mut api, mut other_api) = (logic.connect_api().await, other.connect_api().await);
    let mut client = Client::named(gateways[0].clients(), "ann", "ios").await;

    let body = json!({"seconds": 600, "reason": "spam"}).to_string();
    let blocked = order(&mut api, "PUT", "/v1/users/ann/block", &body).await;

    assert_eq!((&blocked["closed"], &blocked["gateways"]["sent"]), (&json!(1), &json!(2)), "{blocked}");
    assert!(matches!(client.ending().await.event, Event::Closed(3505, why) if why.contains("blocked")));
    let known = settled(&mut other_api, "/v1/blocks", |b| b["blocks"][0]["user"] == "ann").await;
    assert_eq!(known["blocks"][0]["reason"], "spam");

    let [first, second] = gateways;
    let first = first.restart().await;
    assert_eq!(status(&first, "ann").await, 403, "nobody is let in before the gateway knows who is blocked");
    settled(&mut other_api, "/readyz", |ready| ready["missing"] == json!([])).await;
    assert_eq!((status(&second, "ann").await, status(&first, "bob").await), (403, 101));

    let lifted = order(&mut other_api, "DELETE", "/v1/users/ann/block", "").await;
    assert_eq!(lifted["gateways"]["failed"], json!([]), "{lifted}");
    assert_eq!((status(&first, "ann").await, status(&second, "ann").await), (101, 101));
    settled(&mut api, "/v1/blocks", |b| b["blocks"] == json!([])).await;
    assert_eq!(get(&mut api, "/v1/users/ann/block").await["blocks"], json!([]));
}

/// Status of a handshake as this user.
async fn status(gateway: &Server, user: &str) -> u16 {
    let mut stranger = Raw::connect(gateway.clients()).await;
    let request = get_request(&format!("/ws?user={user}"), "");
    stranger.write(request.as_bytes()).await.expect("the gateway listens");
    stranger.status().await.expect("an answer to a whole request")
}

/// Rule R-6, by the API.
#[tokio::test]
async fn a_block_of_a_room_is_only_of_that_room() {
    let server = Server::serve(&[]).await;
    let mut api = server.connect_api().await;
    let mut client = Client::named(server.clients(), "ann", "ios").await;
    client.join("chat:1").await;

    let body = json!({"seconds": 600, "room": "chat:1"}).to_string();
    let blocked = order(&mut api, "PUT", "/v1/users/ann/block", &body).await;

    assert_eq!((&blocked["moved"], &blocked["closed"]), (&json!(1), &json!(0)), "{blocked}");
    assert_eq!(client.expect("LEFT").await, json!({"room": "chat:1", "reason": "blocked"}));
    assert_eq!(client.join("chat:1").await["error"]["code"], "forbidden");
    assert_eq!(client.join("chat:2").await["error"], Value::Null);
    let blocks = get(&mut api, "/v1/users/ann/block").await;
    assert_eq!(blocks["blocks"][0]["room"], "chat:1", "{blocks}");
    order(&mut api, "DELETE", "/v1/users/ann/block?room=chat%3A1", "").await;
    assert_eq!(client.join("chat:1").await["error"], Value::Null);
}
