//! Thousands of commands at once: what carries them has room for all that `logic.agents.commands` lets in. A file of its own,
//! because it takes thousands of sockets.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Client, Server, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The status of a command that may take a minute.
async fn status_of_command(api: std::net::SocketAddr, user: &str) -> String {
    let body = r#"{"command":"x","timeout_ms":60000}"#;
    let request = format!(
        "POST /v1/agents/{user}/command HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut socket = TcpStream::connect(api).await.expect("somebody listens");
    socket.write_all(request.as_bytes()).await.expect("taken");
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(90), socket.read_to_string(&mut answer)).await;
    read.expect("an answer in time").expect("a whole answer");
    answer.lines().next().unwrap_or_default().to_owned()
}

/// With several gateways none of them may have all requests in progress to itself; commands are none of those.
#[tokio::test]
async fn a_burst_of_commands_is_carried_out_whole_at_one_of_two_gateways() {
    let gateways = [Server::gateway("gw-1", &[]).await, Server::gateway("gw-2", &[]).await];
    // A debug build on busy cores may be slow, and a link that seems silent would be dialled anew.
    let patient = [("TIDEGATE_LOGIC__BACKPLANE__PING_MS", "30000"), ("TIDEGATE_LOGIC__BACKPLANE__REQUEST_MS", "60000")];
    let server = Server::logic(&[&gateways[0], &gateways[1]], &patient).await;

    for (user, burst) in [("robot", 1_000), ("crane", 4_000)] {
        let mut agent = Client::named(gateways[0].clients(), user, "agent").await;
        let mut api = server.connect_api().await;
        until("the agent to be known", support::PATIENCE, async || {
            (api.get(&format!("/v1/users/{user}")).await.json()["online"] == true).then_some(())
        })
        .await;
        let waiting: Vec<_> = (0..burst).map(|_| tokio::spawn(status_of_command(server.api(), user))).collect();
        for _ in 0..burst {
            let message: Value = serde_json::from_str(&agent.next_text().await).expect("JSON");
            agent.say(json!({"type": "REPLY", "id": message["id"], "data": {"data": 1}})).await;
        }

        let mut statuses = std::collections::BTreeMap::new();
        for answer in waiting {
            *statuses.entry(answer.await.expect("no panic")).or_insert(0) += 1;
        }
        assert_eq!(statuses, [("HTTP/1.1 200 OK".to_owned(), burst)].into(), "{user}");
    }
}
