//! Who may call: API keys as SHA-256 hashes, the scopes they open, when, and whom they reach. Replaced as a whole while the
//! node runs ([`Keys::replace`]). Knows nothing of HTTP beyond the value of one header.
//! Invariants: every key is compared, in constant time, so that time tells neither which key came close nor how close
//! (reliability.md, threat 31); a request is judged by one list from its start to its end; a caller keeps its number for
//! the life of the process, so that `dedupe` keys never change hands.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::{KeyConfig, Moment, Scope, parse_sha256};
use crate::problem::Refusal;
use crate::push::{Caller, CallerId, Reach};

#[derive(Debug)]
struct Key {
    caller: Caller,
    sha256: [u8; 32],
    scopes: Vec<Scope>,
    not_before: Option<Moment>,
    expires: Option<Moment>,
}

/// The configured keys at one time.
#[derive(Debug, Default)]
pub struct Ring {
    /// Empty: everyone may do everything; the binary then refuses addresses other than loopback.
    keys: Vec<Key>,
    /// Every id there ever was.
    callers: HashMap<String, CallerId>,
}

/// The configured keys now.
#[derive(Debug)]
pub struct Keys {
    ring: RwLock<Arc<Ring>>,
}

impl Keys {
    /// Takes keys over from a configuration without [`problems`](crate::LogicConfig::problems); others are left out.
    #[must_use]
    pub fn new(config: &[KeyConfig]) -> Self {
        Self { ring: RwLock::new(Arc::new(Ring::default().renewed(config))) }
    }

    /// The list to judge one request by.
    #[must_use]
    pub fn now(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read())
    }

    /// Puts other keys in place of these, from the next request on.
    pub fn replace(&self, config: &[KeyConfig]) {
        let mut ring = self.ring.write();
        *ring = Arc::new(ring.renewed(config));
    }
}

impl Ring {
    fn renewed(&self, config: &[KeyConfig]) -> Self {
        let mut callers = self.callers.clone();
        let mut parse = |k: &KeyConfig| {
            // Fewer ids than 65,534 pass in a process's life; beyond, callers share dedupe names.
            let next = CallerId::new(callers.len());
            let id = *callers.entry(k.id.clone()).or_insert(next);
            let is_bound = !(k.rooms.is_empty() && k.users.is_empty());
            let reach = is_bound.then(|| Arc::new(Reach { rooms: k.rooms.clone(), users: k.users.clone() }));
            Some(Key {
                caller: Caller { id, reach },
                sha256: parse_sha256(&k.sha256)?,
                scopes: k.scopes.clone(),
                not_before: k.not_before,
                expires: k.expires,
            })
        };
        let keys = config.iter().filter_map(&mut parse).collect();
        Self { keys, callers }
    }

    /// Whether no key is asked for.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// Checks the value of `Authorization` against what a call needs at this time.
    ///
    /// # Errors
    /// [`Refusal::NoKey`], [`Refusal::BadKey`], [`Refusal::KeyNotYet`], [`Refusal::KeyExpired`] or [`Refusal::WrongScope`].
    pub fn check(&self, authorization: Option<&[u8]>, needs: Scope, now: Moment) -> Result<Caller, Refusal> {
        if self.is_open() {
            return Ok(Caller::ANYONE);
        }
        let value = authorization.ok_or(Refusal::NoKey)?;
        let key = match value.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
            _ => return Err(Refusal::NoKey),
        };
        let hash = Sha256::digest(key);
        let mut found = None;
        for key in &self.keys {
            if bool::from(key.sha256.ct_eq(&hash[..])) {
                found = Some(key);
            }
        }
        let key = found.ok_or(Refusal::BadKey)?;
        if let Some(from) = key.not_before.filter(|&from| now < from) {
            return Err(Refusal::KeyNotYet { from: from.to_string() });
        }
        if let Some(since) = key.expires.filter(|&end| now >= end) {
            return Err(Refusal::KeyExpired { since: since.to_string() });
        }
        if !key.scopes.contains(&needs) {
            return Err(Refusal::WrongScope { needs: needs.label() });
        }
        Ok(key.caller.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_000);

    fn key(id: &str, secret: &str) -> KeyConfig {
        let sha256 = Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect();
        KeyConfig { id: id.into(), sha256, scopes: vec![Scope::Push], ..KeyConfig::default() }
    }

    fn check(keys: &Keys, value: &[u8], needs: Scope) -> Result<CallerId, Refusal> {
        keys.now().check(Some(value), needs, NOW).map(|caller| caller.id)
    }

    #[test]
    fn a_key_opens_its_scopes_and_no_other() {
        let keys = Keys::new(&[key("a", "secret")]);

        assert_eq!(check(&keys, b"Bearer secret", Scope::Push), Ok(CallerId::new(0)));
        assert_eq!(check(&keys, b"bearer  secret ", Scope::Push), Ok(CallerId::new(0)));
        assert_eq!(check(&keys, b"Bearer secret", Scope::Admin), Err(Refusal::WrongScope { needs: "admin" }));
    }

    #[test]
    fn no_key_and_a_wrong_key_are_told_apart() {
        let keys = Keys::new(&[key("a", "secret")]);
        let hash = key("a", "secret").sha256;

        assert_eq!(keys.now().check(None, Scope::Push, NOW).map(|c| c.id), Err(Refusal::NoKey));
        assert_eq!(check(&keys, b"Basic c2VjcmV0", Scope::Push), Err(Refusal::NoKey));
        assert_eq!(check(&keys, b"Bearer ", Scope::Push), Err(Refusal::BadKey));
        assert_eq!(check(&keys, b"Bearer secre", Scope::Push), Err(Refusal::BadKey));
        assert_eq!(check(&keys, format!("Bearer {hash}").as_bytes(), Scope::Push), Err(Refusal::BadKey));
        assert_eq!(check(&keys, hash.as_bytes(), Scope::Push), Err(Refusal::NoKey));
    }

    #[test]
    fn without_keys_everyone_may() {
        assert!(Keys::new(&[]).now().check(None, Scope::Admin, NOW).is_ok());
    }

    #[test]
    fn a_key_counts_from_its_begin_to_its_end() {
        let bound = KeyConfig { not_before: Some(Moment(10)), expires: Some(Moment(20)), ..key("a", "s") };
        let keys = Keys::new(&[bound]);
        let at = |now| keys.now().check(Some(b"Bearer s"), Scope::Push, Moment(now)).map_err(|r| r.rules().code);

        assert_eq!(at(9).err(), Some("key_not_yet"));
        assert!(at(10).is_ok() && at(19).is_ok());
        assert_eq!(at(20).err(), Some("key_expired"));
    }

    #[test]
    fn a_node_whose_keys_have_all_expired_is_not_open() {
        let keys = Keys::new(&[KeyConfig { expires: Some(Moment(1)), ..key("a", "s") }]);

        assert!(!keys.now().is_open());
        assert_eq!(keys.now().check(None, Scope::Read, NOW).map(|c| c.id), Err(Refusal::NoKey));
    }

    #[test]
    fn both_keys_of_an_id_are_the_same_caller() {
        let keys = Keys::new(&[key("a", "old"), key("b", "b"), key("a", "new")]);

        let old = check(&keys, b"Bearer old", Scope::Push);

        assert_eq!(old, check(&keys, b"Bearer new", Scope::Push));
        assert_ne!(old, check(&keys, b"Bearer b", Scope::Push));
    }

    #[test]
    fn a_caller_keeps_its_number_when_the_list_changes() {
        let keys = Keys::new(&[key("a", "a"), key("b", "b")]);
        let before = check(&keys, b"Bearer b", Scope::Push);

        keys.replace(&[key("c", "c"), key("b", "b")]);

        assert_eq!(check(&keys, b"Bearer b", Scope::Push), before);
        assert_eq!(check(&keys, b"Bearer c", Scope::Push), Ok(CallerId::new(2)), "not that of a, who is gone");
        assert_eq!(check(&keys, b"Bearer a", Scope::Push), Err(Refusal::BadKey));
    }

    #[test]
    fn a_request_is_judged_by_the_list_it_began_with() {
        let keys = Keys::new(&[key("a", "a")]);
        let ring = keys.now();

        keys.replace(&[]);

        assert!(!ring.is_open() && keys.now().is_open());
    }

    #[test]
    fn a_key_is_bound_to_its_patterns_and_one_without_to_nobody() {
        let keys = Keys::new(&[KeyConfig { rooms: vec!["chat:*".into()], ..key("a", "a") }, key("b", "b")]);
        let reach = |value: &[u8]| keys.now().check(Some(value), Scope::Push, NOW).expect("known").reach;

        assert_eq!(reach(b"Bearer a").map(|r| r.rooms.clone()), Some(vec!["chat:*".to_owned()]));
        assert_eq!(reach(b"Bearer b"), None);
    }
}
