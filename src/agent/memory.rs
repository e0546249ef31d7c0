//! Commands of the last minutes and their replies, so that one that comes again (after a reconnect) is answered again and not
//! done again. Bound: the oldest finished one makes room; those being done are bounded by who does them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// How far a command is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// Being done.
    Running,
    /// The text of its REPLY, and whether it has been written to a connection.
    Done { reply: Arc<str>, is_sent: bool },
}

/// What to do with a COMMAND.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Do it.
    First,
    /// It is being done; its reply comes.
    Running,
    /// Answer again.
    Done(Arc<str>),
}

/// The memory.
#[derive(Debug)]
pub struct Memory {
    known: HashMap<Arc<str>, Known>,
    /// Finished ones by age.
    done: VecDeque<Arc<str>>,
    max: usize,
}

impl Memory {
    /// One for so many finished commands.
    pub fn new(max: usize) -> Self {
        Self { known: HashMap::new(), done: VecDeque::new(), max }
    }

    /// A COMMAND has come.
    pub fn see(&mut self, id: &str) -> Seen {
        match self.known.get(id) {
            None => {
                self.known.insert(id.into(), Known::Running);
                Seen::First
            }
            Some(Known::Running) => Seen::Running,
            Some(Known::Done { reply, .. }) => Seen::Done(Arc::clone(reply)),
        }
    }

    /// It is done.
    pub fn finish(&mut self, id: &str, reply: Arc<str>) {
        let id: Arc<str> = id.into();
        self.known.insert(Arc::clone(&id), Known::Done { reply, is_sent: false });
        self.done.push_back(id);
        if self.done.len() > self.max
            && let Some(oldest) = self.done.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Its reply has been written.
    pub fn sent(&mut self, id: &str) {
        if let Some(Known::Done { is_sent, .. }) = self.known.get_mut(id) {
            *is_sent = true;
        }
    }

    /// The reply of a finished one.
    pub fn reply(&self, id: &str) -> Option<Arc<str>> {
        match self.known.get(id) {
            Some(Known::Done { reply, .. }) => Some(Arc::clone(reply)),
            _ => None,
        }
    }

    /// Finished ones whose replies no connection has taken, by age.
    pub fn unsent(&self) -> Vec<Arc<str>> {
        let is_unsent = |id: &&Arc<str>| matches!(self.known.get(*id), Some(Known::Done { is_sent: false, .. }));
        self.done.iter().filter(is_unsent).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule S-3.
    #[test]
    fn a_command_that_comes_again_is_answered_again_and_not_done_again() {
        let mut memory = Memory::new(10);

        assert_eq!(memory.see("a"), Seen::First);
        assert_eq!(memory.see("a"), Seen::Running);
        memory.finish("a", "reply".into());
        assert_eq!(memory.unsent(), [Arc::from("a")]);
        memory.sent("a");
        assert_eq!(memory.see("a"), Seen::Done("reply".into()));
        assert!(memory.unsent().is_empty());
    }

    #[test]
    fn the_oldest_finished_command_makes_room() {
        let mut memory = Memory::new(2);
        memory.see("running");
        for id in ["a", "b", "c"] {
            memory.see(id);
            memory.finish(id, id.into());
        }

        assert_eq!(memory.see("running"), Seen::Running);
        assert_eq!(memory.see("c"), Seen::Done("c".into()));
        assert_eq!(memory.see("a"), Seen::First);
        assert_eq!(memory.unsent(), [Arc::from("b"), Arc::from("c")]);
    }
}
