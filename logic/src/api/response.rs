//! Answers that are not refusals: JSON, text, pages, and lines that come one by one. Refusals are in `problem`.
//! Whole answers are bounded: lists are paged, batches are limited. Of lines, whoever makes them has bounded how many wait.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc;

/// What a call answers.
pub type Answer = Response<Body>;

/// An answer's body.
pub enum Body {
    /// Whole in memory.
    Whole(Full<Bytes>),
    /// As it comes; ends when the sender is gone.
    Lines(mpsc::Receiver<Bytes>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Lines(lines) => lines.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => HttpBody::size_hint(whole),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}

/// A body with something that lives until it is handed over, or nobody takes it any more.
pub struct Kept<T> {
    body: Body,
    _kept: T,
}

impl<T> Kept<T> {
    /// Keeps it as long as the body.
    pub const fn new(body: Body, kept: T) -> Self {
        Self { body, _kept: kept }
    }
}

impl<T: Unpin> HttpBody for Kept<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A document.
pub fn json(status: StatusCode, document: &impl Serialize) -> Answer {
    // Our documents are structs of strings and numbers, which serialise without fail.
    let body = serde_json::to_vec(document).unwrap_or_default();
    with_type(status, "application/json", body)
}

/// Bytes of some type, never cached: figures and receipts are of the moment.
pub fn with_type(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    with_body(status, kind, Body::Whole(Full::new(body.into())))
}

/// Lines of JSON that come one by one.
pub fn lines(lines: mpsc::Receiver<Bytes>) -> Answer {
    with_body(StatusCode::OK, "application/x-ndjson", Body::Lines(lines))
}

fn with_body(status: StatusCode, kind: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
