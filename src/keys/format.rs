//! The text of an API key: `tidegate_sk_<id>_<secret><checksum>`. Made so that a double click takes it whole, a search finds
//! it where it should not be, and a typing error is told from a key that is unknown.
//! Invariants: the secret is 256 random bits of the operating system; the checksum (30 bits of SHA-256) covers everything
//! before it and tells nothing that the text does not; no `Debug` shows a secret.

use std::fmt;

use sha2::{Digest, Sha256};

/// What every key begins with.
const PREFIX: &str = "tidegate_sk_";
/// Base 32 without i, l, o and u, which are read for others.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 256 bits, five a letter.
const SECRET_LETTERS: usize = 52;
const CHECK_LETTERS: usize = 6;
const LETTERS: usize = SECRET_LETTERS + CHECK_LETTERS;
/// Longest id of a key that is made here; the configuration takes as much.
const ID_BYTES_MAX: usize = 64;

/// A key in the clear.
pub struct ApiKey(String);

/// Why a text is no key of this format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("not a key made by `tidegate keys create`, which begins with {PREFIX}")]
    Foreign,
    #[error("cut or run on: after the id come {LETTERS} letters, not {0}")]
    Length(usize),
    #[error("a character is wrong: the checksum does not fit")]
    Checksum,
}

/// Why a text cannot be the id of a new key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 1 to {ID_BYTES_MAX} of a-z, A-Z, 0-9 and -")]
pub struct BadId;

impl ApiKey {
    /// A new key with these random bytes.
    pub fn new(id: &str, random: &[u8; 32]) -> Result<Self, BadId> {
        let is_id = (1..=ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_id {
            return Err(BadId);
        }
        let text = format!("{PREFIX}{id}_{}", base32(random, SECRET_LETTERS));
        let check = checksum(&text);
        Ok(Self(text + &check))
    }

    /// The key for its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// The id in a key's text, if that is whole.
pub fn id_of(text: &str) -> Result<&str, FormatError> {
    let (id, letters) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or(FormatError::Foreign)?;
    if letters.len() != LETTERS {
        return Err(FormatError::Length(letters.len()));
    }
    match text.split_at_checked(text.len() - CHECK_LETTERS) {
        Some((secret, check)) if checksum(secret) == check => Ok(id),
        _ => Err(FormatError::Checksum),
    }
}

/// What stands in the configuration instead of the key.
pub fn sha256_hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn checksum(text: &str) -> String {
    base32(&Sha256::digest(text), CHECK_LETTERS)
}

/// The first letters of `bytes`, five bits each, the highest bit first.
fn base32(bytes: &[u8], letters: usize) -> String {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let letter = |n: usize| (0..5).fold(0, |value, i| value << 1 | bit(5 * n + i));
    (0..letters).map(|n| char::from(ALPHABET[usize::from(letter(n))])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANDOM: [u8; 32] = [0xa5; 32];

    #[test]
    fn a_key_says_its_id_and_holds_all_of_its_random_bits() {
        let key = ApiKey::new("billing-2", &RANDOM).expect("a good id");
        let mut other = RANDOM;
        other[31] ^= 1;
        let other = ApiKey::new("billing-2", &other).expect("a good id");

        assert_eq!(id_of(key.reveal()), Ok("billing-2"));
        assert!(key.reveal().starts_with("tidegate_sk_billing-2_"));
        assert_eq!(key.reveal().len(), "tidegate_sk_billing-2_".len() + 58);
        assert_ne!(key.reveal(), other.reveal());
    }

    #[test]
    fn every_single_wrong_letter_is_noticed() {
        let key = ApiKey::new("a", &RANDOM).expect("a good id");
        let text = key.reveal();

        for at in "tidegate_sk_a_".len()..text.len() {
            let wrong = if text.as_bytes()[at] == b'z' { "y" } else { "z" };
            let typed = format!("{}{wrong}{}", &text[..at], &text[at + 1..]);

            assert_eq!(id_of(&typed), Err(FormatError::Checksum), "{at}");
        }
        assert_eq!(id_of(&text.replace("sk_a_", "sk_b_")), Err(FormatError::Checksum));
    }

    #[test]
    fn a_cut_key_and_a_foreign_one_are_told_apart() {
        let key = ApiKey::new("a", &RANDOM).expect("a good id");

        assert_eq!(id_of(&key.reveal()[..40]), Err(FormatError::Length(26)));
        assert_eq!(id_of("2bb80d537b1da3e38bd30361aa855686"), Err(FormatError::Foreign));
        assert_eq!(id_of(""), Err(FormatError::Foreign));
        assert_eq!(id_of("tidegate_sk_a_é"), Err(FormatError::Length(2)));
    }

    #[test]
    fn an_id_that_would_blur_the_parts_is_refused() {
        for id in ["", "a_b", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(ApiKey::new(id, &RANDOM).map(|_| ()), Err(BadId), "{id:?}");
        }
    }

    #[test]
    fn the_secret_is_not_in_a_debug_line() {
        let key = ApiKey::new("a", &RANDOM).expect("a good id");

        assert_eq!(format!("{key:?}"), "ApiKey(…)");
    }

    #[test]
    fn base32_takes_five_bits_a_letter_from_the_top() {
        assert_eq!(base32(&[0b0000_1000, 0b1000_0000], 3), "120");
        assert_eq!(base32(&[0xff; 32], 52), format!("{}{}", "z".repeat(51), "g"));
    }
}
