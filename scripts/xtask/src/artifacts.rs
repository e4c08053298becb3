//! The committed artifacts: of each contract NAME.wasm, NAME.json and NAME.contract, and the checksums of all of them.

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

/// Ending of the code, as it is uploaded.
pub const WASM: &str = "wasm";
/// Ending of the metadata without the code: the contract's interface.
pub const METADATA: &str = "json";
/// Ending of both in one, for wallets and explorers.
pub const CONTRACT: &str = "contract";
/// SHA-256 of all the others, as `sha256sum --check` reads it.
pub const CHECKSUMS: &str = "SHA256SUMS";

/// A contract that a folder of artifacts holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its name, that of its files too.
    pub name: String,
    /// How large its code may be.
    pub budget: Budget,
}

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

fn file_name(name: &str, ending: &str) -> String {
    format!("{name}.{ending}")
}

fn write_file(file: PathBuf, bytes: &[u8]) -> Result<(), ArtifactsError> {
    fs::write(&file, bytes).map_err(|source| ArtifactsError::File { file, source })
}

/// Writes a contract's three files into `folder`, which is made if it is not there.
///
/// # Errors
/// When a file cannot be written, or when `bundle` carries no code.
pub fn write(folder: &Path, bundle: &ContractMetadata) -> Result<(), ArtifactsError> {
    let name = &bundle.contract.name;
    let path = |ending: &str| folder.join(file_name(name, ending));
    let wasm = bundle.source.wasm.as_ref().ok_or_else(|| ArtifactsError::Inconsistent {
        file: path(CONTRACT),
        why: "the bundle carries no code".to_owned(),
    })?;
    fs::create_dir_all(folder).map_err(|source| ArtifactsError::File { file: folder.to_owned(), source })?;
    write_file(path(WASM), &wasm.0)?;
    write_file(path(METADATA), to_metadata_file(bundle)?.as_bytes())?;
    write_file(path(CONTRACT), to_contract_file(bundle)?.as_bytes())
}

fn checksums(folder: &Path, names: &[&str]) -> Result<String, ArtifactsError> {
    let mut sums = String::new();
    for name in names {
        for ending in [WASM, METADATA, CONTRACT] {
            let name = file_name(name, ending);
            let (_, bytes) = read(folder.join(&name))?;
            sums += &format!("{}  {name}\n", hex::encode(Sha256::digest(&bytes)));
        }
    }
    Ok(sums)
}

/// Writes the checksums of these contracts' files.
///
/// # Errors
/// When a file is missing, or the sums cannot be written.
pub fn write_checksums(folder: &Path, names: &[&str]) -> Result<(), ArtifactsError> {
    write_file(folder.join(CHECKSUMS), checksums(folder, names)?.as_bytes())
}

/// Reads all artifacts in `folder` and checks them, each set against itself and all against the checksums.
///
/// # Errors
/// The first thing that does not fit.
pub fn check(folder: &Path, expected: &[Expected]) -> Result<Vec<Artifacts>, ArtifactsError> {
    let (sums_file, sums) = read(folder.join(CHECKSUMS))?;
    let names: Vec<&str> = expected.iter().map(|contract| contract.name.as_str()).collect();
    if sums != checksums(folder, &names)?.as_bytes() {
        let why = "the checksums are not those of the files".to_owned();
        return Err(ArtifactsError::Inconsistent { file: sums_file, why });
    }
    expected.iter().map(|contract| check_contract(folder, contract)).collect()
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

/// Reads one contract's artifacts and checks them against each other: code in the bundle, code hash, metadata; that the pallet would
/// take the code, and that it is within its budget.
fn check_contract(folder: &Path, expected: &Expected) -> Result<Artifacts, ArtifactsError> {
    let path = |ending: &str| folder.join(file_name(&expected.name, ending));
    let (wasm_file, wasm) = read(path(WASM))?;
    let (metadata_file, metadata) = read(path(METADATA))?;
    let (contract_file, contract) = read(path(CONTRACT))?;
    let inconsistent =
        |file: &Path, why: &str| ArtifactsError::Inconsistent { file: file.to_owned(), why: why.to_owned() };

    let bundle: ContractMetadata = serde_json::from_slice(&contract)
        .map_err(|error| inconsistent(&contract_file, &format!("not a contract bundle: {error}")))?;
    if bundle.contract.name != expected.name {
        let why = format!("it is the bundle of a contract called {}", bundle.contract.name);
        return Err(inconsistent(&contract_file, &why));
    }
    if bundle.source.wasm.as_ref().map(|wasm| &wasm.0) != Some(&wasm) {
        return Err(inconsistent(&contract_file, "the code in it is not that of the .wasm file"));
    }
    let report = validate(&wasm, &expected.budget)
        .map_err(|source| ArtifactsError::Code { file: wasm_file, source })?;
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
    let name = &committed.bundle.contract.name;
    let stale = |ending: &str, why: String| {
        Err(ArtifactsError::Stale { file: committed.folder.join(file_name(name, ending)), why })
    };
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

    const NAME: &str = "poq";

    fn expected(name: &str) -> Expected {
        Expected { name: name.into(), budget: Budget { bytes: 1024, file: "size-budget.txt".into() } }
    }

    fn file(folder: &tempfile::TempDir, ending: &str) -> PathBuf {
        folder.path().join(file_name(NAME, ending))
    }

    fn made(wasm: &[u8], abi: &str, build: &Build) -> (tempfile::TempDir, Artifacts) {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &bundle(wasm, abi, build).unwrap()).unwrap();
        write_checksums(folder.path(), &[NAME]).unwrap();
        let artifacts = check(folder.path(), &[expected(NAME)]).unwrap().remove(0);
        (folder, artifacts)
    }

    #[test]
    fn what_was_written_is_consistent() {
        let (folder, artifacts) = made(&wasm(""), ABI, &build());
        assert_eq!(artifacts.report.exports, ["call", "deploy"]);
        assert_eq!(fs::read(file(&folder, WASM)).unwrap(), wasm(""));
    }

    #[test]
    fn a_folder_holds_several_contracts() {
        let (folder, _) = made(&wasm(""), ABI, &build());
        let other = Build { name: "pool".into(), ..build() };
        write(folder.path(), &bundle(&wasm("nop"), ABI, &other).unwrap()).unwrap();
        let both = [expected(NAME), expected("pool")];
        // The second one's sums are missing.
        assert!(matches!(check(folder.path(), &both), Err(ArtifactsError::Inconsistent { .. })));
        write_checksums(folder.path(), &[NAME, "pool"]).unwrap();
        let names: Vec<String> = check(folder.path(), &both)
            .unwrap()
            .into_iter()
            .map(|artifacts| artifacts.bundle.contract.name)
            .collect();
        assert_eq!(names, [NAME, "pool"]);
        // Each has a budget of its own.
        let small = Expected { budget: Budget { bytes: 8, file: "small.txt".into() }, ..expected("pool") };
        let error = check(folder.path(), &[expected(NAME), small]).unwrap_err();
        assert!(error.to_string().contains("pool.wasm"), "{error}");
        // And a bundle under another's name is noticed.
        for ending in [WASM, METADATA, CONTRACT] {
            fs::copy(file(&folder, ending), folder.path().join(file_name("pool", ending))).unwrap();
        }
        write_checksums(folder.path(), &[NAME, "pool"]).unwrap();
        let error = check(folder.path(), &both).unwrap_err();
        assert!(error.to_string().contains("a contract called poq"), "{error}");
    }

    #[test]
    fn edits_by_hand_are_noticed() {
        for name in
            [&file_name(NAME, WASM), &file_name(NAME, METADATA), &file_name(NAME, CONTRACT), CHECKSUMS]
        {
            let (folder, _) = made(&wasm(""), ABI, &build());
            let file = folder.path().join(name);
            let mut bytes = fs::read(&file).unwrap();
            bytes.push(b' ');
            fs::write(&file, &bytes).unwrap();
            let checked = || check(folder.path(), &[expected(NAME)]);
            assert!(matches!(checked(), Err(ArtifactsError::Inconsistent { .. })), "{name}");
            fs::remove_file(&file).unwrap();
            assert!(matches!(checked(), Err(ArtifactsError::File { .. })), "{name}");
        }
        // Even where somebody has brought the checksums up to date.
        let (folder, _) = made(&wasm(""), ABI, &build());
        fs::write(file(&folder, WASM), wasm("nop")).unwrap();
        write_checksums(folder.path(), &[NAME]).unwrap();
        let error = check(folder.path(), &[expected(NAME)]).unwrap_err();
        assert!(error.to_string().contains("not that of the .wasm file"), "{error}");
    }

    #[test]
    fn code_that_the_pallet_refuses_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let float = wasm("(drop (f32.const 0))");
        write(folder.path(), &bundle(&float, ABI, &build()).unwrap()).unwrap();
        write_checksums(folder.path(), &[NAME]).unwrap();
        assert!(matches!(check(folder.path(), &[expected(NAME)]), Err(ArtifactsError::Code { .. })));
    }

    #[test]
    fn a_rebuild_is_compared_by_bytes_or_by_interface() {
        let (_a, committed) = made(&wasm(""), ABI, &build());
        let (_b, same) = made(&wasm(""), ABI, &build());
        assert_eq!(compare(&committed, &same).unwrap(), Agreement::Identical);

        let (_c, changed) = made(&wasm("nop"), ABI, &build());
        assert!(
            matches!(compare(&committed, &changed), Err(ArtifactsError::Stale { file, .. }) if file.ends_with("poq.wasm"))
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
