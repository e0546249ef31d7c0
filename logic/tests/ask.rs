//! Questions and commands over several gateways: paging, merging, and what is said of gateways that do not answer.

mod support;

use http::StatusCode;
use serde_json::json;
use support::{FakeGateway, call, delete, get, node, post, until};
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::records::target::To;
use tidegate_protocol::records::{ConnectionInfo, Target};

fn connection(gateway: u16, slot: u32, user: &str) -> (ConnectionId, ConnectionInfo) {
    let id = ConnectionId { gateway, epoch: 7, bucket: 1, slot, generation: 0 };
    let info = ConnectionInfo {
        id: id.to_u128().to_be_bytes().to_vec().into(),
        user: user.into(),
        platform: if slot.is_multiple_of(2) { "web".into() } else { "ios".into() },
        rooms: vec!["r".into()],
        address: "127.0.0.1:5".into(),
        age_ms: 5,
        ..ConnectionInfo::default()
    };
    (id, info)
}

/// Two gateways with seven and five connections of users u0 to u6.
async fn two() -> (FakeGateway, FakeGateway) {
    let (a, b) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    for (gateway, id, n) in [(&a, 1, 7), (&b, 2, 5)] {
        for slot in 0..n {
            let user = format!("u{slot}");
            gateway.state.lock().connections.push(connection(id, slot, &user).1);
            gateway.connect_user(&user);
        }
        gateway.join("r");
    }
    (a, b)
}

#[tokio::test]
async fn connections_are_paged_over_gateways_without_gap_or_repeat() {
    let (a, b) = two().await;
    let logic = node(&[&a, &b]).await;

    let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page = get(&logic, &format!("/v1/connections?limit=3{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let rows = page.json["connections"].as_array().expect("list").clone();
        assert!(rows.len() <= 3);
        seen.extend(rows.iter().map(|c| c["id"].as_str().expect("id").to_owned()));
        pages += 1;
        match page.json["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }

    let all = (0..7).map(|s| connection(1, s, "").0).chain((0..5).map(|s| connection(2, s, "").0));
    assert_eq!(seen, all.map(|id| id.to_string()).collect::<Vec<_>>());
    assert_eq!(pages, 4);
    let narrowed = get(&logic, "/v1/connections?user=u2&room=r&platform=web").await;
    assert_eq!(narrowed.json["connections"].as_array().map(Vec::len), Some(2));
    let members = get(&logic, "/v1/rooms/r/members?limit=2").await;
    assert_eq!(members.json["connections"].as_array().map(Vec::len), Some(2));
    assert!(members.json["cursor"].is_string());
}

#[tokio::test]
async fn one_connection_is_asked_of_its_gateway_only() {
    let (a, b) = two().await;
    let logic = node(&[&a, &b]).await;
    let (id, _) = connection(2, 3, "");

    let found = get(&logic, &format!("/v1/connections/{id}")).await;
    let stale = ConnectionId { epoch: 6, ..id };

    assert_eq!((&found.json["user"], &found.json["gateway"]), (&json!("u3"), &json!(b.name())));
    assert!(a.state.lock().queries.is_empty());
    assert_eq!(get(&logic, &format!("/v1/connections/{stale}")).await.status, 404);
    assert_eq!(get(&logic, "/v1/connections/nonsense").await.status, 404);
}

#[tokio::test]
async fn a_user_is_shown_with_connections_and_platforms_of_all_gateways() {
    let (a, b) = two().await;
    let logic = node(&[&a, &b]).await;

    let user = get(&logic, "/v1/users/u1").await.json;
    assert_eq!((&user["online"], &user["platforms"]), (&json!(true), &json!({"ios": 2})));
    assert_eq!(user["connections"].as_array().map(Vec::len), Some(2));
    let nobody = get(&logic, "/v1/users/nobody%2F1").await;
    assert_eq!((nobody.status.as_u16(), &nobody.json["online"]), (200, &json!(false)));
    assert_eq!(nobody.json["user"], "nobody/1");
}

#[tokio::test]
async fn rooms_are_merged_by_name_and_paged() {
    let (a, b) = two().await;
    for room in ["x1", "x2", "x3"] {
        a.join(room);
    }
    for room in ["x2", "x4", "r"] {
        b.join(room);
    }
    let logic = node(&[&a, &b]).await;

    let first = get(&logic, "/v1/rooms?prefix=x&limit=3").await.json;
    let next = format!("/v1/rooms?prefix=x&limit=3&cursor={}", first["cursor"].as_str().expect("cursor"));
    let rest = get(&logic, &next).await.json;

    let row = |room: &str, online: u64| json!({"room": room, "online": online});
    assert_eq!(first["rooms"], json!([row("x1", 1), row("x2", 2), row("x3", 1)]));
    assert_eq!(rest["rooms"], json!([row("x4", 1)]));
    assert!(rest["cursor"].is_null());
    let room = get(&logic, "/v1/rooms/r").await.json;
    assert_eq!((&room["online"], room["users"].as_array().map(Vec::len)), (&json!(3), Some(7)));
    assert_eq!(room["gateways"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_dead_gateway_is_named_as_missing_and_the_rest_answered() {
    let (a, b) = two().await;
    let logic = node(&[&a, &b]).await;
    b.kill();
    until(|| async { get(&logic, "/v1/gateways").await.json["gateways"][1]["state"] == "down" }).await;

    for path in ["/v1/connections", "/v1/rooms", "/v1/users/u1", "/v1/rooms/r"] {
        let reply = get(&logic, path).await;
        assert_eq!((reply.status.as_u16(), &reply.json["missing"]), (200, &json!([b.name()])), "{path}");
    }
    let (id, _) = connection(2, 3, "");
    let unknown = get(&logic, &format!("/v1/connections/{id}")).await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (503, "no_gateway"));
}

#[tokio::test]
async fn closing_is_told_to_the_gateway_with_code_and_reason() {
    let (a, b) = two().await;
    let logic = node(&[&a, &b]).await;
    let (id, info) = connection(1, 0, "");

    let one = delete(&logic, &format!("/v1/connections/{id}?code=4001&reason=bye+now")).await;
    let user = delete(&logic, "/v1/users/u1/connections").await;

    assert_eq!((one.status.as_u16(), &one.json["closed"]), (200, &json!(1)));
    assert_eq!(user.json, json!({"closed": 2, "gateways": {"sent": 2, "failed": []}}));
    let commands = a.state.lock().commands.clone();
    assert_eq!((commands[0].close_connections.clone(), commands[0].code), (vec![info.id], 4001));
    assert_eq!(commands[0].reason, "bye now");
    assert_eq!((commands[1].close_user.as_str(), commands[1].code), ("u1", 3502));
    assert_eq!(b.state.lock().commands.len(), 1);
    let stale = ConnectionId { epoch: 6, ..id };
    assert_eq!(delete(&logic, &format!("/v1/connections/{stale}")).await.code(), "no_such_connection");
}

#[tokio::test]
async fn stats_are_the_sum_of_the_gateways() {
    let (a, b) = two().await;
    let logic = node(&[&a, &b]).await;
    post(&logic, "/v1/push", r#"{"to":{"all":true},"message":1}"#).await;

    until(|| async { get(&logic, "/v1/stats").await.json["deliveries"] == 2 }).await;

    let stats = get(&logic, "/v1/stats").await.json;
    assert_eq!((&stats["connections"], &stats["messages"]["written"]), (&json!(12), &json!(2)));
    assert_eq!(stats["gateways"][0]["name"], "fake-1");
    assert_eq!(stats["gateways"][1]["is_known"], true);
}

#[tokio::test]
async fn metrics_end_once_and_carry_the_other_tiers_text() {
    let extras = tidegate_logic::Extras {
        metrics: Some(std::sync::Arc::new(|out: &mut String| out.push_str("extra 1\n# EOF\n"))),
        ..tidegate_logic::Extras::default()
    };
    let logic = tidegate_logic::Logic::start(support::config(), Vec::new(), extras).await.expect("start");

    let accept = [("accept", "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")];
    let open = call(logic.api_addr(), "GET", "/metrics", &accept, "").await;
    let older = get(&logic, "/metrics").await;
    let text = open.text();
    let page = get(&logic, "/").await;

    assert!(text.ends_with("extra 1\n# EOF\n"), "{text}");
    assert_eq!(text.matches("# EOF").count(), 1);
    assert_eq!(open.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(older.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(
        older.text().ends_with("extra 1\n") && older.text().contains("# TYPE tidegate_push_matched_total counter\n")
    );
    assert!(page.headers["content-security-policy"].to_str().expect("text").contains("default-src 'self'"));
}

#[tokio::test]
async fn the_page_is_told_where_the_gateways_are_and_what_is_asked_of_it() {
    let extras = tidegate_logic::Extras {
        gateway_url: Some("ws://127.0.0.1:8000/ws".into()),
        gateway_wants_tokens: Some(true),
        ..tidegate_logic::Extras::default()
    };
    let mut config = support::config();
    config.page.ws_url = "wss://push.example.com/ws".into();
    let scopes = vec![tidegate_logic::Scope::Read];
    let key = tidegate_logic::KeyConfig { id: "a".into(), sha256: "ab".repeat(32), scopes, ..Default::default() };
    config.keys = vec![key];
    let beside = tidegate_logic::Logic::start(config, Vec::new(), extras).await.expect("start");
    let alone = tidegate_logic::Logic::start(support::config(), Vec::new(), Default::default()).await.expect("start");

    let told = get(&beside, "/console/config.json").await.json;
    let guessing = get(&alone, "/console/config.json").await.json;

    assert_eq!(
        (&told["ws_url"], &told["gateway_url"]),
        (&json!("wss://push.example.com/ws"), &json!("ws://127.0.0.1:8000/ws"))
    );
    assert_eq!((&told["wants_token"], &told["wants_key"]), (&json!(true), &json!(true)));
    assert_eq!(
        (&guessing["ws_url"], &guessing["wants_token"], &guessing["wants_key"]),
        (&json!(null), &json!(null), &json!(false))
    );
}

/// Rule S-3: a look for newcomers knows those whom the gateways have named, however young they are.
#[tokio::test]
async fn who_came_just_before_a_command_is_asked_once_and_who_came_after_it_too() {
    let gateway = FakeGateway::start(1).await;
    let (_, young) = connection(1, 0, "ann");
    gateway.state.lock().connections.push(ConnectionInfo { age_ms: 0, ..young.clone() });
    let cursor = gateway.connect_user("ann");
    let logic = node(&[&gateway]).await;
    gateway.acked(cursor).await;
    let (_, later) = connection(1, 1, "ann");

    let state = std::sync::Arc::clone(&gateway.state);
    let came = tokio::spawn({
        let later = later.clone();
        async move {
            until(|| async { state.lock().applied.len() == 1 }).await;
            state.lock().connections.push(later);
            // Both looks of a command of this length: after a second, and shortly before its end.
            until(|| async { state.lock().queries.len() == 2 }).await;
        }
    });
    let reply = post(&logic, "/v1/agents/ann/command", r#"{"command": "x", "timeout_ms": 2000}"#).await;
    came.await.expect("no panic");

    assert_eq!((reply.status.as_u16(), reply.code()), (504, "command_timeout"));
    assert_eq!(reply.json["command"]["delivered"], 2);
    let asked: Vec<_> = gateway.state.lock().applied.iter().map(|push| push.targets.clone()).collect();
    let target = |to| vec![Target { to: Some(to) }];
    assert_eq!(asked, [target(To::User("ann".into())), target(To::Connection(later.id))]);
}

/// Rule S-3: a newcomer whose gateway had no room for the command is found again by the next look.
#[tokio::test]
async fn a_newcomer_whom_a_command_has_not_reached_is_asked_again() {
    let gateway = FakeGateway::start(1).await;
    let (_, there) = connection(1, 0, "ann");
    gateway.state.lock().connections.push(there);
    let cursor = gateway.connect_user("ann");
    let logic = node(&[&gateway]).await;
    gateway.acked(cursor).await;
    let (_, later) = connection(1, 1, "ann");

    let came = async {
        until(|| async { gateway.state.lock().applied.len() == 1 }).await;
        {
            let mut state = gateway.state.lock();
            state.connections.push(later);
            state.push_status = Some(StatusCode::SERVICE_UNAVAILABLE);
        }
        until(|| async { gateway.state.lock().received.len() == 2 }).await;
        gateway.state.lock().push_status = None;
    };
    let command = post(&logic, "/v1/agents/ann/command", r#"{"command": "x", "timeout_ms": 3000}"#);
    let (reply, ()) = tokio::join!(command, came);

    assert_eq!(reply.json["command"]["delivered"], 2, "{}", reply.text());
}

/// Rule S-3: while gateways are upgraded, an older one does not say whom a command has reached. Whoever is there is not asked again;
/// whoever comes at another gateway is.
#[tokio::test]
async fn an_older_gateway_does_not_keep_a_command_from_those_who_come_at_another_one() {
    let (old, new) = (FakeGateway::start(1).await, FakeGateway::start(2).await);
    let (_, there) = connection(1, 0, "ann");
    let (_, moved) = connection(2, 0, "ann");
    old.state.lock().names_nobody = true;
    old.state.lock().connections.push(there);
    let cursor = old.connect_user("ann");
    let logic = node(&[&old, &new]).await;
    old.acked(cursor).await;

    let came = async {
        until(|| async { old.state.lock().applied.len() == 1 }).await;
        new.state.lock().connections.push(moved.clone());
        new.connect_user("ann");
        until(|| async { old.state.lock().queries.len() >= 2 && !new.state.lock().queries.is_empty() }).await;
    };
    let command = post(&logic, "/v1/agents/ann/command", r#"{"command": "x", "timeout_ms": 2000}"#);
    let (reply, ()) = tokio::join!(command, came);

    assert_eq!(reply.json["command"]["delivered"], 2, "{}", reply.text());
    assert_eq!(old.state.lock().applied.len(), 1, "who stays is not asked again");
    let asked: Vec<_> = new.state.lock().applied.iter().map(|push| push.targets.clone()).collect();
    assert_eq!(asked, [vec![Target { to: Some(To::Connection(moved.id)) }]]);
}
