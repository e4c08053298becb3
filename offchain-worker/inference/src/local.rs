//! Models of the operator's own: which files of a folder a loader opens, and what they are.

use crate::{
    data::read_text,
    engine::inspect::{inspect, role_of, Details},
    error::{Error, Result},
    manifest::{Architecture, FileEntry, ModelEntry, Pooling, Role, Sha256Hex},
    store::VerifiedModel,
};
use serde_json::Value as Json;
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// What loaders call a GGUF file.
pub(crate) const GGUF: &str = "model.gguf";

/// What lies beside a tokenizer and belongs to it.
const BESIDE_TOKENIZER: [&str; 3] =
    ["tokenizer_config.json", "chat_template.jinja", "generation_config.json"];

/// What is wanted of a model, over what its files say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) role: Option<Role>,
    pub(crate) context: Option<usize>,
    pub(crate) pooling: Option<Pooling>,
}

/// A model that was looked at. Its files' hashes are not known yet: they are zeros.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) entry: ModelEntry,
    pub(crate) details: Details,
}

/// Files by the names that loaders have for them.
type Files = Vec<(String, PathBuf)>;

fn refused(path: &Path, reason: impl Into<String>) -> Error {
    Error::NoModel { path: path.to_path_buf(), reason: reason.into() }
}

/// The model in a GGUF file, or in a folder.
///
/// # Errors
/// When there is none, several, or one that there is no code for; with what to do.
pub(crate) fn look(path: &Path, name: &str, wanted: &Wanted) -> Result<Found> {
    let (role, architecture, files) = files(path, wanted)?;
    let mut entries = Vec::with_capacity(files.len());
    for (name, at) in files {
        let metadata = std::fs::metadata(&at).map_err(|e| Error::io(&at, e))?;
        entries.push(FileEntry {
            path: name,
            size: metadata.len(),
            sha256: Sha256Hex([0; 32]),
            sources: Vec::new(),
            at: Some(at),
            convert: None,
        });
    }
    let mut entry = ModelEntry {
        name: name.to_string(),
        title: path.display().to_string(),
        role,
        architecture,
        licence: "unknown".to_string(),
        context_tokens: 0,
        memory_bytes: 0,
        pooling: wanted.pooling.unwrap_or_default(),
        query_prefix: String::new(),
        extra: true,
        files: entries,
    };
    let model = VerifiedModel::unverified(entry.clone(), path.to_path_buf());
    let details = inspect(&model, wanted.context).map_err(|error| match error {
        // The name says nothing yet.
        Error::Model { reason, .. } => refused(path, reason),
        other => other,
    })?;
    entry.context_tokens = wanted.context.unwrap_or(details.context);
    entry.memory_bytes = details.memory_bytes(entry.context_tokens);
    if let Some(licence) = &details.licence {
        entry.licence.clone_from(licence);
    }
    Ok(Found { entry, details })
}

/// Where a model's files are, by the names that loaders have for them. Whether they are there is not asked.
///
/// # Errors
/// When it cannot be told which file is the model.
pub(crate) fn places(path: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    let is_dir = path.is_dir();
    let folder = if is_dir { path } else { path.parent().unwrap_or(Path::new("")) };
    let network = if is_dir { network_folder(path) } else { folder.to_path_buf() };
    names
        .iter()
        .map(|name| match *name {
            GGUF if is_dir => only_gguf(path),
            GGUF => Ok(path.to_path_buf()),
            // What belongs to sentence-transformers' modules lies in the folder itself.
            "modules.json" | "config_sentence_transformers.json" => Ok(folder.join(name)),
            name if name.contains('/') => Ok(folder.join(name)),
            name => Ok(network.join(name)),
        })
        .collect()
}

fn files(path: &Path, wanted: &Wanted) -> Result<(Role, Architecture, Files)> {
    if !path.exists() {
        return Err(Error::NoFile { path: path.to_path_buf() });
    }
    if path.is_file() {
        return of_file(path, wanted);
    }
    let config = network_folder(path).join("config.json");
    if config.is_file() {
        let names = names_in(&network_folder(path))?;
        if names.iter().any(|name| name.ends_with(".safetensors")) || !has_gguf(path)? {
            return of_folder(path, wanted);
        }
    }
    if has_gguf(path)? {
        return of_file(&only_gguf(path)?, wanted);
    }
    Err(refused(
        path,
        "neither a *.gguf file is in it, nor a config.json as Hugging Face's libraries write it beside *.safetensors",
    ))
}

fn of_file(path: &Path, wanted: &Wanted) -> Result<(Role, Architecture, Files)> {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    if read.is_err() || &magic != b"GGUF" {
        let advice = match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors" | "json") => "name the folder that it is in: its config.json and tokenizer belong to the model",
            Some("bin" | "pt" | "pth" | "ckpt") => "pickled weights are programs and are not loaded: save them as safetensors",
            Some("onnx") => "ONNX files are not loaded: take the model's safetensors",
            _ => "it is no GGUF file; name one, or the folder of a model with its config.json and *.safetensors",
        };
        return Err(refused(path, advice));
    }
    if wanted.role.is_some_and(|role| role != Role::Generator) {
        return Err(refused(
            path,
            "GGUF files are language models here (role generator); encoders are folders of safetensors",
        ));
    }
    let mut files = vec![(GGUF.to_string(), path.to_path_buf())];
    // A tokenizer beside the file wins over the one in it.
    let beside = |name: &str| path.with_file_name(name);
    if beside("tokenizer.json").is_file() {
        files.push(("tokenizer.json".to_string(), beside("tokenizer.json")));
        for name in BESIDE_TOKENIZER {
            if beside(name).is_file() {
                files.push((name.to_string(), beside(name)));
            }
        }
    }
    Ok((Role::Generator, Architecture::Gguf, files))
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn has_gguf(folder: &Path) -> Result<bool> {
    Ok(names_in(folder)?.iter().any(|name| name.ends_with(".gguf")))
}

fn only_gguf(folder: &Path) -> Result<PathBuf> {
    let names = if folder.is_dir() { names_in(folder)? } else { Vec::new() };
    let found: Vec<&String> = names.iter().filter(|name| name.ends_with(".gguf")).collect();
    match found.as_slice() {
        [one] => Ok(folder.join(one)),
        [] => Ok(folder.join(GGUF)),
        several => {
            let names: Vec<&str> = several.iter().map(|name| name.as_str()).collect();
            Err(refused(folder, format!("it has several GGUF files: name one of {}", names.join(", "))))
        }
    }
}

/// The folder of the network itself: sentence-transformers may have it in one beside those of its other modules.
fn network_folder(folder: &Path) -> PathBuf {
    let read =
        |name: &str| -> Option<Json> { serde_json::from_str(&read_text(&folder.join(name)).ok()?).ok() };
    if folder.join("config.json").is_file() {
        return folder.to_path_buf();
    }
    let modules = read("modules.json").unwrap_or_default();
    let network = modules.as_array().into_iter().flatten().find(|module| {
        module["type"].as_str().is_some_and(|kind| kind.rsplit('.').next() == Some("Transformer"))
    });
    let path = network.and_then(|module| module["path"].as_str()).unwrap_or_default();
    if is_inside(path) {
        folder.join(path)
    } else {
        folder.to_path_buf()
    }
}

/// Whether a path of a folder's own files leads to nowhere else.
fn is_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn of_folder(folder: &Path, wanted: &Wanted) -> Result<(Role, Architecture, Files)> {
    let network = network_folder(folder);
    let names = names_in(&network)?;
    let path = network.join("config.json");
    let config: Json = serde_json::from_str(&read_text(&path)?)
        .map_err(|e| refused(&path, format!("it is no JSON: {e}")))?;
    let Some(found) = role_of(&config) else {
        let model_type = config["model_type"].as_str().unwrap_or("nothing");
        return Err(refused(
            folder,
            format!("config.json is of a `{model_type}`, which there is no code for; docs/models.md lists what there is"),
        ));
    };
    let pools = folder.join("modules.json").is_file();
    let role =
        wanted.role.unwrap_or(if pools && found == Role::CrossEncoder { Role::BiEncoder } else { found });
    if (role == Role::Generator) != (found == Role::Generator) {
        return Err(refused(folder, format!("it is a {found}, not a {role}")));
    }
    let mut files: Files = Vec::new();
    let mut take = |name: &str, at: PathBuf| files.push((name.to_string(), at));
    take("config.json", path);
    if !names.iter().any(|name| name == "tokenizer.json") {
        return Err(refused(
            folder,
            "it has no tokenizer.json; transformers writes it: \
             AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        ));
    }
    take("tokenizer.json", network.join("tokenizer.json"));
    for name in BESIDE_TOKENIZER {
        // Of an encoder its loader opens none of them.
        if role == Role::Generator && names.iter().any(|own| own == name) {
            take(name, network.join(name));
        }
    }
    for name in weights(folder, &network, &names)? {
        if role != Role::Generator && name != "model.safetensors" {
            return Err(refused(
                folder,
                format!("its weights are in {name}: encoders are read from one model.safetensors"),
            ));
        }
        take(&name, network.join(&name));
    }
    if role == Role::BiEncoder {
        for (name, at) in modules(folder)? {
            take(&name, at);
        }
    }
    let architecture = if role == Role::Generator { Architecture::Safetensors } else { Architecture::Bert };
    Ok((role, architecture, files))
}

/// The files that hold the weights: what the index lists, else `model.safetensors`, else whatever there is.
fn weights(folder: &Path, network: &Path, names: &[String]) -> Result<Vec<String>> {
    let index = network.join("model.safetensors.index.json");
    let found: Vec<String> = if index.is_file() {
        let json: Json = serde_json::from_str(&read_text(&index)?)
            .map_err(|e| refused(&index, format!("it is no JSON: {e}")))?;
        let map = json["weight_map"].as_object().into_iter().flatten();
        let listed: std::collections::BTreeSet<&str> = map.filter_map(|(_, file)| file.as_str()).collect();
        if let Some(missing) = listed.iter().find(|file| !names.iter().any(|name| name == *file)) {
            return Err(refused(folder, format!("{missing} is missing, which {} lists", index.display())));
        }
        listed.into_iter().map(str::to_string).collect()
    } else if names.iter().any(|name| name == "model.safetensors") {
        vec!["model.safetensors".to_string()]
    } else {
        names.iter().filter(|name| name.ends_with(".safetensors")).cloned().collect()
    };
    if found.is_empty() {
        let pickled = names.iter().any(|name| name.ends_with(".bin") || name.ends_with(".pt"));
        let reason = match pickled {
            true => {
                "its weights are pickled (*.bin), which is a program and not loaded; transformers writes safetensors: \
                 AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            }
            false => "it has no *.safetensors",
        };
        return Err(refused(folder, reason));
    }
    Ok(found)
}

/// What sentence-transformers has beside the network.
fn modules(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    let mut take = |name: &str| {
        let at = folder.join(name);
        if at.is_file() {
            files.push((name.to_string(), at));
        }
    };
    take("modules.json");
    take("config_sentence_transformers.json");
    let path = folder.join("modules.json");
    if !path.is_file() {
        return Ok(files);
    }
    let json: Json = serde_json::from_str(&read_text(&path)?)
        .map_err(|e| refused(&path, format!("it is no JSON: {e}")))?;
    for module in json.as_array().into_iter().flatten() {
        let own = module["path"].as_str().unwrap_or_default();
        let kind = module["type"].as_str().and_then(|kind| kind.rsplit('.').next()).unwrap_or_default();
        if !own.is_empty() && kind != "Transformer" && is_inside(own) {
            take(&format!("{own}/config.json"));
            take(&format!("{own}/model.safetensors"));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
    }

    fn found(path: &Path) -> Found {
        look(path, "x", &Wanted::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    #[test]
    fn what_models_are_is_seen_in_their_files() {
        let llama = found(&fixture("llama"));
        assert_eq!(
            (llama.entry.role, llama.entry.architecture),
            (Role::Generator, Architecture::Safetensors)
        );
        assert_eq!((llama.details.network.as_str(), llama.details.trained_context), ("llama", 512));
        assert_eq!((llama.entry.context_tokens, llama.details.vocabulary), (512, 384));
        assert!(llama.details.chat_template && llama.details.parameters > 10_000);
        let names: Vec<_> = llama.entry.files.iter().map(|file| file.path.as_str()).collect();
        assert!(names.contains(&"config.json") && names.contains(&"model.safetensors"), "{names:?}");
        assert!(!names.contains(&"expected.json"), "{names:?}");

        let gguf = found(&fixture("qwen2-gguf-q8_0"));
        assert_eq!((gguf.entry.role, gguf.entry.architecture), (Role::Generator, Architecture::Gguf));
        assert!(gguf.details.quantisation().starts_with("Q8_0"), "{}", gguf.details.quantisation());
        assert!(gguf.details.tokenizer.contains("qwen2"), "{}", gguf.details.tokenizer);

        assert_eq!(found(&fixture("bert")).entry.role, Role::BiEncoder);
        assert_eq!(found(&fixture("deberta-nli")).entry.role, Role::CrossEncoder);
        let dense = found(&fixture("xlm-roberta-dense"));
        let names: Vec<_> = dense.entry.files.iter().map(|file| file.path.as_str()).collect();
        assert!(
            names.contains(&"modules.json") && names.iter().any(|n| n.ends_with("/model.safetensors")),
            "{names:?}"
        );
    }

    /// A file has the same digest wherever it lies and whatever it is called.
    #[test]
    fn a_name_of_ones_own_changes_no_digest() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("my own model.gguf");
        let source = std::fs::read_dir(fixture("llama-gguf-q8_0")).unwrap();
        let source =
            source.map(|e| e.unwrap().path()).find(|p| p.extension().is_some_and(|e| e == "gguf")).unwrap();
        std::fs::copy(&source, &own).unwrap();
        let [a, b] = [&own, &source].map(|path| found(path).entry.digest());
        assert_eq!(a, b);
    }

    #[test]
    fn an_old_folder_of_sentence_transformers_has_its_network_in_one_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let network = dir.path().join("0_Transformer");
        std::fs::create_dir_all(&network).unwrap();
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            std::fs::copy(fixture("bert").join(name), network.join(name)).unwrap();
        }
        let modules = r#"[{"idx":0,"path":"0_Transformer","type":"sentence_transformers.models.Transformer"},
            {"idx":1,"path":"1_Pooling","type":"sentence_transformers.models.Pooling"}]"#;
        std::fs::write(dir.path().join("modules.json"), modules).unwrap();
        std::fs::create_dir_all(dir.path().join("1_Pooling")).unwrap();
        std::fs::write(dir.path().join("1_Pooling/config.json"), r#"{"pooling_mode_mean_tokens":true}"#)
            .unwrap();
        let found = found(dir.path());
        assert_eq!(found.entry.role, Role::BiEncoder);
        let names: Vec<_> = found.entry.files.iter().map(|file| file.path.as_str()).collect();
        let places = places(dir.path(), &names).unwrap();
        for (file, place) in found.entry.files.iter().zip(places) {
            assert_eq!(file.at.as_deref(), Some(place.as_path()));
            assert!(place.is_file());
        }
    }

    #[test]
    fn what_is_no_model_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let told = |what: &Path, says: &str| {
            let error = look(what, "x", &Wanted::default()).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        };
        told(&dir.path().join("none"), "no such file");
        told(dir.path(), "neither a *.gguf");
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        told(&write("a.gguf", "PK"), "no GGUF file");
        told(&write("a.safetensors", ""), "name the folder");
        told(&write("a.bin", ""), "pickled");
        told(&write("b.gguf", "GGUF"), "header");
        told(dir.path(), "several GGUF files: name one of a.gguf, b.gguf");
        std::fs::remove_file(dir.path().join("a.gguf")).unwrap();
        std::fs::remove_file(dir.path().join("b.gguf")).unwrap();
        write("config.json", r#"{"model_type":"mamba"}"#);
        told(dir.path(), "`mamba`");
        write("config.json", r#"{"model_type":"llama"}"#);
        told(dir.path(), "tokenizer.json");
        write("tokenizer.json", "{}");
        std::fs::remove_file(dir.path().join("a.safetensors")).unwrap();
        told(dir.path(), "pickled (*.bin)");
        // A cut-off download.
        let whole = std::fs::read(fixture("bert/model.safetensors")).unwrap();
        for name in ["config.json", "tokenizer.json"] {
            std::fs::copy(fixture("bert").join(name), dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("model.safetensors"), &whole[..whole.len() - 7]).unwrap();
        told(dir.path(), "model.safetensors");
        let wanted = Wanted { role: Some(Role::Generator), ..Wanted::default() };
        let error = look(&fixture("bert"), "x", &wanted).unwrap_err().to_string();
        assert!(error.contains("not a generator"), "{error}");
    }
}
