//! `models add` and `models remove`.

use super::{
    file::ConfigFile,
    install::SourceArgs,
    progress::Bars,
    show::{json_of, text_of},
    size,
    trial::trial,
    OutputArgs, PlaceArgs,
};
use crate::{
    engine::{DeviceSpec, LoadOptions, Precision},
    error::{Error, Result},
    install::{fetch_hub, install, HubRef, InstallOptions, Progress},
    local::look,
    manifest::{is_plain_name, Pooling, Role},
    models::{ModelConfig, Origin, PinnedFile},
    store::ModelStore,
};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

/// `models add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// A GGUF file, a folder as Hugging Face's libraries write it, hub:OWNER/NAME@REVISION (with :FILE behind where a repository
    /// has several GGUF files), or a name that `list` shows.
    #[arg(value_name = "FILE|DIR|hub:REPO@REVISION|NAME")]
    what: String,

    /// The name that nodes run it by; without it, made of the file's, the folder's or the repository's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// What it is for, where its files do not say: generator, bi-encoder or cross-encoder.
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,

    /// The most tokens it is to see, prompt and answer together; without it, what it was trained for, 4096 at most (texts: 512).
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,

    /// The licence of its weights, where its files do not say.
    #[arg(long, value_name = "NAME")]
    licence: Option<String>,

    /// How a bi-encoder pools, where its folder does not say: mean, cls, last-token, max, mean-sqrt, weighted-mean.
    #[arg(long, value_name = "POOLING")]
    pooling: Option<Pooling>,

    /// What a bi-encoder wants before a text that asks, where its folder does not say.
    #[arg(long, value_name = "TEXT")]
    query_prefix: Option<String>,

    /// Where it computes: cpu, cuda:N, metal:N.
    #[arg(long, env = "POQ_DEVICE", hide_env_values = true, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceSpec,

    /// With what numbers: auto, f32, f16, bf16.
    #[arg(long, default_value = "auto", value_name = "TYPE")]
    dtype: Precision,

    /// Requests that it answers at once, on a GPU.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    parallel: Option<usize>,

    /// Threads of its own; without it, it shares the process's with other models.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,

    /// The most bytes of memory, the card's where it computes on one, that it may take.
    #[arg(long, value_name = "BYTES")]
    memory_limit: Option<u64>,

    /// Replaces the section that has this name already.
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub sources: SourceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// `models remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The model's name.
    name: String,

    /// Deletes its files too.
    #[arg(long)]
    files: bool,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("`{text}` is no number of at least 1"))
}

/// The file that sections are written to where none is named and none is found.
const FILE: &str = "poq.toml";

/// A name out of a file's or a folder's.
fn name_of(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let name = name.map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    name.chars().map(plain).collect::<String>().trim_matches(['-', '.']).to_string()
}

/// What the argument means.
fn origin(what: &str, store: &ModelStore) -> Result<Origin> {
    let wrong = |reason: String| Error::InvalidRequest(reason);
    if what.starts_with("hub:") {
        return what.parse().map(Origin::Hub).map_err(wrong);
    }
    if let Some(entry) = store.manifest().hub().iter().find(|entry| entry.name == what) {
        return Ok(Origin::Hub(HubRef {
            repo: entry.repo.clone(),
            revision: entry.revision.clone(),
            file: entry.file.clone(),
        }));
    }
    if store.manifest().models().iter().any(|model| model.name == what) {
        return Ok(Origin::Manifest(what.to_string()));
    }
    let path = PathBuf::from(what);
    if !path.exists() {
        return Err(wrong(format!(
            "`{what}` is neither a file or folder here, nor hub:OWNER/NAME@REVISION, nor a name that `models list` shows"
        )));
    }
    std::path::absolute(&path).map(Origin::Path).map_err(|e| Error::io(path, e))
}

impl AddArgs {
    /// What the flags say, of a model of this name.
    fn section(&self, name: String) -> ModelConfig {
        ModelConfig {
            name,
            role: self.role,
            licence: self.licence.clone(),
            context: self.context,
            pooling: self.pooling,
            query_prefix: self.query_prefix.clone(),
            device: self.device,
            dtype: self.dtype,
            parallel: self.parallel,
            threads: self.threads,
            memory_limit_bytes: self.memory_limit,
            ..ModelConfig::default()
        }
    }
}

pub(super) fn add(args: &AddArgs) -> Result<()> {
    // What is refused anyway is refused before gigabytes are fetched.
    args.device.check()?;
    let path = match &args.place.config {
        Some(path) => path.clone(),
        None => args.place.config()?.unwrap_or_else(|| PathBuf::from(FILE)),
    };
    let existing = path.is_file().then_some(path.as_path());
    let store = ModelStore::configured(args.place.manifest()?, args.place.dir.as_deref(), existing)?;
    let mut file = ConfigFile::open(&path)?;
    let builtin = args.place.manifest()?;
    let origin = origin(&args.what, &store)?;
    let known = builtin.hub().iter().find(|entry| entry.name == args.what);
    let name = args.name.clone().unwrap_or_else(|| match &origin {
        Origin::Manifest(name) => name.clone(),
        Origin::Hub(_) if known.is_some() => args.what.clone(),
        Origin::Hub(hub) => hub.name(),
        Origin::Path(path) => name_of(path),
    });
    let wrong = |reason: String| Error::ModelConfig { name: name.clone(), reason };
    if !is_plain_name(&name) {
        return Err(wrong(
            "it is no name for a model: --name gives it one of letters, digits, `.`, `_`, `-`".into(),
        ));
    }
    if file.has(&name)? && !args.replace {
        return Err(wrong(format!(
            "{} has a section of that name: --replace puts this one in its place, --name gives it another name",
            path.display()
        )));
    }
    if !matches!(&origin, Origin::Manifest(_)) && builtin.models().iter().any(|model| model.name == name) {
        return Err(wrong("the manifest has a model of that name: --name gives this one another".into()));
    }

    let progress = Bars::new();
    let options = args.sources.options(&store.dir().to_path_buf());
    let mut section = args.section(name.clone());
    if let Some(entry) = known {
        section.role = section.role.or(Some(entry.role));
        section.context = section.context.or(Some(entry.context_tokens));
        section.pooling = section.pooling.or(entry.pooling);
        section.licence = section.licence.or_else(|| Some(entry.licence.clone()));
    }
    let (details, notes) = fetch(&mut section, origin, &store, &options, &progress)?;
    progress.clear();

    // As everybody who reads the configuration will see it.
    let store = store.with_models(vec![section.clone()]);
    let entry = store.manifest().get(&name)?.clone();
    let dir = store.model_dir(&name);
    let loaded: LoadOptions = section.options();
    let trial = trial(&store, &name, &loaded)?;
    file.put(&section)?;
    file.write()?;

    let mut json = json_of(&entry, details.as_ref(), &dir);
    json["trial"] = trial.json;
    json["config"] = json!(path);
    json["source"] = json!(section.source);
    json["notes"] = json!(notes);
    args.output.print(&json, || {
        let notes: String = notes.iter().map(|note| format!("  {note}\n")).collect();
        format!(
            "{}\n  {}\n{notes}written to {}; `poq node register --model {name}` registers a node that runs it",
            text_of(&entry, details.as_ref(), &loaded.device.to_string()),
            trial.text,
            path.display()
        )
    });
    Ok(())
}

/// Gets a model's files where they are not here, looks at them, and pins them in `section`. Returns what was seen, and what is worth
/// a line.
fn fetch(
    section: &mut ModelConfig,
    origin: Origin,
    store: &ModelStore,
    options: &InstallOptions,
    progress: &Bars,
) -> Result<(Option<crate::Details>, Vec<String>)> {
    let name = section.name.clone();
    let mut notes = Vec::new();
    let path = match origin {
        Origin::Manifest(own) => {
            install(store.manifest(), std::slice::from_ref(&own), options, progress)?;
            if own != name {
                section.source = Some(own);
            }
            return Ok((None, notes));
        }
        Origin::Path(path) => {
            section.source = Some(path.to_string_lossy().into_owned());
            path
        }
        Origin::Hub(hub) => {
            let fetched = fetch_hub(&hub, &store.model_dir(&name), options, progress)?;
            if fetched.hub.revision != hub.revision {
                notes.push(format!(
                    "pinned: `{}` of {} is the commit {} now, with the hashes that the hub gives for it",
                    hub.revision, hub.repo, fetched.hub.revision
                ));
            } else {
                notes.push(format!(
                    "pinned: the hashes are what the hub gives for {} at this commit",
                    hub.repo
                ));
            }
            section.licence = section.licence.take().or(fetched.licence);
            section.source = Some(fetched.hub.to_string());
            fetched.hub.place(&store.model_dir(&name))
        }
    };
    let mut found = look(&path, &name, &section.wanted())?;
    progress.begin(&name);
    for file in &mut found.entry.files {
        progress.step(&format!("hashing {}", file.path), None);
        file.sha256 = store.hash(&file.place(&path))?;
        progress.step_done();
    }
    let beside = found.entry.files.len() > 1 && path.is_file();
    if beside {
        notes.push(
            "the tokenizer.json beside the file is taken for its own: a file that it does not belong to must lie elsewhere".into(),
        );
    }
    section.role = Some(found.entry.role);
    section.context = Some(found.entry.context_tokens);
    section.memory_bytes = Some(found.entry.memory_bytes);
    if section.licence.is_none() && found.details.licence.is_some() {
        section.licence.clone_from(&found.details.licence);
    }
    section.files = found.entry.files.iter().map(PinnedFile::from).collect();
    Ok((Some(found.details), notes))
}

pub(super) fn remove(args: &RemoveArgs) -> Result<()> {
    let store = args.place.store()?;
    let name = &args.name;
    let config = args.place.config()?;
    let wrong = |reason: String| Error::ModelConfig { name: name.clone(), reason };
    let mut taken = false;
    if let Some(path) = &config {
        let mut file = ConfigFile::open(path)?;
        let nodes = file.nodes_of(name);
        if !nodes.is_empty() && (args.files || store.config(name).is_some_and(|model| model.source.is_some()))
        {
            return Err(wrong(format!(
                "node {} of {} runs it: take its [[nodes]] section out first",
                nodes.join(", "),
                path.display()
            )));
        }
        taken = file.remove(name)?;
        if taken {
            file.write()?;
        }
    }
    let mut deleted = Vec::new();
    if args.files {
        let entry = store.manifest().get(name)?;
        let dir = store.model_dir(name);
        store.forget(name);
        for file in &entry.files {
            let at = file.place(&dir);
            match std::fs::remove_file(&at) {
                Ok(()) => deleted.push((at, file.size)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io(at, e)),
            }
        }
        // What the hub's folder had beside them.
        if dir.is_dir()
            && store
                .config(name)
                .is_some_and(|model| model.source.as_deref().is_some_and(|s| s.starts_with("hub:")))
        {
            std::fs::remove_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
        }
        // Of a folder of one's own what does not belong to the model stays, and with it the folder.
        let _ = std::fs::remove_dir(&dir);
    }
    if !taken && !args.files {
        let place = config.map_or_else(
            || "no configuration was found".to_string(),
            |path| format!("{} has no such section", path.display()),
        );
        return Err(wrong(format!("{place}; --files deletes the files of a model of the manifest")));
    }
    let bytes: u64 = deleted.iter().map(|(_, size)| size).sum();
    let json = json!({
        "name": name, "section": taken, "deleted": deleted.iter().map(|(path, _)| path).collect::<Vec<_>>(), "bytes": bytes,
    });
    args.output.print(&json, || {
        let section = match (&config, taken) {
            (Some(path), true) => format!("its section is gone from {}", path.display()),
            _ => "it had no section".to_string(),
        };
        match args.files {
            true => format!("{name}: {section}; {} files deleted, {}", deleted.len(), size(bytes)),
            false => format!("{name}: {section}; its files are where they were"),
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("My Model (v2)");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(name_of(&folder), "my-model--v2");
        assert_eq!(name_of(Path::new("/x/TinyLlama-1.1B.Q4_K_M.gguf")), "tinyllama-1.1b.q4_k_m");
        assert_eq!(at_least_one("3"), Ok(3));
        assert!(at_least_one("0").is_err() && at_least_one("x").is_err());
    }
}
