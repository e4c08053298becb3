//! Serves metrics and health.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Served;
use crate::error::{Error, Result};
use crate::health::{self, Board};
use crate::metrics;

pub(crate) const NAME: &str = "metrics";

/// Takes the address. Done before anything else, so that a probe is answered while the worker is still starting.
pub(crate) async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen)
        .await
        .map_err(|source| Error::Io { what: format!("listening at metrics.listen = \"{listen}\""), source })
}

/// Serves until told to stop.
pub(crate) async fn run(listener: TcpListener, board: Arc<Board>, stop: CancellationToken) -> Served {
    let router = health::router(board, metrics::install());
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .map_err(|source| Error::Io { what: "serving metrics".into(), source })
}
