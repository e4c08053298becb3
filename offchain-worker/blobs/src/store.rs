use crate::{blake2_256, BlobId, Hash, NodeId, Salt, TaskId, DEFAULT_MAX_BLOB};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use poq_core::task::Opened;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::RwLock;

/// A sidecar is some two hundred bytes.
const MAX_SIDECAR: u64 = 4 * 1024;
const SIDECAR_VERSION: u32 = 1;
/// What a write that never finished leaves behind is removed when it is this old.
const LEFTOVER_AGE: Duration = Duration::from_secs(3_600);

/// What a store takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreLimits {
    /// The largest blob, in bytes.
    pub max_blob: usize,
}

impl Default for StoreLimits {
    fn default() -> StoreLimits {
        StoreLimits { max_blob: DEFAULT_MAX_BLOB }
    }
}

/// Where an output, a reveal or a report belongs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot {
    /// Hash of the chain's genesis and the contract.
    pub network: Hash,
    /// The task.
    pub task: TaskId,
    /// The node.
    pub node: NodeId,
}

/// What a sweep deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Blobs.
    pub blobs: u64,
    /// Records of outputs and reports.
    pub records: u64,
    /// Bytes of blobs.
    pub bytes: u64,
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such thing in it.
    #[error("there is no {what}")]
    NotThere {
        /// What was asked for.
        what: String,
    },
    /// What is there is not what was put there.
    #[error("{what} is damaged: {detail}. Put it again to repair it")]
    Corrupt {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// It is larger than the store takes.
    #[error("{what} has {length} bytes; this store takes at most {limit}")]
    TooLarge {
        /// What was to be stored or read.
        what: String,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The configured address is of no store.
    #[error("cannot keep blobs at \"{address}\": {reason}")]
    Address {
        /// What was configured.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk or the remote store failed.
    #[error("the blob store failed to {action}")]
    Backend {
        /// What was tried.
        action: String,
        /// What it says.
        #[source]
        source: object_store::Error,
    },
}

/// Content-addressed storage. Clones are handles to the same store.
#[derive(Clone)]
pub struct BlobStore {
    inner: Arc<Inner>,
}

struct Inner {
    store: Box<dyn ObjectStore>,
    root: ObjectPath,
    limits: StoreLimits,
    /// Puts share it, a sweep takes it for each deletion: a blob that is being put again is not deleted for its age.
    sweeping: RwLock<()>,
}

impl fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobStore({}, {:?})", self.inner.store, self.inner.limits)
    }
}

/// What is kept beside a blob that belongs to a task.
#[derive(Serialize, Deserialize)]
struct Sidecar {
    version: u32,
    hash: BlobId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    salt: Option<BlobId>,
}

#[derive(Clone, Copy)]
enum Kind {
    Output,
    Reveal,
    Report,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Output => "output",
            Kind::Reveal => "reveal",
            Kind::Report => "report",
        }
    }
}

impl BlobStore {
    /// Opens the store at an address:
    ///
    /// * `/var/lib/poq/blobs`, `blobs` or `file:///var/lib/poq/blobs`: a folder, created with mode 0700 where there is
    ///   none. Writes are synced to the disk.
    /// * `memory:`: gone with the process.
    /// * `s3://bucket/prefix?endpoint=http://localhost:9000&region=eu-west-1&allow_http=true`: an S3-compatible store, with
    ///   cargo feature `s3`. Settings come from the usual `AWS_*` variables and then from the query; credentials are
    ///   refused in the query, where they would end up in logs.
    ///
    /// # Errors
    /// [`StoreError::Address`], [`StoreError::Backend`].
    pub fn open(address: &str, limits: StoreLimits) -> Result<BlobStore, StoreError> {
        let refused = |reason: String| StoreError::Address { address: shown_store(address), reason };
        if address.is_empty() {
            return Err(refused("it is empty; give a folder or file:///, s3:// or memory:".to_owned()));
        }
        // A one-letter scheme is a Windows drive.
        let scheme = address.split_once(':').map(|(scheme, _)| scheme).filter(|scheme| scheme.len() > 1);
        match scheme {
            None => BlobStore::in_folder(Path::new(address), limits),
            Some("memory") => Ok(BlobStore::over(Box::new(InMemory::new()), ObjectPath::default(), limits)),
            Some("file") => {
                let url = url::Url::parse(address).map_err(|error| refused(error.to_string()))?;
                let folder = url
                    .to_file_path()
                    .map_err(|()| refused("it names no folder of this machine".to_owned()))?;
                BlobStore::in_folder(&folder, limits)
            }
            Some("s3") => s3(address, limits, refused),
            Some(other) => {
                Err(refused(format!("\"{other}:\" is unknown; give a folder or file:///, s3:// or memory:")))
            }
        }
    }

    /// A store in memory.
    pub fn memory() -> BlobStore {
        BlobStore::over(Box::new(InMemory::new()), ObjectPath::default(), StoreLimits::default())
    }

    fn in_folder(folder: &Path, limits: StoreLimits) -> Result<BlobStore, StoreError> {
        let refused = |error: std::io::Error| StoreError::Address {
            address: folder.display().to_string(),
            reason: error.to_string(),
        };
        private_folder(folder).map_err(refused)?;
        match remove_leftovers(folder, 0) {
            Ok(0) => {}
            Ok(removed) => {
                tracing::info!(removed, "removed what unfinished writes had left in the blob store")
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for what unfinished writes have left in the blob store")
            }
        }
        let store = LocalFileSystem::new_with_prefix(folder)
            .map_err(|source| StoreError::Backend { action: format!("open {}", folder.display()), source })?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        Ok(BlobStore::over(Box::new(store), ObjectPath::default(), limits))
    }

    fn over(store: Box<dyn ObjectStore>, root: ObjectPath, limits: StoreLimits) -> BlobStore {
        BlobStore { inner: Arc::new(Inner { store, root, limits, sweeping: RwLock::new(()) }) }
    }

    /// What it takes.
    pub fn limits(&self) -> StoreLimits {
        self.inner.limits
    }

    /// Stores a blob under its hash. Atomic: a reader sees all of it or none. Doing it again changes nothing but the
    /// blob's age, and repairs a damaged one.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Backend`].
    pub async fn put(&self, bytes: impl Into<Bytes>) -> Result<BlobId, StoreError> {
        let bytes = bytes.into();
        let limit = self.inner.limits.max_blob;
        if bytes.len() > limit {
            return Err(StoreError::TooLarge {
                what: "the blob".to_owned(),
                length: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                limit: u64::try_from(limit).unwrap_or(u64::MAX),
            });
        }
        let id = BlobId::of(&bytes);
        self.write(&self.blob_path(&id), bytes, || format!("store blob {id}")).await?;
        Ok(id)
    }

    /// A blob by its hash, verified.
    ///
    /// # Errors
    /// [`StoreError::NotThere`], [`StoreError::Corrupt`], [`StoreError::TooLarge`], [`StoreError::Backend`].
    pub async fn get(&self, id: &BlobId) -> Result<Bytes, StoreError> {
        let limit = u64::try_from(self.inner.limits.max_blob).unwrap_or(u64::MAX);
        let what = || format!("blob {id}");
        let bytes = self.read(&self.blob_path(id), limit, what).await?;
        let found = blake2_256(&bytes);
        if found != id.0 {
            let detail = format!("its {} bytes hash to {}", bytes.len(), BlobId(found));
            return Err(StoreError::Corrupt { what: what(), detail });
        }
        Ok(bytes)
    }

    /// Whether there is a blob of that name (which may be damaged).
    ///
    /// # Errors
    /// [`StoreError::Backend`].
    pub async fn contains(&self, id: &BlobId) -> Result<bool, StoreError> {
        match self.inner.store.head(&self.blob_path(id)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(StoreError::Backend { action: format!("look for blob {id}"), source }),
        }
    }

    /// Whether the store can be reached at all, for health checks.
    ///
    /// # Errors
    /// [`StoreError::Backend`].
    pub async fn check(&self) -> Result<(), StoreError> {
        self.contains(&BlobId([0; 32])).await.map(|_| ())
    }

    /// Stores an inference node's output with the salt of its commitment. Another output for the same slot replaces the
    /// first: which one is committed to is for the journal to say.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Backend`].
    pub async fn put_output(
        &self,
        at: &Slot,
        bytes: impl Into<Bytes>,
        salt: Salt,
    ) -> Result<BlobId, StoreError> {
        // The blob before what points to it, so that nothing ever points to nothing.
        let hash = self.put(bytes).await?;
        self.put_sidecar(
            at,
            Kind::Output,
            Sidecar { version: SIDECAR_VERSION, hash, salt: Some(BlobId(salt)) },
        )
        .await?;
        Ok(hash)
    }

    /// An inference node's output.
    ///
    /// # Errors
    /// [`StoreError::NotThere`], [`StoreError::Corrupt`], [`StoreError::TooLarge`], [`StoreError::Backend`].
    pub async fn output(&self, at: &Slot) -> Result<Bytes, StoreError> {
        self.get(&self.sidecar(at, Kind::Output).await?.hash).await
    }

    /// What opens the commitment to an inference node's output. The output itself is not looked at.
    ///
    /// # Errors
    /// [`StoreError::NotThere`], [`StoreError::Corrupt`], [`StoreError::TooLarge`], [`StoreError::Backend`].
    pub async fn opening(&self, at: &Slot) -> Result<Opened, StoreError> {
        let sidecar = self.sidecar(at, Kind::Output).await?;
        let salt = sidecar.salt.ok_or_else(|| StoreError::Corrupt {
            what: describe(at, Kind::Output),
            detail: "its record has no salt".to_owned(),
        })?;
        Ok(Opened { hash: sidecar.hash.0, salt: salt.0 })
    }

    /// Stores an evaluator node's reveal, encoded. To be called once the network may know it.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Backend`].
    pub async fn put_reveal(&self, at: &Slot, bytes: impl Into<Bytes>) -> Result<BlobId, StoreError> {
        self.put_of(at, Kind::Reveal, bytes.into()).await
    }

    /// An evaluator node's reveal, encoded.
    ///
    /// # Errors
    /// [`StoreError::NotThere`], [`StoreError::Corrupt`], [`StoreError::TooLarge`], [`StoreError::Backend`].
    pub async fn reveal(&self, at: &Slot) -> Result<Bytes, StoreError> {
        self.get(&self.sidecar(at, Kind::Reveal).await?.hash).await
    }

    /// Stores an evaluator node's report.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Backend`].
    pub async fn put_report(&self, at: &Slot, bytes: impl Into<Bytes>) -> Result<BlobId, StoreError> {
        self.put_of(at, Kind::Report, bytes.into()).await
    }

    async fn put_of(&self, at: &Slot, kind: Kind, bytes: Bytes) -> Result<BlobId, StoreError> {
        let hash = self.put(bytes).await?;
        self.put_sidecar(at, kind, Sidecar { version: SIDECAR_VERSION, hash, salt: None }).await?;
        Ok(hash)
    }

    /// An evaluator node's report.
    ///
    /// # Errors
    /// [`StoreError::NotThere`], [`StoreError::Corrupt`], [`StoreError::TooLarge`], [`StoreError::Backend`].
    pub async fn report(&self, at: &Slot) -> Result<Bytes, StoreError> {
        self.get(&self.sidecar(at, Kind::Report).await?.hash).await
    }

    /// Deletes blobs and records that were last put longer ago than `older_than`, but neither `keep` nor what a younger
    /// record points to. Outputs must be there until their task is final, inputs as long as somebody may fetch them.
    ///
    /// # Errors
    /// [`StoreError::Backend`].
    pub async fn sweep(&self, older_than: Duration, keep: &HashSet<BlobId>) -> Result<Swept, StoreError> {
        let cutoff = SystemTime::now().checked_sub(older_than).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut swept = Swept::default();
        let mut keep = keep.clone();
        let mut records = self.inner.store.list(Some(&self.inner.root.clone().join("tasks")));
        let mut old_records = Vec::new();
        while let Some(meta) =
            records.try_next().await.map_err(|source| backend("list the records", source))?
        {
            let sidecar = match self.read_sidecar(&meta.location, || meta.location.to_string()).await {
                Ok(sidecar) => sidecar,
                Err(StoreError::NotThere { .. }) => continue,
                // Nobody can use a damaged record; it goes when it is old.
                Err(StoreError::Corrupt { .. } | StoreError::TooLarge { .. }) => {
                    if SystemTime::from(meta.last_modified) < cutoff {
                        old_records.push(meta.location);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            if SystemTime::from(meta.last_modified) < cutoff && !keep.contains(&sidecar.hash) {
                old_records.push(meta.location);
            } else {
                keep.insert(sidecar.hash);
            }
        }
        for location in old_records {
            swept.records =
                swept.records.saturating_add(u64::from(self.delete_if_old(&location, cutoff).await?));
        }
        let mut blobs = self.inner.store.list(Some(&self.inner.root.clone().join("blobs")));
        while let Some(meta) = blobs.try_next().await.map_err(|source| backend("list the blobs", source))? {
            let Some(id) = meta.location.filename().and_then(|name| name.parse::<BlobId>().ok()) else {
                continue;
            };
            let old = SystemTime::from(meta.last_modified) < cutoff && !keep.contains(&id);
            if old && self.delete_if_old(&meta.location, cutoff).await? {
                swept.blobs = swept.blobs.saturating_add(1);
                swept.bytes = swept.bytes.saturating_add(meta.size);
            }
        }
        Ok(swept)
    }

    /// Deletes it unless it was put again in the meantime.
    async fn delete_if_old(&self, location: &ObjectPath, cutoff: SystemTime) -> Result<bool, StoreError> {
        let _alone = self.inner.sweeping.write().await;
        let fail = |source| backend(format!("delete {location}"), source);
        match self.inner.store.head(location).await {
            Ok(meta) if SystemTime::from(meta.last_modified) < cutoff => {}
            Ok(_) | Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(source) => return Err(fail(source)),
        }
        match self.inner.store.delete(location).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(fail(source)),
        }
    }

    // ---- paths

    fn blob_path(&self, id: &BlobId) -> ObjectPath {
        let name = id.to_string();
        // Some file systems are slow with very many files in one folder.
        let shelf: String = name.chars().take(2).collect();
        self.inner.root.clone().join("blobs").join(shelf).join(name)
    }

    fn sidecar_path(&self, at: &Slot, kind: Kind) -> ObjectPath {
        let network = hex::encode(at.network);
        let name = format!("{}.{}.json", at.node, kind.name());
        self.inner.root.clone().join("tasks").join(network).join(at.task.to_string()).join(name)
    }

    // ---- objects

    async fn put_sidecar(&self, at: &Slot, kind: Kind, sidecar: Sidecar) -> Result<(), StoreError> {
        let json = serde_json::to_vec(&sidecar).map_err(|error| StoreError::Corrupt {
            what: describe(at, kind),
            detail: format!("its record cannot be written: {error}"),
        })?;
        self.write(&self.sidecar_path(at, kind), json.into(), || format!("record the {}", describe(at, kind)))
            .await
    }

    async fn sidecar(&self, at: &Slot, kind: Kind) -> Result<Sidecar, StoreError> {
        self.read_sidecar(&self.sidecar_path(at, kind), || describe(at, kind)).await
    }

    async fn read_sidecar(
        &self,
        path: &ObjectPath,
        what: impl Fn() -> String,
    ) -> Result<Sidecar, StoreError> {
        let bytes = self.read(path, MAX_SIDECAR, &what).await?;
        let corrupt = |detail: String| StoreError::Corrupt { what: what(), detail };
        let sidecar: Sidecar = serde_json::from_slice(&bytes)
            .map_err(|error| corrupt(format!("its record cannot be read: {error}")))?;
        if sidecar.version != SIDECAR_VERSION {
            return Err(corrupt(format!("its record has version {}", sidecar.version)));
        }
        Ok(sidecar)
    }

    async fn write(
        &self,
        path: &ObjectPath,
        bytes: Bytes,
        action: impl Fn() -> String,
    ) -> Result<(), StoreError> {
        let _shared = self.inner.sweeping.read().await;
        let written = self.inner.store.put(path, PutPayload::from_bytes(bytes)).await;
        written.map(|_| ()).map_err(|source| backend(action(), source))
    }

    async fn read(
        &self,
        path: &ObjectPath,
        limit: u64,
        what: impl Fn() -> String,
    ) -> Result<Bytes, StoreError> {
        let fail = |source| match source {
            object_store::Error::NotFound { .. } => StoreError::NotThere { what: what() },
            source => backend(format!("read {}", what()), source),
        };
        let found = self.inner.store.get(path).await.map_err(fail)?;
        if found.meta.size > limit {
            return Err(StoreError::TooLarge { what: what(), length: found.meta.size, limit });
        }
        found.bytes().await.map_err(fail)
    }
}

fn backend(action: impl Into<String>, source: object_store::Error) -> StoreError {
    StoreError::Backend { action: action.into(), source }
}

fn describe(at: &Slot, kind: Kind) -> String {
    format!("{} of node {} in task {}", kind.name(), at.node, at.task)
}

/// A store's address as it may be told: without a query and a user name, where somebody may have put credentials all the same.
pub fn shown_store(address: &str) -> String {
    let (place, query) = match address.split_once('?') {
        Some((place, _)) => (place, "?…"),
        None => (address, ""),
    };
    match (place.split_once("://"), place.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}{query}"),
        _ => format!("{place}{query}"),
    }
}

fn private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder)?.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            tracing::warn!(
                folder = %folder.display(),
                mode = format!("{mode:o}"),
                "every user of this machine can read the blob store, outputs that are still secret among it: chmod 700"
            );
        }
    }
    Ok(())
}

/// A process that is killed while it stores a blob leaves a file `name#number` beside the blob's place.
fn remove_leftovers(folder: &Path, depth: u8) -> std::io::Result<u64> {
    let mut removed = 0u64;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        // blobs/ab/…, tasks/network/task/…: no deeper.
        if kind.is_dir() && depth < 4 {
            removed = removed.saturating_add(remove_leftovers(&entry.path(), depth.saturating_add(1))?);
        } else if kind.is_file() && is_leftover(&entry.file_name().to_string_lossy()) {
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > LEFTOVER_AGE {
                std::fs::remove_file(entry.path())?;
                removed = removed.saturating_add(1);
            }
        }
    }
    Ok(removed)
}

fn is_leftover(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(feature = "s3")]
fn s3(
    address: &str,
    limits: StoreLimits,
    refused: impl Fn(String) -> StoreError,
) -> Result<BlobStore, StoreError> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    let url = url::Url::parse(address).map_err(|error| refused(error.to_string()))?;
    let bucket = url.host_str().ok_or_else(|| refused("it names no bucket".to_owned()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("credentials belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned()));
    }
    let root = ObjectPath::from_url_path(url.path()).map_err(|error| refused(error.to_string()))?;
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    for (key, value) in url.query_pairs() {
        if key == "allow_http" {
            builder = builder.with_allow_http(value == "true");
            continue;
        }
        let key: AmazonS3ConfigKey =
            key.parse().map_err(|_| refused(format!("\"{key}\" is no setting of an S3 store")))?;
        if matches!(
            key,
            AmazonS3ConfigKey::AccessKeyId | AmazonS3ConfigKey::SecretAccessKey | AmazonS3ConfigKey::Token
        ) {
            return Err(refused(
                "credentials belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned(),
            ));
        }
        builder = builder.with_config(key, value);
    }
    let store = builder.build().map_err(|source| backend(format!("open bucket {bucket}"), source))?;
    Ok(BlobStore::over(Box::new(store), root, limits))
}

#[cfg(not(feature = "s3"))]
fn s3(_: &str, _: StoreLimits, refused: impl Fn(String) -> StoreError) -> Result<BlobStore, StoreError> {
    Err(refused("this build has no S3 support: build with `--features s3`".to_owned()))
}
