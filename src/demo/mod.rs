//! The demo of `serve --demo`: replays 10,000 real flights through the public push API, one room per origin airport.
//! It is a client of the API like any other (HTTP/1.1, keep-alive, receipts, 503 and `Retry-After`), so what it shows is what a
//! business service gets. It knows nothing of gateways or of the page that draws the departures.
//! Invariants: flights leave in order of departure, each once a lap; a refusal stops the simulated clock instead of losing flights;
//! no error ends the replay, only `stop` does.

mod client;
mod flights;
mod pushes;
mod timetable;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use self::timetable::Timetable;
use client::{ApiClient, Outcome, PushError};
use flights::{Flight, load};
use pushes::{Progress, clock_push, departure_push, note_push};

/// Departures in one request at most: a batch stays near 100 KB, far under the API's 1 MiB.
const BATCH_MAX: usize = 500;
/// Time between two clock messages to everyone.
const TICK: Duration = Duration::from_secs(1);
/// Rest between two laps, so that the note at the end can be read.
const LAP_PAUSE: Duration = Duration::from_secs(5);
/// First and longest wait after a refusal that names no `Retry-After`; doubled in between, with full jitter.
const BACK_OFF_BASE: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// Refusals in a row between two warnings: an API that is down for an hour must not fill the log.
const WARN_EVERY: u32 = 10;

/// Simulated minutes per real second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed(f64);

impl Speed {
    /// Slow enough to watch one airport by hand, and fast enough to be a load test: a lap in about a second.
    const RANGE: std::ops::RangeInclusive<f64> = 1.0..=100_000.0;

    pub fn minutes_per_second(self) -> f64 {
        self.0
    }
}

impl Default for Speed {
    /// 10,000 flights over 101,730 minutes (nights cut, see `timetable`) at 200 a second: 19.7 departures each second, a lap in 8.5 minutes.
    fn default() -> Self {
        Self(200.0)
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A speed that is no number, or outside what the replay can keep.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0:?} is no speed: expected simulated minutes per second, from 1 to 100000")]
pub struct SpeedError(String);

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, SpeedError> {
        text.parse().ok().and_then(|number: f64| Self::try_from(number).ok()).ok_or_else(|| SpeedError(text.to_owned()))
    }
}

impl TryFrom<f64> for Speed {
    type Error = SpeedError;

    fn try_from(number: f64) -> Result<Self, SpeedError> {
        if Self::RANGE.contains(&number) { Ok(Self(number)) } else { Err(SpeedError(number.to_string())) }
    }
}

/// What an operator may choose about the demo.
#[derive(Clone, Debug, Default)]
pub struct DemoOptions {
    pub speed: Speed,
    /// API key with the scope `push`, where the API asks for one.
    pub key: Option<String>,
}

/// Replays the flights to the push API at `api`, lap after lap, until `stop` completes.
pub async fn run(api: SocketAddr, options: DemoOptions, stop: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = stop => tracing::info!("demo stopped"),
        never = Replay::new(api, options).run() => match never {},
    }
}

/// The replay as it stands: one connection to the API, and which push is next.
struct Replay {
    client: ApiClient,
    speed: Speed,
    flights: Vec<Flight>,
    /// Starts every `dedupe` key, so that two runs against one API are not taken for each other.
    run_id: u64,
    lap: u32,
}

impl Replay {
    fn new(api: SocketAddr, options: DemoOptions) -> Self {
        let DemoOptions { speed, key } = options;
        Self { client: ApiClient::new(api, key), speed, flights: load(), run_id: fastrand::u64(..), lap: 0 }
    }

    async fn run(mut self) -> Infallible {
        tracing::info!(flights = self.flights.len(), minutes_per_second = %self.speed, "demo replays flights of 2001");
        loop {
            self.lap += 1;
            self.fly_lap().await;
            let text = format!("All {} flights have departed. The quarter begins again.", self.flights.len());
            tracing::info!(lap = self.lap, "demo: all flights departed, starting again");
            self.deliver(vec![note_push(&text, &self.dedupe_key("note"))]).await;
            tokio::time::sleep(LAP_PAUSE).await;
        }
    }

    /// Sends every flight once, each when it is due, and the clock once a `TICK`.
    async fn fly_lap(&mut self) {
        let mut timetable = Timetable::new(&self.flights, self.speed, Instant::now());
        let mut departed = 0;
        let mut tick = Instant::now();
        while departed < self.flights.len() {
            let wake = timetable.departure(departed).min(tick);
            tokio::time::sleep_until(wake).await;
            let now = Instant::now();
            let until = timetable.due(now).clamp(departed, departed + BATCH_MAX);
            let mut pushes: Vec<String> = (departed..until).map(|index| self.departure(index)).collect();
            departed = until;
            if now >= tick {
                pushes.push(self.clock(&timetable, departed, now));
                tick = now + TICK;
            }
            let held = self.deliver(pushes).await;
            timetable.postpone(held);
        }
    }

    fn departure(&self, index: usize) -> String {
        departure_push(&self.flights[index], &self.dedupe_key(index))
    }

    fn clock(&self, timetable: &Timetable, departed: usize, now: Instant) -> String {
        let progress = Progress { departed, of: self.flights.len(), speed: self.speed, lap: self.lap };
        clock_push(timetable.clock(departed, now), &progress)
    }

    /// One key per push of this run. A request whose answer was lost is sent again and must not show twice.
    fn dedupe_key(&self, push: impl fmt::Display) -> String {
        format!("demo-{:x}-{}-{push}", self.run_id, self.lap)
    }

    /// Posts `pushes` until the API has them, backing off in between; returns for how long it was held up.
    async fn deliver(&mut self, pushes: Vec<String>) -> Duration {
        if pushes.is_empty() {
            return Duration::ZERO;
        }
        let body = pushes::batch_body(&pushes);
        let mut held_since = None;
        let mut attempts = 0;
        loop {
            match self.client.push_batch(body.clone()).await {
                Ok(outcome) => {
                    report_delivery(&outcome, held_since);
                    return held_since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
                }
                Err(error) => {
                    held_since.get_or_insert_with(Instant::now);
                    let wait = back_off(&error, attempts, fastrand::f64());
                    if attempts % WARN_EVERY == 0 {
                        tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "demo: push refused, clock held");
                    }
                    attempts = attempts.saturating_add(1);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

fn report_delivery(outcome: &Outcome, held_since: Option<Instant>) {
    if let Some(since) = held_since {
        tracing::info!(held_ms = since.elapsed().as_millis() as u64, "demo: push accepted again, clock runs");
    }
    if let Some(reason) = &outcome.refusal {
        tracing::warn!(refused = outcome.refused, reason, "demo: some pushes of a batch were refused for good");
    }
}

/// How long to wait before the same request again: what the API asks for, else exponential with full jitter.
/// `chance` is uniform in 0..1.
fn back_off(error: &PushError, attempts: u32, chance: f64) -> Duration {
    let ceiling = BACK_OFF_BASE.saturating_mul(1 << attempts.min(8)).min(BACK_OFF_MAX);
    match error.retry_after() {
        // Jitter on top, never below: the API said when it expects to have room again.
        Some(asked) => asked.min(BACK_OFF_MAX) + BACK_OFF_BASE.mul_f64(chance),
        None => ceiling.mul_f64(chance).max(BACK_OFF_BASE / 10),
    }
}

#[cfg(test)]
mod tests;
