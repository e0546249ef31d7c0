//! What a server speaks: how a client opens, joins and answers, and what a frame's payload means.
//! A file of its own because the swarm treats every server alike: Tidegate's words are one implementation, those of
//! the others have a file each. A dialect has no state; whatever a client must remember is in the worker's arrays.

pub mod content;
pub mod form;
pub mod head;
pub mod mosquitto;
pub mod nats;
pub mod nchan;
pub mod socketio;
pub mod ws;

use self::content::Content;
use self::form::Form;

/// One server's words. Payloads only: framing and masking are the swarm's.
pub trait Dialect: std::fmt::Debug + Sync {
    /// As on the command line.
    fn name(&self) -> &'static str;

    /// `Sec-WebSocket-Protocol` of the upgrade request.
    fn subprotocol(&self) -> Option<&'static str> {
        None
    }

    /// What stands behind the `?` of the upgrade request.
    fn query(&self) -> Option<&'static str> {
        None
    }

    /// Opcode of data frames in both directions.
    fn opcode(&self) -> u8 {
        head::TEXT
    }

    /// The 101 is all a client waits for: it subscribed by its request.
    fn is_open_at_once(&self) -> bool {
        false
    }

    /// Sent right behind the 101.
    fn opening(&self) -> Option<Vec<u8>> {
        None
    }

    /// Sent in answer to [`Content::Hello`]; `None` when the client is open by then.
    fn join(&self, rooms: &[String]) -> Option<Vec<u8>>;

    /// Sent in answer to a probe.
    fn pong(&self) -> &'static [u8] {
        b""
    }

    fn parse(&self, payload: &[u8]) -> Content;

    /// How a message is handed to the server.
    fn form(&self) -> Form;
}

/// `docs/protocol.md`, as anyone would read it.
#[derive(Debug)]
pub struct Tidegate;

impl Dialect for Tidegate {
    fn name(&self) -> &'static str {
        "tidegate"
    }

    fn join(&self, rooms: &[String]) -> Option<Vec<u8>> {
        if rooms.is_empty() {
            return None;
        }
        let message = serde_json::json!({"type": "JOIN", "id": 1, "data": {"rooms": rooms}});
        Some(message.to_string().into_bytes())
    }

    fn parse(&self, payload: &[u8]) -> Content {
        Content::parse(payload)
    }

    fn form(&self) -> Form {
        Form::Push
    }
}

/// Every dialect that can be asked for.
pub const ALL: [&dyn Dialect; 6] =
    [&Tidegate, &nchan::Nchan, &nats::Nats, &mosquitto::Mosquitto, &ws::Ws, &socketio::SocketIo];

/// For the command line: a dialect by its name.
pub fn named(name: &str) -> Result<&'static dyn Dialect, String> {
    ALL.into_iter().find(|dialect| dialect.name() == name).ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|dialect| dialect.name()).collect();
        format!("`{name}` is not one of {}", names.join(", "))
    })
}
