//! Models × prompts → a log of outputs, latencies, tokens and memory.

use crate::{
    cli::RunArgs,
    data::{check_unique, draw, load, load_summarisation, SQUAD_FILE, SUMMARISATION_SETS},
    error::{Error, Result},
    host::{cpu_ms, peak_memory_bytes, reset_peak_memory},
    log::{Folder, Lines, OutputRecord, Settings, OUTPUTS},
    progress::Progress,
};
use poq_inference::{
    data_dir, load_generator,
    quality::reference::{rouge_l, token_f1},
    GenerateRequest, Generator, Item, Manifest, ModelStore, Role, TaskKind, INSTALL_SCRIPT,
};
use std::{collections::HashSet, time::Instant};

/// How many prompts of each kind, and which models.
pub(crate) struct Size {
    qa: usize,
    summarisation: usize,
}

impl Size {
    const QUICK: Self = Self { qa: 12, summarisation: 8 };
    const FULL: Self = Self { qa: 160, summarisation: 80 };
}

/// Runs every model over every prompt that has no output yet.
///
/// # Errors
/// When data or a model is missing, or the folder holds an experiment with other settings. What was done stays.
pub fn run(args: &RunArgs) -> Result<()> {
    let size = if args.quick { Size::QUICK } else { Size::FULL };
    let store = args.store.open()?;
    let models = models(args, store.manifest())?;
    let items = items(args, &store, &size)?;
    let folder = Folder::open(&args.folder.path())?;
    folder.settle(&Settings {
        seed: args.seed,
        temperature: args.temperature,
        max_tokens: [(TaskKind::Qa, args.qa_tokens), (TaskKind::Summarisation, args.summary_tokens)].into(),
    })?;
    let items = folder.add_items(&items)?;
    let mut log = Lines::<OutputRecord>::open(&folder.file(OUTPUTS))?;
    let mut done: HashSet<(String, String)> =
        log.found.iter().map(|record| (record.item.clone(), record.model.clone())).collect();

    let mut progress = Progress::new("outputs", (items.len() * models.len()) as u64);
    for model in &models {
        let todo: Vec<_> =
            items.iter().filter(|item| !done.contains(&(item.id.clone(), model.clone()))).collect();
        progress.skip((items.len() - todo.len()) as u64);
        if todo.is_empty() {
            continue;
        }
        progress.stage(&format!("loading {model}"));
        reset_peak_memory();
        let mut generator = load_generator(&store, model, &args.store.options(&store, model))?;
        // The first request packs the weights: that is loading, not answering.
        generator.generate(&GenerateRequest::question("", "Who are you?").with_max_tokens(1))?;
        progress.stage(model);
        for item in todo {
            let record = answer(generator.as_mut(), item, args)?;
            log.append(&record)?;
            done.insert((record.item, record.model));
            progress.step();
        }
    }
    progress.finish();
    let records: Vec<OutputRecord> = crate::log::read_lines(&folder.file(OUTPUTS))?;
    println!("{}", crate::tables::models(&records));
    println!("outputs are in {}", folder.file(OUTPUTS).display());
    Ok(())
}

/// The models to run: those asked for, else the installed language models from small to large.
fn models(args: &RunArgs, manifest: &Manifest) -> Result<Vec<String>> {
    for name in &args.model {
        let entry = manifest.get(name)?;
        if entry.role != Role::Generator {
            return Err(Error::Usage(format!(
                "`{name}` is a {}, which answers nothing: choose a generator (poq-models list)",
                entry.role.as_str()
            )));
        }
    }
    if !args.model.is_empty() {
        return Ok(args.model.clone());
    }
    let store = args.store.open()?;
    let mut generators: Vec<_> = manifest
        .models()
        .iter()
        .filter(|m| m.role == Role::Generator && store.is_installed(&m.name) && !(args.quick && m.extra))
        .collect();
    if generators.is_empty() {
        return Err(Error::Usage(format!(
            "no language model is installed in {}; run `{}`",
            store.dir().display(),
            INSTALL_SCRIPT
        )));
    }
    generators.sort_by_key(|m| m.disk_bytes());
    Ok(generators.into_iter().map(|m| m.name.clone()).collect())
}

fn items(args: &RunArgs, store: &ModelStore, size: &Size) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let qa = args.qa.unwrap_or(size.qa);
    let installed = data_dir(store.dir()).join(SQUAD_FILE);
    match args.squad.as_deref().or_else(|| installed.is_file().then_some(installed.as_path())) {
        Some(path) => items.extend(draw(load(path)?, qa, args.seed)),
        None => eprintln!(
            "there will be no questions, only summaries: run `{INSTALL_SCRIPT} squad` for SQuAD's, or give a file in its format \
             with --squad"
        ),
    }
    let summarisation = args.summaries.unwrap_or(size.summarisation);
    let sets = SUMMARISATION_SETS.len();
    for (i, name) in SUMMARISATION_SETS.iter().enumerate() {
        // The first sets get one more where the number does not divide.
        let count = summarisation / sets + usize::from(i < summarisation % sets);
        if count > 0 {
            items.extend(draw(load_summarisation(store.dir(), name)?, count, args.seed));
        }
    }
    for path in &args.items {
        items.extend(load(path)?);
    }
    if items.is_empty() {
        return Err(Error::Usage("there are no prompts: give --squad, --items or --summaries".to_string()));
    }
    check_unique(&items)?;
    Ok(items)
}

fn answer(generator: &mut dyn Generator, item: &Item, args: &RunArgs) -> Result<OutputRecord> {
    let max_tokens = match item.kind {
        TaskKind::Qa => args.qa_tokens,
        TaskKind::Summarisation => args.summary_tokens,
    };
    // The very request that a worker makes for a task.
    let request = GenerateRequest::question(&item.context, &item.question)
        .with_max_tokens(max_tokens)
        .with_sampling(args.seed, args.temperature);
    let (wall, cpu) = (Instant::now(), cpu_ms());
    let (generation, error) = match generator.generate(&request) {
        Ok(generation) => (Some(generation), None),
        // A prompt that does not fit is this model's answer to it; anything else is a broken experiment.
        Err(error) if error.is_bad_request() => (None, Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let (wall_ms, cpu_ms) = (wall.elapsed().as_secs_f64() * 1e3, cpu_ms() - cpu);
    let output = generation.as_ref().map(|g| g.text.clone()).unwrap_or_default();
    let known = !item.references.is_empty();
    Ok(OutputRecord {
        item: item.id.clone(),
        kind: item.kind,
        model: generator.name().to_string(),
        model_digest: generator.digest().to_string(),
        f1: known.then(|| token_f1(&output, &item.references)),
        rouge_l: known.then(|| rouge_l(&output, &item.references)),
        output,
        wall_ms,
        cpu_ms,
        prompt_ms: generation.as_ref().map_or(0.0, |g| g.prompt_ms as f64),
        prompt_tokens: generation.as_ref().map_or(0, |g| g.prompt_tokens),
        completion_tokens: generation.as_ref().map_or(0, |g| g.completion_tokens),
        finish: generation.as_ref().map(|g| g.finish_reason),
        peak_memory_bytes: peak_memory_bytes(),
        error,
    })
}
