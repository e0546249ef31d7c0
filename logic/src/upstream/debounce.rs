//! When a user is online and when not, for events: a gateway says that a user's first connection there came or the last
//! went, and one who is back within the time was never gone. Pure: time and who is connected elsewhere are arguments.
//! Remembers only who has gone lately. Invariant: `order` holds each user of `gone` exactly once, at its time.

use std::collections::{BTreeSet, HashMap};

/// How often a user is looked for again while a gateway that had them does not answer.
const PUT_OFF_MAX: u8 = 10;

/// Users who are gone and not told of yet.
#[derive(Debug)]
pub struct Debounce {
    wait_ms: u64,
    most: usize,
    /// When each is told of, and how often that was put off.
    gone: HashMap<Box<str>, (u64, u8)>,
    order: BTreeSet<(u64, Box<str>)>,
}

impl Debounce {
    /// Tells of those who are gone for `wait_ms`; remembers at most so many.
    #[must_use]
    pub fn new(wait_ms: u64, most: usize) -> Self {
        Self { wait_ms, most, gone: HashMap::new(), order: BTreeSet::new() }
    }

    /// How many are gone and not told of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.gone.len()
    }

    /// A user came to a gateway. True: that is news.
    pub fn came(&mut self, user: &str, is_elsewhere: bool) -> bool {
        match self.gone.remove_entry(user) {
            Some((user, (due, _))) => {
                self.order.remove(&(due, user));
                false
            }
            None => !is_elsewhere,
        }
    }

    /// A user has left a gateway. At the bound the one who is due first makes room and is told of now, if they are gone.
    pub fn left(&mut self, user: &str, now_ms: u64) -> Option<Box<str>> {
        self.wait(user, now_ms, 0)
    }

    fn wait(&mut self, user: &str, now_ms: u64, times: u8) -> Option<Box<str>> {
        if let Some((user, (due, _))) = self.gone.remove_entry(user) {
            self.order.remove(&(due, user));
        }
        let early = if self.gone.len() >= self.most { self.order.pop_first() } else { None };
        if let Some((_, early)) = &early {
            self.gone.remove(early);
        }
        let due = now_ms.saturating_add(self.wait_ms);
        self.gone.insert(user.into(), (due, times));
        self.order.insert((due, user.into()));
        early.map(|(_, user)| user)
    }

    /// Takes out one whose time has come, and how often that was put off. Whether they are connected somewhere is for the
    /// caller to see.
    pub fn due(&mut self, now_ms: u64) -> Option<(Box<str>, u8)> {
        if self.order.first()?.0 > now_ms {
            return None;
        }
        let (_, user) = self.order.pop_first()?;
        let times = self.gone.remove(&user).map_or(0, |(_, times)| times);
        Some((user, times))
    }

    /// Nobody can say whether a user is gone: looks again after the wait, or tells of them now when that was often enough or
    /// there is no room. Gives who is to be told of.
    pub fn put_off(&mut self, user: Box<str>, times: u8, now_ms: u64) -> Option<Box<str>> {
        if times >= PUT_OFF_MAX || self.gone.len() >= self.most {
            return Some(user);
        }
        self.wait(&user, now_ms, times + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all_due(debounce: &mut Debounce, now_ms: u64) -> Vec<String> {
        std::iter::from_fn(|| debounce.due(now_ms)).map(|(user, _)| String::from(user)).collect()
    }

    #[test]
    fn who_is_back_in_time_was_never_gone() {
        let mut debounce = Debounce::new(3_000, 10);
        assert!(debounce.came("alice", false), "she is news");
        debounce.left("alice", 1_000);

        assert!(!debounce.came("alice", false), "she is back");

        assert_eq!(all_due(&mut debounce, 100_000), [] as [&str; 0]);
    }

    #[test]
    fn who_stays_away_is_told_of_once_and_is_news_again() {
        let mut debounce = Debounce::new(3_000, 10);
        debounce.left("alice", 1_000);

        assert_eq!(all_due(&mut debounce, 3_999), [] as [&str; 0]);
        assert_eq!(all_due(&mut debounce, 4_000), ["alice"]);
        assert_eq!(all_due(&mut debounce, 9_000), [] as [&str; 0]);
        assert!(debounce.came("alice", false));
    }

    #[test]
    fn a_second_gateway_is_no_news() {
        let mut debounce = Debounce::new(3_000, 10);

        assert!(!debounce.came("alice", true));
    }

    #[test]
    fn at_the_bound_the_first_to_be_due_makes_room() {
        let mut debounce = Debounce::new(3_000, 2);
        assert_eq!((debounce.left("a", 1), debounce.left("b", 2)), (None, None));

        assert_eq!(debounce.left("c", 3).as_deref(), Some("a"));
        assert_eq!(debounce.left("c", 4), None, "again the same takes no room");
        assert_eq!(debounce.len(), 2);
        assert_eq!(all_due(&mut debounce, 10_000), ["b", "c"]);
    }

    #[test]
    fn who_may_be_at_a_gateway_that_is_lost_is_looked_for_a_few_times() {
        let mut debounce = Debounce::new(3_000, 10);
        let (mut now, mut looks) = (0, 0);
        debounce.left("alice", now);

        let told = loop {
            now += 3_000;
            let (user, times) = debounce.due(now).expect("she is looked for");
            looks += 1;
            if let Some(user) = debounce.put_off(user, times, now) {
                break user;
            }
        };

        assert_eq!((&*told, looks, debounce.len()), ("alice", 11, 0));
    }

    proptest! {
        /// Whatever happens: told online and offline in turn for each user, as if seen after the waits.
        #[test]
        fn online_and_offline_take_turns(steps in proptest::collection::vec((0usize..3, any::<bool>(), 0u64..5_000), 1..200)) {
            let mut debounce = Debounce::new(3_000, 100);
            let (mut now, mut connected, mut told) = (0, [false; 3], [false; 3]);
            let names = ["a", "b", "c"];
            for (who, comes, pause) in steps {
                now += pause;
                while let Some((user, _)) = debounce.due(now) {
                    let i = names.iter().position(|name| *name == &*user).expect("one of ours");
                    prop_assert!(told[i] && !connected[i], "{user} was online and is gone");
                    told[i] = false;
                }
                if comes && !connected[who] {
                    let news = debounce.came(names[who], false);
                    prop_assert_eq!(news, !told[who]);
                    (connected[who], told[who]) = (true, true);
                } else if !comes && connected[who] {
                    prop_assert_eq!(debounce.left(names[who], now), None);
                    connected[who] = false;
                }
            }
            while let Some((user, _)) = debounce.due(now + 3_000) {
                told[names.iter().position(|name| *name == &*user).expect("one of ours")] = false;
            }
            prop_assert_eq!(told, connected);
        }
    }
}
