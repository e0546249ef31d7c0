//! The threads that write. A flushed batch becomes one job per bucket that has members: it is put into the bucket's inbox,
//! and the bucket's number goes to a shared queue from which the threads steal. A thread takes a whole inbox at once, so
//! what several targets have for one connection leaves in one write.
//! Invariants: a bucket is in the queue at most once and walked by one thread at a time, which keeps its batches in order;
//! `bytes` is the sum of the frames of batches not yet walked to the end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crossbeam::deque::{Injector, Steal};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::bucket::Bucket;
use crate::bucket::walk::{Scratch, Walk};
use crate::clock::Clock;
use crate::config::{FanoutConfig, WriterKind};
use crate::topic::batch::Batch;
use crate::writer::ring::{self, RingWriter};
use crate::writer::{KernelWriter, Writer};

/// What all fan-out threads share.
#[derive(Debug)]
pub struct Fanout<S = OwnedFd> {
    buckets: Arc<[Bucket<S>]>,
    queue: Injector<u16>,
    sleepers: Sleepers,
    backpressure: Backpressure,
    clock: Clock,
    pending_bytes_max: usize,
    /// Threads that write by io_uring.
    rings: Arc<AtomicUsize>,
}

/// Threads that found nothing to do.
#[derive(Debug, Default)]
struct Sleepers {
    /// How many; guarded so that no wake-up is lost.
    idle: Mutex<usize>,
    idle_count: AtomicUsize,
    wake: Condvar,
    is_stopping: AtomicBool,
}

/// What is not yet walked to the end, and who waits for room.
#[derive(Debug)]
struct Backpressure {
    bytes: AtomicUsize,
    bytes_max: usize,
    /// Told when batches have been walked.
    room: Notify,
}

/// How many threads there are, and what they heed.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Threads.
    pub threads: usize,
    /// Bytes of frames not yet walked, beyond which the backplane waits.
    pub bytes_max: usize,
    /// Most bytes that wait for one connection.
    pub pending_bytes_max: usize,
    /// The gateway's clock.
    pub clock: Clock,
}

impl Fanout {
    /// Starts the threads over sockets, with the writer the configuration asks for or, left to itself, the best that works.
    ///
    /// # Errors
    /// The system's, when a thread cannot be started or io_uring was asked for and does not work.
    pub fn on_sockets(
        buckets: Arc<[Bucket]>,
        config: &FanoutConfig,
        pending_bytes_max: usize,
        clock: Clock,
    ) -> std::io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let shape = Shape { threads, bytes_max: config.bytes, pending_bytes_max, clock };
        let probed = match config.writer {
            WriterKind::Send => Err("gateway.fanout.writer = \"send\"".to_owned()),
            WriterKind::Auto | WriterKind::IoUring => ring::probe(),
        };
        match (probed, config.writer) {
            (Ok(()), _) => {
                tracing::info!(threads, "fan-out writes by io_uring");
                let rings = Arc::new(AtomicUsize::new(0));
                let working = Arc::clone(&rings);
                let writer = move || RingWriter::new(Arc::clone(&working));
                Self::with_rings(buckets, &shape, rings, writer)
            }
            (Err(why), WriterKind::IoUring) => {
                Err(std::io::Error::other(format!("gateway.fanout.writer = \"io_uring\", but {why}")))
            }
            (Err(why), _) => {
                tracing::info!(threads, %why, "fan-out writes by send");
                Self::start(buckets, &shape, || KernelWriter)
            }
        }
    }
}

impl<S: Send + Sync + 'static> Fanout<S> {
    /// Starts threads over `buckets`, each with a writer of its own that `writer` makes on it.
    ///
    /// # Errors
    /// The system's, when a thread cannot be started.
    pub fn start<W: Writer<S>>(
        buckets: Arc<[Bucket<S>]>,
        shape: &Shape,
        writer: impl Fn() -> W + Clone + Send + 'static,
    ) -> std::io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        Self::with_rings(buckets, shape, Arc::default(), writer)
    }

    fn with_rings<W: Writer<S>>(
        buckets: Arc<[Bucket<S>]>,
        shape: &Shape,
        rings: Arc<AtomicUsize>,
        writer: impl Fn() -> W + Clone + Send + 'static,
    ) -> std::io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let fanout = Arc::new(Self {
            buckets,
            queue: Injector::new(),
            sleepers: Sleepers::default(),
            backpressure: Backpressure { bytes: AtomicUsize::new(0), bytes_max: shape.bytes_max, room: Notify::new() },
            clock: shape.clock,
            pending_bytes_max: shape.pending_bytes_max,
            rings,
        });
        let handles = (0..shape.threads)
            .map(|i| {
                let (fanout, writer) = (Arc::clone(&fanout), writer.clone());
                std::thread::Builder::new().name(format!("fanout-{i}")).spawn(move || fanout.work(&writer()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok((fanout, handles))
    }

    /// Takes the batches of one tick, each with the buckets that are to walk it, in flush order.
    pub fn deliver(&self, batches: &[(Arc<Batch>, Vec<u16>)]) {
        for (batch, buckets) in batches {
            if buckets.is_empty() {
                finish(batch);
            } else {
                self.backpressure.bytes.fetch_add(batch.bytes(), Ordering::Relaxed);
            }
        }
        if let [(batch, buckets)] = batches {
            for &index in buckets {
                if self.buckets[usize::from(index)].inbox.put(std::slice::from_ref(batch)) {
                    self.schedule(index);
                }
            }
            return;
        }
        // A bucket gets all its batches of the tick in one go, so that one walk finds them all.
        let mut shares: Vec<Vec<Arc<Batch>>> = vec![Vec::new(); self.buckets.len()];
        for (batch, buckets) in batches {
            for &index in buckets {
                shares[usize::from(index)].push(Arc::clone(batch));
            }
        }
        for (bucket, share) in self.buckets.iter().zip(&shares) {
            if bucket.inbox.put(share) {
                self.schedule(bucket.index);
            }
        }
    }

    /// Waits until there is room for more batches.
    pub async fn ready(&self) {
        while self.backpressure.bytes.load(Ordering::Relaxed) > self.backpressure.bytes_max {
            let waiting = self.backpressure.room.notified();
            if self.backpressure.bytes.load(Ordering::Relaxed) <= self.backpressure.bytes_max {
                return;
            }
            waiting.await;
        }
    }

    /// Bytes of frames not yet walked to the end.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.backpressure.bytes.load(Ordering::Relaxed)
    }

    /// Threads that write by io_uring at this moment.
    #[must_use]
    pub fn rings(&self) -> usize {
        self.rings.load(Ordering::Relaxed)
    }

    /// Whether nothing is left to walk.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.bytes() == 0 && self.queue.is_empty()
    }

    /// Ends the threads once the queue is empty.
    pub fn stop(&self) {
        self.sleepers.is_stopping.store(true, Ordering::SeqCst);
        let _idle = self.sleepers.idle.lock();
        self.sleepers.wake.notify_all();
    }

    fn schedule(&self, bucket: u16) {
        self.queue.push(bucket);
        // The count is raised before the last look at the queue, so either we see a sleeper or it sees the bucket.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.sleepers.idle_count.load(Ordering::SeqCst) > 0 {
            let _idle = self.sleepers.idle.lock();
            self.sleepers.wake.notify_one();
        }
    }

    fn work<W: Writer<S>>(&self, writer: &W) {
        let mut scratch = Scratch::default();
        while let Some(index) = self.next() {
            let bucket = &self.buckets[usize::from(index)];
            let batches = bucket.inbox.take();
            let walk = Walk { bucket, writer, clock: &self.clock, pending_bytes_max: self.pending_bytes_max };
            walk.run(&batches, &mut scratch);
            for batch in &batches {
                if batch.walks_left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    self.backpressure.bytes.fetch_sub(batch.bytes(), Ordering::Relaxed);
                    finish(batch);
                    self.backpressure.room.notify_waiters();
                }
            }
            if bucket.inbox.release() {
                self.schedule(index);
            }
        }
    }

    fn next(&self) -> Option<u16> {
        loop {
            match self.queue.steal() {
                Steal::Success(index) => return Some(index),
                Steal::Retry => continue,
                Steal::Empty => {}
            }
            if self.sleepers.is_stopping.load(Ordering::SeqCst) {
                return None;
            }
            let mut idle = self.sleepers.idle.lock();
            *idle += 1;
            self.sleepers.idle_count.store(*idle, Ordering::SeqCst);
            std::sync::atomic::fence(Ordering::SeqCst);
            if self.queue.is_empty() && !self.sleepers.is_stopping.load(Ordering::SeqCst) {
                self.sleepers.wake.wait(&mut idle);
            }
            *idle -= 1;
            self.sleepers.idle_count.store(*idle, Ordering::SeqCst);
        }
    }
}

/// The last walk of a batch is done: the topic learns how long it took, waiting publishers learn what became of it.
#[expect(clippy::cast_possible_truncation, reason = "a fan-out of 71 minutes would be the longest ever")]
fn finish(batch: &Batch) {
    let took = batch.flushed.elapsed().as_micros().min(u128::from(u32::MAX)) as u32;
    batch.target.topic().fanout_us.store(took, Ordering::Relaxed);
    batch.target.topic().in_flight.fetch_sub(1, Ordering::AcqRel);
    for (segment, waiter) in &batch.waiters {
        waiter.finish(&batch.fates[*segment]);
    }
}
