//! The connect hook at the gateway's door, with a logic node of a few lines that answers for the service: who comes in, as
//! whom, and that nobody does while it cannot be asked.

mod support;

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;
use support::tokens::{config, good};
use support::{Client, Logic, PATIENCE, gateway, metric, push, until};
use tidegate_gateway::{Gateway, GatewayConfig};
use tidegate_protocol::records::answer::Outcome;
use tidegate_protocol::records::item::What;
use tidegate_protocol::records::target::To;
use tidegate_protocol::records::{
    Answer, Answers, Connect, Grants, Narrow, Pair, Push, Sender, UplinkReply, UplinkRequest, Verdict, Wants, path,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

type Asked = Arc<Mutex<Vec<(Sender, Connect)>>>;

/// A logic node with a hook that answers each question so; none: never.
struct Hook {
    asked: Asked,
    task: JoinHandle<()>,
}

impl Hook {
    async fn link(gateway: &Gateway, verdict: impl Fn(&Sender) -> Option<Verdict> + Send + 'static) -> Self {
        let mut logic = Logic::link(gateway).await;
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        let mut request = UplinkRequest {
            logic: 7,
            hold_ms: 50,
            wants: Some(Wants { connects: true, headers: vec!["cookie".into()], ..Wants::default() }),
            ..UplinkRequest::default()
        };
        // The first answer tells the epoch; thereafter strangers are asked about.
        let first: UplinkReply = logic.ask(path::UPLINK, &request).await.expect("an answer");
        request.epoch = first.epoch;
        let task = tokio::spawn(async move {
            loop {
                let reply: UplinkReply = logic.ask(path::UPLINK, &request).await.expect("an answer");
                let mut answers = Vec::new();
                for item in reply.items {
                    request.taken = item.sequence;
                    let (Some(from), Some(What::Connect(connect))) = (item.from, item.what) else { continue };
                    let outcome = verdict(&from).map(|verdict| Outcome::Verdict(Box::new(verdict)));
                    log.lock().push((from, connect));
                    answers.extend(outcome.map(|o| Answer { sequence: item.sequence, outcome: Some(o) }));
                }
                if !answers.is_empty() {
                    let answers = Answers { logic: 7, epoch: first.epoch, answers };
                    let _: Answers = logic.ask(path::ANSWERS, &answers).await.expect("taken");
                }
            }
        });
        Self { asked, task }
    }

    async fn until_asked(&self, n: usize) {
        until("as many questions", PATIENCE, || self.asked.lock().len() >= n).await;
    }
}

fn accept() -> Verdict {
    Verdict::default()
}

fn refuse(status: u32, code: &str) -> Verdict {
    Verdict { status, code: code.into(), message: "says the hook".into(), ..Verdict::default() }
}

async fn quick(change: impl FnOnce(&mut GatewayConfig)) -> Gateway {
    gateway(|c| {
        c.handshake.deadline_ms = 300;
        change(c);
    })
    .await
}

/// The answer to a handshake with these headers.
async fn answer(gateway: &Gateway, query: &str, headers: &str) -> String {
    let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    socket.write_all(head(query, headers).as_bytes()).await.expect("sent");
    let mut text = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut text)).await.expect("answered and closed");
    String::from_utf8_lossy(&text).into_owned()
}

fn head(query: &str, headers: &str) -> String {
    format!(
        "GET /ws{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{headers}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

#[tokio::test]
async fn the_hook_says_who_comes_in_and_what_it_may() {
    let gateway = gateway(|_| ()).await;
    let grant = Grants { rooms: vec!["chat:*".into()], ..Grants::default() };
    let verdict = Verdict { user: "alice".into(), join: vec!["lobby".into()], grant: Some(grant), ..accept() };
    let _hook = Hook::link(&gateway, move |_| Some(verdict.clone())).await;

    let mut client = Client::connect(&gateway, "?user=claimed").await;

    assert_eq!(client.hello["user"], "alice");
    let joined = client.next().await;
    assert_eq!((&joined["type"], &joined["data"]["rooms"][0]["room"]), (&json!("JOINED"), &json!("lobby")));
    assert!(client.join("chat:1").await["seq"].is_u64());
    assert_eq!(client.join("secret").await["error"]["code"], "forbidden", "its grant is all it may do");
}

/// Without a token and without a grant of the hook's, it may what all strangers may, whatever else the hook says of it.
#[tokio::test]
async fn where_other_machines_come_in_the_hook_names_and_does_not_give_everything() {
    let gateway = gateway(|c| (c.listen, c.hook.required) = (([0, 0, 0, 0], 0).into(), true)).await;
    let pairs = vec![Pair { name: "lang".into(), value: "de".into() }];
    let _hook = Hook::link(&gateway, move |from| match from.user.as_str() {
        "ann" => Some(Verdict { attributes: pairs.clone(), ..accept() }),
        _ => Some(accept()),
    })
    .await;

    for user in ["ann", "bob"] {
        let mut client = Client::connect(&gateway, &format!("?user={user}")).await;
        client.say(r#"{"type":"SEND","id":1,"data":{"to":{"room":"lobby"},"data":1}}"#).await;
        assert_eq!(client.next().await["data"]["code"], "forbidden", "{user}");
        assert!(client.join("lobby").await["seq"].is_u64());
        assert_eq!(client.hello["user"], user);
    }
}

#[tokio::test]
async fn rights_of_the_hook_add_to_the_tokens() {
    let gateway = gateway(|c| c.auth = config()).await;
    let grant = Grants { rooms: vec!["extra".into()], ..Grants::default() };
    let verdict = Verdict { grant: Some(grant), ..accept() };
    let hook = Hook::link(&gateway, move |_| Some(verdict.clone())).await;

    let mut client = Client::bearing(&gateway, &good(&json!({"rooms": ["chat:*"], "attrs": {"lang": "de"}}))).await;

    assert_eq!(client.hello["user"], "ann");
    assert!(client.join("chat:1").await["seq"].is_u64() && client.join("extra").await["seq"].is_u64());
    assert_eq!(client.join("secret").await["error"]["code"], "forbidden");
    let (from, _) = hook.asked.lock()[0].clone();
    assert_eq!(
        (from.user.as_str(), from.attributes[0].value.as_str()),
        ("ann", "de"),
        "the hook hears what the token says"
    );
}

/// Rules C-6 and C-8: the token's own `sub` counts, and what the hook said holds as long as the connection.
#[tokio::test]
async fn a_refresh_is_by_the_tokens_own_sub_and_keeps_the_hooks_word() {
    let gateway = gateway(|c| c.auth = config()).await;
    let grant = Grants { rooms: vec!["extra:{sub}".into()], ..Grants::default() };
    let tier = Pair { name: "tier".into(), value: "pro".into() };
    let named = Verdict { user: "ann-of-acme".into(), grant: Some(grant), attributes: vec![tier], ..accept() };
    let _hook = Hook::link(&gateway, move |_| Some(named.clone())).await;
    let mut client = Client::bearing(&gateway, &good(&json!({"rooms": ["chat:*"], "attrs": {"tier": "free"}}))).await;
    assert_eq!(client.hello["user"], "ann-of-acme");
    let refresh = |token: String| json!({"type": "REFRESH", "id": 1, "data": {"token": token}}).to_string();

    client.say(&refresh(good(&json!({"sub": "ann-of-acme"})))).await;
    let foreign = client.next().await;
    client.say(&refresh(good(&json!({"rooms": ["news"], "attrs": {"tier": "free", "lang": "de"}})))).await;
    let own = client.next().await;
    client.say(&refresh(good(&json!({"rooms": vec!["r"; 32]})))).await;
    let too_many = client.next().await;

    assert_eq!(foreign["data"]["reason"], "token_claims", "{foreign}");
    assert_eq!(own["type"], "REFRESHED", "{own}");
    assert!(too_many["data"]["message"].as_str().is_some_and(|m| m.contains("connect hook")), "{too_many}");
    assert!(client.join("news").await["seq"].is_u64(), "the new token's");
    assert!(client.join("extra:ann-of-acme").await["seq"].is_u64(), "the hook's");
    assert_eq!(client.join("chat:1").await["error"]["code"], "forbidden", "the old token's");
    let mut logic = Logic::link(&gateway).await;
    let told = |name: &str, value: &str, text: &str| {
        let attributes = vec![Pair { name: name.into(), value: value.into() }];
        Push {
            narrow: Some(Narrow { attributes, ..Narrow::default() }),
            ..push(To::User("ann-of-acme".into()), &[text])
        }
    };
    logic.push(vec![told("tier", "free", "1"), told("tier", "pro", "2"), told("lang", "de", "3")]).await;
    let (one, other) = (client.next().await, client.next().await);
    assert_eq!((&one["data"]["items"], &other["data"]["items"]), (&json!([2]), &json!([3])), "the hook's wins");
}

#[tokio::test]
async fn a_refusal_is_the_hooks_own_status_and_code() {
    let gateway = gateway(|_| ()).await;
    let verdict = |from: &Sender| match from.user.as_str() {
        "banned" => refuse(403, "banned"),
        "stranger" => refuse(401, "no_session"),
        _ => refuse(429, "slow_down"),
    };
    let _hook = Hook::link(&gateway, move |from| Some(verdict(from))).await;

    for (user, status, code) in [
        ("banned", "403 Forbidden", "banned"),
        ("stranger", "401 Unauthorized", "no_session"),
        ("eager", "429 Too Many Requests", "slow_down"),
    ] {
        let text = answer(&gateway, &format!("?user={user}"), "").await;

        assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text}");
        assert!(text.contains(&format!("\"code\":\"{code}\"")) && text.contains("says the hook"), "{text}");
        assert_eq!(text.contains("Retry-After"), code == "slow_down", "{text}");
    }
    assert_eq!(gateway_connections(&gateway), 0);
}

fn gateway_connections(gateway: &Gateway) -> u64 {
    metric(gateway, "tidegate_gateway_connections")
}

#[tokio::test]
async fn the_hook_sees_the_headers_it_wants_and_no_token() {
    let gateway = gateway(|c| c.auth = config()).await;
    let hook = Hook::link(&gateway, |_| Some(refuse(403, "no"))).await;
    let token = good(&json!({}));

    answer(&gateway, &format!("?platform=web&token={token}"), "Cookie: session=1\r\nX-Other: 2\r\n").await;
    answer(&gateway, "", &format!("Authorization: Bearer {token}\r\n")).await;

    let asked = hook.asked.lock().clone();
    assert_eq!(asked[0].1.path, "/ws?platform=web");
    assert_eq!(asked[0].1.headers, [Pair { name: "cookie".into(), value: "session=1".into() }]);
    assert!(asked[0].0.address.starts_with("127.0.0.1:"), "{}", asked[0].0.address);
    for (from, connect) in &asked {
        let all = format!("{from:?}{connect:?}");
        assert!(!all.contains(&token) && !all.contains(token.rsplit('.').next().expect("three parts")), "{all}");
    }
    assert_ne!(asked[0].1.fingerprint, asked[1].1.fingerprint);
}

#[tokio::test]
async fn a_client_that_says_who_it_is_later_is_asked_about_then() {
    let gateway = gateway(|c| c.auth = config()).await;
    let verdict = |from: &Sender| if from.user == "ann" { accept() } else { refuse(403, "banned") };
    let hook = Hook::link(&gateway, move |from| Some(verdict(from))).await;
    let mut good_one = Client::open(&gateway, "", None).await;
    let mut bad_one = Client::open(&gateway, "", None).await;

    good_one.auth(&good(&json!({}))).await;
    let good_one = good_one.greeted().await;
    bad_one.auth(&good(&json!({"sub": "bob"}))).await;
    let error = bad_one.next().await;

    assert_eq!(good_one.hello["user"], "ann");
    assert_eq!((&error["type"], &error["data"]["code"]), (&json!("ERROR"), &json!("banned")));
    assert_eq!(bad_one.closed().await, 3505);
    let asked = hook.asked.lock().clone();
    assert_ne!(asked[0].1.fingerprint, asked[1].1.fingerprint, "no other client's answer is theirs");
}

#[tokio::test]
async fn nobody_comes_in_while_the_hook_cannot_be_asked() {
    let required = quick(|c| c.hook.required = true).await;
    let silent = quick(|_| ()).await;
    let _hook = Hook::link(&silent, |_| None).await;
    let lost = quick(|_| ()).await;
    let hook = Hook::link(&lost, |_| Some(accept())).await;
    drop(Client::connect(&lost, "").await);
    hook.task.abort();
    drop(hook);

    for (gateway, why) in [(&required, "no logic node yet"), (&silent, "no answer"), (&lost, "its node has gone")] {
        let text = answer(gateway, "", "").await;

        assert!(text.starts_with("HTTP/1.1 503 "), "{why}: {text}");
        assert!(text.contains("\"code\":\"hook_unavailable\"") && text.contains("Retry-After: "), "{why}: {text}");
    }
    assert_eq!(metric(&silent, "tidegate_gateway_handshakes"), 0);
}

#[tokio::test]
async fn an_answer_that_cannot_be_carried_out_lets_nobody_in() {
    let gateway = gateway(|c| c.auth = config()).await;
    let many = Grants { rooms: (0..20).map(|n| n.to_string()).collect(), ..Grants::default() };
    let verdict = move |from: &Sender| match from.user.as_str() {
        "many" => Verdict { grant: Some(many.clone()), ..accept() },
        "join" => Verdict { join: vec!["a\nb".into()], ..accept() },
        "rooms" => Verdict { join: (0..65).map(|n| n.to_string()).collect(), ..accept() },
        _ => Verdict { user: "x".repeat(200), ..accept() },
    };
    let _hook = Hook::link(&gateway, move |from| Some(verdict(from))).await;
    let rooms: Vec<String> = (0..20).map(|n| format!("r{n}")).collect();

    for user in ["many", "join", "rooms", "name"] {
        let token = good(&json!({"sub": user, "rooms": rooms}));
        let text = answer(&gateway, "", &format!("Authorization: Bearer {token}\r\n")).await;

        assert!(text.contains("\"code\":\"hook_unavailable\""), "{user}: {text}");
    }
}

#[tokio::test]
async fn one_who_leaves_while_it_is_asked_about_is_gone() {
    let gateway = gateway(|_| ()).await;
    let hook = Hook::link(&gateway, |_| None).await;
    let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    socket.write_all(head("", "").as_bytes()).await.expect("sent");
    hook.until_asked(1).await;
    assert_eq!(metric(&gateway, "tidegate_gateway_handshakes"), 1);

    drop(socket);

    until("the place is free again", PATIENCE, || metric(&gateway, "tidegate_gateway_handshakes") == 0).await;
}

#[tokio::test]
async fn those_who_are_asked_about_count_among_the_handshakes() {
    let gateway = quick(|c| c.handshake.in_flight = 1).await;
    let hook = Hook::link(&gateway, |_| None).await;
    let mut first = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    first.write_all(head("", "").as_bytes()).await.expect("sent");
    hook.until_asked(1).await;

    let second = answer(&gateway, "", "").await;

    assert!(second.contains("\"code\":\"overloaded\""), "{second}");
}

#[tokio::test]
async fn without_a_hook_nobody_is_asked_about() {
    let gateway = gateway(|_| ()).await;
    let mut logic = Logic::link(&gateway).await;
    let request = UplinkRequest { logic: 7, hold_ms: 10, ..UplinkRequest::default() };
    let first: UplinkReply = logic.ask(path::UPLINK, &request).await.expect("an answer");

    Client::connect(&gateway, "?user=alice").await;

    let request = UplinkRequest { epoch: first.epoch, ..request };
    let reply: UplinkReply = logic.ask(path::UPLINK, &request).await.expect("an answer");
    assert!(reply.items.is_empty(), "{:?}", reply.items);
}
