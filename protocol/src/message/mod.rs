//! What a client says: one JSON object a text message, `{"type": T, "id"?: N, "data"?: {…}}`, parsed into a request
//! that cannot be wrong. A superset of go-push's PING, JOIN and LEAVE. Unknown fields are ignored, an unknown type
//! is an answerable error. What the server does with a request, and who may ask for it, is the gateway's business.
//! Invariant: a token is never part of an error, and `Debug` of a verb does not show it.

mod data;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ids::ConnectionId;
use crate::json::{self, Unsound};
use crate::limits::{JSON_DEPTH_MAX, NONCE_BYTES_MAX, REQUEST_ID_BYTES_MAX, is_valid_name};

pub(crate) use data::{MembersData, ReplyData, RoomData, RoomsData, SendData, ToData, TokenData};

/// A request of a client.
#[derive(Debug)]
pub struct Request<'a> {
    /// The `id` as written (a JSON number or string), to be echoed.
    pub id: Option<&'a str>,
    /// What is asked.
    pub verb: Verb<'a>,
}

/// What a client may ask.
#[derive(Debug)]
pub enum Verb<'a> {
    /// Rule L-1; the data object comes back as written.
    Ping(Option<&'a str>),
    /// Rule R-1, one room or several.
    Join(Vec<Cow<'a, str>>),
    /// Rule R-2.
    Leave(Cow<'a, str>),
    /// Rule C-4: who this is, as the first message.
    Auth(Token<'a>),
    /// Rule C-6: the same for longer.
    Refresh(Token<'a>),
    /// Rules S-1 and S-2.
    Send(Send<'a>),
    /// Rule S-3.
    Reply(Reply<'a>),
    /// Rule P-1: how many are in a room.
    Presence(Cow<'a, str>),
    /// Rule P-2: who is in a room.
    Members(Members<'a>),
}

/// A token as the client sent it; its text never shows in logs.
pub struct Token<'a>(pub Cow<'a, str>);

impl std::fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// SEND: a message for others.
#[derive(Debug)]
pub struct Send<'a> {
    /// For whom.
    pub to: Recipient<'a>,
    /// A JSON value as written.
    pub data: &'a str,
    /// The client's mark against repeats: 1 to 64 bytes.
    pub nonce: Option<Cow<'a, str>>,
    /// Whether the sender's own connection gets it too, where it is one of the audience.
    pub echo: bool,
}

/// Whom a SEND is for.
#[derive(Debug, PartialEq, Eq)]
pub enum Recipient<'a> {
    /// The members of a room.
    Room(Cow<'a, str>),
    /// The connections of a user.
    User(Cow<'a, str>),
    /// One connection.
    Connection(ConnectionId),
    /// A business service.
    Route(Cow<'a, str>),
}

/// REPLY: an agent's answer.
#[derive(Debug)]
pub struct Reply<'a> {
    /// Id of the COMMAND.
    pub command: Cow<'a, str>,
    /// A JSON value as written.
    pub data: &'a str,
    /// Whether it says what went wrong.
    pub is_error: bool,
}

/// MEMBERS: a page of who is in a room.
#[derive(Debug)]
pub struct Members<'a> {
    /// The room.
    pub room: Cow<'a, str>,
    /// From the page before.
    pub cursor: Option<Cow<'a, str>>,
    /// Most rows.
    pub limit: Option<u32>,
}

/// Why a text message is no request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Not a JSON object with a string `type`.
    #[error("a message is a JSON object with a string \"type\": {0}")]
    BadJson(String),
    /// What strict readers would refuse, so that nobody could be sent it.
    #[error("no sound JSON: {0}")]
    Unsound(Unsound),
    /// A type nobody knows.
    #[error("unknown type {0:?}; known are PING, JOIN, LEAVE, SEND, PRESENCE, MEMBERS, REPLY, AUTH and REFRESH")]
    UnknownType(String),
    /// The data does not fit the type.
    #[error("{0}")]
    BadData(&'static str),
}

impl BadRequest {
    /// Stable code of the ERROR reply.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadJson(_) | Self::Unsound(_) => "bad_json",
            Self::UnknownType(_) => "unknown_type",
            Self::BadData(_) => "bad_data",
        }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Members that nobody reads.
#[derive(Deserialize)]
struct Nothing {}

/// A JSON string, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Parses one text message. On an error the `id` is returned with it when it could be read.
///
/// # Errors
/// [`BadRequest`], to be answered with ERROR and its code.
pub fn parse(text: &str) -> Result<Request<'_>, (Option<&str>, BadRequest)> {
    let sound = |text: &str| json::check(text.as_bytes(), JSON_DEPTH_MAX);
    let envelope: Envelope<'_> = json::from_str(text).map_err(|e| match sound(text) {
        Err(unsound) => (None, BadRequest::Unsound(unsound)),
        Ok(()) => (None, BadRequest::BadJson(e.to_string())),
    })?;
    let id = envelope.id.map(RawValue::get).filter(|id| is_scalar_id(id));
    // All of it, once: what a request holds comes back in its reply or goes on to others as it was written.
    if let Err(unsound) = sound(text) {
        return Err((id.filter(|id| sound(id).is_ok()), BadRequest::Unsound(unsound)));
    }
    let data = envelope.data.map(RawValue::get);
    let verb = match envelope.kind.as_ref() {
        "PING" => ping(data).map(Verb::Ping),
        "JOIN" => join(data).map(Verb::Join),
        "LEAVE" => leave(data).map(Verb::Leave),
        "AUTH" => token(data).map(Verb::Auth),
        "REFRESH" => token(data).map(Verb::Refresh),
        "SEND" => send(data).map(Verb::Send),
        "REPLY" => answer(envelope.id.map(RawValue::get), data).map(Verb::Reply),
        "PRESENCE" => one_room(data, PRESENCE_NEEDS).map(Verb::Presence),
        "MEMBERS" => members(data).map(Verb::Members),
        other => Err(BadRequest::UnknownType(other.chars().take(64).collect())),
    };
    match verb {
        Ok(verb) => Ok(Request { id, verb }),
        Err(e) => Err((id, e)),
    }
}

fn is_scalar_id(id: &str) -> bool {
    id.len() <= REQUEST_ID_BYTES_MAX && id.bytes().next().is_some_and(|b| b == b'"' || b == b'-' || b.is_ascii_digit())
}

/// Reads `data` as the object that a request needs, and says so where it is none.
fn object<'a, T: Deserialize<'a>>(data: Option<&'a str>, needs: &'static str) -> Result<T, BadRequest> {
    json::from_str(data.ok_or(BadRequest::BadData(needs))?).map_err(|error| match json::is_of_empty_list(&error) {
        true => BadRequest::BadData(json::EMPTY_LIST),
        false => BadRequest::BadData(needs),
    })
}

/// `data` as it is written, if it is there.
fn ping(data: Option<&str>) -> Result<Option<&str>, BadRequest> {
    match data {
        Some(data) if !data.starts_with('{') => {
            object::<Nothing>(Some(data), "data of PING is an object, or left out").map(|Nothing {}| None)
        }
        data => Ok(data),
    }
}

fn join(data: Option<&str>) -> Result<Vec<Cow<'_, str>>, BadRequest> {
    const NEEDS: &str = "JOIN needs data {\"room\": name} or {\"rooms\": [names]}";
    let data: RoomsData<'_> = object(data, NEEDS)?;
    match (data.room, data.rooms) {
        (Some(room), None) => Ok(vec![room]),
        (None, Some(rooms)) if !rooms.is_empty() => Ok(rooms),
        _ => Err(BadRequest::BadData(NEEDS)),
    }
}

fn leave(data: Option<&str>) -> Result<Cow<'_, str>, BadRequest> {
    one_room(data, "LEAVE needs data {\"room\": name}")
}

const PRESENCE_NEEDS: &str = "PRESENCE needs data {\"room\": name}";

fn one_room<'a>(data: Option<&'a str>, needs: &'static str) -> Result<Cow<'a, str>, BadRequest> {
    object(data, needs).map(|RoomData { room }| room)
}

fn token(data: Option<&str>) -> Result<Token<'_>, BadRequest> {
    // Says nothing of what it found: that is a secret, or was meant to be one.
    object(data, "a token is needed: data {\"token\": text}").map(|TokenData { token }| Token(token))
}

fn send(data: Option<&str>) -> Result<Send<'_>, BadRequest> {
    const NEEDS: &str = "SEND needs data {\"to\": {\"room\"|\"user\"|\"connection\": name}, \"data\": value} or {\"route\": name, \"data\": value}";
    const NAME: BadRequest =
        BadRequest::BadData("a room, user or route is 1 to 128 bytes of UTF-8 without control characters");
    const CONNECTION: BadRequest = BadRequest::BadData("a connection is named by 26 characters, as HELLO gives them");
    const NONCE: BadRequest = BadRequest::BadData("a nonce is a string of 1 to 64 bytes");
    let SendData { to, route, data, nonce, echo } = object(data, NEEDS)?;
    let name = |name: &str| is_valid_name(name).then_some(()).ok_or(NAME);
    let to = match (to, route) {
        (Some(ToData { room: Some(room), user: None, connection: None }), None) => {
            name(&room).map(|()| Recipient::Room(room))?
        }
        (Some(ToData { room: None, user: Some(user), connection: None }), None) => {
            name(&user).map(|()| Recipient::User(user))?
        }
        (Some(ToData { room: None, user: None, connection: Some(id) }), None) => {
            Recipient::Connection(id.parse().map_err(|_| CONNECTION)?)
        }
        (None, Some(route)) => name(&route).map(|()| Recipient::Route(route))?,
        _ => return Err(BadRequest::BadData(NEEDS)),
    };
    if nonce.as_ref().is_some_and(|n| n.is_empty() || n.len() > NONCE_BYTES_MAX) {
        return Err(NONCE);
    }
    let data = data.ok_or(BadRequest::BadData(NEEDS))?.get();
    Ok(Send { to, data, nonce, echo: echo.unwrap_or(true) })
}

/// The COMMAND's id is the envelope's; a string, as COMMAND had it.
fn answer<'a>(id: Option<&'a str>, data: Option<&'a str>) -> Result<Reply<'a>, BadRequest> {
    const NEEDS: &str = "REPLY needs the COMMAND's \"id\" and data {\"data\": value} or {\"error\": value}";
    let Text(command) = object(id, NEEDS)?;
    let given: ReplyData<'_> = object(data, NEEDS)?;
    match (given.data, given.error) {
        (Some(data), None) => Ok(Reply { command, data: data.get(), is_error: false }),
        (None, Some(error)) => Ok(Reply { command, data: error.get(), is_error: true }),
        _ => Err(BadRequest::BadData(NEEDS)),
    }
}

fn members(data: Option<&str>) -> Result<Members<'_>, BadRequest> {
    let data: MembersData<'_> =
        object(data, "MEMBERS needs data {\"room\": name, \"cursor\"?: text, \"limit\"?: number}")?;
    if data.limit == Some(0) {
        return Err(BadRequest::BadData("limit is a number from 1 on"));
    }
    Ok(Members { room: data.room, cursor: data.cursor, limit: data.limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        match parse(text) {
            Ok(_) => "ok",
            Err((_, e)) => e.code(),
        }
    }

    /// go-push's README, unchanged.
    #[test]
    fn go_push_messages_are_understood() {
        assert!(matches!(
            parse(r#"{"type":"PING","data":{}}"#),
            Ok(Request { id: None, verb: Verb::Ping(Some("{}")) })
        ));
        let joined = parse(r#"{"type":"JOIN","data":{"room":"chrome-plugin"}}"#);
        assert!(matches!(joined, Ok(Request { verb: Verb::Join(rooms), .. }) if rooms == ["chrome-plugin"]));
        let left = parse(r#"{"type":"LEAVE","data":{"room":"chrome-plugin"}}"#);
        assert!(matches!(left, Ok(Request { verb: Verb::Leave(room), .. }) if room == "chrome-plugin"));
    }

    /// Rule R-1.
    #[test]
    fn join_takes_several_rooms_and_keeps_the_id() {
        let request = parse(r#"{"id":42,"type":"JOIN","data":{"rooms":["a","b\n"]},"later":1}"#);
        assert!(matches!(request, Ok(Request { id: Some("42"), verb: Verb::Join(rooms) }) if rooms == ["a", "b\n"]));
    }

    /// Rule E-1.
    #[test]
    fn each_bad_message_has_its_code() {
        assert_eq!(code("{"), "bad_json");
        assert_eq!(code("[]"), "bad_json");
        assert_eq!(code("PING"), "bad_json");
        assert_eq!(code(r#"{"type":7}"#), "bad_json");
        assert_eq!(code(r#"{"type":"PING","type":"PING"}"#), "bad_json");
        assert_eq!(code(r#"{"type":"FLY"}"#), "unknown_type");
        assert_eq!(code(r#"{"type":"JOIN"}"#), "bad_data");
        assert_eq!(code(r#"{"type":"JOIN","data":{"rooms":[]}}"#), "bad_data");
        assert_eq!(code(r#"{"type":"JOIN","data":{"room":"a","rooms":["b"]}}"#), "bad_data");
        assert_eq!(code(r#"{"type":"LEAVE","data":[]}"#), "bad_data");
    }

    /// Rules S-1, S-2.
    #[test]
    fn send_names_exactly_one_recipient() {
        let sent = parse(r#"{"type":"SEND","id":1,"data":{"to":{"room":"a"},"data": {"x":[1]},"nonce":"n"}}"#);
        let Ok(Request { verb: Verb::Send(sent), .. }) = sent else { panic!("understood") };
        assert_eq!(
            (sent.to, sent.data, sent.nonce.as_deref()),
            (Recipient::Room("a".into()), r#"{"x":[1]}"#, Some("n"))
        );
        let routed = parse(r#"{"type":"SEND","data":{"route":"robot/Login","data":null}}"#);
        assert!(
            matches!(routed, Ok(Request { verb: Verb::Send(Send { to: Recipient::Route(r), .. }), .. }) if r == "robot/Login")
        );
        for bad in [
            r#"{"to":{"room":"a","user":"b"},"data":1}"#,
            r#"{"to":{"room":"a"},"route":"b","data":1}"#,
            r#"{"to":{"room":"a"}}"#,
            r#"{"to":{"room":""},"data":1}"#,
            r#"{"to":{"connection":"x"},"data":1}"#,
            r#"{"to":{"room":"a"},"data":1,"nonce":""}"#,
            r#"{"data":1}"#,
        ] {
            assert_eq!(code(&format!(r#"{{"type":"SEND","data":{bad}}}"#)), "bad_data", "{bad}");
        }
    }

    /// Rule S-3.
    #[test]
    fn reply_carries_the_commands_id_and_one_outcome() {
        let reply = parse(r#"{"type":"REPLY","id":"c1","data":{"error":{"code":"no"}}}"#);
        let Ok(Request { verb: Verb::Reply(reply), .. }) = reply else { panic!("understood") };
        assert_eq!((&*reply.command, reply.data, reply.is_error), ("c1", r#"{"code":"no"}"#, true));
        assert_eq!(code(r#"{"type":"REPLY","id":7,"data":{"data":1}}"#), "bad_data");
        assert_eq!(code(r#"{"type":"REPLY","id":"c1","data":{"data":1,"error":2}}"#), "bad_data");
    }

    /// Rule C-4: a token shows nowhere.
    #[test]
    fn a_token_is_in_no_error_and_no_debug_text() {
        let token = parse(r#"{"type":"AUTH","data":{"token":"CANARY"}}"#).expect("understood");
        let wrong = parse(r#"{"type":"AUTH","data":{"token":["CANARY"]}}"#).expect_err("not a string");

        assert!(!format!("{token:?}").contains("CANARY"));
        assert!(!format!("{wrong:?} {}", wrong.1).contains("CANARY"));
    }

    #[test]
    fn the_id_comes_back_with_the_error() {
        assert!(matches!(parse(r#"{"type":"FLY","id":"x"}"#), Err((Some("\"x\""), _))));
        assert!(matches!(parse(r#"{"type":"FLY","id":{"a":1}}"#), Err((None, _))));
    }

    /// Rule E-1: what one sends others must be able to read, and what comes back to oneself.
    #[test]
    fn what_strict_readers_refuse_nobody_may_say() {
        for unsound in ["1e999", "[-1E400]", r#""\ud800""#, r#"{"\udc00":1}"#] {
            for message in [
                format!(r#"{{"type":"SEND","id":7,"data":{{"to":{{"room":"a"}},"data":{unsound}}}}}"#),
                format!(r#"{{"type":"SEND","id":7,"data":{{"route":"a","data":{unsound}}}}}"#),
                format!(r#"{{"type":"REPLY","id":7,"data":{{"data":{unsound}}}}}"#),
                format!(r#"{{"type":"REPLY","id":7,"data":{{"error":{unsound}}}}}"#),
                format!(r#"{{"type":"PING","id":7,"data":{{"t":{unsound}}}}}"#),
                format!(r#"{{"type":"PING","id":7,"later":{unsound}}}"#),
            ] {
                let refused = parse(&message).expect_err("unsound");
                assert_eq!((refused.0, refused.1.code()), (Some("7"), "bad_json"), "{message}");
            }
            let message = format!(r#"{{"type":"PING","id":{unsound}}}"#);
            let id = parse(&message).expect_err("unsound");
            assert_eq!((id.0, id.1.code()), (None, "bad_json"), "{unsound}");
        }
    }

    /// Rule E-1: by position a later version's field would become another.
    #[test]
    fn a_list_is_no_object_anywhere() {
        assert_eq!(code(r#"["PING",1,{"t":42}]"#), "bad_json");
        for message in [
            r#"{"type":"PING","data":[]}"#,
            r#"{"type":"PING","data":[{"t":42}]}"#,
            r#"{"type":"JOIN","data":["lobby"]}"#,
            r#"{"type":"LEAVE","data":["lobby"]}"#,
            r#"{"type":"AUTH","data":["token"]}"#,
            r#"{"type":"REFRESH","data":["token"]}"#,
            r#"{"type":"SEND","data":[{"user":"a"},null,"hi"]}"#,
            r#"{"type":"SEND","data":{"to":["a"],"data":"hi"}}"#,
            r#"{"type":"REPLY","id":"c1","data":["done"]}"#,
            r#"{"type":"PRESENCE","data":["lobby"]}"#,
            r#"{"type":"MEMBERS","data":["lobby"]}"#,
        ] {
            assert_eq!(code(message), "bad_data", "{message}");
        }
        for message in [r#"{"type":"PING","data":[]}"#, r#"{"type":"SEND","data":{"to":[],"data":1}}"#] {
            assert_eq!(parse(message).expect_err("a list").1, BadRequest::BadData(json::EMPTY_LIST), "{message}");
        }
        assert_eq!(code(r#"{"type":"PING","data":null}"#), "ok");
        assert_eq!(code(r#"{"type":"PING","data":7}"#), "bad_data");
    }

    #[test]
    fn deep_json_is_refused_without_recursion() {
        let deep = format!(r#"{{"type":"PING","data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(code(&deep), "bad_json");
    }
}
