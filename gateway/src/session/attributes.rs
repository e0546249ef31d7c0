//! What is known of a client beside its name: pairs such as `lang = de`, set by its token, for narrowing and for lists; and
//! beside them what a connect hook added to its token, which few have, so that it costs the others nothing.
//! Invariants: sorted by name, no name twice; within [`PAIRS_MAX`] and [`BYTES_MAX`].

use super::by_hook::ByHook;

/// Most pairs of one connection.
pub const PAIRS_MAX: usize = 16;
/// Most bytes of all names and values of one connection.
pub const BYTES_MAX: usize = 1024;

/// Pairs of name and value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    pairs: Box<[(Box<str>, Box<str>)]>,
    by_hook: Option<Box<ByHook>>,
}

impl Attributes {
    /// Of these pairs, unless they are too many, too long, hold control characters, or name something twice.
    #[must_use]
    pub fn of<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> Option<Self> {
        let bytes: usize = pairs.iter().map(|(n, v)| n.as_ref().len() + v.as_ref().len()).sum();
        // They are shown in lists, also as plain text.
        let is_plain = |text: &str| !text.chars().any(char::is_control);
        let is_plain = pairs.iter().all(|(n, v)| is_plain(n.as_ref()) && is_plain(v.as_ref()));
        if pairs.len() > PAIRS_MAX || bytes > BYTES_MAX || !is_plain {
            return None;
        }
        let mut pairs: Vec<(Box<str>, Box<str>)> =
            pairs.iter().map(|(n, v)| (n.as_ref().into(), v.as_ref().into())).collect();
        pairs.sort_unstable();
        let is_clear = pairs.windows(2).all(|two| two[0].0 != two[1].0);
        is_clear.then(|| Self { pairs: pairs.into(), by_hook: None })
    }

    /// The value of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        let at = self.pairs.binary_search_by(|(n, _)| (**n).cmp(name)).ok()?;
        Some(&self.pairs[at].1)
    }

    /// The pairs, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// With what a hook said, the pairs it set being among these.
    #[must_use]
    pub fn with(self, by_hook: ByHook) -> Self {
        Self { by_hook: Some(Box::new(by_hook)), ..self }
    }

    /// What a hook said.
    #[must_use]
    pub fn by_hook(&self) -> Option<&ByHook> {
        self.by_hook.as_deref()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.by_hook.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_by_name_whatever_their_order() {
        let one = Attributes::of(&[("tier", "pro"), ("lang", "de")]).expect("two pairs");
        let other = Attributes::of(&[("lang", "de"), ("tier", "pro")]).expect("two pairs");

        assert_eq!(one, other);
        assert_eq!((one.find("lang"), one.find("tier"), one.find("age")), (Some("de"), Some("pro"), None));
    }

    #[test]
    fn too_many_too_long_and_named_twice_are_none() {
        let many: Vec<(String, &str)> = (0..=PAIRS_MAX).map(|n| (n.to_string(), "")).collect();
        let long = "x".repeat(BYTES_MAX);

        assert!(Attributes::of(&many).is_none());
        assert!(Attributes::of(&many[1..]).is_some());
        assert!(Attributes::of(&[("a", long.as_str())]).is_none());
        assert!(Attributes::of(&[("", long.as_str())]).is_some());
        assert!(Attributes::of(&[("a", "1"), ("a", "2")]).is_none());
    }
}
