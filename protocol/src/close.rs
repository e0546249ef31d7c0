//! Close codes Tidegate sends, each with what a client should do next (rule E-3).
//! The ranges carry the advice: 3000–3499 reconnect with back-off, 3500–3999 do not, 4000–4499 reconnect now.
//! RFC 6455's own codes (1002, 1007, 1009 …) come from `ws::Violation`.

/// Why the server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The gateway is leaving: come back, spread out.
    Draining,
    /// No sign of life for `idle_ms + pong_ms`.
    Idle,
    /// Not reading: a control frame no longer fit its pending bytes, or they grew too old.
    Slow,
    /// The gateway is out of room for unfinished messages.
    Overload,
    /// More control frames than a peer has reason to send.
    Flood,
    /// Three malformed messages in a row (rule E-1).
    BadJson,
    /// An operator or business service asked for it without giving a code.
    Kicked,
    /// No token, a bad one, or one whose time is over (rule C-4). The text's reason is the token's code.
    Unauthorized,
    /// The user came with another connection, and one of them must go by the operator's word.
    Replaced,
    /// The user is blocked for a time.
    Blocked,
}

impl CloseReason {
    /// Every reason, for tables and tests.
    pub const ALL: [Self; 10] = [
        Self::Draining,
        Self::Idle,
        Self::Slow,
        Self::Overload,
        Self::Flood,
        Self::BadJson,
        Self::Kicked,
        Self::Unauthorized,
        Self::Replaced,
        Self::Blocked,
    ];

    /// The WebSocket close code.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Draining => 3000,
            Self::Idle => 3001,
            Self::Slow => 3002,
            Self::Overload => 3003,
            Self::Unauthorized => 3500,
            Self::BadJson => 3501,
            Self::Kicked => 3502,
            Self::Replaced => 3503,
            Self::Flood => 3504,
            Self::Blocked => 3505,
        }
    }

    /// One word for metrics and for the reason's JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Overload => "overload",
            Self::BadJson => "bad_json",
            Self::Kicked => "kicked",
            Self::Flood => "flood",
            Self::Unauthorized => "unauthorized",
            Self::Replaced => "replaced",
            Self::Blocked => "blocked",
        }
    }

    /// Text of the close frame: small JSON, at most 123 bytes.
    #[must_use]
    pub fn text(self, retry_after_ms: Option<u32>) -> String {
        match retry_after_ms {
            Some(ms) => format!(r#"{{"reason":"{}","retry_after_ms":{ms}}}"#, self.label()),
            None => format!(r#"{{"reason":"{}"}}"#, self.label()),
        }
    }
}

/// Text of a close frame whose reason is more exact than its code. `word` is one of ours, such as `token_expired`.
#[must_use]
pub fn text_of(word: &'static str) -> String {
    format!(r#"{{"reason":"{word}"}}"#)
}
