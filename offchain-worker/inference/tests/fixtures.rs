//! Tiny models with random weights, held to what `transformers` computes with the same weights, tokenizers and templates.
//!
//! `scripts/make-fixtures.py` makes them; `scripts/check-models.sh` makes them anew (in the folder that POQ_FIXTURES names) and
//! prints the table that this prints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use poq_inference::{
    engine::CandleGenerator, load_cross_encoder, load_encoder, ChatRole, LoadOptions, Manifest, Message,
    ModelStore, Precision, Prompt, VerifiedModel,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

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

/// The files of a folder, and of the folders in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A fixture as a model of a manifest of its own.
fn model(name: &str, role: &str, architecture: &str, more: &str) -> (ModelStore, VerifiedModel) {
    let mut text = format!(
        "[[model]]\nname = \"{name}\"\ntitle = \"t\"\nrole = \"{role}\"\narchitecture = \"{architecture}\"\nlicence = \"MIT\"\n\
         memory_bytes = 1\n{more}\n"
    );
    let own = folder().join(name);
    for path in files(&own).iter().filter(|path| !path.ends_with("expected.json")) {
        let bytes = std::fs::read(path).unwrap();
        text += &format!(
            "[[model.file]]\npath = \"{}\"\nsize = {}\nsha256 = \"{}\"\nsource = []\n",
            path.strip_prefix(&own).unwrap().to_string_lossy(),
            bytes.len(),
            hex::encode(Sha256::digest(&bytes))
        );
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("manifest.toml"), text).unwrap();
    let manifest = Manifest::from_path(&dir.path().join("manifest.toml")).unwrap();
    let store = ModelStore::new(manifest, folder());
    let model = store.verify(name).unwrap();
    (store, model)
}

fn generator(name: &str, precision: Precision) -> CandleGenerator {
    let architecture = if name.contains("-gguf-") { "gguf" } else { "safetensors" };
    let (_, model) = model(name, "generator", architecture, "context_tokens = 512");
    let options = LoadOptions { precision, ..LoadOptions::default() };
    CandleGenerator::load(&model, &options).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn tokens(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|v| v as u32).collect()
}

/// Compares logits and the tokens that follow, as long as the likeliest is ahead by more than the tolerance.
fn check(name: &str, precision: Precision, tolerance: f64) {
    let expected = expected(name);
    let mut model = generator(name, precision);
    let prompt = tokens(&expected["prompt"]);
    let following = tokens(&expected["following"]);
    let found = model.continue_tokens(&prompt, following.len()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let logits = numbers(&expected["logits"]);
    assert_eq!(found.first_logits.len(), logits.len(), "{name}");
    let largest =
        found.first_logits.iter().zip(&logits).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    let margins = numbers(&expected["margins"]);
    let sure = margins.iter().take_while(|margin| **margin > 2.0 * tolerance).count();
    let same = found.tokens.iter().zip(&following).take_while(|(a, b)| a == b).count();
    println!("{name:28} {:5} {largest:.1e} {same} of {}", precision.to_string(), following.len());
    assert!(largest <= tolerance, "{name}: logits differ by {largest}");
    assert!(same >= sure, "{name}: {same} of {sure} tokens are the same");
}

/// Compares the tokens of texts and of conversations.
fn check_tokens(name: &str) {
    let expected = expected(name);
    let model = generator(name, Precision::Auto);
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

macro_rules! fixtures {
    ($($test:ident: $name:literal),* $(,)?) => { $(
        #[test]
        fn $test() {
            check($name, Precision::F32, TOLERANCE);
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

/// Our own code and candle's products round vectors to eight bits: what differs is that.
#[test]
fn eight_bits_are_near() {
    for name in ["llama", "llama3", "qwen2", "qwen3", "qwen3-moe", "gemma3"] {
        let name = format!("{name}-gguf-q8_0");
        check(&name, Precision::Auto, 0.3);
    }
}

fn check_encoder(name: &str) {
    let expected = expected(name);
    let pooling = match expected["pooling"].as_str().unwrap() {
        // The folder says it itself.
        "weightedmean" => "mean",
        other => other,
    };
    let more = format!("context_tokens = 128\npooling = \"{pooling}\"");
    let (store, _) = model(name, "bi-encoder", "bert", &more);
    let mut encoder =
        load_encoder(&store, name, &LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let texts: Vec<_> = expected["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    // All at once, and one by one.
    let mut found = encoder.embed(&texts).unwrap();
    found.extend(texts.iter().map(|text| encoder.embed(&[text]).unwrap().remove(0)));
    let wanted: Vec<_> = expected["vectors"].as_array().unwrap().iter().map(numbers).collect();
    let mut largest = 0f64;
    for (found, wanted) in found.iter().zip(wanted.iter().chain(&wanted)) {
        assert_eq!((found.len(), found.len()), (wanted.len(), encoder.dimension()), "{name}");
        let differences = found.iter().zip(wanted).map(|(a, b)| (f64::from(*a) - b).abs());
        largest = differences.fold(largest, f64::max);
    }
    println!("{name:28} f32   {largest:.1e}");
    assert!(largest < 1e-4, "{name}: vectors differ by {largest}");
}

fn check_cross_encoder(name: &str) {
    let expected = expected(name);
    let (store, _) = model(name, "cross-encoder", "bert", "context_tokens = 128");
    let mut encoder =
        load_cross_encoder(&store, name, &LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let pairs: Vec<_> =
        expected["pairs"].as_array().unwrap().iter().map(|p| (text(&p[0]), text(&p[1]))).collect();
    let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let found = encoder.score(&pairs).unwrap();
    let wanted = numbers(&expected["logits"]);
    let largest = found.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    println!("{name:28} f32   {largest:.1e}");
    assert!(largest < TOLERANCE, "{name}: logits differ by {largest}: {found:?} {wanted:?}");
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
    let (store, _) = model("xlm-roberta-dense", "bi-encoder", "bert", "context_tokens = 128");
    let encoder = load_encoder(&store, "xlm-roberta-dense", &LoadOptions::default()).unwrap();
    assert_eq!((encoder.dimension(), encoder.query_prefix()), (32, "query: "));
}

#[test]
fn heads_of_one_output_and_of_classes() {
    for name in ["bert-nli", "roberta-cross", "distilbert-cross", "deberta-nli", "modernbert-cross"] {
        check_cross_encoder(name);
    }
}
