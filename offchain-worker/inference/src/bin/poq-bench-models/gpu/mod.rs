//! Whether a card computes what the processor does, and how fast, beside PyTorch on the same weights in the same run.
//!
//! Nothing has to be installed: models with random weights are made on the spot, in every architecture and format that the
//! engine loads, and one of them in the shape of a real one of seven billion weights. `scripts/gpu-check.sh` calls it.

mod make;

use crate::peer::Peer;
use candle_core::{quantized::GgmlDType, DType};
use make::{word, DecoderShape, EncoderShape, Maker, Tensors};
use poq_inference::{
    encode::cosine,
    engine::{BatchGenerator, CandleGenerator, Continuation},
    load_cross_encoder, load_encoder, DeviceSpec, Error, LoadOptions, ModelStore, Precision, Role,
};
use serde::Deserialize;
use serde_json::{json, Value};
use std::{
    panic::{catch_unwind, AssertUnwindSafe},
    path::PathBuf,
    time::{Duration, Instant},
};

/// Tokens of the prompt that logits are compared after: more than one piece of a prompt.
const PROMPT: usize = 600;

/// Tokens of the answers that are compared.
const ANSWER: usize = 32;

/// `poq-bench-models gpu-check`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What is checked: cuda:N, metal, or cpu to try this program itself.
    #[arg(long, default_value = "cuda:0", value_name = "DEVICE")]
    device: DeviceSpec,

    /// Where the models are made: 16 GB of room for the large one. The folder is emptied by whoever made it.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Write what was found to this file, after each part.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Make the large model small: for a check without a card.
    #[arg(long)]
    small: bool,

    /// No part is begun after so many seconds.
    #[arg(long, default_value_t = 360, value_name = "SECONDS")]
    within: u64,

    /// Only these parts; all where none is named.
    #[arg(long = "part", value_name = "PART", value_parser = ["decoders", "batch", "encoders", "large"])]
    parts: Vec<String>,

    /// The Python that has PyTorch and transformers; without it, only our side is measured.
    #[arg(long, value_name = "FILE", requires = "peer")]
    python: Option<PathBuf>,

    /// The program of the other side, for that Python.
    #[arg(long, value_name = "FILE")]
    peer: Option<PathBuf>,
}

impl Options {
    pub(crate) fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

/// What is being found out.
struct Check<'a> {
    options: &'a Options,
    maker: Maker,
    peer: Option<Peer>,
    started: Instant,
    report: Value,
    /// What is not as it should be.
    wrong: Vec<String>,
}

#[derive(Deserialize)]
struct PeerLogits {
    logits: Vec<f32>,
}

#[derive(Deserialize)]
struct PeerRun {
    seconds: f64,
    #[serde(default)]
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct PeerOutputs {
    seconds: f64,
    outputs: Vec<Vec<f32>>,
}

pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let started = Instant::now();
    let card = options.device.check()?;
    let mut peer = match (&options.python, &options.peer) {
        (Some(python), Some(program)) => Some(Peer::start(python, program, options.threads())?),
        _ => None,
    };
    let mut about = Value::Null;
    if let Some(asked) = &mut peer {
        match asked.ask::<Value>(&json!({ "do": "about", "device": options.device.to_string() })) {
            Ok(reply) => about = reply,
            Err(error) => {
                eprintln!("{error}; nothing is compared with PyTorch");
                peer = None;
            }
        }
    }
    println!("{}: {card}; PyTorch: {about}", options.device);
    let report = json!({
        "device": options.device.to_string(), "card": card, "pytorch": about, "threads": options.threads(),
        "version": env!("CARGO_PKG_VERSION"), "small": options.small, "parts": {},
    });
    let maker = Maker::new(&options.dir, options.device.open()?);
    let mut check = Check { options, maker, peer, started, report, wrong: Vec::new() };
    check.part("decoders", Check::decoders)?;
    check.part("batch", Check::batch)?;
    check.part("encoders", Check::encoders)?;
    check.part("large", Check::large)?;
    for wrong in &check.wrong {
        println!("WRONG: {wrong}");
    }
    match check.wrong.len() {
        0 => Ok(()),
        count => Err(Error::Install(format!("{count} things are not as they should be"))),
    }
}

/// The deviation of numbers from their mean.
fn deviation(values: &[f32]) -> f64 {
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len().max(1) as f64;
    let squares = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
    (squares / values.len().max(1) as f64).sqrt()
}

/// The largest difference; infinite where there is one that is not a number, or the lengths differ.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let difference = |(a, b): (&f32, &f32)| {
        let difference = f64::from((a - b).abs());
        if difference.is_nan() {
            f64::INFINITY
        } else {
            difference
        }
    };
    a.iter().zip(b).map(difference).fold(0.0, f64::max)
}

fn same(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A text of tokens that has nothing to do with another's.
fn tokens(count: usize, vocabulary: usize, seed: usize) -> Vec<u32> {
    let limit = vocabulary.min(250);
    let mut state = seed as u64 * 7919 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + ((state >> 33) as usize % (limit - 1)) as u32
    };
    (0..count).map(|_| next()).collect()
}

fn words(count: usize, vocabulary: usize, seed: usize) -> String {
    let words: Vec<String> = tokens(count, 250, seed)
        .into_iter()
        .map(|token| word(5 + token as usize * 97 % (vocabulary - 5)))
        .collect();
    words.join(" ")
}

impl Check<'_> {
    fn part(&mut self, name: &str, find: fn(&mut Self) -> Result<Value, Error>) -> Result<(), Error> {
        let parts = &self.options.parts;
        if !parts.is_empty() && !parts.iter().any(|part| part == name) {
            return Ok(());
        }
        if self.started.elapsed() > Duration::from_secs(self.options.within) {
            println!("{name}: left out, there is no time for it");
            self.report["parts"][name] = json!("left out: no time");
        } else {
            let begun = Instant::now();
            // A part that fails, however it does, does not take the others along.
            let found = catch_unwind(AssertUnwindSafe(|| find(self)))
                .unwrap_or_else(|_| Err(Error::Install("it panicked, see above".to_string())))
                .unwrap_or_else(|error| {
                    self.wrong.push(format!("{name}: {error}"));
                    json!({ "error": error.to_string() })
                });
            self.report["parts"][name] = json!({ "seconds": begun.elapsed().as_secs_f64(), "found": found });
        }
        self.report["wrong"] = json!(self.wrong);
        let Some(path) = &self.options.json else { return Ok(()) };
        std::fs::write(path, format!("{:#}\n", self.report))
            .map_err(|e| Error::Io { path: path.clone(), source: e })
    }

    fn expect(&mut self, ok: bool, what: impl FnOnce() -> String) {
        if !ok {
            self.wrong.push(what());
        }
    }

    fn on(&self, device: DeviceSpec, precision: Precision) -> LoadOptions {
        LoadOptions { device, precision, ..LoadOptions::default() }
    }

    fn continuation(
        &self,
        store: &ModelStore,
        name: &str,
        options: LoadOptions,
        prompt: &[u32],
    ) -> Result<Continuation, Error> {
        CandleGenerator::load(&store.verify(name)?, &options)?.continue_tokens(prompt, ANSWER)
    }

    /// Every architecture in every format, on the processor and on the device, in every precision.
    fn decoders(&mut self) -> Result<Value, Error> {
        let device = self.options.device;
        let mut found = Vec::new();
        for model_type in ["llama", "qwen2"] {
            let shape = DecoderShape {
                model_type,
                layers: 3,
                hidden: 512,
                heads: 8,
                kv_heads: 2,
                feed: 1536,
                vocabulary: 1024,
                context: 1024,
            };
            let tensors = self.maker.decoder_weights(&shape, DType::F32)?;
            let name = format!("{model_type}-f32");
            self.maker.decoder(&name, &shape, &tensors)?;
            found.push(self.decoder(&name, &shape, Precision::F32)?);
            let half: Tensors = tensors
                .iter()
                .map(|(name, tensor)| Ok((name.clone(), tensor.to_dtype(DType::BF16)?)))
                .collect::<candle_core::Result<_>>()
                .map_err(|e| Error::Install(e.to_string()))?;
            let name = format!("{model_type}-bf16");
            self.maker.decoder(&name, &shape, &half)?;
            found.push(self.decoder(&name, &shape, Precision::F32)?);
            for (format, label) in [
                (GgmlDType::Q4K, "q4_k"),
                (GgmlDType::Q8_0, "q8_0"),
                (GgmlDType::F16, "f16"),
                (GgmlDType::Q4_0, "q4_0"),
                (GgmlDType::Q4_1, "q4_1"),
                (GgmlDType::Q5_0, "q5_0"),
                (GgmlDType::Q5K, "q5_k"),
                (GgmlDType::Q6K, "q6_k"),
            ]
            .into_iter()
            // The formats have nothing to do with the architecture.
            .take(if model_type == "llama" { 8 } else { 2 })
            {
                let name = format!("{model_type}-gguf-{label}");
                self.maker.gguf(&name, &shape, &tensors, format)?;
                found.push(self.decoder(&name, &shape, Precision::F32)?);
            }
        }
        Ok(json!({ "device": device.to_string(), "models": found }))
    }

    fn decoder(&mut self, name: &str, shape: &DecoderShape, exact: Precision) -> Result<Value, Error> {
        let store = self.maker.store()?;
        let device = self.options.device;
        let prompt = tokens(PROMPT, shape.vocabulary, 1);
        let reference = self.continuation(&store, name, self.on(DeviceSpec::Cpu, exact), &prompt)?;
        let unit = deviation(&reference.first_logits);
        let mut rows = Vec::new();
        // Of logits' deviation: what rounding may change. Our own code rounds activations to eight bits where weights are
        // quantised.
        for (device, precision, limit) in [
            (DeviceSpec::Cpu, Precision::Auto, 0.2),
            (device, Precision::F32, 2e-3),
            (device, Precision::Auto, 0.05),
            (device, Precision::F16, 0.05),
            (device, Precision::Bf16, 0.3),
        ] {
            // Of what is quantised only what an operator would choose. On processors candle sums bf16 in bf16, which no card
            // does.
            let sixteen = matches!(precision, Precision::F16 | Precision::Bf16);
            if (sixteen && name.contains("gguf"))
                || (device == DeviceSpec::Cpu && precision == Precision::Bf16)
            {
                continue;
            }
            let ours = self.continuation(&store, name, self.on(device, precision), &prompt)?;
            let off = difference(&reference.first_logits, &ours.first_logits) / unit;
            let alike = same(&reference.tokens, &ours.tokens);
            println!("{name} {device} {precision}: logits differ by {off:.2e} deviations, {alike} of {ANSWER} tokens are the same");
            self.expect(off < limit, || {
                format!("{name} on {device} in {precision}: logits differ by {off:.2e} deviations")
            });
            rows.push(json!({
                "device": device.to_string(), "dtype": precision, "logits_off": off, "same_tokens": alike,
            }));
        }
        let mut found = json!({
            "model": name, "logits_deviation": unit, "answer": ANSWER, "prompt": PROMPT, "against_cpu_f32": rows,
        });
        if !name.contains("gguf") {
            for (device, dtype) in [
                ("cpu".to_string(), "float32"),
                (device.to_string(), "float32"),
                (device.to_string(), "bfloat16"),
            ] {
                let Some(peer) = &mut self.peer else { break };
                let folder = store.model_dir(name);
                let asked = json!({ "do": "logits", "folder": folder, "device": device, "dtype": dtype, "tokens": prompt });
                let theirs: PeerLogits = peer.ask(&asked)?;
                let off = difference(&reference.first_logits, &theirs.logits) / unit;
                println!("{name} PyTorch {device} {dtype}: logits differ by {off:.2e} deviations");
                let limit = if dtype == "float32" { 2e-3 } else { 0.3 };
                self.expect(off < limit, || {
                    format!("{name}: PyTorch on {device} in {dtype} differs by {off:.2e} deviations")
                });
                found[format!("pytorch_{device}_{dtype}_off")] = json!(off);
            }
        }
        Ok(found)
    }

    /// Prompts of different lengths at once give what each gives alone.
    fn batch(&mut self) -> Result<Value, Error> {
        let store = self.maker.store()?;
        let mut found = Vec::new();
        for (name, precision) in [
            ("llama-f32", Precision::F32),
            ("qwen2-f32", Precision::F32),
            ("qwen2-gguf-q4_k", Precision::Auto),
        ] {
            let device = self.options.device;
            if device == DeviceSpec::Cpu && precision == Precision::Auto {
                // Our own code answers one after the other.
                continue;
            }
            let model = store.verify(name)?;
            let mut alone = CandleGenerator::load(&model, &self.on(device, precision))?;
            let prompts: Vec<Vec<u32>> = (0..12).map(|i| tokens(3 + i * i * 5, 1024, 10 + i)).collect();
            let expected = prompts
                .iter()
                .map(|prompt| Ok(alone.continue_tokens(prompt, ANSWER)?.tokens))
                .collect::<Result<Vec<_>, Error>>()?;
            let options = LoadOptions { parallel: Some(5), ..self.on(device, precision) };
            let together = answers(&BatchGenerator::load(&model, &options)?, &prompts, ANSWER)?.0;
            let alike: Vec<usize> = expected.iter().zip(&together).map(|(a, b)| same(a, b)).collect();
            println!(
                "{name} {device} {precision}: of {ANSWER} tokens, in a batch and alone the same: {alike:?}"
            );
            let exact = precision != Precision::F32 || alike.iter().all(|count| *count == ANSWER);
            self.expect(exact, || format!("{name}: answers in a batch are not those alone: {alike:?}"));
            found.push(json!({ "model": name, "dtype": precision, "same_tokens": alike }));
        }
        Ok(json!(found))
    }

    /// Encoders: what they give, and how many texts a second.
    fn encoders(&mut self) -> Result<Value, Error> {
        let small = self.options.small;
        let device = self.options.device;
        let texts = if small { 64 } else { 2048 };
        let mut found = Vec::new();
        // The shapes of all-MiniLM-L6, of ms-marco-MiniLM-L12 and of BERT-base.
        for (name, layers, hidden, heads, cross, pooling) in [
            ("minilm-6", 6, 384, 12, false, "mean"),
            ("minilm-12-cross", 12, 384, 12, true, "cls"),
            ("bert-base", 12, 768, 12, false, "cls"),
        ] {
            let layers = if small { 2 } else { layers };
            let shape = EncoderShape { layers, hidden, heads, vocabulary: 30_522, cross, pooling };
            self.maker.encoder(name, &shape)?;
            let store = self.maker.store()?;
            let inputs: Vec<(String, String)> = (0..texts)
                .map(|i| (words(8 + i % 9, 30_522, i), words(32 + i * 37 % 160, 30_522, 5000 + i)))
                .collect();
            let few = &inputs[..inputs.len().min(48)];
            let reference = encode(&store, name, &self.on(DeviceSpec::Cpu, Precision::F32), few, 1)?.0;
            let unit = if cross { deviation(&reference.concat()) } else { 1.0 };
            let mut off = Vec::new();
            for (device, precision) in [(DeviceSpec::Cpu, Precision::Auto), (device, Precision::Auto)] {
                let outputs = encode(&store, name, &self.on(device, precision), few, 1)?.0;
                let far = far(cross, unit, &reference, &outputs);
                println!("{name} {device}: {far:.2e} from the processor in f32");
                self.expect(far < 2e-3, || {
                    format!("{name} on {device}: {far:.2e} from the processor in f32")
                });
                off.push(json!({ "device": device.to_string(), "off": far }));
            }
            let (_, seconds) = encode(&store, name, &self.on(device, Precision::Auto), &inputs, 3)?;
            let mut row = json!({
                "model": name, "shape": shape.json(), "texts": texts, "against_cpu_f32": off,
                "texts_per_s": texts as f64 / seconds,
            });
            let mut line = format!("{name}: {:.0} texts/s", texts as f64 / seconds);
            if let Some(peer) = &mut self.peer {
                let mut theirs: Vec<(&str, PeerOutputs)> = Vec::new();
                // Processors have no fast products of halves.
                let dtypes: &[&str] =
                    if device == DeviceSpec::Cpu { &["float32"] } else { &["float32", "float16"] };
                for dtype in dtypes.iter().copied() {
                    let folder = store.model_dir(name);
                    let asked = json!({
                        "do": "encode", "folder": folder, "device": device.to_string(), "dtype": dtype, "pairs": cross,
                        "pooling": pooling, "inputs": inputs, "rounds": 3,
                    });
                    theirs.push((dtype, peer.ask(&asked)?));
                }
                for (dtype, theirs) in theirs {
                    let far = far(cross, unit, &reference, &theirs.outputs[..few.len()]);
                    row[format!("pytorch_{dtype}_texts_per_s")] = json!(texts as f64 / theirs.seconds);
                    row[format!("pytorch_{dtype}_off")] = json!(far);
                    line +=
                        &format!(", PyTorch {dtype} {:.0} ({far:.1e} off)", texts as f64 / theirs.seconds);
                    self.expect(dtype != "float32" || far < 2e-3, || {
                        format!("{name}: PyTorch is {far:.2e} off")
                    });
                }
            }
            println!("{line}");
            found.push(row);
        }
        Ok(json!(found))
    }

    /// The shape of Qwen2.5-7B.
    fn large(&mut self) -> Result<Value, Error> {
        let small = self.options.small;
        let device = self.options.device;
        let (layers, hidden, heads, feed, vocabulary) =
            if small { (2, 448, 7, 2368, 4096) } else { (28, 3584, 28, 18_944, 152_064) };
        let shape = DecoderShape {
            model_type: "qwen2",
            layers,
            hidden,
            heads,
            kv_heads: heads / 7,
            feed,
            vocabulary,
            context: 4096,
        };
        let begun = Instant::now();
        let tensors = self.maker.decoder_weights(&shape, DType::BF16)?;
        self.maker.decoder("large", &shape, &tensors)?;
        drop(tensors);
        let store = self.maker.store()?;
        let made = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let model = store.verify("large")?;
        let verified = begun.elapsed().as_secs_f64();
        let mut found =
            json!({ "shape": shape.json(), "seconds_to_make": made, "seconds_to_hash": verified });

        let precision = if device == DeviceSpec::Cpu { Precision::F32 } else { Precision::Auto };
        let begun = Instant::now();
        let prompt = tokens(PROMPT, vocabulary, 1);
        let ours = {
            let mut alone = CandleGenerator::load(&model, &self.on(device, precision))?;
            found["seconds_to_load"] = json!(begun.elapsed().as_secs_f64());
            alone.continue_tokens(&prompt, ANSWER)?
        };
        println!(
            "large: made in {made:.0} s, hashed in {verified:.0} s, loaded in {:.0} s",
            found["seconds_to_load"].as_f64().unwrap_or_default()
        );
        let folder = store.model_dir("large");
        if let Some(peer) = &mut self.peer {
            // Thirty-two bits are the truth that both are measured by.
            let mut ask = |dtype: &str| -> Result<Vec<f32>, Error> {
                let asked = json!({ "do": "logits", "folder": folder, "device": device.to_string(), "dtype": dtype, "tokens": prompt });
                Ok(peer.ask::<PeerLogits>(&asked)?.logits)
            };
            let truth = ask("float32")?;
            let theirs = ask("bfloat16")?;
            let unit = deviation(&truth);
            let (our_off, their_off) =
                (difference(&truth, &ours.first_logits) / unit, difference(&truth, &theirs) / unit);
            println!("large: from PyTorch in f32 our logits differ by {our_off:.2e} deviations, PyTorch's in bf16 by {their_off:.2e}");
            found["logits_off"] = json!(our_off);
            found["pytorch_bfloat16_logits_off"] = json!(their_off);
            self.expect(our_off < 0.1, || {
                format!("large: our logits differ from PyTorch's in f32 by {our_off:.2e} deviations")
            });
        }

        let (prompt_tokens, new_tokens) = if small { (32, 8) } else { (128, 64) };
        let most = if small { 8 } else { 128 };
        let options = LoadOptions { parallel: Some(most), ..self.on(device, precision) };
        let batch = BatchGenerator::load(&model, &options)?;
        let prompts = |count: usize, length: usize| -> Vec<Vec<u32>> {
            (0..count).map(|i| tokens(length, vocabulary, 100 + i)).collect()
        };
        // Kernels are loaded and chosen at their first use.
        answers(&batch, &prompts(most, prompt_tokens), 4)?;
        let mut rates = Vec::new();
        for count in [1, 8, 32, 128].into_iter().filter(|count| *count <= most) {
            let (_, seconds) = answers(&batch, &prompts(count, prompt_tokens), new_tokens)?;
            let rate = (count * new_tokens) as f64 / seconds;
            println!("large: {count} at once, prompts of {prompt_tokens}: {rate:.0} tokens/s");
            rates.push((count, rate));
        }
        let (seen, long) = if small { (4, 64) } else { (64, 512) };
        let (_, seconds) = answers(&batch, &prompts(seen, long), 1)?;
        let prompts_per_s = seen as f64 / seconds;
        println!(
            "large: {prompts_per_s:.1} prompts/s of {long} tokens, {:.0} tokens/s",
            prompts_per_s * long as f64
        );
        drop(batch);
        found["prompt_tokens"] = json!(prompt_tokens);
        found["new_tokens"] = json!(new_tokens);
        found["prompts_per_s_of"] = json!(long);
        found["prompts_per_s"] = json!(prompts_per_s);
        found["tokens_per_s"] = rates.iter().map(|(count, rate)| (count.to_string(), json!(rate))).collect();
        if let Some(peer) = &mut self.peer {
            let mut theirs = serde_json::Map::new();
            let mut generate = |count: usize, length: usize, new: usize| -> Result<PeerRun, Error> {
                peer.ask(&json!({
                    "do": "generate", "folder": folder, "device": device.to_string(),
                    "dtype": if small { "float32" } else { "bfloat16" }, "prompts": prompts(count, length), "new_tokens": new,
                }))
            };
            generate(most, prompt_tokens, 4)?;
            for (count, ours) in &rates {
                let run = generate(*count, prompt_tokens, new_tokens)?;
                let rate = (count * run.tokens.len()) as f64 / run.seconds;
                println!(
                    "large: {count} at once, PyTorch: {rate:.0} tokens/s (ours is {:.2} times as fast)",
                    ours / rate
                );
                theirs.insert(count.to_string(), json!(rate));
            }
            found["pytorch_tokens_per_s"] = Value::Object(theirs);
            // In batches of eight: what fits beside the intermediate results of the longest.
            let mut seconds = 0.0;
            for _ in 0..seen / 4 {
                seconds += generate(4, long, 1)?.seconds;
            }
            println!("large: PyTorch {:.1} prompts/s of {long} tokens", seen as f64 / seconds);
            found["pytorch_prompts_per_s"] = json!(seen as f64 / seconds);
            peer.ask::<Value>(&json!({ "do": "forget" }))?;
        }
        Ok(found)
    }
}

/// Asks for all answers at once; returns them and how long they took together.
fn answers(
    model: &BatchGenerator,
    prompts: &[Vec<u32>],
    count: usize,
) -> Result<(Vec<Vec<u32>>, f64), Error> {
    let started = Instant::now();
    let answers = std::thread::scope(|scope| {
        let asked: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                let mut model = model.share();
                scope.spawn(move || model.continue_tokens(prompt, count))
            })
            .collect();
        asked
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(answer) => answer,
                Err(_) => Err(Error::Install("a thread that waited for an answer panicked".to_string())),
            })
            .collect::<Result<Vec<_>, Error>>()
    })?;
    Ok((answers, started.elapsed().as_secs_f64()))
}

/// What an encoder gives, and the seconds of the fastest of so many rounds after a first one.
fn encode(
    store: &ModelStore,
    name: &str,
    options: &LoadOptions,
    inputs: &[(String, String)],
    rounds: usize,
) -> Result<(Vec<Vec<f32>>, f64), Error> {
    type Run<'a> = Box<dyn FnMut() -> Result<Vec<Vec<f32>>, Error> + 'a>;
    let mut run: Run<'_> = if store.manifest().get(name)?.role == Role::CrossEncoder {
        let mut model = load_cross_encoder(store, name, options)?;
        let pairs: Vec<(&str, &str)> = inputs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        Box::new(move || Ok(model.score(&pairs)?.into_iter().map(|logit| vec![logit]).collect()))
    } else {
        let mut model = load_encoder(store, name, options)?;
        let texts: Vec<&str> = inputs.iter().map(|(_, text)| text.as_str()).collect();
        Box::new(move || model.embed(&texts))
    };
    let mut outputs = run()?;
    let mut best = f64::INFINITY;
    for _ in 1..rounds {
        let started = Instant::now();
        outputs = run()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok((outputs, best))
}

/// How far outputs are from each other: the largest difference of logits, in deviations of theirs, or of 1 and a cosine.
fn far(cross: bool, unit: f64, a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    if cross {
        return difference(&a.concat(), &b.concat()) / unit;
    }
    a.iter().zip(b).map(|(a, b)| 1.0 - cosine(a, b)).fold(0.0, f64::max)
}
