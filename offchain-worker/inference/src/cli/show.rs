//! `models show` and `models check`.

use super::{count, size, trial::trial, OutputArgs, PlaceArgs};
use crate::{
    engine::inspect::{inspect, Details},
    error::{Error, Result},
    local::{look, Wanted},
    manifest::{HubEntry, ModelEntry, Sha256Hex},
    store::{ModelStore, VerifiedModel},
};
use clap::Args;
use serde_json::{json, Value};
use std::path::{Path, PathBuf};

/// `models show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The model's name, or a GGUF file or folder that was not added yet.
    #[arg(value_name = "NAME|FILE|DIR")]
    what: String,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// `models check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Names of models; without them, all that are installed or configured.
    names: Vec<String>,

    /// Only hashes files, and runs nothing.
    #[arg(long)]
    no_run: bool,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// What is known of a model, as JSON.
pub(super) fn json_of(entry: &ModelEntry, details: Option<&Details>, dir: &Path) -> Value {
    let hashed = entry.files.iter().all(|file| file.sha256 != Sha256Hex([0; 32]));
    let mut json = json!({
        "name": entry.name, "title": entry.title, "role": entry.role, "licence": entry.licence,
        "context": entry.context_tokens, "memory_bytes": entry.memory_bytes, "disk_bytes": entry.disk_bytes(),
        "digest": hashed.then(|| entry.digest().to_string()),
        "files": entry.files.iter().map(|file| json!({
            "path": file.path, "at": file.place(dir), "size": file.size, "sha256": hashed.then(|| file.sha256.to_string()),
        })).collect::<Vec<_>>(),
    });
    if let Some(details) = details {
        json["network"] = details.network.clone().into();
        json["parameters"] = details.parameters.into();
        json["formats"] =
            details.formats.iter().map(|(name, count)| json!({ "format": name, "weights": count })).collect();
        json["trained_context"] = details.trained_context.into();
        json["tokenizer"] = details.tokenizer.clone().into();
        json["vocabulary"] = details.vocabulary.into();
        json["chat_template"] = details.chat_template.into();
        json["engine"] = details.engine.into();
    }
    json
}

/// What is known of a model, for people.
pub(super) fn text_of(entry: &ModelEntry, details: Option<&Details>, device: &str) -> String {
    let mut lines = Vec::new();
    let mut line = |what: &str, value: String| lines.push(format!("  {what:<12}{value}"));
    match details {
        None => line("files", format!("{}, not all of them here", size(entry.disk_bytes()))),
        Some(details) => {
            line(
                "network",
                format!(
                    "{}, {} weights, {}",
                    details.network,
                    count(details.parameters),
                    details.quantisation()
                ),
            );
            line("files", format!("{} in {}", size(entry.disk_bytes()), entry.files.len()));
            line("context", format!("{} of {} tokens", entry.context_tokens, details.trained_context));
            let template = match (entry.role, details.chat_template) {
                (crate::Role::Generator, true) => "; it has a chat template",
                (crate::Role::Generator, false) => {
                    "; it has no chat template: it continues texts, and tasks are conversations"
                }
                _ => "",
            };
            line("tokenizer", format!("{}, {} tokens{template}", details.tokenizer, details.vocabulary));
        }
    }
    let licence = match entry.licence.as_str() {
        "unknown" => "unknown: its files do not say (--licence says it)",
        known => known,
    };
    line("licence", licence.to_string());
    let engine =
        details.filter(|_| device == "cpu").map(|d| format!(", by {}", d.engine)).unwrap_or_default();
    line("runs on", format!("{device}{engine}"));
    line("memory", format!("about {} at a full context, on the processor", size(entry.memory_bytes)));
    if entry.files.iter().all(|file| file.sha256 != Sha256Hex([0; 32])) {
        line("digest", entry.digest().to_string());
    }
    format!("{}: {}\n{}", entry.name, entry.role, lines.join("\n"))
}

/// What the files of a model of the store say, where they are there.
fn details(store: &ModelStore, entry: &ModelEntry) -> Result<Option<Details>> {
    if !store.is_installed(&entry.name) {
        return Ok(None);
    }
    let model = VerifiedModel::unverified(entry.clone(), store.model_dir(&entry.name));
    inspect(&model, Some(entry.context_tokens)).map(Some)
}

fn show_hub(entry: &HubEntry, output: OutputArgs) {
    let json = json!({
        "name": entry.name, "title": entry.title, "role": entry.role, "licence": entry.licence, "repo": entry.repo,
        "revision": entry.revision, "file": entry.file, "context": entry.context_tokens, "needs": entry.needs,
    });
    output.print(&json, || {
        let file = entry.file.as_ref().map(|file| format!(":{file}")).unwrap_or_default();
        format!(
            "{}: {}\n  {}\n  from        hub:{}@{}{file}\n  licence     {}\n  needs       {}\n`models add {}` fetches it, pins its hashes \
             and writes its [[models]] section",
            entry.name, entry.role, entry.title, entry.repo, entry.revision, entry.licence, entry.needs, entry.name
        )
    });
}

pub(super) fn show(args: &ShowArgs) -> Result<()> {
    let store = args.place.store()?;
    let path = PathBuf::from(&args.what);
    if !store.manifest().knows(&args.what)
        && !store.manifest().unusable().contains_key(&args.what)
        && path.exists()
    {
        let found = look(&path, &args.what, &Wanted::default())?;
        args.output.print(&json_of(&found.entry, Some(&found.details), &path), || {
            text_of(&found.entry, Some(&found.details), "cpu")
        });
        return Ok(());
    }
    let entry = match store.manifest().get(&args.what) {
        Ok(entry) => entry,
        Err(Error::NotAdded { name, .. }) => {
            let entry = store.manifest().hub().iter().find(|entry| entry.name == name);
            entry.into_iter().for_each(|entry| show_hub(entry, args.output));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let details = details(&store, entry)?;
    let options = store.options(&entry.name);
    let mut json = json_of(entry, details.as_ref(), &store.model_dir(&entry.name));
    json["device"] = options.device.to_string().into();
    json["installed"] = store.is_installed(&entry.name).into();
    args.output.print(&json, || text_of(entry, details.as_ref(), &options.device.to_string()));
    Ok(())
}

pub(super) fn check(args: &CheckArgs) -> Result<()> {
    let store = args.place.store()?;
    let names: Vec<String> = match args.names.as_slice() {
        [] => {
            let manifest = store.manifest();
            let here = |name: &&String| store.is_installed(name) || store.config(name).is_some();
            let models = manifest.models().iter().map(|model| &model.name).filter(here);
            models.chain(manifest.unusable().keys()).cloned().collect()
        }
        names => names.to_vec(),
    };
    if names.is_empty() {
        return Err(Error::Install(format!(
            "no model is installed in {}, and none is configured: `models install` installs those of the manifest",
            store.dir().display()
        )));
    }
    let mut results = Vec::with_capacity(names.len());
    let mut bad = 0;
    for name in &names {
        // What was found earlier is not asked: it is what is checked.
        store.forget(name);
        let checked = store.verify(name).and_then(|model| {
            let digest = model.entry().digest().to_string();
            match args.no_run {
                true => Ok((digest, None)),
                false => trial(&store, name, &store.options(name)).map(|trial| (digest, Some(trial))),
            }
        });
        let (json, text) = match checked {
            Ok((digest, trial)) => {
                let told = trial.as_ref().map(|trial| format!("\n     {}", trial.text)).unwrap_or_default();
                let json = json!({ "name": name, "ok": true, "digest": digest, "trial": trial.map(|trial| trial.json) });
                (json, format!("ok   {name}  {digest}{told}"))
            }
            Err(error) => {
                bad += 1;
                (
                    json!({ "name": name, "ok": false, "error": error.to_string() }),
                    format!("BAD  {name}  {error}"),
                )
            }
        };
        if !args.output.json {
            println!("{text}");
        }
        results.push(json);
    }
    if args.output.json {
        println!("{:#}", json!({ "ok": bad == 0, "models": results }));
    }
    match bad {
        0 => Ok(()),
        _ => Err(Error::Install(format!("{bad} of {} models cannot be used", names.len()))),
    }
}
