//! What becomes of a client whose request head has arrived: refused by name, or made a connection.
//! Decides only; accepting, waiting and deadlines are the acceptor's.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use tidegate_protocol::handshake::{self, Parsed, Policy, Refusal, Upgrade};

use super::awaiting_hook::AwaitingHook;
use super::front::Front;
use super::proxy_header::{ProxyHeader, Stranger, cause};
use super::unauthenticated::Unauthenticated;
use super::{Acceptor, RETRY_AFTER_S};
use crate::accept::hook;
use crate::connection::open::Entrant;
use crate::session::address::peer_of;
use crate::session::auth::TokenError;
use crate::session::{Identity, platform_of};

/// Where `user_id` names the user, for the dialect of bare messages.
const CHAT: &str = "/chat";

impl Acceptor {
    /// Decides over what has come so far: gives the stranger back when its head is unfinished.
    pub(super) fn consider(
        &mut self,
        front: &Front,
        mut stranger: Stranger,
        input: &[u8],
        is_parked: bool,
    ) -> Option<Stranger> {
        let (address, head) = match front.rules.proxies.read_header(&stranger, input) {
            Ok(ProxyHeader::Over { address, bytes }) => (address, &input[bytes..]),
            Ok(ProxyHeader::Incomplete) => return Some(stranger),
            Err(refusal) => {
                self.refuse(front, &stranger.fd, refusal);
                return None;
            }
        };
        let policy = Policy {
            paths: if front.rules.takes_user_data { &["/ws", "/connect", CHAT] } else { &["/ws", "/connect"] },
            origins: &front.rules.origins,
            head_bytes_max: front.rules.handshake.head_bytes,
            deflate: front.rules.deflate.level > 0,
        };
        match handshake::parse(head, &policy) {
            Ok(Parsed::Incomplete) => return Some(stranger),
            Ok(Parsed::Upgrade(upgrade, used)) => {
                stranger.address = address.map(|address| front.rules.proxies.client(&head[..used], address));
                if let Err((fd, refusal)) = self.admit(front, stranger, &upgrade, head.split_at(used), is_parked) {
                    self.refuse_head(front, &fd, head, refusal);
                }
            }
            Err(refusal) => self.refuse_head(front, &stranger.fd, head, cause(head, refusal)),
        }
        None
    }

    fn admit(
        &mut self,
        front: &Front,
        stranger: Stranger,
        upgrade: &Upgrade<'_>,
        (head, early): (&[u8], &[u8]),
        is_parked: bool,
    ) -> Result<(), (OwnedFd, Refusal)> {
        let Stranger { fd, address } = stranger;
        if !front.lifecycle.is_accepting() {
            return Err((fd, Refusal::Draining { retry_after_s: RETRY_AFTER_S }));
        }
        let newcomer = match newcomer(front, upgrade) {
            Ok(newcomer) => newcomer,
            Err(refusal) => return Err((fd, refusal)),
        };
        if is_parked {
            // This set must let go of the socket before a bucket's takes it.
            let _ = epoll::delete(&self.epoll, fd.as_fd());
        }
        self.response.clear();
        handshake::accept_response(upgrade, &mut self.response);
        // An address that the socket itself tells is not kept a second time.
        let address = address.filter(|address| peer_of(&fd) != Some(*address)).map(Box::new);
        let is_asked = front.rules.hook_required || front.uplink.wants.asks();
        let connect = is_asked.then(|| hook::question(upgrade, head, &front.uplink.wants.headers()));
        match newcomer {
            Newcomer::Known(mut identity) => {
                identity.address = address;
                let Some(connect) = connect else {
                    let entrant = Entrant { fd, identity, deflate: upgrade.deflate, early };
                    return front.opener.open(entrant, &mut self.response);
                };
                self.ask_about(front, fd, AwaitingHook::new(identity, upgrade.deflate, &self.response, early), connect);
                Ok(())
            }
            Newcomer::Unauthenticated(said) => {
                self.await_auth(front, fd, Unauthenticated::new(upgrade.deflate, said, address, connect), early)
            }
        }
    }
}

/// What a request says of who sends it.
enum Newcomer {
    Known(Identity),
    /// It will have to send AUTH.
    Unauthenticated(Option<Box<str>>),
}

fn newcomer(front: &Front, upgrade: &Upgrade<'_>) -> Result<Newcomer, Refusal> {
    if !front.access.auth.is_required() {
        let user = if upgrade.path == CHAT { "user_id" } else { "user" };
        return Identity::claimed(upgrade.query, user, &front.access.open, &front.access.platforms)
            .map(Newcomer::Known);
    }
    let said = platform_of(upgrade.query)?;
    let Some(token) = token(front, upgrade)? else {
        return Ok(Newcomer::Unauthenticated(said.map(|name| name.as_ref().into())));
    };
    let claims = front.access.auth.verify(&token).map_err(TokenError::refusal)?;
    let identity = Identity::proven(claims, said.as_deref(), &front.access.platforms, &front.access.claims);
    identity.map(Newcomer::Known).map_err(TokenError::refusal)
}

/// The token that came with a request, if any.
fn token<'a>(front: &Front, upgrade: &Upgrade<'a>) -> Result<Option<Cow<'a, str>>, Refusal> {
    let malformed = |what| front.access.auth.refuse(TokenError::Malformed(what)).refusal();
    let in_header = match upgrade.authorization.map(|value| value.split_once(' ').unwrap_or((value, ""))) {
        None => None,
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(Cow::Borrowed(token.trim())),
        Some(_) => return Err(malformed("Authorization must be Bearer and the token")),
    };
    if handshake::query_has_duplicates(upgrade.query, "token") {
        return Err(malformed("?token= stands there more than once"));
    }
    let in_query = handshake::query_value(upgrade.query, "token")?.filter(|token| !token.is_empty());
    match (in_header, in_query) {
        (Some(_), Some(_)) => Err(malformed("it came both in Authorization and in the query; send one")),
        (None, Some(_)) if !front.rules.takes_query_token => Err(malformed(
            "none is taken from the query here; send Authorization: Bearer, or AUTH as the first message",
        )),
        (in_header, in_query) => Ok(in_header.or(in_query)),
    }
}
