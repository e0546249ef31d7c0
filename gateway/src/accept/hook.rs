//! The connect hook as the gateway sees it: what is asked about a stranger, and what an answer makes of it. Answers come back
//! through `uplink::mailbox`; the service itself is logic's to ask (docs/adr/0026).
//! Invariant: an answer that cannot be carried out whole lets nobody in.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tidegate_protocol::handshake::{Upgrade, header, without_token};
use tidegate_protocol::limits::is_valid_name;
use tidegate_protocol::records::{Connect, Grants, Pair, Sender, Verdict};

use crate::session::address;
use crate::session::{Access, Act, Attributes, ByHook, Grant, Identity};

/// Bytes of a fingerprint: enough that no two clients have the same.
const FINGERPRINT_BYTES: usize = 16;
/// Most rooms a connection is in from the start, those of its token included.
const JOIN_MAX: usize = 64;

/// What is asked about a request: where it leads and the headers that the hook wants, but no token.
pub(crate) fn question(upgrade: &Upgrade<'_>, head: &[u8], wanted: &[String]) -> Connect {
    let query = without_token(upgrade.query);
    let path = if query.is_empty() { upgrade.path.to_owned() } else { format!("{}?{query}", upgrade.path) };
    let pair = |name: &String| Some(Pair { name: name.clone(), value: header(head, name)?.to_owned() });
    let headers: Vec<Pair> = wanted.iter().filter_map(pair).collect();
    let origin = header(head, "origin").unwrap_or_default().to_owned();
    let mut hash = Sha256::new();
    let parts = [upgrade.path, upgrade.query, upgrade.authorization.unwrap_or_default(), &origin];
    for part in parts.into_iter().chain(headers.iter().flat_map(|pair| [pair.name.as_str(), &pair.value])) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let fingerprint = Bytes::copy_from_slice(&hash.finalize()[..FINGERPRINT_BYTES]);
    Connect { origin, path, headers, fingerprint }
}

/// A stranger, as those behind the gateway know it.
pub(crate) fn sender(fd: &OwnedFd, identity: &Identity) -> Sender {
    let claims = identity.claims.as_deref();
    let address = identity.address.as_deref().copied().or_else(|| address::peer_of(fd));
    let pair = |(name, value): (&str, &str)| Pair { name: name.into(), value: value.into() };
    Sender {
        connection: Bytes::new(),
        user: identity.user.as_deref().unwrap_or_default().to_owned(),
        platform: identity.platform.name().to_owned(),
        device: claims.and_then(|b| b.device.as_deref()).unwrap_or_default().to_owned(),
        address: address.map_or_else(String::new, |a| a.to_string()),
        attributes: claims.map_or_else(Vec::new, |b| b.attributes.iter().map(pair).collect()),
    }
}

/// Who a stranger is by the hook's word: its name wins, rights add to those of a token, attributes win over a token's. Where
/// no token is needed, a grant is all that the stranger may do, and without one it may do what all strangers may.
///
/// # Errors
/// What of the verdict cannot be carried out.
pub(crate) fn apply(access: &Access, mut identity: Identity, verdict: Verdict) -> Result<Identity, &'static str> {
    let mut sub = None;
    if !verdict.user.is_empty() {
        if !is_valid_name(&verdict.user) {
            return Err("its user is no name");
        }
        let before = identity.user.replace(Arc::from(verdict.user));
        sub = before.filter(|before| Some(before) != identity.user.as_ref()).map(|before| Box::from(&*before));
    }
    if identity.join.len() + verdict.join.len() > JOIN_MAX || !verdict.join.iter().all(|room| is_valid_name(room)) {
        return Err("it joins too many rooms, or one whose name is none");
    }
    identity.join.extend(verdict.join.into_iter().map(String::into_boxed_str));
    let is_silent = verdict.grant.is_none() && verdict.attributes.is_empty();
    if is_silent && (sub.is_none() || identity.claims.is_none()) {
        return Ok(identity);
    }
    let pairs: Vec<(&str, &str)> = verdict.attributes.iter().map(|p| (p.name.as_str(), p.value.as_str())).collect();
    let attributes = Attributes::of(&pairs).ok_or("its attributes are too many, or not plain text")?;
    let grant = verdict.grant.map(|more| granted(&more).ok_or("its patterns are too many or too long")).transpose()?;
    let made = match identity.claims.take() {
        None => access.claims.make(None, attributes, grant.unwrap_or_else(|| access.open.grant()), 0),
        Some(old) => {
            let by_hook = ByHook { sub, grant: grant.map(|grant| access.claims.grant(grant)), attributes };
            let laid_over = by_hook.over((*old.grant).clone(), &old.attributes);
            let (grant, attributes) = laid_over.ok_or("with the token's, its patterns or attributes are too many")?;
            access.claims.make(old.device, attributes, grant, old.expires_s)
        }
    };
    identity.claims = Some(Box::new(made));
    Ok(identity)
}

fn granted(more: &Grants) -> Option<Grant> {
    let lists = [
        (Act::Join, &more.rooms),
        (Act::Speak, &more.speak),
        (Act::See, if more.presence.is_empty() { &more.rooms } else { &more.presence }),
        (Act::List, &more.members),
        (Act::Whisper, &more.users),
        (Act::Route, &more.routes),
    ];
    let mut grant = Grant::default();
    lists.into_iter().all(|(act, patterns)| grant.add(act, patterns)).then_some(grant)
}
