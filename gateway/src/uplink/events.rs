//! Events of connections' lives, for business services that want them: told to logic as items like what clients say, but
//! giving way to that. Unless some logic node wants a kind, an event of it costs one look at a byte.
//! Best effort: beyond half of the uplink's bounds an event is counted and dropped.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tidegate_protocol::close::CloseReason;
use tidegate_protocol::records::{self, Wants};

/// What happened to a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happened<'a> {
    /// It is open.
    Connected,
    /// It is over.
    Disconnected {
        /// The close code; 1006 when there was none.
        code: u16,
        /// How long it lasted.
        duration_ms: u64,
    },
    /// It is in a room.
    Joined(&'a str),
    /// It has left a room; why, when it did not ask for it.
    Left(&'a str, &'a str),
    /// It is its user's first here.
    UserOnline,
    /// It was its user's last here.
    UserOffline,
}

/// Names of kinds in the order of their bits; `tidegate_protocol::records::Event::kind`.
const KINDS: [&str; 6] = ["connected", "disconnected", "joined", "left", "user_online", "user_offline"];

impl Happened<'_> {
    fn place(self) -> usize {
        match self {
            Self::Connected => 0,
            Self::Disconnected { .. } => 1,
            Self::Joined(_) => 2,
            Self::Left(..) => 3,
            Self::UserOnline => 4,
            Self::UserOffline => 5,
        }
    }

    /// As it travels.
    pub(crate) fn record(self) -> records::Event {
        let mut event = records::Event { kind: KINDS[self.place()].to_owned(), ..records::Event::default() };
        match self {
            Self::Connected | Self::UserOnline | Self::UserOffline => {}
            Self::Disconnected { code, duration_ms } => {
                event.code = code.into();
                reason_of(code).clone_into(&mut event.reason);
                event.duration_ms = duration_ms;
            }
            Self::Joined(room) => room.clone_into(&mut event.room),
            Self::Left(room, reason) => {
                room.clone_into(&mut event.room);
                reason.clone_into(&mut event.reason);
            }
        }
        event
    }
}

/// Which kinds are wanted, and how many were dropped.
#[derive(Debug, Default)]
pub struct Wanted {
    kinds: AtomicU8,
    /// Events that gave way.
    pub dropped: AtomicU64,
}

impl Wanted {
    /// Logic nodes want these now.
    pub(super) fn set<'a>(&self, wants: impl Iterator<Item = &'a Wants>) {
        let mut kinds = 0;
        for kind in wants.flat_map(|wants| &wants.events) {
            if let Some(place) = KINDS.iter().position(|k| k == kind) {
                kinds |= 1 << place;
            }
        }
        // A user's going is debounced against their coming: one kind alone would tell of neither right.
        if kinds & 0b11_0000 != 0 {
            kinds |= 0b11_0000;
        }
        self.kinds.store(kinds, Ordering::Relaxed);
    }

    /// Whether anyone wants to hear of it.
    pub(crate) fn has(&self, happened: Happened<'_>) -> bool {
        self.kinds.load(Ordering::Relaxed) >> happened.place() & 1 == 1
    }
}

/// One word for a close code.
fn reason_of(code: u16) -> &'static str {
    if let Some(reason) = CloseReason::ALL.iter().find(|reason| reason.code() == code) {
        return reason.label();
    }
    match code {
        1000 | 1005 => "normal",
        1001 => "going_away",
        1006 => "lost",
        1002 | 1003 | 1007..=1010 => "violation",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use tidegate_protocol::records::item::What;

    use super::super::{Addressee, Said, Uplink, Whose};
    use super::*;

    fn wants(events: &[&str]) -> Wants {
        Wants { events: events.iter().map(|&event| event.to_owned()).collect(), ..Wants::default() }
    }

    #[test]
    fn only_what_some_node_wants_is_told() {
        let wanted = Wanted::default();
        assert!(!wanted.has(Happened::Connected));

        wanted.set([wants(&["connected"]), wants(&["left", "unheard_of"])].iter());

        assert!(wanted.has(Happened::Connected) && wanted.has(Happened::Left("r", "")));
        assert!(!wanted.has(Happened::Joined("r")) && !wanted.has(Happened::UserOnline));
        wanted.set([].iter());
        assert!(!wanted.has(Happened::Connected));
    }

    #[test]
    fn of_users_both_kinds_are_told_or_none() {
        let wanted = Wanted::default();

        wanted.set([wants(&["user_offline"])].iter());

        assert!(wanted.has(Happened::UserOnline) && wanted.has(Happened::UserOffline));
    }

    #[test]
    fn events_give_way_to_what_clients_say() {
        let config = crate::config::UplinkConfig { items: 10, ..crate::config::UplinkConfig::default() };
        let uplink = Uplink::new(&config);
        let event = || What::Event(Happened::Connected.record());

        for user in 0..10 {
            uplink.mention(Addressee::Name(&[user]), records::Sender::default(), event(), 0);
        }

        assert_eq!((uplink.kept().0, uplink.wants.wanted.dropped.load(Ordering::Relaxed)), (6, 4));
        let (whom, what) = (Addressee::Name(b"alice"), What::Send(records::Send::default()));
        let said = Said { whom, from: records::Sender::default(), what, whose: Whose::Nobody };
        assert!(uplink.say(said, 0).is_ok());
    }

    #[test]
    fn a_close_code_has_a_word() {
        let words = [3000, 3001, 1000, 1001, 1006, 1009, 4001].map(reason_of);
        assert_eq!(words, ["draining", "idle", "normal", "going_away", "lost", "violation", "other"]);
    }
}
