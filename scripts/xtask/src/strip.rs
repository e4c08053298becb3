//! Removing what `pallet-contracts` refuses, or what only costs storage deposit, from a linked WebAssembly module.

use wasm_encoder::{ExportKind, ExportSection, Module, RawSection};
use wasmparser::{ExternalKind, Parser, Payload};

/// The two functions that a contract may export; the pallet refuses any other export.
pub const ENTRY_POINTS: [&str; 2] = ["call", "deploy"];

/// Why a module could not be stripped.
#[derive(Debug, thiserror::Error)]
pub enum StripError {
    /// The input is not a WebAssembly module.
    #[error("not a valid WebAssembly module: {0}")]
    Parse(#[from] wasmparser::BinaryReaderError),
    /// An entry point is missing, so the input is not a contract.
    #[error(
        "the module does not export the function `{0}`: was it compiled from an ink! contract, as a cdylib, for a wasm32 \
         target and without the feature `ink-as-dependency`?"
    )]
    MissingEntryPoint(&'static str),
}

/// Returns `wasm` with all exports but the functions `call` and `deploy` removed, and without custom sections (names,
/// producers, target features). Everything else is copied byte for byte; run `wasm-opt` afterwards to drop the functions
/// that have become unreachable.
///
/// # Errors
/// When `wasm` is not a WebAssembly module or lacks one of the two functions.
pub fn strip_exports(wasm: &[u8]) -> Result<Vec<u8>, StripError> {
    let mut module = Module::new();
    let mut found = [false; ENTRY_POINTS.len()];
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        match &payload {
            Payload::ExportSection(reader) => {
                let mut exports = ExportSection::new();
                for export in reader.clone() {
                    let export = export?;
                    let entry = ENTRY_POINTS.iter().position(|name| *name == export.name);
                    if let (Some(entry), ExternalKind::Func) = (entry, export.kind) {
                        exports.export(export.name, ExportKind::Func, export.index);
                        found[entry] = true;
                    }
                }
                module.section(&exports);
            }
            Payload::CustomSection(_) => {}
            other => {
                if let Some((id, range)) = other.as_section() {
                    // A range within `wasm`, which is in memory: no cast loses anything.
                    module.section(&RawSection { id, data: &wasm[range.start as usize..range.end as usize] });
                }
            }
        }
    }
    match ENTRY_POINTS.iter().zip(found).find(|(_, found)| !found) {
        Some((name, _)) => Err(StripError::MissingEntryPoint(name)),
        None => Ok(module.finish()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exports(wasm: &[u8]) -> Vec<String> {
        Parser::new(0)
            .parse_all(wasm)
            .filter_map(|payload| match payload.unwrap() {
                Payload::ExportSection(reader) => Some(reader),
                _ => None,
            })
            .flat_map(|reader| reader.into_iter().map(|export| export.unwrap().name.to_owned()))
            .collect()
    }

    fn has_custom_section(wasm: &[u8]) -> bool {
        Parser::new(0).parse_all(wasm).any(|payload| matches!(payload.unwrap(), Payload::CustomSection(_)))
    }

    const LINKED: &str = r#"
        (module
            (import "env" "memory" (memory 2 16))
            (import "seal0" "input" (func $input (param i32 i32)))
            (global $data_end i32 (i32.const 4096))
            (global $stack (mut i32) (i32.const 65536))
            (func $call (call $input (i32.const 0) (i32.const 4)))
            (func $deploy (global.set $stack (i32.const 1)))
            (func $memcpy)
            (export "memcpy" (func $memcpy))
            (export "call" (func $call))
            (export "deploy" (func $deploy))
            (export "__data_end" (global $data_end))
            (data (i32.const 16) "poq")
            (@custom "producers" "somebody"))"#;

    #[test]
    fn keeps_the_entry_points_only() {
        let linked = wat::parse_str(LINKED).unwrap();
        assert!(has_custom_section(&linked));
        let stripped = strip_exports(&linked).unwrap();
        assert_eq!(exports(&stripped), ["call", "deploy"]);
        assert!(!has_custom_section(&stripped));
        wasmparser::validate(&stripped).unwrap();
    }

    #[test]
    fn leaves_code_data_and_imports_alone() {
        let linked = wat::parse_str(LINKED).unwrap();
        let stripped = strip_exports(&linked).unwrap();
        let sections = |wasm: &[u8]| -> Vec<(u8, Vec<u8>)> {
            Parser::new(0)
                .parse_all(wasm)
                .filter_map(|payload| payload.unwrap().as_section())
                .filter(|(id, _)| ![0, 7].contains(id)) // custom, export
                .map(|(id, range)| (id, wasm[range.start as usize..range.end as usize].to_vec()))
                .collect()
        };
        assert_eq!(sections(&linked), sections(&stripped));
        assert_eq!(strip_exports(&stripped).unwrap(), stripped, "stripping twice changes nothing");
    }

    #[test]
    fn refuses_what_is_not_a_contract() {
        let library = wat::parse_str(r#"(module (func (export "call")))"#).unwrap();
        assert!(matches!(strip_exports(&library), Err(StripError::MissingEntryPoint("deploy"))));
        // A global of that name is not the function.
        let global =
            wat::parse_str(r#"(module (func (export "call")) (global (export "deploy") i32 (i32.const 0)))"#)
                .unwrap();
        assert!(matches!(strip_exports(&global), Err(StripError::MissingEntryPoint("deploy"))));
        assert!(matches!(strip_exports(b"#!/bin/sh"), Err(StripError::Parse(_))));
    }
}
