//! Encoders that several tasks ask at once: one thread owns the encoder, and what waits is encoded together. A card encodes many
//! texts hardly slower than few; on processors nothing is gained.

use super::{load_cross_encoder, load_encoder, DeviceSpec, LoadOptions};
use crate::{
    encode::{CrossEncoder, Encoder},
    error::{Error, Result},
    manifest::{ModelDigest, Role},
    quality::{
        rubric::{RubricScorer, ScoringEncoder},
        BiEncoderScorer, CrossEncoderScorer, QualityScorer, Rubric,
    },
    store::ModelStore,
};
use parking_lot::Mutex;
use std::{
    sync::{mpsc, Arc},
    thread::JoinHandle,
};

/// Texts that are encoded together at most, besides what one asker brings.
const TOGETHER: usize = 256;

/// Tasks that a card scores at once, where nothing else is said.
const PARALLEL: usize = 8;

type Reply<O> = mpsc::Sender<Result<Vec<O>>>;

/// The thread. It ends when this is dropped.
struct Merger<I, O> {
    ask: Option<mpsc::Sender<(Vec<I>, Reply<O>)>>,
    thread: Option<JoinHandle<()>>,
}

impl<I: Clone + Send + 'static, O: Send + 'static> Merger<I, O> {
    /// Encodes with `run`, which gives one result for each input.
    fn start(name: &str, mut run: impl FnMut(&[I]) -> Result<Vec<O>> + Send + 'static) -> Result<Self> {
        let (ask, asked) = mpsc::channel::<(Vec<I>, Reply<O>)>();
        let thread = std::thread::Builder::new().name(format!("encode {name}")).spawn(move || {
            while let Ok((mut inputs, reply)) = asked.recv() {
                let mut parts = vec![(inputs.len(), reply)];
                while inputs.len() < TOGETHER {
                    let Ok((more, reply)) = asked.try_recv() else { break };
                    parts.push((more.len(), reply));
                    inputs.extend(more);
                }
                answer(&mut run, &inputs, &parts);
            }
        });
        let thread =
            thread.map_err(|e| Error::model(name, format!("no thread could be started for it: {e}")))?;
        Ok(Self { ask: Some(ask), thread: Some(thread) })
    }

    fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn run(&self, inputs: Vec<I>) -> Result<Vec<O>> {
        let (reply, answer) = mpsc::channel();
        let asked = self.ask.as_ref().is_some_and(|ask| ask.send((inputs, reply)).is_ok());
        match answer.recv() {
            Ok(outputs) if asked => outputs,
            // It panicked, and says so in its own words. To whoever runs this model it is the model that panicked: it is loaded
            // again.
            _ => std::panic::resume_unwind(Box::new("the thread that encodes has ended".to_string())),
        }
    }
}

/// Gives everybody their part. Where all together fail, each is tried alone: one's fault is not another's.
fn answer<I: Clone, O>(
    run: &mut impl FnMut(&[I]) -> Result<Vec<O>>,
    inputs: &[I],
    parts: &[(usize, Reply<O>)],
) {
    match run(inputs) {
        Ok(outputs) if outputs.len() == inputs.len() => {
            let mut outputs = outputs.into_iter();
            for (count, reply) in parts {
                let _ = reply.send(Ok(outputs.by_ref().take(*count).collect()));
            }
        }
        other if parts.len() == 1 => {
            let _ = parts[0].1.send(other);
        }
        _ => {
            let mut rest = inputs;
            for (count, reply) in parts {
                let (own, others) = rest.split_at(*count);
                let _ = reply.send(run(own));
                rest = others;
            }
        }
    }
}

impl<I, O> Drop for Merger<I, O> {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            if thread.join().is_err() {
                tracing::error!("the thread that encodes had panicked");
            }
        }
    }
}

/// A bi-encoder that others ask too.
#[derive(Clone)]
struct MergedEncoder {
    name: String,
    digest: ModelDigest,
    dimension: usize,
    query_prefix: String,
    merger: Arc<Merger<String, Vec<f32>>>,
}

impl MergedEncoder {
    fn new(mut encoder: Box<dyn Encoder>) -> Result<Self> {
        Ok(Self {
            name: encoder.name().to_string(),
            digest: encoder.digest(),
            dimension: encoder.dimension(),
            query_prefix: encoder.query_prefix().to_string(),
            merger: Arc::new(Merger::start(&encoder.name().to_string(), move |texts: &[String]| {
                encoder.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>())
            })?),
        })
    }
}

impl Encoder for MergedEncoder {
    fn name(&self) -> &str {
        &self.name
    }

    fn digest(&self) -> ModelDigest {
        self.digest
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn query_prefix(&self) -> &str {
        &self.query_prefix
    }

    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.merger.run(texts.iter().map(|text| (*text).to_string()).collect())
    }
}

/// A cross-encoder that others ask too.
#[derive(Clone)]
struct MergedCrossEncoder {
    name: String,
    digest: ModelDigest,
    merger: Arc<Merger<(String, String), f32>>,
}

impl MergedCrossEncoder {
    fn new(mut encoder: Box<dyn CrossEncoder>) -> Result<Self> {
        Ok(Self {
            name: encoder.name().to_string(),
            digest: encoder.digest(),
            merger: Arc::new(Merger::start(
                &encoder.name().to_string(),
                move |pairs: &[(String, String)]| {
                    encoder.score(&pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>())
                },
            )?),
        })
    }
}

impl CrossEncoder for MergedCrossEncoder {
    fn name(&self) -> &str {
        &self.name
    }

    fn digest(&self) -> ModelDigest {
        self.digest
    }

    fn score(&mut self, pairs: &[(&str, &str)]) -> Result<Vec<f32>> {
        self.merger.run(pairs.iter().map(|(a, b)| ((*a).to_string(), (*b).to_string())).collect())
    }
}

enum Merged {
    Bi(MergedEncoder),
    Cross(MergedCrossEncoder),
}

impl Merged {
    fn is_alive(&self) -> bool {
        match self {
            Self::Bi(encoder) => encoder.merger.is_alive(),
            Self::Cross(encoder) => encoder.merger.is_alive(),
        }
    }

    fn share(&self) -> ScoringEncoder {
        match self {
            Self::Bi(encoder) => ScoringEncoder::Bi(Box::new(encoder.clone())),
            Self::Cross(encoder) => ScoringEncoder::Cross(Box::new(encoder.clone())),
        }
    }
}

/// Where the threads of a [`ModelThread`](crate::ModelThread) get a scorer from: scorers of their own on one loaded encoder, where
/// tasks are scored at once.
pub struct ScorerSource {
    store: ModelStore,
    name: String,
    options: LoadOptions,
    rubric: Option<Arc<Rubric>>,
    shared: Mutex<Option<Merged>>,
}

impl ScorerSource {
    /// Nothing is loaded yet. Without a rubric it scores as [`load_scorer`](super::load_scorer)'s does.
    pub fn new(
        store: ModelStore,
        name: impl Into<String>,
        options: LoadOptions,
        rubric: Option<Arc<Rubric>>,
    ) -> Self {
        Self { store, name: name.into(), options, rubric, shared: Mutex::new(None) }
    }

    /// How many tasks are scored at once: how many threads should ask.
    pub fn parallel(&self) -> usize {
        let usual = if self.options.device == DeviceSpec::Cpu { 1 } else { PARALLEL };
        self.options.parallel.unwrap_or(usual).max(1)
    }

    /// A scorer. The encoder is loaded when nobody asked before, or when the one that was loaded has panicked.
    ///
    /// # Errors
    /// As [`load_scorer`](super::load_scorer); [`Error::Rubric`] where the rubric has no profile for the model.
    pub fn open(&self) -> Result<Box<dyn QualityScorer>> {
        let mut shared = self.shared.lock();
        let encoder = match shared.as_ref().filter(|encoder| encoder.is_alive()) {
            Some(encoder) => encoder.share(),
            None => {
                // The old one's memory first.
                *shared = None;
                let loaded = self.load()?;
                if self.parallel() == 1 {
                    loaded
                } else {
                    let merged = match loaded {
                        ScoringEncoder::Bi(encoder) => Merged::Bi(MergedEncoder::new(encoder)?),
                        ScoringEncoder::Cross(encoder) => Merged::Cross(MergedCrossEncoder::new(encoder)?),
                    };
                    shared.insert(merged).share()
                }
            }
        };
        Ok(match (&self.rubric, encoder) {
            (Some(rubric), encoder) => Box::new(RubricScorer::new(rubric.clone(), encoder)?),
            (None, ScoringEncoder::Bi(encoder)) => Box::new(BiEncoderScorer::new(encoder)),
            (None, ScoringEncoder::Cross(encoder)) => Box::new(CrossEncoderScorer::new(encoder)),
        })
    }

    fn load(&self) -> Result<ScoringEncoder> {
        let Self { store, name, options, .. } = self;
        match store.manifest().get(name)?.role {
            Role::BiEncoder => load_encoder(store, name, options).map(ScoringEncoder::Bi),
            Role::CrossEncoder => load_cross_encoder(store, name, options).map(ScoringEncoder::Cross),
            Role::Generator => Err(Error::WrongRole {
                name: name.clone(),
                found: Role::Generator.as_str(),
                expected: "bi-encoder or cross-encoder",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    /// Embeds a text as its length; refuses `bad`; waits for `gate` before its first answer, and counts what it was asked.
    struct Counting {
        gate: Option<Arc<Barrier>>,
        asked: Arc<Mutex<Vec<usize>>>,
    }

    impl Encoder for Counting {
        fn name(&self) -> &str {
            "counting"
        }

        fn digest(&self) -> ModelDigest {
            ModelDigest([1; 32])
        }

        fn dimension(&self) -> usize {
            1
        }

        fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
            if let Some(gate) = self.gate.take() {
                gate.wait();
                gate.wait();
            }
            self.asked.lock().push(texts.len());
            assert!(!texts.contains(&"panic"), "on purpose");
            if texts.contains(&"bad") {
                return Err(Error::model("counting", "a bad text"));
            }
            Ok(texts.iter().map(|text| vec![text.len() as f32]).collect())
        }
    }

    #[test]
    fn what_waits_is_encoded_together_and_ones_fault_is_not_anothers() {
        let (gate, asked) = (Arc::new(Barrier::new(2)), Arc::new(Mutex::new(Vec::new())));
        let encoder = Counting { gate: Some(gate.clone()), asked: asked.clone() };
        let merged = MergedEncoder::new(Box::new(encoder)).unwrap();
        let ask = |texts: Vec<&'static str>| {
            let mut own = merged.clone();
            std::thread::spawn(move || own.embed(&texts).map_err(|e| e.to_string()))
        };
        // The first holds the thread up until the others wait; they are seen in the channel.
        let first = ask(vec!["a"]);
        gate.wait();
        let others = [ask(vec!["ab", "abc"]), ask(vec!["bad"]), ask(vec!["abcd"])];
        std::thread::sleep(std::time::Duration::from_millis(200));
        gate.wait();
        assert_eq!(first.join().unwrap().unwrap(), [[1.0]]);
        let [two, bad, one] = others.map(|thread| thread.join().unwrap());
        assert_eq!(two.unwrap(), [[2.0], [3.0]]);
        assert_eq!(one.unwrap(), [[4.0]]);
        assert!(bad.unwrap_err().contains("a bad text"));
        // Alone, all three together, then each alone.
        let mut seen = asked.lock().clone();
        assert_eq!((seen[0], seen[1]), (1, 4));
        seen[2..].sort_unstable();
        assert_eq!(seen[2..], [1, 1, 2]);
    }

    #[test]
    fn a_panic_reaches_who_asks() {
        let mut merged =
            MergedEncoder::new(Box::new(Counting { gate: None, asked: Arc::default() })).unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| merged.embed(&["panic"])));
        assert!(caught.is_err());
        while merged.merger.is_alive() {
            std::thread::yield_now();
        }
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| merged.embed(&["a"])));
        assert!(caught.is_err());
    }
}
