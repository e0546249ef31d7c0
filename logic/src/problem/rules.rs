//! The consequence of each refusal, by name: what `Refusal::rules` hands out, and what the OpenAPI document says that a
//! call can answer. One line each, so that a code that is documented is a code that exists.
//! Invariant: [`ALL`] has every line of this file, and no code twice.

use http::StatusCode;

/// What a refusal means on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable, for programs.
    pub code: &'static str,
    /// The same for every occurrence, for people.
    pub title: &'static str,
    /// Whether the same request can succeed later.
    pub is_retryable: bool,
}

const fn never(status: StatusCode, code: &'static str, title: &'static str) -> Rules {
    Rules { status, code, title, is_retryable: false }
}

const fn later(status: StatusCode, code: &'static str, title: &'static str) -> Rules {
    Rules { status, code, title, is_retryable: true }
}

macro_rules! rules {
    ($($name:ident = $retry:ident($status:ident, $code:literal, $title:literal);)*) => {
        $(#[doc = $title] pub const $name: Rules = $retry(StatusCode::$status, $code, $title);)*
        /// All of them.
        pub const ALL: &[Rules] = &[$($name),*];
    };
}

rules! {
    // The head of the request, of whatever call.
    MALFORMED_REQUEST = never(BAD_REQUEST, "malformed_request", "The request is malformed");
    HEADER_REPEATED = never(BAD_REQUEST, "header_repeated", "A header is given twice");
    HOST_MISSING = never(BAD_REQUEST, "host_missing", "The Host header is missing");
    HEAD_TOO_LARGE = never(REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "The request head is too large");
    TOO_MANY_HEADERS = never(REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_headers", "There are too many headers");
    TARGET_TOO_LONG = never(URI_TOO_LONG, "target_too_long", "The request target is too long");
    HEAD_TIMEOUT = later(REQUEST_TIMEOUT, "head_timeout", "The request head came too slowly");
    HTTP_VERSION = never(HTTP_VERSION_NOT_SUPPORTED, "http_version", "The version of HTTP is not spoken here");
    TRANSFER_CODING = never(NOT_IMPLEMENTED, "transfer_coding", "The transfer coding is not known");
    BAD_ESCAPE = never(BAD_REQUEST, "bad_escape", "The path or the query is not percent-encoded UTF-8");
    // What was sent is not JSON, or JSON nobody should pass on.
    BAD_JSON = never(BAD_REQUEST, "bad_json", "The body is not JSON");
    JSON_TOO_DEEP = never(BAD_REQUEST, "json_too_deep", "The JSON is nested too deeply");
    DUPLICATE_KEY = never(BAD_REQUEST, "duplicate_key", "A key is given twice");
    BAD_NUMBER = never(BAD_REQUEST, "bad_number", "A number is beyond what JSON readers hold");
    LONE_SURROGATE = never(BAD_REQUEST, "lone_surrogate", "A string holds half a character");
    // JSON, but not what the call takes.
    UNKNOWN_FIELD = never(UNPROCESSABLE_ENTITY, "unknown_field", "A field is unknown");
    MISSING_FIELD = never(UNPROCESSABLE_ENTITY, "missing_field", "A field is missing");
    WRONG_TYPE = never(UNPROCESSABLE_ENTITY, "wrong_type", "A field has the wrong type");
    BAD_VALUE = never(UNPROCESSABLE_ENTITY, "bad_value", "A field has a value that is not allowed");
    // Limits.
    TOO_MANY_MESSAGES = never(UNPROCESSABLE_ENTITY, "too_many_messages", "Too many messages in one push");
    TOO_MANY_TARGETS = never(UNPROCESSABLE_ENTITY, "too_many_targets", "Too many targets in one push");
    TOO_MANY_PUSHES = never(UNPROCESSABLE_ENTITY, "too_many_pushes", "Too many pushes in one batch");
    MESSAGE_TOO_LARGE = never(PAYLOAD_TOO_LARGE, "message_too_large", "A message is too large");
    BODY_TOO_LARGE = never(PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large");
    LINE_TOO_LARGE = never(PAYLOAD_TOO_LARGE, "line_too_large", "A line of the body is too large");
    BODY_TIMEOUT = later(REQUEST_TIMEOUT, "body_timeout", "The body came too slowly");
    BODY_CUT = never(BAD_REQUEST, "body_cut", "The body ended early");
    // Form and query.
    BAD_FORM = never(BAD_REQUEST, "bad_form", "The form cannot be read");
    UNKNOWN_PARAMETER = never(UNPROCESSABLE_ENTITY, "unknown_parameter", "A query parameter is unknown");
    BAD_PARAMETER = never(UNPROCESSABLE_ENTITY, "bad_parameter", "A parameter has a value that is not allowed");
    // Who and where.
    NO_KEY = never(UNAUTHORIZED, "no_key", "A key is needed");
    BAD_KEY = never(UNAUTHORIZED, "bad_key", "The key is unknown");
    KEY_NOT_YET = later(UNAUTHORIZED, "key_not_yet", "The key does not count yet");
    KEY_EXPIRED = never(UNAUTHORIZED, "key_expired", "The key does not count any more");
    TARGET_NOT_ALLOWED = never(FORBIDDEN, "target_not_allowed", "The key may not push to this target");
    WRONG_SCOPE = never(FORBIDDEN, "wrong_scope", "The key may not do this");
    FOREIGN_ORIGIN = never(FORBIDDEN, "foreign_origin", "Pages of other sites may not call");
    FOREIGN_HOST = never(FORBIDDEN, "foreign_host", "This server is not called by that name");
    NO_SUCH_PATH = never(NOT_FOUND, "no_such_path", "There is nothing at this path");
    NO_SUCH_SINK = never(NOT_FOUND, "no_such_sink", "There is no such sink");
    NO_SUCH_CONNECTION = never(NOT_FOUND, "no_such_connection", "There is no such connection");
    WRONG_METHOD = never(METHOD_NOT_ALLOWED, "wrong_method", "This path takes other methods");
    WRONG_MEDIA_TYPE = never(UNSUPPORTED_MEDIA_TYPE, "wrong_media_type", "The body has another media type");
    CONTENT_ENCODING = never(UNSUPPORTED_MEDIA_TYPE, "content_encoding", "The body is compressed");
    // Commands to agents.
    NOBODY_THERE = later(NOT_FOUND, "nobody_there", "Nobody is connected who could answer");
    NO_SUCH_AGENT = never(NOT_FOUND, "no_such_agent", "There is no such agent");
    AGENT_ERROR = never(BAD_GATEWAY, "agent_error", "The agent answered with an error");
    COMMAND_TIMEOUT = later(GATEWAY_TIMEOUT, "command_timeout", "Nobody answered in time");
    IDEMPOTENCY_CONFLICT = never(CONFLICT, "idempotency_conflict", "The idempotency key belongs to another command");
    // Not now.
    NO_GATEWAY = later(SERVICE_UNAVAILABLE, "no_gateway", "No gateway can be reached");
    QUEUES_FULL = later(SERVICE_UNAVAILABLE, "queues_full", "The gateways are behind");
    GATEWAY_LOST = later(SERVICE_UNAVAILABLE, "gateway_lost", "A gateway was lost before it answered");
    FIRST_FAILED = later(SERVICE_UNAVAILABLE, "first_failed", "The first request with this key failed");
    SPOOL_FAILED = later(SERVICE_UNAVAILABLE, "spool_failed", "The spool cannot be read or written");
    OVERLOADED = later(SERVICE_UNAVAILABLE, "overloaded", "The API is at one of its limits");
    SHUTTING_DOWN = later(SERVICE_UNAVAILABLE, "shutting_down", "This node is leaving");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_means_two_things() {
        let twice = |rules: &&Rules| ALL.iter().filter(|other| other.code == rules.code).count() > 1;

        assert_eq!(ALL.iter().find(twice), None);
    }
}
