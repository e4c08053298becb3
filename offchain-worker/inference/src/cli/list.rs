//! `models list`.

use super::{size, OutputArgs, PlaceArgs};
use crate::{
    error::Result,
    manifest::ModelEntry,
    store::{data_dir, ModelStore},
};
use clap::Args;
use serde_json::{json, Value};

/// `models list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// Whether a model can be loaded, in a word.
fn state(store: &ModelStore, model: &ModelEntry) -> &'static str {
    let configured = store.config(&model.name).is_some();
    match (store.is_installed(&model.name), configured) {
        (true, true) => "added",
        (true, false) => "installed",
        (false, true) => "missing",
        (false, false) => "-",
    }
}

pub(super) fn list(args: &ListArgs) -> Result<()> {
    let store = args.place.store()?;
    let manifest = store.manifest();
    let device = |name: &str| store.options(name).device.to_string();
    let models: Vec<Value> = manifest
        .models()
        .iter()
        .map(|model| {
            json!({
                "name": model.name, "role": model.role, "state": state(&store, model), "title": model.title,
                "disk_bytes": model.disk_bytes(), "memory_bytes": model.required_memory_bytes(),
                "licence": model.licence, "device": device(&model.name), "digest": model.digest().to_string(),
            })
        })
        .collect();
    // Those that were added are among the models.
    let known = |name: &str| manifest.models().iter().any(|model| model.name == name);
    let hub: Vec<_> = manifest.hub().iter().filter(|entry| !known(&entry.name)).collect();
    let json = json!({
        "dir": store.dir(),
        "models": models,
        "unusable": manifest.unusable(),
        "hub": hub.iter().map(|entry| json!({
            "name": entry.name, "role": entry.role, "title": entry.title, "repo": entry.repo, "revision": entry.revision,
            "file": entry.file, "licence": entry.licence, "needs": entry.needs,
        })).collect::<Vec<_>>(),
        "data": manifest.data().iter().map(|data| json!({
            "name": data.name, "title": data.title, "installed": data_dir(store.dir()).join(&data.file.path).is_file(),
        })).collect::<Vec<_>>(),
    });
    args.output.print(&json, || {
        let mut lines = vec![format!("models folder: {}", store.dir().display())];
        for model in manifest.models() {
            lines.push(format!(
                "{:<28} {:<13} {:<9} disk {:>7}  memory {:>7}  {}  {}  {}",
                model.name,
                model.role.as_str(),
                state(&store, model),
                size(model.disk_bytes()),
                size(model.required_memory_bytes()),
                device(&model.name),
                model.licence,
                model.digest(),
            ));
        }
        for (name, reason) in manifest.unusable() {
            lines.push(format!("{name:<28} unusable      {reason}"));
        }
        for entry in &hub {
            lines.push(format!(
                "{:<28} hub           {}; {}; {}; `models add {}` fetches it",
                entry.name, entry.title, entry.licence, entry.needs, entry.name
            ));
        }
        for data in manifest.data() {
            let present = data_dir(store.dir()).join(&data.file.path).is_file();
            let state = if present { "installed" } else { "-" };
            lines.push(format!("{:<28} {:<13} {state:<9} {}", data.name, "data", data.title));
        }
        lines.join("\n")
    });
    Ok(())
}
