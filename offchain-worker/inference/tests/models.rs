//! The installed models, for real. `scripts/install-models.sh` installs them; without it these tests fail and say so.
//!
//! One test per model, so that each is loaded once.

use poq_inference::{
    data_dir,
    encode::{cosine, sigmoid},
    engine::{BatchGenerator, CandleGenerator},
    load_cross_encoder, load_encoder, load_generator, load_qa, load_scorer, ChatRole, DeviceSpec, Error,
    FinishReason, GenerateRequest, Generator, LoadOptions, Message, ModelStore, ModelThread, Precision,
    Prompt, Query, Sink, ThreadOptions,
};
use std::time::{Duration, Instant};

const SMOLLM: &str = "smollm2-135m-instruct";
const QWEN_SMALL: &str = "qwen2.5-coder-0.5b-instruct";
const QWEN: &str = "qwen2.5-coder-1.5b-instruct";

const AMAZON: &str = "The Amazon rainforest is a moist broadleaf forest that covers most of the Amazon basin of South \
    America. The majority of the forest is contained within Brazil, with 60% of the rainforest, followed by Peru with 13%, \
    Colombia with 10%, and with minor amounts in Venezuela, Ecuador and Bolivia.";
const AMAZON_QUESTION: &str = "Which country contains most of the Amazon rainforest?";

fn store() -> ModelStore {
    ModelStore::open_default()
}

/// The value, or a failure that says what is missing and which script installs it.
fn need<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

fn generator(name: &str) -> Box<dyn Generator> {
    need(load_generator(&store(), name, &LoadOptions::default()))
}

/// On candle's operations, which is how GPUs run a model.
#[test]
fn requests_answered_at_once_are_answered_as_each_alone() {
    answered_at_once(Precision::F32);
}

/// On our own code: to the last bit of every probability.
#[test]
fn requests_answered_at_once_on_a_processor_are_answered_as_each_alone() {
    answered_at_once(Precision::Auto);
}

/// Greedy and sampled, with a stop text and an end token among them, and beginnings that they share.
fn answered_at_once(precision: Precision) {
    let options = LoadOptions { precision, parallel: Some(3), ..LoadOptions::on(DeviceSpec::Cpu) };
    let model = need(store().verify(SMOLLM));
    let ask = |question: &str| GenerateRequest::question("", question).with_max_tokens(16);
    let requests = [
        ask("Name three colours."),
        ask("What is the capital of France?").with_sampling(3, 0.7),
        GenerateRequest::question(AMAZON, AMAZON_QUESTION).with_max_tokens(16),
        GenerateRequest { stop: vec![" ".into()], ..ask("Who are you?") },
        GenerateRequest::question(AMAZON, "Which is the second?").with_max_tokens(16),
    ]
    .map(|request| GenerateRequest { trace: true, ..request });
    let expected: Vec<_> = {
        let mut alone = need(CandleGenerator::load(&model, &options));
        requests.iter().map(|request| need(alone.generate(request))).collect()
    };
    let together = need(BatchGenerator::load(&model, &options));
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = requests
            .iter()
            .map(|request| {
                let mut model = together.share();
                scope.spawn(move || need(model.generate(request)))
            })
            .collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (one, other) in expected.iter().zip(&answers) {
        assert_eq!((&one.text, one.finish_reason), (&other.text, other.finish_reason));
        assert_eq!(
            (one.prompt_tokens, one.completion_tokens),
            (other.prompt_tokens, other.completion_tokens)
        );
        if precision == Precision::Auto {
            assert_eq!(one.trace, other.trace);
        }
    }
    let mut cancelled = ask("Count to a thousand.").with_max_tokens(2000);
    cancelled.deadline = Some(Instant::now() + Duration::from_millis(300));
    let answer = need(together.share().generate(&cancelled));
    assert_eq!(answer.finish_reason, FinishReason::Deadline);
    let error = together.share().generate(&ask("x").with_max_tokens(5000)).unwrap_err();
    assert!(error.is_bad_request(), "{error}");
}

#[test]
fn smollm_is_deterministic_and_bounded() {
    let mut model = need(CandleGenerator::load(&need(store().verify(SMOLLM)), &LoadOptions::default()));
    let codec = need(CandleGenerator::load(&need(store().verify(SMOLLM)), &LoadOptions::default()));
    let count = |prompt: &Prompt| need(codec.tokens(prompt)).len();
    assert_eq!(model.context_tokens(), 4096);

    let greedy = GenerateRequest::question("", "Name three colours.").with_max_tokens(24);
    let first = need(model.generate(&greedy));
    assert!(!first.text.is_empty() && first.completion_tokens <= 24, "{first:?}");
    assert_eq!(first.prompt_tokens, count(&greedy.prompt));
    // Another request in between leaves no trace.
    let other = need(model.generate(&GenerateRequest::question("", "Who are you?").with_max_tokens(8)));
    assert_eq!(other.finish_reason, FinishReason::Length, "{other:?}");
    let again = need(model.generate(&greedy));
    assert_eq!((&first.text, first.completion_tokens), (&again.text, again.completion_tokens));

    // What is told on the way is the answer, in more than one part.
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = told.clone();
    let sink = Some(Sink::new(move |text: &str| heard.lock().unwrap().push(text.to_string())));
    let streamed = need(model.generate(&GenerateRequest { sink, trace: true, ..greedy.clone() }));
    assert_eq!(streamed.text, first.text);
    let told = told.lock().unwrap();
    assert!(told.len() > 3 && told.concat() == first.text, "{told:?}");
    let trace = streamed.trace.unwrap();
    assert_eq!(
        (trace.tokens.len(), trace.logprobs.len()),
        (first.completion_tokens, first.completion_tokens)
    );
    assert!(trace.logprobs.iter().all(|p| (-20.0..=0.0).contains(p)), "{:?}", trace.logprobs);

    let sampled = |seed| greedy.clone().with_max_tokens(12).with_sampling(seed, 1.5);
    let one = need(model.generate(&sampled(1))).text;
    assert_eq!(one, need(model.generate(&sampled(1))).text, "the same seed gives the same text");
    let differs = (2..5).any(|seed| need(model.generate(&sampled(seed))).text != one);
    assert!(differs, "other seeds give other texts");

    let mut stopped = greedy.clone();
    let word = first.text.split_whitespace().nth(2).unwrap().to_string();
    stopped.stop = vec![word.clone()];
    let stopped = need(model.generate(&stopped));
    assert_eq!(stopped.finish_reason, FinishReason::Stop);
    assert!(!stopped.text.contains(&word) && first.text.starts_with(&stopped.text), "{stopped:?}");

    // Longer than the context, but below the bound in bytes.
    let long = GenerateRequest::new(Prompt::Text("word ".repeat(6_000))).with_max_tokens(96);
    match model.generate(&long) {
        Err(Error::PromptTooLong { tokens, limit }) => {
            assert!(tokens >= 6_000);
            assert_eq!(limit, 4_000);
        }
        other => panic!("{other:?}"),
    }
    let huge = GenerateRequest::new(Prompt::Text("x".repeat(1 << 20)));
    assert!(matches!(model.generate(&huge), Err(Error::PromptTooLarge { .. })));

    let late = greedy.clone().with_deadline(Instant::now());
    assert_eq!(need(model.generate(&late)).finish_reason, FinishReason::Deadline);
    let cancelled = greedy.clone();
    cancelled.cancel.cancel();
    assert_eq!(need(model.generate(&cancelled)).finish_reason, FinishReason::Cancelled);

    // Text that spells control tokens stays text: as many tokens as it has characters' worth, not one.
    let control = Prompt::Chat(vec![Message::new(ChatRole::User, "<|im_end|>")]);
    let plain = Prompt::Chat(vec![Message::new(ChatRole::User, "x")]);
    assert!(count(&control) >= count(&plain) + 4);

    // Digits are split one by one, and no space is put in front.
    assert_eq!(count(&Prompt::Text("1234567".into())), 7);
}

#[test]
fn small_qwen_answers() {
    let mut model = generator(QWEN_SMALL);
    let request = GenerateRequest::question(AMAZON, AMAZON_QUESTION).with_max_tokens(24);
    let answer = need(model.generate(&request));
    assert!(answer.text.contains("Brazil"), "{answer:?}");
    assert_eq!(answer.finish_reason, FinishReason::Stop);
    assert_eq!(answer.text, need(model.generate(&request)).text);
}

#[test]
fn large_qwen_answers() {
    let answer = need(
        generator(QWEN).generate(&GenerateRequest::question(AMAZON, AMAZON_QUESTION).with_max_tokens(16)),
    );
    assert!(answer.text.contains("Brazil"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_ends_when_nobody_waits_for_it() {
    let thread = need(
        tokio::task::spawn_blocking(|| {
            ModelThread::spawn(SMOLLM, ThreadOptions::default(), || {
                load_generator(&store(), SMOLLM, &LoadOptions::default())
            })
        })
        .await
        .unwrap(),
    );
    let handle = thread.handle();
    let endless = GenerateRequest::question("", "Tell a very long story.").with_max_tokens(2_000);
    let cancel = endless.cancel.clone();
    let gave_up = tokio::time::timeout(Duration::from_millis(500), handle.generate(endless)).await;
    assert!(gave_up.is_err() && cancel.is_cancelled());
    // The thread is free again long before 2,000 tokens could have been generated.
    let started = Instant::now();
    let next = need(handle.generate(GenerateRequest::question("", "Hello").with_max_tokens(4)).await);
    assert!(!next.text.is_empty());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// Likeness must order these as people do, and a batch must give what single texts give.
fn check_encoder(name: &str) {
    let mut encoder = need(load_encoder(&store(), name, &LoadOptions::default()));
    let long = "rain ".repeat(3_000);
    let texts = [
        "A man is eating food.",
        "A man eats a piece of bread.",
        "The girl is carrying a baby.",
        "",
        long.as_str(),
        "\u{0}\u{FFFD} 🦀 日本語のテキスト",
    ];
    let batch = need(encoder.embed(&texts));
    assert_eq!(batch.len(), texts.len());
    for (text, vector) in texts.iter().zip(&batch) {
        assert_eq!(vector.len(), encoder.dimension());
        let norm: f32 = vector.iter().map(|v| v * v).sum();
        assert!((norm - 1.0).abs() < 1e-4, "{name}: length {norm}");
        let single = need(encoder.embed(&[text]));
        for (a, b) in single[0].iter().zip(vector) {
            assert!((a - b).abs() < 1e-5, "{name}: batch and single differ: {a} {b}");
        }
    }
    let (alike, unlike) = (cosine(&batch[0], &batch[1]), cosine(&batch[0], &batch[2]));
    assert!(alike > 0.6 && alike > unlike + 0.3, "{name}: {alike} {unlike}");
    assert!(need(encoder.embed(&[])).is_empty());
}

#[test]
fn all_minilm_orders_likeness() {
    check_encoder("all-minilm-l6-v2");
}

#[test]
fn paraphrase_minilm_orders_likeness() {
    check_encoder("paraphrase-minilm-l3-v2");
}

#[test]
fn bge_small_orders_likeness() {
    check_encoder("bge-small-en-v1.5");
}

#[test]
fn cross_encoder_gives_the_known_logits() {
    let mut model = need(load_cross_encoder(&store(), "ms-marco-minilm-l12-v2", &LoadOptions::default()));
    let question = "How many people live in Berlin?";
    let pairs = [
        (
            question,
            "Berlin has a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
        ),
        (question, "New York City is famous for the Metropolitan Museum of Art."),
    ];
    let logits = need(model.score(&pairs));
    // candle in f32 on the dequantised weights; onnxruntime on the int8 ones gives 9.386 and -11.210.
    for (found, expected) in logits.iter().zip([9.267, -11.187]) {
        assert!((found - expected).abs() < 5e-3, "{logits:?}");
    }
    assert!(sigmoid(logits[0]) > 0.99 && sigmoid(logits[1]) < 0.01);
    for (pair, batched) in pairs.iter().zip(&logits) {
        assert!((need(model.score(&[*pair]))[0] - batched).abs() < 1e-4);
    }
    let long = "x y ".repeat(20_000);
    assert!(need(model.score(&[("", ""), (question, long.as_str())])).iter().all(|l| l.is_finite()));
}

#[test]
fn scorers_rank_answers_and_survive_anything() {
    let query = Query { context: AMAZON.to_string(), question: AMAZON_QUESTION.to_string() };
    let outputs: Vec<String> = [
        "Most of the Amazon rainforest is in Brazil.",
        "Brazil contains 60% of the Amazon rainforest.",
        "The best recipe for pancakes uses buttermilk.",
        "",
        "the the the the the the the the the the the the the the the the the the",
        AMAZON_QUESTION,
    ]
    .map(str::to_string)
    .into();
    let hostile = vec![
        "\u{0}\u{1}\u{2}".to_string(),
        "🦀".repeat(100_000),
        " ".repeat(1 << 20),
        "<|im_end|>".repeat(1_000),
        "\u{202E}\u{FEFF}".to_string(),
    ];
    for name in ["all-minilm-l6-v2", "paraphrase-minilm-l3-v2", "bge-small-en-v1.5", "ms-marco-minilm-l12-v2"]
    {
        let mut scorer = need(load_scorer(&store(), name, &LoadOptions::default()));
        let scores = need(scorer.score(&query, &outputs));
        assert_eq!(scores.len(), outputs.len());
        let good = scores[0].min(scores[1]);
        for (bad, output) in scores[2..].iter().zip(&outputs[2..]) {
            assert!(good > bad + 0.2, "{name}: `{output}` {bad}, good {good}");
        }
        assert_eq!(scores[3], 0.0);
        let scores = need(scorer.score(&query, &hostile));
        assert!(scores.iter().all(|s| (0.0..=1.0).contains(s)), "{name}: {scores:?}");
        let empty = Query::default();
        assert!(need(scorer.score(&empty, &outputs)).iter().all(|s| (0.0..=1.0).contains(s)));
        assert!(need(scorer.score(&query, &[])).is_empty());
    }
}

#[test]
fn a_generator_is_no_scorer() {
    let error = match load_scorer(&store(), SMOLLM, &LoadOptions::default()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was loaded"),
    };
    assert!(error.contains("generator") && error.contains("encoder"), "{error}");
}

#[test]
fn questions_are_installed() {
    let items = need(load_qa(&data_dir(store().dir()).join("qa.jsonl")));
    assert!(items.len() >= 40);
    assert!(items.iter().all(|i| !i.context.is_empty() && !i.question.is_empty()));
    let ids: std::collections::BTreeSet<_> = items.iter().map(|i| &i.id).collect();
    assert_eq!(ids.len(), items.len());
}
