//! The verifier in force, and how it changes while connections live: a reload, or a key file that was written anew. A new one
//! takes the old one's place whole or not at all.
//! Files are looked at by time and size every two seconds: a poll works on every file system, also through the links that
//! Kubernetes exchanges, and costs nothing beside a handshake.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};

use super::keys::{self, KeyError};
use super::{Claims, TokenError, Verifier};
use crate::clock::unix_s;
use crate::config::{AuthConfig, AuthMode};
use crate::lifecycle::Lifecycle;
use crate::session::Access;

/// Time between looks at the files.
const LOOK: Duration = Duration::from_secs(2);

/// When and how large a file is; none: it cannot be looked at.
type Stamp = (PathBuf, Option<(SystemTime, u64)>);

/// How a gateway knows its clients.
#[derive(Debug)]
pub(crate) struct Auth {
    is_required: bool,
    verifier: RwLock<Arc<Verifier>>,
    source: Mutex<Source>,
    /// Refused tokens by [`TokenError::CODES`].
    refused: [AtomicU64; TokenError::CODES.len()],
    accepted: AtomicU64,
    /// Exchanges of the verifier, and attempts that failed.
    reloads: AtomicU64,
    failures: AtomicU64,
}

/// What the verifier was made of.
#[derive(Debug)]
struct Source {
    config: AuthConfig,
    stamps: Vec<Stamp>,
}

impl Auth {
    /// Reads the keys; none are needed where clients name themselves.
    pub(crate) fn new(config: &AuthConfig) -> Result<Self, KeyError> {
        let stamps = stamps(config);
        Ok(Self {
            is_required: config.mode == AuthMode::Jwt,
            verifier: RwLock::new(Arc::new(Verifier::new(config)?)),
            source: Mutex::new(Source { config: config.clone(), stamps }),
            refused: Default::default(),
            accepted: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// Whether clients must bring a token. Fixed at the start: those who are here have proven nothing otherwise.
    pub(crate) fn is_required(&self) -> bool {
        self.is_required
    }

    /// Verifies a token by the keys in force, and counts.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let verifier = Arc::clone(&self.verifier.read());
        let outcome = verifier.verify(token, u64::from(unix_s()));
        match &outcome {
            Ok(_) => {
                self.accepted.fetch_add(1, Relaxed);
            }
            Err(error) => {
                self.refuse(*error);
            }
        }
        outcome
    }

    /// Counts a token that was refused unread; gives its error back.
    pub(crate) fn refuse(&self, error: TokenError) -> TokenError {
        self.refused[error.index()].fetch_add(1, Relaxed);
        error
    }

    /// How long after its `exp` a token still counts.
    pub(crate) fn leeway_s(&self) -> u32 {
        self.verifier.read().leeway_s()
    }

    /// Puts another configuration in force, files read anew. One of another mode waits for the restart that a mode needs: its
    /// keys, or that it has none, are not meant for those who are here.
    pub(crate) fn reload(&self, config: &AuthConfig) -> Result<(), KeyError> {
        if (config.mode == AuthMode::Jwt) != self.is_required {
            return Ok(());
        }
        self.exchange(&mut self.source.lock(), config, stamps(config))
    }

    /// A verifier of this configuration, with its files as they were when `stamps` was taken or newer.
    fn exchange(&self, source: &mut Source, config: &AuthConfig, stamps: Vec<Stamp>) -> Result<(), KeyError> {
        match Verifier::new(config) {
            Ok(verifier) => {
                *self.verifier.write() = Arc::new(verifier);
                *source = Source { config: config.clone(), stamps };
                self.reloads.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(error) => {
                self.failures.fetch_add(1, Relaxed);
                Err(error)
            }
        }
    }

    /// Reads the files again if any has changed. In one piece: a configuration that has come meanwhile must not go again.
    fn look(&self) {
        let outcome = {
            let mut source = self.source.lock();
            let now = stamps(&source.config);
            if now == source.stamps {
                return;
            }
            // Also when they turn out to be of no use: a broken file is complained of once, and looked at when it changes again.
            source.stamps.clone_from(&now);
            let config = source.config.clone();
            self.exchange(&mut source, &config, now)
        };
        match outcome {
            Ok(()) => tracing::info!(keys = self.keys(), "keys for tokens read again"),
            Err(error) => tracing::warn!(%error, "keys for tokens stay as they were"),
        }
    }

    /// Keys in force.
    pub(crate) fn keys(&self) -> usize {
        self.verifier.read().keys()
    }

    /// Tokens accepted; exchanges of keys; exchanges that failed.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        (self.accepted.load(Relaxed), self.reloads.load(Relaxed), self.failures.load(Relaxed))
    }

    /// Tokens refused, by code.
    pub(crate) fn refusals(&self) -> Vec<(&'static str, u64)> {
        TokenError::CODES.iter().zip(&self.refused).map(|(code, n)| (*code, n.load(Relaxed))).collect()
    }
}

fn stamps(config: &AuthConfig) -> Vec<Stamp> {
    let stamp = |path: PathBuf| {
        let seen = std::fs::metadata(&path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        (path, seen)
    };
    keys::files(config).into_iter().map(stamp).collect()
}

/// Follows the key files until the gateway stops.
pub(crate) async fn watch(access: Arc<Access>, lifecycle: Arc<Lifecycle>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = lifecycle.stopped() => return,
            _ = looks.tick() => access.auth.look(),
        }
    }
}
