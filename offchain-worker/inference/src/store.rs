//! Installed models on disk, used only after their hashes have been checked.

use crate::{
    error::{Error, Result},
    manifest::{FileEntry, Manifest, ModelEntry, Sha256Hex},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

/// Where models live unless told otherwise: `POQ_MODELS_DIR`, else `$XDG_DATA_HOME/poq/models`, else
/// `~/.local/share/poq/models`.
pub fn default_models_dir() -> PathBuf {
    if let Some(dir) = non_empty_env("POQ_MODELS_DIR") {
        return dir;
    }
    non_empty_env("XDG_DATA_HOME")
        .or_else(|| non_empty_env("HOME").map(|home| home.join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("poq/models")
}

/// Where data sets live for a models folder: its sibling `data`.
pub fn data_dir(models_dir: &Path) -> PathBuf {
    match models_dir.parent() {
        Some(parent) => parent.join("data"),
        None => models_dir.join("data"),
    }
}

fn non_empty_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// A folder of models and the manifest that says what must be in it.
///
/// Cheap to clone; clones share what has been verified.
#[derive(Debug, Clone)]
pub struct ModelStore {
    manifest: Arc<Manifest>,
    dir: PathBuf,
    cache: Arc<Mutex<VerifiedCache>>,
    /// How models are run, and which there are beyond the manifest's.
    #[cfg(feature = "candle")]
    configs: Arc<Vec<crate::models::ModelConfig>>,
}

/// A model whose every file is present with the right size and hash.
#[derive(Debug, Clone)]
pub struct VerifiedModel {
    entry: ModelEntry,
    dir: PathBuf,
}

impl VerifiedModel {
    /// The model's manifest entry.
    pub fn entry(&self) -> &ModelEntry {
        &self.entry
    }

    /// The folder its files are in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of one of its files.
    ///
    /// # Errors
    /// When the manifest lists no such file: only listed, and therefore verified, files may be opened.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        self.optional_file(name).ok_or_else(|| Error::Manifest {
            origin: format!("entry `{}`", self.entry.name),
            reason: format!("architecture {:?} needs a file `{name}`", self.entry.architecture),
        })
    }

    /// A model whose files nobody has hashed yet: to be looked at, not to be run.
    pub(crate) fn unverified(entry: ModelEntry, dir: PathBuf) -> Self {
        Self { entry, dir }
    }

    /// The path of one of its files, where the manifest lists it.
    pub fn optional_file(&self, name: &str) -> Option<PathBuf> {
        self.entry.files.iter().find(|f| f.path == name).map(|f| f.place(&self.dir))
    }

    /// The paths of its files that end in `suffix`, in the manifest's order.
    pub fn files_ending_in(&self, suffix: &str) -> Vec<PathBuf> {
        self.entry.files.iter().filter(|f| f.path.ends_with(suffix)).map(|f| f.place(&self.dir)).collect()
    }
}

impl ModelStore {
    /// The store in `dir`, which need not exist yet.
    pub fn new(manifest: Manifest, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        let cache = VerifiedCache::load(dir.join(VerifiedCache::FILE));
        Self {
            manifest: Arc::new(manifest),
            dir,
            cache: Arc::new(Mutex::new(cache)),
            #[cfg(feature = "candle")]
            configs: Arc::default(),
        }
    }

    /// The same folder with another manifest, and models as they are configured.
    #[cfg(feature = "candle")]
    pub(crate) fn replaced(self, manifest: Manifest, configs: Vec<crate::models::ModelConfig>) -> Self {
        Self { manifest: Arc::new(manifest), configs: Arc::new(configs), ..self }
    }

    /// The models that are configured.
    #[cfg(feature = "candle")]
    pub fn configs(&self) -> &[crate::models::ModelConfig] {
        &self.configs
    }

    /// The store in [`default_models_dir`] with the built-in manifest.
    pub fn open_default() -> Self {
        Self::new(Manifest::builtin(), default_models_dir())
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The models folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of one model.
    pub fn model_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether every file of the model is there with the right size. Nothing is hashed.
    pub fn is_installed(&self, name: &str) -> bool {
        let Ok(entry) = self.manifest.get(name) else { return false };
        let dir = self.model_dir(name);
        entry.files.iter().all(|f| std::fs::metadata(f.place(&dir)).is_ok_and(|m| m.len() == f.size))
    }

    /// Checks every file of a model: present, the right size, the right sha256.
    ///
    /// A file is hashed once; while its size and modification time stay the same, later calls, also of later processes,
    /// take the recorded result.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::MissingFile`], [`Error::WrongSize`], [`Error::HashMismatch`].
    pub fn verify(&self, name: &str) -> Result<VerifiedModel> {
        let entry = self.manifest.get(name)?.clone();
        let dir = self.model_dir(name);
        for file in &entry.files {
            self.verify_file(name, &file.place(&dir), file).map_err(|error| match (error, &file.at) {
                (error @ Error::Io { .. }, _) | (error, None) => error,
                // No source has it: it is the operator's own.
                (error, Some(path)) => own_file(name, path, &error),
            })?;
        }
        Ok(VerifiedModel { entry, dir })
    }

    /// The sha256 of a file, which is hashed once: see [`ModelStore::verify`].
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn hash(&self, path: &Path) -> Result<Sha256Hex> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        let state = FileState::of(&metadata);
        if let Some(found) = state.as_ref().and_then(|state| self.cache.lock().get(path, state)) {
            return Ok(found);
        }
        let found = sha256_file(path)?;
        if let Some(state) = state {
            self.cache.lock().record(path, state, &found);
        }
        Ok(found)
    }

    /// Forgets what was recorded of a model's files: the next check hashes them.
    pub fn forget(&self, name: &str) {
        let Ok(entry) = self.manifest.get(name) else { return };
        let dir = self.model_dir(name);
        let mut cache = self.cache.lock();
        for file in &entry.files {
            cache.entries.remove(&file.place(&dir));
        }
        if let Err(error) = cache.store() {
            tracing::debug!(path = %cache.path.display(), %error, "hashes are not remembered");
        }
    }

    /// As [`ModelStore::verify`], of one file that the manifest describes, at `path`.
    pub(crate) fn verify_file(&self, model: &str, path: &Path, file: &FileEntry) -> Result<()> {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::MissingFile { model: model.to_string(), path: path.to_path_buf() })
            }
            Err(e) => return Err(Error::io(path, e)),
        };
        if metadata.len() != file.size {
            return Err(Error::WrongSize {
                path: path.to_path_buf(),
                expected: file.size,
                found: metadata.len(),
            });
        }
        let state = FileState::of(&metadata);
        if let Some(state) = &state {
            if self.cache.lock().holds(path, state, &file.sha256) {
                return Ok(());
            }
        }
        let found = sha256_file(path)?;
        if found != file.sha256 {
            return Err(Error::HashMismatch {
                path: path.to_path_buf(),
                expected: file.sha256.to_string(),
                found: found.to_string(),
            });
        }
        if let Some(state) = state {
            self.cache.lock().record(path, state, &found);
        }
        Ok(())
    }
}

/// What is wrong with a file of the operator's own.
fn own_file(name: &str, path: &Path, error: &Error) -> Error {
    let reason = match error {
        Error::MissingFile { .. } => format!(
            "{} does not exist: put it back, or `poq models remove {name}` and `poq models add` it from where it is",
            path.display()
        ),
        _ => format!(
            "{} is not the file that was added: put that one back, or `poq models remove {name}` and `poq models add` this one, \
             which is another model to everybody who sees its digest",
            path.display()
        ),
    };
    Error::ModelConfig { name: name.to_string(), reason }
}

/// The sha256 of a file's content.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_file(path: &Path) -> Result<Sha256Hex> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(|e| Error::io(path, e))?;
        if read == 0 {
            return Ok(Sha256Hex(hasher.finalize().into()));
        }
        hasher.update(&buffer[..read]);
    }
}

/// What tells that a file has not been touched since it was hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileState {
    size: u64,
    modified_ns: u64,
}

impl FileState {
    /// `None` where the file system keeps no modification times: such a file is hashed every time.
    fn of(metadata: &std::fs::Metadata) -> Option<Self> {
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Self { size: metadata.len(), modified_ns: u64::try_from(modified.as_nanos()).ok()? })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Verified {
    state: FileState,
    sha256: String,
}

/// Hashes found earlier. It spares time, it is no trust anchor: whoever can write it can write the models beside it.
#[derive(Debug, Default)]
struct VerifiedCache {
    path: PathBuf,
    entries: BTreeMap<PathBuf, Verified>,
}

impl VerifiedCache {
    const FILE: &'static str = ".verified.json";

    fn load(path: PathBuf) -> Self {
        let entries = Self::read(&path);
        Self { path, entries }
    }

    fn read(path: &Path) -> BTreeMap<PathBuf, Verified> {
        std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn holds(&self, path: &Path, state: &FileState, sha256: &Sha256Hex) -> bool {
        self.get(path, state).is_some_and(|found| found == *sha256)
    }

    fn get(&self, path: &Path, state: &FileState) -> Option<Sha256Hex> {
        let known = self.entries.get(path).filter(|known| known.state == *state)?;
        known.sha256.parse().ok()
    }

    fn record(&mut self, path: &Path, state: FileState, sha256: &Sha256Hex) {
        // Another process may have recorded other files meanwhile.
        self.entries.append(&mut Self::read(&self.path));
        self.entries.insert(path.to_path_buf(), Verified { state, sha256: sha256.to_string() });
        if let Err(error) = self.store() {
            // A read-only models folder is a fair way to deploy: it only costs the hashing at the next start.
            tracing::debug!(path = %self.path.display(), %error, "hashes are not remembered");
        }
    }

    fn store(&self) -> std::io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer_pretty(&mut file, &self.entries)?;
        file.persist(&self.path).map_err(|e| e.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the workspace's build serde_json has `arbitrary_precision`, under which numbers in flattened structures do not read back.
    #[test]
    fn what_was_verified_is_remembered_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model.gguf");
        std::fs::write(&model, "weights").unwrap();
        let state = FileState::of(&model.metadata().unwrap()).unwrap();
        let sha256 = sha256_file(&model).unwrap();
        let path = dir.path().join(VerifiedCache::FILE);
        VerifiedCache::load(path.clone()).record(&model, state.clone(), &sha256);
        assert!(VerifiedCache::load(path.clone()).holds(&model, &state, &sha256));
        assert!(!VerifiedCache::load(path).holds(&model, &state, &"0".repeat(64).parse().unwrap()));
    }

    fn store_with(content: &[u8], pinned: &[u8]) -> (tempfile::TempDir, ModelStore) {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            r#"
            [[model]]
            name = "m"
            title = "a test"
            role = "generator"
            architecture = "gguf"
            licence = "Apache-2.0"
            context_tokens = 8
            memory_bytes = 1
            [[model.file]]
            path = "model.gguf"
            size = {}
            sha256 = "{}"
            source = []
            "#,
            pinned.len(),
            hex::encode(Sha256::digest(pinned)),
        );
        let manifest_path = dir.path().join("models.toml");
        std::fs::write(&manifest_path, text).unwrap();
        std::fs::create_dir_all(dir.path().join("models/m")).unwrap();
        std::fs::write(dir.path().join("models/m/model.gguf"), content).unwrap();
        let store = ModelStore::new(Manifest::from_path(&manifest_path).unwrap(), dir.path().join("models"));
        (dir, store)
    }

    #[test]
    fn right_file_is_accepted_and_remembered() {
        let (_dir, store) = store_with(b"weights", b"weights");
        store.verify("m").unwrap();
        assert!(store.dir().join(".verified.json").exists());
        let again = ModelStore::new(store.manifest().clone(), store.dir());
        let path = again.model_dir("m").join("model.gguf");
        let state = FileState::of(&std::fs::metadata(&path).unwrap()).unwrap();
        let sha256 = again.manifest().get("m").unwrap().files[0].sha256;
        assert!(again.cache.lock().holds(&path, &state, &sha256));
        again.verify("m").unwrap();
    }

    #[test]
    fn changed_file_is_hashed_again() {
        let (_dir, store) = store_with(b"weights", b"weights");
        store.verify("m").unwrap();
        let path = store.model_dir("m").join("model.gguf");
        std::fs::write(&path, b"wEights").unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert!(matches!(store.verify("m"), Err(Error::HashMismatch { .. })));
    }

    #[test]
    fn wrong_hash_is_refused() {
        let (_dir, store) = store_with(b"WEIGHTS", b"weights");
        let error = store.verify("m").unwrap_err();
        assert!(matches!(error, Error::HashMismatch { .. }), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn truncated_file_is_refused() {
        let (_dir, store) = store_with(b"weig", b"weights");
        let error = store.verify("m").unwrap_err();
        assert!(matches!(error, Error::WrongSize { expected: 7, found: 4, .. }), "{error}");
        assert!(!store.is_installed("m"));
    }

    #[test]
    fn missing_file_names_the_script() {
        let (_dir, store) = store_with(b"weights", b"weights");
        std::fs::remove_file(store.model_dir("m").join("model.gguf")).unwrap();
        let error = store.verify("m").unwrap_err().to_string();
        assert!(error.contains("scripts/install-models.sh m"), "{error}");
    }

    #[test]
    fn unknown_model_lists_the_known_ones() {
        let (_dir, store) = store_with(b"weights", b"weights");
        let error = store.verify("n").unwrap_err().to_string();
        assert!(error.contains("`n`") && error.contains(": m"), "{error}");
    }
}
