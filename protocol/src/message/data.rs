//! The `data` of each request, as serde reads it and as `schema` describes it to those who write clients.
//! Only shapes: what exactly one of several members must be is checked above, and said by `schema`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::json::present;

/// One room, or several.
#[derive(Deserialize, ToSchema)]
#[schema(as = JoinData)]
pub(crate) struct RoomsData<'a> {
    /// The room.
    #[serde(borrow, default)]
    pub room: Option<Cow<'a, str>>,
    /// The rooms.
    #[serde(borrow, default)]
    pub rooms: Option<Vec<Cow<'a, str>>>,
}

/// Which room.
#[derive(Deserialize, ToSchema)]
pub(crate) struct RoomData<'a> {
    /// Its name.
    #[serde(borrow)]
    pub room: Cow<'a, str>,
}

/// Who this is.
#[derive(Deserialize, ToSchema)]
pub(crate) struct TokenData<'a> {
    /// A JSON Web Token.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
}

/// A message for others, or for a business service.
#[derive(Deserialize, ToSchema)]
pub(crate) struct SendData<'a> {
    /// For whom.
    #[serde(borrow, default)]
    pub to: Option<ToData<'a>>,
    /// For the service that listens to this route.
    #[serde(borrow, default)]
    pub route: Option<Cow<'a, str>>,
    /// Any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Value, required = true)]
    pub data: Option<&'a RawValue>,
    /// The sender's mark against repeats: 1 to 64 bytes.
    #[serde(borrow, default)]
    pub nonce: Option<Cow<'a, str>>,
    /// `false`: this connection does not get it, where it is one of the audience.
    #[serde(default)]
    pub echo: Option<bool>,
}

/// Whom a message is for: one of the three.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ToData<'a> {
    /// The members of a room.
    #[serde(borrow, default)]
    pub room: Option<Cow<'a, str>>,
    /// The connections of a user.
    #[serde(borrow, default)]
    pub user: Option<Cow<'a, str>>,
    /// One connection, by its id.
    #[serde(borrow, default)]
    pub connection: Option<Cow<'a, str>>,
}

/// An agent's answer to a COMMAND: one of the two.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ReplyData<'a> {
    /// What came of it: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Value, required = false)]
    pub data: Option<&'a RawValue>,
    /// What went wrong: any JSON value.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Value, required = false)]
    pub error: Option<&'a RawValue>,
}

/// Which page of whose members.
#[derive(Deserialize, ToSchema)]
pub(crate) struct MembersData<'a> {
    /// The room.
    #[serde(borrow)]
    pub room: Cow<'a, str>,
    /// From the page before.
    #[serde(borrow, default)]
    pub cursor: Option<Cow<'a, str>>,
    /// Most rows.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub limit: Option<u32>,
}
