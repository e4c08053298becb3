//! The `[[models]]` sections of a configuration file, changed without touching anything else in it.

use crate::{
    data::read_text,
    error::{Error, Result},
    models::ModelConfig,
};
use std::{
    io::Write,
    path::{Path, PathBuf},
};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value};

/// The key of the sections.
const KEY: &str = "models";

/// A configuration file that is being changed.
pub(super) struct ConfigFile {
    path: PathBuf,
    document: DocumentMut,
    exists: bool,
}

impl ConfigFile {
    /// Reads it; one that is not there is an empty one.
    ///
    /// # Errors
    /// When it is no TOML.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let exists = path.exists();
        let text = if exists { read_text(path)? } else { String::new() };
        let bad = |e: toml_edit::TomlError| Error::Config { path: path.to_path_buf(), reason: e.to_string() };
        Ok(Self { path: path.to_path_buf(), document: text.parse().map_err(bad)?, exists })
    }

    fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::Config { path: self.path.clone(), reason: reason.into() }
    }

    fn sections(&self) -> Result<Option<&ArrayOfTables>> {
        match self.document.get(KEY) {
            None => Ok(None),
            Some(Item::ArrayOfTables(sections)) => Ok(Some(sections)),
            // `models = [{ … }]`
            Some(_) => {
                Err(self.wrong("`models` is one value: write [[models]] sections, which can be added to"))
            }
        }
    }

    /// The place of the section of this name.
    fn place(&self, name: &str) -> Result<Option<usize>> {
        let named = |table: &Table| table.get("name").and_then(Item::as_str) == Some(name);
        Ok(self.sections()?.and_then(|sections| sections.iter().position(named)))
    }

    /// Whether there is a section of this name.
    pub(super) fn has(&self, name: &str) -> Result<bool> {
        self.place(name).map(|place| place.is_some())
    }

    /// The nodes that run a model, by their numbers.
    pub(super) fn nodes_of(&self, name: &str) -> Vec<String> {
        let nodes = self.document.get("nodes").and_then(Item::as_array_of_tables).into_iter().flatten();
        nodes
            .filter(|node| node.get("model").and_then(Item::as_str) == Some(name))
            .map(|node| node.get("id").map(|id| id.to_string().trim().to_string()).unwrap_or_default())
            .collect()
    }

    /// Adds a section, in place of the one of its name where there is one.
    pub(super) fn put(&mut self, model: &ModelConfig) -> Result<()> {
        let place = self.place(&model.name)?;
        let mut table = table(model).map_err(|reason| self.wrong(reason))?;
        let empty = self.document.is_empty();
        let sections = self.document.entry(KEY).or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        let Item::ArrayOfTables(sections) = sections else {
            return Err(self.wrong("`models` is no [[models]]"));
        };
        match place.and_then(|place| sections.get_mut(place)) {
            Some(old) => {
                // What people wrote before it stays.
                *table.decor_mut() = old.decor().clone();
                table.set_position(old.position());
                *old = table;
            }
            None => {
                table.decor_mut().set_prefix(if empty { "" } else { "\n" });
                sections.push(table);
            }
        }
        Ok(())
    }

    /// Takes the section of this name away; false when there is none.
    pub(super) fn remove(&mut self, name: &str) -> Result<bool> {
        let Some(place) = self.place(name)? else { return Ok(false) };
        if let Some(Item::ArrayOfTables(sections)) = self.document.get_mut(KEY) {
            sections.remove(place);
            if sections.is_empty() {
                self.document.remove(KEY);
            }
        }
        Ok(true)
    }

    /// Writes it: whole or not at all.
    pub(super) fn write(&self) -> Result<()> {
        // A link stays one.
        let path = if self.exists { self.path.canonicalize() } else { std::path::absolute(&self.path) };
        let path = path.map_err(|e| Error::io(&self.path, e))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let failed = |e: std::io::Error| Error::io(&path, e);
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        file.write_all(self.document.to_string().as_bytes()).map_err(failed)?;
        if let Ok(metadata) = std::fs::metadata(&path) {
            file.as_file().set_permissions(metadata.permissions()).map_err(failed)?;
        } else {
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
            }
        }
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|e| failed(e.error))?;
        Ok(())
    }
}

/// Keys in the order in which people look for them; others follow.
const ORDER: [&str; 4] = ["name", "source", "role", "licence"];

/// A section as people write it: what is as by default is left out, files are one a line.
fn table(model: &ModelConfig) -> std::result::Result<Table, String> {
    let plain = toml::Table::try_from(ModelConfig::default()).map_err(|e| e.to_string())?;
    let mut own = toml::Table::try_from(model).map_err(|e| e.to_string())?;
    own.retain(|key, value| key == "name" || plain.get(key) != Some(value));
    let files = own.remove("files");
    let mut table = Table::new();
    let mut put = |key: &str, value: &toml::Value| -> std::result::Result<(), String> {
        let value: Value = value.to_string().parse().map_err(|e: toml_edit::TomlError| e.to_string())?;
        table.insert(key, Item::Value(value));
        Ok(())
    };
    for key in ORDER {
        if let Some(value) = own.remove(key) {
            put(key, &value)?;
        }
    }
    for (key, value) in &own {
        put(key, value)?;
    }
    if let Some(toml::Value::Array(files)) = files {
        let mut array = toml_edit::Array::new();
        for file in files {
            let mut inline = toml_edit::InlineTable::new();
            for key in ["path", "size", "sha256"] {
                if let Some(value) = file.get(key) {
                    inline.insert(
                        key,
                        value.to_string().parse().map_err(|e: toml_edit::TomlError| e.to_string())?,
                    );
                }
            }
            let mut value = Value::InlineTable(inline);
            value.decor_mut().set_prefix("\n    ");
            array.push_formatted(value);
        }
        array.set_trailing("\n");
        array.set_trailing_comma(true);
        table.insert("files", Item::Value(Value::Array(array)));
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::PinnedFile;

    const BEFORE: &str = "# Mine.\ndata_dir = \"d\" # here\n\n[chain]\nurls = [\n  \"ws://a\", # first\n]\n\n# The small one.\n[[models]]\nname = \"a\"\nthreads = 2\n\n[[nodes]]\nid = 7\nrole = \"inference\"\nmodel = \"a\"\n";

    fn model(name: &str) -> ModelConfig {
        ModelConfig {
            source: Some("/m/x.gguf".into()),
            context: Some(2048),
            device: crate::DeviceSpec::Cuda(1),
            files: vec![PinnedFile {
                path: "model.gguf".into(),
                size: 7,
                sha256: "ab".repeat(32).parse().unwrap(),
            }],
            ..ModelConfig::named(name)
        }
    }

    fn written(before: &str, change: impl FnOnce(&mut ConfigFile)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("poq.toml");
        std::fs::write(&path, before).unwrap();
        let mut file = ConfigFile::open(&path).unwrap();
        change(&mut file);
        file.write().unwrap();
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn whatever_else_is_in_the_file_stays_as_it_was_written() {
        let after = written(BEFORE, |file| file.put(&model("b")).unwrap());
        let section = "\n[[models]]\nname = \"b\"\nsource = \"/m/x.gguf\"\ncontext = 2048\ndevice = \"cuda:1\"\nfiles = [\n    { path = \"model.gguf\", size = 7, sha256 = \"";
        assert!(after.contains(section), "{after}");
        for line in BEFORE.lines() {
            assert!(after.contains(line), "{line:?} is not in {after}");
        }
        // And back.
        let back = written(&after, |file| assert!(file.remove("b").unwrap()));
        assert_eq!(back, BEFORE);
    }

    #[test]
    fn a_section_is_put_in_place_of_its_own() {
        let after = written(BEFORE, |file| file.put(&model("a")).unwrap());
        assert_eq!(after.matches("[[models]]").count(), 1, "{after}");
        assert!(after.contains("# The small one.\n[[models]]\nname = \"a\"\nsource"), "{after}");
        assert!(!after.contains("threads"), "{after}");
    }

    #[test]
    fn a_file_that_was_not_there_is_made() {
        let after = written("", |file| file.put(&model("b")).unwrap());
        assert!(after.starts_with("[[models]]\nname = \"b\"\n"), "{after}");
        #[derive(serde::Deserialize)]
        struct File {
            models: Vec<ModelConfig>,
        }
        assert_eq!(toml::from_str::<File>(&after).unwrap().models, [model("b")]);
    }

    #[test]
    fn what_runs_a_model_is_known_and_what_cannot_be_changed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("poq.toml");
        std::fs::write(&path, BEFORE).unwrap();
        let mut file = ConfigFile::open(&path).unwrap();
        assert_eq!((file.nodes_of("a"), file.nodes_of("b").len()), (vec!["7".to_string()], 0));
        assert!(!file.remove("b").unwrap() && file.has("a").unwrap());
        std::fs::write(&path, "models = [{ name = 'a' }]\n").unwrap();
        let error = ConfigFile::open(&path).unwrap().put(&model("b")).unwrap_err().to_string();
        assert!(error.contains("[[models]]") && error.contains("poq.toml"), "{error}");
        std::fs::write(&path, "models = [").unwrap();
        assert!(ConfigFile::open(&path).is_err());
    }
}
