//! What clients say to business services (rule S-2), with the real binary and a webhook on loopback: replies and pushes,
//! dead letters, events, and that nothing that was told SENT is lost or overtaken when processes are killed.
//! `TIDEGATE_TEST_UPSTREAM_MESSAGES=100000 cargo test --release --test upstream -- killed` is the full size.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

use support::{Api, Client, Event, Hook, PATIENCE, Server, until};

fn to_route(id: u64, route: &str, data: &Value) -> Value {
    json!({"type": "SEND", "id": id, "data": {"route": route, "data": data}})
}

async fn serve(env: &[(&'static str, String)]) -> Server {
    let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (*key, value.as_str())).collect();
    Server::serve(&env).await
}

async fn delivered(server: &Server, patience: Duration) {
    until("an empty spool", patience, async || {
        let state = Api::connect(server.api()).await.get("/v1/upstream").await.json();
        (state["sinks"][0]["spool"]["messages"] == 0).then_some(())
    })
    .await;
}

/// Rule S-2: the service gets the message with its sender; its answer reaches the sender, and its pushes whom they name.
#[tokio::test]
async fn a_message_reaches_the_service_and_its_answer_the_sender() {
    let hook = Hook::start(|_, lines| {
        let replies: Vec<Value> = lines.iter().map(|line| json!({"to_id": line["id"], "data": line["data"]})).collect();
        let push = json!({"to": {"room": "lobby"}, "message": {"said": lines[0]["data"]}});
        (200, json!({"replies": replies, "pushes": [push]}).to_string())
    })
    .await;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let server = serve(&hook.env(folder.path(), "")).await;
    let mut bob = Client::named(server.clients(), "bob", "web").await;
    bob.join("lobby").await;
    let mut alice = Client::named(server.clients(), "alice", "ios").await;

    alice.say(to_route(7, "robot/echo", &json!({"text": "hi"}))).await;
    let first = alice.next_json().await;
    let second = alice.next_json().await;

    let (sent, push) = if first["type"] == "SENT" { (first, second) } else { (second, first) };
    assert_eq!((&sent["type"], &sent["id"]), (&json!("SENT"), &json!(7)), "{sent}");
    let reply = &push["data"]["items"][0];
    assert_eq!((&reply["reply_to"], &reply["data"]), (&sent["data"]["id"], &json!({"text": "hi"})), "{push}");
    assert_eq!(bob.items(1).await[0], json!({"said": {"text": "hi"}}));
    let line = &hook.taken()[0];
    assert_eq!(
        (&line["id"], &line["kind"], &line["route"]),
        (&sent["data"]["id"], &json!("message"), &json!("robot/echo"))
    );
    assert_eq!(
        (&line["user"], &line["platform"], &line["connection"]),
        (&json!("alice"), &json!("ios"), &json!(alice.id()))
    );
}

/// Rule S-2: what nobody listens to is refused by name.
#[tokio::test]
async fn a_route_that_leads_nowhere_is_an_error() {
    let server = Server::serve(&[]).await;
    let mut alice = Client::named(server.clients(), "alice", "web").await;

    alice.say(to_route(1, "robot/echo", &json!(1))).await;
    let refused = alice.next_json().await;

    assert_eq!((&refused["type"], &refused["data"]["code"]), (&json!("ERROR"), &json!("no_route")), "{refused}");
}

/// The example, as a new user would run it: it checks the signature by itself, so a wrong secret gets nothing.
#[tokio::test]
async fn the_example_robot_answers_those_who_know_its_secret() {
    use std::io::BufRead as _;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/robot/robot.py");
    let mut command = std::process::Command::new("python3");
    command.args([script, "--port", "0"]).env("ROBOT_SECRET", secret).stdout(std::process::Stdio::piped());
    let mut robot = Ended(command.spawn().expect("python3 is installed"));
    let mut line = String::new();
    let output = robot.0.stdout.take().expect("piped");
    std::io::BufReader::new(output).read_line(&mut line).expect("the robot says where it is");
    let url = line.trim().strip_prefix("robot at ").expect("as its text says").to_owned();
    let folder = tempfile::tempdir().expect("a scratch folder");
    let sink = |name: &str, secret: &str| {
        format!("{{name = \"{name}\", url = \"{url}\", allow_private = true, secrets = [\"{secret}\"]}}")
    };
    let wrong = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let server = serve(&[
        ("TIDEGATE_LOGIC__UPSTREAM__SPOOL", folder.path().display().to_string()),
        ("TIDEGATE_LOGIC__UPSTREAM__SINKS", format!("[{}, {}]", sink("robots", secret), sink("wrong", wrong))),
        (
            "TIDEGATE_LOGIC__UPSTREAM__ROUTES",
            "[{pattern = \"robot/*\", sink = \"robots\"}, {pattern = \"*\", sink = \"wrong\"}]".to_owned(),
        ),
    ])
    .await;
    let mut alice = Client::named(server.clients(), "alice", "web").await;

    alice.say(to_route(1, "robot/echo", &json!({"text": "hi"}))).await;
    let messages = [alice.next_json().await, alice.next_json().await];
    let push = messages.iter().find(|message| message["type"] == "PUSH").expect("the robot answers");
    let reply = push["data"]["items"][0].clone();
    alice.say(to_route(2, "other", &json!(1))).await;
    let dead = until("a dead letter", PATIENCE, async || {
        let page = Api::connect(server.api()).await.get("/v1/upstream/dead").await.json();
        page["dead"].get(0).cloned()
    })
    .await;

    assert_eq!(reply["data"], json!({"echo": {"text": "hi"}, "to": "alice"}));
    assert_eq!((&dead["sink"], &dead["reason"]), (&json!("wrong"), &json!("status 401")));
}

/// A process that ends with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn secrets_of_sinks_are_not_shown() {
    let hook = Hook::start(|_, _| (200, String::new())).await;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let show = |args: &[&str], broken: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(args).envs(hook.env(folder.path(), broken));
        let output = command.output().expect("the binary was built");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };

    let shown = [
        show(&["config", "show"], ""),
        show(&["config", "show", "--json"], ""),
        show(&["config", "check"], "lanes = 0"),
        show(&["config", "check"], "lanes = \"many\""),
    ];

    for text in &shown {
        assert!(text.contains("sinks") && !text.contains("MfKQ9r8"), "{text}");
    }
    assert!(shown[2].contains("lanes must be 1 to 256"), "{}", shown[2]);
}

#[tokio::test]
async fn dead_letters_are_listed_retried_and_deleted() {
    let hook = Hook::start(|place, _| (if place < 2 { 422 } else { 200 }, String::new())).await;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let server = serve(&hook.env(folder.path(), "batch_messages = 1, lanes = 1")).await;
    let mut alice = Client::named(server.clients(), "alice", "web").await;
    for n in 0..3 {
        alice.say(to_route(n, "robot/x", &json!(n))).await;
        alice.expect("SENT").await;
    }
    delivered(&server, PATIENCE).await;
    let mut api = Api::connect(server.api()).await;

    let page = api.get("/v1/upstream/dead?limit=1").await.json();
    assert_eq!((&page["dead"][0]["reason"], &page["dead"][0]["message"]["data"]), (&json!("status 422"), &json!(0)));
    let cursor = page["cursor"].as_str().expect("there is more").to_owned();
    let next = api.get(&format!("/v1/upstream/dead?limit=1&cursor={cursor}")).await.json();
    assert_eq!((&next["dead"][0]["message"]["data"], &next["cursor"]), (&json!(1), &Value::Null), "{next}");
    let id = next["dead"][0]["message"]["id"].as_str().expect("an id").to_owned();

    let retried = api.post(&format!("/v1/upstream/dead/retry?sink=robots&id={id}"), "").await;
    assert_eq!((retried.status, retried.json()), (200, json!({"done": 1, "left": 1})));
    delivered(&server, PATIENCE).await;
    assert_eq!(hook.taken().pop().expect("it came")["data"], 1);
    let deleted = api.send("DELETE", "/v1/upstream/dead", "application/json", "").await;
    assert_eq!(deleted.json(), json!({"done": 1, "left": 0}));
    assert_eq!(api.get("/v1/upstream/dead?sink=nobody").await.status, 404);
    assert_eq!(server.metrics().await.sum("tidegate_upstream_dead_total"), 2);
}

/// Events of alice that the service has, once there are as many of a kind.
async fn story(hook: &Hook, kind: &str, count: usize) -> Vec<Value> {
    until(kind, PATIENCE, async || {
        let mine: Vec<Value> = hook.taken().into_iter().filter(|line| line["user"] == "alice").collect();
        (mine.iter().filter(|line| line["event"] == kind).count() >= count).then_some(mine)
    })
    .await
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["event"].as_str().expect("an event")).collect()
}

/// Of a node, one after the other.
const STARTS: usize = 12;

const EVENTS: &str =
    "events = [\"connected\", \"disconnected\", \"joined\", \"left\", \"user_online\", \"user_offline\"]";

/// The debounce is longer than the test: nothing here depends on how fast it runs.
#[tokio::test]
async fn a_life_is_told_in_order_and_a_user_who_is_back_in_time_was_never_gone() {
    let hook = Hook::start(|_, _| (200, String::new())).await;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let mut env = hook.env(folder.path(), EVENTS);
    env.push(("TIDEGATE_LOGIC__EVENTS__DEBOUNCE_MS", "600000".into()));
    let server = serve(&env).await;
    let mut alice = Client::named(server.clients(), "alice", "web").await;
    alice.join("a").await;
    alice.join("b").await;
    alice.ask(json!({"type": "LEAVE", "id": 3, "data": {"room": "a"}})).await;
    alice.close(1000).await;
    alice.ending().await;
    story(&hook, "disconnected", 1).await;
    drop(Client::named(server.clients(), "alice", "web").await);
    let lines = story(&hook, "disconnected", 2).await;

    let expected =
        ["connected", "user_online", "joined", "joined", "left", "left", "disconnected", "connected", "disconnected"];
    assert_eq!(kinds(&lines), expected, "{lines:#?}");
    assert_eq!(lines[4]["data"], json!({"room": "a"}));
    assert_eq!(lines[5]["data"], json!({"room": "b", "reason": "disconnected"}));
    assert_eq!((&lines[6]["data"]["code"], &lines[6]["data"]["reason"]), (&json!(1000), &json!("normal")));
    assert!(lines[6]["data"]["duration_ms"].is_u64() && lines[8]["data"]["code"] == 1006, "{lines:#?}");
    let ids: BTreeSet<&str> = lines.iter().filter_map(|line| line["id"].as_str()).collect();
    assert_eq!(ids.len(), lines.len(), "each event has an id of its own");
}

/// The client comes as soon as the start line is there, as one that has waited for the node would.
#[tokio::test]
async fn the_very_first_client_of_each_start_is_told_of() {
    let hook = Hook::start(|_, _| (200, String::new())).await;
    for start in 1..=STARTS {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let env = hook.env(folder.path(), "events = [\"connected\", \"user_online\"]");
        let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let server = Server::serve_at_once(&env).await;

        let _alice = Client::named(server.direct_clients(), "alice", "web").await;

        let told = story(&hook, "user_online", start).await;
        assert_eq!(kinds(&told), ["connected", "user_online"].repeat(start), "start {start}");
    }
}

#[tokio::test]
async fn a_user_who_stays_away_is_told_of_and_is_news_again() {
    let hook = Hook::start(|_, _| (200, String::new())).await;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let mut env = hook.env(folder.path(), "events = [\"user_online\", \"user_offline\"]");
    env.push(("TIDEGATE_LOGIC__EVENTS__DEBOUNCE_MS", "50".into()));
    let server = serve(&env).await;

    for times in 1..=2 {
        drop(Client::named(server.clients(), "alice", "web").await);
        story(&hook, "user_offline", times).await;
    }

    let lines = story(&hook, "user_offline", 2).await;
    assert_eq!(kinds(&lines), ["user_online", "user_offline", "user_online", "user_offline"], "{lines:#?}");
}

/// A client that sends numbers in order and remembers which were told SENT; what was not is sent again after a loss.
struct Talker {
    client: Client,
    user: String,
    sent: BTreeSet<u64>,
    /// Counts restarts of the gateway.
    is_back: watch::Receiver<u32>,
}

/// Messages of one client on their way at once.
const WINDOW: u64 = 64;

impl Talker {
    /// Sends all numbers below `end`; comes back over a new connection, from the first that was not told SENT.
    async fn talk(&mut self, gateway: std::net::SocketAddr, end: u64) {
        let (mut next, deadline) = (0, Instant::now() + 10 * PATIENCE);
        while (self.sent.len() as u64) < end {
            assert!(Instant::now() < deadline, "{}: {} of {end} told SENT", self.user, self.sent.len());
            let first_open = (0..).find(|n| !self.sent.contains(n)).expect("numbers do not end");
            while next < end && next < first_open + WINDOW {
                if !self.client.try_say(to_route(next, "robot/n", &json!({"n": next}))).await {
                    // The loss is the next thing that is heard.
                    break;
                }
                next += 1;
            }
            let Some(received) = self.client.next_within(Duration::from_secs(20)).await else { continue };
            match received.event {
                Event::Text(text) => {
                    let message: Value = serde_json::from_str(&text).expect("JSON");
                    // A refused message would be overtaken by what is on its way behind it; none has a reason to be.
                    assert_ne!(message["type"], "ERROR", "{message}");
                    if message["type"] == "SENT" {
                        self.sent.insert(message["id"].as_u64().expect("ours"));
                    }
                }
                Event::Closed(..) | Event::Lost => {
                    self.is_back.changed().await.expect("the test lives");
                    self.client = Client::named(gateway, &self.user, "web").await;
                    next = first_open;
                }
                _ => {}
            }
        }
    }
}

/// Whether each user's messages first reached the service in their order, and all that were told SENT did.
fn assert_whole(hook: &Hook, talkers: &[Talker]) {
    let mut firsts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for line in hook.taken() {
        let (user, n) =
            (line["user"].as_str().expect("a user").to_owned(), line["data"]["n"].as_u64().expect("a number"));
        if seen.insert((user.clone(), n)) {
            firsts.entry(user).or_default().push(n);
        }
    }
    for talker in talkers {
        let arrived = firsts.get(&talker.user).cloned().unwrap_or_default();
        let missing: Vec<&u64> = talker.sent.iter().filter(|n| !arrived.contains(n)).collect();
        assert!(missing.is_empty(), "{}: told SENT and lost: {missing:?}", talker.user);
        assert!(arrived.is_sorted(), "{}: out of order: {arrived:?}", talker.user);
    }
}

fn messages() -> u64 {
    std::env::var("TIDEGATE_TEST_UPSTREAM_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000)
}

const USERS: u64 = 20;

/// Clients talk through a webhook that fails a fifth of its requests, while `kill` does its work.
async fn talk_while(folder: &Path, kill: impl AsyncFnOnce(Server, Server, &Hook) -> (Server, Server)) {
    let hook = Hook::start(|place, _| match place % 5 {
        2 if place % 2 == 0 => (500, String::new()),
        2 => (503, String::new()),
        _ => (200, String::new()),
    })
    .await;
    let env = hook.env(folder, "retry_base_ms = 10");
    let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let unlimited =
        [("TIDEGATE_GATEWAY__LIMITS__REQUESTS_PER_S", "0"), ("TIDEGATE_GATEWAY__LIMITS__USER_SENDS_PER_S", "0")];
    let gateway = Server::gateway("g1", &unlimited).await;
    let logic = Server::logic(&[&gateway], &env).await;
    let back = watch::Sender::new(0);
    let (address, each) = (gateway.clients(), messages() / USERS);
    let mut tasks = Vec::new();
    for user in 0..USERS {
        let user = format!("u{user}");
        let client = Client::named(address, &user, "web").await;
        let mut talker = Talker { client, user, sent: BTreeSet::new(), is_back: back.subscribe() };
        tasks.push(tokio::spawn(async move {
            talker.talk(address, each).await;
            talker
        }));
    }
    let (_gateway, logic) = kill(gateway, logic, &hook).await;
    back.send_modify(|times| *times += 1);
    let mut talkers = Vec::new();
    for task in tasks {
        talkers.push(task.await.expect("a talker ends well"));
    }
    delivered(&logic, 6 * PATIENCE).await;
    let again = hook.taken().len() as u64 - each * USERS;
    println!("{} messages told SENT, {again} delivered again", each * USERS);

    assert_whole(&hook, &talkers);
}

async fn a_third(hook: &Hook) {
    until("a third of the messages", 6 * PATIENCE, async || {
        (hook.taken().len() as u64 >= messages() / 3).then_some(())
    })
    .await;
}

/// Rule S-2: SENT means that the message outlives the logic node.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_told_sent_is_lost_or_overtaken_when_logic_is_killed() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    talk_while(folder.path(), async |gateway, logic, hook| {
        a_third(hook).await;
        (gateway, logic.restart().await)
    })
    .await;
}

/// Rule S-2: nor is it when the gateway is killed; what was not told SENT the client sends again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_told_sent_is_lost_or_overtaken_when_the_gateway_is_killed() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    talk_while(folder.path(), async |gateway, logic, hook| {
        a_third(hook).await;
        (gateway.restart().await, logic)
    })
    .await;
}
