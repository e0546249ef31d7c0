//! Commands of the last minutes and their replies, so that one that comes again (after a reconnect) is answered again and not
//! done again. Bound: the oldest finished one makes room; those being done are bounded by who does them.

use std::collections::HashSet;
use std::sync::Arc;

use tidegate_protocol::remembered::Remembered;

/// A finished command: the text of its REPLY, and whether it has been written to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Done {
    reply: Arc<str>,
    is_sent: bool,
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
    running: HashSet<Arc<str>>,
    done: Remembered<Arc<str>, Done>,
}

impl Memory {
    /// One for so many finished commands.
    pub fn new(max: usize) -> Self {
        Self { running: HashSet::new(), done: Remembered::without_end(max) }
    }

    /// A COMMAND has come.
    pub fn see(&mut self, id: &str) -> Seen {
        if let Some(Done { reply, .. }) = self.done.peek(id) {
            return Seen::Done(Arc::clone(reply));
        }
        if self.running.insert(id.into()) { Seen::First } else { Seen::Running }
    }

    /// It is done.
    pub fn finish(&mut self, id: &str, reply: Arc<str>) {
        self.running.remove(id);
        // Only room makes it forgotten, never time.
        self.done.keep(id.into(), Done { reply, is_sent: false }, 0);
    }

    /// Its reply has been written.
    pub fn sent(&mut self, id: &str) {
        if let Some(done) = self.done.peek_mut(id) {
            done.is_sent = true;
        }
    }

    /// The reply of a finished one.
    pub fn reply(&self, id: &str) -> Option<Arc<str>> {
        self.done.peek(id).map(|done| Arc::clone(&done.reply))
    }

    /// Finished ones whose replies no connection has taken, by age.
    pub fn unsent(&self) -> Vec<Arc<str>> {
        self.done.iter().filter(|(_, done)| !done.is_sent).map(|(id, _)| Arc::clone(id)).collect()
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
