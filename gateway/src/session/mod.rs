//! Who a connection is. An [`Identity`] can only come from the handshake or from AUTH, so holding one proves the checks were
//! made: a client named itself (`auth.mode = "none"`), or a verified token named it (rule C-4).
//! What is kept of it for the connection's life beside user and platform is its [`HeldClaims`].

pub(crate) mod address;
mod attributes;
pub mod auth;
pub(crate) mod blocklist;
mod by_hook;
mod grant;
mod held;
mod interner;
mod open;
mod platforms;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_protocol::handshake::{self, Refusal};
use tidegate_protocol::limits;

pub use attributes::{Attributes, BYTES_MAX as ATTRIBUTE_BYTES_MAX, PAIRS_MAX as ATTRIBUTES_MAX};
pub use by_hook::ByHook;
pub use grant::{Act, Grant, matches};
pub use held::{ClaimsPool, HeldClaims};
pub use open::{Open, is_exposed};
pub use platforms::{Named, Platform, Platforms};

use crate::session::auth::{Auth, Claims, TokenError};
use crate::session::blocklist::Blocklist;

/// What decides who may come in, and what it may do.
#[derive(Debug)]
pub(crate) struct Access {
    /// Whether clients are who they say.
    pub auth: Auth,
    /// What clients may do that need to prove nothing.
    pub open: Open,
    /// Names of platforms, and how many connections each has.
    pub platforms: Platforms,
    /// What tokens say, shared where it is alike.
    pub claims: ClaimsPool,
    /// Users who are not to be let in, or not into a room.
    pub blocklist: Blocklist,
}

/// Who is connecting, checked.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user, when named.
    pub user: Option<Arc<str>>,
    /// The platform.
    pub platform: Named,
    /// What a token says beyond that.
    pub claims: Option<Box<HeldClaims>>,
    /// Rooms it is in from the start.
    pub join: Vec<Box<str>>,
    /// The client's address, where the socket's peer is another's.
    pub address: Option<Box<SocketAddr>>,
}

const USER: &str = "user must be 1 to 128 bytes of UTF-8 without control characters, given once";
const PLATFORM: &str = "platform must be 1 to 32 of a-z, 0-9, _ and -, given once";
const CROWDED: &str = "this gateway has as many different platforms as it can; send one that all know (web, ios, android, desktop, \
                       device, server, tv, watch, bot, agent) or that gateway.devices.platforms lists";

impl Identity {
    /// The identity a client claims in its query, where `user` is the name of that parameter; anyone may claim any while
    /// there is no authentication, if its word is enough.
    ///
    /// # Errors
    /// `BadQuery` names the parameter that cannot be a user or platform; `NameNotTaken`.
    pub fn claimed(query: &str, user: &str, open: &Open, platforms: &Platforms) -> Result<Self, Refusal> {
        let user = match parameter(query, user, USER)? {
            None => None,
            Some(_) if !open.takes_names() => return Err(Refusal::NameNotTaken),
            Some(user) if limits::is_valid_name(&user) => Some(Arc::from(user.as_ref())),
            Some(_) => return Err(Refusal::BadQuery { what: USER }),
        };
        let platform = match platform_of(query)? {
            None => Named::default(),
            Some(name) => platforms.intern(&name).ok_or(Refusal::BadQuery { what: CROWDED })?,
        };
        Ok(Self { user, platform, claims: None, join: Vec::new(), address: None })
    }

    /// The identity that a verified token gives. `said` is the platform by the client's own word, for tokens that say nothing;
    /// it takes a place among the names only now.
    ///
    /// # Errors
    /// [`TokenError::Claims`] when this gateway has no room for another platform.
    pub fn proven(
        claims: Claims,
        said: Option<&str>,
        platforms: &Platforms,
        pool: &ClaimsPool,
    ) -> Result<Self, TokenError> {
        let platform = match claims.platform.as_deref().or(said) {
            None => Named::default(),
            Some(name) => platforms.intern(name).ok_or(TokenError::Claims("plat is one of too many different ones"))?,
        };
        let held = pool.make(claims.device, claims.attributes, claims.grant, claims.expires_s);
        Ok(Self {
            user: Some(claims.user.into()),
            platform,
            claims: Some(Box::new(held)),
            join: claims.join,
            address: None,
        })
    }
}

/// The platform that a client says it is.
///
/// # Errors
/// `BadQuery` when it cannot be one.
pub fn platform_of(query: &str) -> Result<Option<Cow<'_, str>>, Refusal> {
    let name = parameter(query, "platform", PLATFORM)?;
    if name.as_deref().is_some_and(|name| !limits::is_valid_platform(name)) {
        return Err(Refusal::BadQuery { what: PLATFORM });
    }
    Ok(name)
}

/// A parameter that stands there once and is not empty.
fn parameter<'q>(query: &'q str, name: &str, what: &'static str) -> Result<Option<Cow<'q, str>>, Refusal> {
    if query.is_empty() {
        return Ok(None);
    }
    if handshake::query_has_duplicates(query, name) {
        return Err(Refusal::BadQuery { what });
    }
    Ok(handshake::query_value(query, name)?.filter(|value| !value.is_empty()))
}
