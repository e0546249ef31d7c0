//! `GET /v1/agents`, and `GET /agents` with the same as plain text for a browser: the connections of the agents' platform.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::StatusCode;
use serde::Serialize;
use tidegate_protocol::records::{QueryKind, QueryRequest};
use utoipa::ToSchema;

use super::lists::{self, Connection};
use super::query::Pairs;
use super::response::{Answer, json, with_type};
use crate::clock::unix_ms;
use crate::config::{AgentsConfig, LimitsConfig};
use crate::fleet::Fleet;
use crate::fleet::cursor::Place;
use crate::problem::Refusal;

/// Agents that the plain text shows; `/v1/agents` has them all, in pages.
const TEXT_MAX: usize = 1_000;

/// An agent as lists show it.
#[derive(Serialize, ToSchema)]
pub struct Agent {
    /// Its connection's id.
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    user: String,
    address: String,
    /// Since when it is connected, Unix milliseconds.
    since_ms: u64,
    gateway: String,
    /// Attributes of its token.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    attributes: BTreeMap<String, String>,
}

/// A page of agents.
#[derive(Serialize, ToSchema)]
pub struct Agents {
    agents: Vec<Agent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// Gateways that did not answer.
    missing: Vec<String>,
}

/// `GET /v1/agents?cursor=&limit=`.
pub async fn list(
    fleet: &Fleet,
    config: &AgentsConfig,
    limits: &LimitsConfig,
    query: Option<&str>,
) -> Result<Answer, Refusal> {
    let mut pairs = Pairs::of_query(query)?;
    let place = pairs.take("cursor").map_or(Ok(Place::default()), |c| Place::decode(&c))?;
    let limit = lists::limit(limits, &mut pairs)?;
    pairs.finish()?;
    Ok(json(StatusCode::OK, &page(fleet, of_all(config), place, limit).await))
}

/// `GET /agents`, `GET /agents?id=`: of one, by its connection's id or its user.
pub async fn text(fleet: &Fleet, config: &AgentsConfig, query: Option<&str>) -> Result<Answer, Refusal> {
    let mut pairs = Pairs::of_query(query)?;
    let id = pairs.take_name("id")?;
    pairs.finish()?;
    let mut text = String::new();
    match id {
        None => {
            let page = page(fleet, of_all(config), Place::default(), TEXT_MAX).await;
            let _ = writeln!(text, "# id                       user                 address               since");
            for a in &page.agents {
                let _ = writeln!(text, "{} {:20} {:21} {}", a.id, or_dash(&a.user), a.address, utc(a.since_ms));
            }
            if page.cursor.is_some() {
                let _ = writeln!(text, "# there are more: GET /v1/agents has them in pages");
            }
            page.missing.iter().for_each(|gateway| {
                let _ = writeln!(text, "# gateway {gateway} did not answer");
            });
        }
        Some(id) => {
            let agents = one(fleet, config, &id).await?;
            for a in &agents {
                let _ = writeln!(text, "id       {}", a.id);
                let _ = writeln!(text, "user     {}", or_dash(&a.user));
                let _ = writeln!(text, "address  {}", a.address);
                let _ = writeln!(text, "since    {}", utc(a.since_ms));
                let _ = writeln!(text, "gateway  {}", a.gateway);
                a.attributes.iter().for_each(|(name, value)| {
                    let _ = writeln!(text, "         {name}={value}");
                });
                text.push('\n');
            }
        }
    }
    Ok(with_type(StatusCode::OK, "text/plain; charset=utf-8", text))
}

/// The agents of a user, or the one with a connection id.
async fn one(fleet: &Fleet, config: &AgentsConfig, id: &str) -> Result<Vec<Agent>, Refusal> {
    let of_user =
        page(fleet, QueryRequest { user: id.to_owned(), ..of_all(config) }, Place::default(), TEXT_MAX).await.agents;
    if !of_user.is_empty() {
        return Ok(of_user);
    }
    let found = lists::find_connection(fleet, id).await.map_err(|refusal| match refusal {
        Refusal::NoSuchConnection => Refusal::NoSuchAgent,
        other => other,
    })?;
    if found.platform != config.platform {
        return Err(Refusal::NoSuchAgent);
    }
    Ok(vec![agent(found, unix_ms())])
}

/// Asks for all agents.
fn of_all(config: &AgentsConfig) -> QueryRequest {
    let platform = config.platform.clone();
    QueryRequest { kind: QueryKind::Connections.into(), platform, ..QueryRequest::default() }
}

async fn page(fleet: &Fleet, request: QueryRequest, place: Place, limit: usize) -> Agents {
    let found = lists::walk(fleet, request, place, limit).await;
    let now = unix_ms();
    let agents = found.connections.into_iter().map(|c| agent(c, now)).collect();
    Agents { agents, cursor: found.cursor, missing: found.missing }
}

fn agent(c: Connection, now_ms: u64) -> Agent {
    // A gateway of an older version does not say since when.
    let since_ms = if c.since_ms == 0 { now_ms.saturating_sub(c.age_ms) } else { c.since_ms };
    Agent { id: c.id, user: c.user, address: c.address, since_ms, gateway: c.gateway, attributes: c.attributes }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// `2026-11-25 23:05:10Z`, by Howard Hinnant's civil-from-days.
fn utc(ms: u64) -> String {
    let (days, second) = (ms / 86_400_000, ms / 1_000 % 86_400);
    // Days since 0000-03-01, so that a leap day ends its year.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}Z")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn a_moment_reads_as_its_date() {
        assert_eq!(utc(0), "1970-01-01 00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(utc(1_795_258_206_694), "2026-11-21 10:50:06Z");
        assert_eq!(utc(4_107_542_399_999), "2100-02-28 23:59:59Z");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01 00:00:00Z");
    }
}
