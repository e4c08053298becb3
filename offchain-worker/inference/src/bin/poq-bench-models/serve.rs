//! A server of language models beside llama.cpp's: tokens per second with several clients at once.

use crate::{median, ratio};
use poq_inference::{
    data_dir, default_models_dir,
    endpoint::{Address, Api, Endpoint, EndpointGenerator, Served},
    load_qa, ChatRole, Error, FinishReason, GenerateRequest, Generator, Message, Prompt, QaItem,
};
use serde_json::{json, Value};
use std::{
    path::PathBuf,
    sync::{
        atomic::{AtomicUsize, Ordering},
        Mutex,
    },
    time::Instant,
};

/// `poq-bench-models serve`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Our server's address, as OpenAI's clients want it: http://127.0.0.1:8080/v1.
    #[arg(long, value_name = "URL")]
    ours: Address,

    /// The other server's.
    #[arg(long, value_name = "URL")]
    theirs: Option<Address>,

    /// The model, by our server's name.
    #[arg(long, value_name = "NAME")]
    model: String,

    /// The model, by the other server's name.
    #[arg(long, value_name = "NAME")]
    their_model: Option<String>,

    /// How many clients ask at once.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16", value_name = "N,…")]
    clients: Vec<usize>,

    /// The most tokens of an answer.
    #[arg(long, default_value_t = 64, value_name = "N")]
    tokens: usize,

    /// How often each side is measured with each number of clients; medians are reported.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// The threads that both servers compute with, for the report.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// What the other server is, for the report.
    #[arg(long, value_name = "TEXT")]
    about: Option<String>,

    /// The file with questions, whose paragraphs are asked about.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,

    /// Write what was measured to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What one side did in one round.
#[derive(Clone, Copy, Default)]
struct Measured {
    tokens_per_s: f64,
    /// Milliseconds until the first text came, in the middle of all requests.
    first_ms: f64,
    prompt_tokens: usize,
    tokens: usize,
}

/// Requests of each client in a round: a server that answers them all at once has to admit others beside answers under way.
const EACH: usize = 2;

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let path = options.text.clone().unwrap_or_else(|| data_dir(&default_models_dir()).join("qa.jsonl"));
    let items = load_qa(&path)?;
    if items.is_empty() || options.clients.contains(&0) {
        return Err(Error::InvalidRequest("there are no texts to ask about, or no clients".to_string()));
    }
    let connect = |url: &Address, model: &str| {
        let served = Served { model: model.to_string(), revision: None };
        Endpoint::new(model, Api::OpenAi, url.clone(), served).generator()
    };
    let ours = connect(&options.ours, &options.model)?;
    let their_model = options.their_model.as_deref().unwrap_or(&options.model);
    let theirs = options.theirs.as_ref().map(|url| connect(url, their_model)).transpose()?;
    let mut report = Vec::new();
    // No text is asked about twice: nobody answers out of a memory.
    let mut next = 0;
    for clients in &options.clients {
        let (mut our_rounds, mut their_rounds) = (Vec::new(), Vec::new());
        for round in 0..=options.rounds {
            let questions: Vec<&QaItem> =
                (0..clients * EACH).map(|i| &items[(next + i) % items.len()]).collect();
            next += questions.len();
            let mut our_turn = || ask(&ours, *clients, &questions, options.tokens);
            let mut their_turn =
                || theirs.as_ref().map(|t| ask(t, *clients, &questions, options.tokens)).transpose();
            // Neither side always comes second. Round 0 warms both up.
            let (our, their) = if round % 2 == 0 {
                let first = our_turn()?;
                (first, their_turn()?)
            } else {
                let first = their_turn()?;
                (our_turn()?, first)
            };
            if round > 0 {
                our_rounds.push(our);
                their_rounds.extend(their);
            }
        }
        report.push(summary(*clients, &our_rounds, &their_rounds));
    }
    let Some(path) = &options.json else { return Ok(()) };
    let whole = json!({
        "model": options.model,
        "threads": options.threads,
        "tokens": options.tokens,
        "rounds": options.rounds,
        "beside": options.about,
        "clients": report,
    });
    std::fs::write(path, format!("{whole:#}\n")).map_err(|e| Error::Io { path: path.clone(), source: e })
}

/// All questions, by so many clients at once.
fn ask(
    model: &EndpointGenerator,
    clients: usize,
    questions: &[&QaItem],
    tokens: usize,
) -> Result<Measured, Error> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..clients)
            .map(|_| {
                let (mut model, next, answers) = (model.clone(), &next, &answers);
                scope.spawn(move || -> Result<(), Error> {
                    while let Some(item) = questions.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let text = format!(
                            "{}\n\nRetell this text in detail and in your own words, sentence by sentence.",
                            item.context
                        );
                        let request =
                            GenerateRequest::new(Prompt::Chat(vec![Message::new(ChatRole::User, text)]))
                                .with_max_tokens(tokens);
                        let answer = model.generate(&request)?;
                        if answer.finish_reason == FinishReason::Deadline {
                            return Err(Error::InvalidRequest(
                                "an answer was cut off by a time limit".to_string(),
                            ));
                        }
                        if let Ok(mut answers) = answers.lock() {
                            answers.push(answer);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in asking {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => return Err(Error::InvalidRequest("a client panicked".to_string())),
            }
        }
        Ok(())
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let answers = answers.into_inner().unwrap_or_default();
    let written: usize = answers.iter().map(|answer| answer.completion_tokens).sum();
    let first: Vec<f64> = answers.iter().map(|answer| answer.prompt_ms as f64).collect();
    Ok(Measured {
        tokens_per_s: written as f64 / seconds,
        first_ms: median(&first),
        prompt_tokens: answers.iter().map(|answer| answer.prompt_tokens).sum(),
        tokens: written,
    })
}

fn summary(clients: usize, ours: &[Measured], theirs: &[Measured]) -> Value {
    let rates = |rounds: &[Measured]| rounds.iter().map(|round| round.tokens_per_s).collect::<Vec<_>>();
    let first = |rounds: &[Measured]| median(&rounds.iter().map(|round| round.first_ms).collect::<Vec<_>>());
    let (our_rates, their_rates) = (rates(ours), rates(theirs));
    let mut line = format!(
        "{clients:>3} clients: {:.1} tokens/s, first text after {:.0} ms",
        median(&our_rates),
        first(ours)
    );
    let last = ours.last().copied().unwrap_or_default();
    let mut report = json!({
        "clients": clients,
        "requests": clients * EACH,
        "prompt_tokens": last.prompt_tokens,
        "answer_tokens": last.tokens,
        "tokens_per_s": median(&our_rates),
        "first_ms": first(ours),
    });
    if !theirs.is_empty() {
        let ratio = ratio(&our_rates, &their_rates);
        line += &format!(
            "; the other {:.1} tokens/s, first text after {:.0} ms; ratio {ratio:.2}",
            median(&their_rates),
            first(theirs)
        );
        let last = theirs.last().copied().unwrap_or_default();
        report["their_prompt_tokens"] = json!(last.prompt_tokens);
        report["their_answer_tokens"] = json!(last.tokens);
        report["their_tokens_per_s"] = json!(median(&their_rates));
        report["their_first_ms"] = json!(first(theirs));
        report["ratio"] = json!(ratio);
    }
    println!("{line}");
    report
}
