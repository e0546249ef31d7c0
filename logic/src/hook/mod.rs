//! The connect hook: a service of the operator's is asked about each client before it is let in, and says yes, no, or yes with
//! another name, more rights, rooms and attributes (docs/adr/0026). A gateway parks the client meanwhile.
//! Parts: `verdict` (the JSON both ways), `post` (the way to the service).
//! Invariants: every question ends in one verdict, within `timeout_ms`; at most `in_flight` questions are open; where the hook
//! fails nobody comes in, unless `fail_open` and the service is not there; neither a question nor an answer is in any log.

mod post;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tidegate_protocol::records::{Connect, Sender, Verdict, Wants};
use tidegate_protocol::remembered::Remembered;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

pub use self::post::{Post, Reply};
use crate::config::HookConfig;
use crate::fleet::tracker::Ticket;
use crate::metrics::hook::{HookLabels, HookMetrics};

/// Code of the refusal when the hook gives no answer.
pub const UNAVAILABLE: &str = "hook_unavailable";
/// Between two warnings that the hook fails: a storm of clients must not become a storm of lines.
const WARN_EVERY: Duration = Duration::from_secs(5);

/// A client, as the hook's answer depends on it: a hash, so that nothing of a token is kept.
type Client = [u8; 32];

/// The hook of a node.
pub struct Hook {
    post: Post,
    timeout: Duration,
    fail_open: bool,
    headers: Vec<String>,
    places: Semaphore,
    /// Answers that still hold.
    answers: Mutex<Remembered<Client, Verdict, ahash::RandomState>>,
    born: Instant,
    warned: Mutex<Option<Instant>>,
    metrics: Arc<HookMetrics>,
}

/// A client that waits.
pub struct Stranger {
    /// Name of the question.
    pub id: String,
    /// When it came, Unix milliseconds.
    pub time_ms: u64,
    /// The gateway's name.
    pub gateway: String,
    /// Who it says it is, checked as far as tokens go.
    pub from: Sender,
    /// What it asked for.
    pub connect: Connect,
}

/// Why there is no verdict.
struct Failure {
    why: String,
    /// Whether the service is not there: silent, unreachable, or with a status 5xx. Only that may let clients in. Clients can
    /// bring about the rest, such as questions without a place, and must gain nothing by it.
    is_away: bool,
}

impl Failure {
    /// One of this side or of what was said: nobody comes in by it.
    fn here(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_away: false }
    }
}

impl Hook {
    /// Whether [`Hook::start`] would take a configuration.
    ///
    /// # Errors
    /// As there.
    pub fn judge(config: &HookConfig) -> Result<(), String> {
        if config.is_on() { post::by_http(config).map(drop) } else { Ok(()) }
    }

    /// The hook of a configuration that has one.
    ///
    /// # Errors
    /// What is wrong with its URL, secrets or authorities.
    pub fn start(config: &HookConfig, metrics: &Arc<HookMetrics>) -> Result<Option<Arc<Self>>, String> {
        if !config.is_on() {
            return Ok(None);
        }
        let post = post::by_http(config)?;
        Ok(Some(Arc::new(Self::new(config, post, metrics))))
    }

    fn new(config: &HookConfig, post: Post, metrics: &Arc<HookMetrics>) -> Self {
        Self {
            post,
            timeout: Duration::from_millis(u64::from(config.timeout_ms)),
            fail_open: config.fail_open,
            headers: config.headers.clone(),
            places: Semaphore::new(config.in_flight),
            answers: Mutex::new(Remembered::new(config.cache_max, u64::from(config.cache_ms))),
            born: Instant::now(),
            warned: Mutex::new(None),
            metrics: Arc::clone(metrics),
        }
    }

    /// Has gateways ask.
    pub fn want(&self, wants: &mut Wants) {
        wants.connects = true;
        wants.headers.clone_from(&self.headers);
    }

    /// Asks about a client, beside everything else.
    pub fn ask(self: &Arc<Self>, stranger: Stranger, ticket: Ticket) {
        let hook = Arc::clone(self);
        tokio::spawn(async move { ticket.verdict(hook.verdict(&stranger).await) });
    }

    /// Answers that are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.answers.lock().len()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn verdict(&self, stranger: &Stranger) -> Verdict {
        let client = client(stranger);
        let known = self.answers.lock().find(&client, self.now_ms()).cloned();
        if let Some(verdict) = known {
            return self.counted("cached", verdict);
        }
        match self.exchange(stranger).await {
            Ok(verdict) => {
                self.answers.lock().keep(client, verdict.clone(), self.now_ms());
                self.counted(if verdict.status == 0 { "accepted" } else { "refused" }, verdict)
            }
            Err(Failure { why, is_away }) => {
                self.warn(&why);
                let no = Verdict {
                    status: 503,
                    code: UNAVAILABLE.into(),
                    message: "who may connect cannot be asked at the moment; try again".into(),
                    ..Verdict::default()
                };
                self.counted("failed", if self.fail_open && is_away { Verdict::default() } else { no })
            }
        }
    }

    async fn exchange(&self, stranger: &Stranger) -> Result<Verdict, Failure> {
        let full = |_| Failure::here("more questions at once than logic.hook.in_flight");
        let _place = self.places.try_acquire().map_err(full)?;
        let Stranger { id, time_ms, gateway, from, connect } = stranger;
        let question = Bytes::from(verdict::question(id, *time_ms, gateway, from, connect));
        let started = Instant::now();
        let reply = timeout(self.timeout, (self.post)(id.clone(), question)).await;
        self.metrics.seconds.observe(started.elapsed().as_secs_f64());
        match reply {
            Err(_) => Err(Failure { why: "no answer within logic.hook.timeout_ms".into(), is_away: true }),
            Ok(Reply::Body(body)) => verdict::read(&body).map_err(Failure::here),
            Ok(Reply::Status(status @ (401 | 403))) => {
                let code = if status == 401 { "unauthorized" } else { "refused" };
                Ok(Verdict { status: u32::from(status), code: code.into(), ..Verdict::default() })
            }
            Ok(Reply::Status(status)) => {
                Err(Failure { why: format!("the hook answered {status}"), is_away: (500..600).contains(&status) })
            }
            Ok(Reply::Failed(why)) => Err(Failure::here(why)),
            Ok(Reply::Away(why)) => Err(Failure { why, is_away: true }),
        }
    }

    fn counted(&self, result: &'static str, verdict: Verdict) -> Verdict {
        self.metrics.answers.get_or_create(&HookLabels { result }).inc();
        verdict
    }

    fn warn(&self, why: &str) {
        let now = Instant::now();
        let mut warned = self.warned.lock();
        if warned.is_none_or(|at| now.duration_since(at) >= WARN_EVERY) {
            *warned = Some(now);
            tracing::warn!(why, "the connect hook fails (logic.hook)");
        }
    }
}

/// What the answer may depend on. The address counts without its port, which differs each time.
fn client(stranger: &Stranger) -> Client {
    let Sender { user, platform, device, address, .. } = &stranger.from;
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    let mut hash = Sha256::new();
    for part in [user, platform, device, host, stranger.gateway.as_str()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(&stranger.connect.fingerprint);
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
