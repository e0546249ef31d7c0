//! Schemas of what goes in: names, ids, pushes. By hand, because `envelope` reads them by hand and because their bounds
//! are the node's configuration. The schema tests of `openapi` and schemathesis (`tests/conformance/schemathesis.sh`) hold
//! that the two agree. Lengths here count characters; where the API counts bytes of UTF-8, `x-max-bytes` says so.

use serde_json::{Map, Value, json};
use tidegate_protocol::limits::{CONTROL_BYTES_MAX, NAME_BYTES_MAX, PLATFORM_BYTES_MAX};

use crate::config::LogicConfig;
use crate::push::envelope::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX};

/// A connection id for examples.
pub const CONNECTION: &str = "0e38q0x9w100fg000004000000";

/// The schema of that name.
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A room or user name.
pub fn name(example: &str) -> Value {
    json!({"$ref": "#/components/schemas/Name", "examples": [example]})
}

/// A platform.
pub fn platform() -> Value {
    json!({"$ref": "#/components/schemas/Platform", "examples": ["ios"]})
}

/// A connection id.
pub fn connection() -> Value {
    json!({"$ref": "#/components/schemas/ConnectionId", "examples": [CONNECTION]})
}

/// A cursor of a paged list.
pub fn cursor() -> Value {
    reference("Cursor")
}

/// A close reason.
pub fn reason() -> Value {
    reference("CloseReason")
}

/// NDJSON, each line of that schema.
pub fn lines(name: &str) -> Value {
    json!({"type": "string", "format": format!("ndjson-{}", name.to_ascii_lowercase()), "description": "Lines of JSON.",
        "contentMediaType": "application/x-ndjson", "contentSchema": reference(name)})
}

/// A form of go-push: `items`, and what else there is.
pub fn go_push(fields: &[(&str, Value)]) -> Value {
    let items = json!({"type": "string", "format": "json-messages",
        "description": "A JSON list of one or more messages, as text."});
    let mut properties = Map::from_iter([("items".to_owned(), items)]);
    properties.extend(fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())));
    let required: Vec<&String> = properties.keys().collect();
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

/// The schemas that requests refer to.
pub fn of_requests(config: &LogicConfig) -> Map<String, Value> {
    let mut schemas = Map::new();
    let mut add = |name: &str, schema: Value| schemas.insert(name.to_owned(), schema);
    add(
        "Name",
        json!({"type": "string", "format": "tidegate-name", "minLength": 1, "maxLength": NAME_BYTES_MAX,
            "x-max-bytes": NAME_BYTES_MAX, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
            "description": "The name of a room or user: 1 to 128 bytes of UTF-8 without control characters."}),
    );
    add(
        "Platform",
        json!({"type": "string", "minLength": 1, "maxLength": PLATFORM_BYTES_MAX, "pattern": "^[a-z0-9_-]+$",
            "description": "What a client runs on, as it says itself: `web`, `ios`, `android`, …"}),
    );
    add(
        "ConnectionId",
        json!({"type": "string", "format": "tidegate-connection", "minLength": 26, "maxLength": 26,
            "pattern": "^[0-7][0-9a-hjkmnp-tv-zA-HJKMNP-TV-Z]{25}$",
            "description": "A connection's id: 128 bits in Crockford's base 32. It is never used again."}),
    );
    add(
        "Cursor",
        json!({"type": "string", "format": "tidegate-cursor", "minLength": 1, "description": "Opaque; made by the page before."}),
    );
    add(
        "CloseReason",
        json!({"type": "string", "format": "tidegate-reason", "maxLength": CONTROL_BYTES_MAX - 2, "x-max-bytes": CONTROL_BYTES_MAX - 2,
            "description": "At most 123 bytes of UTF-8: what fits a close frame."}),
    );
    add("Message", message(config));
    add("To", to(config));
    add("Push", push(config));
    add("PushBatch", batch(config));
    add("AgentCommand", command(config, true));
    add("RoomCommand", command(config, false));
    schemas
}

fn message(config: &LogicConfig) -> Value {
    let (bytes, depth) = (config.limits.message_bytes, config.limits.json_depth);
    json!({"x-max-bytes": bytes, "description": format!(
        "Any JSON value of at most {bytes} bytes, in a document nested at most {depth} levels deep. It reaches clients \
         as the bytes it was written in. No number beyond 1.8e308 and no half of a surrogate pair.")})
}

fn list(of: &Value, max: usize) -> Value {
    json!({"type": "array", "minItems": 1, "maxItems": max, "items": of})
}

fn to(config: &LogicConfig) -> Value {
    let max = config.limits.targets;
    let except = json!({"type": "object", "additionalProperties": false,
        "description": "Who is left out of those.",
        "properties": {"users": list(&name("alice"), max), "connections": list(&connection(), max)}});
    let targets = [
        ("all", json!({"const": true, "description": "Every connection."})),
        ("room", name("lobby")),
        ("rooms", list(&name("lobby"), max)),
        ("user", name("alice")),
        ("users", list(&name("alice"), max)),
        ("connection", connection()),
        ("connections", list(&connection(), max)),
    ];
    let mut platforms = list(&platform(), max);
    platforms["description"] = "Only their connections on these platforms.".into();
    let attributes = json!({"type": "object", "minProperties": 1, "maxProperties": ATTRIBUTES_MAX,
        "additionalProperties": {"type": "string", "maxLength": ATTRIBUTE_BYTES_MAX}, "examples": [{"lang": "de"}],
        "description": "Only connections with all of these attributes. A name and its value have at most 1,024 bytes."});
    let choice = |(key, schema): (&str, Value)| {
        json!({"title": key, "type": "object", "required": [key], "additionalProperties": false,
            "properties": {key: schema, "platform": platforms, "attributes": attributes, "except": except}})
    };
    json!({"oneOf": targets.map(choice), "description": format!(
        "Whom it is for. Who is in two of the rooms gets it in each. `platform` narrows it to connections of these \
         platforms, `attributes` to those with these attributes. At most {max} targets, those left out included.")})
}

fn push(config: &LogicConfig) -> Value {
    let (limits, http) = (&config.limits, &config.http);
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["to"],
        "properties": {
            "to": reference("To"),
            "messages": {"type": "array", "minItems": 1, "maxItems": limits.messages, "items": reference("Message")},
            "message": reference("Message"),
            "lane": {"enum": ["normal", "urgent", "bulk"], "default": "normal", "description":
                "`urgent` skips the merge window; `bulk` gives way first at a slow client."},
            "ttl_ms": {"type": "integer", "minimum": 0, "maximum": u32::MAX, "default": 0, "description":
                "Milliseconds after which it is not delivered any more; 0: never."},
            "dedupe": name("order-17"),
            "wait": {"enum": ["accepted", "written"], "default": "accepted", "description":
                "What the answer waits for: queued at the gateways, or taken by the kernel."},
            "timeout_ms": {"type": "integer", "minimum": 1, "maximum": http.wait_ms_max, "default": http.wait_ms,
                "description": "Longest wait for `written`; only with it."},
        },
        "oneOf": [{"required": ["messages"]}, {"required": ["message"]}],
        // `timeout_ms` only with `"wait": "written"`.
        "not": {"required": ["timeout_ms"], "properties": {"timeout_ms": {}, "wait": {"const": "accepted"}}},
    })
}

fn batch(config: &LogicConfig) -> Value {
    let pushes = json!({"type": "array", "maxItems": config.limits.batch_pushes, "items": reference("Push"),
        "description": "Pushed in this order. One that is wrong fails alone."});
    json!({"type": "object", "required": ["pushes"], "additionalProperties": false, "properties": {"pushes": pushes}})
}

fn command(config: &LogicConfig, is_for_user: bool) -> Value {
    let agents = &config.agents;
    let mut properties = json!({
        "command": name("info"),
        "data": reference("Message"),
        "timeout_ms": {"type": "integer", "minimum": 1, "maximum": agents.timeout_ms_max, "default": agents.timeout_ms,
            "description": "How long to wait for replies."},
        "idempotency": name("reboot-17"),
        "expect": {"enum": ["first", "all"], "default": "first", "description":
            "How many replies are enough: one, or one of each connection that was sent the command. `all` streams."},
    });
    if is_for_user {
        properties["wait_for_agent"] = json!({"type": "boolean", "default": false, "description":
            "Whether to wait for the user to connect instead of answering 404 at once."});
    }
    json!({"type": "object", "additionalProperties": false, "required": ["command"], "properties": properties})
}
