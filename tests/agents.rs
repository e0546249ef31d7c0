//! Commands to agents over HTTP (rule S-3), and `tidegate agent` itself: the real binary on both ends.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Answer, Api, Client, Server, until};

/// Sends a command; the API's answer.
async fn command(server: &Server, user: &str, body: Value) -> Answer {
    server.connect_api().await.post(&format!("/v1/agents/{user}/command"), body.to_string()).await
}

/// A command on its way.
fn commanding(server: &Server, user: &str, body: Value) -> tokio::task::JoinHandle<Answer> {
    posting(server, &format!("/v1/agents/{user}/command"), body)
}

fn posting(server: &Server, path: &str, body: Value) -> tokio::task::JoinHandle<Answer> {
    let (api, path) = (server.api(), path.to_owned());
    tokio::spawn(async move { Api::connect(api).await.post(&path, body.to_string()).await })
}

/// The next COMMAND; its id and data.
async fn asked(agent: &mut Client) -> (String, Value) {
    let message = agent.next_json().await;
    assert_eq!(message["type"], "COMMAND", "{message}");
    (message["id"].as_str().expect("an id").to_owned(), message["data"].clone())
}

async fn reply(agent: &Client, id: &str, data: Value) {
    agent.say(json!({"type": "REPLY", "id": id, "data": data})).await;
}

/// Rule S-3.
#[tokio::test]
async fn the_http_answer_is_the_agents_reply() {
    let server = Server::serve(&[]).await;
    let mut agent = Client::named(server.clients(), "robot", "agent").await;

    let answer = commanding(&server, "robot", json!({"command": "sum", "data": [1, 2], "timeout_ms": 5_000}));
    let (id, data) = asked(&mut agent).await;
    reply(&agent, &id, json!({"data": {"sum": 3}})).await;
    let answer = answer.await.expect("no panic");

    assert_eq!((&data["command"], &data["data"]), (&json!("sum"), &json!([1, 2])));
    assert!((1..=5_000).contains(&data["deadline_ms"].as_u64().expect("a number")), "{data}");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let got = answer.json();
    assert_eq!((&got["id"], &got["reply"]["data"]), (&json!(id), &json!({"sum": 3})));
    assert_eq!(got["reply"]["from"], json!({"user": "robot", "connection": agent.id()}));
}

/// Rule S-3: what is known comes with the refusal.
#[tokio::test]
async fn an_agents_error_is_502_a_late_one_504_and_nobody_404() {
    let server = Server::serve(&[]).await;
    let mut agent = Client::named(server.clients(), "robot", "agent").await;

    let failing = commanding(&server, "robot", json!({"command": "fly"}));
    let (id, _) = asked(&mut agent).await;
    reply(&agent, &id, json!({"error": {"code": "not_allowed"}})).await;
    let failed = failing.await.expect("no panic");
    let late = command(&server, "robot", json!({"command": "sleep", "timeout_ms": 50})).await;
    let nobody = command(&server, "nobody", json!({"command": "ping"})).await;

    assert_eq!(failed.problem(), (502, "agent_error".into()));
    assert_eq!(failed.json()["command"]["reply"]["error"], json!({"code": "not_allowed"}));
    assert_eq!(late.problem(), (504, "command_timeout".into()));
    assert_eq!((&late.json()["command"]["delivered"], &late.json()["command"]["connected"]), (&json!(1), &json!(true)));
    assert_eq!(nobody.problem(), (404, "nobody_there".into()));
}

/// Rule S-3: a reply is taken from whom the command was for, once, and while it waits.
#[tokio::test]
async fn nobody_else_can_reply_and_late_replies_go_nowhere() {
    let server = Server::serve(&[]).await;
    let mut agent = Client::named(server.clients(), "robot", "agent").await;
    let eve = Client::named(server.clients(), "eve", "agent").await;

    let answer = commanding(&server, "robot", json!({"command": "secret", "timeout_ms": 10_000}));
    let (id, _) = asked(&mut agent).await;
    reply(&eve, &id, json!({"data": "from eve"})).await;
    let fate = async |fate: &str| {
        let label = format!("fate=\"{fate}\"");
        server.metrics().await.sum_where("tidegate_logic_command_replies_total", &label)
    };
    until("eve's reply to be passed over", support::PATIENCE, async || (fate("late").await == 1).then_some(())).await;
    reply(&agent, &id, json!({"data": "from robot"})).await;
    let answer = answer.await.expect("no panic").json();
    reply(&agent, &id, json!({"data": "again"})).await;
    until("the second reply to be late", support::PATIENCE, async || (fate("late").await == 2).then_some(())).await;

    assert_eq!(answer["reply"]["data"], "from robot", "{answer}");
    assert_eq!(fate("taken").await, 1);
}

/// `idempotency`.
#[tokio::test]
async fn a_repeated_key_joins_the_first_and_another_body_is_a_conflict() {
    let server = Server::serve(&[]).await;
    let mut agent = Client::named(server.clients(), "robot", "agent").await;
    let once = json!({"command": "reboot", "idempotency": "k1"});

    let first = commanding(&server, "robot", once.clone());
    let (id, _) = asked(&mut agent).await;
    let second = commanding(&server, "robot", once.clone());
    until("the repeat to have come", support::PATIENCE, async || {
        let repeated = server.metrics().await.sum_where("tidegate_logic_commands_total", "end=\"repeated\"");
        (repeated == 1).then_some(())
    })
    .await;
    let conflict = command(&server, "robot", json!({"command": "halt", "idempotency": "k1"})).await;
    let other_agent = command(&server, "robot2", once.clone()).await;
    reply(&agent, &id, json!({"data": 1})).await;
    let (first, second) = (first.await.expect("no panic"), second.await.expect("no panic"));
    let third = command(&server, "robot", once).await;

    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!((first.json(), first.json()), (second.json(), third.json()));
    assert_eq!(conflict.problem(), (409, "idempotency_conflict".into()));
    assert_eq!(other_agent.problem(), (409, "idempotency_conflict".into()));
    assert!(agent.next_within(Duration::from_millis(50)).await.is_none(), "the agent was asked once");
}

/// `expect: "all"`.
#[tokio::test]
async fn replies_of_a_room_stream_as_they_come_and_end_with_a_summary() {
    let server = Server::serve(&[]).await;
    let mut agents = Vec::new();
    for name in ["a", "b", "c"] {
        let mut agent = Client::named(server.clients(), name, "agent").await;
        agent.join("fleet").await;
        agents.push(agent);
    }
    let body = |timeout_ms: u32| json!({"command": "info", "expect": "all", "timeout_ms": timeout_ms});

    let whole = posting(&server, "/v1/rooms/fleet/command", body(10_000));
    for (n, agent) in agents.iter_mut().enumerate() {
        let (id, _) = asked(agent).await;
        let data = if n == 2 { json!({"error": "broken"}) } else { json!({"data": n}) };
        reply(agent, &id, data).await;
    }
    let whole = whole.await.expect("no panic");
    let part = posting(&server, "/v1/rooms/fleet/command", body(300));
    let (id, _) = asked(&mut agents[0]).await;
    reply(&agents[0], &id, json!({"data": 0})).await;
    let part = part.await.expect("no panic");
    let nobody = server.connect_api().await.post("/v1/rooms/empty/command", body(300).to_string()).await;

    let lines = |answer: &Answer| -> Vec<Value> {
        answer.text().lines().map(|l| serde_json::from_str(l).expect("JSON lines")).collect()
    };
    assert_eq!((whole.status, &whole.headers["content-type"]), (200, &"application/x-ndjson".parse().expect("plain")));
    let whole = lines(&whole);
    let errors = whole.iter().filter(|l| l["reply"]["error"] == "broken").count();
    assert_eq!((whole.len(), errors), (4, 1), "{whole:?}");
    let summary = &whole[3]["summary"];
    assert_eq!((&summary["replies"], &summary["errors"], &summary["delivered"]), (&json!(3), &json!(1), &json!(3)));
    assert_eq!(summary["timed_out"], false);
    let part = lines(&part);
    assert_eq!((part.len(), &part[1]["summary"]["timed_out"]), (2, &json!(true)), "{part:?}");
    assert_eq!(nobody.problem(), (404, "nobody_there".into()));
}

/// Rule S-3: the deadline is the command's, not the connection's.
#[tokio::test]
async fn an_agent_that_reconnects_within_the_deadline_still_answers() {
    let server = Server::serve(&[]).await;
    let mut agent = Client::named(server.clients(), "robot", "agent").await;

    let answer = commanding(&server, "robot", json!({"command": "slow", "timeout_ms": 20_000}));
    let (id, _) = asked(&mut agent).await;
    drop(agent);
    let mut agent = Client::named(server.clients(), "robot", "agent").await;
    let (again, _) = asked(&mut agent).await;
    reply(&agent, &again, json!({"data": "done"})).await;
    let answer = answer.await.expect("no panic");

    assert_eq!((answer.status, &answer.json()["reply"]["data"]), (200, &json!("done")));
    assert_eq!((id, answer.json()["reply"]["from"]["connection"].clone()), (again, json!(agent.id())));
}

/// A connection that is there twice gets a command once, however long it waits.
#[tokio::test]
async fn a_connection_that_stays_is_not_asked_again() {
    let server = Server::serve(&[]).await;
    let mut agent = Client::named(server.clients(), "robot", "agent").await;

    let answer = commanding(&server, "robot", json!({"command": "slow", "timeout_ms": 20_000}));
    asked(&mut agent).await;
    // Half-open: the user comes back while its old connection still counts, so interest has nothing to tell.
    let mut second = Client::named(server.clients(), "robot", "agent").await;
    let (id, _) = asked(&mut second).await;
    assert!(agent.next_within(Duration::from_millis(200)).await.is_none(), "the first was asked once");
    reply(&second, &id, json!({"data": 2})).await;

    assert_eq!(answer.await.expect("no panic").json()["reply"]["data"], 2);
}

/// `wait_for_agent`.
#[tokio::test]
async fn a_command_that_waits_for_its_agent_reaches_it_when_it_comes() {
    let server = Server::serve(&[]).await;

    let waiting = json!({"command": "ping", "wait_for_agent": true, "timeout_ms": 20_000});
    let answer = commanding(&server, "robot", waiting);
    until("the command to wait", support::PATIENCE, async || {
        (server.metrics().await.sum("tidegate_logic_commands_waiting") == 1).then_some(())
    })
    .await;
    let mut agent = Client::named(server.clients(), "robot", "agent").await;
    let (id, _) = asked(&mut agent).await;
    reply(&agent, &id, json!({"data": 1})).await;

    assert_eq!(answer.await.expect("no panic").status, 200);
}

/// `agents.commands`: one more is refused, and pushes are not.
#[tokio::test]
async fn commands_that_wait_are_bounded_and_leave_the_rest_of_the_api_alone() {
    let env = [("TIDEGATE_LOGIC__AGENTS__COMMANDS", "3"), ("TIDEGATE_LOGIC__LIMITS__IN_FLIGHT", "2")];
    let server = Server::serve(&env).await;
    let mut agent = Client::named(server.clients(), "robot", "agent").await;

    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(commanding(&server, "robot", json!({"command": "x", "timeout_ms": 20_000})));
        asked(&mut agent).await;
    }
    let refused = command(&server, "robot", json!({"command": "x"})).await;
    let pushed = server.connect_api().await.push(json!({"to": {"user": "robot"}, "message": 1})).await;
    assert_eq!(refused.problem(), (503, "overloaded".into()));
    assert_eq!(pushed["matched"], 1);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    if std::env::var("TIDEGATE_TEST_FRONT").is_ok_and(|front| front == "haproxy") {
        // It waits for the answer to a request that has left, whoever asked (deploy/haproxy.cfg).
        return;
    }
    until("callers that left to be forgotten", support::PATIENCE, async || {
        (server.metrics().await.sum("tidegate_logic_commands_waiting") == 0).then_some(())
    })
    .await;
}

/// `GET /v1/agents` and `/agents`.
#[tokio::test]
async fn agents_are_listed_as_json_and_as_text() {
    let server = Server::serve(&[]).await;
    let agent = Client::named(server.clients(), "robot", "agent").await;
    let web = Client::named(server.clients(), "ann", "web").await;
    let mut api = server.connect_api().await;

    let list = api.get("/v1/agents").await.json();
    let text = api.get("/agents").await.text();
    let by_user = api.get("/agents?id=robot").await;
    let by_id = api.get(&format!("/agents?id={}", agent.id())).await;
    let not_one = api.get(&format!("/agents?id={}", web.id())).await;

    assert_eq!(list["agents"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!((&list["agents"][0]["id"], &list["agents"][0]["user"]), (&json!(agent.id()), &json!("robot")));
    assert!(text.contains(&agent.id()) && !text.contains(&web.id()), "{text}");
    assert_eq!(by_user.text(), by_id.text());
    assert!(by_user.text().contains("user     robot"), "{}", by_user.text());
    assert_eq!(not_one.problem(), (404, "no_such_agent".into()));
}

/// `POST …/command` says what is wrong with it.
#[tokio::test]
async fn each_bad_command_has_its_code() {
    let server = Server::serve(&[]).await;
    let cases = [
        (json!({}), 422, "missing_field"),
        (json!({"command": ""}), 422, "bad_value"),
        (json!({"command": 7}), 422, "wrong_type"),
        (json!({"command": "x", "timeout_ms": 0}), 422, "bad_value"),
        (json!({"command": "x", "timeout_ms": 120_001}), 422, "bad_value"),
        (json!({"command": "x", "expect": "most"}), 422, "bad_value"),
        (json!({"command": "x", "wait_for_agent": 1}), 422, "wrong_type"),
        (json!({"command": "x", "tiemout_ms": 1}), 422, "unknown_field"),
        (json!({"command": "x", "data": "x".repeat(70_000)}), 413, "message_too_large"),
    ];

    for (body, status, code) in cases {
        let answer = command(&server, "robot", body.clone()).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{:.80}", body.to_string());
    }
    let room = json!({"command": "x", "wait_for_agent": true}).to_string();
    let answer = server.connect_api().await.post("/v1/rooms/r/command", room).await;
    assert_eq!(answer.problem(), (422, "bad_value".into()));
}

/// The command that waits longest is answered by its deadline.
#[tokio::test]
async fn a_deadline_is_kept() {
    let server = Server::serve(&[]).await;
    let _agent = Client::named(server.clients(), "robot", "agent").await;
    let begun = Instant::now();

    let answer = command(&server, "robot", json!({"command": "x", "timeout_ms": 300})).await;

    let took = begun.elapsed();
    assert_eq!(answer.status, 504);
    // The time is what is promised; the default, which would count if this were not heeded, is 5 s.
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
}

/// A running `tidegate agent`.
struct Agent {
    child: std::process::Child,
    log: tempfile::NamedTempFile,
}

impl Agent {
    fn start(server: &Server, flags: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
        let url = format!("ws://{}/ws", server.clients());
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["agent", "--url", &url]).args(flags).stdin(std::process::Stdio::null());
        command.stderr(log.reopen().expect("the log was just made"));
        Self { child: command.spawn().expect("the binary was built"), log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    async fn registered(&self, times: usize) {
        until("the agent to register", support::PATIENCE, async || {
            (self.log().matches("registered").count() >= times).then_some(())
        })
        .await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn allow_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    std::fs::write(file.path(), text).expect("a scratch file");
    file
}

/// `tidegate agent`: allowed commands are answered, others refused.
#[tokio::test]
async fn the_agent_does_what_its_list_names_and_nothing_else() {
    let server = Server::serve(&[]).await;
    let file = allow_file("[programs.say]\nargv = [\"/bin/echo\", \"hi\"]\nargs = [\"there\"]\n");
    let words = format!("info,ping,exec:{}", file.path().display());
    let agent = Agent::start(&server, &["--user", "edge 1", "--allow", &words]);
    agent.registered(1).await;
    let ask = async |body: Value| command(&server, "edge%201", body).await;

    let ping = ask(json!({"command": "ping"})).await;
    let info = ask(json!({"command": "info"})).await;
    let said = ask(json!({"command": "exec:say", "data": {"args": ["there"]}})).await;
    let refused = ask(json!({"command": "exec:say", "data": {"args": ["; id"]}})).await;
    let unknown = ask(json!({"command": "exec:sh"})).await;
    let listed = server.connect_api().await.get("/v1/agents").await.json();

    assert!(ping.json()["reply"]["data"]["time_ms"].is_u64(), "{}", ping.text());
    let info = info.json()["reply"]["data"].clone();
    assert!(info["memory"]["total_bytes"].is_u64() && info["os"]["kernel"].is_string(), "{info}");
    assert_eq!(said.json()["reply"]["data"]["stdout"], "hi there\n", "{}", said.text());
    for answer in [refused, unknown] {
        assert_eq!(answer.problem(), (502, "agent_error".into()));
        assert_eq!(answer.json()["command"]["reply"]["error"]["code"], "not_allowed");
    }
    assert_eq!(listed["agents"][0]["user"], "edge 1");
}

/// `tidegate agent`: it comes back, and what it did before is answered from memory.
#[tokio::test]
async fn the_agent_comes_back_and_answers_again_without_doing_again() {
    let server = Server::serve(&[]).await;
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let (mark, gate) = (folder.path().join("runs"), folder.path().join("gate"));
    let script = format!(
        "echo run >> {}; while [ ! -e {} ]; do /bin/sleep 0.02; done; echo done",
        mark.display(),
        gate.display()
    );
    let file = allow_file(&format!("[programs.slow]\nargv = [\"/bin/sh\", \"-c\", {script:?}]\ntimeout_ms = 20000\n"));
    let agent = Agent::start(&server, &["--user", "edge", "--allow", &format!("exec:{}", file.path().display())]);
    agent.registered(1).await;

    let answer = commanding(&server, "edge", json!({"command": "exec:slow", "timeout_ms": 20_000}));
    until("the program to run", support::PATIENCE, async || mark.exists().then_some(())).await;
    let closed =
        server.connect_api().await.send("DELETE", "/v1/users/edge/connections?code=4000", "text/plain", "").await;
    agent.registered(2).await;
    std::fs::write(&gate, "").expect("a scratch file");
    let answer = answer.await.expect("no panic");

    assert_eq!(closed.json()["closed"], 1);
    assert_eq!(answer.json()["reply"]["data"]["stdout"], "done\n", "{}", answer.text());
    assert_eq!(std::fs::read_to_string(&mark).expect("it ran"), "run\n", "it ran once");
}

/// `tidegate agent`: SIGTERM ends it with 0, a close that says "do not come back" with 1.
#[tokio::test]
async fn the_agent_leaves_when_told_and_stays_away_when_kicked() {
    let server = Server::serve(&[]).await;
    let mut told = Agent::start(&server, &["--user", "a", "--allow", "ping"]);
    let mut kicked = Agent::start(&server, &["--user", "b", "--allow", "ping"]);
    told.registered(1).await;
    kicked.registered(1).await;
    let pid = rustix::process::Pid::from_child(&told.child);

    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
    server.connect_api().await.send("DELETE", "/v1/users/b/connections", "text/plain", "").await;
    let exit = async |agent: &mut Agent| {
        until("the agent to end", support::PATIENCE, async || agent.child.try_wait().expect("ours")).await.code()
    };

    assert_eq!(exit(&mut told).await, Some(0), "{}", told.log());
    assert_eq!(exit(&mut kicked).await, Some(1), "{}", kicked.log());
    assert!(kicked.log().contains("refused for good"), "{}", kicked.log());
}

/// `tidegate agent`: a token shows nowhere.
#[tokio::test]
async fn the_agents_token_is_in_no_log() {
    let server = Server::serve(&[]).await;
    let file = allow_file("CANARY.CANARY.CANARY");
    let path = file.path().display().to_string();

    let flags = ["--token-file", &path, "--allow", "ping", "--log-level", "debug"];
    let agent = Agent::start(&server, &flags);
    agent.registered(1).await;
    let nowhere = Agent::start(&server, &["--url", "ws://127.0.0.1:1/ws", "--token-file", &path, "--allow", "ping"]);
    let mut nowhere = nowhere;
    let refused =
        until("a second --url to be refused", support::PATIENCE, async || nowhere.child.try_wait().expect("ours"))
            .await;

    assert_eq!(refused.code(), Some(2));
    assert!(!agent.log().contains("CANARY") && !server.log_text().contains("CANARY"), "{}", agent.log());
}

/// The scenario that `tidegate bench run agents` runs with 1,000 agents and 10,000 commands, with 60 and 600: each answer is
/// held against what really happened at the agent.
#[test]
fn every_answer_is_right_while_agents_die_and_come_back() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let json = folder.path().join("agents.json");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.args(["bench", "run", "agents", "--connections", "60", "--json"]).arg(&json).output();
    let output = output.expect("the binary was built");

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("the report was written")).expect("JSON");
    let figure = |name: &str| {
        let figures = report["figures"].as_array().expect("a report has figures");
        let found = figures.iter().find(|figure| figure["name"].as_str().is_some_and(|n| n.trim() == name));
        found.and_then(|figure| figure["value"].as_f64()).unwrap_or_else(|| panic!("no figure {name}: {figures:?}"))
    };
    assert_eq!((figure("wrong answers"), figure("answers at rest that are no reply")), (0.0, 0.0));
    let answered = ["answered 200", "answered 504", "answered 404"].map(figure);
    assert_eq!(answered.iter().sum::<f64>(), 600.0);
    assert!(answered[0] > 200.0 && figure("agents killed at random") > 0.0, "{said}");
    assert!(figure("commands sent to a second connection") > 0.0, "{said}");
}
