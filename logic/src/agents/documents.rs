//! A command's outcome as documents: one reply, a line of many, the summary behind them, and what a refusal tells of it.
//! Invariant: a line is one line, whatever line breaks an agent has between the tokens of its JSON.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tidegate_protocol::ids::ConnectionId;
use utoipa::ToSchema;

use super::registry::Reply;
use super::run::{Conclusion, End};
use crate::problem::Known;

/// Who replied.
#[derive(Serialize, ToSchema)]
#[schema(as = AgentOfReply)]
pub struct From {
    /// Absent: an anonymous member of the room.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    user: String,
    connection: String,
}

/// A reply.
#[derive(Serialize, ToSchema)]
#[schema(as = AgentReply)]
pub struct Replied {
    from: From,
    /// What the agent answered: any JSON value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<Box<RawValue>>,
    /// Instead of `data`: what went wrong there, any JSON value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    error: Option<Box<RawValue>>,
}

/// The answer to a command that one reply is enough for.
#[derive(Serialize, ToSchema)]
#[schema(as = CommandAnswer)]
pub struct Answered {
    id: String,
    reply: Replied,
    /// From the request to the reply.
    took_ms: u64,
}

/// A line of a streamed answer: a reply, or at the end the summary.
#[derive(Serialize, ToSchema)]
#[schema(as = CommandLine)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// One reply.
    Reply(Replied),
    /// All of it.
    Summary(Summary),
}

/// The last line of a streamed answer.
#[derive(Serialize, ToSchema)]
#[schema(as = CommandSummary)]
pub struct Summary {
    id: String,
    replies: usize,
    /// Replies that are errors.
    errors: usize,
    /// Connections that were sent the command.
    delivered: u64,
    /// Whether it ended by its deadline.
    timed_out: bool,
    took_ms: u64,
}

fn replied(reply: &Reply) -> Replied {
    let connection = ConnectionId::from_slice(&reply.connection).unwrap_or_default().to_string();
    // The gateway has parsed it: it is JSON.
    let value = std::str::from_utf8(&reply.data).ok().and_then(one_line);
    let (data, error) = if reply.is_error { (None, value) } else { (value, None) };
    Replied { from: From { user: reply.user.clone(), connection }, data, error }
}

/// JSON allows line breaks between tokens; within strings they are escaped, so every raw one is between tokens. Left in, they
/// would let an agent write lines of the stream that are others' or the summary.
fn one_line(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.replace(['\n', '\r'], " ")).ok()
}

/// The one reply of a conclusion, if it is no error.
pub fn single(conclusion: &Conclusion) -> Option<Vec<u8>> {
    let reply = conclusion.replies.first().filter(|reply| !reply.is_error)?;
    let id = conclusion.id.to_string();
    let answered = Answered { id, reply: replied(reply), took_ms: ms(conclusion) };
    serde_json::to_vec(&answered).ok()
}

/// One line of a stream.
pub fn line(reply: &Reply) -> Bytes {
    ended(&Line::Reply(replied(reply)))
}

/// The last line of a stream.
pub fn summary(conclusion: &Conclusion) -> Bytes {
    let summary = Summary {
        id: conclusion.id.to_string(),
        replies: conclusion.replies.len(),
        errors: conclusion.replies.iter().filter(|r| r.is_error).count(),
        delivered: conclusion.delivered,
        timed_out: conclusion.end == End::TimedOut,
        took_ms: ms(conclusion),
    };
    ended(&Line::Summary(summary))
}

/// What is known of a command that ended without a good answer.
pub fn known(conclusion: &Conclusion, connected: bool) -> Known {
    let reply = conclusion.replies.first().and_then(|reply| serde_json::to_string(&replied(reply)).ok());
    let (id, took_ms) = (conclusion.id.to_string(), ms(conclusion));
    Known { id, delivered: conclusion.delivered, connected, took_ms, reply }
}

fn ended(document: &impl Serialize) -> Bytes {
    // Structs of strings, numbers and JSON that was parsed before serialise without fail.
    let mut text = serde_json::to_vec(document).unwrap_or_default();
    text.push(b'\n');
    Bytes::from(text)
}

fn ms(conclusion: &Conclusion) -> u64 {
    u64::try_from(conclusion.took.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_one_line_whatever_the_agent_writes() {
        let forged = b"[1,\n{\"summary\":{\"replies\":0}}\r\n,\"a\\nb\"]";
        for is_error in [false, true] {
            let reply = Reply::of_robot(forged, is_error);

            let line = String::from_utf8(line(&reply).to_vec()).expect("UTF-8");

            let body = line.strip_suffix('\n').expect("it ends");
            assert!(!body.contains(['\n', '\r']), "{line}");
            let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
            let said = &value["reply"][if is_error { "error" } else { "data" }];
            assert_eq!(said, &serde_json::json!([1, {"summary": {"replies": 0}}, "a\nb"]));
        }
    }
}
