//! The life of a connection: how it is opened, what it asks for, which rooms it is in, how its silence is noticed and how it ends.
//! One task a bucket lives through it ([`event_loop`]); what it lives on is the bucket's table.

pub(crate) mod close;
pub(crate) mod devices;
pub(crate) mod event_loop;
pub(crate) mod greeting;
pub(crate) mod host;
mod login;
pub(crate) mod membership;
pub(crate) mod open;
pub(crate) mod rare;
mod rate;
mod refresh;
pub(crate) mod report;
mod requests;
mod send;
mod sweep;
mod unfinished;
