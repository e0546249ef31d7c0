//! Certificates on their way into force. Reading them may fail, putting them in force cannot: so a process reads all, checks
//! whatever else changes with them, and exchanges them last.

use std::fmt;

use crate::error::TlsError;

/// Certificates that were read and are good. Dropped, everything stays as it was.
#[must_use = "nothing is in force before `apply`"]
pub struct Renewal<'a>(Vec<Box<dyn FnOnce() + 'a>>);

impl<'a> Renewal<'a> {
    pub(crate) fn new(exchange: impl FnOnce() + 'a) -> Self {
        Self(vec![Box::new(exchange)])
    }

    /// Those of several sections; of one without TLS there is none.
    ///
    /// # Errors
    /// What could not be read, each with its section and file.
    pub fn all<const N: usize>(parts: [(&str, Option<Result<Self, TlsError>>); N]) -> Result<Self, Vec<String>> {
        let (mut exchanges, mut problems) = (Vec::new(), Vec::new());
        for (section, part) in parts {
            match part {
                None => {}
                Some(Ok(part)) => exchanges.extend(part.0),
                Some(Err(error)) => problems.push(format!("{section}: {error}")),
            }
        }
        if problems.is_empty() { Ok(Self(exchanges)) } else { Err(problems) }
    }

    /// Puts them in force, for handshakes from now on.
    pub fn apply(self) {
        self.0.into_iter().for_each(|exchange| exchange());
    }
}

impl fmt::Debug for Renewal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Renewal").field(&self.0.len()).finish()
    }
}
