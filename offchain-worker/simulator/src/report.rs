//! The report: all tables and plots that `docs/economics.md` rests on, from one seed.
//!
//! | file | what |
//! |---|---|
//! | `scenarios.json` | the papers' findings and ours, each reproduced or not, with its numbers |
//! | `attacks.csv`, `attacks-profit-*.svg`, `attacks-error-*.svg` | every attack × ratio × five sets of rules |
//! | `attacks.json` | the same at 30 % and 45 %, with how it was measured |
//! | `strength.csv`, `strength.svg` | attacks at other strengths: is a milder one, or a wilder one, better? |
//! | `deviation.csv` | what attackers gain over behaving honestly themselves, same network, same luck |
//! | `rules.csv` | how every set of rules holds against its worst attack (from `sweep.csv`) |
//! | `panel.csv`, `panel.svg` | what K does |
//! | `trust.csv`, `trust.svg` | trust over time |
//! | `rewards.csv`, `rewards.svg` | rewards by node, beside what the truth would have earned |
//! | `gold.csv`, `gold.svg` | how many gold tasks are enough, and how many abusive auditors too many |
//! | `failures.csv` | what each failure costs whom |
//! | `steering.csv` | who can steer a panel, and how far |
//! | `raids.csv` | what raids on a staking pool gain |
//! | `sweep.csv` | the whole sweep |

use crate::attack::{Attack, Corrupts};
use crate::economy::{Gold, Setting};
use crate::error::{Error, Result};
use crate::failures;
use crate::measure::{Metric, Outcome, Summary};
use crate::papers;
use crate::plot::{bars, Bar, Line, Multiples, Panel};
use crate::population::{Crowd, Role};
use crate::raids;
use crate::rules::{
    Regime, RuleSet, AGGREGATIONS, GOLD_NOISE, MERITS, RECOMMENDED, RULE_SETS, TRUSTS, UNAUDITED,
};
use crate::run::{run_all, Effort, Job};
use crate::scenario::{self, Finding};
use crate::stats::{estimate, Estimate};
use crate::steering::{steer, Steerer};
use crate::sweep::{short, verdicts, write_csv, write_table, Cell, Grid, Row};
use crate::world::{Spread, World};
use indicatif::{ProgressBar, ProgressStyle};
use poq_core::KindParams;
use serde_json::json;
use std::path::Path;

/// How thorough a report is.
#[derive(Clone, Debug)]
struct Scale {
    /// The tables and plots that the documentation shows.
    tables: Effort,
    /// The whole sweep.
    sweep: Effort,
    ratios: Vec<f64>,
    panels: &'static [u8],
    sweep_panels: &'static [u8],
    sweep_ratios: &'static [f64],
}

impl Scale {
    fn full(seed: u64) -> Scale {
        Scale {
            tables: Effort { rounds: 3_000, replications: 5, seed },
            sweep: Effort { rounds: 1_500, replications: 1, seed },
            ratios: vec![0.1, 0.2, 0.3, 0.4, 0.45, 0.5],
            panels: &[3, 4, 5, 6, 7, 9, 11, 13, 15],
            sweep_panels: &[3, 5, 9, 15],
            sweep_ratios: &[0.1, 0.2, 0.3, 0.45],
        }
    }

    fn quick(seed: u64) -> Scale {
        Scale {
            tables: Effort { rounds: 600, replications: 3, seed },
            sweep: Effort { rounds: 500, replications: 1, seed },
            ratios: vec![0.1, 0.3, 0.45],
            panels: &[3, 5, 9, 15],
            sweep_panels: &[9],
            sweep_ratios: &[0.3],
        }
    }
}

/// A part of the report: the tables and plots of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The papers' findings and ours.
    Scenarios,
    /// Every attack under five sets of rules.
    Attacks,
    /// Attacks at other strengths.
    Strength,
    /// What attackers gain over behaving honestly.
    Deviation,
    /// What K does.
    Panel,
    /// Trust over time.
    Trust,
    /// Rewards by node.
    Rewards,
    /// Gold tasks.
    Gold,
    /// What each failure costs whom.
    Failures,
    /// Who can steer a panel.
    Steering,
    /// Raids on a staking pool.
    Raids,
    /// The whole sweep.
    Sweep,
}

/// What is asked of a report.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these parts; all where there are none.
    pub only: Vec<Part>,
    /// A fraction of the rounds and of the combinations: for a look, not for conclusions.
    pub quick: bool,
    /// Rounds per replication instead of the scale's own, in the sweep too.
    pub rounds: Option<u64>,
    /// Replications instead of the scale's own, but in the sweep.
    pub replications: Option<u32>,
    /// The shares of attackers that every attack is measured at, instead of the scale's own.
    pub ratios: Vec<f64>,
    /// What all random numbers come from.
    pub seed: u64,
    /// Whether to show progress on standard error.
    pub progress: bool,
}

/// Writes the whole report into `folder`, which is made where it does not exist.
///
/// # Errors
/// Files that cannot be written; bugs that the books found.
pub fn write(folder: &Path, options: Options) -> Result<Vec<Finding>> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let Options { only, quick, rounds, replications, ratios, seed, progress } = options;
    let mut scale = if quick { Scale::quick(seed) } else { Scale::full(seed) };
    if let Some(rounds) = rounds {
        scale.tables.rounds = rounds;
        scale.sweep.rounds = rounds;
    }
    scale.tables.replications = replications.unwrap_or(scale.tables.replications);
    if !ratios.is_empty() {
        scale.ratios = ratios;
    }
    let worlds = Spread::ALL.iter().map(|s| World::standard(*s)).collect::<Result<Vec<_>>>()?;
    let report = Report { folder, scale, worlds, progress };
    let asked = |part| only.is_empty() || only.contains(&part);
    let findings = if asked(Part::Scenarios) { report.scenarios()? } else { Vec::new() };
    type Write = fn(&Report<'_>) -> Result<()>;
    let parts: [(Part, Write); 11] = [
        (Part::Attacks, |r| r.attacks()),
        (Part::Strength, |r| r.strength()),
        (Part::Deviation, |r| r.deviation()),
        (Part::Panel, |r| r.panel()),
        (Part::Trust, |r| r.trust()),
        (Part::Rewards, |r| r.rewards()),
        (Part::Gold, |r| r.gold()),
        (Part::Failures, |r| r.failures()),
        (Part::Steering, |r| r.steering()),
        (Part::Raids, |r| r.raids()),
        (Part::Sweep, |r| r.sweep()),
    ];
    for (part, write) in parts {
        if asked(part) {
            write(&report)?;
        }
    }
    Ok(findings)
}

struct Report<'a> {
    folder: &'a Path,
    scale: Scale,
    /// In the order of [`Spread::ALL`].
    worlds: Vec<World>,
    progress: bool,
}

/// A mean, and where its confidence interval starts and ends.
type Interval = (f64, f64, f64);

fn interval(summary: &Summary, metric: Metric) -> Option<Interval> {
    summary.get(metric).map(|e| (e.mean, e.low, e.high))
}

fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(|name| (*name).to_string()).collect()
}

fn columns(of: Option<Estimate>) -> [String; 3] {
    of.map_or([String::new(), String::new(), String::new()], |e| [short(e.mean), short(e.low), short(e.high)])
}

impl Report<'_> {
    fn bar(&self, what: &'static str, count: usize) -> ProgressBar {
        let bar = if self.progress { ProgressBar::new(count as u64) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{msg:22} {bar:30} {pos}/{len} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar
    }

    fn run(&self, what: &'static str, jobs: &[Job<'_>]) -> Result<Vec<Summary>> {
        let bar = self.bar(what, jobs.len());
        let all = run_all(jobs, self.scale.tables, |_, outcomes| Summary::of(&outcomes), || bar.inc(1))?;
        bar.finish();
        Ok(all)
    }

    fn scenarios(&self) -> Result<Vec<Finding>> {
        let bar = self.bar("scenarios", scenario::ALL.len());
        let findings = scenario::ALL
            .iter()
            .map(|scenario| {
                let finding = scenario.run(self.scale.tables);
                bar.inc(1);
                finding
            })
            .collect::<Result<Vec<_>>>()?;
        bar.finish();
        let path = self.folder.join("scenarios.json");
        let Effort { rounds, replications, seed } = self.scale.tables;
        let text = serde_json::to_string_pretty(&json!({
            "rounds": rounds,
            "replications": replications,
            "seed": seed,
            "findings": findings,
        }))
        .map_err(|e| Error::File { path: path.clone(), problem: e.to_string() })?;
        std::fs::write(&path, text + "\n").map_err(Error::io(&path))?;
        Ok(findings)
    }

    /// What attacks earn at 30 % and 45 %, one line each, so that two runs can be compared line by line.
    fn attacks_json(&self, rows: &[(Spread, Attack, f64, usize)], summaries: &[Summary]) -> Result<()> {
        let path = self.folder.join("attacks.json");
        let failed = |e: serde_json::Error| Error::File { path: path.clone(), problem: e.to_string() };
        let rounded = |e: Option<Estimate>| {
            let figure = |x: f64| short(x).parse::<f64>().ok();
            e.map(|e| json!([figure(e.mean), figure(e.low), figure(e.high)]))
        };
        let mut lines = Vec::new();
        for ((spread, attack, ratio, rules), of) in rows.iter().zip(summaries) {
            if *ratio != 0.3 && *ratio != 0.45 {
                continue;
            }
            let corrupts = match attack.corrupts() {
                Corrupts::Evaluators => "evaluators",
                Corrupts::Inference => "inference",
                Corrupts::Both => "both",
            };
            let line = json!({
                "attack": attack.to_string(),
                "corrupts": corrupts,
                "world": spread.name(),
                "ratio": ratio,
                "rules": RULE_SETS[*rules].name,
                "profit_ratio": rounded(of.get(Metric::ProfitRatio)),
                "absolute_error": rounded(of.get(Metric::AbsoluteError)),
                "seat_share": rounded(of.get(Metric::SeatShare)),
                "settled_share": rounded(of.get(Metric::SettledShare)),
            });
            lines.push(serde_json::to_string(&line).map_err(failed)?);
        }
        let Effort { rounds, replications, seed } = self.scale.tables;
        let setting = Setting::default();
        let how = json!({
            "rounds": rounds,
            "replications": replications,
            "seed": seed,
            "outputs": setting.outputs,
            "panel": setting.panel,
            "fee": setting.fee.to_string(),
            "crowd": Crowd::default(),
            "intervals": "mean, and where the 95 % interval starts and ends",
            "profit_ratio": "profit of attackers relative to honest nodes of the same role and stake in the same network",
            "absolute_error": "mean distance of the consensus from the true quality",
        });
        let how = serde_json::to_string_pretty(&how).map_err(failed)?;
        let text = format!("{{\n\"how\": {how},\n\"attacks\": [\n{}\n]\n}}\n", lines.join(",\n"));
        std::fs::write(&path, text).map_err(Error::io(&path))
    }

    /// Every attack under five sets of rules.
    fn attacks(&self) -> Result<()> {
        let mut cells = Vec::new();
        let mut jobs = Vec::new();
        for (spread, world) in Spread::ALL.into_iter().zip(&self.worlds) {
            for attack in Attack::ALL {
                for ratio in &self.scale.ratios {
                    for (index, rules) in RULE_SETS.iter().enumerate() {
                        cells.push((spread, attack, *ratio, index));
                        jobs.push(Job {
                            world,
                            setting: rules.setting(),
                            crowd: Crowd::default().attacked(attack, *ratio),
                        });
                    }
                }
            }
        }
        let summaries = self.run("attacks", &jobs)?;
        self.attacks_json(&cells, &summaries)?;
        let rows: Vec<Row> = cells
            .iter()
            .zip(&summaries)
            .map(|((spread, attack, ratio, index), summary)| {
                let rules = &RULE_SETS[*index];
                Row {
                    cell: Cell {
                        spread: *spread,
                        attack: *attack,
                        ratio: *ratio,
                        panel: Setting::default().panel,
                        aggregation: rules.aggregation,
                        merit: rules.merit,
                        regime: rules.regime,
                    },
                    summary: summary.clone(),
                }
            })
            .collect();
        write_csv(
            &self.folder.join("attacks.csv"),
            &rows,
            &[Metric::ProfitRatio, Metric::AbsoluteError],
            &[
                Metric::PayRatio,
                Metric::Bias,
                Metric::Pearson,
                Metric::SeatShare,
                Metric::AttackerSlashed,
                Metric::HonestTrust,
                Metric::AttackerTrust,
                Metric::SettledShare,
                Metric::RankTrueNet,
            ],
        )?;

        let lines = |spread: Spread, attack: Attack, metric: Metric| -> Vec<Line> {
            RULE_SETS
                .iter()
                .enumerate()
                .map(|(index, rules)| Line {
                    name: rules.name.into(),
                    points: cells
                        .iter()
                        .zip(&summaries)
                        .filter(|(cell, _)| cell.0 == spread && cell.1 == attack && cell.3 == index)
                        .filter_map(|(cell, summary)| {
                            let (mean, low, high) = interval(summary, metric)?;
                            Some((cell.2, mean, low, high))
                        })
                        .collect(),
                    faint: false,
                })
                .collect()
        };
        for spread in Spread::ALL {
            let quality = match spread {
                Spread::Wide => "quality Beta(4, 2)",
                Spread::Narrow => "quality Beta(18, 2)",
            };
            Multiples {
                title: &format!("What attackers earn relative to honest nodes of the same stake, {quality}"),
                axes: "profit ratio over the share of attackers; dashed: 1 (as much) and 0.5; above 3 drawn at 3",
                panels: Attack::ALL
                    .iter()
                    .map(|attack| Panel {
                        title: attack.to_string(),
                        lines: lines(spread, *attack, Metric::ProfitRatio),
                        range: (-0.5, 3.0),
                        guides: &[0.5, 1.0],
                    })
                    .collect(),
                columns: 5,
            }
            .draw(&self.folder.join(format!("attacks-profit-{}.svg", spread.name())))?;
            Multiples {
                title: &format!("How far the consensus is from the truth, {quality}"),
                axes:
                    "mean absolute error over the share of attackers; dashed: 0.05; above 0.25 drawn at 0.25",
                panels: Attack::ALL
                    .iter()
                    .filter(|attack| attack.corrupts() != Corrupts::Inference)
                    .map(|attack| Panel {
                        title: attack.to_string(),
                        lines: lines(spread, *attack, Metric::AbsoluteError),
                        range: (0.0, 0.25),
                        guides: &[0.05],
                    })
                    .collect(),
                columns: 5,
            }
            .draw(&self.folder.join(format!("attacks-error-{}.svg", spread.name())))?;
        }
        Ok(())
    }

    /// The attacks that have a strength, at several of them, 30 % of attackers, under the recommended rules.
    fn strength(&self) -> Result<()> {
        let ladders: [(&str, &[Attack]); 8] = [
            ("noise", &[0.1, 0.2, 0.3, 0.5].map(Attack::Noise)),
            ("boosting", &[0.05, 0.1, 0.2, 0.4, 0.8].map(Attack::Boosting)),
            ("sabotage", &[0.05, 0.1, 0.2, 0.4, 0.8].map(Attack::Sabotage)),
            ("intermittent", &[0.05, 0.1, 0.2, 0.3, 0.5, 0.8].map(Attack::Intermittent)),
            ("shared-signal", &[0.5, 1.0, 2.0, 4.0].map(Attack::SharedSignal)),
            ("boost-own", &[0.05, 0.1, 0.2, 0.4, 0.8].map(Attack::BoostOwn)),
            ("panel-majority", &[0.05, 0.1, 0.2, 0.4, 0.8].map(Attack::PanelMajority)),
            ("sybil-split", &[1.0, 2.0, 4.0, 8.0].map(Attack::SybilSplit)),
        ];
        let rules = [("without gold tasks", UNAUDITED), ("10 % gold", RECOMMENDED)];
        let mut keys = Vec::new();
        let mut jobs = Vec::new();
        for (spread, world) in Spread::ALL.into_iter().zip(&self.worlds) {
            for (name, ladder) in ladders {
                for attack in ladder {
                    for (label, rules) in &rules {
                        keys.push((spread, name, *attack, *label));
                        let crowd = Crowd::default().attacked(*attack, 0.3);
                        jobs.push(Job { world, setting: rules.setting(), crowd });
                    }
                }
            }
        }
        let summaries = self.run("strengths", &jobs)?;
        let metrics = [Metric::ProfitRatio, Metric::AbsoluteError, Metric::Bias, Metric::AttackerTrust];
        let mut header = names(&["spread", "attack", "strength", "rules"]);
        for metric in metrics {
            header.extend(["", "_low", "_high"].map(|end| format!("{}{end}", metric.name())));
        }
        let rows: Vec<Vec<String>> = keys
            .iter()
            .zip(&summaries)
            .map(|((spread, name, attack, label), summary)| {
                let mut row = names(&[spread.name(), name]);
                row.push(attack.strength_of().map_or(String::new(), short));
                row.push((*label).to_string());
                row.extend(metrics.iter().flat_map(|metric| columns(summary.get(*metric))));
                row
            })
            .collect();
        write_table(&self.folder.join("strength.csv"), &header, &rows)?;
        let mut panels = Vec::new();
        for (metric, range) in [(Metric::ProfitRatio, (-0.2, 3.0)), (Metric::AbsoluteError, (0.0, 0.15))] {
            for (name, _) in ladders {
                let mut lines = Vec::new();
                for spread in Spread::ALL {
                    for (label, _) in &rules {
                        let points = keys
                            .iter()
                            .zip(&summaries)
                            .filter(|(key, _)| key.0 == spread && key.1 == name && key.3 == *label)
                            .filter_map(|(key, summary)| {
                                let (mean, low, high) = interval(summary, metric)?;
                                Some((key.2.strength_of()?, mean, low, high))
                            })
                            .collect();
                        let name = format!("{label}, {}", spread.name());
                        lines.push(Line { name, points, faint: false });
                    }
                }
                let profit = metric == Metric::ProfitRatio;
                panels.push(Panel {
                    title: format!("{name}: {}", if profit { "profit" } else { "error" }),
                    lines,
                    range,
                    guides: if profit { &[0.5, 1.0] } else { &[0.05] },
                });
            }
        }
        Multiples {
            title: "Attacks at other strengths, 30 % attackers",
            axes: "profit ratio (dashed: 1 and 0.5; above 3 drawn at 3) and error of the consensus (dashed: 0.05) over strength",
            panels,
            columns: 4,
        }
        .draw(&self.folder.join("strength.svg"))
    }

    /// What attackers gain over behaving honestly: the same nodes in the same network with the same random numbers, once
    /// attacking and once not.
    fn deviation(&self) -> Result<()> {
        let ratio = 0.3;
        let mut header = names(&["spread", "attack", "rules"]);
        header.extend(names(&[
            "gain_per_duty",
            "gain_low",
            "gain_high",
            "break_even_at_risk",
            "honest_loss",
        ]));
        let mut rows = Vec::new();
        let bar = self.bar("deviations", Spread::ALL.len() * Attack::ALL.len() * RULE_SETS.len());
        for (spread, world) in Spread::ALL.into_iter().zip(&self.worlds) {
            for rules in &RULE_SETS {
                let job = |crowd: Crowd| Job { world, setting: rules.setting(), crowd };
                let honest = job(Crowd::default()).outcomes(self.scale.tables)?;
                for attack in Attack::ALL {
                    bar.inc(1);
                    let crowd = Crowd::default().attacked(attack, ratio);
                    let attacked = job(crowd).outcomes(self.scale.tables)?;
                    rows.push(deviation_row(spread, attack, rules, &honest, &attacked));
                }
            }
        }
        bar.finish();
        write_table(&self.folder.join("deviation.csv"), &header, &rows)
    }

    /// What K does to pay, its risk, the error, and to attackers.
    fn panel(&self) -> Result<()> {
        let panels = self.scale.panels;
        let mut jobs = Vec::new();
        let mut keys = Vec::new();
        for (spread, world) in Spread::ALL.into_iter().zip(&self.worlds) {
            for rules in &RULE_SETS {
                for panel in panels {
                    for crowd in [Crowd::default(), Crowd::default().attacked(Attack::Boosting(0.4), 0.3)] {
                        keys.push((spread, rules.name, *panel, crowd.attack.is_some()));
                        jobs.push(Job {
                            world,
                            setting: Setting { panel: *panel, ..rules.setting() },
                            crowd,
                        });
                    }
                }
            }
        }
        let summaries = self.run("panel sizes", &jobs)?;
        let metrics = [
            Metric::EvaluatorPay,
            Metric::EvaluatorPayVariance,
            Metric::EvaluatorNet,
            Metric::EvaluatorNetVariance,
            Metric::InferencePay,
            Metric::InferencePayVariance,
            Metric::AbsoluteError,
            Metric::Bias,
            Metric::ProfitRatio,
        ];
        let mut header = names(&["spread", "rules", "panel", "boosted"]);
        for metric in metrics {
            header.extend(["", "_low", "_high"].map(|end| format!("{}{end}", metric.name())));
        }
        let table: Vec<Vec<String>> = keys
            .iter()
            .zip(&summaries)
            .map(|((spread, rules, panel, boosted), summary)| {
                let mut row = vec![
                    spread.name().to_string(),
                    (*rules).to_string(),
                    panel.to_string(),
                    boosted.to_string(),
                ];
                row.extend(metrics.iter().flat_map(|metric| columns(summary.get(*metric))));
                row
            })
            .collect();
        write_table(&self.folder.join("panel.csv"), &header, &table)?;

        let lines = |boosted: bool, of: &dyn Fn(&Summary) -> Option<Interval>| -> Vec<Line> {
            RULE_SETS
                .iter()
                .map(|rules| Line {
                    name: rules.name.into(),
                    points: keys
                        .iter()
                        .zip(&summaries)
                        .filter(|(key, _)| key.0 == Spread::Wide && key.1 == rules.name && key.3 == boosted)
                        .filter_map(|(key, summary)| {
                            let (mean, low, high) = of(summary)?;
                            Some((f64::from(key.2), mean, low, high))
                        })
                        .collect(),
                    faint: false,
                })
                .collect()
        };
        let metric = |metric: Metric| move |summary: &Summary| interval(summary, metric);
        let variation = |summary: &Summary| {
            let x = summary.mean(Metric::EvaluatorPayVariance).sqrt() / summary.mean(Metric::EvaluatorPay);
            Some((x, x, x))
        };
        let panel = |title: &str, lines: Vec<Line>, high: f64| Panel {
            title: title.into(),
            lines,
            range: (0.0, high),
            guides: &[],
        };
        Multiples {
            title: "What the size of the panel does, quality Beta(4, 2)",
            axes: "over K; the last two with 30 % boosting",
            panels: vec![
                panel("evaluator: pay per task, UNIT", lines(false, &metric(Metric::EvaluatorPay)), 1.3),
                panel("evaluator: sd of pay / pay", lines(false, &variation), 1.2),
                panel("inference node: pay, UNIT", lines(false, &metric(Metric::InferencePay)), 2.2),
                panel("error of the consensus", lines(false, &metric(Metric::AbsoluteError)), 0.1),
                panel("error, 30 % boosting", lines(true, &metric(Metric::AbsoluteError)), 0.2),
                panel("profit ratio, 30 % boosting", lines(true, &metric(Metric::ProfitRatio)), 1.2),
            ],
            columns: 3,
        }
        .draw(&self.folder.join("panel.svg"))
    }

    /// Trust over time.
    fn trust(&self) -> Result<()> {
        let attacks = [
            Attack::Noise(0.3),
            Attack::Boosting(0.4),
            Attack::Constant(0.0),
            Attack::SharedSignal(1.0),
            Attack::Intermittent(0.3),
            Attack::FreeRide,
            Attack::Exaggerate(0.08),
            Attack::BoostOwn(0.4),
        ];
        let rules: Vec<&RuleSet> = RULE_SETS.iter().collect();
        let mut keys = Vec::new();
        let mut jobs = Vec::new();
        let world = &self.worlds[0];
        for attack in attacks {
            for rules in &rules {
                keys.push((attack, rules.name));
                let crowd = Crowd::default().attacked(attack, 0.3);
                jobs.push(Job { world, setting: rules.setting(), crowd });
            }
        }
        let bar = self.bar("trust over time", jobs.len());
        let traces = run_all(&jobs, self.scale.tables, |_, outcomes| trace(&outcomes), || bar.inc(1))?;
        bar.finish();
        let header = names(&["attack", "rules", "round", "honest", "malicious", "capped"]);
        let rows: Vec<Vec<String>> = keys
            .iter()
            .zip(&traces)
            .flat_map(|((attack, rules), trace)| {
                trace.iter().map(move |(round, honest, malicious, capped)| {
                    let mut row = vec![attack.to_string(), (*rules).to_string()];
                    row.extend([*round, *honest, *malicious, *capped].map(short));
                    row
                })
            })
            .collect();
        write_table(&self.folder.join("trust.csv"), &header, &rows)?;
        let panels = attacks
            .iter()
            .map(|attack| {
                let mut lines = Vec::new();
                for ((_, rules), trace) in keys.iter().zip(&traces).filter(|(key, _)| key.0 == *attack) {
                    let line = |faint: bool, of: fn(&TracePoint) -> f64| Line {
                        name: (*rules).into(),
                        points: trace.iter().map(|p| (p.0, of(p), of(p), of(p))).collect(),
                        faint,
                    };
                    lines.push(line(false, |p| p.1));
                    lines.push(line(true, |p| p.2));
                }
                Panel { title: attack.to_string(), lines, range: (0.0, 1.02), guides: &[] }
            })
            .collect();
        Multiples {
            title: "Trust over time, 30 % attackers, quality Beta(4, 2)",
            axes: "mean trust over rounds; thick: honest evaluators, thin: attackers",
            panels,
            columns: 4,
        }
        .draw(&self.folder.join("trust.svg"))
    }

    /// Rewards by node, beside what the truth would have earned.
    fn rewards(&self) -> Result<()> {
        let crowd =
            Crowd { inference: 12, evaluators: 24, ..Crowd::default() }.attacked(Attack::Boosting(0.4), 0.25);
        let paper = World::parametric(papers::cost_aware())?;
        let paper_crowd = Crowd { inference: 5, evaluators: 9, ..Crowd::default() };
        let mut paper_setting = RULE_SETS[0].setting();
        (paper_setting.outputs, paper_setting.panel) = (1, 3);
        let settings = [
            ("standard", &self.worlds[0], RECOMMENDED.setting(), crowd),
            ("arXiv 2512.16317", &paper, paper_setting, paper_crowd),
        ];
        let header = names(&[
            "world",
            "role",
            "node",
            "model",
            "malicious",
            "net",
            "net_low",
            "net_high",
            "true_net",
            "paid",
            "trust",
        ]);
        let mut rows = Vec::new();
        for (name, world, setting, crowd) in settings {
            let outcomes = Job { world, setting, crowd }.outcomes(self.scale.tables)?;
            let Some(first) = outcomes.first() else { continue };
            let mut plot = Vec::new();
            for (index, node) in first.nodes.iter().enumerate() {
                let over = |of: &dyn Fn(&Outcome) -> Option<f64>| estimate(outcomes.iter().filter_map(of));
                let net = over(&|o| o.nodes[index].net);
                let truth = over(&|o| o.nodes[index].true_net);
                let paid = over(&|o| Some(o.nodes[index].paid));
                let trust = over(&|o| Some(o.nodes[index].trust));
                let (role, model) = match node.role {
                    Role::Inference => ("inference", world.models()[node.model]),
                    Role::Evaluator => ("evaluator", world.evaluators()[node.model]),
                };
                let mut row = names(&[name, role, &index.to_string(), model, &node.malicious.to_string()]);
                row.extend(columns(net));
                row.extend([truth, paid, trust].map(|e| columns(e)[0].clone()));
                rows.push(row);
                if let Some(net) = net {
                    plot.push(Bar {
                        name: format!("{model} ({index})"),
                        value: (net.mean, net.low, net.high),
                        mark: truth.map(|t| t.mean),
                        group: match (node.role, node.malicious) {
                            (Role::Inference, _) => 0,
                            (Role::Evaluator, false) => 2,
                            (Role::Evaluator, true) => 1,
                        },
                    });
                }
            }
            plot.sort_by(|a, b| b.value.0.total_cmp(&a.value.0));
            let file = if name == "standard" { "rewards.svg" } else { "rewards-papers.svg" };
            let title = if name == "standard" {
                "Mean reward R by node, a quarter of the evaluators boosting"
            } else {
                "Mean reward R by node, the world of arXiv 2512.16317"
            };
            bars(
                &self.folder.join(file),
                title,
                "R = α·quality − β·cost; black mark: what the true quality would have earned",
                &plot,
                &["inference node", "boosting evaluator", "honest evaluator"],
            )?;
        }
        write_table(&self.folder.join("rewards.csv"), &header, &rows)
    }

    /// How many gold tasks are enough, how noisy a truth may be, and how many abusive auditors are too many.
    fn gold(&self) -> Result<()> {
        let attacks = [
            Attack::SharedSignal(1.0),
            Attack::BoostOwn(0.4),
            Attack::PanelMajority(0.4),
            Attack::Boosting(0.4),
            Attack::FreeRide,
        ];
        let shares = [0.0, 0.02, 0.05, 0.1, 0.2, 0.4];
        let noises = [0.0, 0.1, 0.2, 0.3];
        let abuses = [0.0, 0.02, 0.05, 0.1, 0.2, 0.3];
        let axes: [(&str, Vec<Gold>); 3] = [
            ("share", shares.map(|share| Gold { share, noise: GOLD_NOISE, abused: 0.0 }).into()),
            ("noise", noises.map(|noise| Gold { share: 0.1, noise, abused: 0.0 }).into()),
            ("abused", abuses.map(|abused| Gold { share: 0.1, noise: GOLD_NOISE, abused }).into()),
        ];
        let mut keys = Vec::new();
        let mut jobs = Vec::new();
        for (spread, world) in Spread::ALL.into_iter().zip(&self.worlds) {
            for attack in attacks {
                for ratio in [0.3, 0.45] {
                    for (axis, golds) in &axes {
                        for gold in golds {
                            let mut setting = RECOMMENDED.setting();
                            setting.gold = *gold;
                            keys.push((spread, attack, ratio, *axis, *gold));
                            jobs.push(Job {
                                world,
                                setting,
                                crowd: Crowd::default().attacked(attack, ratio),
                            });
                        }
                    }
                }
            }
        }
        let summaries = self.run("gold tasks", &jobs)?;
        let mut header = names(&["spread", "attack", "ratio", "axis", "share", "noise", "abused"]);
        let metrics = [
            Metric::ProfitRatio,
            Metric::AbsoluteError,
            Metric::EvaluatorPay,
            Metric::HonestTrust,
            Metric::AttackerTrust,
        ];
        for metric in metrics {
            header.extend(["", "_low", "_high"].map(|end| format!("{}{end}", metric.name())));
        }
        let rows: Vec<Vec<String>> = keys
            .iter()
            .zip(&summaries)
            .map(|((spread, attack, ratio, axis, gold), summary)| {
                let mut row = names(&[spread.name(), &attack.to_string(), &short(*ratio), axis]);
                row.extend([gold.share, gold.noise, gold.abused].map(short));
                row.extend(metrics.iter().flat_map(|metric| columns(summary.get(*metric))));
                row
            })
            .collect();
        write_table(&self.folder.join("gold.csv"), &header, &rows)?;
        let mut panels = Vec::new();
        for (metric, range) in [(Metric::ProfitRatio, (-0.2, 3.0)), (Metric::AbsoluteError, (0.0, 0.25))] {
            for (axis, words) in [
                ("share", "share of gold tasks"),
                ("noise", "noise of the truth"),
                ("abused", "share of gold abused"),
            ] {
                for spread in Spread::ALL {
                    let lines = attacks
                        .iter()
                        .map(|attack| Line {
                            name: format!("{attack} at 45 %"),
                            points: keys
                                .iter()
                                .zip(&summaries)
                                .filter(|(k, _)| k.0 == spread && k.1 == *attack && k.2 > 0.4 && k.3 == axis)
                                .filter_map(|(k, summary)| {
                                    let x = match axis {
                                        "share" => k.4.share,
                                        "noise" => k.4.noise,
                                        _ => k.4.abused,
                                    };
                                    let (mean, low, high) = interval(summary, metric)?;
                                    Some((x, mean, low, high))
                                })
                                .collect(),
                            faint: false,
                        })
                        .collect();
                    let what = if metric == Metric::ProfitRatio { "profit" } else { "error" };
                    panels.push(Panel {
                        title: format!("{what} / {words} ({})", spread.name()),
                        lines,
                        range,
                        guides: if metric == Metric::ProfitRatio { &[0.5, 1.0] } else { &[0.05] },
                    });
                }
            }
        }
        Multiples {
            title: "Gold tasks: how many, how exact, and how many abusive auditors",
            axes: "profit ratio of attackers (dashed: 1 and 0.5) and error of the consensus (dashed: 0.05)",
            panels,
            columns: 6,
        }
        .draw(&self.folder.join("gold.svg"))
    }

    /// What each failure costs whom, with the shipped parameters.
    fn failures(&self) -> Result<()> {
        failures::write(&self.folder.join("failures.csv"), &failures::shapes(&KindParams::default())?)
    }

    /// Who can steer a panel, under the recommended rules.
    fn steering(&self) -> Result<()> {
        let setting = RECOMMENDED.setting();
        let ratios = [0.1, 0.2, 0.3];
        let bar = self.bar("steering", ratios.len() * Steerer::ALL.len());
        let mut header = names(&["by", "tries", "weight_share"]);
        header.extend(names(&["seat_share", "seat_share_low", "seat_share_high"]));
        header.extend(names(&["majority", "majority_low", "majority_high", "panels_changed"]));
        let mut rows = Vec::new();
        for by in Steerer::ALL {
            for ratio in ratios {
                let of = steer(&self.worlds[0], &setting, by, ratio, self.scale.tables)?;
                let mut row = names(&[by.name(), &by.tries().to_string(), &short(of.weight)]);
                row.extend(columns(Some(of.seats)));
                row.extend(columns(Some(of.majority)));
                row.push(of.changed.to_string());
                rows.push(row);
                bar.inc(1);
            }
        }
        bar.finish();
        write_table(&self.folder.join("steering.csv"), &header, &rows)
    }

    /// What raids on a staking pool gain, in UNIT.
    fn raids(&self) -> Result<()> {
        let header = names(&["raid", "gain", "due", "because", "others_gain", "others_gain_without"]);
        // Plancks that rounding leaves are nobody's gain.
        let figure = |units: f64| short((units * 1e6).round() / 1e6 + 0.0);
        let rows: Vec<Vec<String>> = raids::all()?
            .into_iter()
            .map(|of| {
                let mut row = names(&[of.raid, &figure(of.gain), &figure(of.due), of.because]);
                row.extend([of.others, of.others_without].map(figure));
                row
            })
            .collect();
        write_table(&self.folder.join("raids.csv"), &header, &rows)
    }

    fn sweep(&self) -> Result<()> {
        let scale = &self.scale;
        let grid = Grid {
            spreads: Spread::ALL.into(),
            attacks: Attack::ALL.into_iter().filter(|a| a.corrupts() != Corrupts::Inference).collect(),
            ratios: scale.sweep_ratios.into(),
            panels: scale.sweep_panels.into(),
            aggregations: AGGREGATIONS.map(|(_, rule)| rule).into(),
            merits: MERITS.map(|(_, rule)| rule).into(),
            // Trust moves in gold tasks only: every rule with one in ten, and none at all, where all rules are the same.
            regimes: TRUSTS
                .iter()
                .map(|(_, trust)| Regime::of(*trust, 0.1))
                .chain([UNAUDITED.regime])
                .collect(),
        };
        let bar = self.bar("sweep", grid.cells().len());
        let rows = grid.run(&Setting::default(), Crowd::default(), scale.sweep, || bar.inc(1))?;
        bar.finish();
        write_csv(
            &self.folder.join("sweep.csv"),
            &rows,
            &[],
            &[Metric::PayRatio, Metric::ProfitRatio, Metric::AbsoluteError, Metric::Bias, Metric::Pearson],
        )?;
        let header = names(&[
            "panel",
            "aggregation",
            "merit",
            "trust",
            "gold",
            "combinations",
            "profitable",
            "worst_profit",
            "worst_profit_by",
            "worst_error",
            "worst_error_by",
            "mean_error",
        ]);
        let table: Vec<Vec<String>> = verdicts(&rows, 0.3)
            .into_iter()
            .map(|v| {
                vec![
                    v.panel.to_string(),
                    v.aggregation.into(),
                    v.merit.into(),
                    v.trust.into(),
                    short(v.gold),
                    v.combinations.to_string(),
                    v.profitable.to_string(),
                    short(v.worst_profit),
                    v.worst_profit_by,
                    short(v.worst_error),
                    v.worst_error_by,
                    short(v.mean_error),
                ]
            })
            .collect();
        write_table(&self.folder.join("rules.csv"), &header, &table)
    }
}

type TracePoint = (f64, f64, f64, f64);

/// Trust over time, averaged over the replications: round, honest, malicious, share at the cap.
fn trace(outcomes: &[Outcome]) -> Vec<TracePoint> {
    let count = outcomes.len().max(1) as f64;
    let points = outcomes.iter().map(|o| o.trust.len()).min().unwrap_or(0);
    (0..points)
        .map(|index| {
            let mean = |of: fn(&crate::measure::TrustPoint) -> f64| {
                outcomes.iter().map(|o| of(&o.trust[index])).sum::<f64>() / count
            };
            (mean(|p| p.round as f64), mean(|p| p.honest), mean(|p| p.malicious), mean(|p| p.capped))
        })
        .collect()
}

/// What attackers gained over the honest baseline, per honest duty, in UNIT; and what the honest nodes lost by the attack.
fn deviation_row(
    spread: Spread,
    attack: Attack,
    rules: &RuleSet,
    honest: &[Outcome],
    attacked: &[Outcome],
) -> Vec<String> {
    let roles: &[Role] = match attack.corrupts() {
        Corrupts::Evaluators => &[Role::Evaluator],
        Corrupts::Inference => &[Role::Inference],
        Corrupts::Both => &[Role::Inference, Role::Evaluator],
    };
    // An attacker that splits its stake is as many nodes, so totals per role and share of the stake are compared.
    let total =
        |outcome: &Outcome, malicious: bool| -> f64 {
            roles
                .iter()
                .map(|role| {
                    if malicious {
                        outcome.malicious(*role).profit()
                    } else {
                        outcome.honest(*role).profit()
                    }
                })
                .sum()
        };
    let share = |outcome: &Outcome, role: Role| {
        let (good, bad) = (outcome.honest(role).stake, outcome.malicious(role).stake);
        bad / (good + bad)
    };
    let pairs = || honest.iter().zip(attacked);
    let baseline = |base: &Outcome, run: &Outcome, malicious: bool| -> f64 {
        roles
            .iter()
            .map(|role| {
                let share = share(run, *role);
                base.honest(*role).profit() * if malicious { share } else { 1.0 - share }
            })
            .sum()
    };
    let duties = |base: &Outcome, run: &Outcome| -> f64 {
        roles.iter().map(|role| base.honest(*role).duties as f64 * share(run, *role)).sum()
    };
    let gain = estimate(
        pairs()
            .map(|(base, run)| (total(run, true) - baseline(base, run, true)) / duties(base, run).max(1.0)),
    );
    let loss =
        estimate(pairs().map(|(base, run)| 1.0 - total(run, false) / baseline(base, run, false).max(1e-9)));
    let mut row = vec![spread.name().to_string(), attack.to_string(), rules.name.to_string()];
    row.extend(columns(gain));
    row.push(Summary::of(attacked).break_even.map_or(String::new(), |b| b.to_string()));
    row.push(loss.map_or(String::new(), |e| short(e.mean)));
    row
}
