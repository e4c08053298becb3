//! The sandbox's RPC on a real websocket, for other processes.

use std::net::SocketAddr;

use jsonrpsee::server::{ServerBuilder, ServerConfig, ServerHandle};

use crate::{SandboxError, SandboxNode};

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

impl SandboxNode {
    /// Serves the chain's RPC by websocket and HTTP on `address`; port 0 takes a free one.
    pub async fn serve_ws(&self, address: SocketAddr) -> Result<WsServer, SandboxError> {
        let failed = |source| SandboxError::Serve { address, source };
        let config = ServerConfig::builder()
            .max_request_body_size(MAX_MESSAGE)
            .max_response_body_size(MAX_MESSAGE)
            .max_connections(MAX_CONNECTIONS)
            .build();
        let server = ServerBuilder::with_config(config).build(address).await.map_err(failed)?;
        let address = server.local_addr().map_err(failed)?;
        Ok(WsServer { address, handle: server.start(self.methods()) })
    }
}
