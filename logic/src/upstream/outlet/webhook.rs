//! A service that is posted to: messages as lines of one signed request, and what its status means for all of them alike.
//!
//! | answer | means |
//! | --- | --- |
//! | 2xx | taken |
//! | 408, 425, 429, 5xx, 3xx | later |
//! | other 4xx | never |
//! | no connection | later |
//! | silence, a connection that broke | nobody knows |

use bytes::BytesMut;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{Fate, Fault, Line, Outlet, Peer, Said, Sending, Sent};
use crate::config::SinkConfig;
use crate::http_client::connect::Resolve;
use crate::http_client::{Answered, Client, Endpoint, Good, Trouble};

/// A service behind a URL.
pub struct Webhook(Client);

impl From<&SinkConfig> for Endpoint {
    fn from(sink: &SinkConfig) -> Self {
        Self {
            url: sink.url.clone(),
            secrets: sink.secrets.clone(),
            headers: sink.headers.clone(),
            allow_private: sink.allow_private,
            ca: sink.ca.clone(),
            answer_bytes: sink.answer_bytes,
            idle_max: usize::from(sink.lanes),
            good: Good::Success,
        }
    }
}

impl Webhook {
    /// Of a sink without [problems](crate::LogicConfig::problems).
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn new(sink: &SinkConfig, resolve: Resolve) -> Result<Self, String> {
        Client::new(&Endpoint::from(sink), resolve).map(Self)
    }

    async fn post(&self, lines: &[Line<'_>], until: Instant) -> Sent {
        let mut body = BytesMut::with_capacity(lines.iter().map(|line| line.text.len() + 1).sum());
        for line in lines {
            body.extend_from_slice(line.text);
            body.extend_from_slice(b"\n");
        }
        let (fate, after, said) = meaning(self.0.post(&request_id(lines), body.freeze(), until).await);
        Sent { fates: vec![fate; lines.len()], after, said }
    }
}

impl Outlet for Webhook {
    fn send<'a>(&'a self, lines: &'a [Line<'a>], until: Instant) -> Sending<'a> {
        Box::pin(self.post(lines, until))
    }

    fn peers(&self) -> Vec<Peer> {
        vec![Peer { address: self.0.shown_url() }]
    }
}

fn meaning(answer: Result<Answered, Trouble>) -> (Fate, Option<std::time::Duration>, Said) {
    match answer {
        Ok(Answered { status: 200..300, said, .. }) => (Fate::Taken, None, said),
        Ok(Answered { status: status @ (408 | 425 | 429), after, .. }) => {
            (Fate::Later(refused(status)), after, Said::Unread)
        }
        Ok(Answered { status: status @ 400..500, .. }) => (Fate::Never(refused(status)), None, Said::Unread),
        Ok(Answered { status, after, .. }) => (Fate::Later(refused(status)), after, Said::Unread),
        Err(trouble @ Trouble::Unreachable(_)) => (Fate::Later(silent(&trouble)), None, Said::Unread),
        Err(trouble @ (Trouble::Timeout | Trouble::Broken)) => (Fate::Unknown(silent(&trouble)), None, Said::Unread),
    }
}

fn refused(status: u16) -> Fault {
    Fault { label: "status", words: format!("status {status}"), is_silence: false }
}

fn silent(trouble: &Trouble) -> Fault {
    Fault { label: trouble.label(), words: trouble.words(), is_silence: true }
}

#[derive(Deserialize)]
struct Named<'a> {
    id: &'a str,
}

/// The same for the same lines, and for no other: a receiver may drop a request it has seen. After a start with other lanes
/// as many messages can follow the same first one, so all numbers are in it, as a hash.
fn request_id(lines: &[Line<'_>]) -> String {
    let first: Option<Named<'_>> = lines.first().and_then(|line| tidegate_protocol::json::from_slice(line.text).ok());
    let mut numbers = Sha256::new();
    lines.iter().for_each(|line| numbers.update(line.number.to_le_bytes()));
    let hash: [u8; 32] = numbers.finalize().into();
    let short = hash.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    format!("{}-{}-{short:016x}", first.map_or("none", |named| named.id), lines.len())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::http_client::connect::system_resolver;
    use crate::http_client::service::{Hook, reply};

    static TEXT: Bytes = Bytes::from_static(b"{\"id\":\"x\"}");

    async fn post(url: String) -> Sent {
        let secrets = vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()];
        let config = SinkConfig { url, secrets, allow_private: true, ..SinkConfig::default() };
        let webhook = Webhook::new(&config, system_resolver()).expect("a sound sink");
        let lines = [1, 2].map(|number| Line { number, text: &TEXT });
        webhook.send(&lines, Instant::now() + Duration::from_secs(2)).await
    }

    #[tokio::test]
    async fn each_status_means_taken_later_or_never() {
        let elsewhere = Hook::start(|_, _| reply(200, "")).await;
        let location = elsewhere.url();
        for status in [200, 202, 204, 301, 307, 400, 401, 403, 404, 408, 410, 413, 425, 429, 500, 502, 503, 504] {
            let location = location.clone();
            let hook = Hook::start(move |_, _| {
                let mut reply = reply(status, "");
                reply.headers_mut().insert("location", location.parse().expect("a URL"));
                reply.headers_mut().insert("retry-after", "7".parse().expect("a number"));
                reply
            })
            .await;

            let sent = post(hook.url()).await;

            let (fate, after, said) = match status {
                200..=299 => (Fate::Taken, None, Said::Body(Bytes::new())),
                408 | 425 | 429 | 300..=399 | 500.. => {
                    (Fate::Later(refused(status)), Some(Duration::from_secs(7)), Said::Unread)
                }
                _ => (Fate::Never(refused(status)), None, Said::Unread),
            };
            assert_eq!(sent, Sent { fates: vec![fate.clone(), fate], after, said }, "{status}");
        }
        assert!(elsewhere.got().is_empty(), "no redirect was followed");
    }

    #[test]
    fn an_answer_may_be_large_slow_or_cut_without_the_messages_being_sent_again() {
        for said in [Said::TooMuch, Said::Broken] {
            assert_eq!(meaning(Ok(Answered { status: 200, after: None, said })).0, Fate::Taken);
        }
    }

    #[test]
    fn after_silence_nobody_knows_and_after_a_refused_connection_everybody() {
        let (unreachable, _, _) = meaning(Err(Trouble::Unreachable("refused".into())));
        let (timeout, _, _) = meaning(Err(Trouble::Timeout));
        let (broken, _, _) = meaning(Err(Trouble::Broken));

        assert!(matches!(unreachable, Fate::Later(Fault { label: "unreachable", is_silence: true, .. })));
        assert!(matches!(timeout, Fate::Unknown(Fault { label: "timeout", is_silence: true, .. })));
        assert!(matches!(broken, Fate::Unknown(Fault { label: "broken", is_silence: true, .. })));
    }

    #[test]
    fn a_request_has_a_name_of_its_own_also_after_lanes_have_changed() {
        let texts = [5, 6, 7, 9].map(|number| (number, Bytes::from(format!("{{\"id\":\"m{number}\"}}"))));
        let batch = |numbers: [u64; 3]| {
            let line = |number: u64| {
                let (_, text) = texts.iter().find(|(known, _)| *known == number).expect("is there");
                Line { number, text }
            };
            numbers.map(line)
        };
        let id = request_id(&batch([5, 7, 9]));

        assert_eq!(id, request_id(&batch([5, 7, 9])));
        assert!(id.starts_with("m5-3-"), "{id}");
        assert_ne!(id, request_id(&batch([5, 6, 7])), "as many lines behind the same first one");
        assert_ne!(id, request_id(&batch([5, 7, 9])[..2]));
    }
}
