//! One publisher: one connection, one thread that writes what is due, one that reads answers.
//! A file of its own because the two threads share only a bounded queue: when it is full, the writer waits and is
//! late, and the report says so. Invariant: requests leave in the order of their numbers (rule M-4).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::Published;
use super::composer::Composer;
use super::schedule::{Due, Schedule};
use crate::clock;
use crate::dialect::form::{Form, Stream};
use crate::http1::Reader;
use crate::ledger::Expected;

#[derive(Clone, Debug)]
pub struct Options {
    pub address: SocketAddr,
    pub form: Form,
    pub publisher: u32,
    pub to: String,
    pub size: usize,
    pub rows: bool,
    pub key: Option<String>,
    pub in_flight: usize,
    /// Set from outside: nothing more is published.
    pub is_over: Arc<AtomicBool>,
    pub schedule: Schedule,
}

/// A request on its way.
struct Sent {
    due: Due,
    sent_ns: u64,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer that takes longer is no answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Later than this and the publisher, not the server, may be what was measured.
const LATE_NS: u64 = 1_000_000;
/// Refusals quoted in a report.
const REFUSALS_MAX: usize = 3;

impl Options {
    /// What is to be published, each when it is due.
    fn dues(&self) -> impl Iterator<Item = Due> + '_ {
        let wait = |due: &Due| {
            clock::sleep_until_ns(due.at_ns);
            !self.is_over.load(Ordering::Relaxed)
        };
        self.schedule.pushes().take_while(wait)
    }
}

/// Runs the schedule to its end and collects the answers.
pub fn run(options: &Options) -> anyhow::Result<Published> {
    let stream = TcpStream::connect_timeout(&options.address, CONNECT_TIMEOUT)
        .with_context(|| format!("cannot connect to the push API at {}", options.address))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    if let Form::Stream(protocol) = options.form {
        return run_stream(options, protocol, stream);
    }
    let answers = Reader::new(stream.try_clone()?);
    let (queue, sent) = sync_channel(options.in_flight);
    let reader = std::thread::Builder::new().name("receipts".to_owned()).spawn(move || read(answers, &sent))?;
    let written = write(options, stream, &queue);
    drop(queue);
    let mut published = reader.join().ok().context("the reader of receipts panicked")?;
    let count = written.messages as u32;
    let refused = published.expected.iter().map(|expected| expected.refused).sum();
    let (publisher, to) = (options.publisher, options.to.clone());
    published.expected = vec![Expected { publisher, count, refused, to }];
    published.pushes = written.pushes;
    published.messages = written.messages;
    published.late_us = written.late_us;
    published.late = written.late;
    published.unanswered = written.pushes - published.accepted - published.refused.values().sum::<u64>();
    published.seconds = clock::now_ns().saturating_sub(options.schedule.started_ns()) as f64 / 1e9;
    Ok(published)
}

impl Published {
    /// Notes a push that leaves at `sent_ns`.
    fn note(&mut self, due: Due, sent_ns: u64) {
        self.pushes += 1;
        self.messages += u64::from(due.messages);
        self.late_us.record_span_ns(due.at_ns, sent_ns);
        self.late += u64::from(sent_ns.saturating_sub(due.at_ns) > LATE_NS);
    }
}

/// Runs the schedule in a protocol that does not answer each message: all are accepted once the flush is answered.
fn run_stream(options: &Options, protocol: &dyn Stream, mut stream: TcpStream) -> anyhow::Result<Published> {
    let (mut published, mut composer) = (Published::default(), Composer::default());
    stream.write_all(&protocol.opening())?;
    for due in options.dues() {
        stream.write_all(composer.compose(options, due)).context("the server closed the publisher's connection")?;
        published.note(due, clock::now_ns());
    }
    stream.write_all(protocol.flush())?;
    let sent_ns = clock::now_ns();
    let (mut heard, mut chunk) = (Vec::new(), [0; 4096]);
    while !heard.windows(protocol.flushed().len()).any(|window| window == protocol.flushed()) {
        let read = stream.read(&mut chunk).context("the server did not answer the flush")?;
        ensure!(read > 0, "the server ended: {}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&chunk[..read]);
    }
    published.receipt_us.record_span_ns(sent_ns, clock::now_ns());
    let (publisher, count, to) = (options.publisher, published.messages as u32, options.to.clone());
    published.expected = vec![Expected { publisher, count, refused: 0, to }];
    published.accepted = published.pushes;
    published.seconds = clock::now_ns().saturating_sub(options.schedule.started_ns()) as f64 / 1e9;
    Ok(published)
}

/// Writes each push when it is due, or as soon after as the queue lets it.
fn write(options: &Options, mut stream: TcpStream, queue: &SyncSender<Sent>) -> Published {
    let (mut published, mut composer) = (Published::default(), Composer::default());
    for due in options.dues() {
        let request = composer.compose(options, due);
        // Queued first: the reader must know of a request before its answer can come.
        if queue.send(Sent { due, sent_ns: clock::now_ns() }).is_err() {
            break;
        }
        published.note(due, clock::now_ns());
        if stream.write_all(request).is_err() {
            break;
        }
    }
    published
}

/// Reads an answer for each request, in order; ends with the requests or with the connection.
fn read(mut answers: Reader<TcpStream>, sent: &Receiver<Sent>) -> Published {
    let mut published = Published::default();
    for Sent { due, sent_ns } in sent {
        let response = match answers.response() {
            Ok(response) => response,
            Err(error) => {
                published.refusals.push(format!("no answer: {error:#}"));
                return published;
            }
        };
        published.receipt_us.record_span_ns(sent_ns, clock::now_ns());
        if (200..300).contains(&response.status) {
            published.accepted += 1;
            continue;
        }
        *published.refused.entry(response.status).or_default() += 1;
        let (publisher, refused) = (0, due.messages);
        published.expected.push(Expected { publisher, count: 0, refused, to: String::new() });
        if published.refusals.len() < REFUSALS_MAX {
            published.refusals.push(String::from_utf8_lossy(&response.body).into_owned());
        }
    }
    published
}
