//! The client protocol as a JSON Schema (2020-12), from the types that read and write it: `docs/protocol.schema.json` is this
//! document, and other languages' clients are made of it. Says what the types cannot: which data belong to which frame, and of
//! which members exactly one is there. Invariant: an absent member is left out, so no type is "this or null".

use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use crate::{message, reply};

/// Where utoipa's references lead, and where ours do.
const REFERENCES: (&str, &str) = ("#/components/schemas/", "#/$defs/");

/// A frame's `id`.
#[derive(Clone, Copy)]
enum Id {
    /// It has none.
    None,
    /// The client's mark on a request, which its reply carries back.
    Mark,
    /// That of a COMMAND, which its REPLY carries back.
    Command,
}

/// One kind of frame: its name in the schema, its type, its id, and the names of what its data may be.
struct Frame {
    name: &'static str,
    kind: &'static str,
    id: Id,
    data: &'static [&'static str],
}

const fn frame(name: &'static str, kind: &'static str, id: Id, data: &'static [&'static str]) -> Frame {
    Frame { name, kind, id, data }
}

/// What a client says. PING's data is any object, or left out.
const REQUESTS: &[Frame] = &[
    frame("AuthRequest", "AUTH", Id::Mark, &["TokenData"]),
    frame("JoinRequest", "JOIN", Id::Mark, &["JoinData"]),
    frame("LeaveRequest", "LEAVE", Id::Mark, &["RoomData"]),
    frame("MembersRequest", "MEMBERS", Id::Mark, &["MembersData"]),
    frame("PingRequest", "PING", Id::Mark, &[]),
    frame("PresenceRequest", "PRESENCE", Id::Mark, &["RoomData"]),
    frame("RefreshRequest", "REFRESH", Id::Mark, &["TokenData"]),
    frame("ReplyRequest", "REPLY", Id::Command, &["ReplyData"]),
    frame("SendRequest", "SEND", Id::Mark, &["SendData"]),
];

/// What a client is told.
const REPLIES: &[Frame] = &[
    frame("CommandFrame", "COMMAND", Id::Command, &["Command"]),
    frame("ErrorFrame", "ERROR", Id::Mark, &["Error"]),
    frame("GapFrame", "GAP", Id::None, &["Gap"]),
    frame("GoawayFrame", "GOAWAY", Id::None, &["Goaway"]),
    frame("HelloFrame", "HELLO", Id::None, &["Hello"]),
    frame("JoinedFrame", "JOINED", Id::Mark, &["Joined"]),
    frame("LeftFrame", "LEFT", Id::Mark, &["Left"]),
    frame("MembersFrame", "MEMBERS", Id::Mark, &["Members"]),
    frame("PongFrame", "PONG", Id::Mark, &["Pong"]),
    frame("PresenceFrame", "PRESENCE", Id::Mark, &["PresenceCounts", "PresenceNews"]),
    frame("PushFrame", "PUSH", Id::None, &["Push"]),
    frame("RefreshedFrame", "REFRESHED", Id::Mark, &["Refreshed"]),
    frame("SentFrame", "SENT", Id::Mark, &["Sent"]),
];

/// Of these members exactly one is there.
const ONE_OF: &[(&str, &[&str])] = &[
    ("JoinData", &["room", "rooms"]),
    ("ReplyData", &["data", "error"]),
    ("SendData", &["to", "route"]),
    ("ToData", &["room", "user", "connection"]),
];

/// The whole document.
#[must_use]
pub fn document() -> Value {
    let mut defs = shapes();
    for (name, members) in ONE_OF {
        let one_of: Vec<_> = members.iter().map(|member| json!({ "required": [member] })).collect();
        defs[*name]["oneOf"] = Value::from(one_of);
    }
    // The members of the PING's own data come back in it.
    defs["Pong"]["additionalProperties"] = Value::from(true);
    defs.insert(
        "RequestId".into(),
        json!({ "type": ["string", "number"], "description": "At most 64 bytes of JSON." }),
    );
    for (name, frames) in [("Request", REQUESTS), ("Frame", REPLIES)] {
        let either: Vec<_> = frames.iter().map(|frame| reference(frame.name)).collect();
        defs.insert(name.into(), json!({ "oneOf": either }));
        defs.extend(frames.iter().map(|frame| (frame.name.to_owned(), envelope(frame))));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tidegate.v1.json",
        "description": concat!(
            "What a client of Tidegate says (Request) and is told (Frame), one JSON object a text message. ",
            "Members that are not named here, and types that are not, are passed over: later versions add some."
        ),
        "anyOf": [reference("Request"), reference("Frame")],
        "$defs": defs,
    })
}

/// The shapes of all data by name.
fn shapes() -> Map<String, Value> {
    let mut found = Vec::new();
    add::<message::RoomsData<'_>>(&mut found);
    add::<message::RoomData<'_>>(&mut found);
    add::<message::TokenData<'_>>(&mut found);
    add::<message::SendData<'_>>(&mut found);
    add::<message::ReplyData<'_>>(&mut found);
    add::<message::MembersData<'_>>(&mut found);
    add::<reply::Hello<'_>>(&mut found);
    add::<reply::Pong>(&mut found);
    add::<reply::Joined<'_>>(&mut found);
    add::<reply::Left<'_>>(&mut found);
    add::<reply::Presence<'_>>(&mut found);
    add::<reply::PresenceCounts<'_>>(&mut found);
    add::<reply::Members<'_>>(&mut found);
    add::<reply::Error<'_>>(&mut found);
    add::<reply::Sent<'_>>(&mut found);
    add::<reply::Refreshed>(&mut found);
    add::<reply::Gap<'_>>(&mut found);
    add::<reply::Goaway<'_>>(&mut found);
    add::<reply::Command>(&mut found);
    add::<reply::Push>(&mut found);
    found.into_iter().map(|(name, shape)| (name, plain(json!(shape)))).collect()
}

/// A type and those it refers to.
fn add<T: ToSchema>(found: &mut Vec<(String, RefOr<Schema>)>) {
    found.push((T::name().into_owned(), T::schema()));
    T::schemas(found);
}

fn envelope(frame: &Frame) -> Value {
    let mut required = vec!["type"];
    let mut members = json!({ "type": { "const": frame.kind } });
    match frame.id {
        Id::None => {}
        Id::Mark => members["id"] = reference("RequestId"),
        Id::Command => {
            members["id"] = json!({ "type": "string" });
            required.push("id");
        }
    }
    members["data"] = match frame.data {
        [] => json!({ "type": "object", "additionalProperties": true }),
        [one] => reference(one),
        several => json!({ "anyOf": several.iter().copied().map(reference).collect::<Vec<_>>() }),
    };
    if !frame.data.is_empty() {
        required.push("data");
    }
    json!({ "type": "object", "required": required, "properties": members })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{}{name}", REFERENCES.1) })
}

/// utoipa's schema without what is OpenAPI's: references to our place, no null for what is left out, and 64 bits for every whole
/// number, because OpenAPI has no name for 32 without a sign.
fn plain(schema: Value) -> Value {
    match schema {
        Value::Array(each) => each.into_iter().map(plain).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| member(name, value)).collect(),
        other => other,
    }
}

fn member(name: String, value: Value) -> (String, Value) {
    let value = match (name.as_str(), value) {
        ("$ref", Value::String(to)) => Value::from(to.replace(REFERENCES.0, REFERENCES.1)),
        ("format", Value::String(format)) if format == "int32" => Value::from("int64"),
        ("type", Value::Array(mut types)) => {
            types.retain(|one| one != "null");
            if types.len() == 1 { types.remove(0) } else { types.into() }
        }
        ("oneOf", Value::Array(mut schemas)) => {
            schemas.retain(|one| one["type"] != "null");
            schemas.into_iter().map(plain).collect()
        }
        (_, value) => plain(value),
    };
    (name, value)
}
