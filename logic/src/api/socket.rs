//! One API socket with the deadlines that hyper leaves open: a request head that dawdles (hyper's own deadline runs while
//! a connection idles too), a peer that takes no answer, and an end that lets a peer read a refusal while it still
//! sends. Invariant: no state of the socket outlives its deadline (reliability.md, threat 3).
//!
//! ```text
//! accepted ──▶ Head ──request──▶ none ──first byte after an answer──▶ Head
//! ```

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::framing::PREFACE;
use crate::problem::Refusal;

/// How long, and how much, a peer may go on sending after we have said the last word. Closing at once would send RST,
/// which can reach the peer before it has read the answer.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// What the server tells the socket: how far its requests are; and what `guard` tells the server.
#[derive(Default)]
pub struct Requests {
    begun: AtomicUsize,
    ended: AtomicUsize,
    /// Set once, for the last request of a connection: how many come before it, and why it is refused.
    refused: Mutex<Option<(usize, Refusal)>>,
}

impl Requests {
    /// A head is complete. Gives the refusal that it stands for.
    pub fn begin(&self) -> Option<Refusal> {
        let before = self.begun.fetch_add(1, Ordering::Relaxed);
        self.refused.lock().take_if(|(at, _)| *at == before).map(|(_, refusal)| refusal)
    }

    /// The request after so many is refused before it is read.
    pub fn refuse(&self, before: usize, refusal: Refusal) {
        *self.refused.lock() = Some((before, refusal));
    }

    /// An answer is made.
    pub fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A head that is awaited.
struct Head {
    deadline: Pin<Box<Sleep>>,
    /// Requests begun before it; one more, and it is complete.
    begun: usize,
}

/// A socket with deadlines; `S` is TCP, or TLS over it.
pub struct Socket<S> {
    stream: S,
    requests: Arc<Requests>,
    header: Duration,
    /// Armed at accept, and by the first byte after an answer.
    head: Option<Head>,
    /// Bytes of [`PREFACE`] seen; `None` once the peer speaks HTTP/1. hyper waits for it without a deadline; after it, frames
    /// come at any time and pings tell who is gone.
    preface: Option<usize>,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    write: Duration,
    /// Runs from the end of our side.
    linger: Option<Pin<Box<Sleep>>>,
    lingered_bytes: usize,
}

impl<S> Socket<S> {
    /// A socket just accepted.
    #[must_use]
    pub fn new(stream: S, requests: Arc<Requests>, header: Duration, write: Duration) -> Self {
        let head = Some(Head { deadline: Box::pin(sleep(header)), begun: 0 });
        let (stalled, linger) = (None, None);
        Self { stream, requests, header, head, preface: Some(0), stalled, write, linger, lingered_bytes: 0 }
    }

    fn is_http2(&self) -> bool {
        self.preface == Some(PREFACE.len())
    }

    /// Moves the head's deadline on by what was just read.
    fn note(&mut self, bytes: &[u8]) {
        if let Some(seen) = self.preface.filter(|seen| *seen < PREFACE.len()) {
            let is_preface = PREFACE[seen..].iter().zip(bytes).all(|(p, b)| p == b);
            self.preface = is_preface.then(|| (seen + bytes.len()).min(PREFACE.len()));
        }
        let begun = self.requests.begun.load(Ordering::Relaxed);
        let is_idle = self.requests.ended.load(Ordering::Relaxed) == begun;
        if self.is_http2() {
            self.head = None;
        } else if is_idle && !bytes.is_empty() && self.head.as_ref().is_none_or(|head| head.begun != begun) {
            self.head = Some(Head { deadline: Box::pin(sleep(self.header)), begun });
        }
    }

    /// Whether the awaited head is late.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let begun = self.requests.begun.load(Ordering::Relaxed);
        self.head.take_if(|head| head.begun != begun);
        self.head.as_mut().is_some_and(|head| head.deadline.as_mut().poll(cx).is_ready())
    }

    /// A write's outcome; starts or checks the deadline when the peer takes nothing.
    fn stall<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let write = self.write;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(write)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if outcome.is_pending() {
            if self.is_late(cx) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        } else {
            self.note(&buf.filled()[before..]);
        }
        outcome
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.stall(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.stall(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.stall(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            std::task::ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.linger = Some(Box::pin(tokio::time::sleep_until(Instant::now() + LINGER)));
        }
        let mut scratch = [std::mem::MaybeUninit::<u8>::uninit(); 16 * 1024];
        loop {
            let mut buf = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.lingered_bytes += buf.filled().len(),
                // The peer has closed as well, or is gone.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
            if self.lingered_bytes > LINGER_BYTES {
                return Poll::Ready(Ok(()));
            }
        }
        match &mut self.linger {
            Some(linger) => linger.as_mut().poll(cx).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}
