//! What a webhook's answer asks for: replies to the senders of messages it was just sent, and pushes. One JSON object or
//! several, a line each. A body that does not begin with a brace says nothing ("OK" is common). Pure; `Actions` does it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use serde::Deserialize;
use tidegate_protocol::ids::ConnectionId;

use super::spool::Stored;
use crate::json::{self, Object};
use crate::problem::Refusal;

/// Most replies, and most pushes, of one answer.
pub const ACTIONS_MAX: usize = 1_000;
/// Levels of an answer around each push or reply.
const LEVELS: usize = 3;

/// One thing asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Something for the connection that sent a message.
    Reply {
        /// The connection.
        to: ConnectionId,
        /// The message's id.
        to_id: String,
        /// A JSON value.
        data: Bytes,
    },
    /// A push, as `POST /v1/push` takes it; not read yet.
    Push(Bytes),
}

/// What became of an action; false: it was not sound.
pub type Acting<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// Does what answers ask for.
pub trait Actions: Send + Sync + 'static {
    /// Does one thing, in order; returns when it is on its way.
    fn act(&self, action: Action) -> Acting<'_>;
}

/// What an answer asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// In order.
    pub actions: Vec<Action>,
    /// Replies to messages that were not in the request, or whose connection nobody knows.
    pub strays: usize,
}

/// Where each message of a request came from.
#[derive(Deserialize)]
struct Origin {
    id: String,
    #[serde(default)]
    connection: Option<String>,
}

/// Reads an answer to a request with these messages.
///
/// # Errors
/// What is wrong with it; its text is the sink's and no business of logs.
pub fn read(body: &Bytes, sent: &[Stored], json_depth: usize) -> Result<Wishes, Refusal> {
    let mut wishes = Wishes::default();
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Ok(wishes);
    }
    let text = json::text(body, json_depth + LEVELS)?;
    let mut connections = None;
    let documents = documents(text);
    for document in documents {
        let mut object = Object::read(document?, "")?;
        if let Some(replies) = object.take("replies") {
            for raw in listed(&replies)? {
                let mut reply = Object::read(raw.get(), &replies.pointer)?;
                let to_id = reply.take("to_id").ok_or_else(|| missing("to_id"))?.string("a message's id")?.into_owned();
                let data = reply.take("data").ok_or_else(|| missing("data"))?;
                reply.finish(&["to_id", "data"])?;
                json::check_meaning(data.raw.get(), &|| data.pointer.clone())?;
                match connections.get_or_insert_with(|| origins(sent)).get(&to_id) {
                    Some(&to) => {
                        let data = Bytes::copy_from_slice(data.raw.get().as_bytes());
                        wishes.actions.push(Action::Reply { to, to_id, data });
                    }
                    None => wishes.strays += 1,
                }
            }
        }
        if let Some(pushes) = object.take("pushes") {
            let pushes = listed(&pushes)?.into_iter();
            wishes.actions.extend(pushes.map(|raw| Action::Push(Bytes::copy_from_slice(raw.get().as_bytes()))));
        }
        object.finish(&["replies", "pushes"])?;
        if wishes.actions.len() + wishes.strays > 2 * ACTIONS_MAX {
            return Err(too_many());
        }
    }
    Ok(wishes)
}

/// One document over several lines, or one a line.
fn documents(text: &str) -> impl Iterator<Item = Result<&str, Refusal>> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<&serde_json::value::RawValue>();
    std::iter::from_fn(move || {
        let next = stream.next()?;
        Some(next.map(serde_json::value::RawValue::get).map_err(|e| Refusal::BadJson { detail: e.to_string() }))
    })
}

fn listed<'a>(value: &json::Value<'a>) -> Result<Vec<&'a serde_json::value::RawValue>, Refusal> {
    value.list(ACTIONS_MAX, "a list")?.ok_or_else(too_many)
}

fn too_many() -> Refusal {
    Refusal::TooManyPushes { limit: ACTIONS_MAX }
}

fn missing(name: &'static str) -> Refusal {
    Refusal::MissingField { pointer: "/replies".into(), name }
}

fn origins(sent: &[Stored]) -> HashMap<String, ConnectionId> {
    let origin = |message: &Stored| {
        let origin: Origin = tidegate_protocol::json::from_slice(&message.line).ok()?;
        Some((origin.id, origin.connection?.parse().ok()?))
    };
    sent.iter().filter_map(origin).collect()
}

#[cfg(test)]
mod tests {
    use super::super::item::tests::message;
    use super::*;

    fn sent(connection: Option<ConnectionId>) -> Vec<Stored> {
        let mut item = message("alice", 7);
        item.connection = connection;
        let line = Bytes::from(item.line().expect("JSON"));
        vec![Stored { number: 1, shard: 0, taken_ms: 0, line }]
    }

    fn read_text(text: &str) -> Result<Wishes, Refusal> {
        read(&Bytes::from(text.to_owned()), &sent(Some(ConnectionId::from_u128(5))), 64)
    }

    #[test]
    fn replies_go_to_the_connection_that_sent_the_message_and_pushes_stay_as_written() {
        let text = r#"{"replies":[{"to_id":"00000000000000000000000007","data":{"text":"hi"}}],
            "pushes":[{"to":{"all":true},"messages":[1]}]}"#;

        let wishes = read_text(text).expect("is sound");

        let reply = Action::Reply {
            to: ConnectionId::from_u128(5),
            to_id: "00000000000000000000000007".into(),
            data: Bytes::from_static(br#"{"text":"hi"}"#),
        };
        let push = Action::Push(Bytes::from_static(br#"{"to":{"all":true},"messages":[1]}"#));
        assert_eq!(wishes, Wishes { actions: vec![reply, push], strays: 0 });
    }

    #[test]
    fn an_answer_may_be_lines_and_may_say_nothing() {
        let lines = read_text("{\"pushes\":[1]}\n{\"pushes\":[2]}\n").expect("is sound");
        assert_eq!(lines.actions.len(), 2);
        for nothing in ["", "OK", "[]", "null", "<html>", "{}", " {} \n"] {
            assert_eq!(read_text(nothing), Ok(Wishes::default()), "{nothing}");
        }
    }

    #[test]
    fn a_reply_to_a_message_that_was_not_sent_reaches_nobody() {
        let stray = read_text(r#"{"replies":[{"to_id":"00000000000000000000000008","data":1}]}"#).expect("is sound");
        assert_eq!((stray.actions.len(), stray.strays), (0, 1));

        let text = Bytes::from_static(br#"{"replies":[{"to_id":"00000000000000000000000007","data":1}]}"#);
        assert_eq!(read(&text, &sent(None), 64).expect("is sound").strays, 1);
    }

    #[test]
    fn what_is_not_such_an_answer_is_refused() {
        let many = vec!["1"; ACTIONS_MAX + 1].join(",");
        let deep = format!("{{\"pushes\":[{}1{}]}}", "[".repeat(70), "]".repeat(70));
        let bad = [
            "{",
            "{\"replies\":1}",
            "{\"reply\":[]}",
            "{\"replies\":[{\"to_id\":\"x\"}]}",
            "{\"replies\":[{\"data\":1}]}",
            "{\"replies\":[{\"to_id\":1,\"data\":1}]}",
            "{\"replies\":[],\"replies\":[]}",
            "{} x",
        ];
        for text in bad.into_iter().chain([format!("{{\"pushes\":[{many}]}}").as_str(), &deep]) {
            assert!(read_text(text).is_err(), "{}", &text[..text.len().min(60)]);
        }
    }
}
