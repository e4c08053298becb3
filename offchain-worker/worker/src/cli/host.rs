//! A requester's own blob server: the nodes drawn for its tasks fetch the inputs here.

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use poq_blobs::{
    Access, AccessError, AccessRequest, BlobServer, BlobStore, Decision, Resource, ServerConfig,
};
use poq_chain::{to_account32, AccountId32, Client};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running server; stops when dropped.
pub(crate) struct Host {
    store: BlobStore,
    url: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Host {
    /// Listens at `listen` and serves what [`Host::put`] puts there to those who need it for a task of the contract.
    pub(crate) async fn start(client: Client, listen: SocketAddr) -> anyhow::Result<Host> {
        let network = client.network().await?;
        let store = BlobStore::memory();
        let config = ServerConfig::new(network.hash, listen);
        let server = BlobServer::bind(config, store.clone(), Arc::new(Concerned { client }))
            .await
            .with_context(|| format!("cannot serve the input at {listen}"))?;
        let url = server.url();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let shutdown = async {
                // Either told to stop, or dropped.
                let _ = stopped.await;
            };
            if let Err(error) = server.serve(shutdown).await {
                tracing::error!(%error, "the server of task inputs stopped");
            }
        });
        Ok(Host { store, url, stop: Some(stop), task })
    }

    /// The address at this machine.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Stores an input and returns its hash.
    pub(crate) async fn put(&self, input: Bytes) -> anyhow::Result<[u8; 32]> {
        Ok(self.store.put(input).await.context("the input")?.0)
    }

    /// Stops serving.
    pub(crate) async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        // Connections that linger are not waited for longer than this.
        let _ = tokio::time::timeout(Duration::from_secs(2), &mut self.task).await;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets those fetch a task's input who are concerned with it: its requester and the operators of the nodes drawn for it.
struct Concerned {
    client: Client,
}

#[async_trait]
impl Access for Concerned {
    async fn decide(&self, request: &AccessRequest) -> Result<Decision, AccessError> {
        let Resource::Blob(blob) = &request.resource else {
            // Openings, outputs, reveals and reports are served by the nodes.
            return Ok(Decision::NotFound);
        };
        let view = self.client.view().await.map_err(AccessError::new)?;
        let Some(task) = view.task(request.task).await.map_err(AccessError::new)? else {
            return Ok(Decision::NotFound);
        };
        if task.task.input.hash != blob.0 {
            return Ok(Decision::NotFound);
        }
        let mut concerned: Vec<AccountId32> = vec![to_account32(&task.task.requester)];
        let outputs = task.task.outputs.iter().map(|slot| slot.node);
        let panel = task.task.panel.iter().map(|seat| seat.node);
        for node in outputs.chain(panel).filter(|node| *node != 0) {
            let node = view.node(node).await.map_err(AccessError::new)?;
            concerned.extend(node.map(|view| to_account32(&view.node.operator)));
        }
        Ok(if concerned.contains(&request.account) { Decision::Allow } else { Decision::Forbidden })
    }
}
