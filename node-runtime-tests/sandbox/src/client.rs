//! subxt's transport, without a socket.

use std::sync::Arc;

use futures::{stream, StreamExt};
use jsonrpsee::Methods;
use serde::Deserialize;
use serde_json::value::RawValue;
use subxt_rpcs::{
    client::{RawRpcFuture, RawRpcSubscription, RpcClientT},
    Error, UserError,
};

use crate::node::Shared;

/// Messages of one subscription that may wait for a slow reader; a websocket's buffer is no larger.
const SUBSCRIPTION_BUFFER: usize = 4096;

/// Talks to a sandbox in this process: a request goes through the same JSON-RPC module that serves the websocket.
pub struct SandboxRpc {
    shared: Arc<Shared>,
    methods: Methods,
}

/// Why a request failed while the sandbox plays dead.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox is offline")]
struct Offline;

/// A JSON-RPC answer.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<UserError>,
}

/// A JSON-RPC notification of a subscription.
#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(borrow)]
    params: NotificationParams<'a>,
}

#[derive(Deserialize)]
struct NotificationParams<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<UserError>,
}

type Messages = tokio::sync::mpsc::Receiver<Box<RawValue>>;

impl SandboxRpc {
    pub(crate) fn new(shared: Arc<Shared>, methods: Methods) -> Self {
        Self { shared, methods }
    }

    async fn request(
        &self,
        method: &str,
        params: Option<Box<RawValue>>,
    ) -> Result<(Box<RawValue>, Messages), Error> {
        if self.shared.is_offline() {
            return Err(Error::Client(Box::new(Offline)));
        }
        if let Some(refusal) = self.shared.refusal() {
            return Err(Error::User(UserError {
                code: refusal.code(),
                message: refusal.message().to_owned(),
                data: None,
            }));
        }
        if self.shared.take_failure(method) {
            return Err(Error::User(UserError {
                code: jsonrpsee::types::error::INTERNAL_ERROR_CODE,
                message: format!("{method} was told to fail"),
                data: None,
            }));
        }
        let method = serde_json::to_string(method).map_err(Error::Serialization)?;
        let params = params.as_ref().map_or("[]", |params| params.get());
        let request = format!(r#"{{"jsonrpc":"2.0","id":0,"method":{method},"params":{params}}}"#);
        let (answer, messages) = self
            .methods
            .raw_json_request(&request, SUBSCRIPTION_BUFFER)
            .await
            .map_err(Error::Deserialization)?;
        let parsed: Answer<'_> = serde_json::from_str(answer.get()).map_err(Error::Deserialization)?;
        match (parsed.result, parsed.error) {
            (_, Some(error)) => Err(Error::User(error)),
            (Some(result), None) => Ok((result.to_owned(), messages)),
            // `null` is a result: serde takes it for an absent one.
            (None, None) => Ok((RawValue::NULL.to_owned(), messages)),
        }
    }
}

impl RpcClientT for SandboxRpc {
    fn request_raw<'a>(
        &'a self,
        method: &'a str,
        params: Option<Box<RawValue>>,
    ) -> RawRpcFuture<'a, Box<RawValue>> {
        Box::pin(async move { self.request(method, params).await.map(|(result, _)| result) })
    }

    fn subscribe_raw<'a>(
        &'a self,
        sub: &'a str,
        params: Option<Box<RawValue>>,
        _unsub: &'a str,
    ) -> RawRpcFuture<'a, RawRpcSubscription> {
        Box::pin(async move {
            let (id, messages) = self.request(sub, params).await?;
            let id = id.get().trim_matches('"').to_owned();
            // Dropping the receiver is what unsubscribes.
            let stream = stream::unfold(messages, |mut messages| async move {
                let message = messages.recv().await?;
                Some((notification(&message), messages))
            });
            Ok(RawRpcSubscription { stream: stream.boxed(), id: Some(id) })
        })
    }
}

fn notification(message: &RawValue) -> Result<Box<RawValue>, Error> {
    let parsed: Notification<'_> = serde_json::from_str(message.get()).map_err(Error::Deserialization)?;
    match (parsed.params.result, parsed.params.error) {
        (_, Some(error)) => Err(Error::User(error)),
        (Some(result), None) => Ok(result.to_owned()),
        (None, None) => Ok(RawValue::NULL.to_owned()),
    }
}
