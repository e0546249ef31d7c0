//! Everything a client can do wrong on a WebSocket, and what follows from each (rule E-2).
//! Invariant: the close code and the metric label of a violation are decided here and nowhere else.

/// Why the connection has to be closed; its text is meant for whoever wrote the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RFC 6455 section 5.1.
    #[error("a frame arrived unmasked; clients must set the MASK bit and mask every frame")]
    Unmasked,
    /// RFC 6455 section 5.2; `bits` is RSV1 RSV2 RSV3 as a number, RSV1 the highest.
    #[error("reserved bits {bits:03b} are set, but no extension that gives them a meaning was negotiated")]
    ReservedBits { bits: u8 },
    /// RFC 7692 section 6.
    #[error(
        "RSV1 marks a compressed message and may be set only on its first frame, never on a continuation or control frame"
    )]
    CompressedBit,
    /// RFC 6455 section 5.2.
    #[error("opcode {opcode:#x} is reserved; known are 0x0, 0x1, 0x2, 0x8, 0x9 and 0xa")]
    ReservedOpcode { opcode: u8 },
    /// RFC 6455 section 5.2: the shortest form must be used.
    #[error("length {length} was written in {used} bytes although a shorter form holds it")]
    LengthNotMinimal { length: u64, used: u8 },
    /// RFC 6455 section 5.2.
    #[error("the most significant bit of a 64-bit frame length must be 0")]
    LengthTopBit,
    /// RFC 6455 section 5.5.
    #[error("a control frame may carry at most 125 bytes, this one announces more")]
    ControlTooLong,
    /// RFC 6455 section 5.5.
    #[error("a control frame must not be fragmented, this one has FIN unset")]
    ControlFragmented,
    /// RFC 6455 section 5.4.
    #[error("a continuation frame arrived while no message was begun")]
    ContinuationWithoutStart,
    /// RFC 6455 section 5.4.
    #[error("a new message began before the last fragment (FIN) of the one before it")]
    MessageInsideMessage,
    /// `claimed` is the size the message would have with the frame just announced.
    #[error("the message would have {claimed} bytes, the limit is {limit}")]
    MessageTooBig { claimed: u64, limit: usize },
    /// Tidegate's own bound: RFC 6455 has none, and empty fragments would cost work without end.
    #[error("the message has more than {limit} fragments; send it in fewer, larger frames")]
    TooManyFragments { limit: u32 },
    /// `limit` is that of messages, whether or not they are compressed.
    #[error("the compressed message inflates to more than {limit} bytes, the limit of a message")]
    InflatesTooBig { limit: usize },
    /// Tidegate's own bound: what a byte may cost us.
    #[error("the compressed message inflates to more than {ratio} times its size")]
    InflatesTooMuch { ratio: u32 },
    /// RFC 7692 section 7.2.2.
    #[error("a compressed message is not a raw DEFLATE stream that ends at a block without its last bytes 00 00 ff ff")]
    DeflateBroken,
    /// RFC 6455 section 8.1.
    #[error("a text message is not valid UTF-8; send bytes as a binary message")]
    TextNotUtf8,
    /// RFC 6455 section 5.5.1.
    #[error("a close frame carries 1 byte; it must be empty or begin with a code of 2 bytes")]
    CloseCodeCut,
    /// RFC 6455 section 7.4.
    #[error("close code {code} must not appear in a frame; use 1000-1003, 1007-1014 or 3000-4999")]
    CloseCode { code: u16 },
    /// RFC 6455 section 5.5.1.
    #[error("the reason in a close frame is not valid UTF-8")]
    CloseReasonNotUtf8,
}

impl Violation {
    /// Close code to answer with (RFC 6455 section 7.4.1).
    #[must_use]
    pub fn close_code(&self) -> u16 {
        self.consequence().0
    }

    /// Name of the violation in metrics; stable.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.consequence().1
    }

    const fn consequence(&self) -> (u16, &'static str) {
        match self {
            Self::Unmasked => (1002, "unmasked"),
            Self::ReservedBits { .. } => (1002, "reserved_bits"),
            Self::CompressedBit => (1002, "compressed_bit"),
            Self::ReservedOpcode { .. } => (1002, "reserved_opcode"),
            Self::LengthNotMinimal { .. } => (1002, "length_not_minimal"),
            Self::LengthTopBit => (1002, "length_top_bit"),
            Self::ControlTooLong => (1002, "control_too_long"),
            Self::ControlFragmented => (1002, "control_fragmented"),
            Self::ContinuationWithoutStart => (1002, "continuation_without_start"),
            Self::MessageInsideMessage => (1002, "message_inside_message"),
            Self::MessageTooBig { .. } => (1009, "message_too_big"),
            Self::TooManyFragments { .. } => (1008, "too_many_fragments"),
            Self::InflatesTooBig { .. } => (1009, "inflates_too_big"),
            Self::InflatesTooMuch { .. } => (1008, "inflates_too_much"),
            Self::DeflateBroken => (1007, "deflate_broken"),
            Self::TextNotUtf8 => (1007, "text_not_utf8"),
            Self::CloseCodeCut => (1002, "close_code_cut"),
            Self::CloseCode { .. } => (1002, "close_code"),
            Self::CloseReasonNotUtf8 => (1007, "close_reason_not_utf8"),
        }
    }
}
