//! What a client may do: for each act a list of patterns over names, most of them empty, because what is not granted is
//! forbidden. Patterns stay as they were written, `{sub}` included, so that all users of one role share one grant.
//! Matching allocates nothing and is at worst the product of the two lengths, whatever the pattern: both are bounded.
//! Invariant: a grant has at most [`PATTERNS_MAX`] patterns an act, each at most [`PATTERN_BYTES_MAX`] bytes.

use tidegate_protocol::limits::{PATTERN_BYTES_MAX, PATTERNS_MAX};

/// Stands for the user's own name.
const SELF: &str = "{sub}";

/// What a client may be allowed to do with something that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Join a room.
    Join,
    /// SEND to a room.
    Speak,
    /// See how many are in a room.
    See,
    /// List a room's members.
    List,
    /// SEND to a user or connection.
    Whisper,
    /// SEND to a business service.
    Route,
}

impl Act {
    /// Every act, in the order of [`Grant`]'s lists.
    pub const ALL: [Self; 6] = [Self::Join, Self::Speak, Self::See, Self::List, Self::Whisper, Self::Route];

    /// The claim that grants it.
    #[must_use]
    pub fn claim(self) -> &'static str {
        match self {
            Self::Join => "rooms",
            Self::Speak => "speak",
            Self::See => "presence",
            Self::List => "members",
            Self::Whisper => "users",
            Self::Route => "routes",
        }
    }
}

/// What a client may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grant {
    /// By [`Act`].
    lists: [Box<[Box<str>]>; Act::ALL.len()],
}

impl Grant {
    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { lists: std::array::from_fn(|_| Box::from([Box::from("*")])) }
    }

    /// Adds patterns to those an act may be done with; false when that would be too many patterns or one is too long, and nothing is added then.
    #[must_use]
    pub fn add<P: AsRef<str>>(&mut self, act: Act, patterns: &[P]) -> bool {
        let list = &mut self.lists[act as usize];
        let is_short = |p: &P| p.as_ref().len() <= PATTERN_BYTES_MAX;
        if list.len() + patterns.len() > PATTERNS_MAX || !patterns.iter().all(is_short) {
            return false;
        }
        let added = patterns.iter().map(|p| Box::from(p.as_ref()));
        *list = std::mem::take(list).into_vec().into_iter().chain(added).collect();
        true
    }

    /// The patterns of an act, as they were written.
    #[must_use]
    pub fn patterns(&self, act: Act) -> &[Box<str>] {
        &self.lists[act as usize]
    }

    /// Whether `name` is among the names that `act` may be done with, by a client of this user.
    #[must_use]
    pub fn allows(&self, act: Act, user: Option<&str>, name: &str) -> bool {
        self.lists[act as usize].iter().any(|pattern| matches(pattern, user, name))
    }
}

/// Whether a pattern covers a name: `*` is any run of characters, `{sub}` the user's own name, letter for letter.
#[must_use]
pub fn matches(pattern: &str, user: Option<&str>, name: &str) -> bool {
    if user.is_none() && pattern.contains(SELF) {
        return false;
    }
    let user = user.unwrap_or_default();
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = strip(first, user, name) else { return false };
    let Some(mut part) = parts.next() else { return rest.is_empty() };
    // Each part between two stars may take the first place it finds: a later one would leave less for those that follow.
    for next in parts {
        let Some(after) = find(part, user, rest) else { return false };
        (rest, part) = (after, next);
    }
    let length = length(part, user);
    rest.len() >= length
        && rest.is_char_boundary(rest.len() - length)
        && strip(part, user, &rest[rest.len() - length..]).is_some()
}

/// What follows `part` at the start of `name`.
fn strip<'n>(part: &str, user: &str, name: &'n str) -> Option<&'n str> {
    let mut pieces = part.split(SELF);
    let mut rest = name.strip_prefix(pieces.next().unwrap_or_default())?;
    for piece in pieces {
        rest = rest.strip_prefix(user)?.strip_prefix(piece)?;
    }
    Some(rest)
}

/// What follows the first place of `part` in `name`.
fn find<'n>(part: &str, user: &str, name: &'n str) -> Option<&'n str> {
    let starts = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    starts.into_iter().find_map(|at| strip(part, user, &name[at..]))
}

/// Bytes of `part` with the user's name in its places.
fn length(part: &str, user: &str) -> usize {
    let places = part.matches(SELF).count();
    part.len() - places * SELF.len() + places * user.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_any_run_and_sub_is_the_user() {
        for (pattern, name) in [
            ("chat:*", "chat:"),
            ("chat:*", "chat:a:b"),
            ("*", ""),
            ("*", "x"),
            ("user:{sub}:*", "user:ann:inbox"),
            ("{sub}", "ann"),
            ("*{sub}*", "xxannyy"),
            ("a*b*c", "a-b-b-c"),
            ("a*b*b", "abb"),
            ("ü*ü", "üxü"),
            ("**", "x"),
            ("dm:{sub}:{sub}", "dm:ann:ann"),
        ] {
            assert!(matches(pattern, Some("ann"), name), "{pattern} covers {name}");
        }
        for (pattern, name) in [
            ("chat:*", "chat"),
            ("chat", "chat:"),
            ("", "x"),
            ("user:{sub}:*", "user:bob:inbox"),
            ("user:{sub}", "user:{sub}"),
            ("a*b", "a"),
            ("a*a", "a"),
            ("ab*ba", "aba"),
            ("a*b*c", "a-c-b"),
            ("dm:{sub}:{sub}", "dm:ann:bob"),
        ] {
            assert!(!matches(pattern, Some("ann"), name), "{pattern} does not cover {name}");
        }
    }

    #[test]
    fn a_users_name_is_no_pattern() {
        assert!(matches("user:{sub}", Some("*"), "user:*"));
        assert!(!matches("user:{sub}", Some("*"), "user:bob"));
        assert!(!matches("user:{sub}:*", Some("a:*"), "user:a:b:c"));
        assert!(!matches("{sub}", None, ""), "an anonymous client is nobody");
        assert!(!matches("{sub}", Some("{sub}"), "ann"));
    }

    /// Rule R-1: default deny.
    #[test]
    fn what_is_not_granted_is_forbidden() {
        let mut grant = Grant::default();
        assert!(grant.add(Act::Join, &["chat:*", "user:{sub}:*"]));

        assert!(grant.allows(Act::Join, Some("ann"), "chat:1") && grant.allows(Act::Join, Some("ann"), "user:ann:x"));
        assert!(!grant.allows(Act::Join, Some("ann"), "user:bob:x"));
        for act in Act::ALL.into_iter().filter(|r| *r != Act::Join) {
            assert!(!grant.allows(act, Some("ann"), "chat:1"), "{act:?}");
            assert!(Grant::everything().allows(act, None, "chat:1"), "{act:?}");
        }
    }

    #[test]
    fn a_grant_is_bounded() {
        let mut grant = Grant::default();
        assert!(!grant.add(Act::Join, &vec!["a"; PATTERNS_MAX + 1]));
        assert!(!grant.add(Act::Join, &["x".repeat(PATTERN_BYTES_MAX + 1)]));
        assert!(grant.patterns(Act::Join).is_empty(), "nothing of it is taken");
        assert!(grant.add(Act::Join, &vec!["a"; PATTERNS_MAX]));
        assert!(!grant.add(Act::Join, &["b"]));
    }

    /// The plain definition, exponential and therefore only for short words.
    fn plainly(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|n| plainly(rest, &name[n..])),
            Some((byte, rest)) => name.split_first().is_some_and(|(n, name)| n == byte && plainly(rest, name)),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_it_says(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(matches(&pattern, None, &name), plainly(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn no_pattern_and_no_name_panics(pattern in "[a*ü{sub}]{0,20}", user in "[aü]{0,3}", name in "[aübs]{0,20}") {
            let _ = matches(&pattern, Some(&user), &name);
        }
    }

    /// The pattern that makes a matcher with backtracking give up the ghost: with 60 stars over 128 letters it would not come
    /// to an end within anybody's patience.
    #[test]
    fn a_pattern_of_stars_comes_to_an_end() {
        let pattern = "a*".repeat(60) + "b";
        let name = "a".repeat(128);

        assert!(!matches(&pattern, Some("ann"), &name));
    }
}
