//! The way to the service: a webhook like those of upstream sinks, with their signatures, deadlines and guard against
//! addresses that are not meant. A function, so that tests put a service of their own in its place.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{HookConfig, SinkConfig};
use crate::http_client::connect::system_resolver;
use crate::http_client::{Answer, Said, Trouble, Webhook};

/// Largest answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Posts a question (its id, its text).
pub type Post = Arc<dyn Fn(String, Bytes) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A good status, and the body.
    Body(Bytes),
    /// Another status.
    Status(u16),
    /// An answer that is of no use; why.
    Failed(String),
    /// No whole answer; why.
    Away(String),
}

/// By HTTP, to the configured URL and nowhere else.
pub fn by_webhook(config: &HookConfig) -> Result<Post, String> {
    let webhook = Arc::new(Webhook::new(&sink(config), system_resolver())?.wanting_ok());
    Ok(Arc::new(move |id, question| {
        let webhook = Arc::clone(&webhook);
        Box::pin(async move {
            match webhook.post(&id, question).await {
                Answer::Taken(Said::Body(body)) => Reply::Body(body),
                Answer::Taken(Said::TooMuch) => {
                    Reply::Failed(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"))
                }
                Answer::Taken(Said::Broken) => Reply::Away("the answer broke off".into()),
                Answer::Never(status) => Reply::Status(status),
                Answer::Later { trouble: Trouble::Status(status), .. } => Reply::Status(status),
                Answer::Later { trouble, .. } => Reply::Away(trouble.words()),
            }
        })
    }))
}

/// The hook as a sink: only what concerns one request.
fn sink(config: &HookConfig) -> SinkConfig {
    SinkConfig {
        name: "hook".into(),
        url: config.url.clone(),
        secrets: config.secrets.clone(),
        allow_private: config.allow_private,
        ca: config.ca.clone(),
        lanes: u16::try_from(config.in_flight).unwrap_or(u16::MAX),
        timeout_ms: config.timeout_ms,
        answer_bytes: ANSWER_BYTES_MAX,
        ..SinkConfig::default()
    }
}
