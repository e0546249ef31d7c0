//! Describes one call, in the words its `describe` function uses. What follows from the call's other fields is said here
//! for all: who may, what a key is refused for, that a busy API says so.
//! Invariant: the refusals of one status are one response, whose schema lists exactly their codes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::schemas;
use crate::api::calls::Call;
use crate::config::LogicConfig;
use crate::config::Scope;
use crate::problem::{Rules, rules};
use crate::push::receipt::{Receipt, Written};

/// The media type of JSON.
pub const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// Any body can be refused for these.
const OF_BODY: &[Rules] =
    &[rules::BODY_TOO_LARGE, rules::BODY_TIMEOUT, rules::BODY_CUT, rules::WRONG_MEDIA_TYPE, rules::CONTENT_ENCODING];
/// JSON as well.
const OF_JSON: &[Rules] = &[
    rules::BAD_JSON,
    rules::JSON_TOO_DEEP,
    rules::DUPLICATE_KEY,
    rules::UNKNOWN_FIELD,
    rules::MISSING_FIELD,
    rules::WRONG_TYPE,
    rules::BAD_VALUE,
];

/// Any head can be refused for these, before it is known what it asks for.
const OF_HEAD: &[(u16, &[Rules])] = &[
    (400, &[rules::MALFORMED_REQUEST, rules::HEADER_REPEATED, rules::HOST_MISSING]),
    (408, &[rules::HEAD_TIMEOUT]),
    (414, &[rules::TARGET_TOO_LONG]),
    (431, &[rules::HEAD_TOO_LARGE, rules::TOO_MANY_HEADERS]),
    (501, &[rules::TRANSFER_CODING]),
    (505, &[rules::HTTP_VERSION]),
];

/// One operation in the making.
pub struct Describe<'a> {
    /// The limits that this node keeps.
    pub config: &'a LogicConfig,
    schemas: &'a mut Map<String, Value>,
    call: &'static Call,
    operation: Value,
    responses: BTreeMap<u16, Value>,
    refusals: BTreeMap<u16, Vec<Rules>>,
}

impl<'a> Describe<'a> {
    /// What is known of the call without asking it.
    pub fn new(
        config: &'a LogicConfig,
        schemas: &'a mut Map<String, Value>,
        tag: &'static str,
        call: &'static Call,
    ) -> Self {
        let operation = json!({"tags": [tag], "operationId": call.name, "parameters": [], "security": []});
        let (responses, refusals) = (BTreeMap::new(), BTreeMap::new());
        Self { config, schemas, call, operation, responses, refusals }
    }

    /// What it does, in a few words.
    pub fn summary(&mut self, text: &str) -> &mut Self {
        self.operation["summary"] = text.into();
        self
    }

    /// What else there is to know.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.operation["description"] = text.into();
        self
    }

    fn parameter(&mut self, place: &str, name: &str, schema: Value, about: &str) -> &mut Self {
        let parameter = json!({"name": name, "in": place, "required": place == "path", "description": about,
            "schema": schema});
        self.operation["parameters"].as_array_mut().expect("set in new").push(parameter);
        self
    }

    /// A parameter in the path.
    pub fn in_path(&mut self, name: &str, schema: Value, about: &str) -> &mut Self {
        self.parameter("path", name, schema, about)
    }

    /// `{room}` in the path.
    pub fn room_in_path(&mut self) -> &mut Self {
        self.in_path("room", schemas::name("lobby"), "The room's name.").refuses(&[rules::BAD_PARAMETER])
    }

    /// `{user}` in the path.
    pub fn user_in_path(&mut self) -> &mut Self {
        self.in_path("user", schemas::name("alice"), "The user's name.").refuses(&[rules::BAD_PARAMETER])
    }

    /// An optional parameter behind the `?`.
    pub fn query(&mut self, name: &str, schema: Value, about: &str) -> &mut Self {
        self.parameter("query", name, schema, about).refuses(&[
            rules::BAD_PARAMETER,
            rules::UNKNOWN_PARAMETER,
            rules::BAD_ESCAPE,
        ])
    }

    /// `?limit=` and `?cursor=`.
    pub fn paged(&mut self) -> &mut Self {
        let limits = &self.config.limits;
        let limit = json!({"type": "integer", "minimum": 1, "maximum": limits.page_max, "default": limits.page});
        self.query("limit", limit, "Most rows of the page.").query(
            "cursor",
            schemas::cursor(),
            "The `cursor` of the page before, with the same other parameters. The last page has none.",
        )
    }

    /// `?code=` and `?reason=` of a close.
    pub fn closing(&mut self) -> &mut Self {
        let code = json!({"type": "integer", "minimum": 3000, "maximum": 4999, "default": 3502});
        self.query("code", code, "The close code, whose range tells the client whether to come back.").query(
            "reason",
            schemas::reason(),
            "The close reason, at most 123 bytes of UTF-8.",
        )
    }

    /// A body, needed; several media types are several calls of this.
    pub fn body(&mut self, media_type: &str, schema: Value, examples: &[(&str, Value)]) -> &mut Self {
        let examples: Map<String, Value> =
            examples.iter().map(|(name, value)| ((*name).to_owned(), json!({"value": value}))).collect();
        self.operation["requestBody"]["required"] = true.into();
        self.operation["requestBody"]["content"][media_type] = json!({"schema": schema, "examples": examples});
        self.refuses(OF_BODY).refuses(if media_type == JSON { OF_JSON } else { &[] })
    }

    /// JSON of a type of ours.
    pub fn answers<T: ToSchema>(&mut self, status: u16, about: &str, example: Value) -> &mut Self {
        let schema = register::<T>(self.schemas);
        self.answers_as(status, JSON, schema, about, Some(example))
    }

    /// NDJSON, each line of a type of ours.
    pub fn answers_lines<T: ToSchema>(&mut self, status: u16, about: &str) -> &mut Self {
        let line = register::<T>(self.schemas);
        let schema = json!({"type": "string", "description": "Lines of JSON.", "contentMediaType": "application/x-ndjson",
            "contentSchema": line});
        self.answers_as(status, "application/x-ndjson", schema, about, None)
    }

    /// JSON of a push's receipt, waited for: the receipt's members and those of [`Written`].
    pub fn answers_written(&mut self, status: u16, about: &str, example: Value) -> &mut Self {
        let parts = [register::<Receipt>(self.schemas), register::<Written>(self.schemas)];
        self.answers_as(status, JSON, json!({"allOf": parts}), about, Some(example))
    }

    /// Anything. One status with several media types is several calls of this.
    pub fn answers_as(
        &mut self,
        status: u16,
        media_type: &str,
        schema: Value,
        about: &str,
        example: Option<Value>,
    ) -> &mut Self {
        let response = self.responses.entry(status).or_insert_with(|| json!({"description": about}));
        response["content"][media_type]["schema"] = schema;
        if let Some(example) = example {
            response["content"][media_type]["example"] = example;
        }
        self
    }

    /// How it can say no.
    pub fn refuses(&mut self, codes: &[Rules]) -> &mut Self {
        for rules in codes {
            let same_status = self.refusals.entry(rules.status.as_u16()).or_default();
            if !same_status.contains(rules) {
                same_status.push(*rules);
            }
        }
        self
    }

    /// The operation.
    pub fn finish(mut self) -> Value {
        (self.call.describe)(&mut self);
        if let Some(scope) = self.call.needs {
            self.operation["security"] = json!([{"key": [scope.label()]}]);
            self.refuses(&[rules::NO_KEY, rules::BAD_KEY, rules::KEY_NOT_YET, rules::KEY_EXPIRED]);
            self.refuses(&[rules::WRONG_SCOPE, rules::FOREIGN_HOST]);
            if scope != Scope::Read {
                self.refuses(&[rules::FOREIGN_ORIGIN]);
            }
        }
        if self.call.path.contains('{') {
            // An empty name is no name, and a broken escape none either.
            self.refuses(&[rules::NO_SUCH_PATH, rules::BAD_ESCAPE]);
        }
        if !self.call.is_probe {
            self.refuses(&[rules::OVERLOADED, rules::SHUTTING_DOWN]);
        }
        // What every call is refused for in the same words stands in the document once.
        for (status, codes) in OF_HEAD {
            match status {
                400 => {
                    self.refuses(codes);
                }
                status if self.refusals.contains_key(status) => {
                    self.refuses(codes);
                }
                status => {
                    self.responses.insert(*status, json!({"$ref": format!("#/components/responses/{status}")}));
                }
            }
        }
        for (status, codes) in std::mem::take(&mut self.refusals) {
            self.problem(status, &codes);
        }
        let responses = self.responses.iter().map(|(status, r)| (status.to_string(), r.clone()));
        self.operation["responses"] = Value::Object(responses.collect());
        self.operation
    }

    fn problem(&mut self, status: u16, codes: &[Rules]) {
        let mut whole = problem(status, codes);
        let response = self.responses.entry(status).or_insert_with(|| json!({"description": whole["description"]}));
        response["content"][PROBLEM] = whole["content"][PROBLEM].take();
        match status {
            401 => response["headers"]["WWW-Authenticate"] = header("Bearer", "The scheme to use."),
            503 => response["headers"]["Retry-After"] = header("1", "Seconds after which to try again."),
            _ => {}
        }
    }
}

/// The response to what is refused for one of these.
fn problem(status: u16, codes: &[Rules]) -> Value {
    let names: Vec<&str> = codes.iter().map(|rules| rules.code).collect();
    let schema = json!({"allOf": [
        {"$ref": "#/components/schemas/Problem"},
        {"properties": {"status": {"const": status}, "code": {"enum": names}}},
    ]});
    let about: Vec<String> = codes.iter().map(|rules| format!("`{}`: {}.", rules.code, rules.title)).collect();
    let example = |code: &&str| ((*code).to_owned(), json!({"$ref": format!("#/components/examples/{code}")}));
    let examples = Value::Object(names.iter().map(example).collect());
    json!({"description": about.join(" "), "content": {PROBLEM: {"schema": schema, "examples": examples}}})
}

/// Responses that calls refer to.
pub fn responses() -> Map<String, Value> {
    let of_many = OF_HEAD.iter().filter(|(status, _)| *status != 400);
    of_many.map(|(status, codes)| (status.to_string(), problem(*status, codes))).collect()
}

fn header(value: &str, about: &str) -> Value {
    json!({"required": true, "description": about, "schema": {"type": "string", "const": value}})
}

/// Enters the schema of a type and of those it refers to; a reference to it.
pub fn register<T: ToSchema>(schemas: &mut Map<String, Value>) -> Value {
    let mut parts = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut parts);
    for (name, schema) in parts {
        // Schemas are structs of strings and numbers, which serialise without fail.
        let schema = serde_json::to_value(schema).unwrap_or_default();
        let before = schemas.insert(name.clone(), schema.clone());
        debug_assert!(before.is_none_or(|before| before == schema), "two schemas are called {name}");
    }
    schemas::reference(&T::name())
}
