//! One API socket with the deadlines that hyper leaves open: first bytes, a peer that takes no answer, and an end that
//! lets a peer read a refusal while it still sends. Invariant: no state of the socket outlives its deadline
//! (reliability.md, threat 3).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// hyper looks for the HTTP/2 preface in the first 24 bytes, without a deadline of its own.
const PREFACE_BYTES: usize = 24;
/// How long, and how much, a peer may go on sending after we have said the last word. Closing at once would send RST,
/// which can reach the peer before it has read the answer.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// A socket with deadlines.
pub struct Socket {
    stream: TcpStream,
    /// Runs from accept until the preface can be told.
    first: Option<Pin<Box<Sleep>>>,
    read_bytes: usize,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    write: Duration,
    /// Runs from the end of our side.
    linger: Option<Pin<Box<Sleep>>>,
    lingered_bytes: usize,
}

impl Socket {
    /// A socket just accepted.
    #[must_use]
    pub fn new(stream: TcpStream, header: Duration, write: Duration) -> Self {
        let first = Some(Box::pin(sleep(header)));
        Self { stream, first, read_bytes: 0, stalled: None, write, linger: None, lingered_bytes: 0 }
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

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(first) = &mut self.first {
            if outcome.is_pending() && first.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.read_bytes += buf.filled().len() - before;
            if self.read_bytes >= PREFACE_BYTES {
                self.first = None;
            }
        }
        outcome
    }
}

impl AsyncWrite for Socket {
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
