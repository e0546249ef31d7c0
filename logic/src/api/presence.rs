//! Who is here: the fleet's counts, many users at once, a user's rooms. Counts and whether a user is online are answered from
//! what gateways have told, so they cost no gateway anything.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use serde::Serialize;
use tidegate_protocol::limits::is_valid_name;
use tidegate_protocol::records::{GatewayInfo, QueryKind, QueryRequest};
use utoipa::ToSchema;

use super::body::{Unread, must_be_json};
use super::lists;
use super::response::{Answer, json};
use crate::config::LimitsConfig;
use crate::fleet::{Fleet, LinkState};
use crate::json::{self as syntax, Object};
use crate::problem::Refusal;

/// Users of one question.
pub const USERS_MAX: usize = 1_000;

/// The fleet's counts.
#[derive(Serialize, ToSchema)]
pub struct Presence {
    /// Open connections.
    online: u64,
    /// Different users among them.
    users: u64,
    /// Rooms with members.
    rooms: u64,
    /// Connections by platform; those without one are left out.
    platforms: BTreeMap<String, u64>,
    gateways: Vec<PresencePart>,
    /// Gateways that are not linked: they are not in the sums.
    missing: Vec<String>,
}

/// One gateway's counts.
#[derive(Serialize, ToSchema)]
struct PresencePart {
    gateway: String,
    online: u64,
    users: u64,
    rooms: u64,
    platforms: BTreeMap<String, u64>,
}

/// One of the users asked about.
#[derive(Serialize, ToSchema)]
struct Found {
    user: String,
    online: bool,
    /// Of one who is not: when they were last seen, Unix milliseconds, if that is remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ms: Option<u64>,
}

/// The users asked about, in their order.
#[derive(Serialize, ToSchema)]
pub struct FoundUsers {
    users: Vec<Found>,
    /// Gateways of which it is not known whom they have.
    missing: Vec<String>,
}

/// A user's rooms.
#[derive(Serialize, ToSchema)]
pub struct UserRooms {
    user: String,
    rooms: Vec<UserRoom>,
    /// Whether the user has more connections than were looked at.
    is_cut: bool,
    missing: Vec<String>,
}

/// One of a user's rooms.
#[derive(Serialize, ToSchema)]
struct UserRoom {
    room: String,
    /// How many of the user's connections are in it.
    connections: u64,
}

/// `GET /v1/presence`.
pub fn presence(fleet: &Fleet) -> Answer {
    let (rooms, users) = fleet.interest().sizes();
    let mut sum = Presence {
        online: 0,
        users: users as u64,
        rooms: rooms as u64,
        platforms: BTreeMap::new(),
        gateways: Vec::new(),
        missing: Vec::new(),
    };
    for link in fleet.roster().iter() {
        let info = (link.state() == LinkState::Up).then(|| link.account().1).flatten();
        let Some(GatewayInfo { connections, users, rooms, platforms, .. }) = info else {
            sum.missing.push(link.name.clone());
            continue;
        };
        let platforms: BTreeMap<String, u64> = platforms.into_iter().map(|p| (p.name, p.connections)).collect();
        sum.online += connections;
        for (name, n) in &platforms {
            *sum.platforms.entry(name.clone()).or_default() += n;
        }
        sum.gateways.push(PresencePart { gateway: link.name.clone(), online: connections, users, rooms, platforms });
    }
    json(StatusCode::OK, &sum)
}

/// `POST /v1/users/query`.
pub async fn users(fleet: &Fleet, headers: &http::HeaderMap, body: Unread) -> Result<Answer, Refusal> {
    must_be_json(headers)?;
    let depth = body.now.limits.json_depth;
    let body = body.read().await?;
    let names = read_names(&body.bytes, depth)?;
    let online: Vec<bool> = {
        let view = fleet.interest().view();
        names.iter().map(|name| view.has_user(name)).collect()
    };
    let roster = fleet.roster();
    let unknown = roster.iter().filter(|link| !fleet.interest().is_known(link.slot.index));
    let missing = unknown.map(|link| link.name.clone()).collect();
    let found = names.into_iter().zip(online).map(|(user, online)| {
        let last_seen_ms = if online { None } else { fleet.interest().last_seen_ms(&user) };
        Found { user, online, last_seen_ms }
    });
    Ok(json(StatusCode::OK, &FoundUsers { users: found.collect(), missing }))
}

fn read_names(body: &[u8], depth_max: usize) -> Result<Vec<String>, Refusal> {
    const NAME: &str = "a name of 1 to 128 bytes without control characters";
    let mut object = Object::read(syntax::text(body, depth_max)?, "")?;
    let Some(users) = object.take("users") else {
        object.only(&["users"])?;
        return Err(Refusal::MissingField { pointer: String::new(), name: "users" });
    };
    object.finish(&["users"])?;
    let Some(raws) = users.list(USERS_MAX, "a list of users")? else {
        return Err(Refusal::TooManyUsers { pointer: users.pointer.clone(), limit: USERS_MAX });
    };
    let read = |(i, raw)| {
        let at = || format!("{}/{i}", users.pointer);
        let name = syntax::text_of(raw, &at, NAME)?;
        if is_valid_name(&name) {
            Ok(name.into_owned())
        } else {
            Err(Refusal::BadValue { pointer: at(), expected: NAME.into() })
        }
    };
    raws.into_iter().enumerate().map(read).collect()
}

/// `GET /v1/users/{user}/rooms`.
pub async fn user_rooms(fleet: &Fleet, limits: &LimitsConfig, user: String) -> Answer {
    let set = fleet.interest().view().user(&user);
    let request = QueryRequest {
        kind: QueryKind::Connections.into(),
        user: user.clone(),
        limit: lists::page_max(limits),
        ..QueryRequest::default()
    };
    let (mut rooms, mut missing, mut is_cut): (BTreeMap<String, u64>, _, _) = (BTreeMap::new(), Vec::new(), false);
    for (link, reply) in fleet.ask(set, &request).await {
        let Ok(reply) = reply else {
            missing.push(link.name.clone());
            continue;
        };
        is_cut |= !reply.cursor.is_empty();
        for info in reply.connections {
            for room in info.rooms.into_iter().collect::<BTreeSet<_>>() {
                *rooms.entry(room).or_default() += 1;
            }
        }
    }
    let rooms = rooms.into_iter().map(|(room, connections)| UserRoom { room, connections }).collect();
    json(StatusCode::OK, &UserRooms { user, rooms, is_cut, missing })
}
