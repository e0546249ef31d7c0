//! How a push gets from the backplane to the buckets: it gathers in its topic's window ([`merge`]), leaves encoded once, and
//! is cut into one job a bucket for the threads that write ([`fanout`]).

pub mod fanout;
pub mod merge;
