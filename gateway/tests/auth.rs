//! Who may come in, and for how long: tokens at the three doors, clients that have yet to say who they are, tokens that run
//! out. What a token is worth is tested with the verifier alone (`tokens.rs`); here the whole path counts.

mod support;

use serde_json::{Value, json};
use support::tokens::{attacks, claims, config, good, hs, now_s};
use support::{Client, Logic, PATIENCE, gateway, is_read, metric, push, until};
use tidegate_gateway::session::auth::TOKEN_BYTES_MAX;
use tidegate_gateway::{Gateway, GatewayConfig};
use tidegate_protocol::records::target::To;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn guarded(change: impl FnOnce(&mut GatewayConfig)) -> Gateway {
    gateway(|c| {
        c.auth = config();
        change(c);
    })
    .await
}

/// The answer to a handshake with these headers.
async fn answer(gateway: &Gateway, query: &str, headers: &str) -> String {
    let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
    let head = format!(
        "GET /ws{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{headers}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    // The server may refuse before it has read everything.
    let _ = socket.write_all(head.as_bytes()).await;
    let mut text = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut text)).await.expect("answered and closed");
    String::from_utf8_lossy(&text).into_owned()
}

fn escaped(token: &str) -> String {
    token
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Rule C-4: the attack set at the first two doors.
#[tokio::test(flavor = "multi_thread")]
async fn every_attack_is_401_before_the_upgrade() {
    let gateway = guarded(|_| {}).await;
    let mut wrong = Vec::new();
    for (name, token, code) in attacks() {
        if token.len() > 7_000 {
            continue;
        }
        let by_header = answer(&gateway, "", &format!("Authorization: Bearer {token}\r\n")).await;
        let by_query = answer(&gateway, &format!("?token={}", escaped(&token)), "").await;
        for answer in [by_header, by_query] {
            let has_code = answer.contains(&format!("\"code\":\"{code}\"")) && answer.starts_with("HTTP/1.1 401");
            let shows = token.split('.').any(|part| part.len() > 8 && answer.contains(part));
            if !has_code || shows || !answer.contains("WWW-Authenticate: Bearer error=\"invalid_token\"") {
                wrong.push(format!("{name}: {answer}"));
            }
        }
    }
    let huge = answer(&gateway, "", &format!("Authorization: Bearer {}\r\n", "a".repeat(1 << 20))).await;

    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(huge.starts_with("HTTP/1.1 431") || huge.is_empty(), "{huge}");
    assert_eq!(metric(&gateway, "tidegate_gateway_connections"), 0);
    assert!(metric(&gateway, "tidegate_gateway_tokens_refused_total{code=\"token_claims\"}") > 20);
}

/// Rule C-4: the attack set at the third door.
#[tokio::test(flavor = "multi_thread")]
async fn every_attack_closes_3500_after_the_upgrade() {
    let gateway = guarded(|_| {}).await;
    let mut wrong = Vec::new();
    for (name, token, code) in attacks() {
        let mut client = Client::open(&gateway, "", None).await;
        client.auth(&token).await;

        let error = client.next().await;
        let (closed, reason) = client.closed_because().await;

        let data = &error["data"];
        let is_told = data["code"] == "unauthorized" && data["reason"] == code && error["id"] == 1;
        if !is_told || closed != 3500 || reason != format!(r#"{{"reason":"{code}"}}"#) {
            wrong.push(format!("{name}: {error}, {closed} {reason}"));
        }
    }
    let mut huge = Client::open(&gateway, "", None).await;
    huge.auth(&"a".repeat(20_000)).await;

    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(huge.closed().await, 1009);
    until("nobody is left waiting", PATIENCE, || metric(&gateway, "tidegate_gateway_unnamed") == 0).await;
}

/// Rule C-4: the three doors.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_names_its_bearer_at_each_door() {
    let gateway = guarded(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let token = good(&json!({"plat": "ios"}));
    let by_header = Client::bearing(&gateway, &token).await;
    let by_query = Client::connect(&gateway, &format!("?user=root&token={token}")).await;
    let mut by_message = Client::open(&gateway, "?platform=web", None).await;
    by_message.auth(&token).await;
    let by_message = by_message.greeted().await;

    logic.push(vec![push(To::User("ann".into()), &["1"])]).await;

    for mut client in [by_header, by_query, by_message] {
        assert_eq!(client.hello["user"], "ann", "whatever the query says");
        assert_eq!(client.next().await["data"]["items"][0], 1);
    }
    assert_eq!(metric(&gateway, "tidegate_gateway_tokens_accepted_total"), 3);
}

/// Rule C-4: as long as it is documented to be.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_greatest_length_fits_each_door_and_a_longer_one_none() {
    let gateway = guarded(|_| {}).await;
    let padded = |spaces: usize, n: usize| {
        let header = " ".repeat(spaces) + r#"{"alg":"HS256","kid":"hs"}"#;
        hs(&header, &claims(&json!({"x": "y".repeat(n)})).to_string())
    };
    let of_length = |bytes: usize| {
        let mut all = (5_900..6_100).flat_map(|n| (0..4).map(move |spaces| padded(spaces, n)));
        all.find(|token| token.len() == bytes).expect("there is one of each length")
    };
    let (longest, longer) = (of_length(TOKEN_BYTES_MAX), of_length(TOKEN_BYTES_MAX + 1));

    let by_header = Client::bearing(&gateway, &longest).await;
    let by_query = Client::connect(&gateway, &format!("?token={longest}")).await;
    let mut by_message = Client::open(&gateway, "", None).await;
    by_message.auth(&longest).await;
    let by_message = by_message.greeted().await;
    let refused = answer(&gateway, &format!("?token={longer}"), "").await;

    for client in [by_header, by_query, by_message] {
        assert_eq!(client.hello["user"], "ann");
    }
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("longer than 8 KiB"), "{refused}");
}

/// Rule C-4: what is said along with AUTH is heard, however the bytes come.
#[tokio::test(flavor = "multi_thread")]
async fn requests_behind_auth_are_answered_after_hello() {
    fn masked(text: &str) -> Vec<u8> {
        let length = u16::try_from(text.len()).expect("short").to_be_bytes();
        [&[0x81, 0x80 | 126, length[0], length[1], 0, 0, 0, 0], text.as_bytes()].concat()
    }
    let gateway = guarded(|_| {}).await;
    let auth = json!({"type": "AUTH", "data": {"token": good(&json!({}))}}).to_string();
    let pings = format!(r#"{{"type":"PING","id":7,"data":{{"x":"{}"}}}}"#, "y".repeat(200));
    let wire = [masked(&auth), masked(&pings)].concat();
    let head = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let all = [head.as_bytes(), &wire].concat();
    let (begin, end) = (head.len(), all.len());
    let cuts = [vec![], vec![begin + 3], vec![begin + auth.len() + 8], vec![begin + 10, begin + auth.len() + 12]];
    for cuts in cuts.into_iter().chain([(begin..end).step_by(97).collect()]) {
        let mut socket = TcpStream::connect(gateway.listen_addr()).await.expect("listening");
        socket.set_nodelay(true).expect("open");
        let mut at = 0;
        for cut in cuts.into_iter().chain([end]) {
            socket.write_all(&all[at..cut]).await.expect("open");
            is_read(&socket).await;
            at = cut;
        }

        let mut text = String::new();
        while !text.contains(r#""id":7"#) {
            let mut buffer = [0; 4096];
            let n = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await.expect("in time").expect("open");
            assert!(n > 0, "closed after {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        assert!(text.find("HELLO") < text.find(r#""id":7"#), "{text}");
    }
}

/// Rule C-4: who has not said who it is gets nothing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_pushed_to_those_who_have_no_name_yet() {
    let gateway = guarded(|_| {}).await;
    let mut logic = Logic::link(&gateway).await;
    let mut client = Client::open(&gateway, "", None).await;
    until("it waits", PATIENCE, || metric(&gateway, "tidegate_gateway_unnamed") == 1).await;
    assert_eq!(metric(&gateway, "tidegate_gateway_connections"), 0);
    let mut named = Client::bearing(&gateway, &good(&json!({"sub": "bob"}))).await;

    logic.push(vec![push(To::All(true), &["\"secret\""])]).await;
    assert_eq!(named.next().await["data"]["items"][0], "secret", "it has gone out to who has a name");
    client.auth(&good(&json!({}))).await;

    let mut client = client.greeted().await;
    logic.push(vec![push(To::All(true), &["\"known\""])]).await;
    assert_eq!(client.next().await["data"]["items"][0], "known");
    until("it has moved", PATIENCE, || metric(&gateway, "tidegate_gateway_unnamed") == 0).await;
}

/// Rule C-4: AUTH comes first, and in time.
#[tokio::test(flavor = "multi_thread")]
async fn anything_else_first_and_nothing_at_all_close_3500() {
    let gateway = guarded(|c| c.auth.deadline_ms = 300).await;
    let mut hasty = Client::open(&gateway, "", None).await;
    hasty.say(r#"{"type":"JOIN","id":5,"data":{"room":"a"}}"#).await;
    let mut silent = Client::open(&gateway, "", None).await;
    let mut garbled = Client::open(&gateway, "", None).await;
    garbled.say("{").await;

    for (client, id) in [(&mut hasty, json!(5)), (&mut silent, Value::Null), (&mut garbled, Value::Null)] {
        let error = client.next().await;
        assert_eq!((&error["data"]["reason"], &error["id"]), (&json!("token_missing"), &id), "{error}");
        assert_eq!(client.closed_because().await, (3500, r#"{"reason":"token_missing"}"#.into()));
    }
    assert_eq!(metric(&gateway, "tidegate_gateway_tokens_refused_total{code=\"token_missing\"}"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_without_a_name_the_oldest_makes_room() {
    let gateway = guarded(|c| (c.auth.unnamed_max, c.handshake.lobbies) = (3, 1)).await;
    let mut waiting = Vec::new();
    for n in 1..=3 {
        waiting.push(Client::open(&gateway, "", None).await);
        until("it waits", PATIENCE, || metric(&gateway, "tidegate_gateway_unnamed") == n).await;
    }

    let mut late = Client::open(&gateway, "", None).await;
    let told = waiting[0].next().await;
    let (code, reason) = waiting[0].closed_because().await;
    late.auth(&good(&json!({}))).await;
    waiting[1].auth(&good(&json!({"sub": "bob"}))).await;

    assert_eq!((&told["data"]["code"], &told["data"]["retryable"]), (&json!("overloaded"), &json!(true)));
    assert!(code == 3003 && reason.contains("overload"), "{code} {reason}");
    assert_eq!(late.greeted().await.hello["user"], "ann");
    assert_eq!(waiting.remove(1).greeted().await.hello["user"], "bob");
    assert_eq!(metric(&gateway, "tidegate_gateway_evicted_total{pool=\"unnamed\"}"), 1);
    Client::bearing(&gateway, &good(&json!({}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_comes_from_one_place_that_is_allowed() {
    let gateway = guarded(|c| c.auth.query = false).await;
    let token = good(&json!({}));
    let bearer = format!("Authorization: Bearer {token}\r\n");

    let by_query = answer(&gateway, &format!("?token={token}"), "").await;
    let both = answer(&gateway, &format!("?token={token}"), &bearer).await;
    let basic = answer(&gateway, "", "Authorization: Basic dTpw\r\n").await;
    let twice = answer(&gateway, "?token=a&token=b", "").await;

    for refused in [by_query, both, basic, twice] {
        assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("token_malformed"), "{refused}");
        assert!(!refused.contains(&token));
    }
    assert_eq!(Client::connect(&guarded(|_| {}).await, &format!("?token={token}")).await.hello["user"], "ann");
}

/// Rule R-1: only what the token grants, and the same words for what does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn rooms_are_joined_as_the_token_grants() {
    let gateway = guarded(|_| {}).await;
    let mut owner = Client::bearing(&gateway, &good(&json!({"sub": "bob", "rooms": ["*"]}))).await;
    owner.join("secret").await;
    let token = good(&json!({"rooms": ["chat:*", "user:{sub}:*"], "join": ["user:{sub}", "news"]}));
    let mut client = Client::bearing(&gateway, &token).await;

    let first = client.next().await;
    assert_eq!((&first["type"], &first["id"]), (&json!("JOINED"), &Value::Null), "{first}");
    let names: Vec<&Value> = first["data"]["rooms"].as_array().expect("rooms").iter().map(|r| &r["room"]).collect();
    assert_eq!(names, ["user:ann", "news"]);
    assert_eq!(client.join("chat:1").await["online"], 1);
    assert_eq!(client.join("user:ann:x").await["online"], 1);
    assert_eq!(client.join("news").await["online"], 1, "it is in it already, which is fine");
    let (there, absent) = (client.join("secret").await, client.join("nowhere").await);
    assert_eq!(there["error"], absent["error"]);
    assert_eq!(there["error"]["code"], "forbidden");
    assert_eq!(client.join("user:bob:x").await["error"]["code"], "forbidden");
    assert_eq!(client.join("").await["error"]["code"], "invalid");
}

/// Rule C-6.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_its_token_unless_it_is_refreshed() {
    let gateway = guarded(|c| c.auth.leeway_s = 0).await;
    let soon = now_s() + 2;
    let mut ends = Client::bearing(&gateway, &good(&json!({"exp": soon}))).await;
    let mut goes_on = Client::bearing(&gateway, &good(&json!({"exp": soon, "rooms": []}))).await;
    let later = now_s() + 600;
    let fresh = good(&json!({"exp": later, "rooms": ["late"]}));
    goes_on.say(&json!({"type": "REFRESH", "id": "r", "data": {"token": fresh}}).to_string()).await;

    let refreshed = goes_on.next().await;
    let closed = ends.closed_because().await;

    assert_eq!(goes_on.hello["expires_ms"], soon * 1_000, "HELLO names the end of the token");
    assert_eq!(closed, (3500, r#"{"reason":"token_expired"}"#.into()));
    assert!(now_s() >= soon, "not before its time");
    assert_eq!(refreshed, json!({"type": "REFRESHED", "id": "r", "data": {"expires_ms": later * 1_000}}));
    // Both are in one bucket, being one user's, and one look at its times has closed the other.
    assert_eq!(goes_on.join("late").await["online"], 1, "it lives, and the new grant counts");
    assert_eq!(metric(&gateway, "tidegate_gateway_expired_closed_total"), 1);
}

/// Rule C-6: a refused REFRESH changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_is_for_the_same_client_or_refused() {
    let gateway = guarded(|_| {}).await;
    let mut client = Client::bearing(&gateway, &good(&json!({"plat": "ios", "dev": "one", "rooms": ["a"]}))).await;
    for (token, reason) in [
        (good(&json!({"sub": "bob"})), "token_claims"),
        (good(&json!({"plat": "web"})), "token_claims"),
        (good(&json!({"dev": "two"})), "token_claims"),
        (good(&json!({"exp": 5})), "token_expired"),
        ("nonsense".into(), "token_malformed"),
    ] {
        client.say(&json!({"type": "REFRESH", "id": 3, "data": {"token": token}}).to_string()).await;
        let error = client.next().await;
        assert_eq!((&error["type"], &error["data"]["reason"]), (&json!("ERROR"), &json!(reason)), "{error}");
    }
    client.auth(&good(&json!({"sub": "bob"}))).await;
    assert_eq!(client.next().await["data"]["code"], "unauthorized", "a name is given once");
    assert_eq!(client.join("a").await["online"], 1);

    let open = gateway_without_tokens().await;
    let mut client = Client::connect(&open, "?user=ann").await;
    client.auth("x").await;
    assert_eq!(client.next().await["data"]["code"], "unauthorized");
}

async fn gateway_without_tokens() -> Gateway {
    gateway(|_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_exchanges_keys_and_limits_or_leaves_both() {
    let gateway = guarded(|_| {}).await;
    let mut changed = GatewayConfig { auth: config(), ..GatewayConfig::default() };
    changed.auth.issuer = "another".into();
    changed.limits.rooms = 1;
    let mut broken = changed.clone();
    broken.auth.keys[0].secret = "short".into();
    broken.limits.rooms = 7;

    gateway.reload(&changed).expect("a good configuration");
    let error = gateway.reload(&broken).expect_err("a short secret").to_string();

    assert!(error.contains("gateway.auth.keys[0]") && !error.contains("\"short\""), "{error}");
    let old = answer(&gateway, "", &format!("Authorization: Bearer {}\r\n", good(&json!({})))).await;
    assert!(old.contains("token_issuer"), "{old}");
    let token = good(&json!({"iss": "another", "rooms": ["*"]}));
    let mut client = Client::bearing(&gateway, &token).await;
    client.join("a").await;
    assert_eq!(client.join("b").await["error"]["code"], "limit");
    assert_eq!(metric(&gateway, "tidegate_gateway_token_key_reloads_total"), 1);
    assert_eq!(metric(&gateway, "tidegate_gateway_token_key_failures_total"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_that_changes_is_read_again_and_a_broken_one_is_not_taken() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("set.json");
    let set = |kid: &str| {
        use base64::Engine as _;
        let secret = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(support::tokens::SECRET);
        json!({"keys": [{"kty": "oct", "kid": kid, "k": secret}]}).to_string()
    };
    std::fs::write(&path, set("first")).expect("a scratch file");
    let gateway = guarded(|c| (c.auth.keys, c.auth.jwks) = (Vec::new(), path.display().to_string())).await;
    let door = format!("Authorization: Bearer {}\r\n", good(&json!({})));
    assert!(answer(&gateway, "", &door).await.contains("token_key_unknown"));

    std::fs::write(&path, "{").expect("a scratch file");
    until("the broken one is looked at", PATIENCE, || {
        metric(&gateway, "tidegate_gateway_token_key_failures_total") == 1
    })
    .await;
    assert_eq!(metric(&gateway, "tidegate_gateway_token_keys"), 1, "the old one stays");
    std::fs::write(&path, set("hs")).expect("a scratch file");
    until("the new one is taken", PATIENCE, || metric(&gateway, "tidegate_gateway_token_key_reloads_total") == 1).await;

    Client::bearing(&gateway, &good(&json!({}))).await;
}
