//! What the hook is told of a client and what it may answer, as JSON. An answer that is not understood whole is none: a
//! permission with a typing error in it must not become another permission.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_protocol::json;
use tidegate_protocol::limits::{PATTERN_BYTES_MAX, PATTERNS_MAX, is_valid_name};
use tidegate_protocol::records::{Connect, Grants, Pair, Sender, Verdict};

/// Statuses by which a hook may refuse.
const STATUSES: [u32; 4] = [401, 403, 429, 503];
/// As of tokens (docs/protocol.md).
const ATTRIBUTES_MAX: usize = 16;
const ATTRIBUTES_BYTES_MAX: usize = 1_024;
/// Longest code and message of a refusal, in bytes.
const CODE_BYTES_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 256;

/// What is asked.
#[derive(Serialize)]
struct Question<'a> {
    id: &'a str,
    time_ms: u64,
    gateway: &'a str,
    user: Option<&'a str>,
    platform: Option<&'a str>,
    device: Option<&'a str>,
    attributes: BTreeMap<&'a str, &'a str>,
    address: Option<&'a str>,
    origin: Option<&'a str>,
    path: &'a str,
    headers: BTreeMap<&'a str, &'a str>,
}

/// The question's text.
#[must_use]
pub fn question(id: &str, time_ms: u64, gateway: &str, from: &Sender, connect: &Connect) -> Vec<u8> {
    let question = Question {
        id,
        time_ms,
        gateway,
        user: some(&from.user),
        platform: some(&from.platform),
        device: some(&from.device),
        attributes: pairs(&from.attributes),
        address: some(&from.address),
        origin: some(&connect.origin),
        path: &connect.path,
        headers: pairs(&connect.headers),
    };
    // A struct of strings and numbers serialises without fail.
    serde_json::to_vec(&question).unwrap_or_default()
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn pairs(pairs: &[Pair]) -> BTreeMap<&str, &str> {
    pairs.iter().map(|pair| (pair.name.as_str(), pair.value.as_str())).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    accept: bool,
    status: Option<u32>,
    code: Option<String>,
    message: Option<String>,
    user: Option<String>,
    #[serde(default)]
    join: Vec<String>,
    grant: Option<Grant>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Grant {
    rooms: Vec<String>,
    speak: Vec<String>,
    presence: Vec<String>,
    members: Vec<String>,
    users: Vec<String>,
    routes: Vec<String>,
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it, without its content.
pub fn read(body: &[u8]) -> Result<Verdict, String> {
    let answer: Answer = json::from_slice(body).map_err(|error| {
        let what =
            if json::is_of_empty_list(&error) { json::EMPTY_LIST } else { "not JSON of the form that is asked for" };
        format!("{what} (docs/guides/connect-hook.md; line {}, column {})", error.line(), error.column())
    })?;
    if answer.accept { accepted(answer) } else { refused(answer) }
}

fn accepted(answer: Answer) -> Result<Verdict, String> {
    if answer.status.is_some() || answer.code.is_some() || answer.message.is_some() {
        return Err("status, code and message belong to a refusal".into());
    }
    if answer.user.iter().chain(&answer.join).any(|name| !is_valid_name(name)) {
        return Err("user and join must be names: 1 to 128 bytes without control characters".into());
    }
    let (has_grant, grant) = (answer.grant.is_some(), answer.grant.unwrap_or_default());
    let lists =
        [&answer.join, &grant.rooms, &grant.speak, &grant.presence, &grant.members, &grant.users, &grant.routes];
    let is_short = |list: &&Vec<String>| {
        list.len() <= PATTERNS_MAX && list.iter().all(|pattern| (1..=PATTERN_BYTES_MAX).contains(&pattern.len()))
    };
    if !lists.iter().all(is_short) {
        return Err(format!(
            "join and the lists of grant take {PATTERNS_MAX} patterns of 1 to {PATTERN_BYTES_MAX} bytes"
        ));
    }
    let bytes: usize = answer.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    if answer.attributes.len() > ATTRIBUTES_MAX || bytes > ATTRIBUTES_BYTES_MAX {
        return Err(format!("attributes are at most {ATTRIBUTES_MAX} of together {ATTRIBUTES_BYTES_MAX} bytes"));
    }
    let Grant { rooms, speak, presence, members, users, routes } = grant;
    Ok(Verdict {
        user: answer.user.unwrap_or_default(),
        join: answer.join,
        grant: has_grant.then_some(Grants { rooms, speak, presence, members, users, routes }),
        attributes: answer.attributes.into_iter().map(|(name, value)| Pair { name, value }).collect(),
        ..Verdict::default()
    })
}

fn refused(answer: Answer) -> Result<Verdict, String> {
    if answer.user.is_some() || answer.grant.is_some() || !answer.join.is_empty() || !answer.attributes.is_empty() {
        return Err("user, join, grant and attributes belong to an acceptance".into());
    }
    let status = answer.status.unwrap_or(403);
    let (code, message) = (answer.code.unwrap_or_else(|| "refused".into()), answer.message.unwrap_or_default());
    if !STATUSES.contains(&status) {
        return Err("status must be 401, 403, 429 or 503".into());
    }
    let is_code = (1..=CODE_BYTES_MAX).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !is_code || message.len() > MESSAGE_BYTES_MAX || message.chars().any(char::is_control) {
        return Err(format!(
            "code must be 1 to {CODE_BYTES_MAX} of a-z, 0-9 and _, and message at most {MESSAGE_BYTES_MAX} bytes of one line"
        ));
    }
    Ok(Verdict { status, code, message, ..Verdict::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Connect, PATTERNS_MAX, Pair, Sender, Verdict, question, read};

    fn said(answer: &Value) -> Result<Verdict, String> {
        read(answer.to_string().as_bytes())
    }

    #[test]
    fn the_question_says_who_comes_and_leaves_out_what_is_not_known() {
        let pair = |name: &str, value: &str| Pair { name: name.into(), value: value.into() };
        let from = Sender {
            user: "alice".into(),
            address: "192.0.2.1:4711".into(),
            attributes: vec![pair("lang", "de")],
            ..Sender::default()
        };
        let connect =
            Connect { path: "/ws?platform=web".into(), headers: vec![pair("cookie", "a=b")], ..Connect::default() };

        let question: Value = serde_json::from_slice(&question("01J", 7, "g1", &from, &connect)).expect("JSON");

        assert_eq!(
            question,
            json!({"id": "01J", "time_ms": 7, "gateway": "g1", "user": "alice", "platform": null, "device": null,
                "attributes": {"lang": "de"}, "address": "192.0.2.1:4711", "origin": null, "path": "/ws?platform=web",
                "headers": {"cookie": "a=b"}})
        );
    }

    #[test]
    fn an_acceptance_may_name_and_grant() {
        let verdict = said(&json!({"accept": true, "user": "alice", "join": ["lobby"], "grant": {"rooms": ["chat:*"]},
            "attributes": {"tier": "pro"}}))
        .expect("an acceptance");

        assert_eq!((verdict.status, verdict.user.as_str(), verdict.join), (0, "alice", vec!["lobby".to_owned()]));
        assert_eq!(verdict.grant.expect("a grant").rooms, ["chat:*"]);
        assert_eq!(verdict.attributes, [Pair { name: "tier".into(), value: "pro".into() }]);
        let plain = said(&json!({"accept": true})).expect("an acceptance");
        assert_eq!((plain.user.as_str(), plain.grant), ("", None), "no grant is not an empty one");
        assert!(said(&json!({"accept": true, "grant": {}})).expect("an acceptance").grant.is_some());
    }

    #[test]
    fn a_refusal_has_a_status_and_a_code() {
        let banned = said(&json!({"accept": false, "status": 429, "code": "slow_down", "message": "later"}));
        let plain = said(&json!({"accept": false})).expect("a refusal");

        let banned = banned.expect("a refusal");
        assert_eq!((banned.status, banned.code.as_str(), banned.message.as_str()), (429, "slow_down", "later"));
        assert_eq!((plain.status, plain.code.as_str()), (403, "refused"));
    }

    #[test]
    fn what_is_not_understood_whole_is_no_answer() {
        let many: Vec<String> = (0..=PATTERNS_MAX).map(|n| n.to_string()).collect();
        for answer in [
            json!({}),
            json!([]),
            json!({"accept": "true"}),
            json!({"accept": true, "grants": {"rooms": ["*"]}}),
            json!({"accept": true, "grant": {"room": ["*"]}}),
            json!({"accept": true, "status": 403}),
            json!({"accept": true, "user": ""}),
            json!({"accept": true, "user": "a\nb"}),
            json!({"accept": true, "join": many}),
            json!({"accept": true, "grant": {"speak": ["x".repeat(129)]}}),
            json!({"accept": true, "attributes": {"a": "x".repeat(1_024)}}),
            json!({"accept": true, "attributes": {"a": 1}}),
            json!({"accept": false, "user": "alice"}),
            json!({"accept": false, "status": 200}),
            json!({"accept": false, "code": "No Such"}),
            json!({"accept": false, "message": "two\r\nlines"}),
        ] {
            assert!(said(&answer).is_err(), "{answer}");
        }
        let secret = said(&json!({"accept": true, "hunter2": 1})).expect_err("an unknown field");
        assert!(!secret.contains("hunter2"), "an answer's content is in no error: {secret}");
        assert!(read(br#"{"accept":false,"accept":true}"#).is_err(), "said twice");
    }

    #[test]
    fn members_have_names_and_each_comes_once() {
        for answer in [
            r#"[true,null,null,null,"root",["lobby"],null,{}]"#,
            r#"[true,null,null,null,"root"]"#,
            r#"{"accept":true,"grant":[["*"]]}"#,
            r#"{"accept":true,"grant":[["*"],["*"],["*"],["*"],["*"],["*"]]}"#,
            r#"{"accept":true,"attributes":[["tier","pro"]]}"#,
            r#"{"accept":true,"attributes":{"tier":"free","tier":"pro"}}"#,
            r#"{"accept":true,"grant":{"rooms":["a"],"rooms":["*"]}}"#,
        ] {
            assert!(read(answer.as_bytes()).is_err(), "{answer}");
        }
        for answer in [r#"[]"#, r#"{"accept":true,"grant":[]}"#, r#"{"accept":true,"attributes":[]}"#] {
            let why = read(answer.as_bytes()).expect_err("a list");
            assert!(why.contains("new stdClass"), "{answer}: {why}");
        }
    }
}
