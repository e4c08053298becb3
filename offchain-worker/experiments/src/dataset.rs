//! Scored outputs as columns, split into prompts to learn from and prompts to report on.

use crate::{
    error::{Error, Result},
    log::{OutputRecord, ScoredRecord},
    score::parse_digest,
    tables::mean,
};
use poq_inference::{
    quality::{
        agreement::among_evaluators,
        priors::{cost_efficiency, rate, win_chance},
        rubric::ModelPriors,
        structure::UsualLength,
    },
    Item, ModelDigest, TaskKind,
};
use rand::{seq::SliceRandom, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Which prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Those that everything is learnt from.
    Training,
    /// Those that results are reported on.
    HeldOut,
    /// All.
    Whole,
}

/// Scored outputs of prompts that have a reference.
#[derive(Debug)]
pub struct Dataset {
    /// One per output.
    pub rows: Vec<Row>,
    /// The evaluators' and dimensions' scores, by name, one value per row.
    pub columns: BTreeMap<String, Vec<Option<f64>>>,
    /// What was learnt about lengths, per kind, from the training prompts' references.
    pub usual_length: BTreeMap<TaskKind, UsualLength>,
    /// What was learnt about models, per kind, from the training prompts.
    pub priors: BTreeMap<TaskKind, Vec<ModelPriors>>,
}

/// One output.
#[derive(Debug)]
pub struct Row {
    /// The output.
    pub output: OutputRecord,
    /// Its token F1.
    pub f1: f64,
    /// Its ROUGE-L.
    pub rouge_l: f64,
    /// Whether its prompt is one to learn from.
    pub training: bool,
    /// Whether no model gave it; see [`crate::cheats`].
    pub cheat: bool,
}

/// The judges' columns.
pub const JUDGE: &str = "judge/";

impl Dataset {
    /// Outputs without a reference are left out: nothing can be learnt from them, and nothing reported on them.
    ///
    /// # Errors
    /// When no output has a reference.
    pub fn new(
        items: &[Item],
        scored: Vec<ScoredRecord>,
        cheats: Vec<ScoredRecord>,
        seed: u64,
    ) -> Result<Self> {
        let honest = scored.len();
        let scored: Vec<ScoredRecord> = scored.into_iter().chain(cheats).collect();
        let training = training_prompts(items, seed);
        let mut names: BTreeSet<String> = BTreeSet::new();
        for record in &scored {
            names.extend(record.scores.keys().cloned());
        }
        let mut columns: BTreeMap<String, Vec<Option<f64>>> =
            names.into_iter().map(|name| (name, Vec::new())).collect();
        let mut rows = Vec::new();
        for (index, ScoredRecord { output, scores }) in scored.into_iter().enumerate() {
            let (Some(f1), Some(rouge_l)) = (output.f1, output.rouge_l) else { continue };
            for (name, column) in &mut columns {
                column.push(scores.get(name).map(|score| score.score));
            }
            let training = training.contains(output.item.as_str());
            rows.push(Row { output, f1, rouge_l, training, cheat: index >= honest });
        }
        if rows.is_empty() {
            return Err(Error::Usage(
                "no output has a reference answer, so there is nothing to compare scores with".to_string(),
            ));
        }
        let mut this = Self { rows, columns, usual_length: BTreeMap::new(), priors: BTreeMap::new() };
        this.add_lengths(items);
        this.add_priors();
        this.add_agreement("agreement-reference", "semantic-reference/", "relevance-reference/");
        this.add_agreement("agreement-evaluators", "semantic-peers/", "relevance/");
        Ok(this)
    }

    /// The kinds there are outputs of.
    pub fn kinds(&self) -> Vec<TaskKind> {
        TaskKind::ALL.into_iter().filter(|kind| self.rows.iter().any(|r| r.output.kind == *kind)).collect()
    }

    /// The rows that models gave to prompts of a kind, by model.
    pub fn by_model(&self, kind: TaskKind) -> BTreeMap<&str, Vec<&Row>> {
        let mut models: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.output.kind == kind && !row.cheat) {
            models.entry(&row.output.model).or_default().push(row);
        }
        models
    }

    /// The rows that models gave to some prompts, of one kind or of all, by prompt.
    pub fn clusters(&self, kind: Option<TaskKind>, part: Part) -> Vec<Vec<usize>> {
        self.clusters_where(kind, part, |row| !row.cheat)
    }

    /// As [`Dataset::clusters`], of the rows that `included` says.
    pub fn clusters_where(
        &self,
        kind: Option<TaskKind>,
        part: Part,
        included: impl Fn(&Row) -> bool,
    ) -> Vec<Vec<usize>> {
        let mut clusters: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, row) in self.rows.iter().enumerate() {
            let wanted = match part {
                Part::Training => row.training,
                Part::HeldOut => !row.training,
                Part::Whole => true,
            };
            if wanted && included(row) && kind.is_none_or(|kind| row.output.kind == kind) {
                clusters.entry(&row.output.item).or_default().push(index);
            }
        }
        clusters.into_values().collect()
    }

    /// A column's value in a row.
    pub fn value(&self, column: &str, row: usize) -> Option<f64> {
        self.columns.get(column)?[row]
    }

    fn add_lengths(&mut self, items: &[Item]) {
        for kind in self.kinds() {
            let training: BTreeSet<&str> = self
                .rows
                .iter()
                .filter(|row| row.training && row.output.kind == kind)
                .map(|row| row.output.item.as_str())
                .collect();
            let references = items
                .iter()
                .filter(|item| training.contains(item.id.as_str()))
                .flat_map(|item| item.references.iter().map(String::as_str));
            if let Some(usual) = UsualLength::of(references) {
                self.usual_length.insert(kind, usual);
            }
        }
        let fit = |row: &Row| Some(self.usual_length.get(&row.output.kind)?.fit(&row.output.output));
        self.columns.insert("length".to_string(), self.rows.iter().map(fit).collect());
    }

    fn add_priors(&mut self) {
        for kind in self.kinds() {
            let priors = self.priors_of(kind);
            self.priors.insert(kind, priors);
        }
        let lookup = |row: &Row, of: fn(&ModelPriors) -> f64| {
            let known = self.priors.get(&row.output.kind)?;
            known.iter().find(|prior| prior.digest == row.output.model_digest).map(of)
        };
        let quality = self.rows.iter().map(|row| lookup(row, |p| p.quality)).collect();
        let cost = self.rows.iter().map(|row| lookup(row, |p| p.cost)).collect();
        self.columns.insert("model-prior".to_string(), quality);
        self.columns.insert("cost-prior".to_string(), cost);
    }

    /// Pairwise outcomes of the models on each training prompt, rated by Elo; quality per processor time.
    fn priors_of(&self, kind: TaskKind) -> Vec<ModelPriors> {
        let clusters = self.clusters(Some(kind), Part::Training);
        let mut models: BTreeMap<&str, &str> = BTreeMap::new();
        for row in clusters.iter().flatten() {
            let output = &self.rows[*row].output;
            models.insert(&output.model_digest, &output.model);
        }
        let index: HashMap<&str, usize> = models.keys().enumerate().map(|(i, digest)| (*digest, i)).collect();
        let mut outcomes = Vec::new();
        for rows in &clusters {
            for (i, a) in rows.iter().enumerate() {
                for b in &rows[i + 1..] {
                    let (a, b) = (&self.rows[*a], &self.rows[*b]);
                    let score = match a.f1.total_cmp(&b.f1) {
                        std::cmp::Ordering::Greater => 1.0,
                        std::cmp::Ordering::Equal => 0.5,
                        std::cmp::Ordering::Less => 0.0,
                    };
                    let of = |row: &Row| index[row.output.model_digest.as_str()];
                    outcomes.push((of(a), of(b), score));
                }
            }
        }
        let quality = win_chance(&rate(models.len(), &outcomes));
        let economics: Vec<(f64, f64)> = models
            .keys()
            .map(|digest| {
                let rows = || {
                    clusters
                        .iter()
                        .flatten()
                        .map(|r| &self.rows[*r])
                        .filter(|r| r.output.model_digest == **digest)
                };
                (mean(rows().map(|row| row.f1)), mean(rows().map(|row| row.output.cpu_ms)))
            })
            .collect();
        let cost = cost_efficiency(&economics);
        let round = |v: f64| (v * 1e6).round() / 1e6;
        models
            .iter()
            .enumerate()
            .filter(|(_, (digest, _))| parse_digest(digest).is_some())
            .map(|(i, (digest, model))| ModelPriors {
                model: model.to_string(),
                digest: digest.to_string(),
                quality: round(quality[i]),
                cost: round(cost[i]),
            })
            .collect()
    }

    /// The paper's agreement: how little the evaluators of one kind of signal scatter.
    fn add_agreement(&mut self, name: &str, first: &str, second: &str) {
        let evaluators: Vec<&Vec<Option<f64>>> = self
            .columns
            .iter()
            .filter(|(column, _)| column.starts_with(first) || column.starts_with(second))
            .map(|(_, values)| values)
            .collect();
        let values = (0..self.rows.len())
            .map(|row| {
                among_evaluators(&evaluators.iter().filter_map(|column| column[row]).collect::<Vec<_>>())
            })
            .collect();
        self.columns.insert(name.to_string(), values);
    }

    /// The model's name on chain in a row.
    pub fn digest(&self, row: usize) -> Option<ModelDigest> {
        parse_digest(&self.rows[row].output.model_digest)
    }
}

/// Half of the prompts of each kind, as the seed decides.
fn training_prompts(items: &[Item], seed: u64) -> BTreeSet<String> {
    let mut training = BTreeSet::new();
    for kind in TaskKind::ALL {
        let mut ids: Vec<&str> =
            items.iter().filter(|item| item.kind == kind).map(|item| item.id.as_str()).collect();
        ids.sort_unstable();
        ids.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        training.extend(ids.iter().take(ids.len() / 2).map(|id| id.to_string()));
    }
    training
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::log::ScoreRecord;

    /// Forty questions answered by two models, of which `good` is right three times in four and `bad` once; `semantic-peers/e`
    /// knows, `relevance/x` is reversed.
    pub(crate) fn example() -> (Vec<Item>, Vec<ScoredRecord>) {
        let mut items = Vec::new();
        let mut scored = Vec::new();
        for i in 0..40usize {
            let id = format!("q{i:02}");
            items.push(Item {
                id: id.clone(),
                kind: TaskKind::Qa,
                context: String::new(),
                question: String::new(),
                references: vec!["two words".to_string()],
            });
            for (m, model) in ["bad", "good"].into_iter().enumerate() {
                let right = (i * 7 + m) % 4 < 1 + 2 * m;
                let f1 = if right { 1.0 } else { 0.1 * ((i * 3 + m) % 4) as f64 };
                let noise = 0.1 * ((i * 5 + m * 3) % 7) as f64 / 7.0;
                let score = |score: f64| ScoreRecord { score, wall_ms: 1.0, cpu_ms: Some(1.0) };
                scored.push(ScoredRecord {
                    output: OutputRecord {
                        item: id.clone(),
                        kind: TaskKind::Qa,
                        model: model.to_string(),
                        model_digest: format!("0x{}", hex::encode([m as u8 + 1; 32])),
                        output: "two words".to_string(),
                        f1: Some(f1),
                        rouge_l: Some(f1),
                        wall_ms: 10.0,
                        cpu_ms: 10.0 * (1 + m) as f64,
                        prompt_ms: 5.0,
                        prompt_tokens: 100,
                        completion_tokens: 3,
                        finish: None,
                        peak_memory_bytes: None,
                        error: None,
                    },
                    scores: [
                        ("semantic-peers/e".to_string(), score((0.8 * f1 + noise).min(1.0))),
                        ("semantic-reference/e".to_string(), score((0.9 * f1 + noise / 2.0).min(1.0))),
                        ("relevance/x".to_string(), score(0.9 - 0.5 * f1 + noise)),
                        ("structure".to_string(), score(1.0 - noise)),
                    ]
                    .into(),
                });
            }
        }
        (items, scored)
    }

    #[test]
    fn prompts_are_split_whole_and_priors_learnt_on_training_prompts() {
        let (items, scored) = example();
        let data = Dataset::new(&items, scored, Vec::new(), 1).unwrap();
        let training = data.clusters(None, Part::Training);
        let held_out = data.clusters(None, Part::HeldOut);
        assert_eq!((training.len(), held_out.len()), (20, 20));
        assert!(training.iter().all(|rows| rows.len() == 2));
        let priors = &data.priors[&TaskKind::Qa];
        let of = |name: &str| priors.iter().find(|p| p.model == name).unwrap();
        assert!(of("good").quality > 0.5 && of("bad").quality < 0.5, "{priors:?}");
        assert_eq!(data.usual_length[&TaskKind::Qa], UsualLength { low: 2.0, high: 2.0 });
        assert_eq!(data.value("length", 0), Some(1.0));
        assert!(data.value("agreement-evaluators", 0).is_some());
    }

    #[test]
    fn without_references_there_is_nothing_to_report() {
        let (items, mut scored) = example();
        for record in &mut scored {
            record.output.f1 = None;
        }
        assert!(Dataset::new(&items, scored, Vec::new(), 1).unwrap_err().to_string().contains("reference"));
    }
}
