//! What differs between the ways in which this machine can compute: the same model with the same text on our own code with each
//! instruction set, on candle's operations, and on a card where there is one.
//!
//! Weights are the same bytes; sums are made in another order, vectors are rounded to eight bits or not. How far that goes is what the
//! protocol's tolerances are to cover: `tolerance` of a task kind for scores, and nothing at all for answers, of which nobody is asked
//! to give the same.

use crate::Common;
use poq_inference::{
    data_dir, default_models_dir,
    engine::CandleGenerator,
    load_cross_encoder, load_encoder, load_qa,
    quality::{rubric::load_rubric_scorer, QualityScorer, Query, Rubric},
    Error, GenerateRequest, Kernels, LoadOptions, ModelStore, Precision, Prompt, QaItem, Role, TaskKind,
};
use serde_json::{json, Value};
use std::{path::PathBuf, sync::Arc};

/// `poq-bench-models devices`.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,

    /// How many questions, with their paragraphs.
    #[arg(long, default_value_t = 24, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    questions: u32,

    /// Tokens of each answer.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    tokens: u32,

    /// The file with questions.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
}

/// One way of computing.
struct Way {
    name: String,
    options: LoadOptions,
}

impl Way {
    fn new(name: impl std::fmt::Display, options: LoadOptions) -> Self {
        Self { name: name.to_string(), options }
    }

    /// All that there are here for a language model, that which rounds least first.
    fn of_generators(common: &Common) -> Vec<Self> {
        let mut ways =
            vec![Self::new("candle, f32", LoadOptions { precision: Precision::F32, ..Default::default() })];
        ways.extend(Self::of_encoders(common));
        ways
    }

    /// All that there are here for an encoder, which computes in f32 anywhere.
    fn of_encoders(common: &Common) -> Vec<Self> {
        let kernels = Kernels::available().into_iter();
        let mut ways: Vec<Self> = kernels
            .map(|kernels| Self::new(kernels, LoadOptions { kernels, ..Default::default() }))
            .collect();
        ways.extend(common.device.map(|device| Self::new(device, LoadOptions::on(device))));
        ways
    }
}

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let common = &options.common;
    let store = common.store()?;
    let path = options.text.clone().unwrap_or_else(|| data_dir(&default_models_dir()).join("qa.jsonl"));
    let mut items = load_qa(&path)?;
    items.truncate(options.questions as usize);
    let names: Vec<String> = match common.names.as_slice() {
        [] => store
            .manifest()
            .models()
            .iter()
            .map(|m| m.name.clone())
            .filter(|n| store.is_installed(n))
            .collect(),
        names => names.to_vec(),
    };
    let mut reports = Vec::new();
    println!("| model | computed with | logits, vectors or pairs | answers | scores by the rubric |");
    println!("|---|---|---|---|---|");
    for name in &names {
        reports.extend(match store.manifest().get(name)?.role {
            Role::Generator => generator(options, &store, name, &items)?,
            Role::BiEncoder | Role::CrossEncoder => encoder(common, &store, name, &items)?,
        });
    }
    common.write(&json!({ "questions": items.len(), "tokens": options.tokens, "models": reports }))
}

/// A row of the table.
fn row(report: &Value) {
    let text = |key: &str| report[key].as_str().unwrap_or("–").to_string();
    println!(
        "| {} | {} | {} | {} | {} |",
        text("model"),
        text("way"),
        text("numbers"),
        text("answers"),
        text("scores")
    );
}

fn deviation(values: &[f32]) -> f64 {
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
    (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

fn furthest(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}

/// Logits after each prompt in their standard deviations, and how long the likeliest continuations are the same.
fn generator(
    options: &Options,
    store: &ModelStore,
    name: &str,
    items: &[QaItem],
) -> Result<Vec<Value>, Error> {
    let verified = store.verify(name)?;
    let mut reference: Vec<(Vec<f32>, Vec<u32>)> = Vec::new();
    let mut reports = Vec::new();
    for way in Way::of_generators(&options.common) {
        let mut model = CandleGenerator::load(&verified, &way.options)?;
        let mut found = Vec::with_capacity(items.len());
        for item in items {
            let question = GenerateRequest::question(&item.context, &item.question);
            let prompt = match model.tokens(&question.prompt) {
                Ok(tokens) => tokens,
                Err(error) if error.is_bad_request() => model.tokens(&Prompt::Text(item.context.clone()))?,
                Err(error) => return Err(error),
            };
            let answer = model.continue_tokens(&prompt, options.tokens as usize)?;
            found.push((answer.first_logits, answer.tokens));
        }
        if reference.is_empty() {
            reference = found;
            continue;
        }
        let (mut apart, mut same, mut whole) = (0f64, 0usize, 0usize);
        for ((logits, tokens), (expected, wanted)) in found.iter().zip(&reference) {
            apart = apart.max(furthest(logits, expected) / deviation(expected));
            let agreed = tokens.iter().zip(wanted).take_while(|(a, b)| a == b).count();
            same += agreed;
            whole += usize::from(agreed == wanted.len());
        }
        let mean = same as f64 / items.len() as f64;
        let report = json!({
            "model": name, "way": way.name, "logits_deviations": apart, "same_tokens_mean": mean, "same_answers": whole,
            "numbers": format!("{apart:.3} deviations"),
            "answers": format!("{whole} of {} the same, {mean:.1} of {} tokens", items.len(), options.tokens),
        });
        row(&report);
        reports.push(report);
    }
    Ok(reports)
}

/// What is scored: a fit answer's length of the paragraph's beginning and end, and the question back.
fn outputs(item: &QaItem) -> Vec<String> {
    let words: Vec<&str> = item.context.split_whitespace().collect();
    let few = |words: &[&str]| words.join(" ");
    let half = words.len() / 2;
    vec![
        few(&words[..words.len().min(4)]),
        few(&words[half..words.len().min(half + 12)]),
        few(&words[words.len().saturating_sub(25)..]),
        item.question.clone(),
    ]
}

/// Vectors or logits of pairs, and what a rubric makes of them.
fn encoder(common: &Common, store: &ModelStore, name: &str, items: &[QaItem]) -> Result<Vec<Value>, Error> {
    let cross = store.manifest().get(name)?.role == Role::CrossEncoder;
    let digest = store.manifest().get(name)?.digest();
    let rubrics: Vec<Arc<Rubric>> = TaskKind::ALL
        .into_iter()
        .map(|kind| Arc::new(Rubric::builtin(kind)))
        .filter(|rubric| rubric.profile_of(digest).is_some())
        .collect();
    let mut reference: Option<(Vec<Vec<f32>>, Vec<f64>)> = None;
    let mut reports = Vec::new();
    for way in Way::of_encoders(common) {
        let numbers: Vec<Vec<f32>> = if cross {
            let mut model = load_cross_encoder(store, name, &way.options)?;
            let pairs: Vec<_> =
                items.iter().map(|item| (item.question.as_str(), item.context.as_str())).collect();
            vec![model.score(&pairs)?]
        } else {
            let mut model = load_encoder(store, name, &way.options)?;
            let texts: Vec<_> =
                items.iter().flat_map(|item| [item.question.as_str(), item.context.as_str()]).collect();
            model.embed(&texts)?
        };
        let mut scores = Vec::new();
        for rubric in &rubrics {
            let mut scorer = load_rubric_scorer(store, rubric.clone(), name, &way.options)?;
            for item in items {
                let query = Query { context: item.context.clone(), question: item.question.clone() };
                scores.extend(scorer.score(&query, &outputs(item))?);
            }
        }
        let Some((expected, paid)) = &reference else {
            reference = Some((numbers, scores));
            continue;
        };
        let apart = numbers.iter().zip(expected).map(|(a, b)| furthest(a, b)).fold(0.0, f64::max);
        let paid = scores.iter().zip(paid).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let what = if cross { "of logits" } else { "of components" };
        let report = json!({
            "model": name, "way": way.name, "apart": apart, "scores_apart": paid, "scores_count": scores.len(),
            "numbers": format!("{apart:.0e} {what}"),
            "scores": match scores.len() {
                0 => "no rubric has a profile for it".to_string(),
                count => format!("{paid:.0e}, the furthest of {count}"),
            },
        });
        row(&report);
        reports.push(report);
    }
    Ok(reports)
}
