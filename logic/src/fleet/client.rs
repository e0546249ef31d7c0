//! One request on a gateway's connection: a POST with one record as its body, one record back.
//! Shared by everything that talks to a gateway. Bounds: the answer's size, and a deadline on the whole.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderValue, Method, Request, StatusCode};
use prost::Message;
use tidegate_protocol::limits::BACKPLANE_BODY_BYTES_MAX;
use tokio::time::timeout;

use super::Failure;

/// A connection that has ended says so at once; one that is only silent is not waited for.
const READY: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection.
    #[error("the link is down")]
    Down,
    /// The connection or the stream broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] h2::Error),
    /// Not in time.
    #[error("no answer in time")]
    Late,
    /// An answer other than 200.
    #[error("answered {0}")]
    Status(StatusCode),
    /// An answer that is no record, or too large.
    #[error("an answer that cannot be read")]
    Unreadable,
}

impl CallError {
    /// What it means for whoever asked.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Down => Failure::Unreachable,
            Self::Broken(_) => Failure::Lost,
            Self::Late => Failure::Timeout,
            Self::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Failure::Unauthorized,
            Self::Status(StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => Failure::Overloaded,
            Self::Status(_) | Self::Unreadable => Failure::Incompatible,
        }
    }
}

/// A connection's requesting end; clones share the connection.
#[derive(Clone)]
pub(super) struct Client {
    pub send: SendRequest<Bytes>,
    pub authority: String,
    pub bearer: Option<HeaderValue>,
}

/// Whether an error is the end of a connection in good order: a gateway says so when it leaves.
pub(super) fn is_farewell(error: &h2::Error) -> bool {
    error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
}

impl Client {
    /// Whether the gateway has said that it ends the connection, in good order. Requests that were open when it ended have failed
    /// by its end alone; the connection keeps what it heard.
    pub async fn heard_farewell(&self) -> bool {
        let ready = timeout(READY, self.send.clone().ready()).await;
        matches!(ready, Ok(Err(error)) if is_farewell(&error))
    }

    /// Sends a record, gets a record.
    pub async fn call<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        self.call_encoded(path, Bytes::from(request.encode_to_vec()), deadline).await
    }

    /// As [`Client::call`], for a record that is encoded already.
    pub async fn call_encoded<A: Message + Default>(
        &self,
        path: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let answer = timeout(deadline, self.exchange(path, body)).await.map_err(|_| CallError::Late)??;
        A::decode(answer).map_err(|_| CallError::Unreadable)
    }

    async fn exchange(&self, path: &str, body: Bytes) -> Result<BytesMut, CallError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{path}", self.authority))
            .body(())
            // The authority was parsed at start-up and the paths are constants.
            .map_err(|_| CallError::Unreadable)?;
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(http::header::AUTHORIZATION, bearer.clone());
        }
        let (response, mut stream) = self.send.clone().ready().await?.send_request(request, false)?;
        stream.send_data(body, true)?;
        let (head, mut body) = response.await?.into_parts();
        if head.status != StatusCode::OK {
            return Err(CallError::Status(head.status));
        }
        let mut answer = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            if answer.len() + chunk.len() > BACKPLANE_BODY_BYTES_MAX {
                return Err(CallError::Unreadable);
            }
            answer.extend_from_slice(&chunk);
        }
        Ok(answer)
    }
}
