//! Who may do what with which room: five roles, twenty rooms, four deeds, against the table below. Half of the rooms have
//! members and half do not exist, and what is forbidden looks the same for both.

mod support;

use serde_json::{Value, json};
use support::{Client, Server, tokens};

/// What a role may: the claims of its token.
fn claims(role: &str) -> Value {
    match role {
        "stranger" => json!({"sub": "eve"}),
        "guest" => json!({"sub": "gus", "rooms": ["public:*"]}),
        "member" => json!({
            "sub": "ann", "rooms": ["public:*", "chat:*", "user:{sub}:*"], "speak": ["chat:*", "user:{sub}:*"],
        }),
        "host" => json!({
            "sub": "hal", "rooms": ["public:*", "chat:1"], "speak": ["public:*"], "presence": ["public:*", "chat:*"],
            "members": ["public:*", "user:{sub}:*"],
        }),
        "staff" => json!({"sub": "sam", "rooms": ["*"], "speak": ["*"], "presence": ["*"], "members": ["*"]}),
        other => panic!("no role {other}"),
    }
}

/// Rooms, and what each role may do there: join, send, see the presence, list the members. A dash: it may not.
/// Rooms with an exclamation mark have a member already.
#[rustfmt::skip]
const TABLE: [(&str, bool, [&str; 5]); 20] = [
    //  room               exists   stranger guest   member  host    staff
    ("public:1",            true,  ["----", "j-p-", "j-p-", "jspm", "jspm"]),
    ("public:2",            false, ["----", "j-p-", "j-p-", "jspm", "jspm"]),
    ("public:",             true,  ["----", "j-p-", "j-p-", "jspm", "jspm"]),
    ("public",              true,  ["----", "----", "----", "----", "jspm"]),
    ("Public:1",            false, ["----", "----", "----", "----", "jspm"]),
    ("chat:1",              true,  ["----", "----", "jsp-", "j-p-", "jspm"]),
    ("chat:10",             true,  ["----", "----", "jsp-", "--p-", "jspm"]),
    ("chat:2",              false, ["----", "----", "jsp-", "--p-", "jspm"]),
    ("xchat:1",             true,  ["----", "----", "----", "----", "jspm"]),
    ("user:ann:in",         true,  ["----", "----", "jsp-", "----", "jspm"]),
    ("user:ann:out",        false, ["----", "----", "jsp-", "----", "jspm"]),
    ("user:ann",            false, ["----", "----", "----", "----", "jspm"]),
    ("user:anna:in",        true,  ["----", "----", "----", "----", "jspm"]),
    ("user:hal:in",         true,  ["----", "----", "----", "---m", "jspm"]),
    ("user:{sub}:in",       false, ["----", "----", "----", "----", "jspm"]),
    ("user:*:in",           false, ["----", "----", "----", "----", "jspm"]),
    ("*",                   true,  ["----", "----", "----", "----", "jspm"]),
    ("secret",              true,  ["----", "----", "----", "----", "jspm"]),
    ("nowhere",             false, ["----", "----", "----", "----", "jspm"]),
    ("zimmer-ü:1",          true,  ["----", "----", "----", "----", "jspm"]),
];

const ROLES: [&str; 5] = ["stranger", "guest", "member", "host", "staff"];

fn requests(room: &str) -> [(char, Value); 4] {
    [
        ('s', json!({"type": "SEND", "id": 1, "data": {"to": {"room": room}, "data": 1, "echo": false}})),
        ('p', json!({"type": "PRESENCE", "id": 1, "data": {"room": room}})),
        ('m', json!({"type": "MEMBERS", "id": 1, "data": {"room": room}})),
        ('j', json!({"type": "JOIN", "id": 1, "data": {"room": room}})),
    ]
}

/// Whether the answer grants it; a refusal must be `forbidden`, and is kept without the room's name.
fn is_granted(answer: &Value, room: &str, refusals: &mut Vec<String>) -> bool {
    let joined = &answer["data"]["rooms"][0];
    let code = if answer["type"] == "JOINED" { &joined["error"]["code"] } else { &answer["data"]["code"] };
    match (answer["type"].as_str(), code.as_str()) {
        (Some("ERROR" | "JOINED"), Some(code)) => {
            assert_eq!(code, "forbidden", "{answer}");
            refusals.push(answer.to_string().replace(&json!(room).to_string(), "ROOM"));
            false
        }
        (Some("SENT" | "PRESENCE" | "MEMBERS" | "JOINED"), None) => true,
        _ => panic!("no answer to expect: {answer}"),
    }
}

/// Rules R-1, S-1, P-1, P-2 with C-4: default deny, by patterns, and nothing told about what is forbidden.
#[tokio::test]
async fn each_role_may_do_exactly_what_its_token_grants() {
    let server = Server::serve(&tokens::required()).await;
    let mut owner = Client::bearing(server.clients(), &tokens::mint(json!({"sub": "owner", "rooms": ["*"]}))).await;
    for (room, exists, _) in TABLE {
        if exists {
            assert_eq!(owner.join(room).await["error"], Value::Null);
        }
    }
    let mut found: Vec<(&str, [String; 5])> =
        TABLE.iter().map(|(room, _, _)| (*room, std::array::from_fn(|_| String::new()))).collect();
    for (column, role) in ROLES.into_iter().enumerate() {
        let mut client = Client::bearing(server.clients(), &tokens::mint(claims(role))).await;
        let mut refusals: Vec<Vec<String>> = vec![Vec::new(); 4];
        for (row, (room, exists, _)) in TABLE.into_iter().enumerate() {
            let mut granted = String::from("----");
            for (place, (deed, request)) in requests(room).into_iter().enumerate() {
                client.say(request).await;
                let answer = client.answer().await;
                if is_granted(&answer, room, &mut refusals[place]) {
                    let at = "jspm".find(deed).expect("one of four");
                    granted.replace_range(at..=at, &deed.to_string());
                }
            }
            if granted.starts_with('j') {
                client.say(json!({"type": "LEAVE", "id": 2, "data": {"room": room}})).await;
                assert_eq!(client.answer().await["type"], "LEFT");
            }
            let _ = exists;
            found[row].1[column] = granted;
        }
        for kind in refusals {
            assert!(kind.windows(2).all(|two| two[0] == two[1]), "{role}: refusals differ: {kind:#?}");
        }
    }
    let expected: Vec<(&str, [String; 5])> =
        TABLE.iter().map(|(room, _, may)| (*room, may.map(String::from))).collect();
    assert_eq!(found, expected);
}
