//! `models bench`.

use super::{OutputArgs, PlaceArgs};
use crate::{
    engine::{load_cross_encoder, load_encoder, CandleGenerator, DeviceSpec, Kernels, LoadOptions},
    error::{Error, Result},
    generate::Prompt,
    manifest::Role,
    store::ModelStore,
};
use clap::Args;
use serde_json::{json, Value};
use std::time::{Duration, Instant};

/// `models bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The model's name.
    name: String,

    /// Tokens of the prompt; for an encoder, of each text.
    #[arg(long, default_value_t = 256, value_name = "N")]
    prompt_tokens: usize,

    /// Tokens of the answer; for an encoder, the number of texts.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    tokens: u32,

    /// How often it is measured; medians are told.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Where to compute, in place of what the configuration says: cpu, cuda:N, metal:N.
    #[arg(long, env = "POQ_DEVICE", hide_env_values = true, value_name = "DEVICE")]
    device: Option<DeviceSpec>,

    /// Measures candle's operations beside this project's own kernels, in turns, and tells the ratio. Takes the memory of both.
    #[arg(long)]
    beside_candle: bool,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// Twelve words and a full stop.
const SENTENCE: &str = "The quick brown fox jumps over the lazy dog and runs away. ";

/// One side of the comparison: does the same work whenever it is asked, and tells how long each part of it took.
type Side = Box<dyn FnMut() -> Result<Vec<Duration>>>;

/// What is measured of a model.
struct Work {
    /// Names of the parts, and how many things each is about.
    parts: Vec<(&'static str, usize)>,
    side: Side,
}

fn work(store: &ModelStore, args: &BenchArgs, options: &LoadOptions) -> Result<Work> {
    let count = args.tokens as usize;
    let text = SENTENCE.repeat(args.prompt_tokens.div_ceil(13).max(1));
    match store.manifest().get(&args.name)?.role {
        Role::Generator => {
            let mut model = CandleGenerator::load(&store.verify(&args.name)?, options)?;
            let mut prompt = model.tokens(&Prompt::Text(text))?;
            prompt.truncate(args.prompt_tokens.max(1));
            let parts = vec![("prompt tokens", prompt.len()), ("answer tokens", count.saturating_sub(1))];
            // The last token of an answer is chosen, but the network does not see it.
            let side = move || {
                let answer = model.continue_tokens(&prompt, count)?;
                Ok(vec![answer.prompt_time, answer.decode_time])
            };
            Ok(Work { parts, side: Box::new(side) })
        }
        Role::BiEncoder => {
            let mut model = load_encoder(store, &args.name, options)?;
            let side = move || {
                let started = Instant::now();
                model.embed(&vec![text.as_str(); count])?;
                Ok(vec![started.elapsed()])
            };
            Ok(Work { parts: vec![("texts", count)], side: Box::new(side) })
        }
        Role::CrossEncoder => {
            let mut model = load_cross_encoder(store, &args.name, options)?;
            let side = move || {
                let started = Instant::now();
                model.score(&vec![(SENTENCE, text.as_str()); count])?;
                Ok(vec![started.elapsed()])
            };
            Ok(Work { parts: vec![("pairs", count)], side: Box::new(side) })
        }
    }
}

/// The middle value; the mean of the two middle ones where there are two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

pub(super) fn bench(args: &BenchArgs) -> Result<()> {
    let store = args.place.store()?;
    let options = store.options_on(&args.name, args.device);
    let loading = Instant::now();
    let mut own = work(&store, args, &options)?;
    let loaded = loading.elapsed().as_secs_f64();
    let mut candle = match args.beside_candle {
        true if options.device != DeviceSpec::Cpu => {
            return Err(Error::InvalidRequest(
                "on a GPU candle computes anyway: there is nothing to compare with".into(),
            ))
        }
        true => Some(work(&store, args, &LoadOptions { kernels: Kernels::Candle, ..options })?),
        false => None,
    };
    // Once to warm up.
    (own.side)()?;
    if let Some(candle) = &mut candle {
        (candle.side)()?;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        // Neither side always comes second.
        if round % 2 == 0 {
            ours.push((own.side)()?);
        }
        if let Some(candle) = &mut candle {
            theirs.push((candle.side)()?);
        }
        if round % 2 == 1 {
            ours.push((own.side)()?);
        }
    }
    let mut parts = Vec::new();
    for (index, (part, count)) in own.parts.iter().enumerate() {
        let rates = |rounds: &[Vec<Duration>]| -> Vec<f64> {
            rounds.iter().map(|times| *count as f64 / times[index].as_secs_f64().max(1e-9)).collect()
        };
        let (ours, theirs) = (rates(&ours), rates(&theirs));
        let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect());
        let beside = args.beside_candle.then(|| json!({ "per_second": median(theirs), "ratio": ratio }));
        parts.push(json!({ "of": part, "count": count, "per_second": median(ours), "candle": beside }));
    }
    let threads = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse::<usize>().ok());
    let json = json!({
        "model": args.name, "device": options.device.to_string(), "threads": options.threads.or(threads),
        "load_seconds": loaded, "rounds": args.rounds, "parts": parts, "peak_memory_bytes": peak_memory_bytes(),
    });
    args.output.print(&json, || {
        let mut lines = vec![format!("{} on {}: loaded in {loaded:.2} s", args.name, options.device)];
        for part in json["parts"].as_array().into_iter().flatten() {
            let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
            let mut line = format!(
                "  {} {}: {:.1} a second",
                part["count"],
                part["of"].as_str().unwrap_or_default(),
                number(&part["per_second"])
            );
            if args.beside_candle {
                let candle = &part["candle"];
                line += &format!(
                    "; candle {:.1}, ratio {:.2}",
                    number(&candle["per_second"]),
                    number(&candle["ratio"])
                );
            }
            lines.push(line);
        }
        if let Some(bytes) = peak_memory_bytes() {
            lines.push(format!("  peak memory {}", super::size(bytes)));
        }
        lines.join("\n")
    });
    Ok(())
}

fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
