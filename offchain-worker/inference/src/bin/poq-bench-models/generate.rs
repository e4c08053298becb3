//! Language models beside llama.cpp.

use crate::{median, ratio, Common};
use poq_inference::{
    data_dir, default_models_dir, engine::CandleGenerator, load_qa, Error, ModelStore, Prompt, Role,
};
use serde::Deserialize;
use serde_json::{json, Value};
use std::path::PathBuf;

/// `poq-bench-models generate`.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Tokens of the prompt, about: it is text, cut at a word.
    #[arg(long, default_value_t = 512, value_name = "N")]
    prompt_tokens: usize,

    /// Tokens of the answer.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    tokens: u32,

    /// The file with questions, whose paragraphs are the prompt.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
}

#[derive(Deserialize)]
struct PeerGeneration {
    prompt_seconds: f64,
    decode_seconds: f64,
    tokens: Vec<u32>,
    /// What the first token was chosen by, where that was asked for.
    #[serde(default)]
    first_logits: Vec<f32>,
}

/// Rates of each round, in tokens per second.
#[derive(Default)]
struct Side {
    prompt: Vec<f64>,
    decode: Vec<f64>,
}

impl Side {
    fn add(&mut self, prompt_tokens: usize, prompt_seconds: f64, tokens: usize, decode_seconds: f64) {
        self.prompt.push(prompt_tokens as f64 / prompt_seconds);
        // The last token of an answer is chosen, but the network does not see it.
        self.decode.push(tokens.saturating_sub(1) as f64 / decode_seconds);
    }
}

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let common = &options.common;
    let store = common.store()?;
    let names = match common.names.as_slice() {
        [] => {
            let generators = store.manifest().models().iter().filter(|m| m.role == Role::Generator);
            generators.map(|m| m.name.clone()).filter(|n| store.is_installed(n)).collect()
        }
        names => names.to_vec(),
    };
    if names.is_empty() {
        return Err(Error::Install(format!(
            "no language model is installed in {}: run {}",
            store.dir().display(),
            poq_inference::INSTALL_SCRIPT
        )));
    }
    // The models folder may be another one than that beside which the data are.
    let path = options.text.clone().unwrap_or_else(|| data_dir(&default_models_dir()).join("qa.jsonl"));
    let text: String = load_qa(&path)?.into_iter().map(|item| item.context + "\n\n").collect();
    let mut models = Vec::new();
    for name in &names {
        models.push(measure(options, &store, name, &text)?);
    }
    common.write(&json!({ "threads": common.threads(), "rounds": common.rounds, "models": models }))
}

/// The longest beginning of `text`, in whole words, that is not more than `limit` tokens.
fn beginning(model: &CandleGenerator, text: &str, limit: usize) -> Result<Vec<u32>, Error> {
    // A word is a token at least: what lies beyond `limit` words need not be looked at.
    let ends: Vec<usize> = text.match_indices(' ').map(|(at, _)| at).take(limit.max(1)).collect();
    let tokens = |words: usize| {
        let end = ends.get(words).copied().unwrap_or(text.len());
        model.tokens(&Prompt::Text(text[..end].to_string()))
    };
    let (mut low, mut high) = (0, ends.len());
    while low + 1 < high {
        let middle = low.midpoint(high);
        if tokens(middle)?.len() <= limit {
            low = middle;
        } else {
            high = middle;
        }
    }
    tokens(low)
}

fn measure(options: &Options, store: &ModelStore, name: &str, text: &str) -> Result<Value, Error> {
    let common = &options.common;
    let verified = store.verify(name)?;
    let mut model = CandleGenerator::load(&verified, &store.options_on(name, common.device))?;
    let prompt = beginning(&model, text, options.prompt_tokens)?;
    let count = options.tokens as usize;

    let path = verified.file("model.gguf")?;
    let mut peer = common.start_peer()?;
    let mut about = Value::Null;
    if let Some(peer) = &mut peer {
        let context = (prompt.len() + count).next_multiple_of(256);
        about = peer.ask(&json!({
            "do": "load", "path": path, "threads": common.threads(), "context": context,
        }))?;
    }
    let (mut ours, mut theirs) = (Side::default(), Side::default());
    let (mut same_tokens, mut likeness) = (0, f64::NAN);
    // Round 0 warms both up, and compares what they say.
    for round in 0..=common.rounds {
        let mut our_turn = || -> Result<(Vec<u32>, Vec<f32>), Error> {
            let answer = model.continue_tokens(&prompt, count)?;
            if round > 0 {
                let (seen, said) = (answer.prompt_time.as_secs_f64(), answer.decode_time.as_secs_f64());
                ours.add(prompt.len(), seen, count, said);
            }
            Ok((answer.tokens, answer.first_logits))
        };
        let mut their_turn = || -> Result<(Vec<u32>, Vec<f32>), Error> {
            let Some(peer) = &mut peer else { return Ok(Default::default()) };
            let request =
                json!({ "do": "generate", "prompt": prompt, "tokens": count, "logits": round == 0 });
            let answer: PeerGeneration = peer.ask(&request)?;
            if round > 0 {
                theirs.add(prompt.len(), answer.prompt_seconds, count, answer.decode_seconds);
            }
            Ok((answer.tokens, answer.first_logits))
        };
        // Neither side always comes second.
        let ((our_tokens, our_logits), (their_tokens, their_logits)) = if round % 2 == 0 {
            let first = our_turn()?;
            (first, their_turn()?)
        } else {
            let first = their_turn()?;
            (our_turn()?, first)
        };
        if round == 0 {
            same_tokens = our_tokens.iter().zip(&their_tokens).take_while(|(a, b)| a == b).count();
            likeness = correlation(&our_logits, &their_logits);
        }
    }
    let mut report = json!({
        "model": name,
        "file_bytes": verified.entry().disk_bytes(),
        "title": verified.entry().title,
        "prompt_tokens": prompt.len(),
        "tokens": count,
        "prompt_tokens_per_s": median(&ours.prompt),
        "tokens_per_s": median(&ours.decode),
    });
    println!(
        "{name}: prompt of {} {:.1} tokens/s, answer of {count} {:.1} tokens/s",
        prompt.len(),
        median(&ours.prompt),
        median(&ours.decode)
    );
    if peer.is_some() {
        let (prompt_ratio, decode_ratio) =
            (ratio(&ours.prompt, &theirs.prompt), ratio(&ours.decode, &theirs.decode));
        println!(
            "  llama.cpp: prompt {:.1} tokens/s (ratio {prompt_ratio:.2}), answer {:.1} tokens/s (ratio \
             {decode_ratio:.2}); the first {same_tokens} of {count} tokens are the same, correlation of the first logits \
             {likeness:.5}",
            median(&theirs.prompt),
            median(&theirs.decode)
        );
        report["llama_cpp_prompt_tokens_per_s"] = json!(median(&theirs.prompt));
        report["llama_cpp_tokens_per_s"] = json!(median(&theirs.decode));
        report["prompt_ratio"] = json!(prompt_ratio);
        report["decode_ratio"] = json!(decode_ratio);
        report["same_first_tokens"] = json!(same_tokens);
        report["logits_correlation"] = json!(likeness);
        report["llama_cpp"] = about;
    }
    Ok(report)
}

/// Pearson's correlation of two lists of numbers; NaN where they are not of one length.
fn correlation(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let mean = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a) - mean_a, f64::from(*b) - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    ab / (aa * bb).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations() {
        assert!((correlation(&[1.0, 2.0, 4.0], &[3.0, 5.0, 9.0]) - 1.0).abs() < 1e-12);
        assert!((correlation(&[1.0, 2.0], &[2.0, 1.0]) + 1.0).abs() < 1e-12);
        assert!(correlation(&[1.0], &[1.0, 2.0]).is_nan());
    }
}
