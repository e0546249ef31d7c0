//! Names of connections that stay unique over restarts, slot reuse and gateways.
//! Invariant: two connections that ever lived have different ids as long as gateway ids differ.

use std::fmt;
use std::str::FromStr;

/// Crockford's base 32 in lower case: no `i`, `l`, `o`, `u`, so an id survives being read aloud.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 128 bits at 5 bits a character.
const TEXT_LEN: usize = 26;

/// Which connection: gateway ∥ boot epoch ∥ bucket ∥ slot ∥ generation, 128 bits, so that a stale id never
/// reaches a reused slot, nor a gateway that has restarted since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Configured or random id of the gateway, unique in the fleet.
    pub gateway: u16,
    /// The gateway's start in tenths of a second (Unix time), truncated.
    pub epoch: u32,
    /// Bucket within the gateway.
    pub bucket: u16,
    /// Slot within the bucket.
    pub slot: u32,
    /// How often the slot had been used before.
    pub generation: u32,
}

impl ConnectionId {
    /// The id as one number, most significant field first.
    #[must_use]
    pub fn to_u128(self) -> u128 {
        u128::from(self.gateway) << 112
            | u128::from(self.epoch) << 80
            | u128::from(self.bucket) << 64
            | u128::from(self.slot) << 32
            | u128::from(self.generation)
    }

    /// The reverse of [`ConnectionId::to_u128`]; every number is some id.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "each shift leaves exactly the field's bits to keep")]
    pub fn from_u128(n: u128) -> Self {
        Self {
            gateway: (n >> 112) as u16,
            epoch: (n >> 80) as u32,
            bucket: (n >> 64) as u16,
            slot: (n >> 32) as u32,
            generation: n as u32,
        }
    }

    /// The id as records carry it: [`ConnectionId::to_u128`], the first byte first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.to_u128().to_be_bytes()
    }

    /// The reverse of [`ConnectionId::to_bytes`]; `None` for anything but 16 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self::from_u128(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.to_u128();
        let mut text = [0u8; TEXT_LEN];
        for (i, c) in text.iter_mut().enumerate() {
            let shift = 5 * (TEXT_LEN - 1 - i);
            *c = ALPHABET[((n >> shift) & 31) as usize];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Text that is no connection id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a connection id is 26 characters of base 32 (0-9, a-z without i, l, o, u), as HELLO gives it")]
pub struct ConnectionIdError;

impl FromStr for ConnectionId {
    type Err = ConnectionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != TEXT_LEN {
            return Err(ConnectionIdError);
        }
        let mut n: u128 = 0;
        for (i, c) in text.bytes().enumerate() {
            let digit = ALPHABET.iter().position(|&a| a == c.to_ascii_lowercase()).ok_or(ConnectionIdError)?;
            // 26 characters hold 130 bits: the first may only be 0 to 7.
            if i == 0 && digit > 7 {
                return Err(ConnectionIdError);
            }
            n = n << 5 | digit as u128;
        }
        Ok(Self::from_u128(n))
    }
}

/// Names a command to an agent: which logic node gave it, its number there, and what nobody can guess who has not been sent
/// it. A reply is good by knowing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId {
    /// The logic process.
    pub logic: u64,
    /// Its count of commands.
    pub number: u64,
    /// Random.
    pub secret: u64,
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}-{:016x}", self.logic, self.number, self.secret)
    }
}

/// Text that is no command id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a command's id is what COMMAND carried")]
pub struct CommandIdError;

impl FromStr for CommandId {
    type Err = CommandIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('-');
        let mut part = |longest: usize| {
            let digits = parts.next().filter(|d| (1..=longest).contains(&d.len())).ok_or(CommandIdError)?;
            let is_plain = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            is_plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten().ok_or(CommandIdError)
        };
        let id = Self { logic: part(16)?, number: part(16)?, secret: part(16)? };
        // One spelling only, so that ids can be compared as text.
        if id.to_string() == text { Ok(id) } else { Err(CommandIdError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_an_id_reads_back_as_the_same_id() {
        let id = ConnectionId { gateway: 0xfedc, epoch: 0x6789_abcd, bucket: 77, slot: 19_999, generation: u32::MAX };

        let text = id.to_string();

        assert_eq!(text.len(), TEXT_LEN);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
    }

    #[test]
    fn bytes_of_an_id_read_back_as_the_same_id() {
        let id = ConnectionId { gateway: 1, epoch: 2, bucket: 3, slot: 4, generation: 5 };

        assert_eq!(id.to_bytes()[..2], [0, 1]);
        assert_eq!(ConnectionId::from_slice(&id.to_bytes()), Some(id));
        assert_eq!(ConnectionId::from_slice(&id.to_bytes()[1..]), None);
    }

    #[test]
    fn a_commands_id_has_one_spelling() {
        let id = CommandId { logic: u64::MAX, number: 0, secret: 7 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "1-2-3", "ffffffffffffffff-0-0000000000000007-", "ffffffffffffffff-0-+000000000000007"] {
            assert_eq!(text.parse::<CommandId>(), Err(CommandIdError), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in
            ["", "abc", "z0000000000000000000000000", "0000000000000000000000000u", "0000000000000000000000000000"]
        {
            assert_eq!(text.parse::<ConnectionId>(), Err(ConnectionIdError), "{text}");
        }
    }
}
