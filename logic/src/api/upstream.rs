//! What goes upstream, for operators: how far each sink is behind, and its dead letters.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::query::Pairs;
use super::response::{Answer, json};
use crate::config::LimitsConfig;
use crate::fleet::cursor;
use crate::problem::Refusal;
use crate::upstream::{Dead, Deed, Sink, Upstream, Which};

/// Longest id of a message in a query; ours have 26.
pub(super) const ID_CHARACTERS_MAX: usize = 128;

/// Bytes of one page of letters: a page of the largest messages would be an answer of tens of megabytes.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// `GET /v1/upstream`
#[derive(Serialize, ToSchema)]
pub struct UpstreamState {
    sinks: Vec<SinkState>,
    routes: Vec<RouteState>,
}

#[derive(Serialize, ToSchema)]
struct RouteState {
    pattern: String,
    sink: String,
}

#[derive(Serialize, ToSchema)]
struct SinkState {
    sink: String,
    /// Without its query.
    url: String,
    /// Kinds of events it is told.
    events: Vec<String>,
    /// Accepted and not delivered.
    spool: Held,
    dead: Held,
    /// Age of the oldest message not delivered.
    lag_ms: u64,
    /// Absent while the sink takes messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<TroubleState>,
    /// Absent while nothing of the spool is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<DamageState>,
}

#[derive(Serialize, ToSchema)]
struct DamageState {
    /// Messages and dead letters that could not be read from the spool, since this node was started.
    messages: u64,
    /// Damaged spools that were set aside and are still there.
    set_aside: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct Held {
    messages: u64,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Serialize, ToSchema)]
struct TroubleState {
    /// What went wrong last.
    what: String,
    /// Since when the sink takes nothing.
    since_ms: u64,
}

/// `GET /v1/upstream/dead`
#[derive(Serialize, ToSchema)]
pub struct DeadLetters {
    dead: Vec<DeadLetter>,
    /// For the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct DeadLetter {
    sink: String,
    /// Why it was given up.
    reason: String,
    /// How often it was sent in vain.
    attempts: u32,
    /// When it was accepted.
    taken_ms: u64,
    /// When it was given up.
    died_ms: u64,
    /// The line that the sink would have got.
    #[schema(value_type = Object)]
    message: Box<RawValue>,
}

/// What was done to dead letters.
#[derive(Serialize, ToSchema)]
pub struct Tended {
    /// How many were retried, or deleted.
    done: u64,
    /// Dead letters of these sinks that are there now.
    left: u64,
}

/// Answers `GET /v1/upstream`.
pub fn state(upstream: &Upstream) -> Answer {
    let sinks = upstream.sinks().iter().map(|sink| sink_state(sink)).collect();
    let route =
        |route: &crate::config::RouteConfig| RouteState { pattern: route.pattern.clone(), sink: route.sink.clone() };
    json(StatusCode::OK, &UpstreamState { sinks, routes: upstream.routes().map(route).collect() })
}

fn sink_state(sink: &Sink) -> SinkState {
    let (standing, config) = (sink.standing(), &sink.config);
    let held =
        |amount: crate::upstream::Amount, bytes_max| Held { messages: amount.messages, bytes: amount.bytes, bytes_max };
    SinkState {
        sink: config.name.clone(),
        url: sink.address(),
        events: config.events.clone(),
        spool: held(standing.books.waiting, config.spool_bytes),
        dead: held(standing.books.dead, config.dead_bytes),
        lag_ms: standing.lag_ms,
        trouble: standing.trouble.map(|(since_ms, what)| TroubleState { what, since_ms }),
        damage: damage_state(sink),
    }
}

fn damage_state(sink: &Sink) -> Option<DamageState> {
    let messages = sink.counts.metrics.intake.damaged.get_or_create(&sink.counts.labels).get();
    let set_aside: Vec<String> = sink.spool.set_aside().iter().map(|path| path.display().to_string()).collect();
    (messages > 0 || !set_aside.is_empty()).then_some(DamageState { messages, set_aside })
}

/// Answers `GET /v1/upstream/dead`.
pub async fn dead(upstream: &Upstream, limits: &LimitsConfig, query: Option<&str>) -> Result<Answer, Refusal> {
    let mut pairs = Pairs::of_query(query)?;
    let most = u32::try_from(limits.page_max).unwrap_or(u32::MAX);
    let limit = pairs.take_number("limit", 1, most)?.map_or(limits.page, |limit| limit as usize);
    let cursor = pairs.take("cursor");
    let sinks = chosen(upstream, pairs.take("sink"))?;
    pairs.finish()?;
    let (name, mut after) = match cursor {
        Some(cursor) => place(&cursor)?,
        None => (sinks.first().map_or_else(String::new, |sink| sink.config.name.clone()), 0),
    };
    let (mut letters, mut bytes) = (Vec::new(), 0);
    for sink in sinks.iter().skip_while(|sink| sink.config.name != name) {
        for dead in sink.dead(after, limit + 1 - letters.len()).await.map_err(|_| Refusal::SpoolFailed)? {
            if letters.len() == limit || (bytes > PAGE_BYTES && !letters.is_empty()) {
                let cursor = Some(cursor::encode(&format!("{}:{after}", sink.config.name)));
                return Ok(json(StatusCode::OK, &DeadLetters { dead: letters, cursor }));
            }
            after = dead.message.number;
            bytes += dead.message.line.len();
            letters.push(letter(sink, &dead));
        }
        after = 0;
    }
    Ok(json(StatusCode::OK, &DeadLetters { dead: letters, cursor: None }))
}

fn place(cursor: &str) -> Result<(String, u64), Refusal> {
    let text = cursor::decode(cursor)?;
    let place = text.rsplit_once(':').and_then(|(name, after)| Some((name.to_owned(), after.parse().ok()?)));
    place.ok_or(Refusal::BadParameter { name: "cursor", expected: "the cursor of the page before".into() })
}

fn letter(sink: &Sink, dead: &Dead) -> DeadLetter {
    let message = tidegate_protocol::json::from_slice(&dead.message.line).unwrap_or_else(|_| RawValue::NULL.to_owned());
    DeadLetter {
        sink: sink.config.name.clone(),
        reason: dead.reason.clone(),
        attempts: dead.attempts,
        taken_ms: dead.message.taken_ms,
        died_ms: dead.died_ms,
        message,
    }
}

/// Answers `POST /v1/upstream/dead/retry` and `DELETE /v1/upstream/dead`.
pub async fn tend(upstream: &Upstream, query: Option<&str>, deed: Deed) -> Result<Answer, Refusal> {
    let mut pairs = Pairs::of_query(query)?;
    let which = match pairs.take("id") {
        None => Which::All,
        Some(id) if id.chars().count() <= ID_CHARACTERS_MAX => Which::Id(id),
        Some(_) => {
            let expected = format!("at most {ID_CHARACTERS_MAX} characters");
            return Err(Refusal::BadParameter { name: "id", expected });
        }
    };
    let sinks = chosen(upstream, pairs.take("sink"))?;
    pairs.finish()?;
    let mut tended = Tended { done: 0, left: 0 };
    for sink in &sinks {
        tended.done += sink.tend(&which, deed).await.map_err(|_| Refusal::SpoolFailed)?;
        tended.left += sink.standing().books.dead.messages;
    }
    Ok(json(StatusCode::OK, &tended))
}

fn chosen(upstream: &Upstream, name: Option<String>) -> Result<Vec<Arc<Sink>>, Refusal> {
    let sinks = upstream.sinks();
    let Some(name) = name else { return Ok(sinks.to_vec()) };
    let found: Vec<Arc<Sink>> = sinks.iter().filter(|sink| sink.config.name == name).cloned().collect();
    if found.is_empty() {
        return Err(Refusal::NoSuchSink);
    }
    Ok(found)
}
