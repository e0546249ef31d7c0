//! Commands that wait for replies: who may reply to which, and how much is taken in.
//! Pure: no clock, no socket. A command lives as long as its [`Waiting`] is held; its deadline is the holder's affair.
//! Invariants: a reply counts once for each command and connection, only while the command waits, only from the user it was
//! for (of a room: from whoever knows the id, which was sent to its members alone); what is held is the sum of what living
//! replies hold, and never more than `replies_bytes`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use tidegate_protocol::ids::CommandId;
use tidegate_protocol::records::{self, Sender};
use tokio::sync::mpsc;

use crate::config::AgentsConfig;
use crate::push::To;

/// Whom a command is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The connections of a user.
    User(String),
    /// The members of a room.
    Room(String),
}

impl Target {
    /// As pushes name it.
    #[must_use]
    pub fn to(&self) -> To {
        match self {
            Self::User(user) => To::Users(vec![user.clone()]),
            Self::Room(room) => To::Rooms(vec![room.clone()]),
        }
    }
}

/// One agent's answer.
#[derive(Debug)]
pub struct Reply {
    /// Its user, or empty.
    pub user: String,
    /// Its connection (16 bytes).
    pub connection: Bytes,
    /// A JSON value.
    pub data: Bytes,
    /// Whether it says what went wrong.
    pub is_error: bool,
    held: Held,
}

impl Reply {
    /// A robot's.
    #[cfg(test)]
    pub fn of_robot(data: &'static [u8], is_error: bool) -> Self {
        let held = Held::take(&Arc::default(), data.len(), usize::MAX).expect("no bound");
        let connection = Bytes::from_static(&[0; 16]);
        Self { user: "robot".into(), connection, data: Bytes::from_static(data), is_error, held }
    }

    /// Counts its bytes in another budget, whose bound is its owner's affair.
    pub fn move_to(&mut self, budget: &Arc<AtomicUsize>) {
        if let Some(held) = Held::take(budget, self.data.len(), usize::MAX) {
            self.held = held;
        }
    }
}

/// Bytes of a budget, given back on drop.
#[derive(Debug)]
struct Held {
    budget: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    fn take(budget: &Arc<AtomicUsize>, bytes: usize, max: usize) -> Option<Self> {
        let before = budget.fetch_add(bytes, Ordering::Relaxed);
        let held = Self { budget: Arc::clone(budget), bytes };
        (before.saturating_add(bytes) <= max).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What becomes of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Its command has it.
    Taken,
    /// This connection has replied before.
    Again,
    /// No such command waits: it never was, has been answered, is late, or was meant for someone else.
    Late,
    /// The command, or all commands together, have as much as they may.
    Full,
}

impl Fate {
    /// One word for metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Again => "again",
            Self::Late => "late",
            Self::Full => "full",
        }
    }
}

struct Command {
    secret: u64,
    target: Target,
    replied: HashSet<Bytes, RandomState>,
    bytes: usize,
    sender: mpsc::Sender<Reply>,
}

/// The commands that wait.
pub struct Registry {
    /// Number → command.
    commands: Mutex<HashMap<u64, Command, RandomState>>,
    next: AtomicU64,
    held: Arc<AtomicUsize>,
    replies: usize,
    reply_bytes: usize,
    replies_bytes: usize,
}

/// A command that waits; dropped, it is over and later replies are late.
pub struct Waiting {
    registry: Arc<Registry>,
    /// Its id.
    pub id: CommandId,
    /// Replies as they come; at most `agents.replies` of them.
    pub replies: mpsc::Receiver<Reply>,
}

impl Registry {
    /// No command yet.
    #[must_use]
    pub fn new(config: &AgentsConfig) -> Self {
        Self {
            commands: Mutex::default(),
            next: AtomicU64::new(1),
            held: Arc::default(),
            replies: config.replies,
            reply_bytes: config.reply_bytes,
            replies_bytes: config.replies_bytes,
        }
    }

    /// A new command of this logic process. `secret` is random.
    pub fn begin(self: &Arc<Self>, logic: u64, secret: u64, target: Target) -> Waiting {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, replies) = mpsc::channel(self.replies);
        let command = Command { secret, target, replied: HashSet::default(), bytes: 0, sender };
        self.commands.lock().insert(number, command);
        Waiting { registry: Arc::clone(self), id: CommandId { logic, number, secret }, replies }
    }

    /// Takes a reply in.
    pub fn reply(&self, id: CommandId, from: Sender, reply: records::Reply) -> Fate {
        let Sender { user, connection, .. } = from;
        let mut commands = self.commands.lock();
        let Some(command) = commands.get_mut(&id.number).filter(|c| c.secret == id.secret) else { return Fate::Late };
        if matches!(&command.target, Target::User(meant) if *meant != user) {
            return Fate::Late;
        }
        if command.replied.contains(&connection) {
            return Fate::Again;
        }
        let bytes = reply.data.len();
        if command.replied.len() >= self.replies || command.bytes + bytes > self.reply_bytes {
            return Fate::Full;
        }
        let Some(held) = Held::take(&self.held, bytes, self.replies_bytes) else { return Fate::Full };
        let records::Reply { data, is_error, .. } = reply;
        let reply = Reply { user, connection: connection.clone(), data, is_error, held };
        // The channel has room for `replies`; it fails only when the command is about to be dropped.
        if command.sender.try_send(reply).is_err() {
            return Fate::Late;
        }
        command.bytes += bytes;
        command.replied.insert(connection);
        Fate::Taken
    }

    /// Commands that wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.commands.lock().len()
    }

    /// Bytes of replies held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.registry.commands.lock().remove(&self.id.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Bytes = Bytes::from_static(b"connection-a----");
    const B: Bytes = Bytes::from_static(b"connection-b----");

    fn registry(change: impl FnOnce(&mut AgentsConfig)) -> Arc<Registry> {
        let mut config = AgentsConfig::default();
        change(&mut config);
        Arc::new(Registry::new(&config))
    }

    /// Of a user, by a connection.
    fn from(user: &str, connection: Bytes) -> Sender {
        Sender { user: user.into(), connection, ..Sender::default() }
    }

    fn data(n: usize) -> records::Reply {
        records::Reply { data: Bytes::from(vec![b'1'; n]), ..records::Reply::default() }
    }

    /// Rule S-3.
    #[test]
    fn a_reply_is_taken_once_for_each_connection_and_only_while_its_command_waits() {
        let registry = registry(|_| {});
        let mut waiting = registry.begin(1, 42, Target::User("ann".into()));
        let id = waiting.id;

        let fates = [A, A, B].map(|connection| registry.reply(id, from("ann", connection), data(1)));
        let taken: Vec<Bytes> = std::iter::from_fn(|| waiting.replies.try_recv().ok()).map(|r| r.connection).collect();
        drop(waiting);

        assert_eq!(fates, [Fate::Taken, Fate::Again, Fate::Taken]);
        assert_eq!(taken, [A, B]);
        assert_eq!(registry.reply(id, from("ann", A), data(1)), Fate::Late);
        assert_eq!((registry.len(), registry.held()), (0, 0));
    }

    /// Rule S-3: who was not asked does not learn whether there was a question.
    #[test]
    fn a_guessed_id_and_another_users_reply_are_late_like_any_other() {
        let registry = registry(|_| {});
        let waiting = registry.begin(1, 42, Target::User("ann".into()));
        let room = registry.begin(1, 43, Target::Room("r".into()));
        let guessed = CommandId { secret: 41, ..waiting.id };

        assert_eq!(registry.reply(guessed, from("ann", A), data(1)), Fate::Late);
        assert_eq!(registry.reply(waiting.id, from("eve", A), data(1)), Fate::Late);
        assert_eq!(registry.reply(CommandId { number: 99, ..waiting.id }, from("ann", A), data(1)), Fate::Late);
        assert_eq!(registry.reply(room.id, from("whoever", A), data(1)), Fate::Taken);
    }

    #[test]
    fn replies_and_their_bytes_are_bounded_for_one_command_and_for_all() {
        let registry = registry(|c| (c.replies, c.reply_bytes, c.replies_bytes) = (2, 10, 15));
        let mut one = registry.begin(1, 1, Target::Room("r".into()));
        let two = registry.begin(1, 2, Target::Room("r".into()));
        let say = |w: &Waiting, place: u8, n| registry.reply(w.id, from("", Bytes::from(vec![place; 16])), data(n));

        assert_eq!(say(&one, 1, 11), Fate::Full, "too much for one command");
        assert_eq!(say(&one, 1, 10), Fate::Taken, "a smaller reply of the same connection still counts");
        assert_eq!(say(&one, 2, 1), Fate::Full);
        assert_eq!(say(&one, 2, 0), Fate::Taken);
        assert_eq!(say(&one, 3, 0), Fate::Full, "one reply too many");
        assert_eq!(say(&two, 1, 6), Fate::Full, "too much for all together");
        assert_eq!(registry.held(), 10);
        drop(one.replies.try_recv());
        assert_eq!(say(&two, 1, 6), Fate::Taken);
        assert_eq!(registry.held(), 6);
    }

    #[test]
    fn what_becomes_of_a_reply_is_counted_from_the_start_by_the_same_words() {
        assert_eq!([Fate::Taken, Fate::Again, Fate::Late, Fate::Full].map(Fate::label), crate::metrics::agents::FATES);
    }
}
