//! Outputs × evaluators → scores.

use crate::{
    cli::ScoreArgs,
    error::{Error, Result},
    host::cpu_ms,
    log::{
        read_lines, write_lines, Folder, Lines, OutputRecord, ScoreRecord, ScoredRecord, ITEMS, OUTPUTS,
        SCORES, VERDICTS,
    },
    progress::Progress,
};
use poq_inference::{
    load_cross_encoder, load_encoder, load_generator,
    quality::{
        agreement::AmongOutputs,
        alignment::{Evidence, Relevance, RelevantEvidence},
        judge::{EndpointJudge, EndpointOptions, Judge, LocalJudge, Prices, Verdict},
        semantic::{ToPeers, ToQuery, ToReference},
        structure::Structure,
        support::Support,
        BiEncoderScorer, Case, CrossEncoderScorer, Dimension, Output, QualityScorer, Query,
        SharedCrossEncoder, SharedEncoder, Suite,
    },
    Item, LoadOptions, ModelDigest, ModelStore, Role,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Instant,
};

/// What a judge said of one output, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// The prompt's name.
    pub item: String,
    /// The model that answered.
    pub model: String,
    /// The judge's name.
    pub judge: String,
    /// What it said.
    pub verdict: Verdict,
}

/// Scores every output with every evaluator, and asks the judge, if there is one, about outputs it has not seen.
///
/// # Errors
/// When there are no outputs, or a model fails. Verdicts that were given stay.
pub fn score(args: &ScoreArgs) -> Result<()> {
    let folder = Folder::open(&args.folder.path())?;
    let items: Vec<Item> = read_lines(&folder.file(ITEMS))?;
    let outputs: Vec<OutputRecord> = read_lines(&folder.file(OUTPUTS))?;
    let cases = cases(&items, outputs)?;
    let store = args.store.open()?;

    let mut judged: HashSet<String> = HashSet::new();
    if let Some(mut judge) = judge(args, &store)? {
        judged.insert(judge.name().to_string());
        let seen = items_to_judge(&cases, args.judge_items);
        ask(judge.as_mut(), &cases, &seen, &folder)?;
    }
    let mut scored = encode(args, &store, &cases)?;
    merge_verdicts(&mut scored, &Lines::<VerdictRecord>::open(&folder.file(VERDICTS))?.found);
    let count = scored.len();
    write_lines(&folder.file(SCORES), &scored)?;
    println!("{count} outputs with scores are in {}", folder.file(SCORES).display());
    Ok(())
}

/// A prompt with all outputs it got.
struct Prompted {
    item: Item,
    outputs: Vec<OutputRecord>,
}

impl Prompted {
    fn query(&self) -> Query {
        Query { context: self.item.context.clone(), question: self.item.question.clone() }
    }
}

fn cases(items: &[Item], outputs: Vec<OutputRecord>) -> Result<Vec<Prompted>> {
    let mut by_item: HashMap<String, Vec<OutputRecord>> = HashMap::new();
    for output in outputs {
        by_item.entry(output.item.clone()).or_default().push(output);
    }
    let cases: Vec<_> = items
        .iter()
        .filter_map(|item| {
            let mut outputs = by_item.remove(&item.id)?;
            // The order in which models ran must not show in a score.
            outputs.sort_by(|a, b| a.model.cmp(&b.model));
            Some(Prompted { item: item.clone(), outputs })
        })
        .collect();
    if cases.is_empty() {
        return Err(Error::Usage("there are no outputs yet: `run` comes first".to_string()));
    }
    Ok(cases)
}

fn judge(args: &ScoreArgs, store: &ModelStore) -> Result<Option<Box<dyn Judge>>> {
    let load = LoadOptions { device: args.store.device };
    match (&args.judge, &args.judge_url) {
        (Some(model), None) => Ok(Some(Box::new(LocalJudge::new(load_generator(store, model, &load)?)))),
        (Some(model), Some(url)) => {
            let mut options = EndpointOptions::new(url.clone(), model);
            options.key = match &args.judge_key_file {
                Some(path) => {
                    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
                    Some(text.trim().to_string().into())
                }
                None => None,
            };
            options.prices = args.judge_prices.map(|(prompt, completion)| Prices { prompt, completion });
            Ok(Some(Box::new(EndpointJudge::new(options)?)))
        }
        (None, Some(_)) => {
            Err(Error::Usage("--judge-url needs --judge MODEL, the model's name there".to_string()))
        }
        (None, None) => Ok(None),
    }
}

/// The first prompts of each kind: they were drawn at random, so their beginning is a random choice.
fn items_to_judge(cases: &[Prompted], per_kind: Option<usize>) -> HashSet<String> {
    let mut counts = HashMap::new();
    let chosen = |case: &&Prompted| {
        let count: &mut usize = counts.entry(case.item.kind).or_default();
        *count += 1;
        per_kind.is_none_or(|limit| *count <= limit)
    };
    cases.iter().filter(chosen).map(|case| case.item.id.clone()).collect()
}

fn ask(judge: &mut dyn Judge, cases: &[Prompted], chosen: &HashSet<String>, folder: &Folder) -> Result<()> {
    let mut verdicts = Lines::<VerdictRecord>::open(&folder.file(VERDICTS))?;
    let known: HashSet<(String, String)> = verdicts
        .found
        .iter()
        .filter(|record| record.judge == judge.name())
        .map(|record| (record.item.clone(), record.model.clone()))
        .collect();
    let todo: Vec<_> = cases
        .iter()
        .filter(|case| chosen.contains(&case.item.id))
        .flat_map(|case| case.outputs.iter().map(move |output| (case, output)))
        .filter(|(case, output)| !known.contains(&(case.item.id.clone(), output.model.clone())))
        .collect();
    let mut progress = Progress::new("verdicts", (todo.len() + known.len()) as u64);
    progress.skip(known.len() as u64);
    progress.stage(judge.name());
    for (case, output) in todo {
        let verdict = judge.judge(case.item.kind, &case.query(), &output.output)?;
        verdicts.append(&VerdictRecord {
            item: case.item.id.clone(),
            model: output.model.clone(),
            judge: judge.name().to_string(),
            verdict,
        })?;
        progress.step();
    }
    progress.finish();
    Ok(())
}

fn merge_verdicts(scored: &mut [ScoredRecord], verdicts: &[VerdictRecord]) {
    let mut by_output: HashMap<(&str, &str), Vec<&VerdictRecord>> = HashMap::new();
    for record in verdicts {
        by_output.entry((&record.item, &record.model)).or_default().push(record);
    }
    for record in scored {
        let found = by_output.get(&(record.output.item.as_str(), record.output.model.as_str()));
        for verdict in found.into_iter().flatten() {
            if let Some(score) = verdict.verdict.score {
                let wall_ms = verdict.verdict.wall_ms;
                record.scores.insert(verdict.judge.clone(), ScoreRecord { score, wall_ms, cpu_ms: None });
            }
        }
    }
}

/// A scorer as workers without a rubric run it, and the encoder it shares with the dimensions, if it does.
struct Plain {
    scorer: Box<dyn QualityScorer>,
    encoder: Option<SharedEncoder>,
}

/// All installed encoders, or those asked for.
fn encoders(args: &ScoreArgs, store: &ModelStore, role: Role) -> Result<Vec<String>> {
    for name in &args.encoder {
        store.manifest().get(name)?;
    }
    let wanted = |name: &String| {
        if args.encoder.is_empty() {
            store.is_installed(name)
        } else {
            args.encoder.contains(name)
        }
    };
    let of_role = store.manifest().models().iter().filter(|m| m.role == role).map(|m| m.name.clone());
    Ok(of_role.filter(wanted).collect())
}

/// The scores of all evaluators but judges.
fn encode(args: &ScoreArgs, store: &ModelStore, cases: &[Prompted]) -> Result<Vec<ScoredRecord>> {
    let load = LoadOptions { device: args.store.device };
    let mut dimensions: Vec<Box<dyn Dimension>> =
        vec![Box::new(Structure), Box::new(Support), Box::new(AmongOutputs)];
    let mut scorers: Vec<Plain> = Vec::new();
    for name in encoders(args, store, Role::BiEncoder)? {
        let encoder = SharedEncoder::new(load_encoder(store, &name, &load)?);
        dimensions.push(Box::new(ToReference::new(encoder.clone())));
        dimensions.push(Box::new(ToPeers::new(encoder.clone())));
        dimensions.push(Box::new(ToQuery::new(encoder.clone())));
        dimensions.push(Box::new(Evidence::new(encoder.clone())));
        let scorer = BiEncoderScorer::new(Box::new(encoder.clone()));
        scorers.push(Plain { scorer: Box::new(scorer), encoder: Some(encoder) });
    }
    for name in encoders(args, store, Role::CrossEncoder)? {
        let encoder = SharedCrossEncoder::new(load_cross_encoder(store, &name, &load)?);
        dimensions.push(Box::new(Relevance::new(encoder.clone())));
        dimensions.push(Box::new(Relevance::to_reference(encoder.clone())));
        dimensions.push(Box::new(RelevantEvidence::new(encoder)));
        let scorer = CrossEncoderScorer::new(load_cross_encoder(store, &name, &load)?);
        scorers.push(Plain { scorer: Box::new(scorer), encoder: None });
    }
    let mut suite = Suite::new(dimensions);
    let total = cases.iter().map(|case| case.outputs.len()).sum::<usize>();
    let mut progress = Progress::new("outputs", total as u64);
    progress.stage("scoring");
    let mut scored = Vec::with_capacity(total);
    for case in cases {
        let scores = score_case(&mut suite, &mut scorers, case)?;
        for (output, scores) in case.outputs.iter().zip(scores) {
            scored.push(ScoredRecord { output: output.clone(), scores });
            progress.step();
        }
    }
    progress.finish();
    Ok(scored)
}

fn score_case(
    suite: &mut Suite,
    scorers: &mut [Plain],
    case: &Prompted,
) -> Result<Vec<BTreeMap<String, ScoreRecord>>> {
    let query = case.query();
    let outputs: Vec<Output> = case
        .outputs
        .iter()
        .map(|output| Output { text: output.output.clone(), model: parse_digest(&output.model_digest) })
        .collect();
    let share = 1.0 / outputs.len() as f64;
    let mut scores = vec![BTreeMap::new(); outputs.len()];
    let (wall, cpu) = (Instant::now(), cpu_ms());
    let measured = suite.measure(&Case {
        kind: case.item.kind,
        query: &query,
        outputs: &outputs,
        references: &case.item.references,
    })?;
    // Processor time is known of all together only; each gets its share by its time.
    let cpu_per_wall = (cpu_ms() - cpu) / (wall.elapsed().as_secs_f64() * 1e3).max(1e-6);
    for dimension in measured {
        let wall_ms = dimension.cost.as_secs_f64() * 1e3 * share;
        for (scores, value) in scores.iter_mut().zip(dimension.values) {
            if let Some(score) = value {
                let cpu_ms = Some(wall_ms * cpu_per_wall);
                scores.insert(dimension.name.clone(), ScoreRecord { score, wall_ms, cpu_ms });
            }
        }
    }
    for Plain { scorer, encoder } in scorers {
        let (wall, cpu) = (Instant::now(), cpu_ms());
        let values = scorer.score_outputs(&query, &outputs)?;
        let (mut wall_ms, mut cpu_ms) = (wall.elapsed().as_secs_f64() * 1e3, cpu_ms() - cpu);
        if let Some(encoder) = encoder {
            // The vectors were there already; alone, it would have to make them.
            let asked = format!("{}{} {}", encoder.query_prefix(), query.question, query.context);
            let mut texts: Vec<&str> = outputs.iter().map(|output| output.text.as_str()).collect();
            texts.push(&asked);
            let embedding = encoder.cost(&texts)?.as_secs_f64() * 1e3;
            wall_ms += embedding;
            cpu_ms += embedding * cpu_per_wall;
        }
        for (scores, score) in scores.iter_mut().zip(values) {
            let record = ScoreRecord { score, wall_ms: wall_ms * share, cpu_ms: Some(cpu_ms * share) };
            scores.insert(format!("worker/{}", scorer.name()), record);
        }
    }
    Ok(scores)
}

/// 0x and 64 hexadecimal digits.
pub(crate) fn parse_digest(text: &str) -> Option<ModelDigest> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.strip_prefix("0x")?, &mut bytes).ok()?;
    Some(ModelDigest(bytes))
}
