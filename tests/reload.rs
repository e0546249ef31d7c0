//! SIGHUP on the real binary: what changes while it runs, what is left for a restart, and that nothing wrong is taken over.

mod support;

use std::path::PathBuf;

use serde_json::json;
use support::{Client, Metrics, PATIENCE, Raw, Server, until};

/// A configuration file of its own.
struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let file = Self { path: folder.path().join("tidegate.toml"), _folder: folder };
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.path, text).expect("a scratch file");
    }

    fn env(&self) -> (&str, &str) {
        ("TIDEGATE_CONFIG", self.path.to_str().expect("a plain path"))
    }
}

/// SHA-256 of "old" and of "new".
const OLD: &str = "cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4";
const NEW: &str = "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437";

fn key(sha256: &str) -> String {
    format!("[[logic.keys]]\nid = \"billing\"\nsha256 = \"{sha256}\"\nscopes = [\"push\", \"read\"]\n")
}

async fn push(server: &Server, key: &str) -> u16 {
    let body = json!({"to": {"all": true}, "messages": [1, 2]}).to_string();
    server.connect_api().await.with_key(key).post("/v1/push", body).await.status
}

/// Sends SIGHUP and waits for the log to say so.
async fn reload(server: &Server, word: &str) {
    let before = server.log_text().matches(word).count();
    server.hang_up();
    until(word, PATIENCE, async || (server.log_text().matches(word).count() > before).then_some(())).await;
}

async fn metrics(server: &Server, key: &str) -> Metrics {
    Metrics::parse(&server.connect_api().await.with_key(key).get("/metrics").await.text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_hands_under_load_and_connections_stay() {
    let file = File::new(&key(OLD));
    let server = Server::serve(&[file.env()]).await;
    let mut client = Client::connect(server.clients()).await;

    let first = (push(&server, "old").await, push(&server, "new").await);
    file.write(&(key(OLD) + &key(NEW)));
    reload(&server, "configuration reloaded").await;
    let both = (push(&server, "old").await, push(&server, "new").await);
    file.write(&key(NEW));
    reload(&server, "configuration reloaded").await;
    let last = (push(&server, "old").await, push(&server, "new").await);

    assert_eq!((first, both, last), ((202, 401), (202, 202), (401, 202)));
    assert!(server.log_text().contains("changed=\"logic.keys\""), "{}", server.log_text());
    assert!(!server.log_text().contains(NEW), "no hash in the log");
    assert_eq!(client.items(8).await.len(), 8, "four pushes of two messages");
    let metrics = metrics(&server, "new").await;
    assert_eq!(metrics.sum_where("tidegate_config_reloads_total", "done"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_log_level_change_live_and_the_rest_is_named() {
    let file = File::new(&key(OLD));
    let server = Server::serve(&[file.env()]).await;

    let before = push(&server, "old").await;
    file.write(&format!("[logic.limits]\nmessages = 1\nin_flight = 7\n[log]\nlevel = \"debug\"\n{}", key(OLD)));
    reload(&server, "only a restart").await;
    let after = push(&server, "old").await;

    assert_eq!((before, after), (202, 422));
    let log = server.log_text();
    assert!(log.contains("changed=\"log.level, logic.limits.messages\""), "{log}");
    assert!(log.contains("keys=\"logic.limits.in_flight\""), "{log}");
    assert_eq!(metrics(&server, "old").await.sum("tidegate_config_waiting"), 1);
    let mut raw = Raw::open(server.direct_clients(), "/ws").await;
    raw.write(&[0x83, 0x80, 0, 0, 0, 0]).await.expect("the connection is open");
    until("a line of the new level", PATIENCE, async || server.log_text().contains("DEBUG").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_file_is_named_and_changes_nothing() {
    let file = File::new(&key(OLD));
    let server = Server::serve(&[file.env()]).await;

    for (text, why) in [
        ("[logic.limits]\nmesages = 1\n".to_owned(), "did you mean logic.limits.messages?"),
        (format!("{}[logic.limits]\nmessages = 0\n", key(NEW)), "counts must be at least 1"),
        (format!("{}{}{}", key(OLD), key(NEW), key(&NEW.replace('1', "2"))), "more than 2 keys"),
        (String::new(), "does not become open by a reload"),
    ] {
        file.write(&text);
        reload(&server, "stays as it was").await;

        assert!(server.log_text().contains(why), "{why}: {}", server.log_text());
        assert_eq!((push(&server, "old").await, push(&server, "new").await), (202, 401), "{text}");
    }
    std::fs::remove_file(&file.path).expect("the scratch file");
    reload(&server, "stays as it was").await;

    assert_eq!(push(&server, "old").await, 202);
    let metrics = metrics(&server, "old").await;
    assert_eq!(metrics.sum_where("tidegate_config_reloads_total", "failed"), 5);
    assert_eq!(metrics.sum_where("tidegate_config_reloads_total", "done"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_of_its_own_reloads_too_and_minds_its_own_tier() {
    let file = File::new("");
    let gateway = Server::gateway_alone("g1", &[file.env()]).await;
    let mut client = Client::connect(gateway.clients()).await;

    file.write(&format!("[log]\nlevel = \"debug\"\n[logic.limits]\nmessages = 1\nin_flight = 7\n{}", key(OLD)));
    reload(&gateway, "configuration reloaded").await;

    let log = gateway.log_text();
    assert!(log.contains("changed=\"log.level\""), "{log}");
    assert!(!log.contains("only a restart"), "{log}");
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum_where("tidegate_config_reloads_total", "done"), 1);
    assert!(metrics.sum("tidegate_config_loaded_seconds") > 1_700_000_000);
    assert_eq!(client.ask(json!({"type": "PING", "id": "1"})).await["type"], "PONG");
}
