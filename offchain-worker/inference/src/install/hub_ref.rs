//! A model at the Hugging Face hub, and which of its repository's files it is.

#[cfg(feature = "hub")]
use super::hub::Listed;
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// `hub:OWNER/NAME[@REVISION][:FILE]`: a repository, a commit or a branch of it (`main` where none is named), and of a repository
/// with several GGUF files the one that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRef {
    /// `OWNER/NAME`.
    pub repo: String,
    /// A commit, a branch or a tag.
    pub revision: String,
    /// The one file that is meant.
    pub file: Option<String>,
}

impl HubRef {
    /// The model in a folder that it was fetched into.
    pub(crate) fn place(&self, dir: &Path) -> PathBuf {
        self.file.as_ref().map_or_else(|| dir.to_path_buf(), |file| dir.join(file))
    }

    /// A name for it: that of its file or repository, as names here are spelt.
    pub fn name(&self) -> String {
        let file = self.file.as_deref().and_then(|file| Path::new(file).file_stem()?.to_str());
        let repo = self.repo.rsplit('/').next().unwrap_or_default();
        file.unwrap_or(repo).to_lowercase()
    }
}

impl fmt::Display for HubRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hub:{}@{}", self.repo, self.revision)?;
        match &self.file {
            Some(file) => write!(f, ":{file}"),
            None => Ok(()),
        }
    }
}

/// Whether a path leads nowhere but into its own folder.
fn is_plain(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('\\');
    path.split('/').all(plain)
}

impl FromStr for HubRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            format!("`{text}` is not of the form hub:OWNER/NAME@REVISION, with :FILE behind where a repository has several models")
        };
        let rest = text.strip_prefix("hub:").ok_or_else(form)?;
        let (rest, file) = match rest.split_once(':') {
            Some((rest, file)) => (rest, Some(file.to_string())),
            None => (rest, None),
        };
        let (repo, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let word = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            is_plain(part) && part.chars().all(plain)
        };
        let owned = repo.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name));
        if !owned || !revision.split('/').all(word) || !file.as_deref().is_none_or(is_plain) {
            return Err(form());
        }
        Ok(Self { repo: repo.to_string(), revision: revision.to_string(), file })
    }
}

/// Files of a folder that loaders open, beside the weights.
#[cfg(feature = "hub")]
const SMALL: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "model.safetensors.index.json",
];

/// The files that are the model, of those that a repository has.
///
/// # Errors
/// When there is no model, or which one is meant cannot be told.
#[cfg(feature = "hub")]
pub(super) fn wanted<'l>(files: &'l [Listed], file: Option<&str>) -> Result<Vec<&'l Listed>, String> {
    let files: Vec<&Listed> = files.iter().filter(|file| is_plain(&file.path)).collect();
    if let Some(name) = file {
        let found = files.iter().find(|file| file.path == name);
        let names = || {
            let names: Vec<_> =
                files.iter().map(|f| f.path.as_str()).filter(|n| n.ends_with(".gguf")).collect();
            if names.is_empty() {
                "no GGUF file at all".to_string()
            } else {
                names.join(", ")
            }
        };
        return found.map(|file| vec![*file]).ok_or_else(|| format!("it has no {name}; it has {}", names()));
    }
    let top: Vec<&&Listed> = files.iter().filter(|file| !file.path.contains('/')).collect();
    let named = |name: &str| files.iter().find(|file| file.path == name).copied();
    let ending = |end: &str| -> Vec<&'l Listed> {
        top.iter().filter(|file| file.path.ends_with(end)).map(|file| **file).collect()
    };
    let weights = match (named("model.safetensors.index.json"), named("model.safetensors")) {
        // Of several, those that the index lists: they count themselves.
        (Some(_), _) => {
            ending(".safetensors").into_iter().filter(|file| file.path.starts_with("model-")).collect()
        }
        (None, Some(one)) => vec![one],
        (None, None) => ending(".safetensors"),
    };
    // Old folders of sentence-transformers have the network in one of its own.
    let network = "0_Transformer/";
    let inner = |file: &&&Listed| {
        file.path
            .strip_prefix(network)
            .is_some_and(|name| SMALL.contains(&name) || name == "model.safetensors")
    };
    let inner: Vec<&Listed> = files.iter().filter(inner).copied().collect();
    let has_config = named("config.json").is_some();
    let has_weights = !weights.is_empty() || inner.iter().any(|file| file.path.ends_with(".safetensors"));
    if !has_weights || !(has_config || inner.iter().any(|file| file.path.ends_with("/config.json"))) {
        return match ending(".gguf").as_slice() {
            [one] => Ok(vec![one]),
            [] if top.iter().any(|file| file.path.ends_with(".bin") || file.path.ends_with(".pt")) => {
                Err("its weights are pickled (*.bin), which is a program and not loaded: look for a revision with \
                     safetensors, or convert it with transformers and add the folder"
                    .to_string())
            }
            [] => Err("it has neither a config.json with *.safetensors nor a *.gguf file".to_string()),
            several => {
                let size = |file: &Listed| file.size.map(|s| format!(" ({} MB)", s / 1_000_000)).unwrap_or_default();
                let names: Vec<_> = several.iter().map(|file| format!("{}{}", file.path, size(file))).collect();
                Err(format!("it has several GGUF files: put :FILE behind, one of {}", names.join(", ")))
            }
        };
    }
    let mut found: Vec<&Listed> = SMALL.iter().filter_map(|name| named(name)).collect();
    found.extend(weights);
    found.extend(inner);
    // Modules of sentence-transformers: `1_Pooling`, `2_Dense`.
    let module = |file: &&&Listed| {
        let Some((folder, name)) = file.path.split_once('/') else { return false };
        let numbered =
            folder.split_once('_').is_some_and(|(number, _)| number.parse::<u8>().is_ok_and(|n| n > 0));
        numbered && matches!(name, "config.json" | "model.safetensors")
    };
    found.extend(files.iter().filter(module));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_parsed_and_printed() {
        let plain: HubRef = "hub:Qwen/Qwen2-1.5B-Instruct".parse().unwrap();
        assert_eq!((plain.revision.as_str(), plain.name().as_str()), ("main", "qwen2-1.5b-instruct"));
        let text = "hub:o/n-GGUF@refs/pr/1:sub/Model.Q4_K_M.gguf";
        let full: HubRef = text.parse().unwrap();
        assert_eq!((full.to_string().as_str(), full.name().as_str()), (text, "model.q4_k_m"));
        assert_eq!(full.place(Path::new("/d")), Path::new("/d/sub/Model.Q4_K_M.gguf"));
        for bad in [
            "o/n",
            "hub:n",
            "hub:o/n/m",
            "hub:o/..",
            "hub:o/n@",
            "hub:o/n@a b",
            "hub:o/n:../x",
            "hub:o/n:/x",
            "hub:o/n:",
        ] {
            assert!(bad.parse::<HubRef>().is_err(), "{bad}");
        }
    }

    #[cfg(feature = "hub")]
    #[test]
    fn the_files_that_a_loader_opens_are_chosen() {
        let choose = |paths: &[&str], file: Option<&str>| -> Result<Vec<String>, String> {
            let files: Vec<Listed> = paths
                .iter()
                .map(|path| Listed { path: path.to_string(), size: None, sha256: None })
                .collect();
            wanted(&files, file).map(|found| found.iter().map(|file| file.path.clone()).collect())
        };
        let all = [
            "README.md",
            "../evil",
            ".gitattributes",
            "config.json",
            "tokenizer.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "consolidated.safetensors",
            "original/consolidated.00.pth",
            "onnx/model.onnx",
        ];
        let found = choose(&all, None).unwrap();
        assert_eq!(
            found,
            [
                "config.json",
                "tokenizer.json",
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors"
            ]
        );
        let sentence = [
            "config.json",
            "tokenizer.json",
            "model.safetensors",
            "modules.json",
            "1_Pooling/config.json",
            "openvino/x.xml",
        ];
        assert!(choose(&sentence, None).unwrap().contains(&"1_Pooling/config.json".to_string()));
        let old = [
            "modules.json",
            "0_Transformer/config.json",
            "0_Transformer/model.safetensors",
            "0_Transformer/tokenizer.json",
        ];
        assert_eq!(choose(&old, None).unwrap().len(), 4);
        assert_eq!(choose(&["a.gguf", "config.json"], None).unwrap(), ["a.gguf"]);
        assert_eq!(choose(&["a.gguf", "b.gguf"], Some("b.gguf")).unwrap(), ["b.gguf"]);
        assert!(choose(&["a.gguf", "b.gguf"], None).unwrap_err().contains("one of a.gguf, b.gguf"));
        assert!(choose(&["a.gguf"], Some("c.gguf")).unwrap_err().contains("it has a.gguf"));
        assert!(choose(&["config.json", "pytorch_model.bin"], None).unwrap_err().contains("pickled"));
        assert!(choose(&["README.md"], None).unwrap_err().contains("neither"));
    }
}
