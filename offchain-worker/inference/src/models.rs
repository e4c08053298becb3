//! Models by configuration: the `[[models]]` sections of poq.toml.
//!
//! A section names a model, says where its files are and how it is run. It may be about a model of the manifest (`name` alone),
//! or bring one of the operator's own (`source`): a GGUF file, a folder as Hugging Face's libraries write it, what was fetched
//! from the hub. With `files`, which `poq models add` writes, its files are pinned as those of the manifest are; without, they
//! are looked at and hashed when the configuration is read. Either way the model's digest is that of its files.

use crate::{
    error::{Error, Result},
    install::HubRef,
    local,
    manifest::{is_plain_name, Architecture, FileEntry, Manifest, ModelEntry, Pooling, Role, Sha256Hex},
    store::{default_models_dir, ModelStore},
    DeviceSpec, Kernels, LoadOptions, Precision,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One `[[models]]` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The model's name, as the nodes that run it have it.
    pub name: String,
    /// Where its files are: a GGUF file, a folder, `hub:OWNER/NAME@COMMIT`, or the name of a model of the manifest. Without it,
    /// it is the model of the manifest that has this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What it is for: `generator`, `bi-encoder` or `cross-encoder`. Without it, what its files say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The licence of its weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// The most tokens that it is to see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// How many bytes of memory it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// How a bi-encoder pools, where its folder does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Put before a text that asks, where a bi-encoder was trained so and its folder does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_prefix: Option<String>,
    /// Its files, as they were when it was added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PinnedFile>,
    /// Where it computes: `cpu`, `cuda:N`, `metal`.
    #[serde(default)]
    pub device: DeviceSpec,
    /// With what numbers: `auto`, `f32`, `f16`, `bf16`.
    #[serde(default)]
    pub dtype: Precision,
    /// Requests that a language model answers at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
    /// Threads that it computes with on the processor, of its own. Without it, it shares the process's with other models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// The most bytes of memory, the card's where it computes on one, that it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
}

/// A file of a model, as it was when the model was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedFile {
    /// What its loader calls it.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its sha256.
    pub sha256: Sha256Hex,
}

impl From<&FileEntry> for PinnedFile {
    fn from(file: &FileEntry) -> Self {
        Self { path: file.path.clone(), size: file.size, sha256: file.sha256 }
    }
}

/// What a configuration says of models, of all that it says.
#[derive(Debug, Default, Deserialize)]
struct Sections {
    #[serde(default)]
    models: Vec<ModelConfig>,
    models_dir: Option<PathBuf>,
}

/// The configuration file that is taken where none is named: `poq.toml` in the working directory, in
/// `$XDG_CONFIG_HOME/poq` (`~/.config/poq`), or in `/etc/poq`. `None` where there is none.
pub fn find_config() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".config")));
    let mut places = vec![PathBuf::from("poq.toml")];
    places.extend(base.map(|base| base.join("poq/poq.toml")));
    places.push(PathBuf::from("/etc/poq/poq.toml"));
    places.into_iter().find(|path| path.is_file())
}

/// Where a model's files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The manifest, by this name.
    Manifest(String),
    /// A GGUF file, or a folder.
    Path(PathBuf),
    /// The hub; its files are in the model's folder in the models folder.
    Hub(HubRef),
}

impl ModelConfig {
    /// A section about the model of the manifest with this name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Takes a relative path as relative to the folder of the configuration that has it.
    pub fn relative_to(&mut self, folder: &Path, manifest: &Manifest) {
        let Some(source) = &self.source else { return };
        if source.starts_with(HUB) || manifest.knows(source) {
            return;
        }
        self.source = Some(folder.join(source).to_string_lossy().into_owned());
    }

    /// How it is loaded.
    pub fn options(&self) -> LoadOptions {
        LoadOptions {
            device: self.device,
            precision: self.dtype,
            parallel: self.parallel,
            threads: self.threads,
            memory_limit: self.memory_limit_bytes,
            kernels: Kernels::Best,
        }
    }

    /// Where its files come from.
    ///
    /// # Errors
    /// When `source` is none of the forms that there are.
    pub fn origin(&self, manifest: &Manifest) -> Result<Origin> {
        match &self.source {
            None => Ok(Origin::Manifest(self.name.clone())),
            Some(source) if source.starts_with(HUB) => {
                source.parse().map(Origin::Hub).map_err(|reason| self.wrong(reason))
            }
            Some(source) if manifest.knows(source) => Ok(Origin::Manifest(source.clone())),
            Some(source) => Ok(Origin::Path(PathBuf::from(source))),
        }
    }

    fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::ModelConfig { name: self.name.clone(), reason: reason.into() }
    }

    /// The model that this section stands for, in `store`.
    ///
    /// # Errors
    /// When there is no such model, or its files are not there or not those of a model.
    fn entry(&self, store: &ModelStore) -> Result<ModelEntry> {
        if !is_plain_name(&self.name) {
            return Err(self.wrong("the name must be letters, digits, `.`, `_`, `-`"));
        }
        let path = match self.origin(store.manifest())? {
            Origin::Manifest(name) => {
                let mut entry = store.manifest().get(&name)?.clone();
                if self.role.is_some_and(|role| role != entry.role) {
                    return Err(
                        self.wrong(format!("`role` is {:?}, and `{name}` is a {}", self.role, entry.role))
                    );
                }
                // Under a name of its own it lies where the manifest's does.
                if name != self.name {
                    let dir = store.model_dir(&name);
                    entry.files.iter_mut().for_each(|file| file.at = Some(dir.join(&file.path)));
                }
                return Ok(self.apply(entry));
            }
            Origin::Path(path) => path,
            Origin::Hub(hub) => hub.place(&store.model_dir(&self.name)),
        };
        if self.files.is_empty() {
            let mut found = local::look(&path, &self.name, &self.wanted())?;
            for file in &mut found.entry.files {
                file.sha256 = store.hash(&file.place(&path))?;
            }
            return Ok(self.apply(found.entry));
        }
        // Nothing is looked at: what was pinned is checked when it is loaded.
        let (Some(role), Some(context)) = (self.role, self.context) else {
            return Err(
                self.wrong("`files` without `role` and `context`: `poq models add` writes all of them")
            );
        };
        let names: Vec<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        let architecture = match role {
            Role::Generator if names.contains(&local::GGUF) => Architecture::Gguf,
            Role::Generator => Architecture::Safetensors,
            Role::BiEncoder | Role::CrossEncoder => Architecture::Bert,
        };
        let places = local::places(&path, &names)?;
        let files = self.files.iter().zip(places).map(|(file, at)| FileEntry {
            path: file.path.clone(),
            size: file.size,
            sha256: file.sha256,
            sources: Vec::new(),
            at: Some(at),
            convert: None,
        });
        Ok(self.apply(ModelEntry {
            name: self.name.clone(),
            title: self.source.clone().unwrap_or_default(),
            role,
            architecture,
            licence: "unknown".to_string(),
            context_tokens: context,
            memory_bytes: 0,
            pooling: Pooling::default(),
            query_prefix: String::new(),
            extra: true,
            files: files.collect(),
        }))
    }

    /// What the section says of a model, over what its files say.
    fn apply(&self, mut entry: ModelEntry) -> ModelEntry {
        entry.name.clone_from(&self.name);
        entry.context_tokens = self.context.unwrap_or(entry.context_tokens);
        entry.memory_bytes = self.memory_bytes.unwrap_or(entry.memory_bytes);
        entry.pooling = self.pooling.unwrap_or(entry.pooling);
        if let Some(licence) = &self.licence {
            entry.licence.clone_from(licence);
        }
        if let Some(prefix) = &self.query_prefix {
            entry.query_prefix.clone_from(prefix);
        }
        entry
    }

    /// What is wanted of a model that is looked at.
    pub(crate) fn wanted(&self) -> local::Wanted {
        local::Wanted { role: self.role, context: self.context, pooling: self.pooling }
    }

    /// What is wrong with these sections by themselves, if anything: the place in the list, the key, the problem, what to do.
    /// Asks whether the devices are there.
    pub fn problem(
        models: &[ModelConfig],
        manifest: &Manifest,
    ) -> Option<(usize, &'static str, String, &'static str)> {
        models.iter().enumerate().find_map(|(place, model)| {
            let problem = |key, problem: String, advice| Some((place, key, problem, advice));
            if model.source.is_none() && !manifest.knows(&model.name) {
                return problem(
                    "name",
                    format!("is `{}`, which is no model of the manifest, and there is no `source`", model.name),
                    "spell it as `poq models list` does, or name its file or folder as `source` (`poq models add` does)",
                );
            }
            if models[..place].iter().any(|other| other.name == model.name) {
                let text = format!("is `{}` for the second time", model.name);
                return problem("name", text, "write one section per model");
            }
            for (key, value) in [("parallel", model.parallel), ("threads", model.threads), ("context", model.context)] {
                if value == Some(0) {
                    return problem(key, "is 0".into(), "set it to at least 1, or leave it out");
                }
            }
            let error = model.device.check().err()?;
            problem("device", format!("cannot be: {error}"), "leave it out to compute on the processor")
        })
    }
}

/// What a source at the hub begins with.
const HUB: &str = "hub:";

impl ModelStore {
    /// This store with models as they are configured. What is wrong with one of them is told to whoever asks for it.
    #[must_use]
    pub fn with_models(self, models: Vec<ModelConfig>) -> Self {
        let mut manifest = self.manifest().clone();
        for model in &models {
            match model.entry(&self) {
                Ok(entry) => manifest.put(entry),
                Err(error) => {
                    let reason = match error {
                        Error::ModelConfig { reason, .. } => reason,
                        other => other.to_string(),
                    };
                    manifest.put_unusable(&model.name, reason);
                }
            }
        }
        self.replaced(manifest, models)
    }

    /// The store that a configuration file describes, without whatever else is in the file; `dir` wins over its `models_dir`.
    ///
    /// # Errors
    /// When the file cannot be read, or its `[[models]]` not be understood.
    pub fn configured(manifest: Manifest, dir: Option<&Path>, config: Option<&Path>) -> Result<Self> {
        let mut sections = match config {
            Some(path) => read(path)?,
            None => Sections::default(),
        };
        let folder = config.and_then(Path::parent).unwrap_or(Path::new(""));
        for model in &mut sections.models {
            model.relative_to(folder, &manifest);
        }
        let dir = dir
            .map(Path::to_path_buf)
            .or_else(|| sections.models_dir.map(|dir| folder.join(dir)))
            .unwrap_or_else(default_models_dir);
        Ok(Self::new(manifest, dir).with_models(sections.models))
    }

    /// How the model of this name is loaded: as it is configured, or as by default.
    pub fn options(&self, name: &str) -> LoadOptions {
        self.config(name).map(ModelConfig::options).unwrap_or_default()
    }

    /// As [`ModelStore::options`], on a device where one is named.
    pub fn options_on(&self, name: &str, device: Option<DeviceSpec>) -> LoadOptions {
        let options = self.options(name);
        LoadOptions { device: device.unwrap_or(options.device), ..options }
    }

    /// What is configured of the model of this name.
    pub fn config(&self, name: &str) -> Option<&ModelConfig> {
        self.configs().iter().find(|model| model.name == name)
    }
}

fn read(path: &Path) -> Result<Sections> {
    let text = crate::data::read_text(path)?;
    toml::from_str(&text).map_err(|e| Error::Config { path: path.to_path_buf(), reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(text: &str) -> ModelConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn sources_are_told_apart() {
        let manifest = Manifest::builtin();
        let origin = |text: &str| model(text).origin(&manifest).unwrap();
        let name = "smollm2-135m-instruct";
        assert_eq!(origin(&format!("name = '{name}'")), Origin::Manifest(name.into()));
        assert_eq!(origin(&format!("name = 'x'\nsource = '{name}'")), Origin::Manifest(name.into()));
        assert_eq!(origin("name = 'x'\nsource = '/a/b.gguf'"), Origin::Path("/a/b.gguf".into()));
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let Origin::Hub(hub) = origin(&format!("name = 'x'\nsource = 'hub:o/n@{commit}:q4.gguf'")) else {
            panic!("another origin")
        };
        assert_eq!(hub.to_string(), format!("hub:o/n@{commit}:q4.gguf"));
        assert!(model("name = 'x'\nsource = 'hub:nothing'").origin(&manifest).is_err());
        assert!(toml::from_str::<ModelConfig>("name = 'x'\ncontxt = 5").is_err());
    }

    #[test]
    fn relative_paths_are_relative_to_the_file_and_names_are_none() {
        let manifest = Manifest::builtin();
        let relative = |source: &str| {
            let mut model = model(&format!("name = 'x'\nsource = '{source}'"));
            model.relative_to(Path::new("/etc/poq"), &manifest);
            model.source.unwrap()
        };
        assert_eq!(relative("own.gguf"), "/etc/poq/own.gguf");
        assert_eq!(relative("/own.gguf"), "/own.gguf");
        assert_eq!(relative("all-minilm-l6-v2"), "all-minilm-l6-v2");
        assert_eq!(relative("hub:o/n"), "hub:o/n");
    }

    #[test]
    fn a_model_that_cannot_be_used_hinders_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let missing = model("name = 'own'\nsource = '/not/there.gguf'");
        let mut other = model("name = 'small'\nsource = 'all-minilm-l6-v2'\ncontext = 64\nthreads = 3");
        other.licence = Some("mine".into());
        let store = ModelStore::new(Manifest::builtin(), dir.path()).with_models(vec![missing, other]);
        let error = store.manifest().get("own").unwrap_err().to_string();
        assert!(error.contains("[[models]] `own`") && error.contains("/not/there.gguf"), "{error}");
        let small = store.manifest().get("small").unwrap();
        let original = store.manifest().get("all-minilm-l6-v2").unwrap();
        assert_eq!((small.context_tokens, small.licence.as_str()), (64, "mine"));
        assert_eq!(small.digest(), original.digest());
        assert_eq!(store.options("small").threads, Some(3));
        assert_eq!(store.options("all-minilm-l6-v2"), LoadOptions::default());
        // It lies where the manifest's does.
        let error = store.verify("small").unwrap_err().to_string();
        assert!(error.contains("all-minilm-l6-v2"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_sections_is_told_with_its_key() {
        let manifest = Manifest::builtin();
        let problem = |models: &[ModelConfig]| {
            ModelConfig::problem(models, &manifest).map(|(place, key, problem, _)| (place, key, problem))
        };
        let own = |text: &str| model(&format!("{text}\nsource = '/x.gguf'"));
        let one = || own("name = 'a'");
        assert_eq!(problem(&[one(), own("name = 'b'"), model("name = 'all-minilm-l6-v2'")]), None);
        let (_, key, told) = problem(&[model("name = 'all-minilm'")]).unwrap();
        assert!(key == "name" && told.contains("`all-minilm`"), "{told}");
        assert_eq!(problem(&[one(), one()]).unwrap().0, 1);
        for key in ["parallel", "threads", "context"] {
            let (_, found, _) = problem(&[own(&format!("name = 'a'\n{key} = 0"))]).unwrap();
            assert_eq!(found, key);
        }
        #[cfg(not(feature = "cuda"))]
        assert_eq!(problem(&[own("name = 'a'\ndevice = 'cuda:0'")]).unwrap().1, "device");
    }
}
