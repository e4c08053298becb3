//! Where a database is.

use super::{told, Access, Conn};
use crate::error::{Error, Result};
use rusqlite::OpenFlags;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// How long a statement waits for another connection's transaction.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a database is. Shown without its password.
#[derive(Clone)]
pub enum Target {
    /// A file.
    Sqlite(PathBuf),
    /// A server.
    Postgres(Box<postgres::Config>),
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Target> {
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            // The parser's own text quotes what it does not understand, the password perhaps.
            let config = text.parse().map_err(|_| Error::Url { url: "postgres://…".into() })?;
            return Ok(Target::Postgres(Box::new(config)));
        }
        let path = match text.split_once(':') {
            Some(("sqlite", path)) => path.strip_prefix("//").unwrap_or(path),
            // Not a drive's letter, and not a scheme of something else.
            Some((scheme, rest)) if scheme.len() > 1 && rest.starts_with("//") => {
                return Err(Error::Url { url: format!("{scheme}://…") });
            }
            _ => text,
        };
        if path.is_empty() || path == ":memory:" {
            return Err(Error::Url { url: text.to_owned() });
        }
        Ok(Target::Sqlite(path.into()))
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Target {
        Target::Sqlite(path.to_owned())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Sqlite(path) => write!(f, "{}", path.display()),
            Target::Postgres(config) => {
                let host = config.get_hosts().first().map(|host| match host {
                    postgres::config::Host::Tcp(name) => name.clone(),
                    #[cfg(unix)]
                    postgres::config::Host::Unix(path) => path.display().to_string(),
                });
                write!(
                    f,
                    "postgres://{}/{}",
                    host.unwrap_or_else(|| "localhost".into()),
                    config.get_dbname().unwrap_or_default()
                )
            }
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Target {
    /// Whether there is a database already; of a server nobody knows before asking.
    pub fn may_exist(&self) -> bool {
        match self {
            Target::Sqlite(path) => path.exists(),
            Target::Postgres(_) => true,
        }
    }

    pub(super) fn connect(&self, access: Access) -> Result<Conn> {
        match self {
            Target::Sqlite(path) => sqlite(path, access)
                .map(Conn::Sqlite)
                .map_err(|error| Error::Open { database: self.to_string(), reason: error.to_string() }),
            Target::Postgres(config) => {
                let mut config = (**config).clone();
                config.application_name("poq index").connect_timeout(PATIENCE);
                if access == Access::Read {
                    let options = config.get_options().map(|set| format!("{set} ")).unwrap_or_default();
                    config.options(&format!("{options}-c default_transaction_read_only=on"));
                }
                let open = |reason| Error::Open { database: self.to_string(), reason };
                let client = config.connect(tls()?).map_err(|error| open(told(&error)))?;
                Ok(Conn::Postgres(Box::new(client)))
            }
        }
    }
}

fn sqlite(path: &Path, access: Access) -> rusqlite::Result<rusqlite::Connection> {
    let flags = match access {
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let conn = rusqlite::Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(PATIENCE)?;
    conn.set_prepared_statement_cache_capacity(128);
    match access {
        // Readers go on while the writer writes. What a crash of the machine can lose is read from the chain again.
        Access::Write => conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?,
        Access::Read => conn.execute_batch("PRAGMA query_only = ON;")?,
    }
    conn.execute_batch(
        "PRAGMA cache_size = -32768; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 268435456;",
    )?;
    Ok(conn)
}

/// TLS by the machine's certificates, for servers that want it (`sslmode=require`).
fn tls() -> Result<tokio_postgres_rustls::MakeRustlsConnect> {
    use rustls_platform_verifier::ConfigVerifierExt as _;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // The first that sets it wins; every library here means this one.
    let _ = provider.as_ref().clone().install_default();
    let config = rustls::ClientConfig::with_platform_verifier().map_err(|error| Error::Open {
        database: "postgres".into(),
        reason: format!("the machine's certificates cannot be used: {error}"),
    })?;
    Ok(tokio_postgres_rustls::MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn databases_are_files_or_servers_and_passwords_are_never_shown() {
        let shown = |text: &str| text.parse::<Target>().unwrap().to_string();
        assert_eq!(shown("index.sqlite"), "index.sqlite");
        assert_eq!(shown("sqlite:a/b.db"), "a/b.db");
        assert_eq!(shown("sqlite:///var/lib/poq/index.sqlite"), "/var/lib/poq/index.sqlite");
        let server = "postgres://me:hunter2@db.example:5433/poq".parse::<Target>().unwrap();
        assert_eq!(server.to_string(), "postgres://db.example/poq");
        assert!(!format!("{server:?}").contains("hunter2"));
        for wrong in ["", "sqlite:", "sqlite::memory:", "mysql://h/poq", "postgres://h:hunter2port/poq"] {
            let error = wrong.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("is no database") && !error.contains("hunter2"), "{error}");
        }
    }
}
