//! What a connection keeps of its token: device, attributes, grant, and until when it holds. Connections without a token
//! have none and pay eight bytes for that.
//! Invariant: grants and attributes are shared by all connections that have them alike, as far as the pools' bound allows.

use std::sync::Arc;

use super::attributes::Attributes;
use super::grant::Grant;
use super::interner::Interner;
use crate::clock::unix_s;

/// Most different grants, and most different sets of attributes, that are shared.
const SHARED_MAX: usize = 65_536;

/// What a token says of a connection beyond user and platform.
#[derive(Clone, Debug)]
pub struct HeldClaims {
    /// The device, if it has a name.
    pub device: Option<Box<str>>,
    /// What narrows pushes, and shows in lists.
    pub attributes: Arc<Attributes>,
    /// What it may do.
    pub grant: Arc<Grant>,
    /// When the token's time is over, in Unix seconds; 0: never. Changed by REFRESH.
    pub expires_s: u32,
    /// When the connection was named, in Unix seconds.
    pub since_s: u32,
}

const _: () = assert!(size_of::<HeldClaims>() <= 48, "part of every named connection's budget");

/// Makes held claims; keeps what many have alike.
#[derive(Debug)]
pub struct ClaimsPool {
    grants: Interner<Grant>,
    attributes: Interner<Attributes>,
    nothing: Arc<Attributes>,
}

impl Default for ClaimsPool {
    fn default() -> Self {
        Self { grants: Interner::new(SHARED_MAX), attributes: Interner::new(SHARED_MAX), nothing: Arc::default() }
    }
}

impl ClaimsPool {
    /// What is kept of a token.
    #[must_use]
    pub fn make(&self, device: Option<Box<str>>, attributes: Attributes, grant: Grant, expires_s: u32) -> HeldClaims {
        let attributes = match attributes.by_hook() {
            // Nobody else has that name, and a place in the pool would be lost to those who share.
            Some(by_hook) if by_hook.sub.is_some() => Arc::new(attributes),
            None if attributes.is_empty() => Arc::clone(&self.nothing),
            _ => self.attributes.share(attributes),
        };
        let grant = self.grant(grant);
        HeldClaims { device, attributes, grant, expires_s, since_s: unix_s() }
    }

    /// A grant that others share.
    #[must_use]
    pub fn grant(&self, grant: Grant) -> Arc<Grant> {
        self.grants.share(grant)
    }

    /// Different grants and different sets of attributes that are shared, and the most of each.
    #[must_use]
    pub fn shared(&self) -> (usize, usize, usize) {
        (self.grants.len(), self.attributes.len(), SHARED_MAX)
    }
}
