//! The log of `poq experiment`: JSON Lines, one record per item and model.
//!
//! ```json
//! {"item": "q1", "kind": "qa", "model": "smollm2-135m", "output": "Paris", "f1": 1.0, "rouge_l": 1.0, "wall_ms": 840,
//!  "cpu_ms": 1570, "prompt_tokens": 31, "completion_tokens": 2, "scores": {"minilm": {"score": 0.93, "wall_ms": 12}}}
//! ```
//! Unknown fields are ignored; what is missing, out of range or there twice is refused with its line.

use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::Path;

/// What a task asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Question answering: the truth is the token F1 against the reference.
    Qa,
    /// Summarisation: the truth is ROUGE-L against the reference.
    Summarisation,
}

#[derive(Deserialize)]
struct Record {
    item: String,
    kind: TaskKind,
    model: String,
    f1: Option<f64>,
    rouge_l: f64,
    wall_ms: f64,
    cpu_ms: f64,
    scores: BTreeMap<String, Scored>,
}

/// An evaluator's score of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Scored {
    /// In [0, 1].
    pub score: f64,
    /// How long it took, in milliseconds.
    pub wall_ms: f64,
}

/// A model's answer to an item.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedAnswer {
    /// Its quality against the reference: F1 for question answering where there is one, else ROUGE-L.
    pub truth: f64,
    /// How long it took, in milliseconds of wall time.
    pub wall_ms: f64,
    /// How much processor time it took, in milliseconds.
    pub cpu_ms: f64,
    /// By evaluator, in the order of [`Log::evaluators`].
    pub scores: Vec<Option<Scored>>,
}

/// An item with every model's answer, in the order of [`Log::models`].
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// What it asks for.
    pub kind: TaskKind,
    /// The answers.
    pub answers: Vec<LoggedAnswer>,
}

/// A log: the items that every model has answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The language models, sorted.
    pub models: Vec<String>,
    /// The evaluators, sorted.
    pub evaluators: Vec<String>,
    /// The items, sorted by name.
    pub items: Vec<Item>,
    /// How many items were left out because a model has no answer to them.
    pub incomplete: usize,
    /// What an answer costs, as a share of a slot: [`EFFORT_INFERENCE`] on average, in proportion to the processor time.
    pub model_effort: Vec<f64>,
    /// What scoring costs, as a share of a slot: [`EFFORT_EVALUATOR`] on average, in proportion to the wall time.
    pub evaluator_effort: Vec<f64>,
}

/// The mean effort of inference nodes: nobody's electricity bill is in a log, so the mean is assumed and only the
/// differences are measured.
pub const EFFORT_INFERENCE: f64 = 0.2;
/// The mean effort of evaluators, assumed likewise.
pub const EFFORT_EVALUATOR: f64 = 0.1;

impl Log {
    /// Reads a log.
    ///
    /// # Errors
    /// Where the file cannot be read; the line that is no record, is out of range or repeats an (item, model); a log in
    /// which no item has an answer of every model.
    pub fn read(path: &Path) -> Result<Log> {
        let file = std::fs::File::open(path).map_err(Error::io(path))?;
        Log::parse(std::io::BufReader::new(file), path)
    }

    /// Reads a log from anything; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn parse(reader: impl BufRead, path: &Path) -> Result<Log> {
        let bad = |line: usize, problem: String| Error::Log { path: path.into(), line, problem };
        let mut records: BTreeMap<String, BTreeMap<String, Record>> = BTreeMap::new();
        let mut kinds: BTreeMap<String, TaskKind> = BTreeMap::new();
        let mut models = BTreeSet::new();
        let mut evaluators = BTreeSet::new();
        for (index, text) in reader.lines().enumerate() {
            let line = index + 1;
            let text = text.map_err(Error::io(path))?;
            if text.trim().is_empty() {
                continue;
            }
            let record: Record =
                serde_json::from_str(&text).map_err(|e| bad(line, format!("not a record: {e}")))?;
            check(&record).map_err(|problem| bad(line, problem))?;
            if *kinds.entry(record.item.clone()).or_insert(record.kind) != record.kind {
                return Err(bad(line, format!("item `{}` is of another kind than before", record.item)));
            }
            models.insert(record.model.clone());
            evaluators.extend(record.scores.keys().cloned());
            let (item, model) = (record.item.clone(), record.model.clone());
            if records.entry(item.clone()).or_default().insert(model.clone(), record).is_some() {
                return Err(bad(line, format!("model `{model}` has answered item `{item}` before")));
            }
        }
        let small = |problem: &str| Error::LogTooSmall { path: path.into(), problem: problem.into() };
        if records.is_empty() {
            return Err(small("the log has no records"));
        }
        if evaluators.is_empty() {
            return Err(small("no record has scores: run the experiment with at least one evaluator"));
        }
        let models: Vec<String> = models.into_iter().collect();
        let evaluators: Vec<String> = evaluators.into_iter().collect();
        let all = records.len();
        let items: Vec<Item> = records
            .into_iter()
            .filter(|(_, of)| of.len() == models.len())
            .map(|(name, of)| {
                let kind = kinds[&name];
                let answers = of.into_values().map(|record| answer(record, &evaluators)).collect();
                Item { name, kind, answers }
            })
            .collect();
        if items.is_empty() {
            return Err(small("no item has an answer of every model"));
        }
        let model_effort = effort(models.len(), EFFORT_INFERENCE, |model| {
            items.iter().map(|item| item.answers[model].cpu_ms).collect()
        });
        let evaluator_effort = effort(evaluators.len(), EFFORT_EVALUATOR, |evaluator| {
            let answers = items.iter().flat_map(|item| &item.answers);
            answers.filter_map(|a| a.scores[evaluator]).map(|s| s.wall_ms).collect()
        });
        let incomplete = all - items.len();
        Ok(Log { models, evaluators, items, incomplete, model_effort, evaluator_effort })
    }
}

fn answer(record: Record, evaluators: &[String]) -> LoggedAnswer {
    let truth = match record.kind {
        TaskKind::Qa => record.f1.unwrap_or(record.rouge_l),
        TaskKind::Summarisation => record.rouge_l,
    };
    LoggedAnswer {
        truth,
        wall_ms: record.wall_ms,
        cpu_ms: record.cpu_ms,
        scores: evaluators.iter().map(|name| record.scores.get(name).copied()).collect(),
    }
}

/// Shares of a slot in proportion to the mean time, `mean` on average, at most one.
fn effort(count: usize, mean: f64, times: impl Fn(usize) -> Vec<f64>) -> Vec<f64> {
    let average = |times: Vec<f64>| times.iter().sum::<f64>() / times.len().max(1) as f64;
    let of: Vec<f64> = (0..count).map(|i| average(times(i))).collect();
    let all = of.iter().sum::<f64>() / count.max(1) as f64;
    of.iter().map(|time| if all > 0.0 { (mean * time / all).min(1.0) } else { mean }).collect()
}

fn check(record: &Record) -> Result<(), String> {
    let ratio = |name: &str, x: f64| {
        if (0.0..=1.0).contains(&x) {
            Ok(())
        } else {
            Err(format!("{name} must be in [0, 1], not {x}"))
        }
    };
    let time = |name: &str, x: f64| {
        if x.is_finite() && x >= 0.0 {
            Ok(())
        } else {
            Err(format!("{name} must be a time of at least 0 milliseconds, not {x}"))
        }
    };
    if let Some(f1) = record.f1 {
        ratio("f1", f1)?;
    }
    ratio("rouge_l", record.rouge_l)?;
    time("wall_ms", record.wall_ms)?;
    time("cpu_ms", record.cpu_ms)?;
    for (name, scored) in &record.scores {
        ratio(&format!("scores.{name}.score"), scored.score)?;
        time(&format!("scores.{name}.wall_ms"), scored.wall_ms)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Log> {
        Log::parse(text.as_bytes(), Path::new("experiment.jsonl"))
    }

    fn line(item: &str, model: &str, more: &str) -> String {
        format!(
            r#"{{"item":"{item}","kind":"qa","model":"{model}","output":"x","f1":0.5,"rouge_l":0.4,"wall_ms":10,"cpu_ms":20,"prompt_tokens":3,"completion_tokens":2,"new_field":[1],"scores":{{"e":{{"score":0.6,"wall_ms":1,"extra":true}}}}{more}}}"#
        ) + "\n"
    }

    #[test]
    fn records_become_items_and_unknown_fields_are_ignored() {
        let text = line("b", "m2", "") + "\n" + &line("b", "m1", "") + &line("a", "m1", "");
        let log = parse(&text).unwrap();
        assert_eq!((log.models, log.evaluators), (vec!["m1".into(), "m2".into()], vec!["e".into()]));
        assert_eq!((log.items.len(), log.incomplete), (1, 1));
        let answer = &log.items[0].answers[0];
        assert_eq!((answer.truth, answer.wall_ms, answer.cpu_ms), (0.5, 10.0, 20.0));
        assert_eq!(answer.scores, [Some(Scored { score: 0.6, wall_ms: 1.0 })]);
        assert_eq!(log.model_effort, [EFFORT_INFERENCE; 2]);
    }

    #[test]
    fn the_truth_is_rouge_for_summaries_and_where_there_is_no_f1() {
        let summary = line("a", "m", "").replace("\"qa\"", "\"summarisation\"");
        assert_eq!(parse(&summary).unwrap().items[0].answers[0].truth, 0.4);
        let without = line("a", "m", "").replace("\"f1\":0.5", "\"f1\":null");
        assert_eq!(parse(&without).unwrap().items[0].answers[0].truth, 0.4);
    }

    #[test]
    fn malformed_logs_are_refused_with_the_line_and_the_reason() {
        let good = line("a", "m", "");
        for (bad, reason) in [
            ("{\"item\": \"b\"}\n".to_string(), "missing field"),
            ("not json\n".to_string(), "not a record"),
            (line("b", "m", "").replace("0.6", "1.6"), "scores.e.score must be in [0, 1]"),
            (line("b", "m", "").replace("\"f1\":0.5", "\"f1\":-0.5"), "f1 must be in [0, 1]"),
            (line("b", "m", "").replace("\"wall_ms\":10", "\"wall_ms\":-1"), "wall_ms must be a time"),
            (line("b", "m", "").replace("\"qa\"", "\"poetry\""), "unknown variant"),
            (line("a", "m", ""), "has answered item `a` before"),
            (line("a", "n", "").replace("\"qa\"", "\"summarisation\""), "another kind"),
        ] {
            let error = parse(&(good.clone() + &bad)).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(reason), "{bad}: {error}");
        }
        assert!(parse("").unwrap_err().to_string().contains("no records"));
        let incomplete = line("a", "m", "") + &line("b", "n", "");
        assert!(parse(&incomplete).unwrap_err().to_string().contains("every model"));
        let unscored = line("a", "m", "").replace(r#""e":{"score":0.6,"wall_ms":1,"extra":true}"#, "");
        assert!(parse(&unscored).unwrap_err().to_string().contains("no record has scores"));
    }
}
