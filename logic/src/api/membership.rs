//! Orders about rooms and users: in and out of a room, a room closed, a user blocked. Gateways carry them out; the answer adds
//! up whom they met and names those that did not answer.

use http::StatusCode;
use serde::Serialize;
use tidegate_protocol::limits::{BLOCK_REASON_BYTES_MAX, BLOCKS_MAX, is_valid_name};
use tidegate_protocol::records::{Block, CommandReply, CommandRequest, Move};
use utoipa::ToSchema;

use super::body::{Unread, must_be_json};
use super::closing::{gateways, tell};
use super::lists;
use super::query::Pairs;
use super::response::{Answer, json};
use crate::blocklist::Blocklist;
use crate::clock::unix_ms;
use crate::config::LimitsConfig;
use crate::fleet::{Fleet, cursor};
use crate::json::{self as syntax, Object};
use crate::problem::Refusal;
use crate::push::receipt::Gateways;

/// Longest block: ten years, which is for ever and still a date.
pub const SECONDS_MAX: u32 = 315_360_000;

/// Whom an order met.
#[derive(Serialize, ToSchema)]
pub struct Moved {
    /// Connections that were put into the room, or taken out.
    moved: u64,
    /// Connections that were where they should be already.
    unmoved: u64,
    /// Connections that could not be put into it: they are in as many rooms as they may, or blocked from it.
    refused: u64,
    gateways: Gateways,
}

/// A block as it was set or lifted.
#[derive(Serialize, ToSchema)]
pub struct Blocked {
    user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    room: String,
    /// Until when it was or is to last, Unix milliseconds.
    until_ms: u64,
    /// Connections that were closed.
    closed: u64,
    /// Connections that were taken out of the room.
    moved: u64,
    gateways: Gateways,
}

/// A block in force.
#[derive(Serialize, ToSchema)]
struct BlockRow {
    user: String,
    /// The room; left out: everything.
    #[serde(skip_serializing_if = "String::is_empty")]
    room: String,
    /// Unix milliseconds.
    until_ms: u64,
    /// Unix milliseconds.
    since_ms: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// Blocks in force.
#[derive(Serialize, ToSchema)]
pub struct BlockList {
    blocks: Vec<BlockRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// `PUT` and `DELETE /v1/rooms/{room}/members/{user}`.
pub async fn move_user(fleet: &Fleet, room: String, user: String, is_in: bool) -> Result<Answer, Refusal> {
    let set = fleet.interest().view().user(&user);
    let step = Move { user, room, is_in, reason: "kicked".into() };
    let (reply, gateways) =
        tell(fleet, set, &CommandRequest { moves: vec![step], ..CommandRequest::default() }).await?;
    Ok(json(StatusCode::OK, &moved(reply, gateways)))
}

/// `DELETE /v1/rooms/{room}`.
pub async fn close_room(fleet: &Fleet, room: String) -> Result<Answer, Refusal> {
    let set = fleet.interest().view().room(&room);
    let (reply, gateways) = tell(fleet, set, &CommandRequest { close_room: room, ..CommandRequest::default() }).await?;
    Ok(json(StatusCode::OK, &moved(reply, gateways)))
}

fn moved(reply: CommandReply, gateways: Gateways) -> Moved {
    let CommandReply { moved, unmoved, refused, .. } = reply;
    Moved { moved, unmoved, refused, gateways }
}

/// `PUT /v1/users/{user}/block`.
pub async fn block(
    fleet: &Fleet,
    blocklist: &Blocklist,
    user: String,
    headers: &http::HeaderMap,
    body: Unread,
) -> Result<Answer, Refusal> {
    must_be_json(headers)?;
    let depth = body.now.limits.json_depth;
    let body = body.read().await?;
    let Wish { seconds, room, reason } = read_block(&body.bytes, depth)?;
    let set_ms = unix_ms();
    let until_ms = set_ms + u64::from(seconds) * 1_000;
    let set = blocklist.set(Block { user, room, until_ms, set_ms, reason, is_lifted: false });
    let block = set.map_err(|_| Refusal::Overloaded { what: "blocks of users", limit: BLOCKS_MAX })?;
    told(fleet, block).await
}

/// `DELETE /v1/users/{user}/block`.
pub async fn unblock(
    fleet: &Fleet,
    blocklist: &Blocklist,
    user: String,
    query: Option<&str>,
) -> Result<Answer, Refusal> {
    let mut pairs = Pairs::of_query(query)?;
    let room = pairs.take_name("room")?.unwrap_or_default();
    pairs.finish()?;
    match blocklist.lift(&user, &room, unix_ms()) {
        Some(block) => told(fleet, block).await,
        None => {
            let gateways = Gateways::default();
            Ok(json(StatusCode::OK, &Blocked { user, room, until_ms: 0, closed: 0, moved: 0, gateways }))
        }
    }
}

/// It counts from here on, whoever hears it now: a gateway that does not is told as soon as it is linked.
async fn told(fleet: &Fleet, block: Block) -> Result<Answer, Refusal> {
    let Block { user, room, until_ms, .. } = block.clone();
    let order = CommandRequest { blocks: vec![block], ..CommandRequest::default() };
    let told = fleet.tell(fleet.roster().set(), &order).await;
    let CommandReply { closed, moved, .. } = told.reply;
    let gateways = gateways(told.sent, told.failed);
    Ok(json(StatusCode::OK, &Blocked { user, room, until_ms, closed, moved, gateways }))
}

/// `GET /v1/users/{user}/block`.
pub fn blocks_of(blocklist: &Blocklist, user: &str) -> Answer {
    let blocks = blocklist.of(user, unix_ms()).into_iter().map(row).collect();
    json(StatusCode::OK, &BlockList { blocks, cursor: None })
}

/// `GET /v1/blocks`.
pub fn blocks(blocklist: &Blocklist, limits: &LimitsConfig, query: Option<&str>) -> Result<Answer, Refusal> {
    let mut pairs = Pairs::of_query(query)?;
    let limit = lists::limit(limits, &mut pairs)?;
    let after = pairs.take("cursor").map_or(Ok(String::new()), |c| cursor::decode(&c))?;
    pairs.finish()?;
    let blocks = blocklist.list(&after, limit, unix_ms());
    // A user's blocks stay together, so a page may be a little longer than asked for.
    let cursor = if blocks.len() < limit { None } else { blocks.last().map(|b| cursor::encode(&b.user)) };
    Ok(json(StatusCode::OK, &BlockList { blocks: blocks.into_iter().map(row).collect(), cursor }))
}

fn row(block: Block) -> BlockRow {
    let Block { user, room, until_ms, set_ms, reason, .. } = block;
    BlockRow { user, room, until_ms, since_ms: set_ms, reason }
}

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    seconds: u32,
    room: String,
    reason: String,
}

fn read_block(body: &[u8], depth_max: usize) -> Result<Wish, Refusal> {
    const NAME: &str = "a name of 1 to 128 bytes without control characters";
    const SECONDS: &str = "a whole number of seconds, 1 to 315360000";
    const FIELDS: &[&str] = &["seconds", "room", "reason"];
    const REASON: &str = "a string of at most 256 bytes";
    let mut object = Object::read(syntax::text(body, depth_max)?, "")?;
    let Some(seconds) = object.take("seconds") else {
        object.only(FIELDS)?;
        return Err(Refusal::MissingField { pointer: String::new(), name: "seconds" });
    };
    let mut wish = Wish { seconds: seconds.number(SECONDS)?, ..Wish::default() };
    if !(1..=SECONDS_MAX).contains(&wish.seconds) {
        return Err(Refusal::BadValue { pointer: seconds.pointer, expected: SECONDS.into() });
    }
    if let Some(room) = object.take("room") {
        wish.room = room.string(NAME)?.into_owned();
        if !is_valid_name(&wish.room) {
            return Err(Refusal::BadValue { pointer: room.pointer, expected: NAME.into() });
        }
    }
    if let Some(reason) = object.take("reason") {
        wish.reason = reason.string(REASON)?.into_owned();
        if wish.reason.len() > BLOCK_REASON_BYTES_MAX {
            return Err(Refusal::BadValue { pointer: reason.pointer, expected: REASON.into() });
        }
    }
    object.finish(FIELDS)?;
    Ok(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_within_its_bounds() {
        let read = |text: &str| read_block(text.as_bytes(), 8).map_err(|refusal| refusal.rules().code);

        let whole = read(r#"{"seconds":60,"room":"r","reason":"spam"}"#);
        assert_eq!(whole, Ok(Wish { seconds: 60, room: "r".into(), reason: "spam".into() }));
        for (text, code) in [
            ("{}", "missing_field"),
            (r#"{"secs":1}"#, "unknown_field"),
            (r#"{"seconds":0}"#, "bad_value"),
            (r#"{"seconds":-1}"#, "wrong_type"),
            (r#"{"seconds":315360001}"#, "bad_value"),
            (r#"{"seconds":1,"room":""}"#, "bad_value"),
            (r#"{"seconds":1,"room":7}"#, "wrong_type"),
            (r#"{"seconds":1,"more":7}"#, "unknown_field"),
        ] {
            assert_eq!(read(text), Err(code), "{text}");
        }
    }
}
