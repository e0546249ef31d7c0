//! The way to the service: one signed request, with a deadline and a guard against addresses that are not meant.
//! A function, so that tests put a service of their own in its place.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::HookConfig;
use crate::http_client::connect::system_resolver;
use crate::http_client::{Answered, Client, Endpoint, Good, Said, Trouble};

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
pub fn by_http(config: &HookConfig) -> Result<Post, String> {
    let client = Arc::new(Client::new(&Endpoint::from(config), system_resolver())?);
    let timeout = Duration::from_millis(u64::from(config.timeout_ms));
    Ok(Arc::new(move |id, question| {
        let client = Arc::clone(&client);
        Box::pin(async move { meaning(client.post(&id, question, Instant::now() + timeout).await) })
    }))
}

fn meaning(answer: Result<Answered, Trouble>) -> Reply {
    match answer {
        Ok(Answered { said: Said::Body(body), .. }) => Reply::Body(body),
        Ok(Answered { said: Said::TooMuch, .. }) => {
            Reply::Failed(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"))
        }
        Ok(Answered { said: Said::Broken, .. }) => Reply::Away("the answer broke off".into()),
        Ok(Answered { status, said: Said::Unread, .. }) => Reply::Status(status),
        Err(trouble) => Reply::Away(trouble.words()),
    }
}

impl From<&HookConfig> for Endpoint {
    fn from(config: &HookConfig) -> Self {
        Self {
            url: config.url.clone(),
            secrets: config.secrets.clone(),
            headers: BTreeMap::new(),
            allow_private: config.allow_private,
            ca: config.ca.clone(),
            answer_bytes: ANSWER_BYTES_MAX,
            idle_max: config.in_flight,
            // A verdict comes with 200: an empty 204, or a 201 that speaks of something else, is none.
            good: Good::Ok,
        }
    }
}
