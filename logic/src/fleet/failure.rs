//! Why a gateway did not take what it was to take, and what that means: a word for receipts and metrics, whether it may have
//! taken it all the same, and the refusal when no gateway is known to have.

use crate::problem::Refusal;

/// Why a gateway did not take a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Its link is down.
    Unreachable,
    /// Its link broke before the reply and did not come back in time: it may or may not have taken the push.
    Lost,
    /// It has restarted before the reply; what it had taken is gone with it.
    Restarted,
    /// It did not reply in time: it may or may not have taken the push.
    Timeout,
    /// Too much waits for it already, or it says so itself.
    Overloaded,
    /// It does not accept our secret.
    Unauthorized,
    /// It does not understand us, or we do not understand it.
    Incompatible,
    /// It is linked already, under another name.
    Duplicate,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Unreachable,
        Self::Lost,
        Self::Restarted,
        Self::Timeout,
        Self::Overloaded,
        Self::Unauthorized,
        Self::Incompatible,
        Self::Duplicate,
    ];

    /// One word for receipts and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::Restarted => "restarted",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::Unauthorized => "unauthorized",
            Self::Incompatible => "incompatible",
            Self::Duplicate => "duplicate",
        }
    }

    /// Whether the gateway may have taken the push all the same, so that sending it again could deliver it twice.
    #[must_use]
    pub fn may_be_taken(self) -> bool {
        match self {
            Self::Lost | Self::Timeout | Self::Incompatible => true,
            // What a restarted gateway had taken is gone with its connections.
            Self::Unreachable | Self::Restarted | Self::Overloaded | Self::Unauthorized | Self::Duplicate => false,
        }
    }
}

/// The refusal of a push or command that no gateway is known to have taken, by what became of it at
/// each. One that may have it all the same is told before one that is behind, and that before those that cannot be reached.
#[must_use]
pub fn untaken(failures: &[(String, Failure)]) -> Refusal {
    let failed = failures.iter().map(|(gateway, why)| (gateway.clone(), why.label())).collect();
    let weight = |why: &Failure| match why {
        Failure::Lost | Failure::Timeout | Failure::Restarted => 2,
        Failure::Overloaded => 1,
        Failure::Unreachable | Failure::Unauthorized | Failure::Incompatible | Failure::Duplicate => 0,
    };
    match failures.iter().map(|(_, why)| weight(why)).max() {
        Some(2) => Refusal::GatewayLost { failed },
        Some(1) => Refusal::QueuesFull { failed },
        _ => Refusal::NoGateway { failed },
    }
}
