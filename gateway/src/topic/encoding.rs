//! The encodings in which a frame can leave: plain, which everybody takes, and others that are made once if somebody takes them.
//! A new one is an entry of [`Encoding::OTHERS`], what makes it (`deliver::merge`) and what agrees on it (`protocol::handshake`).

use bytes::Bytes;

/// How a frame is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is. Everybody takes it.
    Plain,
    /// By permessage-deflate with the whole window and no context (docs/adr/0013).
    Deflated,
}

impl Encoding {
    /// How many there are beside plain.
    pub const OTHERS_COUNT: usize = 1;
    /// Those, by index: the first that a connection takes is what it gets.
    pub const OTHERS: [Self; Self::OTHERS_COUNT] = [Self::Deflated];

    /// Where it stands in lists of the others; none for plain.
    #[must_use]
    #[inline]
    pub fn index(self) -> Option<usize> {
        match self {
            Self::Plain => None,
            Self::Deflated => Some(0),
        }
    }
}

/// One message in every encoding that was made of it, each a whole WebSocket frame.
#[derive(Clone, Debug)]
pub struct Frames {
    plain: Bytes,
    others: [Option<Bytes>; Encoding::OTHERS_COUNT],
}

impl Frames {
    /// A message in plain alone.
    #[must_use]
    pub fn new(plain: Bytes) -> Self {
        Self { plain, others: [const { None }; Encoding::OTHERS_COUNT] }
    }

    /// As a connection takes it that takes this encoding: plain where there is none of it.
    #[must_use]
    #[inline]
    pub fn of(&self, encoding: Encoding) -> &Bytes {
        encoding.index().and_then(|i| self.others[i].as_ref()).unwrap_or(&self.plain)
    }

    /// Adds an encoding. Plain is there from the beginning.
    pub fn set(&mut self, encoding: Encoding, frame: Option<Bytes>) {
        if let Some(i) = encoding.index() {
            self.others[i] = frame;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.others.iter().flatten().count()
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.plain.len() + self.others.iter().flatten().map(Bytes::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_made_is_taken_plain() {
        let mut frames = Frames::new("plain".into());
        assert_eq!((frames.of(Encoding::Deflated), frames.count(), frames.bytes()), (&"plain".into(), 1, 5));

        frames.set(Encoding::Deflated, Some("def".into()));

        assert_eq!((frames.of(Encoding::Plain), frames.of(Encoding::Deflated)), (&"plain".into(), &"def".into()));
        assert_eq!((frames.count(), frames.bytes()), (2, 8));
    }

    #[test]
    fn every_other_encoding_has_its_place() {
        for (i, encoding) in Encoding::OTHERS.into_iter().enumerate() {
            assert_eq!(encoding.index(), Some(i));
        }
        assert_eq!(Encoding::Plain.index(), None);
    }
}
