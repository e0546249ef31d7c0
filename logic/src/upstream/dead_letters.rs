//! Dead letters, for operators: list them, give them another try, forget them. One at a time for each sink, so that two
//! operators do not move the same letter twice. Works in pages, so that memory does not grow with their number.

use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::oneshot;

use super::sink::{Sink, Work};
use super::spool::{Dead, SpoolError};

/// Letters moved by one commit.
const PAGE: usize = 256;

/// Which letters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every one that is there now.
    All,
    /// The one with this message's id.
    Id(String),
}

/// What is done to letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// They are messages again, behind all others.
    Retry,
    /// They are gone for good.
    Forget,
}

#[derive(Deserialize)]
struct Named<'a> {
    id: &'a str,
}

impl Which {
    fn means(&self, dead: &Dead) -> bool {
        match self {
            Self::All => true,
            Self::Id(id) => tidegate_protocol::json::from_slice::<Named<'_>>(&dead.message.line)
                .is_ok_and(|named| named.id == id.as_str()),
        }
    }
}

impl Sink {
    /// Dead letters after a number, by age.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn dead(self: &Arc<Self>, after: u64, most: usize) -> Result<Vec<Dead>, SpoolError> {
        let sink = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || sink.spool.dead(after, most));
        // The task neither panics nor is aborted while the runtime lives.
        read.await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    /// Does something to letters; says to how many. Letters for which the spool has no room are left.
    ///
    /// # Errors
    /// What the disk says; what was done before stays done.
    pub async fn tend(self: &Arc<Self>, which: &Which, deed: Deed) -> Result<u64, SpoolError> {
        let _turn = self.tending.lock().await;
        // Those that die meanwhile have higher numbers; they are the next caller's.
        let (mut done, mut after, mut left) = (0, 0, self.ledger.books().dead.messages);
        while left > 0 {
            let page = self.dead(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.message.number;
            left = left.saturating_sub(page.len() as u64);
            let mut dead: Vec<Dead> = page.into_iter().filter(|dead| which.means(dead)).collect();
            let meant = dead.len();
            if deed == Deed::Retry {
                let fits = dead.iter().take_while(|dead| self.ledger.revive(dead.grave())).count();
                dead.truncate(fits);
            }
            let moved = dead.len();
            if moved > 0 && self.commit(dead, deed).await {
                done += moved as u64;
            } else if moved > 0 {
                break;
            }
            if moved < meant || (meant > 0 && matches!(which, Which::Id(_))) {
                break;
            }
        }
        Ok(done)
    }

    async fn commit(&self, dead: Vec<Dead>, deed: Deed) -> bool {
        let (sender, outcome) = oneshot::channel();
        let work = match deed {
            Deed::Retry => Work::Revive { dead, sender },
            Deed::Forget => Work::Forget { dead, sender },
        };
        self.hand_in(work).await && outcome.await.unwrap_or(false)
    }
}
