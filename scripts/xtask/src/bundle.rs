//! The `.contract` file: code and metadata in one, as `cargo-contract` writes it and as wallets and explorers read it.

use std::collections::BTreeMap;

use contract_metadata::{
    CodeHash, Compiler, Contract, ContractMetadata, Language, Source, SourceCompiler, SourceLanguage,
    SourceWasm,
};
use semver::Version;
use serde_json::{Map, Value};

use crate::{canonical::canonicalise, validate::code_hash};

/// The version of ink!'s metadata format that this project's tools read.
pub const METADATA_VERSION: u64 = 5;

/// Why no bundle could be made.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The metadata is not the JSON object that ink! prints.
    #[error("the metadata is not the JSON that contract-metadata prints: {0}")]
    Metadata(String),
    /// The metadata is of a format that this project's tools do not read.
    #[error("the metadata has the format version {found}, expected \"{METADATA_VERSION}\": ink! 5 writes that one")]
    MetadataVersion {
        /// What the metadata says.
        found: Value,
    },
    /// The description of the contract is not acceptable.
    #[error("the contract cannot be described: {0}")]
    Contract(String),
    /// Serialisation failed.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// How and from what the contract was built.
#[derive(Debug, Clone)]
pub struct Build {
    /// Name of the contract, for example `poq`.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Its authors: at least one.
    pub authors: Vec<String>,
    /// Version of ink!.
    pub ink: Version,
    /// Version of rustc.
    pub rustc: Version,
    /// Anything else that decides the bytes of the code: the toolchain in full, the optimiser. Two builds with the same
    /// entries from the same sources give the same bytes.
    pub info: BTreeMap<String, String>,
}

/// Joins code and metadata. `abi` is the JSON that ink! generates.
///
/// # Errors
/// When `abi` is no ink! 5 metadata, or when the build has no author.
pub fn bundle(wasm: &[u8], abi: &str, build: &Build) -> Result<ContractMetadata, BundleError> {
    let abi: Map<String, Value> =
        serde_json::from_str(abi).map_err(|error| BundleError::Metadata(error.to_string()))?;
    for key in ["spec", "storage", "types"] {
        if !abi.contains_key(key) {
            return Err(BundleError::Metadata(format!("it has no `{key}`")));
        }
    }
    // ink! writes the number bare, some tools as a string.
    let version = abi.get("version").cloned().unwrap_or(Value::Null);
    let number = version.as_u64().or_else(|| version.as_str().and_then(|text| text.parse().ok()));
    if number != Some(METADATA_VERSION) {
        return Err(BundleError::MetadataVersion { found: version });
    }
    // contract-metadata panics where there is none.
    if build.authors.is_empty() {
        return Err(BundleError::Contract("it needs at least one author (--author)".to_owned()));
    }
    let contract = Contract::builder()
        .name(&build.name)
        .version(build.version.clone())
        .authors(build.authors.iter().cloned())
        .build()
        .map_err(BundleError::Contract)?;
    let info = build.info.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    let source = Source::new(
        Some(SourceWasm::new(wasm.to_vec())),
        CodeHash(code_hash(wasm)),
        SourceLanguage::new(Language::Ink, build.ink.clone()),
        SourceCompiler::new(Compiler::RustC, build.rustc.clone()),
        Some(info),
    );
    Ok(ContractMetadata::new(source, contract, None, None, canonicalise(&abi)?))
}

/// The `.contract` file: with the code, in one line.
///
/// # Errors
/// When serialisation fails.
pub fn to_contract_file(bundle: &ContractMetadata) -> Result<String, BundleError> {
    let value = sorted(serde_json::to_value(bundle)?);
    Ok(serde_json::to_string(&value)? + "\n")
}

/// The metadata file: without the code, indented so that a change of the interface can be read in a diff.
///
/// # Errors
/// When serialisation fails.
pub fn to_metadata_file(bundle: &ContractMetadata) -> Result<String, BundleError> {
    let mut bundle = bundle.clone();
    bundle.remove_source_wasm_attribute();
    let value = sorted(serde_json::to_value(bundle)?);
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// Sorts the keys of every object. serde_json does so by itself unless any crate of the build switches on its
/// `preserve_order`; the artifacts must not depend on which crates are built together.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<String, Value> =
                map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(map.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const ABI: &str =
        r#"{"storage":{"root":{}},"version":5,"types":[],"spec":{"messages":[],"docs":[]}}"#;

    pub(crate) fn build() -> Build {
        Build {
            name: "poq".into(),
            version: Version::new(0, 1, 0),
            authors: vec!["Somebody <somebody@example.org>".into()],
            ink: Version::new(5, 1, 1),
            rustc: Version::new(1, 95, 0),
            info: BTreeMap::from([("rust_toolchain".into(), "rustc 1.95.0".into())]),
        }
    }

    #[test]
    fn golden() {
        let bundle = bundle(b"\0asm\x01\0\0\0", ABI, &build()).unwrap();
        insta::assert_snapshot!("contract_file", to_contract_file(&bundle).unwrap());
        insta::assert_snapshot!("metadata_file", to_metadata_file(&bundle).unwrap());
    }

    #[test]
    fn other_tools_read_it_back() {
        let wasm = b"\0asm\x01\0\0\0";
        let text = to_contract_file(&bundle(wasm, ABI, &build()).unwrap()).unwrap();
        // contract-metadata is the crate with which cargo-contract and its kin read these files.
        let read: ContractMetadata = serde_json::from_str(&text).unwrap();
        assert_eq!(read.source.wasm.as_ref().map(|wasm| wasm.0.as_slice()), Some(wasm.as_slice()));
        assert_eq!(read.source.hash.0, code_hash(wasm));
        assert_eq!(read.contract.name, "poq");
        read.check_ink_compatibility().unwrap();
    }

    #[test]
    fn refuses_other_metadata() {
        let wasm = b"\0asm\x01\0\0\0";
        assert!(matches!(bundle(wasm, "[]", &build()), Err(BundleError::Metadata(_))));
        assert!(matches!(bundle(wasm, r#"{"version":5}"#, &build()), Err(BundleError::Metadata(_))));
        let old = ABI.replace("5,", "4,");
        assert!(matches!(bundle(wasm, &old, &build()), Err(BundleError::MetadataVersion { .. })));
        let nobody = Build { authors: Vec::new(), ..build() };
        assert!(matches!(bundle(wasm, ABI, &nobody), Err(BundleError::Contract(_))));
    }
}
