//! `DELETE` of connections: tells gateways to close, with a code and reason for the client.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tidegate_protocol::close::CloseReason;
use tidegate_protocol::ids::ConnectionId;
use tidegate_protocol::limits::CONTROL_BYTES_MAX;
use tidegate_protocol::records::{CommandReply, CommandRequest};
use utoipa::ToSchema;

use super::query::Pairs;
use super::response::{Answer, json};
use crate::fleet::interest::GatewaySet;
use crate::fleet::{self, Failure, Fleet, holders};
use crate::problem::Refusal;
use crate::push::receipt::{Failed, Gateways};

/// What became of a close.
#[derive(Serialize, ToSchema)]
pub struct Closed {
    /// Connections that were closed.
    closed: u64,
    /// Which gateways were told.
    gateways: Gateways,
}

/// `DELETE /v1/connections/{id}`.
pub async fn close_connection(fleet: &Fleet, id: &str, query: Option<&str>) -> Result<Answer, Refusal> {
    let id: ConnectionId = id.parse().map_err(|_| Refusal::NoSuchConnection)?;
    let request = CommandRequest { close_connections: vec![Bytes::copy_from_slice(&id.to_bytes())], ..command(query)? };
    let set = holders(id, &fleet.roster().identities());
    let closed = closed(tell(fleet, set, &request).await?);
    if closed.closed == 0 && closed.gateways.failed.is_empty() {
        return Err(Refusal::NoSuchConnection);
    }
    Ok(json(StatusCode::OK, &closed))
}

/// `DELETE /v1/users/{user}/connections`.
pub async fn close_user(fleet: &Fleet, user: String, query: Option<&str>) -> Result<Answer, Refusal> {
    let set = fleet.interest().view().user(&user);
    let request = CommandRequest { close_user: user, ..command(query)? };
    Ok(json(StatusCode::OK, &closed(tell(fleet, set, &request).await?)))
}

fn closed((reply, gateways): (CommandReply, Gateways)) -> Closed {
    Closed { closed: reply.closed, gateways }
}

/// `?code=&reason=`.
fn command(query: Option<&str>) -> Result<CommandRequest, Refusal> {
    let mut pairs = Pairs::of_query(query)?;
    let code = pairs.take_number("code", 3_000, 4_999)?.unwrap_or_else(|| CloseReason::Kicked.code().into());
    let reason = pairs.take("reason").unwrap_or_else(|| CloseReason::Kicked.text(None));
    pairs.finish()?;
    // Two bytes of a close frame are its code (RFC 6455 section 5.5.1).
    let max = CONTROL_BYTES_MAX - 2;
    if reason.len() > max {
        return Err(Refusal::BadParameter { name: "reason", expected: format!("at most {max} bytes") });
    }
    Ok(CommandRequest { code, reason, ..CommandRequest::default() })
}

/// Tells several gateways; an error when all of them were needed and none could be told.
pub async fn tell(
    fleet: &Fleet,
    set: GatewaySet,
    request: &CommandRequest,
) -> Result<(CommandReply, Gateways), Refusal> {
    let told = fleet.tell(set, request).await;
    if told.sent == 0 && !told.failed.is_empty() {
        return Err(fleet::untaken(&told.failed));
    }
    Ok((told.reply, gateways(told.sent, told.failed)))
}

/// Which gateways were told.
pub fn gateways(sent: usize, failed: Vec<(String, Failure)>) -> Gateways {
    let failed = failed.into_iter().map(|(gateway, why)| Failed { gateway, reason: why.label() }).collect();
    Gateways { sent, failed }
}
