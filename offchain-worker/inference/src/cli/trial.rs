//! What a model does when it is asked for the first time: whether it runs at all, and whether what it says looks like anything.

use crate::{
    engine::{load_cross_encoder, load_encoder, CandleGenerator, LoadOptions},
    error::{Error, Result},
    generate::{ChatRole, GenerateRequest, Generator, Message, Prompt},
    manifest::Role,
    store::ModelStore,
};
use serde_json::{json, Value};
use std::time::Instant;

/// What came of it.
#[derive(Debug)]
pub(super) struct Trial {
    /// What it did, for people.
    pub(super) text: String,
    pub(super) json: Value,
}

/// Two texts that say the same, and one that says something else.
const TEXTS: [&str; 3] =
    ["A cat sits on the mat.", "On the mat there is a cat.", "Interest rates rose by two percent."];

/// Tokens of the first answer.
const TOKENS: usize = 8;

/// Loads a model, and asks it for a few tokens, some vectors or some scores.
///
/// # Errors
/// When it cannot be loaded, or what it gives is no number.
pub(super) fn trial(store: &ModelStore, name: &str, options: &LoadOptions) -> Result<Trial> {
    let loading = Instant::now();
    match store.manifest().get(name)?.role {
        Role::Generator => {
            let mut model = CandleGenerator::load(&store.verify(name)?, options)?;
            let loaded = loading.elapsed();
            let question = "What is the capital of France?";
            let chat = Prompt::Chat(vec![Message::new(ChatRole::User, question)]);
            // A model without a template continues texts.
            let (prompt, seen, asked) = match model.tokens(&chat) {
                Ok(tokens) => (chat, tokens.len(), true),
                Err(error) if error.is_bad_request() => {
                    let text = Prompt::Text("The capital of France is".to_string());
                    let seen = model.tokens(&text)?.len();
                    (text, seen, false)
                }
                Err(error) => return Err(error),
            };
            // Of a context so small that the question fills it there is no answer.
            let room = store.manifest().get(name)?.context_tokens.saturating_sub(seen);
            let request = GenerateRequest::new(prompt).with_max_tokens(TOKENS.min(room).max(1));
            let answering = Instant::now();
            let answer = model.generate(&request)?;
            let seconds = answering.elapsed().as_secs_f64();
            Ok(Trial {
                text: format!(
                    "loaded in {:.1} s; {} \"{}\" ({} tokens after {} in {seconds:.2} s)",
                    loaded.as_secs_f64(),
                    if asked {
                        "asked for the capital of France it begins"
                    } else {
                        "\"The capital of France is\" it continues"
                    },
                    answer.text.replace('\n', " "),
                    answer.completion_tokens,
                    answer.prompt_tokens,
                ),
                json: json!({
                    "load_seconds": loaded.as_secs_f64(), "answer": answer.text, "prompt_tokens": answer.prompt_tokens,
                    "completion_tokens": answer.completion_tokens, "seconds": seconds,
                }),
            })
        }
        Role::BiEncoder => {
            let mut model = load_encoder(store, name, options)?;
            let loaded = loading.elapsed();
            let vectors = model.embed(&TEXTS)?;
            let likeness =
                |i: usize, j: usize| -> f32 { vectors[i].iter().zip(&vectors[j]).map(|(a, b)| a * b).sum() };
            let (like, unlike) = (likeness(0, 1), likeness(0, 2));
            if !like.is_finite() || !unlike.is_finite() {
                return Err(Error::model(name, "its vectors are not finite"));
            }
            Ok(Trial {
                text: format!(
                    "loaded in {:.1} s; vectors of {}: two texts that say the same are {like:.2} alike, two that do not {unlike:.2}",
                    loaded.as_secs_f64(),
                    model.dimension(),
                ),
                json: json!({
                    "load_seconds": loaded.as_secs_f64(), "dimension": model.dimension(), "like": like, "unlike": unlike,
                }),
            })
        }
        Role::CrossEncoder => {
            let mut model = load_cross_encoder(store, name, options)?;
            let loaded = loading.elapsed();
            let scores = model.score(&[(TEXTS[0], TEXTS[1]), (TEXTS[0], TEXTS[2])])?;
            let [like, unlike] = scores[..] else {
                return Err(Error::model(name, format!("it gave {} scores for two pairs", scores.len())));
            };
            Ok(Trial {
                text: format!(
                    "loaded in {:.1} s; two texts that say the same score {like:.2}, two that do not {unlike:.2}",
                    loaded.as_secs_f64()
                ),
                json: json!({ "load_seconds": loaded.as_secs_f64(), "like": like, "unlike": unlike }),
            })
        }
    }
}
