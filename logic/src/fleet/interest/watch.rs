//! Those who wait for a user to come: told by name when a gateway says that it has the user.
//! Bound: one entry for each user that someone waits for, gone with the last [`Watch`].

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

type Waiters = HashMap<Box<str>, Vec<Arc<Notify>>, RandomState>;

/// All who wait.
#[derive(Default)]
pub(super) struct Watches(Arc<Mutex<Waiters>>);

/// One who waits.
pub struct Watch {
    waiters: Arc<Mutex<Waiters>>,
    name: Box<str>,
    told: Arc<Notify>,
}

impl Watches {
    pub fn watch(&self, name: &str) -> Watch {
        let told = Arc::new(Notify::new());
        self.0.lock().entry(name.into()).or_default().push(Arc::clone(&told));
        Watch { waiters: Arc::clone(&self.0), name: name.into(), told }
    }

    /// These users have come.
    pub fn tell<'n>(&self, names: impl Iterator<Item = &'n str>) {
        let waiters = self.0.lock();
        if waiters.is_empty() {
            return;
        }
        for name in names {
            waiters.get(name).into_iter().flatten().for_each(|told| told.notify_one());
        }
    }
}

impl Watch {
    /// The user has come since this was asked last.
    pub async fn told(&self) {
        self.told.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiters = self.waiters.lock();
        let Some(mine) = waiters.get_mut(&self.name) else { return };
        mine.retain(|told| !Arc::ptr_eq(told, &self.told));
        if mine.is_empty() {
            waiters.remove(&self.name);
        }
    }
}
