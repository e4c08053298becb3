//! Several requests at once on one decoder: continuous batching.
//!
//! A card reads all weights for every token that it decodes, and reads them once for as many sequences as there are: eight
//! sequences together take hardly longer than one. On a processor it is the same as long as memory is what it waits for. So one
//! thread owns the decoder and decodes all sequences under way in passes; sequences join when they come and leave when they are
//! done. Prompts are seen in pieces beside the answers, so that a long one does not stop the others.
//!
//! Tokens that a prompt shares with the beginning of one that is under way, or of one that the cache still holds, are not seen
//! again: their keys and values are copied.

use super::decoder::{logprob, Piece, Slots};
use crate::generate::CancelFlag;
use candle_core::{Device, Tensor};
use candle_transformers::generation::LogitsProcessor;
use std::{collections::VecDeque, sync::mpsc, thread::JoinHandle, time::Instant};

/// Tokens of one prompt that are seen at once: its scores take memory by their number times that of all it has seen.
const PIECE: usize = 1024;

/// Fewer shared tokens are not worth a copy.
const SHARED: usize = 16;

/// Sequences that are kept at most when they are done.
const KEPT: usize = 8;

/// A prompt to continue.
pub(crate) struct Job {
    pub(crate) prompt: Vec<u32>,
    pub(crate) max_tokens: usize,
    /// `None` takes the likeliest token each time.
    pub(crate) sampler: Option<LogitsProcessor>,
    /// Whether a token that ends an answer ends this one.
    pub(crate) ends: bool,
    /// Whether each token's probability is wanted.
    pub(crate) trace: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: CancelFlag,
    /// Where its tokens go, the one that ended it included. It closes when there will be no more; when nobody listens any
    /// more, the sequence is dropped.
    pub(crate) tokens: mpsc::Sender<Result<Chosen, String>>,
}

impl Job {
    fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// A token of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) token: u32,
    /// The logarithm of its probability, where that was wanted.
    pub(crate) logprob: Option<f32>,
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
        decoder: Box<dyn Slots>,
    ) -> std::io::Result<Self> {
        let (jobs, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("batch {name}"))
            .spawn(move || Batch::new(decoder, parallel, is_end).run(&receiver))?;
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

/// A sequence under way.
struct Row {
    slot: usize,
    job: Job,
    /// Its prompt, and what was chosen.
    tokens: Vec<u32>,
    /// How many of these are in the cache.
    seen: usize,
}

impl Row {
    fn answered(&self) -> usize {
        self.tokens.len() - self.job.prompt.len()
    }

    fn is_answering(&self) -> bool {
        self.seen >= self.job.prompt.len()
    }
}

/// What a sequence that is done has left in the cache.
struct Kept {
    slot: usize,
    tokens: Vec<u32>,
}

/// Tokens that two sequences begin with.
fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

struct Batch<F> {
    decoder: Box<dyn Slots>,
    parallel: usize,
    is_end: F,
    waiting: VecDeque<Job>,
    rows: Vec<Row>,
    /// Where the decoder keeps what nobody needs: the one that was done last comes last.
    kept: Vec<Kept>,
    /// Tokens that there is memory for.
    budget: usize,
    /// Tokens of prompts that were copied, not seen.
    #[cfg(test)]
    copied: usize,
}

impl<F: Fn(u32) -> bool> Batch<F> {
    fn new(decoder: Box<dyn Slots>, parallel: usize, is_end: F) -> Self {
        Self {
            decoder,
            parallel: parallel.max(1),
            is_end,
            waiting: VecDeque::new(),
            rows: Vec::new(),
            kept: Vec::new(),
            budget: usize::MAX,
            #[cfg(test)]
            copied: 0,
        }
    }

    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        self.forget();
        loop {
            if self.rows.is_empty() && self.waiting.is_empty() {
                if self.decoder.keeps() == 0 {
                    // Nothing is under way: others may have the memory.
                    self.forget();
                }
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
                self.forget();
            }
        }
    }

    fn forget(&mut self) {
        self.kept.clear();
        self.decoder.release();
        self.budget = self.decoder.budget();
    }

    /// Sees some of the prompts that wait, and a token of each answer.
    fn turn(&mut self) -> candle_core::Result<()> {
        self.waiting.retain(|job| !job.is_over());
        for row in (0..self.rows.len()).rev() {
            if self.rows[row].job.is_over() {
                self.remove(row)?;
            }
        }
        let answering: Vec<usize> =
            (0..self.rows.len()).filter(|row| self.rows[*row].is_answering()).collect();
        let plan = self.plan()?;
        if plan.is_empty() && answering.is_empty() {
            return Ok(());
        }
        let piece = |row: usize, end: usize| {
            let Row { slot, job, tokens, seen } = &self.rows[row];
            let last = end >= job.prompt.len();
            Piece { slot: *slot, tokens: &tokens[*seen..end], position: *seen, last }
        };
        let prompts: Vec<Piece<'_>> = plan.iter().map(|(row, end)| piece(*row, *end)).collect();
        let answers: Vec<Piece<'_>> =
            answering.iter().map(|row| piece(*row, self.rows[*row].tokens.len())).collect();
        let mut seen: Vec<usize> = self.rows.iter().map(|row| row.seen).collect();
        for (row, end) in &plan {
            seen[*row] = *end;
        }
        let logits = self.decoder.see(&prompts, &answers, &seen)?;
        for (row, end) in &plan {
            self.rows[*row].seen = *end;
        }
        for row in &answering {
            self.rows[*row].seen += 1;
        }
        let best = logits.likeliest()?;
        let done = plan.iter().map(|(row, _)| *row).filter(|row| self.rows[*row].is_answering());
        let mut wanted: Vec<(usize, usize)> = done.chain(answering.iter().copied()).zip(0..).collect();
        if wanted.len() != best.len() {
            candle_core::bail!("the network gave logits of {} sequences, not {}", best.len(), wanted.len())
        }
        // From the last to the first: a sequence that ends is replaced by the last one.
        wanted.sort_unstable_by_key(|(row, _)| std::cmp::Reverse(*row));
        for (row, index) in wanted {
            self.choose(row, best[index], || logits.row(index))?;
        }
        Ok(())
    }

    /// The rows whose prompts are seen on, and up to where: many vectors are multiplied by a matrix hardly slower than few.
    fn plan(&mut self) -> candle_core::Result<Vec<(usize, usize)>> {
        let mut allowed = self.decoder.prompt_tokens();
        let mut plan = Vec::new();
        let mut row = 0;
        while allowed > 0 {
            if row == self.rows.len() && !self.admit()? {
                break;
            }
            // None where the prompt that waited was refused.
            let Some(Row { job, seen, .. }) = self.rows.get(row) else { continue };
            if *seen < job.prompt.len() {
                let end = job.prompt.len().min(seen + PIECE.min(allowed));
                allowed -= end - seen;
                plan.push((row, end));
            }
            row += 1;
        }
        Ok(plan)
    }

    /// Makes a row of the next prompt that waits, if there is one and there is room. False when there is nothing to be done for
    /// now.
    fn admit(&mut self) -> candle_core::Result<bool> {
        let count = self.rows.len() + 1;
        if count > self.parallel {
            return Ok(false);
        }
        let Some(job) = self.waiting.front() else { return Ok(false) };
        let tokens = job.prompt.len() + job.max_tokens;
        // Where it begins as another one does. At least one token is seen, or there are no logits.
        let known = &job.prompt[..job.prompt.len().saturating_sub(1)];
        let under_way = self
            .rows
            .iter()
            .map(|row| (shared(known, &row.job.prompt), row))
            .max_by_key(|(shared, _)| *shared);
        let kept =
            self.kept.iter().enumerate().map(|(place, kept)| (shared(known, &kept.tokens), place)).max();
        let (from_kept, place) = kept.unwrap_or_default();
        let mut source = (from_kept >= SHARED).then(|| (from_kept, self.kept[place].slot));
        let mut takes_over = source.is_some() && from_kept * 2 >= self.kept[place].tokens.len();
        if let Some((from_row, row)) =
            under_way.filter(|(from_row, _)| *from_row >= SHARED.max(from_kept + 1))
        {
            if row.seen < from_row {
                // It is about to see the same tokens.
                return Ok(false);
            }
            (source, takes_over) = (Some((from_row, row.slot)), false);
        }
        // Room for twice as many, where there is memory: a cache that grows by one slot each time is copied each time.
        let ample = count.next_power_of_two().min(self.parallel);
        let fits = [ample, count].into_iter().find(|slots| self.decoder.room(*slots, tokens) <= self.budget);
        let Some(ample) = fits else {
            if !self.rows.is_empty() {
                return Ok(false);
            }
            if let Some(job) = self.waiting.pop_front() {
                let reason = format!(
                    "{tokens} tokens do not fit into the device's memory, which has room for {}",
                    self.budget
                );
                let _ = job.tokens.send(Err(reason));
            }
            return Ok(!self.waiting.is_empty());
        };
        let taken = |slot: &usize| {
            self.rows.iter().any(|row| row.slot == *slot) || self.kept.iter().any(|kept| kept.slot == *slot)
        };
        let slot = match source {
            // Most of what it holds is of use.
            Some((_, slot)) if takes_over => slot,
            _ => (0..).find(|slot| !taken(slot)).unwrap_or(count - 1),
        };
        self.decoder.make_room(slot, ample, tokens)?;
        let seen = match source {
            Some((shared, _)) if takes_over => {
                self.kept.remove(place);
                shared
            }
            Some((shared, from)) => {
                self.decoder.copy_prefix(from, slot, shared)?;
                shared
            }
            None => 0,
        };
        #[cfg(test)]
        {
            self.copied += seen;
        }
        if let Some(job) = self.waiting.pop_front() {
            self.rows.push(Row { slot, tokens: job.prompt.clone(), job, seen });
        }
        Ok(true)
    }

    /// Chooses a sequence's next token, tells it, and removes the sequence if it was the last.
    fn choose(
        &mut self,
        row: usize,
        best: Option<u32>,
        logits: impl Fn() -> candle_core::Result<Vec<f32>>,
    ) -> candle_core::Result<()> {
        let Row { job, tokens, .. } = &mut self.rows[row];
        let token = match (best, &mut job.sampler) {
            (None, _) => {
                let _ = job.tokens.send(Err(
                    "its logits are not finite: the numbers outgrew their type (dtype) or \
                     the weights are damaged"
                        .to_string(),
                ));
                // Nobody is to begin with what led there.
                self.rows[row].seen = 0;
                return self.remove(row);
            }
            (Some(best), None) => best,
            (Some(_), Some(sampler)) => sampler.sample(&Tensor::new(logits()?, &Device::Cpu)?)?,
        };
        tokens.push(token);
        let logprob = if job.trace { Some(logprob(&logits()?, token)) } else { None };
        let heard = job.tokens.send(Ok(Chosen { token, logprob })).is_ok();
        let ended = job.ends && (self.is_end)(token);
        if !heard || ended || self.rows[row].answered() >= self.rows[row].job.max_tokens {
            return self.remove(row);
        }
        Ok(())
    }

    /// A sequence leaves. What the cache holds of it is kept where nobody else needs the memory; else the last one takes its slot.
    fn remove(&mut self, row: usize) -> candle_core::Result<()> {
        let Row { slot, mut tokens, seen, .. } = self.rows.swap_remove(row);
        let most = self.decoder.keeps();
        if most == 0 {
            if let Some(last) = self.rows.get_mut(row) {
                self.decoder.move_slot(last.slot, slot)?;
                last.slot = slot;
            }
            return Ok(());
        }
        tokens.truncate(seen);
        self.kept.push(Kept { slot, tokens });
        // The oldest make way.
        while self.kept.len() > KEPT || self.kept.iter().map(|kept| kept.tokens.len()).sum::<usize>() > most {
            let oldest = self.kept.remove(0);
            self.decoder.free(oldest.slot);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::candle_decoder::testing::{random, VOCABULARY};
    use super::*;

    type Answer = mpsc::Receiver<Result<Chosen, String>>;

    fn prompt(length: usize) -> Vec<u32> {
        (0..length).map(|i| ((i * 7 + length * 3) % VOCABULARY) as u32).collect()
    }

    fn job(prompt: Vec<u32>, max_tokens: usize) -> (Job, Answer) {
        let (tokens, answer) = mpsc::channel();
        let cancel = CancelFlag::default();
        let trace = false;
        (Job { prompt, max_tokens, sampler: None, ends: true, trace, deadline: None, cancel, tokens }, answer)
    }

    fn tokens(answer: &Answer) -> Vec<u32> {
        answer.iter().map(|chosen| chosen.unwrap().token).collect()
    }

    fn engine(parallel: usize, end: u32) -> Engine {
        Engine::start("test", parallel, move |token| token == end, Box::new(random(2048, false))).unwrap()
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
        let engine = Engine::start("test", 2, |_| false, Box::new(random(64, true))).unwrap();
        let (asked, answer) = job(prompt(4), 5);
        engine.submit(asked);
        let error = answer.recv().unwrap().unwrap_err();
        assert!(error.contains("not finite"), "{error}");
        assert!(answer.recv().is_err());
    }

    /// Shared prefixes are copied: from one under way, which is waited for, and, where the decoder keeps them, from those that
    /// are done. Answers are the same.
    #[test]
    fn what_prompts_share_is_seen_once() {
        let prefix = prompt(700);
        let with = |end: &[u32]| [prefix.as_slice(), end].concat();
        let prompts = [with(&[1, 2, 3]), with(&[4]), prefix[..300].to_vec(), with(&[]), prompt(40)];
        let expected: Vec<Vec<u32>> = prompts
            .iter()
            .map(|prompt| {
                let (asked, answer) = job(prompt.clone(), 12);
                engine(1, NEVER).submit(asked);
                tokens(&answer)
            })
            .collect();
        let mut batch = Batch::new(Box::new(random(2048, false)), 8, |_| false);
        let (jobs, answers): (Vec<Job>, Vec<Answer>) =
            prompts.iter().map(|prompt| job(prompt.clone(), 12)).unzip();
        batch.waiting.extend(jobs);
        let mut turns = 0;
        while !(batch.rows.is_empty() && batch.waiting.is_empty()) {
            batch.turn().unwrap();
            turns += 1;
        }
        // Of the second and the fourth all but a token each, of the third too.
        assert_eq!(batch.copied, 700 + 299 + 699);
        assert!(turns < 40 && batch.kept.is_empty(), "{turns}");
        let found: Vec<Vec<u32>> = answers.iter().map(tokens_so_far).collect();
        assert_eq!(found, expected);
    }

    /// What can never fit is told so; what fits later waits.
    #[test]
    fn memory_is_a_bound() {
        let mut batch = Batch::new(Box::new(random(2048, false)), 8, |_| false);
        batch.budget = 2 * GRAIN_OF_TEST;
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
        answer.try_iter().map(|chosen| chosen.unwrap().token).collect()
    }
}
