//! Request bodies, bounded in size, time and in what all of them hold together.
//! A body that is too large is refused by its declared length, or as soon as it passes the limit; the rest is not
//! read. Invariant: `Budget::held` is the sum of what living [`Body`]s and [`Lines`] hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::config::{HttpConfig, LimitsConfig};
use crate::problem::Refusal;

/// Bytes that all bodies may hold together.
pub struct Budget {
    held: AtomicUsize,
    max: AtomicUsize,
}

impl Budget {
    /// Nothing held yet.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), max: AtomicUsize::new(max) })
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Another limit; what is held beyond it stays until it is given back.
    pub fn resize(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }
}

/// A part of the budget, given back on drop.
struct Hold {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Hold {
    fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    fn add(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        let limit = self.budget.max.load(Ordering::Relaxed);
        if before + bytes > limit {
            return Err(Refusal::Overloaded { what: "memory for bodies (logic.limits.bodies_bytes)", limit });
        }
        Ok(())
    }

    fn subtract(&mut self, bytes: usize) {
        self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A whole body.
pub struct Body {
    /// Its bytes.
    pub bytes: Bytes,
    _hold: Hold,
}

/// Reads a whole body.
///
/// # Errors
/// `BodyTooLarge`, `BodyTimeout`, `BodyCut`, `Overloaded`.
pub async fn read(
    mut incoming: Incoming,
    budget: &Arc<Budget>,
    limits: &LimitsConfig,
    http: &HttpConfig,
) -> Result<Body, Refusal> {
    let limit = limits.body_bytes;
    let too_large = Refusal::BodyTooLarge { limit, key: "logic.limits.body_bytes" };
    if incoming.size_hint().lower() > limit as u64 {
        return Err(too_large);
    }
    let deadline = Instant::now() + Duration::from_millis(u64::from(http.body_ms));
    let mut hold = Hold::new(budget);
    let mut bytes = BytesMut::new();
    while let Some(data) = next(&mut incoming, deadline, http.body_ms).await? {
        if bytes.len() + data.len() > limit {
            return Err(too_large);
        }
        hold.add(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(Body { bytes: bytes.freeze(), _hold: hold })
}

async fn next(incoming: &mut Incoming, deadline: Instant, limit_ms: u32) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = timeout_at(deadline, incoming.frame()).await.map_err(|_| Refusal::BodyTimeout { limit_ms })?;
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(Refusal::BodyCut),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => return Ok(Some(data)),
                // Trailers say nothing to us.
                Err(_) => continue,
            },
        }
    }
}

/// A body line by line, as it arrives.
pub struct Lines {
    incoming: Incoming,
    buffer: BytesMut,
    hold: Hold,
    /// Bytes of the buffer known to hold no line end, so that a long line is not searched again and again.
    searched: usize,
    seen_bytes: usize,
    is_ended: bool,
    line_max: usize,
    total_max: usize,
    silence: Duration,
    silence_ms: u32,
    deadline: Instant,
}

impl Lines {
    /// Nothing read yet.
    #[must_use]
    pub fn new(incoming: Incoming, budget: &Arc<Budget>, limits: &LimitsConfig, http: &HttpConfig) -> Self {
        Self {
            incoming,
            buffer: BytesMut::new(),
            hold: Hold::new(budget),
            searched: 0,
            seen_bytes: 0,
            is_ended: false,
            line_max: limits.body_bytes,
            total_max: limits.ndjson_bytes,
            silence: Duration::from_millis(u64::from(http.body_ms)),
            silence_ms: http.body_ms,
            deadline: Instant::now() + Duration::from_millis(u64::from(http.ndjson_ms)),
        }
    }

    /// The next line that is not blank; `None` at the end.
    ///
    /// # Errors
    /// As [`read`], and `LineTooLarge`; nothing can be read after an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            while let Some(line) = self.cut() {
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
            }
            if self.is_ended {
                return Ok(None);
            }
            if self.buffer.len() > self.line_max {
                return Err(Refusal::LineTooLarge { limit: self.line_max });
            }
            let deadline = self.deadline.min(Instant::now() + self.silence);
            match next(&mut self.incoming, deadline, self.silence_ms).await? {
                None => self.is_ended = true,
                Some(data) => {
                    self.seen_bytes += data.len();
                    if self.seen_bytes > self.total_max {
                        return Err(Refusal::BodyTooLarge { limit: self.total_max, key: "logic.limits.ndjson_bytes" });
                    }
                    self.hold.add(data.len())?;
                    self.buffer.extend_from_slice(&data);
                }
            }
        }
    }

    fn cut(&mut self) -> Option<Bytes> {
        let end = self.buffer[self.searched..].iter().position(|b| *b == b'\n').map(|n| self.searched + n);
        let line = match end {
            Some(end) => self.buffer.split_to(end + 1),
            None if self.is_ended && !self.buffer.is_empty() => self.buffer.split(),
            None => {
                self.searched = self.buffer.len();
                return None;
            }
        };
        self.searched = 0;
        self.hold.subtract(line.len());
        Some(line.freeze())
    }
}

/// JSON.
pub const JSON: &str = "application/json";

/// Which of the wanted media types the body has, parameters left out.
///
/// # Errors
/// `WrongMediaType` if it has none of them, `ContentEncoding` if it is compressed.
pub fn media_type(headers: &HeaderMap, wanted: &[&'static str], all: &'static str) -> Result<&'static str, Refusal> {
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::ContentEncoding);
    }
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim();
    let found = wanted.iter().find(|wanted| kind.eq_ignore_ascii_case(wanted));
    found.copied().ok_or(Refusal::WrongMediaType { expected: all })
}

/// As [`media_type`], where it must be JSON.
pub fn must_be_json(headers: &HeaderMap) -> Result<(), Refusal> {
    media_type(headers, &[JSON], JSON).map(|_| ())
}
