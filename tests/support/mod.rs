//! What the tests of the real binary stand on: processes, WebSocket clients, raw sockets, the push API, metrics.
//! Knows the documented interfaces only, none of the workspace's crates: what passes here passes for a stranger.
//! Nothing sleeps to let something happen; every wait is for a condition and has a deadline.
#![allow(dead_code, unused_imports, reason = "each test file is a crate of its own and uses its part of this")]

mod client;
mod crowd;
pub mod front;
mod hook;
mod http;
mod metrics;
mod ranges;
mod raw;
mod server;
pub mod suite;
pub mod tls;
pub mod tokens;

pub use client::{Client, Event, Received};
pub use crowd::Crowd;
pub use front::{Balance, Front, Kind};
pub use hook::{Got, Hook};
pub use http::{Answer, Api};
pub use metrics::Metrics;
pub use ranges::Ranges;
pub use raw::{Ending, Heed, Raw, frame, get_request, masked};
pub use server::Server;

use std::time::{Duration, Instant};

/// Long enough for a debug build on two busy cores; a wait that ends here has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How often a condition without an event of its own is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks at `condition` until it gives a value; panics with `what` after `patience`. Servers are processes with clocks of
/// their own, which no test can simulate; so a test waits for what it can see, and asserts a time only where the time
/// itself is promised, beside which it says how far the bound is from the usual.
pub async fn until<T>(what: &str, patience: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The value below which `percent` of the sorted `values` lie.
pub fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    assert!(!values.is_empty(), "a percentile needs values");
    values.sort_unstable();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}
