//! How a message is handed to a server: Tidegate's push API, a plain POST, or a protocol of the server's own over TCP.
//! A file of its own because the schedule is the same for all: only the bytes differ. `publish` writes them.

#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// `POST /v1/push` with targets and messages.
    Push,
    /// A POST to this path whose body is the message; one message a push.
    Post(&'static str),
    /// Not HTTP.
    Stream(&'static dyn Stream),
}

/// Publishing without an answer to each message.
pub trait Stream: std::fmt::Debug + Sync {
    /// Sent once the connection stands, without waiting.
    fn opening(&self) -> Vec<u8>;
    /// Appends one publication of `message`.
    fn message(&self, message: &[u8], out: &mut Vec<u8>);
    /// Sent behind the last message …
    fn flush(&self) -> &'static [u8];
    /// … and what is in the answer when the server has taken everything before.
    fn flushed(&self) -> &'static [u8];
}
