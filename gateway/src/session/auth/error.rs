//! Why a token is not accepted, and what follows from it. Says nothing of the token but the cause: no text of an error
//! holds any part of one, so errors may go into answers and metrics.
//! Invariant: codes are stable; all consequences of a cause are in `facts` and nowhere else.

use std::fmt;

use tidegate_protocol::handshake::Refusal;

/// Why a token does not say who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenError {
    /// None came, or not in time.
    Missing,
    /// Not three parts of base64url with JSON objects in the first two, or not in one place. Says which.
    Malformed(&'static str),
    /// `none`, an unknown algorithm, one that is not listed, or not the key's.
    Algorithm,
    /// No key fits.
    KeyUnknown,
    /// Not signed with the key.
    Signature,
    /// `exp` has passed.
    Expired,
    /// `nbf` lies ahead.
    NotYet,
    /// A claim is missing or of the wrong form. Says which, and what form it must have.
    Claims(&'static str),
    /// `aud` names somebody else.
    Audience,
    /// `iss` is somebody else.
    Issuer,
}

/// What follows from a cause.
struct Facts {
    /// Place of the code among [`TokenError::CODES`].
    index: usize,
    /// What to change.
    what: &'static str,
}

impl TokenError {
    /// Every code, for metrics and tests.
    pub const CODES: [&str; 10] = [
        "token_missing",
        "token_malformed",
        "token_algorithm",
        "token_key_unknown",
        "token_signature",
        "token_expired",
        "token_not_yet",
        "token_claims",
        "token_audience",
        "token_issuer",
    ];

    /// Stable name: code of the 401, `reason` of the ERROR and of the close 3500, label of the metric.
    #[must_use]
    pub fn code(self) -> &'static str {
        Self::CODES[self.index()]
    }

    /// Place of the code among [`TokenError::CODES`].
    #[must_use]
    pub fn index(self) -> usize {
        self.facts().index
    }

    /// What a client is answered that brought the token with its handshake.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        Refusal::Unauthorized { code: self.code(), what: self.facts().what }
    }

    const fn facts(self) -> Facts {
        let (index, what) = match self {
            Self::Missing => (0, "bring one in Authorization: Bearer, in ?token= or in the message AUTH"),
            Self::Malformed(what) => (1, what),
            Self::Algorithm => (2, "its alg is not accepted here, or not that of its key"),
            Self::KeyUnknown => (3, "its kid names no key of this gateway, or it has none and no key is for its alg"),
            Self::Signature => (4, "its signature is not that of its key"),
            Self::Expired => (5, "it has expired; bring a new one"),
            Self::NotYet => (6, "it is not valid yet (nbf)"),
            Self::Claims(what) => (7, what),
            Self::Audience => (8, "it is for another audience (aud)"),
            Self::Issuer => (9, "it is from another issuer (iss)"),
        };
        Facts { index, what }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal().fmt(f)
    }
}

impl std::error::Error for TokenError {}
