//! Evaluators beside ONNX Runtime and sentence-transformers.

use crate::{median, peer::Peer, ratio, Common};
use poq_inference::{
    data_dir, encode::cosine, load_cross_encoder, load_encoder, load_qa, CrossEncoder, DeviceSpec, Encoder,
    Error, ModelStore, QaItem, Role,
};
use serde::Deserialize;
use serde_json::{json, Value};
use std::time::Instant;

/// `poq-bench-models score`.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Questions of the data set; each is two texts for a bi-encoder (itself and its paragraph), one pair for a cross-encoder.
    #[arg(long, default_value_t = 100, value_name = "N")]
    questions: usize,
}

/// The other sides, as their program calls them and as the report does.
const BACKENDS: [(&str, &str); 2] =
    [("onnxruntime", "onnxruntime"), ("sentence-transformers", "sentence_transformers")];

/// Inputs that are also asked one at a time.
const SINGLES: usize = 20;

enum Model {
    Bi(Box<dyn Encoder>),
    Cross(Box<dyn CrossEncoder>),
}

impl Model {
    fn load(store: &ModelStore, name: &str, device: Option<DeviceSpec>) -> Result<Self, Error> {
        let options = store.options_on(name, device);
        Ok(match store.manifest().get(name)?.role {
            Role::CrossEncoder => Self::Cross(load_cross_encoder(store, name, &options)?),
            _ => Self::Bi(load_encoder(store, name, &options)?),
        })
    }

    fn inputs(&self, items: &[QaItem]) -> Inputs {
        match self {
            Self::Bi(_) => {
                Inputs::Texts(items.iter().flat_map(|i| [i.question.clone(), i.context.clone()]).collect())
            }
            Self::Cross(_) => {
                Inputs::Pairs(items.iter().map(|i| (i.question.clone(), i.context.clone())).collect())
            }
        }
    }

    /// One row per input: its vector, or its logit.
    fn run(&mut self, inputs: &Inputs) -> Result<Vec<Vec<f32>>, Error> {
        match (self, inputs) {
            (Self::Bi(model), Inputs::Texts(texts)) => {
                model.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>())
            }
            (Self::Cross(model), Inputs::Pairs(pairs)) => {
                let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
                Ok(model.score(&pairs)?.into_iter().map(|logit| vec![logit]).collect())
            }
            _ => Err(Error::InvalidRequest("these inputs are for the other kind of encoder".to_string())),
        }
    }
}

enum Inputs {
    Texts(Vec<String>),
    Pairs(Vec<(String, String)>),
}

impl Inputs {
    fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Pairs(pairs) => pairs.len(),
        }
    }

    fn json(&self, limit: usize) -> Value {
        match self {
            Self::Texts(texts) => json!(texts[..limit.min(texts.len())]),
            Self::Pairs(pairs) => json!(pairs[..limit.min(pairs.len())]),
        }
    }

    fn singles(&self) -> Vec<Inputs> {
        match self {
            Self::Texts(texts) => texts.iter().take(SINGLES).map(|t| Self::Texts(vec![t.clone()])).collect(),
            Self::Pairs(pairs) => pairs.iter().take(SINGLES).map(|p| Self::Pairs(vec![p.clone()])).collect(),
        }
    }
}

#[derive(Deserialize)]
struct PeerRun {
    seconds: f64,
    /// One row per text, or one number per pair.
    outputs: Value,
}

#[derive(Deserialize)]
struct PeerSingles {
    seconds: Vec<f64>,
}

/// What one side measured.
#[derive(Default)]
struct Side {
    /// Inputs per second, by round.
    rate: Vec<f64>,
    /// Milliseconds of one input asked alone, by round: the median over inputs.
    latency: Vec<f64>,
    /// How far outputs are from ours: the least cosine of vectors, or the largest difference of logits.
    agreement: f64,
}

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let common = &options.common;
    let store = common.store()?;
    let names = match common.names.as_slice() {
        [] => {
            let encoders = store.manifest().models().iter().filter(|m| m.role != Role::Generator);
            encoders.map(|m| m.name.clone()).filter(|n| store.is_installed(n)).collect()
        }
        names => names.to_vec(),
    };
    if names.is_empty() {
        return Err(Error::Install(format!(
            "no evaluator is installed in {}: run {}",
            store.dir().display(),
            poq_inference::INSTALL_SCRIPT
        )));
    }
    let mut items = load_qa(&data_dir(store.dir()).join("qa.jsonl"))?;
    items.truncate(options.questions.max(1));
    let mut evaluators = Vec::new();
    for name in &names {
        evaluators.push(measure(common, &store, name, &items)?);
    }
    common.write(&json!({
        "threads": common.threads(), "rounds": common.rounds, "questions": items.len(), "evaluators": evaluators,
    }))
}

fn measure(common: &Common, store: &ModelStore, name: &str, items: &[QaItem]) -> Result<Value, Error> {
    let entry = store.manifest().get(name)?;
    if entry.role == Role::Generator {
        return Err(Error::InvalidRequest(format!("{name} is no evaluator")));
    }
    let mut model = Model::load(store, name, common.device)?;
    let inputs = model.inputs(items);
    let singles = inputs.singles();

    let mut peer = common.start_peer()?;
    let mut about = Value::Null;
    if let Some(peer) = &mut peer {
        about = peer.ask(&json!({
            "do": "load",
            "folder": store.model_dir(name),
            "role": entry.role.as_str(),
            "pooling": entry.pooling.as_str(),
            "max_tokens": entry.context_tokens,
            "threads": common.threads(),
        }))?;
    }
    let mut ours = Side::default();
    let mut theirs = BACKENDS.map(|_| Side::default());
    // Round 0 warms all sides up, and compares what they give.
    for round in 0..=common.rounds {
        let sides = if peer.is_some() { 1 + BACKENDS.len() } else { 1 };
        let mut outputs = Vec::new();
        for turn in 0..sides {
            // Nobody always comes first.
            match (turn + round as usize) % sides {
                0 => {
                    let started = Instant::now();
                    let rows = model.run(&inputs)?;
                    let seconds = started.elapsed().as_secs_f64();
                    let mut alone = Vec::new();
                    for single in &singles {
                        let started = Instant::now();
                        model.run(single)?;
                        alone.push(started.elapsed().as_secs_f64() * 1e3);
                    }
                    if round == 0 {
                        outputs = rows;
                    } else {
                        ours.rate.push(inputs.len() as f64 / seconds);
                        ours.latency.push(median(&alone));
                    }
                }
                other => {
                    let Some(peer) = &mut peer else { continue };
                    let side = &mut theirs[other - 1];
                    turn_of_peer(
                        peer,
                        BACKENDS[other - 1].0,
                        side,
                        &inputs,
                        (round == 0).then_some(&outputs),
                    )?;
                }
            }
        }
    }

    let what = if entry.role == Role::CrossEncoder { "pairs" } else { "texts" };
    println!("{name}: {:.1} {what}/s, one alone {:.2} ms", median(&ours.rate), median(&ours.latency));
    let mut report = json!({
        "model": name,
        "texts_per_s": median(&ours.rate),
        "latency_ms": median(&ours.latency),
    });
    if peer.is_some() {
        for ((_, key), side) in BACKENDS.iter().zip(&theirs) {
            let (rate, latency) = (ratio(&ours.rate, &side.rate), ratio(&side.latency, &ours.latency));
            println!(
                "  {key}: {:.1} {what}/s (ours is {rate:.2} times as fast), one alone {:.2} ms ({latency:.2}); {} {:.6}",
                median(&side.rate),
                median(&side.latency),
                if entry.role == Role::CrossEncoder { "largest difference of logits" } else { "least cosine with ours" },
                side.agreement,
            );
            report[format!("{key}_texts_per_s")] = json!(median(&side.rate));
            report[format!("{key}_latency_ms")] = json!(median(&side.latency));
            report[format!("{key}_ratio")] = json!(rate);
            report[format!("{key}_latency_ratio")] = json!(latency);
            report[format!("{key}_agreement")] = json!(side.agreement);
        }
        report["versions"] = about;
    }
    Ok(report)
}

/// Lets the other side run the inputs; measures, or (with `ours`) compares.
fn turn_of_peer(
    peer: &mut Peer,
    backend: &str,
    side: &mut Side,
    inputs: &Inputs,
    ours: Option<&Vec<Vec<f32>>>,
) -> Result<(), Error> {
    let reply: PeerRun =
        peer.ask(&json!({ "do": "run", "backend": backend, "inputs": inputs.json(usize::MAX) }))?;
    let singles: PeerSingles =
        peer.ask(&json!({ "do": "single", "backend": backend, "inputs": inputs.json(SINGLES) }))?;
    let Some(ours) = ours else {
        side.rate.push(inputs.len() as f64 / reply.seconds);
        side.latency.push(median(&singles.seconds) * 1e3);
        return Ok(());
    };
    let bad = |e: serde_json::Error| Error::Install(format!("{backend}: its outputs: {e}"));
    side.agreement = match inputs {
        Inputs::Texts(_) => {
            let theirs: Vec<Vec<f32>> = serde_json::from_value(reply.outputs).map_err(bad)?;
            ours.iter().zip(&theirs).map(|(a, b)| cosine(a, b)).fold(1.0, f64::min)
        }
        Inputs::Pairs(_) => {
            let theirs: Vec<f64> = serde_json::from_value(reply.outputs).map_err(bad)?;
            ours.iter().zip(&theirs).map(|(a, b)| (f64::from(a[0]) - b).abs()).fold(0.0, f64::max)
        }
    };
    Ok(())
}
