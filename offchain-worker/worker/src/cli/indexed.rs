//! The index of a network's history, for commands that read it.

use crate::cli::amount::Unit;
use crate::cli::exit::Usage;
use clap::Args;
use poq_index::read::Reads;
use poq_index::{Conn, Pool, Target};

/// Where the index is, for commands that can do without one.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Index")]
pub(crate) struct IndexArg {
    /// The index that `poq index` keeps: a file, or postgres://USER@HOST/NAME. With it the answer comes from the whole history,
    /// collected tasks too, and no node is asked.
    #[arg(long, env = "POQ_INDEX", hide_env_values = true, value_name = "FILE|URL")]
    index: Option<String>,
}

/// Where the index is.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Index")]
pub(crate) struct DbArg {
    /// The index: a file, or postgres://USER@HOST/NAME of a PostgreSQL database (add ?sslmode=require for TLS).
    #[arg(
        long,
        env = "POQ_INDEX",
        hide_env_values = true,
        value_name = "FILE|URL",
        default_value = "poq-index.sqlite"
    )]
    db: String,
}

impl DbArg {
    /// Where it is.
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        Ok(self.db.parse()?)
    }
}

/// An index that is open for reading.
pub(crate) struct Index {
    pool: Pool,
    /// What can be asked.
    pub(crate) reads: Reads,
    /// The chain's display unit.
    pub(crate) unit: Unit,
}

impl Index {
    /// Opens it.
    pub(crate) async fn open(target: &Target) -> anyhow::Result<Index> {
        let name = target.to_string();
        if !target.may_exist() {
            let text = format!("there is no index at {name}: `poq index --db {name}` makes one");
            return Err(Usage(text).into());
        }
        let pool = Pool::open(target, 1).await?;
        let reads = pool.read(move |conn| Reads::of(conn, &name)).await?;
        let identity = reads.identity();
        let unit = Unit { symbol: identity.symbol.clone(), decimals: identity.decimals };
        Ok(Index { pool, reads, unit })
    }

    /// Works on it as it is written, for what takes care of that itself.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reads, &mut Conn) -> poq_index::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let reads = self.reads.clone();
        Ok(self.pool.read(move |conn| work(&reads, conn)).await?)
    }

    /// Asks it, as it is at one moment.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Reads, &mut Conn) -> poq_index::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.work(move |reads, conn| conn.snapshot(|conn| question(reads, conn))).await
    }
}

impl IndexArg {
    /// Opens it, where one is named.
    pub(crate) async fn open(&self) -> anyhow::Result<Option<Index>> {
        match self.index.as_deref().filter(|index| !index.is_empty()) {
            Some(index) => Index::open(&index.parse()?).await.map(Some),
            None => Ok(None),
        }
    }

    /// Opens it; `what` needs one.
    pub(crate) async fn required(&self, what: &str) -> anyhow::Result<Index> {
        let missing = || {
            Usage(format!(
                "{what} is in the index: name it with --index (or POQ_INDEX); `poq index` makes one"
            ))
        };
        Ok(self.open().await?.ok_or_else(missing)?)
    }
}
