//! The way out of a spool to a service: [`Outlet`], of which there is one for each kind of service (`webhook`).
//! An outlet sends and says what became of each message; when to try again, and what is given up, is `worker`'s and `retry`'s.

mod webhook;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub use self::webhook::Webhook;
pub use crate::http_client::Said;

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Its number in the spool.
    pub number: u64,
    /// JSON without line breaks.
    pub text: &'a Bytes,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The service has it.
    Taken,
    /// The service will never take it.
    Never(Fault),
    /// The service has not taken it, and may later.
    Later(Fault),
    /// Nobody knows whether the service has it.
    Unknown(Fault),
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// One word for metrics.
    pub label: &'static str,
    /// A few words for operators; never of what the service or a client said.
    pub words: String,
    /// Whether the service said nothing at all, so that it may be the service's fault as well as the message's.
    pub is_silence: bool,
}

/// What became of a sending.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent {
    /// One for each line, in their order.
    pub fates: Vec<Fate>,
    /// Nothing more before this time, as the service wishes.
    pub after: Option<Duration>,
    /// What the service wants done.
    pub said: Said,
}

/// An end that an outlet sends to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is, without what may be secret in it.
    pub address: String,
}

/// A sending on its way.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Sent> + Send + 'a>>;

/// Sends messages to a service.
pub trait Outlet: Send + Sync + 'static {
    /// Sends lines, at least one, and knows by `until` what became of them. The same lines sent again must be known to the
    /// service as the same.
    fn send<'a>(&'a self, lines: &'a [Line<'a>], until: Instant) -> Sending<'a>;

    /// Where it sends to.
    fn peers(&self) -> Vec<Peer>;
}
