//! Several requests at once on one decoder: continuous batching.
//!
//! A card reads all weights for every token that it decodes, and reads them once for as many sequences as there are: eight
//! sequences together take hardly longer than one. So one thread owns the decoder and decodes all sequences under way in
//! steps; sequences join when they come and leave when they are done. Prompts are seen in pieces between the steps, so that a
//! long one does not stop the others.

use super::candle_decoder::{likeliest, CandleDecoder, Piece};
use super::{device::free_bytes, threads::Threads};
use crate::generate::CancelFlag;
use candle_core::{Device, Tensor};
use candle_transformers::generation::LogitsProcessor;
use std::{collections::VecDeque, sync::mpsc, thread::JoinHandle, time::Instant};

/// Tokens of prompts that are seen between two steps of those that are being answered.
const PROMPT_TOKENS: usize = 2048;

/// Tokens of one prompt that are seen at once: its scores take memory by their number times that of all it has seen.
const PIECE: usize = 1024;

/// Of a card's free memory, the part that keys and values may take, in percent: the rest is for intermediate results.
const CACHE_PERCENT: usize = 75;

/// A prompt to continue.
pub(crate) struct Job {
    pub(crate) prompt: Vec<u32>,
    pub(crate) max_tokens: usize,
    /// `None` takes the likeliest token each time.
    pub(crate) sampler: Option<LogitsProcessor>,
    /// Whether a token that ends an answer ends this one.
    pub(crate) ends: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: CancelFlag,
    /// Where its tokens go, the one that ended it included. It closes when there will be no more; when nobody listens any
    /// more, the sequence is dropped.
    pub(crate) tokens: mpsc::Sender<Result<u32, String>>,
}

impl Job {
    fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// The thread that owns a decoder. It ends when this is dropped.
pub(crate) struct Engine {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts it, for at most `parallel` sequences at a time. `is_end` tells the tokens that end an answer.
    pub(crate) fn start(
        name: &str,
        parallel: usize,
        is_end: impl Fn(u32) -> bool + Send + 'static,
        decoder: CandleDecoder,
        threads: Threads,
    ) -> std::io::Result<Self> {
        let (jobs, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("batch {name}")).spawn(move || {
            let (waiting, rows) = Default::default();
            let batch = Batch { decoder, parallel, is_end, waiting, rows, budget: usize::MAX };
            threads.run(move || batch.run(&receiver));
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Hands in a prompt; false when the thread has ended.
    pub(crate) fn submit(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }

    /// Whether its thread runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            if thread.join().is_err() {
                tracing::error!("the thread that decodes had panicked");
            }
        }
    }
}

/// A sequence under way; its number among the rows is its slot.
struct Row {
    job: Job,
    /// Tokens in the cache.
    seen: usize,
    /// The last token that was chosen, which the network has not seen.
    last: u32,
    answered: usize,
}

impl Row {
    fn is_answering(&self) -> bool {
        self.seen >= self.job.prompt.len()
    }
}

struct Batch<F> {
    decoder: CandleDecoder,
    parallel: usize,
    is_end: F,
    waiting: VecDeque<Job>,
    rows: Vec<Row>,
    /// Tokens that there is memory for.
    budget: usize,
}

impl<F: Fn(u32) -> bool> Batch<F> {
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        loop {
            if self.rows.is_empty() && self.waiting.is_empty() {
                self.rest();
                match jobs.recv() {
                    Ok(job) => self.waiting.push_back(job),
                    Err(_) => return,
                }
            }
            self.waiting.extend(jobs.try_iter());
            if let Err(error) = self.turn() {
                // Nothing of what the network holds can be relied on: everybody is told, and it starts afresh.
                let reason = error.to_string();
                tracing::error!(reason, "decoding failed");
                for row in self.rows.drain(..) {
                    let _ = row.job.tokens.send(Err(reason.clone()));
                }
                self.rest();
            }
        }
    }

    /// Nothing is under way: others may have the memory.
    fn rest(&mut self) {
        self.decoder.release();
        let free = free_bytes(self.decoder.device()).map_or(usize::MAX, |free| free / 100 * CACHE_PERCENT);
        self.budget = free.min(self.decoder.cache_limit()) / self.decoder.token_bytes().max(1);
    }

    /// Sees some of the prompts that wait, then a token of each answer.
    fn turn(&mut self) -> candle_core::Result<()> {
        self.waiting.retain(|job| !job.is_over());
        for slot in (0..self.rows.len()).rev() {
            if self.rows[slot].job.is_over() {
                self.remove(slot)?;
            }
        }
        self.see_prompts()?;
        if self.rows.iter().any(Row::is_answering) {
            self.step()?;
        }
        Ok(())
    }

    /// The next pieces of prompts, together: a card multiplies many vectors by a matrix hardly slower than few.
    fn see_prompts(&mut self) -> candle_core::Result<()> {
        let mut allowed = PROMPT_TOKENS;
        // Slots and ends of their pieces, in order of the slots.
        let mut plan = Vec::new();
        let mut slot = 0;
        while allowed > 0 {
            if slot == self.rows.len() && !self.admit()? {
                break;
            }
            let Some(row) = self.rows.get(slot) else { continue };
            if !row.is_answering() {
                let end = row.job.prompt.len().min(row.seen + PIECE.min(allowed));
                allowed -= end - row.seen;
                plan.push((slot, end));
            }
            slot += 1;
        }
        if plan.is_empty() {
            return Ok(());
        }
        let piece = |(slot, end): &(usize, usize)| {
            let Row { job, seen, .. } = &self.rows[*slot];
            let last = *end == job.prompt.len();
            Piece { slot: *slot, tokens: &job.prompt[*seen..*end], position: *seen, last }
        };
        let logits = self.decoder.pieces(&plan.iter().map(piece).collect::<Vec<_>>())?;
        for (slot, end) in &plan {
            self.rows[*slot].seen = *end;
        }
        let Some(logits) = logits else { return Ok(()) };
        let best = likeliest(&logits)?;
        let seen: Vec<usize> =
            plan.iter().map(|(slot, _)| *slot).filter(|slot| self.rows[*slot].is_answering()).collect();
        // From the last to the first: a sequence that ends is replaced by the last one.
        for (index, slot) in seen.into_iter().enumerate().rev() {
            self.choose(slot, best[index], || logits.get(index))?;
        }
        Ok(())
    }

    /// Gives the next prompt that waits a slot, if there is one and there is room.
    fn admit(&mut self) -> candle_core::Result<bool> {
        let slots = self.rows.len() + 1;
        if slots > self.parallel {
            return Ok(false);
        }
        let Some(job) = self.waiting.front() else { return Ok(false) };
        let tokens = job.prompt.len() + job.max_tokens;
        // Room for twice as many, where there is memory: a cache that grows by one slot each time is copied each time.
        let ample = slots.next_power_of_two().min(self.parallel);
        let slots = [ample, slots].into_iter().find(|slots| self.decoder.room(*slots, tokens) <= self.budget);
        match slots {
            Some(slots) => self.decoder.reserve(slots, tokens)?,
            None if self.rows.is_empty() => {
                if let Some(job) = self.waiting.pop_front() {
                    let reason = format!(
                        "{tokens} tokens do not fit into the device's memory, which has room for {}",
                        self.budget
                    );
                    let _ = job.tokens.send(Err(reason));
                }
                return Ok(!self.waiting.is_empty());
            }
            None => return Ok(false),
        }
        if let Some(job) = self.waiting.pop_front() {
            self.rows.push(Row { job, seen: 0, last: 0, answered: 0 });
        }
        Ok(true)
    }

    /// One token of each sequence. One whose prompt is still being seen takes part with what the next piece overwrites.
    fn step(&mut self) -> candle_core::Result<()> {
        let tokens: Vec<u32> = self.rows.iter().map(|row| row.last).collect();
        let positions: Vec<usize> = self.rows.iter().map(|row| row.seen).collect();
        let logits = self.decoder.step(&tokens, &positions)?;
        let best = likeliest(&logits)?;
        // From the last to the first: a sequence that ends is replaced by the last one.
        for slot in (0..self.rows.len()).rev() {
            if self.rows[slot].is_answering() {
                self.rows[slot].seen += 1;
                self.choose(slot, best[slot], || logits.get(slot))?;
            }
        }
        Ok(())
    }

    /// Chooses a sequence's next token, tells it, and removes the sequence if it was the last.
    fn choose(
        &mut self,
        slot: usize,
        best: Option<u32>,
        logits: impl FnOnce() -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<()> {
        let row = &mut self.rows[slot];
        let token = match (best, &mut row.job.sampler) {
            (None, _) => {
                let _ = row.job.tokens.send(Err(
                    "its logits are not finite: the numbers outgrew their type (dtype) or \
                     the weights are damaged"
                        .to_string(),
                ));
                return self.remove(slot);
            }
            (Some(best), None) => best,
            (Some(_), Some(sampler)) => sampler.sample(&logits()?.to_device(&Device::Cpu)?)?,
        };
        row.last = token;
        row.answered += 1;
        let heard = row.job.tokens.send(Ok(token)).is_ok();
        let ended = row.job.ends && (self.is_end)(token);
        if !heard || ended || row.answered >= row.job.max_tokens {
            return self.remove(slot);
        }
        Ok(())
    }

    /// The last sequence takes the place of the one that leaves.
    fn remove(&mut self, slot: usize) -> candle_core::Result<()> {
        self.rows.swap_remove(slot);
        let last = self.rows.len();
        if slot < last {
            self.decoder.move_slot(last, slot)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::candle_decoder::testing::{random, VOCABULARY};
    use super::*;

    type Answer = mpsc::Receiver<Result<u32, String>>;

    fn prompt(length: usize) -> Vec<u32> {
        (0..length).map(|i| ((i * 7 + length * 3) % VOCABULARY) as u32).collect()
    }

    fn job(prompt: Vec<u32>, max_tokens: usize) -> (Job, Answer) {
        let (tokens, answer) = mpsc::channel();
        let cancel = CancelFlag::default();
        (Job { prompt, max_tokens, sampler: None, ends: true, deadline: None, cancel, tokens }, answer)
    }

    fn tokens(answer: &Answer) -> Vec<u32> {
        answer.iter().map(Result::unwrap).collect()
    }

    fn engine(parallel: usize, end: u32) -> Engine {
        Engine::start("test", parallel, move |token| token == end, random(2048, false), Threads::default())
            .unwrap()
    }

    const NEVER: u32 = u32::MAX;

    /// Prompts of more than one piece among short ones, more than there are slots, of answers of different lengths.
    #[test]
    fn what_is_answered_at_once_is_what_each_is_answered_alone() {
        let cases = [(3, 20), (700, 5), (1, 40), (2100 - 64, 9), (90, 1), (17, 33), (513, 12)];
        let ask = |engine: &Engine| -> Vec<Answer> {
            let jobs = cases.iter().map(|(length, count)| job(prompt(*length), *count));
            jobs.map(|(job, answer)| {
                assert!(engine.submit(job));
                answer
            })
            .collect()
        };
        let alone = engine(1, NEVER);
        let expected: Vec<Vec<u32>> = ask(&alone).iter().map(tokens).collect();
        for (answer, (_, count)) in expected.iter().zip(&cases) {
            assert_eq!(answer.len(), *count);
        }
        let together = engine(3, NEVER);
        let answers: Vec<Vec<u32>> = ask(&together).iter().map(tokens).collect();
        assert_eq!(answers, expected);
        // And once more: the cache is let go in between.
        let answers: Vec<Vec<u32>> = ask(&together).iter().map(tokens).collect();
        assert_eq!(answers, expected);
    }

    #[test]
    fn an_answer_ends_with_the_token_that_ends_it() {
        let free = engine(2, NEVER);
        let (asked, answer) = job(prompt(9), 30);
        free.submit(asked);
        let all = tokens(&answer);
        let end = all[4];
        let first = all.iter().position(|token| *token == end).unwrap();
        let ending = engine(2, end);
        let (asked, answer) = job(prompt(9), 30);
        ending.submit(asked);
        assert_eq!(tokens(&answer), all[..=first]);
        let (mut asked, answer) = job(prompt(9), 30);
        asked.ends = false;
        ending.submit(asked);
        assert_eq!(tokens(&answer), all, "a benchmark goes on");
    }

    #[test]
    fn who_no_longer_listens_or_is_late_is_dropped_and_nobody_else() {
        let expected = {
            let (asked, answer) = job(prompt(30), 200);
            engine(1, NEVER).submit(asked);
            tokens(&answer)
        };
        let engine = engine(4, NEVER);
        let (gone, answer) = job(prompt(5), 1500);
        engine.submit(gone);
        answer.recv().unwrap().unwrap();
        drop(answer);
        let (mut late, late_answer) = job(prompt(5), 100);
        late.deadline = Some(Instant::now());
        engine.submit(late);
        let (cancelled, cancelled_answer) = job(prompt(5), 1500);
        let cancel = cancelled.cancel.clone();
        engine.submit(cancelled);
        cancelled_answer.recv().unwrap().unwrap();
        cancel.cancel();
        let (asked, answer) = job(prompt(30), 200);
        engine.submit(asked);
        assert_eq!(tokens(&answer), expected);
        assert_eq!(late_answer.iter().count(), 0);
        assert!(cancelled_answer.iter().count() < 1499);
        assert!(engine.is_alive());
    }

    #[test]
    fn sampling_follows_its_seed_and_not_the_company() {
        use candle_transformers::generation::Sampling;
        let sampled = |engine: &Engine, seed| {
            let (mut asked, answer) = job(prompt(12), 25);
            asked.sampler = Some(LogitsProcessor::from_sampling(seed, Sampling::All { temperature: 1.5 }));
            engine.submit(asked);
            answer
        };
        let alone = engine(1, NEVER);
        let (one, two) = (tokens(&sampled(&alone, 1)), tokens(&sampled(&alone, 2)));
        assert_ne!(one, two);
        let together = engine(4, NEVER);
        let answers = [sampled(&together, 2), sampled(&together, 1), sampled(&together, 2)];
        assert_eq!(answers.iter().map(tokens).collect::<Vec<_>>(), [two.clone(), one, two]);
    }

    #[test]
    fn what_is_not_a_number_is_an_error() {
        let engine = Engine::start("test", 2, |_| false, random(64, true), Threads::default()).unwrap();
        let (asked, answer) = job(prompt(4), 5);
        engine.submit(asked);
        let error = answer.recv().unwrap().unwrap_err();
        assert!(error.contains("not finite"), "{error}");
        assert!(answer.recv().is_err());
    }

    /// What can never fit is told so; what fits later waits.
    #[test]
    fn memory_is_a_bound() {
        let mut batch = Batch {
            decoder: random(2048, false),
            parallel: 8,
            is_end: |_| false,
            waiting: VecDeque::new(),
            rows: Vec::new(),
            budget: 2 * GRAIN_OF_TEST,
        };
        let (large, refused) = job(prompt(900), 50);
        let (first, first_answer) = job(prompt(9), 3);
        let (second, second_answer) = job(prompt(9), 3);
        let (third, third_answer) = job(prompt(9), 3);
        batch.waiting.extend([large, first, second, third]);
        batch.turn().unwrap();
        let error = refused.recv().unwrap().unwrap_err();
        assert!(error.contains("950 tokens") && error.contains("512"), "{error}");
        assert_eq!(
            (batch.rows.len(), batch.waiting.len()),
            (2, 1),
            "there is room for two slots of 256 tokens"
        );
        while !(batch.rows.is_empty() && batch.waiting.is_empty()) {
            batch.turn().unwrap();
        }
        let answers = [first_answer, second_answer, third_answer].map(|answer| tokens_so_far(&answer));
        assert_eq!(answers[0].len(), 3);
        assert!(answers.iter().all(|answer| *answer == answers[0]));
    }

    const GRAIN_OF_TEST: usize = 256;

    fn tokens_so_far(answer: &Answer) -> Vec<u32> {
        answer.try_iter().map(Result::unwrap).collect()
    }
}
