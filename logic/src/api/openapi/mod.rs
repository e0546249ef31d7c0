//! `/openapi.json`: the document of every call (OpenAPI 3.1), made once at start from the calls' own descriptions, the
//! answers' types (`utoipa::ToSchema`) and the limits that this node is configured with.
//! Parts: `describe` (one operation), `schemas` (what goes in, by hand: our reader of JSON is by hand, too).
//! Invariant: an operation is in the document if and only if [`TOPICS`] have its call.

mod describe;
pub mod schemas;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Page;
use super::calls::TOPICS;
use super::response::{Answer, with_type};
use crate::config::LogicConfig;
use crate::problem::{Problem, rules};

pub use self::describe::{Describe, JSON};

const ABOUT: &str = "\
JSON in, JSON out, over HTTP/1.1 or HTTP/2. Every refusal is `application/problem+json` with a stable `code`. Names in a path \
are percent-encoded: the room `airport:ORD/2` is `/v1/rooms/airport:ORD%2F2`. HEAD works wherever GET does. A path that \
is not here is 404 `no_such_path`; a method that a path does not take is 405 `wrong_method` with `Allow`. A head \
that can be read in two ways, is too large or comes too slowly is refused before its path is looked at, and the connection closed: 400 \
`malformed_request`, `header_repeated` or `host_missing`, 408 `head_timeout`, 414 `target_too_long`, 431 `head_too_large` or \
`too_many_headers`, 501 `transfer_coding`, 505 `http_version`. A node without keys listens on loopback only and wants no `Authorization`.";

/// `GET /openapi.json`.
pub fn answer(page: &Page) -> Answer {
    with_type(StatusCode::OK, JSON, page.openapi.clone())
}

/// The document as it is served.
pub fn bytes(config: &LogicConfig) -> Bytes {
    Bytes::from(document(config).to_string())
}

/// The document of a node with this configuration.
fn document(config: &LogicConfig) -> Value {
    let mut schemas = schemas::of_requests(config);
    describe::register::<Problem>(&mut schemas);
    let mut paths = Map::new();
    for topic in TOPICS {
        for call in topic.calls {
            let operation = Describe::new(config, &mut schemas, topic.name, call).finish();
            let path = paths.entry(call.path).or_insert_with(|| json!({}));
            path[call.method.as_str().to_ascii_lowercase()] = operation;
        }
    }
    let tags: Vec<Value> = TOPICS.iter().map(|t| json!({"name": t.name, "description": t.about})).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate push API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The node that serves this document."}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "examples": examples(),
            "responses": describe::responses(),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of `logic.keys`. What it opens is its scopes: `push`, `read`, `admin`.",
                },
            },
        },
    })
}

/// One problem for each code that a call can be refused with; a method that no call takes is none's.
fn examples() -> Map<String, Value> {
    let example = |rules: &rules::Rules| {
        let value = json!({"type": format!("urn:tidegate:problem:{}", rules.code), "title": rules.title,
            "status": rules.status.as_u16(), "detail": rules.title, "code": rules.code,
            "retryable": rules.is_retryable});
        (rules.code.to_owned(), json!({"summary": rules.title, "value": value}))
    };
    rules::ALL.iter().filter(|rules| **rules != rules::WRONG_METHOD).map(example).collect()
}

#[cfg(test)]
mod tests;
