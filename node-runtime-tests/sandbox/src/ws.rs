//! The sandbox's RPC on a real websocket, for other processes.

use std::{future::Future, net::SocketAddr, sync::Arc};

use futures::future::Either;
use jsonrpsee::{
    core::middleware::{Batch, Notification, RpcServiceBuilder, RpcServiceT},
    server::{ServerBuilder, ServerConfig, ServerHandle},
    types::Request,
    MethodResponse,
};

use crate::{node::Shared, SandboxError, SandboxNode};

/// Largest request and answer, bytes: metadata and code uploads must fit.
const MAX_MESSAGE: u32 = 32 * 1024 * 1024;
/// Most connections at a time.
const MAX_CONNECTIONS: u32 = 256;

/// A running websocket server; stops when it is dropped.
#[derive(Debug)]
pub struct WsServer {
    address: SocketAddr,
    handle: ServerHandle,
}

impl WsServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL to connect to: `ws://…`.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Resolves when the server has stopped.
    pub async fn stopped(&self) {
        self.handle.clone().stopped().await;
    }
}

impl Drop for WsServer {
    fn drop(&mut self) {
        // An error means that it has stopped already.
        let _ = self.handle.stop();
    }
}

/// Refuses what [`SandboxNode::refuse_every`] says.
struct Refusing<S> {
    service: S,
    shared: Arc<Shared>,
}

impl<S> RpcServiceT for Refusing<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse>,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = S::NotificationResponse;
    type BatchResponse = S::BatchResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        match self.shared.refusal() {
            Some(refusal) => Either::Left(std::future::ready(MethodResponse::error(request.id, refusal))),
            None => Either::Right(self.service.call(request)),
        }
    }

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = Self::BatchResponse> + Send + 'a {
        self.service.batch(batch)
    }

    fn notification<'a>(
        &self,
        notification: Notification<'a>,
    ) -> impl Future<Output = Self::NotificationResponse> + Send + 'a {
        self.service.notification(notification)
    }
}

impl SandboxNode {
    /// Serves the chain's RPC by websocket and HTTP on `address`; port 0 takes a free one.
    pub async fn serve_ws(&self, address: SocketAddr) -> Result<WsServer, SandboxError> {
        let failed = |source| SandboxError::Serve { address, source };
        let config = ServerConfig::builder()
            .max_request_body_size(MAX_MESSAGE)
            .max_response_body_size(MAX_MESSAGE)
            .max_connections(MAX_CONNECTIONS)
            .build();
        let shared = self.shared();
        let refusing =
            RpcServiceBuilder::new().layer_fn(move |service| Refusing { service, shared: shared.clone() });
        let server = ServerBuilder::with_config(config)
            .set_rpc_middleware(refusing)
            .build(address)
            .await
            .map_err(failed)?;
        let address = server.local_addr().map_err(failed)?;
        Ok(WsServer { address, handle: server.start(self.methods()) })
    }
}
