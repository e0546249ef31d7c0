//! What the connect hook said of a client that came with a token, kept so that REFRESH can lay it over the new token's word.
//! A file of its own because it is neither the token's word nor the connection's: it outlives the one and is shared beyond the other.
//! Invariant: laid over the claims that it was said of, it gives what the connection began with.

use std::sync::Arc;

use super::attributes::Attributes;
use super::grant::{Act, Grant};

/// A hook's word over a token's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ByHook {
    /// The token's own `sub`, where the hook gave another name.
    pub sub: Option<Box<str>>,
    /// Rights that it added.
    pub grant: Option<Arc<Grant>>,
    /// Attributes that it set; they win over a token's.
    pub attributes: Attributes,
}

impl ByHook {
    /// What a token says with this laid over it; none where that is more than a connection may have.
    #[must_use]
    pub fn over(self, mut grant: Grant, attributes: &Attributes) -> Option<(Grant, Attributes)> {
        if let Some(more) = &self.grant {
            Act::ALL.into_iter().all(|act| grant.add(act, more.patterns(act))).then_some(())?;
        }
        let kept = attributes.iter().filter(|(name, _)| self.attributes.find(name).is_none());
        let pairs: Vec<(&str, &str)> = kept.chain(self.attributes.iter()).collect();
        Some((grant, Attributes::of(&pairs)?.with(self)))
    }
}
