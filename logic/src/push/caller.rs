//! Who asks for pushes: a key of the API, a client, a business service.

use std::sync::Arc;

use super::reach::Reach;

/// Which caller; `dedupe` keys are its own. The same for all keys of an id, before and after a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallerId(u16);

impl CallerId {
    /// The caller with a number; the last three are those of [`Caller`]'s constants, and none else gets them.
    #[must_use]
    pub fn new(number: usize) -> Self {
        Self(u16::try_from(number).unwrap_or(u16::MAX).min(u16::MAX - 3))
    }

    /// The same for the life of the process.
    #[must_use]
    pub fn bytes(self) -> [u8; 2] {
        self.0.to_le_bytes()
    }
}

/// Proof that a caller may do what it asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub id: CallerId,
    /// Whom it may push to; `None`: anyone.
    pub reach: Option<Arc<Reach>>,
}

impl Caller {
    /// Whoever calls what needs no key, or a node without keys.
    pub const ANYONE: Self = Self { id: CallerId(u16::MAX), reach: None };
    /// Clients of the gateways; their `dedupe` keys carry the sender.
    pub const CLIENTS: Self = Self { id: CallerId(u16::MAX - 1), reach: None };
    /// Business services, by their answers to what they were sent.
    pub const SINKS: Self = Self { id: CallerId(u16::MAX - 2), reach: None };
}
