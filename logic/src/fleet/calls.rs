//! Requests to one gateway beside batches and news: questions, commands and waits, on the connection that is open.
//! Bounds: [`WAITS_MAX`] and [`QUESTIONS_MAX`] at once.

use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use tidegate_protocol::records::{self, path};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::client::{CallError, Client};

/// Waits for written pushes, and beside them queries and commands, that one link carries at once. Together half of a
/// gateway's 256 streams a connection: h2 queues a stream beyond those ahead of the next PUSH and EVENTS. Two bounds,
/// because waits last as long as their publishers say, and an operator's question should not wait for them.
const WAITS_MAX: usize = 64;
const QUESTIONS_MAX: usize = 64;

/// What a wait may take longer than its publisher said: the way to the gateway and back.
const WAIT_SLACK: Duration = Duration::from_millis(500);

/// The calls of one link.
pub(super) struct Calls {
    /// The open connection, while there is one; set and cleared by the link's task.
    client: Mutex<Option<Client>>,
    /// Permits of [`WAITS_MAX`].
    waits: Semaphore,
    /// Permits of [`QUESTIONS_MAX`].
    questions: Semaphore,
}

impl Default for Calls {
    fn default() -> Self {
        Self { client: Mutex::default(), waits: Semaphore::new(WAITS_MAX), questions: Semaphore::new(QUESTIONS_MAX) }
    }
}

impl Calls {
    /// From now on over this connection, or over none.
    pub fn go_over(&self, client: Option<Client>) {
        *self.client.lock() = client;
    }

    /// Waits until a push is written, or time is up.
    pub async fn wait(&self, ticket: u64, until: Instant) -> Result<records::WaitReply, CallError> {
        let end = until + WAIT_SLACK;
        let _permit = timeout_at(end, self.waits.acquire()).await.map_err(|_| CallError::Late)?;
        let now = Instant::now();
        let left = until.saturating_duration_since(now).as_millis();
        let timeout_ms = u32::try_from(left).unwrap_or(u32::MAX);
        let request = records::WaitRequest { tickets: vec![ticket], timeout_ms };
        self.client()?.call(path::WAIT, &request, end.saturating_duration_since(now)).await
    }

    /// Asks, and waits for the answer.
    pub async fn question<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let end = Instant::now() + deadline;
        let _permit = timeout_at(end, self.questions.acquire()).await.map_err(|_| CallError::Late)?;
        self.client()?.call(path, request, end.saturating_duration_since(Instant::now())).await
    }

    fn client(&self) -> Result<Client, CallError> {
        self.client.lock().clone().ok_or(CallError::Down)
    }
}
