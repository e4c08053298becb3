//! The package index that this machine's pip is configured with.
//!
//! A machine behind a mirror has said so in pip's configuration; asking for it again would be one place more to keep
//! right. Read are pip's files (global, user, virtual environment, `PIP_CONFIG_FILE`) and its environment variables, in
//! pip's order of precedence.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The index when nothing is configured.
const DEFAULT_INDEX: &str = "https://pypi.org/simple";

/// What of pip's configuration matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PipConfig {
    /// The indexes to ask, in order; empty with `no-index`.
    pub(crate) indexes: Vec<String>,
    /// Local folders that hold wheels.
    pub(crate) find_links: Vec<PathBuf>,
    /// A certificate bundle to trust besides the system's.
    pub(crate) certificates: Option<PathBuf>,
}

impl PipConfig {
    /// The configuration in force.
    pub(crate) fn load() -> Self {
        let env = |name: &str| std::env::var(name).ok();
        let texts: Vec<String> =
            config_files(&env).iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
        Self::resolve(&texts, &env)
    }

    /// Merges the texts of configuration files, later ones first in rank, and the environment above them.
    fn resolve(texts: &[String], env: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut values = BTreeMap::new();
        for text in texts {
            let sections = parse_ini(text);
            // A command's own section outranks [global]; `download` is the command this stands in for.
            for section in ["global", "install", "download"] {
                if let Some(section) = sections.get(section) {
                    values.extend(section.clone());
                }
            }
        }
        let get = |key: &str| {
            env(&format!("PIP_{}", key.to_uppercase().replace('-', "_")))
                .or_else(|| values.get(key).cloned())
                .map(|v| v.trim().to_string())
                .filter(|v| !v.is_empty())
        };
        let list = |key: &str| -> Vec<String> {
            get(key).map(|v| v.split_whitespace().map(str::to_string).collect()).unwrap_or_default()
        };
        let no_index = get("no-index").is_some_and(|v| matches!(v.as_str(), "1" | "true" | "yes" | "on"));
        let mut indexes = Vec::new();
        if !no_index {
            indexes.push(get("index-url").unwrap_or_else(|| DEFAULT_INDEX.to_string()));
            indexes.extend(list("extra-index-url"));
        }
        let find_links = list("find-links")
            .iter()
            .filter(|l| !l.contains("://") || l.starts_with("file://"))
            .map(|l| PathBuf::from(l.strip_prefix("file://").unwrap_or(l)))
            .collect();
        Self { indexes, find_links, certificates: get("cert").map(PathBuf::from) }
    }
}

/// pip's configuration files, from the lowest rank to the highest.
fn config_files(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let explicit = env("PIP_CONFIG_FILE");
    if explicit.as_deref() == Some("/dev/null") {
        return Vec::new();
    }
    let mut files = Vec::new();
    let global = env("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".to_string());
    files.extend(global.split(':').filter(|d| !d.is_empty()).map(|d| Path::new(d).join("pip/pip.conf")));
    files.push(PathBuf::from("/etc/pip.conf"));
    if let Some(home) = env("HOME") {
        let home = Path::new(&home);
        files.push(home.join(".pip/pip.conf"));
        if cfg!(target_os = "macos") {
            files.push(home.join("Library/Application Support/pip/pip.conf"));
        }
        let user = env("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
        files.push(user.join("pip/pip.conf"));
    }
    if let Some(venv) = env("VIRTUAL_ENV") {
        files.push(Path::new(&venv).join("pip.conf"));
    }
    files.extend(explicit.map(PathBuf::from));
    files
}

/// The sections of an INI file as Python's `configparser` reads them: continuation lines are indented.
fn parse_ini(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let (mut section, mut key) = (String::new(), None::<String>);
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            section = name.trim().to_lowercase();
            key = None;
        } else if line.starts_with([' ', '\t']) && key.is_some() {
            if let Some(value) = key.as_ref().and_then(|k| sections.get_mut(&section)?.get_mut(k)) {
                value.push(' ');
                value.push_str(trimmed);
            }
        } else if let Some((name, value)) = trimmed.split_once(['=', ':']) {
            // pip takes index-url, index_url and --index-url for the same.
            let name = name.trim().trim_start_matches('-').to_lowercase().replace('_', "-");
            sections.entry(section.clone()).or_default().insert(name.clone(), value.trim().to_string());
            key = Some(name);
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(texts: &[&str], env: &[(&str, &str)]) -> PipConfig {
        let texts: Vec<_> = texts.iter().map(|t| t.to_string()).collect();
        PipConfig::resolve(&texts, &|name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
    }

    #[test]
    fn without_configuration_it_is_pypi() {
        assert_eq!(resolve(&[], &[]).indexes, ["https://pypi.org/simple"]);
    }

    #[test]
    fn later_files_and_the_environment_outrank() {
        let global = "[global]\nindex-url = https://global.example/simple\ncert: /etc/ca.pem\n";
        let user =
            "[global]\nindex_url = https://user.example/simple\n[download]\nfind-links =\n    /a\n    /b\n";
        let config = resolve(&[global, user], &[]);
        assert_eq!(config.indexes, ["https://user.example/simple"]);
        assert_eq!(config.find_links, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(config.certificates, Some(PathBuf::from("/etc/ca.pem")));
        let env = [
            ("PIP_INDEX_URL", "https://env.example/simple"),
            ("PIP_EXTRA_INDEX_URL", "https://x.example/simple https://y.example/simple"),
        ];
        assert_eq!(
            resolve(&[global, user], &env).indexes,
            ["https://env.example/simple", "https://x.example/simple", "https://y.example/simple"]
        );
    }

    #[test]
    fn no_index_asks_nobody() {
        assert!(resolve(&["[global]\nno-index = true"], &[]).indexes.is_empty());
    }
}
