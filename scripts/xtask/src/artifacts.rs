//! The committed artifacts: `poq.wasm`, `poq.json`, `poq.contract` and their checksums.

use std::{
    fs,
    path::{Path, PathBuf},
};

use contract_metadata::ContractMetadata;
use sha2::{Digest, Sha256};

use crate::{
    budget::Budget,
    bundle::{to_contract_file, to_metadata_file, BundleError},
    validate::{validate, Report, ValidateError},
};

/// The code, as it is uploaded.
pub const WASM: &str = "poq.wasm";
/// The metadata without the code: the contract's interface.
pub const METADATA: &str = "poq.json";
/// Both in one, for wallets and explorers.
pub const CONTRACT: &str = "poq.contract";
/// SHA-256 of the other three, as `sha256sum --check` reads it.
pub const CHECKSUMS: &str = "SHA256SUMS";

/// Why the artifacts cannot be written, or are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactsError {
    /// A file cannot be read or written.
    #[error("{file}: {source}", file = file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The pallet would refuse the code, or it is over budget.
    #[error("{file}: {source}", file = file.display())]
    Code {
        /// The file with the code.
        file: PathBuf,
        /// Why.
        source: ValidateError,
    },
    /// A file does not fit the others.
    #[error("{file}: {why}. Do not edit artifacts by hand: run scripts/build-contract.sh", file = file.display())]
    Inconsistent {
        /// The file.
        file: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The sources no longer give these artifacts.
    #[error("{file} is not what the sources give now: {why}. Run scripts/build-contract.sh and commit contracts/artifacts", file = file.display())]
    Stale {
        /// The committed file.
        file: PathBuf,
        /// What differs.
        why: String,
    },
    /// The bundle cannot be serialised.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

fn read(file: PathBuf) -> Result<(PathBuf, Vec<u8>), ArtifactsError> {
    match fs::read(&file) {
        Ok(bytes) => Ok((file, bytes)),
        Err(source) => Err(ArtifactsError::File { file, source }),
    }
}

fn checksums(files: &[(&str, &[u8])]) -> String {
    files.iter().map(|(name, bytes)| format!("{}  {name}\n", hex::encode(Sha256::digest(bytes)))).collect()
}

/// Writes the four files into `folder`, which is made if it is not there.
///
/// # Errors
/// When a file cannot be written, or when `bundle` carries no code.
pub fn write(folder: &Path, bundle: &ContractMetadata) -> Result<(), ArtifactsError> {
    let wasm = bundle.source.wasm.as_ref().ok_or_else(|| ArtifactsError::Inconsistent {
        file: folder.join(CONTRACT),
        why: "the bundle carries no code".to_owned(),
    })?;
    let metadata = to_metadata_file(bundle)?;
    let contract = to_contract_file(bundle)?;
    let files = [(WASM, wasm.0.as_slice()), (METADATA, metadata.as_bytes()), (CONTRACT, contract.as_bytes())];
    let sums = checksums(&files);
    let write = |name: &str, bytes: &[u8]| {
        let file = folder.join(name);
        fs::write(&file, bytes).map_err(|source| ArtifactsError::File { file, source })
    };
    fs::create_dir_all(folder).map_err(|source| ArtifactsError::File { file: folder.to_owned(), source })?;
    for (name, bytes) in files {
        write(name, bytes)?;
    }
    write(CHECKSUMS, sums.as_bytes())
}

/// A set of artifacts that is consistent in itself.
#[derive(Debug)]
pub struct Artifacts {
    /// Where they were read.
    pub folder: PathBuf,
    /// What the code consists of.
    pub report: Report,
    /// The bundle, with the code.
    pub bundle: ContractMetadata,
    wasm: Vec<u8>,
    metadata: Vec<u8>,
    contract: Vec<u8>,
}

/// Reads the artifacts in `folder` and checks them against each other: checksums, code in the bundle, code hash, metadata;
/// that the pallet would take the code, and that it is within `budget`.
///
/// # Errors
/// The first thing that does not fit.
pub fn check(folder: &Path, budget: &Budget) -> Result<Artifacts, ArtifactsError> {
    let (wasm_file, wasm) = read(folder.join(WASM))?;
    let (metadata_file, metadata) = read(folder.join(METADATA))?;
    let (contract_file, contract) = read(folder.join(CONTRACT))?;
    let (sums_file, sums) = read(folder.join(CHECKSUMS))?;
    let inconsistent =
        |file: &Path, why: &str| ArtifactsError::Inconsistent { file: file.to_owned(), why: why.to_owned() };

    if sums != checksums(&[(WASM, &wasm), (METADATA, &metadata), (CONTRACT, &contract)]).as_bytes() {
        return Err(inconsistent(&sums_file, "the checksums are not those of the files"));
    }
    let bundle: ContractMetadata = serde_json::from_slice(&contract)
        .map_err(|error| inconsistent(&contract_file, &format!("not a contract bundle: {error}")))?;
    if bundle.source.wasm.as_ref().map(|wasm| &wasm.0) != Some(&wasm) {
        return Err(inconsistent(&contract_file, "the code in it is not that of the .wasm file"));
    }
    let report =
        validate(&wasm, budget).map_err(|source| ArtifactsError::Code { file: wasm_file, source })?;
    if bundle.source.hash.0 != report.code_hash {
        return Err(inconsistent(&contract_file, "source.hash is not the Blake2-256 of the code"));
    }
    if to_metadata_file(&bundle)?.as_bytes() != metadata {
        return Err(inconsistent(&metadata_file, "it is not the bundle without its code"));
    }
    Ok(Artifacts { folder: folder.to_owned(), report, bundle, wasm, metadata, contract })
}

/// How a fresh build relates to the committed artifacts, where they agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agreement {
    /// Byte for byte.
    Identical,
    /// The interface is the same; the code was compiled by another toolchain, so that its bytes say nothing.
    OtherToolchain {
        /// `source.build_info` of the committed artifacts.
        committed: String,
        /// `source.build_info` of the fresh build.
        fresh: String,
    },
}

/// Compares the committed artifacts with a fresh build of the sources.
///
/// # Errors
/// When the interface differs, or when the same toolchain gives other code: the artifacts were not rebuilt.
pub fn compare(committed: &Artifacts, fresh: &Artifacts) -> Result<Agreement, ArtifactsError> {
    if (&committed.wasm, &committed.metadata, &committed.contract)
        == (&fresh.wasm, &fresh.metadata, &fresh.contract)
    {
        return Ok(Agreement::Identical);
    }
    let stale =
        |name: &str, why: String| Err(ArtifactsError::Stale { file: committed.folder.join(name), why });
    for (key, value) in &fresh.bundle.abi {
        if committed.bundle.abi.get(key) != Some(value) {
            return stale(METADATA, format!("`{key}` differs"));
        }
    }
    if committed.bundle.abi.len() != fresh.bundle.abi.len() {
        return stale(METADATA, "it has entries that the sources do not give".to_owned());
    }
    let about = |artifacts: &Artifacts| {
        let contract = &artifacts.bundle.contract;
        (contract.name.clone(), contract.version.clone(), contract.authors.clone())
    };
    if about(committed) != about(fresh) {
        return stale(METADATA, "name, version or authors differ".to_owned());
    }
    let toolchain = |artifacts: &Artifacts| {
        let info = artifacts.bundle.source.build_info.clone().unwrap_or_default();
        info.iter().map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join(", ")
    };
    let (old, new) = (toolchain(committed), toolchain(fresh));
    if old == new {
        return stale(
            WASM,
            format!(
                "{} bytes committed, {} built by the same toolchain",
                committed.wasm.len(),
                fresh.wasm.len()
            ),
        );
    }
    Ok(Agreement::OtherToolchain { committed: old, fresh: new })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{bundle, tests::build, tests::ABI, Build};

    fn wasm(body: &str) -> Vec<u8> {
        wat::parse_str(format!(
            r#"(module (import "env" "memory" (memory 2 16)) (func (export "call") {body}) (func (export "deploy")))"#
        ))
        .unwrap()
    }

    fn budget() -> Budget {
        Budget { bytes: 1024, file: "size-budget.txt".into() }
    }

    fn made(wasm: &[u8], abi: &str, build: &Build) -> (tempfile::TempDir, Artifacts) {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &bundle(wasm, abi, build).unwrap()).unwrap();
        let artifacts = check(folder.path(), &budget()).unwrap();
        (folder, artifacts)
    }

    #[test]
    fn what_was_written_is_consistent() {
        let (folder, artifacts) = made(&wasm(""), ABI, &build());
        assert_eq!(artifacts.report.exports, ["call", "deploy"]);
        assert_eq!(fs::read(folder.path().join(WASM)).unwrap(), wasm(""));
    }

    #[test]
    fn edits_by_hand_are_noticed() {
        for name in [WASM, METADATA, CONTRACT, CHECKSUMS] {
            let (folder, _) = made(&wasm(""), ABI, &build());
            let file = folder.path().join(name);
            let mut bytes = fs::read(&file).unwrap();
            bytes.push(b' ');
            fs::write(&file, &bytes).unwrap();
            assert!(
                matches!(check(folder.path(), &budget()), Err(ArtifactsError::Inconsistent { .. })),
                "{name}"
            );
            fs::remove_file(&file).unwrap();
            assert!(matches!(check(folder.path(), &budget()), Err(ArtifactsError::File { .. })), "{name}");
        }
        // Even where somebody has brought the checksums up to date.
        let (folder, _) = made(&wasm(""), ABI, &build());
        let (_, other) = made(&wasm("nop"), ABI, &build());
        fs::write(folder.path().join(WASM), &other.wasm).unwrap();
        let (_, metadata) = read(folder.path().join(METADATA)).unwrap();
        let (_, contract) = read(folder.path().join(CONTRACT)).unwrap();
        let sums = checksums(&[(WASM, &other.wasm), (METADATA, &metadata), (CONTRACT, &contract)]);
        fs::write(folder.path().join(CHECKSUMS), sums).unwrap();
        let error = check(folder.path(), &budget()).unwrap_err();
        assert!(error.to_string().contains("not that of the .wasm file"), "{error}");
    }

    #[test]
    fn code_that_the_pallet_refuses_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let float = wasm("(drop (f32.const 0))");
        write(folder.path(), &bundle(&float, ABI, &build()).unwrap()).unwrap();
        assert!(matches!(check(folder.path(), &budget()), Err(ArtifactsError::Code { .. })));
    }

    #[test]
    fn a_rebuild_is_compared_by_bytes_or_by_interface() {
        let (_a, committed) = made(&wasm(""), ABI, &build());
        let (_b, same) = made(&wasm(""), ABI, &build());
        assert_eq!(compare(&committed, &same).unwrap(), Agreement::Identical);

        let (_c, changed) = made(&wasm("nop"), ABI, &build());
        assert!(
            matches!(compare(&committed, &changed), Err(ArtifactsError::Stale { file, .. }) if file.ends_with(WASM))
        );

        let mut elsewhere = build();
        elsewhere.info.insert("rust_toolchain".into(), "rustc 1.96.0".into());
        let (_d, recompiled) = made(&wasm("nop"), ABI, &elsewhere);
        assert!(matches!(compare(&committed, &recompiled).unwrap(), Agreement::OtherToolchain { .. }));

        let other_abi = ABI.replace(r#""messages":[]"#, r#""messages":[{"label":"claim"}]"#);
        let (_e, other) = made(&wasm("nop"), &other_abi, &elsewhere);
        let error = compare(&committed, &other).unwrap_err();
        assert!(error.to_string().contains("`spec` differs"), "{error}");
    }
}
