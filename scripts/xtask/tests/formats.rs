//! Numbers between formats. Crates of the chain switch serde_json's `arbitrary_precision` on for every program of this workspace. A
//! `serde_json::Value` then writes its numbers into any other format as tables (`"$serde_json::private::Number" = "1"`), and whatever
//! serde reads by way of its own buffer (`flatten`, internally tagged and untagged enums) takes a number from JSON for a map. Tests
//! in a crate's own build do not see it, so the text of the sources is what is looked at.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// The derives of the type that an attribute in this line belongs to.
fn derives(lines: &[&str], at: usize) -> String {
    let before = lines[..=at].iter().rev().take(40);
    let near = before.take_while(|line| !line.starts_with('}'));
    near.filter(|line| line.contains("derive(")).copied().collect::<Vec<_>>().join("\n")
}

/// What is wrong in a source file, if anything.
fn faults(name: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let attribute = line.contains("serde(") && !line.trim_start().starts_with("//");
        if attribute && line.contains("flatten") && derives(&lines, at).contains("Deserialize") {
            found.push(format!(
                "{name}:{}: a type with `flatten` is read by serde's buffer: write its Deserialize by hand",
                at + 1
            ));
        }
    }
    // Tests may turn anything into anything.
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let values = ["serde_json::Value", "serde_json::to_value", "serde_json::json", "json!("];
    let writers =
        ["toml::to_string", "toml::Value::try_from", "toml::Table::try_from", "csv::Writer", "serde_yaml"];
    let has = |signs: &[&'static str]| signs.iter().copied().find(|sign| code.contains(sign));
    let imports = code.contains("use serde_json::{") || code.contains("use serde_json::Value");
    if let (Some(writer), true) = (has(&writers), has(&values).is_some() || imports) {
        found.push(format!(
            "{name}: `{writer}` beside values of serde_json: write the other format from the typed value, in a file of its own"
        ));
    }
    found
}

#[test]
fn no_json_value_reaches_another_format() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut files = Vec::new();
    for folder in ["contracts", "offchain-worker", "node-runtime-tests", "scripts"] {
        sources(&root.join(folder), &mut files);
    }
    assert!(files.len() > 100, "{} sources", files.len());
    let this = Path::new(file!()).file_name().unwrap();
    let found: Vec<String> = files
        .iter()
        .filter(|path| path.file_name() != Some(this))
        .flat_map(|path| {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            faults(&name, &std::fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn each_fault_is_seen() {
    for bad in [
        "#[derive(Serialize, Deserialize)]\nstruct A {\n    #[serde(flatten)]\n    b: B,\n}\n",
        "use serde_json::{Map, Value};\nfn f(v: &Value) -> String { toml::to_string(v).unwrap() }\n",
        "fn f() { let t = toml::Value::try_from(serde_json::to_value(1).unwrap()); }\n",
        "fn f() { let w = csv::Writer::from_path(\"x\"); w.serialize(json!({})); }\n",
    ] {
        assert_eq!(faults("x.rs", bad).len(), 1, "{bad}");
    }
    for good in [
        "#[derive(Serialize)]\nstruct A {\n    #[serde(flatten)]\n    b: B,\n}\n",
        "#[derive(Deserialize)]\nstruct C;\n}\n\n#[derive(Serialize)]\nstruct A {\n    #[serde(flatten)]\n    b: B,\n}\n",
        "fn f(v: &Typed) -> String { toml::to_string(v).unwrap() }\n",
        "use serde_json::Value;\nfn f() {}\n#[cfg(test)]\nfn g() { toml::to_string(&1); }\n",
    ] {
        assert!(faults("x.rs", good).is_empty(), "{good}");
    }
}
