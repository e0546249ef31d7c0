//! Bounds that both tiers and every client must agree on; what an operator may change lives in the config.
//! Invariant: a value here is part of the wire contract, so raising one needs both tiers upgraded first.

/// Longest room or user name, in bytes of UTF-8 (rule R-3).
pub const NAME_BYTES_MAX: usize = 128;
/// Longest platform name, in bytes.
pub const PLATFORM_BYTES_MAX: usize = 32;
/// Longest `id` a client may put on a request, in bytes of JSON.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Longest `nonce` of a SEND, in bytes.
pub const NONCE_BYTES_MAX: usize = 64;
/// Most patterns of one kind in a grant or a key.
pub const PATTERNS_MAX: usize = 32;
/// Longest of them, in bytes; names are as long.
pub const PATTERN_BYTES_MAX: usize = 128;
/// Most items in one uplink reply, and most bytes of them before no more is added.
pub const UPLINK_PAGE: usize = 1024;
/// See [`UPLINK_PAGE`].
pub const UPLINK_PAGE_BYTES: usize = 1024 * 1024;
/// Deepest JSON accepted from clients and publishers; far above any real message, far below a stack.
pub const JSON_DEPTH_MAX: usize = 64;
/// Largest payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;
/// Largest request body on the backplane, in bytes. Logic cuts its batches well below it.
pub const BACKPLANE_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest batch logic builds before it starts another request, in bytes of messages.
pub const BACKPLANE_BATCH_BYTES: usize = 1024 * 1024;
/// Most pushes in one backplane batch.
pub const BACKPLANE_BATCH_PUSHES: usize = 4096;
/// Most names in one interest reply; a snapshot of more is paged.
pub const INTEREST_PAGE: usize = 16 * 1024;
/// Most blocks of users, lifted ones that are remembered included, in the whole fleet.
pub const BLOCKS_MAX: usize = 100_000;
/// Longest reason of a block, in bytes.
pub const BLOCK_REASON_BYTES_MAX: usize = 256;
/// Most rows in one page of a list.
pub const QUERY_PAGE_MAX: usize = 1000;

/// Whether `name` may name a room or a user: 1 to 128 bytes of UTF-8 without control characters (rule R-3).
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

/// Whether `name` may name a platform: 1 to 32 bytes of `[a-z0-9_-]`.
#[must_use]
pub fn is_valid_platform(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= PLATFORM_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}
