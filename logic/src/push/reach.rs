//! Whom a key may push to: patterns of rooms and of users, and the check of a push against them.
//! Knows nothing of who is connected, so that what is not allowed looks the same whether or not it exists.

use crate::problem::Refusal;
use crate::push::To;

/// The audience a key is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Rooms it may push to.
    pub rooms: Vec<String>,
    /// Users it may push to.
    pub users: Vec<String>,
}

impl Reach {
    /// Checks every target of a push; one that is out of reach refuses the whole.
    ///
    /// # Errors
    /// [`Refusal::TargetNotAllowed`].
    pub fn check(&self, to: &To) -> Result<(), Refusal> {
        let outside = match to {
            To::All => Some("everyone".to_owned()),
            To::Connections(_) => Some("single connections".to_owned()),
            To::Rooms(rooms) => first_outside(&self.rooms, rooms).map(|room| format!("the room {room:?}")),
            To::Users(users) => first_outside(&self.users, users).map(|user| format!("the user {user:?}")),
        };
        outside.map_or(Ok(()), |what| Err(Refusal::TargetNotAllowed { what, allowed: self.words() }))
    }

    /// What is allowed, in a caller's words.
    fn words(&self) -> String {
        let kind = |name: &str, patterns: &[String]| match patterns {
            [] => format!("no {name}"),
            some => format!("{name} {}", some.join(", ")),
        };
        format!("{} and {}", kind("rooms", &self.rooms), kind("users", &self.users))
    }
}

fn first_outside<'a>(patterns: &[String], names: &'a [String]) -> Option<&'a String> {
    names.iter().find(|name| !patterns.iter().any(|pattern| matches(pattern, name)))
}

/// Whether a name fits a pattern in which `*` stands for any run of characters. Takes at most the product of both lengths.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last star stood, and how far its run reaches.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            p += 1;
            n += 1;
        } else if let Some((at, reached)) = star {
            star = Some((at, reached + 1));
            p = at + 1;
            n = reached + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use tidegate_protocol::ids::ConnectionId;
    use tidegate_protocol::limits::PATTERN_BYTES_MAX;

    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_star_stands_for_any_run_and_nothing_else_does() {
        for (pattern, name, fits) in [
            ("chat:*", "chat:1", true),
            ("chat:*", "chat:", true),
            ("chat:*", "chat", false),
            ("chat:*", "xchat:1", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("**", "x", true),
            ("a", "a", true),
            ("a", "A", false),
            ("a", "ab", false),
            ("?", "a", false),
            ("*é", "café", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_product() {
        let pattern = "*a".repeat(PATTERN_BYTES_MAX / 2);
        let name = "a".repeat(PATTERN_BYTES_MAX - 1) + "b";

        assert!(!matches(&pattern, &name));
    }

    #[test]
    fn one_target_out_of_reach_refuses_the_push() {
        let reach = Reach { rooms: list(&["chat:*"]), users: list(&["alice"]) };

        assert!(reach.check(&To::Rooms(list(&["chat:1", "chat:2"]))).is_ok());
        assert!(reach.check(&To::Users(list(&["alice"]))).is_ok());
        for to in [
            To::All,
            To::Rooms(list(&["chat:1", "news"])),
            To::Users(list(&["alice", "bob"])),
            To::Connections(vec![ConnectionId { gateway: 1, epoch: 1, bucket: 1, slot: 1, generation: 1 }]),
        ] {
            let refusal = reach.check(&to).expect_err("out of reach");

            assert_eq!(refusal.rules().code, "target_not_allowed", "{to:?}");
        }
    }

    #[test]
    fn a_kind_without_patterns_is_out_of_reach() {
        let reach = Reach { rooms: list(&["*"]), users: Vec::new() };

        let refusal = reach.check(&To::Users(list(&["alice"]))).expect_err("no users");

        assert!(refusal.detail().contains("no users"), "{}", refusal.detail());
    }
}
