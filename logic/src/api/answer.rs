//! Answers that are not refusals: JSON, text, pages. Refusals are in `problem`.
//! Every answer is whole in memory and bounded: lists are paged, batches are limited.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

/// What a call answers.
pub type Answer = Response<Full<Bytes>>;

/// A document.
pub fn json(status: StatusCode, document: &impl Serialize) -> Answer {
    // Our documents are structs of strings and numbers, which serialise without fail.
    let body = serde_json::to_vec(document).unwrap_or_default();
    with_type(status, "application/json", body)
}

/// Bytes of some type, never cached: figures and receipts are of the moment.
pub fn with_type(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
