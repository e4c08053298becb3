//! Tiny models with random weights, held to what `transformers` computes with the same weights, tokenizers and templates.
//!
//! `scripts/make-fixtures.py` makes them; `scripts/check-models.sh` makes them anew (in the folder that POQ_FIXTURES names) and
//! prints the table that this prints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use poq_inference::{
    engine::CandleGenerator, load_cross_encoder, load_encoder, ChatRole, Kernels, LoadOptions, Manifest,
    Message, ModelConfig, ModelStore, Precision, Prompt, Role, VerifiedModel,
};
use serde_json::Value;
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// Of logits whose deviation is about 1.5, in f32.
const TOLERANCE: f64 = 1e-3;

fn folder() -> PathBuf {
    std::env::var_os("POQ_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"), PathBuf::from)
}

fn expected(name: &str) -> Value {
    let path = folder().join(name).join("expected.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// A fixture as an operator's own model, and how it is run.
fn model(name: &str, more: &str) -> (ModelStore, VerifiedModel) {
    let source = folder().join(name);
    let config: ModelConfig =
        toml::from_str(&format!("name = \"{name}\"\nsource = {source:?}\n{more}\n")).unwrap();
    // Nothing is kept there.
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::new(Manifest::builtin(), dir.path()).with_models(vec![config]);
    let model = store.verify(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    (store, model)
}

fn generator(name: &str, options: LoadOptions) -> CandleGenerator {
    let (_, model) = model(name, "context = 512");
    CandleGenerator::load(&model, &options).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn tokens(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|v| v as u32).collect()
}

/// A line of the table that scripts/check-models.sh prints.
fn row(name: &str, numbers: &str, cells: &[String]) {
    let (network, format) = match name.split_once("-gguf-") {
        Some((network, format)) => (network, format!("GGUF {}", format.to_uppercase())),
        None => (name, "safetensors".to_string()),
    };
    let line = format!("| {network} | {format} | {numbers} | {} |", cells.join(" | "));
    println!("{line}");
    if let Some(path) = std::env::var_os("POQ_FIXTURES_ROWS").filter(|path| !path.is_empty()) {
        let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

/// How many tokens are the same before the first that is not.
fn same(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn furthest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// Logarithms of chances.
fn logarithms(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln();
    logits.iter().map(|logit| logit - sum).collect()
}

/// What llama.cpp may differ by: it rounds vectors as the format of the weights has them.
fn rounding(name: &str) -> f64 {
    if name.ends_with("-f32") {
        TOLERANCE
    } else if name.ends_with("-bf16") {
        0.1
    } else {
        0.3
    }
}

/// Compares logits and the tokens that follow, as long as the likeliest is ahead by more than the tolerance: with what transformers
/// computes, and where that is known with what llama.cpp does.
fn check(name: &str, options: LoadOptions, tolerance: f64) {
    let expected = expected(name);
    let mut model = generator(name, options);
    let prompt = tokens(&expected["prompt"]);
    let following = tokens(&expected["following"]);
    let found = model.continue_tokens(&prompt, following.len()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let logits = numbers(&expected["logits"]);
    let ours: Vec<f64> = found.first_logits.iter().map(|logit| f64::from(*logit)).collect();
    let largest = furthest(&ours, &logits);
    let margins = numbers(&expected["margins"]);
    let sure = margins.iter().take_while(|margin| **margin > 2.0 * tolerance).count();
    let agreed = same(&found.tokens, &following);
    let peer = &expected["llama_cpp"];
    let beside = match (peer["passes_over"].as_str(), peer["logprobs"].is_array()) {
        (Some(key), _) => [format!("passes over `{key}`"), "–".to_string()],
        (None, false) => ["–".to_string(), "–".to_string()],
        (None, true) => {
            let apart = furthest(&logarithms(&ours), &numbers(&peer["logprobs"]));
            assert!(apart <= tolerance + rounding(name), "{name}: llama.cpp's logits differ by {apart}");
            [format!("{apart:.0e}"), same(&found.tokens, &tokens(&peer["following"])).to_string()]
        }
    };
    let numbers = match (options.precision, options.kernels) {
        (Precision::Auto, Kernels::Candle) => "candle, as the file has them".to_string(),
        (Precision::Auto, kernels) => format!("own kernels, {kernels}"),
        (precision, _) => format!("candle, {precision}"),
    };
    row(name, &numbers, &[vec![format!("{largest:.0e}"), agreed.to_string()], beside.to_vec()].concat());
    assert!(largest <= tolerance, "{name}: logits differ by {largest}");
    assert!(agreed >= sure, "{name}: {agreed} of {sure} tokens are the same");
}

/// Compares the tokens of texts and of conversations.
fn check_tokens(name: &str) {
    let expected = expected(name);
    let model = generator(name, LoadOptions::default());
    for text in expected["texts"].as_array().unwrap() {
        let given = text["text"].as_str().unwrap();
        let wanted = tokens(&text["tokens"]);
        match model.tokens(&Prompt::Text(given.to_string())) {
            // Text that spells control tokens stays text here; `transformers` makes tokens of it.
            Ok(found) if given.contains("<|im_end|>") => assert!(found.len() > wanted.len(), "{name}"),
            Ok(found) => assert_eq!(found, wanted, "{name}: {given:?}"),
            Err(_) => assert!(wanted.len() <= 1, "{name}: {given:?}"),
        }
    }
    for chat in expected["chats"].as_array().unwrap() {
        let message = |message: &Value| {
            let role = match message["role"].as_str().unwrap() {
                "system" => ChatRole::System,
                "user" => ChatRole::User,
                _ => ChatRole::Assistant,
            };
            Message::new(role, message["content"].as_str().unwrap())
        };
        let messages = chat["messages"].as_array().unwrap().iter().map(message).collect();
        let found = model.tokens(&Prompt::Chat(messages));
        if chat["tokens"].is_null() {
            // The template has no role for instructions: they go before the question.
            continue;
        }
        let wanted = tokens(&chat["tokens"]);
        let mut found = found.unwrap_or_else(|e| panic!("{name}: {e}"));
        // A GGUF file says that texts begin with a token; llama.cpp then puts it before a conversation, too.
        if name.contains("-gguf-") && found.len() == wanted.len() + 1 {
            found.remove(0);
        }
        assert_eq!(found, wanted, "{name}: {chat}");
    }
}

/// As thirty-two bits compute it.
fn exact() -> LoadOptions {
    LoadOptions { precision: Precision::F32, ..LoadOptions::default() }
}

macro_rules! fixtures {
    ($($test:ident: $name:literal),* $(,)?) => { $(
        #[test]
        fn $test() {
            check($name, exact(), TOLERANCE);
            check_tokens($name);
        }
    )* };
}

fixtures! {
    llama: "llama",
    llama_in_gguf: "llama-gguf-q8_0",
    llama_with_scaled_positions: "llama3",
    llama_with_scaled_positions_in_gguf: "llama3-gguf-q8_0",
    llama_with_linear_positions_and_biases: "llama-linear",
    llama_with_linear_positions_and_biases_in_gguf: "llama-linear-gguf-bf16",
    mistral_with_a_window: "mistral",
    mistral_with_a_window_in_gguf: "mistral-gguf-bf16",
    mixtral: "mixtral",
    mixtral_in_gguf: "mixtral-gguf-bf16",
    qwen2: "qwen2",
    qwen2_in_gguf: "qwen2-gguf-q8_0",
    qwen2_with_yarn: "qwen2-yarn",
    qwen2_with_yarn_in_gguf: "qwen2-yarn-gguf-bf16",
    qwen3: "qwen3",
    qwen3_in_gguf: "qwen3-gguf-q8_0",
    qwen3_moe: "qwen3-moe",
    qwen3_moe_in_gguf: "qwen3-moe-gguf-q8_0",
    gemma2: "gemma2",
    gemma2_in_gguf: "gemma2-gguf-bf16",
    gemma3: "gemma3",
    gemma3_in_gguf: "gemma3-gguf-q8_0",
    phi3: "phi3",
    phi3_in_gguf: "phi3-gguf-bf16",
    phi3_with_longrope: "phi3-longrope",
    phi3_with_longrope_in_gguf: "phi3-longrope-gguf-bf16",
}

/// Our own code, on every instruction set, and candle's products of quantised matrices round vectors to eight bits: what differs is
/// that.
#[test]
fn eight_bits_are_near_on_every_instruction_set() {
    for name in ["llama", "llama3", "qwen2", "qwen3", "qwen3-moe", "gemma3"] {
        // The others have no code of ours.
        let own = matches!(name, "llama" | "llama3" | "qwen2");
        let name = format!("{name}-gguf-q8_0");
        for kernels in Kernels::available() {
            if own || kernels == Kernels::Candle {
                check(&name, LoadOptions { kernels, ..LoadOptions::default() }, 0.3);
            }
        }
    }
}

/// What scripts/check-models.sh makes too, and is too large for the tree: every language model as a GGUF file of 32 bits, in which
/// nobody rounds anything.
#[test]
fn files_of_thirty_two_bits() {
    let names =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with("-gguf-f32")).collect();
    names.sort();
    assert!(names.len() == 13 || std::env::var_os("POQ_FIXTURES").is_none(), "{names:?}");
    for name in names {
        check(&name, exact(), TOLERANCE);
    }
}

fn check_encoder(name: &str) {
    let expected = expected(name);
    let pooling = match expected["pooling"].as_str().unwrap() {
        // The folder says it itself.
        "weightedmean" => "mean",
        other => other,
    };
    let (store, found) = model(name, &format!("context = 128\npooling = \"{pooling}\""));
    assert_eq!(found.entry().role, Role::BiEncoder, "{name}");
    let texts: Vec<_> = expected["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let wanted: Vec<_> = expected["vectors"].as_array().unwrap().iter().map(numbers).collect();
    for (way, options) in ways_of_encoders(name) {
        let mut encoder = load_encoder(&store, name, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        // All at once, and one by one.
        let mut found = encoder.embed(&texts).unwrap();
        found.extend(texts.iter().map(|text| encoder.embed(&[text]).unwrap().remove(0)));
        let mut largest = 0f64;
        for (found, wanted) in found.iter().zip(wanted.iter().chain(&wanted)) {
            assert_eq!((found.len(), found.len()), (wanted.len(), encoder.dimension()), "{name}");
            let differences = found.iter().zip(wanted).map(|(a, b)| (f64::from(*a) - b).abs());
            largest = differences.fold(largest, f64::max);
        }
        let nothing = || "–".to_string();
        row(name, &way, &[format!("{largest:.0e} (vectors)"), nothing(), nothing(), nothing()]);
        assert!(largest < 1e-4, "{name}, {way}: vectors differ by {largest}");
    }
}

/// Encoders compute in f32 everywhere: on every instruction set where there is code of ours, and on candle.
fn ways_of_encoders(name: &str) -> Vec<(String, LoadOptions)> {
    if name.starts_with("deberta") || name.starts_with("modernbert") {
        return vec![("candle, f32".to_string(), LoadOptions::default())];
    }
    let kernels = Kernels::available().into_iter();
    let kernels = kernels.filter(|kernels| *kernels != Kernels::Candle || name.starts_with("bert"));
    let options = |kernels| LoadOptions { kernels, ..LoadOptions::default() };
    kernels
        .map(|kernels| match kernels {
            Kernels::Candle => ("candle, f32".to_string(), options(kernels)),
            _ => (format!("own kernels, {kernels}"), options(kernels)),
        })
        .collect()
}

fn check_cross_encoder(name: &str) {
    let expected = expected(name);
    let (store, found) = model(name, "context = 128");
    assert_eq!(found.entry().role, Role::CrossEncoder, "{name}");
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let pairs: Vec<_> =
        expected["pairs"].as_array().unwrap().iter().map(|p| (text(&p[0]), text(&p[1]))).collect();
    let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let wanted = numbers(&expected["logits"]);
    for (way, options) in ways_of_encoders(name) {
        let mut encoder =
            load_cross_encoder(&store, name, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        let found = encoder.score(&pairs).unwrap();
        let largest = found.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        let nothing = || "–".to_string();
        row(name, &way, &[format!("{largest:.0e} (pairs)"), nothing(), nothing(), nothing()]);
        assert!(largest < TOLERANCE, "{name}, {way}: logits differ by {largest}: {found:?} {wanted:?}");
    }
}

#[test]
fn encoders_of_berts_family() {
    for name in ["bert", "roberta", "distilbert", "mpnet", "modernbert"] {
        check_encoder(name);
    }
}

#[test]
fn what_sentence_transformers_puts_behind_an_encoder() {
    check_encoder("xlm-roberta-dense");
    let (store, _) = model("xlm-roberta-dense", "context = 128");
    let encoder = load_encoder(&store, "xlm-roberta-dense", &LoadOptions::default()).unwrap();
    assert_eq!((encoder.dimension(), encoder.query_prefix()), (32, "query: "));
}

#[test]
fn heads_of_one_output_and_of_classes() {
    for name in ["bert-nli", "roberta-cross", "distilbert-cross", "deberta-nli", "modernbert-cross"] {
        check_cross_encoder(name);
    }
}
