//! Would `pallet-contracts` take this code?
//!
//! This reproduces what the pallet (51.0.0, `src/wasm/prepare.rs` and `src/wasm/mod.rs`) does with uploaded code, in the
//! same order and with the same release of the same engine: load it into wasmi with floats and all but one of the
//! post-MVP proposals switched off, look at its exports and imports, and instantiate it against the host functions. An
//! upload that fails there says only `CodeRejected`; this says why.

use std::fmt;

use blake2::{digest::consts::U32, Blake2b, Digest};
use wasmi::{
    core::ValType, CompilationMode, Config, Engine, ExternType, Func, FuncType, Linker, Memory, MemoryType,
    Module, StackLimits, Store,
};

use crate::{
    budget::Budget,
    host_functions::{HostFunction, Stability, HOST_FUNCTIONS},
};

/// Pages (of 64 KiB) of linear memory that a contract may have: `Schedule::limits.memory_pages` of the pallet's default
/// schedule.
pub const MEMORY_PAGES: u32 = 16;
/// Bytes of a page of linear memory.
const PAGE_BYTES: u64 = 64 * 1024;

/// Why the pallet would refuse a module, or why this project does.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    /// The code exceeds this project's budget.
    #[error(
        "the code is {size} bytes, {over} more than the budget of {budget} bytes in {file}. Make the contract smaller \
         (no formatting, no generic code in many instances, arithmetic in one place), or raise the budget in that file with \
         a reason",
        over = size - budget.bytes, budget = budget.bytes, file = budget.file.display()
    )]
    OverBudget {
        /// Size of the code, in bytes.
        size: usize,
        /// The budget that it exceeds.
        budget: Budget,
    },
    /// The engine does not load the module: it is malformed or uses a feature that the pallet switches off.
    #[error(
        "wasmi, configured as in the pallet, does not load the module: {0}. Floats and all post-MVP features but sign \
         extension are switched off there: `bulk memory` usually means that core was not rebuilt for {target}, `float` that \
         some code of the contract uses f32 or f64", target = "wasm32v1-none"
    )]
    Load(String),
    /// An export other than the two entry points.
    #[error("the export `{name}` ({kind}) is not allowed: a contract exports the functions `call` and `deploy` only. Run `xtask strip-exports`")]
    Export {
        /// Name of the export.
        name: String,
        /// What it is: function, memory, global or table.
        kind: &'static str,
    },
    /// An entry point with parameters, or with a result other than an i32.
    #[error(
        "the entry point `{name}` has the type {ty}: it must take nothing and return nothing (or an i32)"
    )]
    EntryPointType {
        /// `call` or `deploy`.
        name: String,
        /// Its type, in words.
        ty: String,
    },
    /// An entry point is missing.
    #[error(
        "the function `{0}` is not exported: is this an ink! contract, built without `ink-as-dependency`?"
    )]
    MissingEntryPoint(&'static str),
    /// A table or global is imported.
    #[error("the import `{module}.{name}` is a {kind}: only functions and one memory may be imported")]
    ImportKind {
        /// Module of the import.
        module: String,
        /// Name of the import.
        name: String,
        /// Table or global.
        kind: &'static str,
    },
    /// The module brings its own memory, or none.
    #[error("no memory is imported: link with --import-memory")]
    NoMemory,
    /// The memory is imported under another name.
    #[error("the memory is imported as `{module}.{name}`: it must be `env.memory`")]
    MemoryName {
        /// Module of the import.
        module: String,
        /// Name of the import.
        name: String,
    },
    /// The memory's limits do not fit the pallet's schedule.
    #[error("the memory wants {initial} to {maximum} pages: at most {MEMORY_PAGES} are allowed (link with --max-memory=1048576)")]
    MemoryLimits {
        /// Pages at the start.
        initial: u64,
        /// Pages at most.
        maximum: u64,
    },
    /// A function that the pallet does not offer to new code.
    #[error("the imported function `{module}.{name}` {why}")]
    HostFunction {
        /// Module of the import.
        module: String,
        /// Name of the import.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Everything looks right, yet the engine does not instantiate the module.
    #[error("wasmi does not instantiate the module: {0}")]
    Instantiate(String),
}

/// What a contract's code consists of, as the pallet sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Size in bytes.
    pub size: usize,
    /// Blake2-256 of the code: its code hash on chain.
    pub code_hash: [u8; 32],
    /// Imported functions, as `module.name`.
    pub imports: Vec<String>,
    /// Exported functions.
    pub exports: Vec<String>,
    /// Initial and maximal pages (of 64 KiB) of linear memory.
    pub memory_pages: (u32, u32),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "size       {} bytes", self.size)?;
        writeln!(f, "code hash  0x{}", hex::encode(self.code_hash))?;
        writeln!(f, "memory     {} to {} pages", self.memory_pages.0, self.memory_pages.1)?;
        writeln!(f, "exports    {}", self.exports.join(", "))?;
        write!(f, "imports    {}", self.imports.join(", "))
    }
}

/// Blake2-256, the hash by which `pallet-contracts` names code.
pub fn code_hash(wasm: &[u8]) -> [u8; 32] {
    Blake2b::<U32>::digest(wasm).into()
}

/// Checks `wasm` as the pallet would on upload, and against this project's size budget.
///
/// # Errors
/// The first reason for which the pallet would refuse the code, or [`ValidateError::OverBudget`] for code that it would take.
pub fn validate(wasm: &[u8], budget: &Budget) -> Result<Report, ValidateError> {
    let report = check(wasm)?;
    if report.size > budget.bytes {
        return Err(ValidateError::OverBudget { size: report.size, budget: budget.clone() });
    }
    Ok(report)
}

/// `LoadedModule::new` with `Determinism::Enforced`, as on upload.
fn load(wasm: &[u8]) -> Result<(Engine, Module), ValidateError> {
    let mut config = Config::default();
    config
        .wasm_multi_value(false)
        .wasm_mutable_global(false)
        .wasm_sign_extension(true)
        .wasm_bulk_memory(false)
        .wasm_reference_types(false)
        .wasm_tail_call(false)
        .wasm_extended_const(false)
        .wasm_saturating_float_to_int(false)
        .floats(false)
        .compilation_mode(CompilationMode::Eager)
        .consume_fuel(true);
    let stack_limits = StackLimits::new(1, 1, 0).map_err(|error| ValidateError::Load(error.to_string()))?;
    config.set_stack_limits(stack_limits);
    let engine = Engine::new(&config);
    let module = Module::new(&engine, wasm).map_err(|error| ValidateError::Load(error.to_string()))?;
    Ok((engine, module))
}

fn check(wasm: &[u8]) -> Result<Report, ValidateError> {
    let (engine, module) = load(wasm)?;
    let exports = scan_exports(&module)?;
    let (imports, memory_pages) = scan_imports(&module)?;
    instantiate(&engine, &module, memory_pages)?;
    Ok(Report { size: wasm.len(), code_hash: code_hash(wasm), imports, exports, memory_pages })
}

fn kind(ty: &ExternType) -> &'static str {
    match ty {
        ExternType::Func(_) => "function",
        ExternType::Memory(_) => "memory",
        ExternType::Global(_) => "global",
        ExternType::Table(_) => "table",
    }
}

fn spell(params: &[ValType], results: &[ValType]) -> String {
    let list = |types: &[ValType]| {
        types.iter().map(|ty| format!("{ty:?}").to_lowercase()).collect::<Vec<_>>().join(", ")
    };
    format!("({}) -> ({})", list(params), list(results))
}

fn scan_exports(module: &Module) -> Result<Vec<String>, ValidateError> {
    let mut found = Vec::new();
    for export in module.exports() {
        let name = export.name().to_owned();
        let ty = match export.ty() {
            ExternType::Func(ty) if crate::strip::ENTRY_POINTS.contains(&name.as_str()) => ty,
            other => return Err(ValidateError::Export { name, kind: kind(other) }),
        };
        if !ty.params().is_empty() || !(ty.results().is_empty() || ty.results() == [ValType::I32]) {
            return Err(ValidateError::EntryPointType { name, ty: spell(ty.params(), ty.results()) });
        }
        found.push(name);
    }
    found.sort_unstable();
    // The pallet looks for `deploy` first.
    for required in ["deploy", "call"] {
        if !found.iter().any(|name| name == required) {
            return Err(ValidateError::MissingEntryPoint(required));
        }
    }
    Ok(found)
}

fn scan_imports(module: &Module) -> Result<(Vec<String>, (u32, u32)), ValidateError> {
    let mut functions = Vec::new();
    let mut memory = None;
    for import in module.imports() {
        let (from, name) = (import.module().to_owned(), import.name().to_owned());
        match import.ty() {
            ExternType::Func(ty) => {
                check_host_function(&from, &name, ty)?;
                functions.push(format!("{from}.{name}"));
            }
            ExternType::Memory(ty) => {
                if (from.as_str(), name.as_str()) != ("env", "memory") {
                    return Err(ValidateError::MemoryName { module: from, name });
                }
                let pages = |bytes: Option<usize>| bytes.unwrap_or(0) as u64 / PAGE_BYTES;
                let initial = pages(ty.initial_pages().to_bytes());
                let maximum =
                    ty.maximum_pages().map_or(u64::from(MEMORY_PAGES), |most| pages(most.to_bytes()));
                match (u32::try_from(initial), u32::try_from(maximum)) {
                    (Ok(first), Ok(last)) if first <= last && last <= MEMORY_PAGES => {
                        memory = Some((first, last))
                    }
                    _ => return Err(ValidateError::MemoryLimits { initial, maximum }),
                }
            }
            other => return Err(ValidateError::ImportKind { module: from, name, kind: kind(other) }),
        }
    }
    Ok((functions, memory.ok_or(ValidateError::NoMemory)?))
}

/// The pallet leaves this to the engine's linker, which reports the first import only by number.
fn check_host_function(module: &str, name: &str, ty: &FuncType) -> Result<(), ValidateError> {
    let refuse = |why: String| {
        Err(ValidateError::HostFunction { module: module.to_owned(), name: name.to_owned(), why })
    };
    if matches!(name, "call_chain_extension" | "seal_call_chain_extension") {
        return refuse("needs a chain extension: the chains that this contract is for have none".to_owned());
    }
    let known = HOST_FUNCTIONS
        .iter()
        .find(|known| known.module() == module && known.names().iter().any(|alias| alias == name));
    let Some(known) = known else {
        return refuse(
            "is not one of the pallet's: a symbol that no crate defined becomes an import".to_owned(),
        );
    };
    match known.stability {
        Stability::Deprecated => {
            return refuse("is deprecated: the pallet refuses it in newly uploaded code".to_owned())
        }
        Stability::Unstable => return refuse("is unstable: only development chains offer it".to_owned()),
        Stability::Stable => {}
    }
    let (params, results) = (known.params(), known.results());
    if ty.params() != params || ty.results() != results {
        return refuse(format!(
            "is imported as {}, but the pallet's is {}",
            spell(ty.params(), ty.results()),
            spell(&params, &results)
        ));
    }
    Ok(())
}

fn define(
    linker: &mut Linker<()>,
    store: &mut Store<()>,
    function: &HostFunction,
) -> Result<(), ValidateError> {
    for name in function.names() {
        let ty = FuncType::new(function.params(), function.results());
        // Never called: no start function runs, `linker.instantiate` stops before it.
        let body = Func::new(&mut *store, ty, |_, _, _| {
            Err(wasmi::Error::new("host functions are not callable here"))
        });
        linker
            .define(&function.module(), &name, body)
            .map_err(|error| ValidateError::Instantiate(error.to_string()))?;
    }
    Ok(())
}

/// `WasmBlob::instantiate` with neither unstable nor deprecated host functions.
fn instantiate(engine: &Engine, module: &Module, memory_pages: (u32, u32)) -> Result<(), ValidateError> {
    let fail = |error: String| ValidateError::Instantiate(error);
    let mut store = Store::new(engine, ());
    let mut linker = Linker::new(engine);
    for function in HOST_FUNCTIONS.iter().filter(|function| function.stability == Stability::Stable) {
        define(&mut linker, &mut store, function)?;
    }
    let ty =
        MemoryType::new(memory_pages.0, Some(memory_pages.1)).map_err(|error| fail(error.to_string()))?;
    let memory = Memory::new(&mut store, ty).map_err(|error| fail(error.to_string()))?;
    linker.define("env", "memory", memory).map_err(|error| fail(error.to_string()))?;
    linker.instantiate(&mut store, module).map(|_| ()).map_err(|error| fail(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const MEMORY: &str = r#"(import "env" "memory" (memory 2 16))"#;
    const ENTRY_POINTS: &str = r#"(func (export "call")) (func (export "deploy"))"#;

    fn budget(bytes: usize) -> Budget {
        Budget { bytes, file: PathBuf::from("contracts/poq/size-budget.txt") }
    }

    fn run(wat: &str) -> Result<Report, ValidateError> {
        validate(&wat::parse_str(wat).unwrap(), &budget(4096))
    }

    fn with_body(body: &str) -> String {
        format!(r#"(module {MEMORY} (func (export "deploy")) (func (export "call") {body}))"#)
    }

    fn with_import(import: &str) -> String {
        format!("(module {import} {MEMORY} {ENTRY_POINTS})")
    }

    #[test]
    fn takes_a_contract() {
        let report = run(&with_import(
            r#"(import "seal0" "input" (func (param i32 i32)))
               (import "seal1" "seal_get_storage" (func (param i32 i32 i32 i32) (result i32)))"#,
        ))
        .unwrap();
        assert_eq!(report.imports, ["seal0.input", "seal1.seal_get_storage"]);
        assert_eq!(report.exports, ["call", "deploy"]);
        assert_eq!(report.memory_pages, (2, 16));
        // No maximum: the schedule's.
        let wat = format!(r#"(module (import "env" "memory" (memory 1)) {ENTRY_POINTS})"#);
        assert_eq!(run(&wat).unwrap().memory_pages, (1, 16));
    }

    #[test]
    fn refuses_features_that_the_pallet_switches_off() {
        for (feature, body) in [
            ("bulk memory", "(memory.copy (i32.const 0) (i32.const 1) (i32.const 2))"),
            ("bulk memory", "(memory.fill (i32.const 0) (i32.const 1) (i32.const 2))"),
            ("floating-point", "(drop (f32.add (f32.const 0) (f32.const 1)))"),
            ("tail call", "(return_call 0)"),
            ("reference types", "(drop (ref.null func))"),
        ] {
            match run(&with_body(body)) {
                Err(ValidateError::Load(message)) => {
                    assert!(message.contains(feature), "{feature}: {message}")
                }
                other => panic!("{feature}: {other:?}"),
            }
        }
        // Multi-value.
        let wat =
            format!("(module {MEMORY} {ENTRY_POINTS} (func (result i32 i32) (i32.const 0) (i32.const 1)))");
        assert!(matches!(run(&wat), Err(ValidateError::Load(_))));
        // The one proposal that the pallet has switched on.
        run(&with_body("(drop (i32.extend8_s (i32.const 200)))")).unwrap();
    }

    #[test]
    fn refuses_other_exports() {
        let wat = format!(r#"(module {MEMORY} {ENTRY_POINTS} (func (export "memcpy")))"#);
        assert!(
            matches!(run(&wat), Err(ValidateError::Export { name, kind: "function" }) if name == "memcpy")
        );
        let wat =
            format!(r#"(module {MEMORY} {ENTRY_POINTS} (global (export "__heap_base") i32 (i32.const 0)))"#);
        assert!(matches!(run(&wat), Err(ValidateError::Export { kind: "global", .. })));
        let wat = format!(r#"(module {MEMORY} {ENTRY_POINTS} (export "memory" (memory 0)))"#);
        assert!(matches!(run(&wat), Err(ValidateError::Export { kind: "memory", .. })));
        let wat = format!(r#"(module {MEMORY} (func (export "call")))"#);
        assert!(matches!(run(&wat), Err(ValidateError::MissingEntryPoint("deploy"))));
        let wat = format!(r#"(module {MEMORY} (func (export "deploy")) (func (export "call") (param i32)))"#);
        assert!(matches!(run(&wat), Err(ValidateError::EntryPointType { ty, .. }) if ty == "(i32) -> ()"));
    }

    #[test]
    fn refuses_bad_imports() {
        let host = |import: &str| match run(&with_import(import)) {
            Err(ValidateError::HostFunction { why, .. }) => why,
            other => panic!("{import}: {other:?}"),
        };
        assert!(
            host(r#"(import "env" "memcpy" (func (param i32 i32 i32) (result i32)))"#).contains("not one of")
        );
        assert!(host(r#"(import "seal9" "input" (func (param i32 i32)))"#).contains("not one of"));
        assert!(host(r#"(import "seal0" "input" (func (param i32)))"#).contains("(i32) -> ()"));
        assert!(
            host(r#"(import "seal0" "seal_random" (func (param i32 i32 i32 i32)))"#).contains("deprecated")
        );
        assert!(host(r#"(import "seal0" "reentrance_count" (func (result i32)))"#).contains("unstable"));
        let extension =
            r#"(import "seal0" "call_chain_extension" (func (param i32 i32 i32 i32 i32) (result i32)))"#;
        assert!(host(extension).contains("chain extension"));
        assert!(matches!(
            run(&with_import(r#"(import "env" "stack" (global i32))"#)),
            Err(ValidateError::ImportKind { kind: "global", .. })
        ));
        assert!(matches!(
            run(&with_import(r#"(import "env" "table" (table 1 funcref))"#)),
            Err(ValidateError::ImportKind { kind: "table", .. })
        ));
    }

    #[test]
    fn refuses_other_memories() {
        let module = |memory: &str| run(&format!("(module {memory} {ENTRY_POINTS})"));
        assert!(matches!(module(""), Err(ValidateError::NoMemory)));
        assert!(matches!(module("(memory 2 16)"), Err(ValidateError::NoMemory)));
        assert!(matches!(
            module(r#"(import "seal0" "memory" (memory 2 16))"#),
            Err(ValidateError::MemoryName { .. })
        ));
        assert!(matches!(
            module(r#"(import "env" "memory" (memory 2 17))"#),
            Err(ValidateError::MemoryLimits { initial: 2, maximum: 17 })
        ));
        assert!(matches!(
            module(r#"(import "env" "memory" (memory 17))"#),
            Err(ValidateError::MemoryLimits { initial: 17, maximum: 16 })
        ));
    }

    #[test]
    fn over_budget_names_the_file() {
        let wasm = wat::parse_str(with_import("")).unwrap();
        assert!(validate(&wasm, &budget(wasm.len())).is_ok());
        let error = validate(&wasm, &budget(wasm.len() - 1)).unwrap_err();
        assert!(matches!(error, ValidateError::OverBudget { .. }));
        let text = error.to_string();
        assert!(text.contains("contracts/poq/size-budget.txt") && text.contains("1 more than"), "{text}");
    }

    #[test]
    fn code_hash_is_blake2_256() {
        // b2sum --length 256 of nothing.
        assert_eq!(
            hex::encode(code_hash(b"")),
            "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"
        );
    }
}
