//! Request bodies, bounded in size, time and in what all of them hold together.
//! A body that is too large is refused by its declared length, or as soon as it passes the limit; the rest is not
//! read. Invariant: `Budget::held` is the sum of what living [`Body`]s and [`Lines`] hold that did not have to make room.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::config::{HttpConfig, LimitsConfig};
use crate::problem::Refusal;
use crate::settings::Current;

/// Bytes that all bodies may hold together. When that is not enough, the body that has held most for longest without being
/// whole makes room, in byte-milliseconds: callers that begin bodies and do not end them keep nobody else out.
pub struct Budget {
    inner: Mutex<Inner>,
}

struct Inner {
    /// The sum over `holds`.
    held: usize,
    max: usize,
    holds: HashMap<u64, Held>,
    next: u64,
    evicted: u64,
}

struct Held {
    bytes: usize,
    since: Instant,
    /// Ends the reading of it by being dropped; none once it is whole and waits for nobody but us.
    reading: Option<oneshot::Sender<()>>,
}

impl Budget {
    /// Nothing held yet.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        let inner = Inner { held: 0, max, holds: HashMap::new(), next: 0, evicted: 0 };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.inner.lock().held
    }

    /// Bodies that made room for others.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.inner.lock().evicted
    }

    /// Another limit; what is held beyond it stays until it is given back.
    pub fn resize(&self, max: usize) {
        self.inner.lock().max = max;
    }
}

impl Inner {
    /// Takes the heaviest unfinished body out; its number, unless there is none.
    fn evict(&mut self) -> Option<u64> {
        let weight = |held: &Held| held.bytes as u128 * (held.since.elapsed().as_millis() + 1);
        let unfinished = self.holds.iter().filter(|(_, held)| held.reading.is_some());
        let (&number, _) = unfinished.max_by_key(|(_, held)| weight(held))?;
        self.evicted += 1;
        self.held -= self.holds.remove(&number).map_or(0, |held| held.bytes);
        Some(number)
    }
}

/// A part of the budget, given back on drop.
struct Hold {
    budget: Arc<Budget>,
    number: u64,
    /// Resolves when this one has to make room.
    evicted: oneshot::Receiver<()>,
}

impl Hold {
    fn new(budget: &Arc<Budget>) -> Self {
        let (reading, evicted) = oneshot::channel();
        let mut inner = budget.inner.lock();
        inner.next += 1;
        let number = inner.next;
        inner.holds.insert(number, Held { bytes: 0, since: Instant::now(), reading: Some(reading) });
        drop(inner);
        Self { budget: Arc::clone(budget), number, evicted }
    }

    fn add(&self, bytes: usize) -> Result<(), Refusal> {
        let mut inner = self.budget.inner.lock();
        let limit = inner.max;
        let Some(own) = inner.holds.get_mut(&self.number) else { return Err(out_of_room(limit)) };
        own.bytes += bytes;
        inner.held += bytes;
        while inner.held > limit {
            if inner.evict().is_none_or(|number| number == self.number) {
                return Err(out_of_room(limit));
            }
        }
        Ok(())
    }

    fn subtract(&self, bytes: usize) {
        let mut inner = self.budget.inner.lock();
        if let Some(own) = inner.holds.get_mut(&self.number) {
            own.bytes -= bytes;
            inner.held -= bytes;
        }
    }

    /// The body is whole: what happens to it now is our affair, and it makes room for nobody.
    fn finish(&self) {
        if let Some(own) = self.budget.inner.lock().holds.get_mut(&self.number) {
            own.reading = None;
        }
    }

    /// The next piece of a body, unless it has to make room first.
    async fn next(
        &mut self,
        incoming: &mut Incoming,
        deadline: Instant,
        limit_ms: u32,
    ) -> Result<Option<Bytes>, Refusal> {
        let limit = self.budget.inner.lock().max;
        tokio::select! {
            biased;
            _ = &mut self.evicted => Err(out_of_room(limit)),
            piece = next(incoming, deadline, limit_ms) => piece,
        }
    }
}

fn out_of_room(limit: usize) -> Refusal {
    Refusal::Overloaded { what: "memory for bodies (logic.limits.bodies_bytes)", limit }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = self.budget.inner.lock();
        inner.held -= inner.holds.remove(&self.number).map_or(0, |held| held.bytes);
    }
}

/// A whole body.
pub struct Body {
    /// Its bytes.
    pub bytes: Bytes,
    _hold: Hold,
}

/// A body that nobody has read yet, and what bounds its reading.
pub struct Unread {
    /// The body.
    pub incoming: Incoming,
    /// What all bodies share.
    pub budget: Arc<Budget>,
    /// The settings that hold for its request.
    pub now: Arc<Current>,
}

impl Unread {
    /// Reads it whole.
    ///
    /// # Errors
    /// `BodyTooLarge`, `BodyTimeout`, `BodyCut`, `Overloaded`.
    pub async fn read(self) -> Result<Body, Refusal> {
        read(self.incoming, &self.budget, &self.now.limits, &self.now.http).await
    }

    /// Reads it line by line.
    #[must_use]
    pub fn lines(self) -> Lines {
        Lines::new(self.incoming, &self.budget, &self.now.limits, &self.now.http)
    }
}

async fn read(
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
    while let Some(data) = hold.next(&mut incoming, deadline, http.body_ms).await? {
        if bytes.len() + data.len() > limit {
            return Err(too_large);
        }
        hold.add(data.len())?;
        bytes.extend_from_slice(&data);
    }
    hold.finish();
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
    /// As [`Unread::read`], and `LineTooLarge`; nothing can be read after an error.
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
            match self.hold.next(&mut self.incoming, deadline, self.silence_ms).await? {
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
