//! Which gateways have which rooms and users: the table that keeps pushes away from gateways without members.
//! Fed by `fleet::events` in order, read by `push::route`. A gateway that is not *known* (no complete snapshot, or its
//! link is down) may have everything. Invariant: a gateway's bit stands only in entries told since its last snapshot.

mod watch;

use ahash::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use tidegate_protocol::limits::INTEREST_PAGE;
use tidegate_protocol::records::{EventsReply, InterestKind};
use tidegate_protocol::remembered::Remembered;

pub use self::watch::Watch;
use self::watch::Watches;
use crate::clock::unix_ms;
use crate::config::GATEWAYS_MAX;

/// A gateway's place among those that are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayIndex(u8);

impl GatewayIndex {
    /// The `i`-th gateway; `None` past [`GATEWAYS_MAX`].
    #[must_use]
    pub fn new(i: usize) -> Option<Self> {
        if i < GATEWAYS_MAX { u8::try_from(i).ok().map(Self) } else { None }
    }

    /// As a slice index.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// A set of gateways: 16 bytes, so that a million rooms cost no allocation but their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewaySet(u128);

const _: () = assert!(GATEWAYS_MAX <= 128, "a GatewaySet has 128 bits");

impl GatewaySet {
    /// Puts a gateway in.
    pub fn insert(&mut self, g: GatewayIndex) {
        self.0 |= 1 << g.0;
    }

    /// Takes a gateway out.
    pub fn remove(&mut self, g: GatewayIndex) {
        self.0 &= !(1 << g.0);
    }

    /// Whether a gateway is in.
    #[must_use]
    pub fn contains(self, g: GatewayIndex) -> bool {
        self.0 >> g.0 & 1 == 1
    }

    /// Whether no gateway is in.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Gateways in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The gateways, ascending.
    pub fn iter(self) -> impl Iterator<Item = GatewayIndex> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            // 128 (none left) does not come up: the set is not empty here.
            let g = u8::try_from(rest.trailing_zeros()).ok().filter(|_| rest != 0)?;
            rest &= rest - 1;
            Some(GatewayIndex(g))
        })
    }
}

/// Whether a user is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// A gateway says so.
    Connected,
    /// A gateway whose link is lost said so.
    Perhaps,
    /// None does.
    Nowhere,
}

/// Unix milliseconds; only room makes one forgotten, never time.
type Seen = Remembered<Box<str>, u64, RandomState>;
type Names = HashMap<Box<str>, GatewaySet, RandomState>;

#[derive(Default)]
struct Table {
    rooms: Names,
    users: Names,
    /// Gateways that are linked.
    open: GatewaySet,
    /// Of those, the ones whose part of the table is complete and current.
    known: GatewaySet,
}

/// The table. Its size is bounded by what the gateways may hold (`gateway.limits.rooms_total`, their connections).
pub struct Interest {
    table: RwLock<Table>,
    watches: Watches,
    /// When users left whom no gateway has any more. Locked after the table.
    seen: Mutex<Seen>,
}

/// Answers about the table at one moment, so that one push sees one state of it.
pub struct View<'a> {
    table: parking_lot::RwLockReadGuard<'a, Table>,
    unknown: GatewaySet,
}

impl Interest {
    /// An empty table for so many gateways, none of them known; remembers `seen_max` users who left.
    #[must_use]
    pub fn new(gateways: usize, seen_max: usize) -> Self {
        let mut table = Table::default();
        (0..gateways).filter_map(GatewayIndex::new).for_each(|g| table.open.insert(g));
        let (table, seen) = (RwLock::new(table), Mutex::new(Seen::without_end(seen_max)));
        Self { table, watches: Watches::default(), seen }
    }

    /// A gateway is linked from now on; until it is known it may have everything.
    pub fn open(&self, g: GatewayIndex) {
        self.table.write().open.insert(g);
    }

    /// A gateway is not linked any more, and has nothing.
    pub fn close(&self, g: GatewayIndex) {
        let mut table = self.table.write();
        let mut seen = self.seen.lock();
        let now_ms = unix_ms();
        table.forget(g).into_iter().for_each(|user| seen.keep(user, now_ms, now_ms));
        table.open.remove(g);
    }

    /// Takes over one reply of a gateway, in order.
    pub fn apply(&self, g: GatewayIndex, reply: &EventsReply) {
        let mut table = self.table.write();
        if !table.open.contains(g) {
            return;
        }
        let mut seen = self.seen.lock();
        let now_ms = unix_ms();
        if reply.is_snapshot {
            // Those whom the snapshot has are back with it.
            table.forget(g).into_iter().for_each(|user| seen.keep(user, now_ms, now_ms));
        }
        for interest in &reply.interest {
            let names = match interest.kind() {
                InterestKind::Room => &mut table.rooms,
                InterestKind::User => &mut table.users,
            };
            let name = interest.name.as_str();
            let is_user = interest.kind() == InterestKind::User;
            if is_user && interest.is_present {
                seen.forget(name);
            }
            match (names.get_mut(name), interest.is_present) {
                (Some(set), true) => set.insert(g),
                (None, true) => {
                    let mut set = GatewaySet::default();
                    set.insert(g);
                    names.insert(name.into(), set);
                }
                (Some(set), false) => {
                    set.remove(g);
                    if set.is_empty() {
                        names.remove(name);
                        if is_user {
                            seen.keep(name.into(), now_ms, now_ms);
                        }
                    }
                }
                (None, false) => {}
            }
        }
        // A full reply has more behind it: until that has come, a name that is missing here says nothing.
        if reply.page.is_empty() && reply.interest.len() < INTEREST_PAGE {
            table.known.insert(g);
        } else {
            table.known.remove(g);
        }
        drop(table);
        let came = reply.interest.iter().filter(|i| i.is_present && i.kind() == InterestKind::User);
        self.watches.tell(came.map(|i| i.name.as_str()));
    }

    /// Tells each time a gateway says that it has a user now.
    pub fn watch_user(&self, name: &str) -> Watch {
        self.watches.watch(name)
    }

    /// The link to a gateway is lost: what is known of it may be old, until its next reply says otherwise.
    pub fn doubt(&self, g: GatewayIndex) {
        self.table.write().known.remove(g);
    }

    /// Looks at the table; short, for the lock is held.
    pub fn view(&self) -> View<'_> {
        let table = self.table.read();
        let unknown = GatewaySet(table.open.0 & !table.known.0);
        View { table, unknown }
    }

    /// Where a user is, leaving one gateway out.
    #[must_use]
    pub fn whereabouts(&self, user: &str, except: Option<GatewayIndex>) -> Whereabouts {
        let table = self.table.read();
        let mut gateways = table.users.get(user).copied().unwrap_or_default();
        except.into_iter().for_each(|g| gateways.remove(g));
        if gateways.0 & table.known.0 != 0 {
            Whereabouts::Connected
        } else if gateways.is_empty() {
            Whereabouts::Nowhere
        } else {
            Whereabouts::Perhaps
        }
    }

    /// Names of rooms and of users in the table.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        let table = self.table.read();
        (table.rooms.len(), table.users.len())
    }

    /// When a user who is not connected was last seen, Unix milliseconds, if that is remembered.
    #[must_use]
    pub fn last_seen_ms(&self, user: &str) -> Option<u64> {
        self.seen.lock().peek(user).copied()
    }

    /// Users who left and are remembered.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.seen.lock().len()
    }

    /// Whether a gateway's part is complete and current.
    #[must_use]
    pub fn is_known(&self, g: GatewayIndex) -> bool {
        self.table.read().known.contains(g)
    }
}

impl Table {
    /// Takes a gateway out of every entry; gives the users whom no other gateway has.
    fn forget(&mut self, g: GatewayIndex) -> Vec<Box<str>> {
        let is_nowhere = |set: &mut GatewaySet| {
            set.remove(g);
            set.is_empty()
        };
        self.rooms.retain(|_, set| !is_nowhere(set));
        self.known.remove(g);
        self.users.extract_if(|_, set| is_nowhere(set)).map(|(user, _)| user).collect()
    }
}

impl View<'_> {
    /// Gateways that have members of a room, or may have.
    #[must_use]
    pub fn room(&self, name: &str) -> GatewaySet {
        self.table.rooms.get(name).copied().unwrap_or_default().union(self.unknown)
    }

    /// Whether a gateway is known to have connections of a user.
    #[must_use]
    pub fn has_user(&self, name: &str) -> bool {
        self.table.users.contains_key(name)
    }

    /// Gateways that have connections of a user, or may have.
    #[must_use]
    pub fn user(&self, name: &str) -> GatewaySet {
        self.table.users.get(name).copied().unwrap_or_default().union(self.unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_protocol::records;

    fn reply(is_snapshot: bool, page: &str, rooms: &[(&str, bool)]) -> EventsReply {
        let interest = rooms
            .iter()
            .map(|&(name, is_present)| records::Interest { kind: 0, name: name.into(), is_present })
            .collect();
        EventsReply { epoch: 1, cursor: 1, is_snapshot, page: page.into(), interest, gateway: None }
    }

    fn of_users(names: &[(&str, bool)]) -> EventsReply {
        let mut reply = reply(false, "", names);
        reply.interest.iter_mut().for_each(|i| i.kind = InterestKind::User.into());
        reply
    }

    fn at(i: usize) -> GatewayIndex {
        GatewayIndex::new(i).expect("small")
    }

    fn room(table: &Interest, name: &str) -> Vec<usize> {
        table.view().room(name).iter().map(GatewayIndex::get).collect()
    }

    #[test]
    fn a_gateway_without_a_complete_snapshot_may_have_everything() {
        let table = Interest::new(2, 10);
        table.apply(at(0), &reply(true, "", &[("a", true)]));
        assert_eq!(room(&table, "b"), [1]);

        table.apply(at(1), &reply(true, "more", &[("a", true)]));
        assert_eq!(room(&table, "b"), [1]);

        table.apply(at(1), &reply(false, "", &[("c", true)]));
        assert_eq!(room(&table, "b"), Vec::<usize>::new());
        assert_eq!(room(&table, "a"), [0, 1]);
        assert_eq!(room(&table, "c"), [1]);
    }

    #[test]
    fn a_gateway_with_more_to_say_may_have_everything() {
        let table = Interest::new(1, 10);
        table.apply(at(0), &reply(true, "", &[]));
        table.doubt(at(0));

        let full = vec![("a", true); INTEREST_PAGE];
        table.apply(at(0), &reply(false, "", &full));
        assert_eq!(room(&table, "b"), [0]);

        table.apply(at(0), &reply(false, "", &[]));
        assert_eq!(room(&table, "b"), Vec::<usize>::new());
    }

    #[test]
    fn the_last_word_on_a_name_counts() {
        let table = Interest::new(1, 10);
        table.apply(at(0), &reply(true, "", &[]));

        table.apply(at(0), &reply(false, "", &[("a", true), ("a", false), ("b", false), ("b", true)]));

        assert!(room(&table, "a").is_empty());
        assert_eq!(room(&table, "b"), [0]);
        assert_eq!(table.sizes(), (1, 0));
    }

    #[test]
    fn a_new_snapshot_forgets_what_was_known_of_that_gateway_only() {
        let table = Interest::new(2, 10);
        table.apply(at(0), &reply(true, "", &[("a", true)]));
        table.apply(at(1), &reply(true, "", &[("a", true), ("b", true)]));

        table.apply(at(1), &reply(true, "", &[]));

        assert_eq!(room(&table, "a"), [0]);
        assert!(room(&table, "b").is_empty());
    }

    #[test]
    fn a_closed_gateway_is_in_no_set() {
        let table = Interest::new(2, 10);
        table.apply(at(0), &reply(true, "", &[("a", true)]));
        table.apply(at(1), &reply(true, "", &[("a", true), ("b", true)]));
        table.apply(at(1), &of_users(&[("ann", true)]));

        table.close(at(1));
        table.apply(at(1), &reply(true, "", &[("a", true)]));

        assert_eq!((room(&table, "a"), room(&table, "b"), room(&table, "zzz")), (vec![0], vec![], vec![]));
        assert!(table.last_seen_ms("ann").is_some(), "who was there has left");
        table.open(at(1));
        assert_eq!(room(&table, "zzz"), [1], "its next owner may have everything");
    }

    #[test]
    fn the_longest_gone_makes_room() {
        let table = Interest::new(1, 2);
        for user in ["ann", "bob", "ann", "eve"] {
            table.apply(at(0), &of_users(&[(user, true)]));
            assert_eq!(table.last_seen_ms(user), None, "who is back is not gone");
            table.apply(at(0), &of_users(&[(user, false)]));
        }

        let is_known = |user| table.last_seen_ms(user).is_some();

        assert_eq!((is_known("ann"), is_known("bob"), is_known("eve"), table.seen()), (true, false, true, 2));
    }

    #[test]
    fn a_doubted_gateway_is_asked_until_it_speaks_again() {
        let table = Interest::new(1, 10);
        table.apply(at(0), &reply(true, "", &[("a", true)]));

        table.doubt(at(0));
        assert_eq!(room(&table, "zzz"), [0]);

        table.apply(at(0), &reply(false, "", &[]));
        assert!(room(&table, "zzz").is_empty());
        assert_eq!(room(&table, "a"), [0]);
    }

    #[test]
    fn who_watches_a_user_is_told_when_it_comes() {
        let table = Interest::new(1, 10);
        let (ann, bob) = (table.watch_user("ann"), table.watch_user("bob"));

        let mut news = reply(true, "", &[("ann", true), ("bob", false)]);
        news.interest.iter_mut().for_each(|i| i.kind = InterestKind::User.into());
        table.apply(at(0), &news);

        assert_eq!((is_told(&ann), is_told(&ann), is_told(&bob)), (true, false, false), "once for each time it comes");
    }

    /// Whether the watch has been told since it was asked last.
    fn is_told(watch: &Watch) -> bool {
        use std::future::Future;
        let mut told = std::pin::pin!(watch.told());
        told.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn a_set_holds_the_first_and_the_last_gateway() {
        let mut set = GatewaySet::default();
        set.insert(at(0));
        set.insert(at(GATEWAYS_MAX - 1));

        assert_eq!(set.iter().map(GatewayIndex::get).collect::<Vec<_>>(), [0, GATEWAYS_MAX - 1]);
        assert_eq!(GatewayIndex::new(GATEWAYS_MAX), None);
    }
}
