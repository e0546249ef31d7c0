//! `GET` of connections, users and rooms: questions to the gateways, asked side by side where order does not matter.
//! A gateway that cannot answer is named in `missing`; the others' answers stand. Every list is paged.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::records::{self, ConnectionInfo, QueryKind, QueryRequest};
use utoipa::ToSchema;

use super::paging::{self, Page};
use super::query::Pairs;
use super::response::{Answer, json};
use crate::config::LimitsConfig;
use crate::fleet::cursor::{self, Place};
use crate::fleet::{self, Fleet, Link, Walked, holders};
use crate::problem::Refusal;

/// One connection as lists show it.
#[derive(Serialize, ToSchema)]
pub struct Connection {
    /// Its id, as HELLO told it.
    pub id: String,
    /// Backplane address of the gateway that holds it; `local` in one process.
    pub gateway: String,
    /// Absent: anonymous.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Absent: not told.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// The rooms it is in.
    rooms: Vec<String>,
    /// The client's address and port.
    pub address: String,
    /// Since it was opened.
    pub age_ms: u64,
    /// Since the last byte in or out.
    idle_ms: u64,
    /// What waits because the client reads slowly.
    pending_bytes: u64,
    /// When it was opened, Unix milliseconds.
    pub since_ms: u64,
    /// The device that its token names.
    #[serde(skip_serializing_if = "String::is_empty")]
    device: String,
    /// Attributes of its token.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// A page of connections.
#[derive(Serialize, ToSchema)]
pub struct Connections {
    /// In no order that means anything.
    pub connections: Vec<Connection>,
    /// For the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Gateways that did not answer.
    pub missing: Vec<String>,
}

/// One room as lists show it.
#[derive(Serialize, ToSchema)]
struct Room {
    /// Its name.
    room: String,
    /// Connections in it.
    online: u64,
}

/// A page of rooms.
#[derive(Serialize, ToSchema)]
pub struct Rooms {
    /// Ascending by name.
    rooms: Vec<Room>,
    /// For the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// Gateways that did not answer.
    missing: Vec<String>,
}

/// A room at one gateway.
#[derive(Serialize, ToSchema)]
struct RoomPart {
    /// Its backplane address.
    gateway: String,
    /// Connections in the room there.
    online: u64,
    /// Different users among them.
    users_online: u64,
    /// The life of the numbering of the room's messages there.
    epoch: String,
    /// The number of the last message there.
    seq: u64,
}

/// One room.
#[derive(Serialize, ToSchema)]
pub struct RoomDetail {
    /// Its name.
    room: String,
    /// Connections in it.
    online: u64,
    /// Different users, counted; one who is at two gateways counts at each.
    users_online: u64,
    /// Their names, as far as they were looked at.
    users: BTreeSet<String>,
    /// Whether there are more members than were looked at for `users`.
    is_users_cut: bool,
    /// The room at each gateway that has it.
    gateways: Vec<RoomPart>,
    /// Gateways that did not answer.
    missing: Vec<String>,
}

/// One user.
#[derive(Serialize, ToSchema)]
pub struct User {
    /// The name.
    user: String,
    /// Whether there is a connection.
    online: bool,
    /// Of one who is: since when, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
    /// Of one who is not: when they were last seen, Unix milliseconds, if that is remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_ms: Option<u64>,
    /// The connections.
    connections: Vec<Connection>,
    /// Connections on each platform.
    platforms: BTreeMap<String, u64>,
    /// Whether there are more connections than shown; `/v1/connections?user=` has them all.
    is_cut: bool,
    /// Gateways that did not answer.
    missing: Vec<String>,
}

/// `GET /v1/connections`, and `GET /v1/rooms/{room}/members` with the room from the path.
pub async fn connections(
    fleet: &Fleet,
    limits: &LimitsConfig,
    query: Option<&str>,
    room: Option<String>,
) -> Result<Answer, Refusal> {
    let mut pairs = Pairs::of_query(query)?;
    let place = pairs.take("cursor").map_or(Ok(Place::default()), |c| Place::decode(&c))?;
    let limit = limit(limits, &mut pairs)?;
    let mut request = QueryRequest { kind: QueryKind::Connections.into(), ..QueryRequest::default() };
    request.platform = pairs.take_platform()?.unwrap_or_default();
    request.user = pairs.take_name("user")?.unwrap_or_default();
    request.room = match room {
        Some(room) => room,
        None => pairs.take_name("room")?.unwrap_or_default(),
    };
    pairs.finish()?;
    Ok(json(StatusCode::OK, &walk(fleet, request, place, limit).await))
}

pub(super) async fn walk(fleet: &Fleet, request: QueryRequest, place: Place, limit: usize) -> Connections {
    let Walked { rows, cursor, missing } = fleet.walk(request, place, limit).await;
    Connections { connections: rows.into_iter().map(|(link, info)| connection(&link, info)).collect(), cursor, missing }
}

/// `GET /v1/connections/{id}`.
pub async fn one_connection(fleet: &Fleet, id: &str) -> Result<Answer, Refusal> {
    Ok(json(StatusCode::OK, &find_connection(fleet, id).await?))
}

/// The connection with an id.
pub(super) async fn find_connection(fleet: &Fleet, id: &str) -> Result<Connection, Refusal> {
    let id: ConnectionId = id.parse().map_err(|_| Refusal::NoSuchConnection)?;
    let set = holders(id, &fleet.roster().identities());
    let request = QueryRequest {
        kind: QueryKind::Connection.into(),
        connection: Bytes::copy_from_slice(&id.to_bytes()),
        limit: 1,
        ..QueryRequest::default()
    };
    let mut silent = Vec::new();
    for (link, reply) in fleet.ask(set, &request).await {
        match reply.map(|r| r.connections.into_iter().next()) {
            Ok(Some(info)) => return Ok(connection(&link, info)),
            Ok(None) => {}
            Err(failure) => silent.push((link.name.clone(), failure)),
        }
    }
    // Only who has heard "no" from everyone who could know may say so.
    Err(if silent.is_empty() { Refusal::NoSuchConnection } else { fleet::untaken(&silent) })
}

/// `GET /v1/users/{user}`.
pub async fn user(fleet: &Fleet, limits: &LimitsConfig, user: String) -> Answer {
    let set = fleet.interest().view().user(&user);
    let request = QueryRequest {
        kind: QueryKind::Connections.into(),
        user: user.clone(),
        limit: page_max(limits),
        ..QueryRequest::default()
    };
    let mut answer = User {
        user,
        online: false,
        since_ms: None,
        last_seen_ms: None,
        connections: Vec::new(),
        platforms: BTreeMap::new(),
        is_cut: false,
        missing: Vec::new(),
    };
    for (link, reply) in fleet.ask(set, &request).await {
        let Ok(reply) = reply else {
            answer.missing.push(link.name.clone());
            continue;
        };
        answer.is_cut |= !reply.cursor.is_empty();
        for info in reply.connections {
            if !info.platform.is_empty() {
                *answer.platforms.entry(info.platform.clone()).or_default() += 1;
            }
            answer.connections.push(connection(&link, info));
        }
    }
    answer.online = !answer.connections.is_empty();
    answer.since_ms = answer.connections.iter().map(|c| c.since_ms).filter(|ms| *ms > 0).min();
    if !answer.online {
        answer.last_seen_ms = fleet.interest().last_seen_ms(&answer.user);
    }
    json(StatusCode::OK, &answer)
}

/// `GET /v1/rooms`.
pub async fn rooms(fleet: &Fleet, limits: &LimitsConfig, query: Option<&str>) -> Result<Answer, Refusal> {
    let mut pairs = Pairs::of_query(query)?;
    let limit = limit(limits, &mut pairs)?;
    let after = pairs.take("cursor").map_or(Ok(String::new()), |c| cursor::decode(&c))?;
    let prefix = pairs.take_name("prefix")?.unwrap_or_default();
    pairs.finish()?;
    let request = QueryRequest {
        kind: QueryKind::Rooms.into(),
        prefix,
        cursor: after,
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
        ..QueryRequest::default()
    };
    let (mut pages, mut missing) = (Vec::new(), Vec::new());
    for (link, reply) in fleet.ask(fleet.roster().set(), &request).await {
        match reply {
            Ok(reply) => pages.push(Page {
                has_more: !reply.cursor.is_empty(),
                rows: reply.rooms.into_iter().map(|r| (r.name, r.online)).collect(),
            }),
            Err(_) => missing.push(link.name.clone()),
        }
    }
    let (rows, next) = paging::merge(pages, limit);
    let rooms = rows.into_iter().map(|(room, online)| Room { room, online }).collect();
    Ok(json(StatusCode::OK, &Rooms { rooms, cursor: next.map(|name| cursor::encode(&name)), missing }))
}

/// `GET /v1/rooms/{room}`.
pub async fn one_room(fleet: &Fleet, limits: &LimitsConfig, room: String) -> Answer {
    let set = fleet.interest().view().room(&room);
    let counts = QueryRequest { kind: QueryKind::Room.into(), room: room.clone(), limit: 1, ..QueryRequest::default() };
    let members = QueryRequest { kind: QueryKind::Connections.into(), limit: page_max(limits), ..counts.clone() };
    let mut answer = RoomDetail {
        room,
        online: 0,
        users_online: 0,
        users: BTreeSet::new(),
        is_users_cut: false,
        gateways: Vec::new(),
        missing: Vec::new(),
    };
    for (link, reply) in fleet.ask(set, &counts).await {
        let Ok(reply) = reply else {
            answer.missing.push(link.name.clone());
            continue;
        };
        for info in reply.rooms {
            answer.online += info.online;
            answer.users_online += info.users;
            let records::RoomInfo { online, users, seq, epoch, .. } = info;
            answer.gateways.push(RoomPart { gateway: link.name.clone(), online, users_online: users, epoch, seq });
        }
    }
    for (_, reply) in fleet.ask(set, &members).await {
        let Ok(reply) = reply else { continue };
        answer.is_users_cut |= !reply.cursor.is_empty();
        answer.users.extend(reply.connections.into_iter().map(|c| c.user).filter(|u| !u.is_empty()));
    }
    json(StatusCode::OK, &answer)
}

pub fn limit(limits: &LimitsConfig, pairs: &mut Pairs) -> Result<usize, Refusal> {
    let limit = pairs.take_number("limit", 1, page_max(limits))?;
    Ok(limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(limits.page))
}

pub fn page_max(limits: &LimitsConfig) -> u32 {
    u32::try_from(limits.page_max).unwrap_or(u32::MAX)
}

fn connection(link: &Link, info: ConnectionInfo) -> Connection {
    Connection {
        id: ConnectionId::from_slice(&info.id).unwrap_or_default().to_string(),
        gateway: link.name.clone(),
        user: info.user,
        platform: info.platform,
        rooms: info.rooms,
        address: info.address,
        age_ms: info.age_ms,
        idle_ms: info.idle_ms,
        pending_bytes: info.pending_bytes,
        since_ms: info.since_ms,
        device: info.device,
        attributes: info.attributes.into_iter().map(|pair| (pair.name, pair.value)).collect(),
    }
}
