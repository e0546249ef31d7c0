//! Every refusal of http-api.md, over a real socket: its status, its code, and where the fault is. Issue 2, point 8.

mod support;

use serde_json::{Value, json};
use support::{FakeGateway, call, config, delete, get, node, node_with, post};
use tidegate_logic::{Extras, KeyConfig, Logic, Scope};

const GOOD: &str = r#"{"to":{"all":true},"message":1}"#;

/// (body, status, code, pointer)
type Row = (String, u16, &'static str, &'static str);

fn with(rest: &str) -> String {
    format!(r#"{{"to":{{"all":true}},"message":1,{rest}}}"#)
}

fn message(m: &str) -> String {
    format!(r#"{{"to":{{"all":true}},"message":{m}}}"#)
}

fn to(to: &str) -> String {
    format!(r#"{{"to":{to},"message":1}}"#)
}

fn names(n: usize) -> String {
    (0..n).map(|i| format!("\"n{i}\"")).collect::<Vec<_>>().join(",")
}

fn no_json() -> Vec<Row> {
    let deep = |n: usize| message(&format!("{}{}", "[".repeat(n), "]".repeat(n)));
    vec![
        // Not JSON.
        (String::new(), 400, "bad_json", ""),
        ("{".into(), 400, "bad_json", ""),
        (format!("{GOOD}x"), 400, "bad_json", ""),
        (message("NaN"), 400, "bad_json", ""),
        (message("Infinity"), 400, "bad_json", ""),
        (message("-"), 400, "bad_json", ""),
        (message("01"), 400, "bad_json", ""),
        (message("1e999"), 400, "bad_number", "/message"),
        (message("[-1e999]"), 400, "bad_number", "/message"),
        (message(&"9".repeat(400)), 400, "bad_number", "/message"),
        (message(r#""\ud800""#), 400, "lone_surrogate", "/message"),
        (message(r#"{"\udc00":1}"#), 400, "lone_surrogate", "/message"),
        (message("\"\u{1}\""), 400, "bad_json", ""),
        (deep(100), 400, "json_too_deep", ""),
        (deep(64), 400, "json_too_deep", ""),
        (deep(100_000), 400, "json_too_deep", ""),
        ("[".repeat(1_000_000), 400, "json_too_deep", ""),
        (r#"{"a":"#.repeat(100_000), 400, "json_too_deep", ""),
        // Ambiguous.
        (with(r#""message":2"#), 400, "duplicate_key", "/message"),
        (with(r#""mess\u0061ge":2"#), 400, "duplicate_key", "/message"),
        (to(r#"{"room":"a","room":"b"}"#), 400, "duplicate_key", "/to/room"),
    ]
}

fn no_push() -> Vec<Row> {
    vec![
        // Not a push.
        ("[]".into(), 422, "wrong_type", ""),
        ("{}".into(), 422, "missing_field", ""),
        (r#"{"message":1}"#.into(), 422, "missing_field", ""),
        (r#"{"to":{"all":true}}"#.into(), 422, "missing_field", ""),
        (with(r#""messages":[1]"#), 422, "bad_value", "/message"),
        (with(r#""Lane":"urgent""#), 422, "unknown_field", "/Lane"),
        (with(r#""a/b~c":1"#), 422, "unknown_field", "/a~1b~0c"),
        (with(r#""lane":"fast""#), 422, "bad_value", "/lane"),
        (with(r#""lane":1"#), 422, "wrong_type", "/lane"),
        (with(r#""ttl_ms":-1"#), 422, "wrong_type", "/ttl_ms"),
        (with(r#""ttl_ms":1.5"#), 422, "wrong_type", "/ttl_ms"),
        (with(r#""ttl_ms":"5""#), 422, "wrong_type", "/ttl_ms"),
        (with(r#""dedupe":"""#), 422, "bad_value", "/dedupe"),
        (with(r#""wait":"sent""#), 422, "bad_value", "/wait"),
        (with(r#""timeout_ms":5"#), 422, "bad_value", "/timeout_ms"),
        (with(r#""wait":"written","timeout_ms":30001"#), 422, "bad_value", "/timeout_ms"),
        (r#"{"to":{"all":true},"messages":[]}"#.into(), 422, "bad_value", "/messages"),
        (r#"{"to":{"all":true},"messages":{}}"#.into(), 422, "wrong_type", "/messages"),
    ]
}

fn no_target() -> Vec<Row> {
    let id = "0".repeat(26);
    vec![
        // Not a target.
        (to("{}"), 422, "bad_value", "/to"),
        (to("\"all\""), 422, "wrong_type", "/to"),
        (to(r#"{"all":false}"#), 422, "bad_value", "/to/all"),
        (to(r#"{"all":true,"room":"r"}"#), 422, "bad_value", "/to"),
        (to(r#"{"rooms":[]}"#), 422, "bad_value", "/to/rooms"),
        (to(r#"{"rooms":"r"}"#), 422, "wrong_type", "/to/rooms"),
        (to(r#"{"rooms":["a",2]}"#), 422, "wrong_type", "/to/rooms/1"),
        (to(r#"{"room":""}"#), 422, "bad_value", "/to/room"),
        (to(r#"{"room":"a\nb"}"#), 422, "bad_value", "/to/room"),
        (to(&format!(r#"{{"room":"{}"}}"#, "x".repeat(129))), 422, "bad_value", "/to/room"),
        (to(r#"{"user":"\ud800"}"#), 422, "wrong_type", "/to/user"),
        (to(r#"{"connection":"nobody"}"#), 422, "bad_value", "/to/connection"),
        (to(r#"{"connections":["x"]}"#), 422, "bad_value", "/to/connections/0"),
        (to(r#"{"all":true,"platform":["Web"]}"#), 422, "bad_value", "/to/platform/0"),
        (to(r#"{"all":true,"platform":"web"}"#), 422, "wrong_type", "/to/platform"),
        (to(r#"{"all":true,"except":{"rooms":["r"]}}"#), 422, "unknown_field", "/to/except/rooms"),
        (
            to(&format!(r#"{{"all":true,"except":{{"connections":["{id}",1]}}}}"#)),
            422,
            "wrong_type",
            "/to/except/connections/1",
        ),
        (to(r#"{"all":true,"where":"x"}"#), 422, "unknown_field", "/to/where"),
        // Limits.
        (format!(r#"{{"to":{{"all":true}},"messages":[{}]}}"#, names(1_001)), 422, "too_many_messages", "/messages"),
        (to(&format!(r#"{{"rooms":[{}]}}"#, names(10_001))), 422, "too_many_targets", "/to/rooms"),
        (
            to(&format!(r#"{{"rooms":[{}],"except":{{"users":[{}]}}}}"#, names(9_999), names(2))),
            422,
            "too_many_targets",
            "/to",
        ),
        (message(&format!("\"{}\"", "x".repeat(64 * 1024 - 1))), 413, "message_too_large", "/message"),
        (" ".repeat(1024 * 1024 + 1), 413, "body_too_large", ""),
    ]
}

#[tokio::test]
async fn each_bad_body_has_its_status_code_and_pointer() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;

    for (body, status, code, pointer) in [no_json(), no_push(), no_target()].concat() {
        let shown: String = body.chars().take(80).collect();
        let reply = post(&logic, "/v1/push", body).await;

        assert_eq!((reply.status.as_u16(), reply.code()), (status, code), "{shown}: {}", reply.text());
        assert_eq!(reply.headers["content-type"], "application/problem+json", "{shown}");
        assert_eq!(reply.json["errors"][0]["pointer"].as_str().unwrap_or(""), pointer, "{shown}");
        assert_eq!((&reply.json["status"], &reply.json["retryable"]), (&json!(status), &json!(false)), "{shown}");
        assert!(reply.json["type"].is_string() && reply.json["title"].is_string(), "{shown}");
        assert!(reply.json["detail"].as_str().is_some_and(|d| d.len() > 5 && d.len() < 500), "{shown}");
    }
    assert!(gateway.state.lock().received.is_empty(), "nothing that is refused is sent");
}

#[tokio::test]
async fn what_is_unknown_is_told_what_is_known_and_a_number_how_to_be_a_name() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;

    for (body, told) in [
        (with(r#""lanes":"urgent""#), "to, messages, message, lane, ttl_ms"),
        (to(r#"{"usr":"ann","all":true}"#), "user, users, connection"),
        (to(r#"{"user":42}"#), r#"write "42""#),
        (to(r#"{"users":["ann",-7]}"#), r#"write "-7""#),
        (to(r#"{"room":1.5}"#), r#"write "1.5""#),
    ] {
        let reply = post(&logic, "/v1/push", body.clone()).await;
        let detail = reply.json["detail"].as_str().unwrap_or_default();
        assert!(reply.status == 422 && detail.contains(told), "{body}: {detail}");
    }
    let query = get(&logic, "/v1/rooms?prefx=a").await;
    assert!(
        query.json["detail"].as_str().is_some_and(|d| d.contains("limit, cursor") || d.contains("prefix")),
        "{}",
        query.text()
    );
}

#[tokio::test]
async fn what_is_just_within_the_limits_is_taken() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;
    let deep = format!(r#"{{"to":{{"all":true}},"message":{}1{}}}"#, "[".repeat(63), "]".repeat(63));
    let big = format!(r#"{{"to":{{"all":true}},"message":"{}"}}"#, "x".repeat(64 * 1024 - 2));
    let rooms: Vec<String> = (0..10_000).map(|i| format!("n{i}")).collect();
    let many = json!({"to": {"rooms": rooms}, "messages": vec![Value::Null; 1_000]}).to_string();
    let name = json!({"to": {"room": "é".repeat(64)}, "message": "\u{1F600}"}).to_string();
    let pair = r#"{"to":{"all":true},"message":["\ud83d\ude00","\\ud800",1e308,-0,1E-999]}"#.to_owned();
    for body in [deep, big, many, name, pair] {
        let shown: String = body.chars().take(80).collect();
        let reply = post(&logic, "/v1/push", body).await;
        assert_eq!(reply.status, 202, "{shown}: {}", reply.text());
    }
}

#[tokio::test]
async fn bytes_that_are_no_utf8_are_refused() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;
    for bad in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
        let body = [br#"{"to":{"all":true},"message":""#, bad, br#""}"#].concat();
        let reply = post(&logic, "/v1/push", body).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (400, "bad_json"));
    }
}

#[tokio::test]
async fn wrong_methods_paths_types_and_parameters_are_told_apart() {
    let gateway = FakeGateway::start(1).await;
    let logic = node(&[&gateway]).await;
    let addr = logic.api_addr();

    for (method, path, allow) in [
        ("GET", "/v1/push", "POST"),
        ("PUT", "/v1/push/batch", "POST"),
        ("DELETE", "/push/all", "POST"),
        ("POST", "/v1/connections/x", "GET, DELETE"),
        ("OPTIONS", "/v1/rooms", "GET"),
        ("POST", "/healthz", "GET"),
    ] {
        let reply = call(addr, method, path, &[], "").await;
        assert_eq!((reply.status.as_u16(), reply.code()), (405, "wrong_method"), "{method} {path}");
        assert_eq!(reply.headers["allow"], allow, "{method} {path}");
    }
    for path in ["/v1", "/v1/push/", "/v2/push", "/v1/users", "/console/none.js"] {
        assert_eq!(get(&logic, path).await.code(), "no_such_path", "{path}");
    }
    for path in [
        "/v1/users/%ff",
        "/v1/rooms/%zz",
        "/v1/rooms/a%",
        "/v1/rooms/%4/members",
        "/v1/rooms?prefix=%zz",
        "/v1/rooms?%f=1",
    ] {
        let reply = get(&logic, path).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (400, "bad_escape"), "{path}");
    }
    let gzip = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let compressed = call(addr, "POST", "/v1/push", &gzip, &b"\x1f\x8b\x08"[..]).await;
    assert_eq!((compressed.status.as_u16(), compressed.code()), (415, "content_encoding"));
    assert_eq!(compressed.headers["accept-encoding"], "identity");
    let identity = [("content-type", "application/json"), ("content-encoding", "identity")];
    assert_eq!(call(addr, "POST", "/v1/push", &identity, GOOD).await.status, 202);
    let web_socket = get(&logic, "/ws").await;
    assert!(web_socket.json["detail"].as_str().is_some_and(|d| d.contains("8000")), "{}", web_socket.text());
    for (path, kind) in [
        ("/v1/push", "text/plain"),
        ("/v1/push", "application/x-www-form-urlencoded"),
        ("/v1/push/batch", "text/csv"),
        ("/push/all", "application/json"),
    ] {
        let reply = call(addr, "POST", path, &[("content-type", kind)], GOOD).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (415, "wrong_media_type"), "{path} {kind}");
    }
    assert_eq!(call(addr, "POST", "/v1/push", &[], GOOD).await.status, 415);
    for (path, code) in [
        ("/v1/connections?limit=0", "bad_parameter"),
        ("/v1/connections?limit=1001", "bad_parameter"),
        ("/v1/connections?rooms=x", "unknown_parameter"),
        ("/v1/connections?cursor=x", "bad_parameter"),
        ("/v1/connections?platform=A", "bad_parameter"),
        ("/v1/rooms?prefix=%00", "bad_parameter"),
        ("/v1/rooms/%0a", "bad_parameter"),
    ] {
        let reply = get(&logic, path).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (422, code), "{path}");
    }
    let connection = format!("/v1/connections/{}", "0".repeat(26));
    for query in ["?code=1000", "?code=5000", &format!("?reason={}", "x".repeat(124))] {
        assert_eq!(delete(&logic, &format!("{connection}{query}")).await.code(), "bad_parameter", "{query}");
    }
    assert_eq!(get(&logic, &connection).await.code(), "no_such_connection");
}

#[tokio::test]
async fn keys_open_their_scopes() {
    // SHA-256 of "p" and of "ra".
    let hash = |hex: &str| hex.to_owned();
    let p = hash("148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940");
    let mut with_keys = config();
    with_keys.keys = vec![KeyConfig { id: "p".into(), sha256: p, scopes: vec![Scope::Push], ..KeyConfig::default() }];
    let gateway = FakeGateway::start(1).await;
    let links = vec![tidegate_logic::GatewayLink::Dial(gateway.url())];
    let logic = Logic::start(with_keys, links, Extras::default()).await.expect("start");
    let addr = logic.api_addr();
    let json = ("content-type", "application/json");

    let none = call(addr, "POST", "/v1/push", &[json], GOOD).await;
    let bad = call(addr, "POST", "/v1/push", &[json, ("authorization", "Bearer q")], GOOD).await;
    let good = call(addr, "POST", "/v1/push", &[json, ("authorization", "Bearer p")], GOOD).await;
    let read = call(addr, "GET", "/v1/stats", &[("authorization", "Bearer p")], "").await;

    assert_eq!((none.status.as_u16(), none.code()), (401, "no_key"));
    assert_eq!(none.headers["www-authenticate"], "Bearer");
    assert_eq!((bad.status.as_u16(), bad.code()), (401, "bad_key"));
    assert_eq!(good.status, 202, "{}", good.text());
    assert_eq!((read.status.as_u16(), read.code()), (403, "wrong_scope"));
    assert_eq!(get(&logic, "/metrics").await.code(), "no_key");
    assert_eq!(get(&logic, "/healthz").await.status, 200);
    let document = get(&logic, "/openapi.json").await;
    assert_eq!((document.status.as_u16(), &document.json["openapi"]), (200, &"3.1.0".into()));
    assert_eq!(document.json["paths"]["/v1/push"]["post"]["security"][0]["key"][0], "push");
}

#[tokio::test]
async fn a_batch_has_its_own_limits() {
    let gateway = FakeGateway::start(1).await;
    let mut small = config();
    (small.limits.batch_pushes, small.limits.ndjson_bytes) = (3, 2 * 1024 * 1024);
    let logic = node_with(small, &[&gateway]).await;
    let ndjson = |body: String| {
        call(logic.api_addr(), "POST", "/v1/push/batch", &[("content-type", "application/x-ndjson")], body)
    };
    let last = |text: String| serde_json::from_str::<Value>(text.lines().last().unwrap_or("")).unwrap_or_default();

    let four = format!(r#"{{"pushes":[{}]}}"#, [GOOD; 4].join(","));
    assert_eq!(post(&logic, "/v1/push/batch", four).await.code(), "too_many_pushes");
    for (body, code) in
        [(r#"{"pushes":1}"#, "wrong_type"), ("{}", "missing_field"), (r#"{"pushes":[],"x":1}"#, "unknown_field")]
    {
        assert_eq!(post(&logic, "/v1/push/batch", body).await.code(), code, "{body}");
    }
    assert!(gateway.state.lock().applied.is_empty());
    let deep = |n: usize| message(&format!("{}{}", "[".repeat(n), "]".repeat(n)));
    let batch = |push: String| post(&logic, "/v1/push/batch", format!(r#"{{"pushes":[{push}]}}"#));
    assert_eq!(batch(deep(63)).await.json["receipts"][0]["gateways"]["sent"], 1);
    assert_eq!(batch(deep(64)).await.code(), "json_too_deep");
    gateway.state.lock().applied.clear();

    let reply = ndjson([GOOD; 4].join("\n")).await;
    assert_eq!((reply.status.as_u16(), reply.text().lines().count()), (202, 4));
    assert_eq!(last(reply.text())["code"], "too_many_pushes");
    let reply = ndjson(format!("{GOOD}\n{}", "x".repeat(1024 * 1024 + 1))).await;
    assert_eq!((reply.text().lines().count(), &last(reply.text())["code"]), (2, &json!("line_too_large")));
    assert_eq!(ndjson("x".repeat(1024 * 1024 + 1)).await.code(), "line_too_large");
    let reply = ndjson(format!("{GOOD}{}\n", " ".repeat(900_000)).repeat(3)).await;
    assert_eq!(last(reply.text())["code"], "body_too_large");
    assert_eq!(gateway.state.lock().applied.len(), 3 + 1 + 2);
}
