//! Healthy clients in number, each of which should notice nothing: they get a broadcast and say when it came.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Api, Client, Event, percentile};

/// Connected clients that answer every beat.
pub struct Crowd {
    members: JoinSet<()>,
    arrivals: mpsc::Receiver<(u64, Instant)>,
    size: usize,
    beats: u64,
}

/// Handshakes at a time: enough to keep both cores busy, far below a listener's backlog.
const HANDSHAKES_AT_ONCE: usize = 64;
/// A beat that is not everywhere by then is lost.
const BEAT_PATIENCE: Duration = Duration::from_secs(15);

impl Crowd {
    /// Connects `size` clients.
    pub async fn connect(address: SocketAddr, size: usize) -> Self {
        let (sender, arrivals) = mpsc::channel(size * 4);
        let mut handshakes = JoinSet::new();
        let mut members = JoinSet::new();
        for started in 0..size + HANDSHAKES_AT_ONCE {
            if started < size {
                handshakes.spawn(async move { Client::connect(address).await });
            }
            if started + 1 >= HANDSHAKES_AT_ONCE
                && let Some(client) = handshakes.join_next().await
            {
                members.spawn(listen(client.expect("a good handshake succeeds"), sender.clone()));
            }
        }
        assert_eq!(members.len(), size, "all clients are connected");
        Self { members, arrivals, size, beats: 0 }
    }

    /// One urgent broadcast; how long each member waited for it. Panics when a member misses it.
    pub async fn beat(&mut self, api: &mut Api) -> Vec<Duration> {
        self.beats += 1;
        let beat = self.beats;
        let sent = Instant::now();
        let receipt = api.push(json!({"to": {"all": true}, "message": {"beat": beat}, "lane": "urgent"})).await;
        let mut waits = Vec::with_capacity(self.size);
        while waits.len() < self.size {
            let arrival = tokio::time::timeout(BEAT_PATIENCE, self.arrivals.recv()).await.ok().flatten();
            let Some((number, at)) = arrival else {
                panic!("{} of {} members have beat {beat}; receipt {receipt}", waits.len(), self.size)
            };
            assert_eq!(number, beat, "beats come once and in order");
            waits.push(at.saturating_duration_since(sent));
        }
        waits
    }

    /// The p99 of each of several beats.
    pub async fn beats(&mut self, api: &mut Api, n: usize) -> Vec<Duration> {
        let mut slowest = Vec::with_capacity(n);
        for _ in 0..n {
            slowest.push(percentile(&mut self.beat(api).await, 99));
        }
        slowest
    }

    /// Members still connected.
    pub fn connected(&self) -> usize {
        self.members.len()
    }
}

/// Reports each beat that comes; ends, loudly, when the server ends the connection.
async fn listen(mut client: Client, arrivals: mpsc::Sender<(u64, Instant)>) {
    loop {
        let Some(received) = client.next_within(Duration::from_secs(120)).await else { return };
        match received.event {
            Event::Text(text) => {
                for found in text.match_indices(r#"{"beat":"#) {
                    let digits: String = text[found.0 + 8..].chars().take_while(char::is_ascii_digit).collect();
                    let beat = digits.parse().expect("a beat is a number");
                    let _ = arrivals.send((beat, received.at)).await;
                }
            }
            Event::Closed(code, reason) => panic!("a healthy client was closed: {code} {reason}"),
            Event::Lost => return,
            Event::Binary(_) | Event::Ping(_) | Event::Pong(_) => {}
        }
    }
}
