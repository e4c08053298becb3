//! Outputs × evaluators → scores.

use crate::{
    cheats::{cheats, fold},
    cli::ScoreArgs,
    error::{Error, Result},
    host::cpu_ms,
    log::{
        read_lines, write_lines, Folder, Lines, OutputRecord, ScoreRecord, ScoredRecord, CHEATS, ITEMS,
        OUTPUTS, SCORES, VERDICTS,
    },
    progress::Progress,
};
use poq_inference::{
    load_cross_encoder, load_encoder, load_generator,
    quality::{
        agreement::AmongOutputs,
        alignment::{Evidence, Relevance, RelevantEvidence},
        judge::{EndpointJudge, EndpointOptions, Judge, LocalJudge, Prices, Verdict},
        reference::{rouge_l, token_f1},
        semantic::{ToPeers, ToQuery, ToReference},
        structure::Structure,
        support::Support,
        BiEncoderScorer, Case, CrossEncoderScorer, Dimension, Measured, Output, QualityScorer, Query,
        SharedCrossEncoder, SharedEncoder, Suite,
    },
    read_text, Item, ModelDigest, ModelStore, Role,
};
use rand::{seq::SliceRandom, SeedableRng};
use rand_chacha::ChaCha8Rng;
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

    if let Some(mut judge) = judge(args, &store)? {
        let seen = items_to_judge(&cases, args.judge_items);
        ask(judge.as_mut(), &cases, &seen, &folder)?;
    }
    let (mut scored, cheated) = encode(args, &store, &cases)?;
    merge_verdicts(&mut scored, &Lines::<VerdictRecord>::open(&folder.file(VERDICTS))?.found);
    let count = scored.len();
    write_lines(&folder.file(CHEATS), &cheated)?;
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
    match (&args.judge, &args.judge_url) {
        (Some(model), None) => {
            let load = args.store.options(store, model);
            Ok(Some(Box::new(LocalJudge::new(load_generator(store, model, &load)?))))
        }
        (Some(model), Some(url)) => {
            let mut options = EndpointOptions::new(url.clone(), model);
            options.key = match &args.judge_key_file {
                Some(path) => {
                    let text = read_text(path)?;
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
    let mut without: Vec<String> = Vec::new();
    for (case, output) in todo {
        let verdict = judge.judge(case.item.kind, &case.query(), &output.output)?;
        without.extend(verdict.problem.clone());
        verdicts.append(&VerdictRecord {
            item: case.item.id.clone(),
            model: output.model.clone(),
            judge: judge.name().to_string(),
            verdict,
        })?;
        progress.step();
    }
    progress.finish();
    if let Some(first) = without.first() {
        eprintln!("{} gave no grade for {} outputs; the first because {first}", judge.name(), without.len());
    }
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

/// A scorer as workers without a rubric run it, and the encoder it shares with the dimensions.
struct Plain {
    scorer: BiEncoderScorer,
    encoder: SharedEncoder,
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

/// Everything but judges that scores.
struct Evaluators {
    /// What an output gets whatever the other outputs are.
    alone: Suite,
    /// What depends on the other outputs.
    among: Suite,
    /// What workers without a rubric give by a bi-encoder; depends on the other outputs.
    plain: Vec<Plain>,
    /// What they give by a cross-encoder; does not.
    plain_cross: Vec<CrossEncoderScorer>,
    /// How many outputs a task has.
    outputs: usize,
    /// Decides which.
    seed: u64,
}

impl Evaluators {
    fn load(args: &ScoreArgs, store: &ModelStore) -> Result<Self> {
        let load = |name: &str| args.store.options(store, name);
        let mut alone: Vec<Box<dyn Dimension>> = vec![Box::new(Structure), Box::new(Support)];
        let mut among: Vec<Box<dyn Dimension>> = vec![Box::new(AmongOutputs)];
        let (mut plain, mut plain_cross) = (Vec::new(), Vec::new());
        for name in encoders(args, store, Role::BiEncoder)? {
            let encoder = SharedEncoder::new(load_encoder(store, &name, &load(&name))?);
            alone.push(Box::new(ToReference::new(encoder.clone())));
            alone.push(Box::new(ToQuery::new(encoder.clone())));
            alone.push(Box::new(Evidence::new(encoder.clone())));
            among.push(Box::new(ToPeers::new(encoder.clone())));
            plain.push(Plain { scorer: BiEncoderScorer::new(Box::new(encoder.clone())), encoder });
        }
        for name in encoders(args, store, Role::CrossEncoder)? {
            let encoder = SharedCrossEncoder::new(load_cross_encoder(store, &name, &load(&name))?);
            alone.push(Box::new(Relevance::new(encoder.clone())));
            alone.push(Box::new(Relevance::to_reference(encoder.clone())));
            alone.push(Box::new(RelevantEvidence::new(encoder)));
            plain_cross.push(CrossEncoderScorer::new(load_cross_encoder(store, &name, &load(&name))?));
        }
        Ok(Self {
            alone: Suite::new(alone),
            among: Suite::new(among),
            plain,
            plain_cross,
            outputs: args.outputs.max(1),
            seed: args.seed,
        })
    }

    /// The scores of these answers to a prompt, each as one of a task's outputs: beside others of `beside`.
    fn score(
        &mut self,
        item: &Item,
        answers: &[OutputRecord],
        beside: &[OutputRecord],
    ) -> Result<Vec<BTreeMap<String, ScoreRecord>>> {
        let query = Query { context: item.context.clone(), question: item.question.clone() };
        let output = |record: &OutputRecord| Output {
            text: record.output.clone(),
            model: parse_digest(&record.model_digest),
        };
        let outputs: Vec<Output> = answers.iter().map(output).collect();
        let mut scores = vec![BTreeMap::new(); answers.len()];
        let case = Case { kind: item.kind, query: &query, outputs: &outputs, references: &item.references };
        let (measured, cpu_per_wall) = measure(&mut self.alone, &case)?;
        for (i, scores) in scores.iter_mut().enumerate() {
            record(scores, &measured, i, answers.len(), cpu_per_wall);
        }
        for scorer in &mut self.plain_cross {
            let (wall, cpu) = (Instant::now(), cpu_ms());
            let values = scorer.score_outputs(&query, &outputs)?;
            let share = 1.0 / answers.len().max(1) as f64;
            let (wall_ms, cpu_ms) =
                (wall.elapsed().as_secs_f64() * 1e3 * share, Some((cpu_ms() - cpu) * share));
            for (scores, score) in scores.iter_mut().zip(values) {
                scores.insert(format!("worker/{}", scorer.name()), ScoreRecord { score, wall_ms, cpu_ms });
            }
        }
        for (i, answer) in answers.iter().enumerate() {
            let mut task = vec![outputs[i].clone()];
            task.extend(others(answer, beside, self.outputs - 1, self.seed).into_iter().map(output));
            // The vectors were made above, so it is that time which tells how much of it was the processor's.
            let measured = self.among.measure(&Case { outputs: &task, ..case })?;
            record(&mut scores[i], &measured, 0, task.len(), cpu_per_wall);
            for plain in &mut self.plain {
                let score = plain.score(&query, &task, cpu_per_wall)?;
                scores[i].insert(format!("worker/{}", plain.scorer.name()), score);
            }
        }
        Ok(scores)
    }
}

/// Values and how much processor time a second on the wall took. Processor time is known of all dimensions together only;
/// each gets its share by its time.
fn measure(suite: &mut Suite, case: &Case<'_>) -> Result<(Vec<Measured>, f64)> {
    let (wall, cpu) = (Instant::now(), cpu_ms());
    let measured = suite.measure(case)?;
    Ok((measured, (cpu_ms() - cpu) / (wall.elapsed().as_secs_f64() * 1e3).max(1e-6)))
}

/// Files what was measured of output `index`, at its share of the cost of all `outputs`.
fn record(
    scores: &mut BTreeMap<String, ScoreRecord>,
    measured: &[Measured],
    index: usize,
    outputs: usize,
    cpu_per_wall: f64,
) {
    for dimension in measured {
        if let Some(score) = dimension.values[index] {
            let wall_ms = dimension.cost.as_secs_f64() * 1e3 / outputs as f64;
            let cpu_ms = Some(wall_ms * cpu_per_wall);
            scores.insert(dimension.name.clone(), ScoreRecord { score, wall_ms, cpu_ms });
        }
    }
}

/// The other outputs of a task that has `answer`: `count` of those that other models gave, drawn anew for every prompt and
/// answer, as the chain draws nodes: always beside the same neighbours, a good answer could agree with nobody.
fn others<'a>(
    answer: &OutputRecord,
    beside: &'a [OutputRecord],
    count: usize,
    seed: u64,
) -> Vec<&'a OutputRecord> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ fold(&format!("{}/{}", answer.item, answer.model)));
    let mut others: Vec<_> = beside.iter().filter(|other| other.model != answer.model).collect();
    others.shuffle(&mut random);
    others.truncate(count);
    others
}

impl Plain {
    /// The score of the first output of a task, and what an output costs.
    fn score(&mut self, query: &Query, task: &[Output], cpu_per_wall: f64) -> Result<ScoreRecord> {
        let (wall, cpu) = (Instant::now(), cpu_ms());
        let values = self.scorer.score_outputs(query, task)?;
        let (wall_ms, cpu_ms) = (wall.elapsed().as_secs_f64() * 1e3, cpu_ms() - cpu);
        // The vectors were there already; alone, it would have to make them.
        let asked = format!("{}{} {}", self.encoder.query_prefix(), query.question, query.context);
        let mut texts: Vec<&str> = task.iter().map(|output| output.text.as_str()).collect();
        texts.push(&asked);
        let embedding = self.encoder.cost(&texts)?.as_secs_f64() * 1e3;
        let share = 1.0 / task.len() as f64;
        Ok(ScoreRecord {
            score: values[0],
            wall_ms: (wall_ms + embedding) * share,
            cpu_ms: Some((cpu_ms + embedding * cpu_per_wall) * share),
        })
    }
}

/// The scores of all evaluators but judges, of the models' outputs and of cheats.
fn encode(
    args: &ScoreArgs,
    store: &ModelStore,
    cases: &[Prompted],
) -> Result<(Vec<ScoredRecord>, Vec<ScoredRecord>)> {
    let mut evaluators = Evaluators::load(args, store)?;
    let mut progress = Progress::new("prompts", cases.len() as u64);
    progress.stage("scoring");
    let (mut scored, mut cheated) = (Vec::new(), Vec::new());
    for Prompted { item, outputs } in cases {
        let together = |outputs: &[OutputRecord], scores: Vec<BTreeMap<String, ScoreRecord>>| {
            outputs
                .iter()
                .cloned()
                .zip(scores)
                .map(|(output, scores)| ScoredRecord { output, scores })
                .collect::<Vec<_>>()
        };
        scored.extend(together(outputs, evaluators.score(item, outputs, outputs)?));
        let cheats: Vec<OutputRecord> =
            cheats(item, args.seed).into_iter().map(|(name, answer)| unearned(item, name, answer)).collect();
        cheated.extend(together(&cheats, evaluators.score(item, &cheats, outputs)?));
        progress.step();
    }
    progress.finish();
    Ok((scored, cheated))
}

/// An answer that no model gave, as a record.
fn unearned(item: &Item, name: String, output: String) -> OutputRecord {
    let known = !item.references.is_empty();
    OutputRecord {
        item: item.id.clone(),
        kind: item.kind,
        model: name,
        model_digest: String::new(),
        f1: known.then(|| token_f1(&output, &item.references)),
        rouge_l: known.then(|| rouge_l(&output, &item.references)),
        output,
        wall_ms: 0.0,
        cpu_ms: 0.0,
        prompt_ms: 0.0,
        prompt_tokens: 0,
        completion_tokens: 0,
        finish: None,
        peak_memory_bytes: None,
        error: None,
    }
}

/// 0x and 64 hexadecimal digits.
pub(crate) fn parse_digest(text: &str) -> Option<ModelDigest> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.strip_prefix("0x")?, &mut bytes).ok()?;
    Some(ModelDigest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(item: usize, model: &str) -> OutputRecord {
        let item = Item {
            id: item.to_string(),
            kind: poq_inference::TaskKind::Qa,
            context: String::new(),
            question: String::new(),
            references: Vec::new(),
        };
        unearned(&item, model.to_string(), String::new())
    }

    #[test]
    fn every_answer_stands_beside_every_other_models_about_equally_often() {
        let models = ["a", "b", "c", "d"];
        let mut counts: BTreeMap<(&str, String), usize> = BTreeMap::new();
        for item in 0..600 {
            let beside: Vec<OutputRecord> = models.iter().map(|model| answer(item, model)).collect();
            for model in ["a", "b", "c", "d", "cheat/x"] {
                let found = others(&answer(item, model), &beside, 2, 1);
                assert_eq!(found.len(), 2);
                assert_ne!(found[0].model, found[1].model);
                for other in found {
                    *counts.entry((model, other.model.clone())).or_default() += 1;
                }
            }
        }
        for ((model, other), count) in &counts {
            let expected = if *model == "cheat/x" { 300 } else { 400 };
            assert_ne!(model, other);
            assert!(count.abs_diff(expected) < 60, "{model} stands beside {other} {count} times");
        }
        assert_eq!(counts.len(), 4 * 3 + 4);
        let beside = [answer(1, "a"), answer(1, "b")];
        assert_eq!(others(&beside[0], &beside, 5, 1), [&beside[1]]);
    }
}
