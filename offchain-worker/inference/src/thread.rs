//! A model on a thread of its own.
//!
//! A model computes for seconds and is not shareable: one OS thread owns it and serves one request after the other. Async
//! code asks through a [`ModelHandle`], whose queue is bounded: a full queue is an error at once, not a wait. A panic in
//! the model fails the request it served, and the model is loaded again; when that fails too often, every request is told
//! why.
//!
//! A model that serves several requests at once ([`GeneratorSource`](crate::GeneratorSource)) is asked from as many threads,
//! all of which take their work from the one queue.

use crate::{
    encode::{CrossEncoder, Encoder},
    error::{Error, Result},
    generate::{GenerateRequest, Generation, Generator},
    quality::{Output, QualityScorer, Query},
};
use parking_lot::Mutex;
use std::{
    any::Any,
    panic::{catch_unwind, AssertUnwindSafe},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc, Arc,
    },
    thread::JoinHandle,
};
use tokio::sync::{oneshot, watch};

/// How a model thread behaves.
#[derive(Debug, Clone, Copy)]
pub struct ThreadOptions {
    /// Requests that may wait besides the one that is served, at least 1.
    pub queue: usize,
    /// How often in a row the model may panic before it is given up; a request served resets the count.
    pub max_restarts: u32,
    /// Requests that are served at once, each on a thread of its own with what its own call of `load` gave, at least 1.
    pub parallel: usize,
}

impl Default for ThreadOptions {
    fn default() -> Self {
        Self { queue: 8, max_restarts: 3, parallel: 1 }
    }
}

/// How a model thread is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It serves.
    Healthy,
    /// It answers every request with an error.
    Unhealthy {
        /// Why.
        reason: String,
    },
    /// It has ended.
    Stopped,
}

/// A piece of work for the thread. Gets `Err` when there is no model to do it with.
type Job<T> = Box<dyn FnOnce(std::result::Result<&mut T, Error>) -> Outcome + Send>;

/// What became of a job.
enum Outcome {
    Done,
    /// The reply is sent when the thread has dealt with it: who is told of a panic then sees the health it led to.
    Panicked {
        message: String,
        reply: Box<dyn FnOnce()>,
    },
}

/// Owns the thread; dropping it stops the thread after the request it is at and joins it. Requests still waiting then get
/// [`Error::Stopped`].
#[derive(Debug)]
pub struct ModelThread<T> {
    handle: ModelHandle<T>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Asks a model thread. Cheap to clone.
#[derive(Debug)]
pub struct ModelHandle<T> {
    name: Arc<str>,
    queue: usize,
    queued: Arc<AtomicUsize>,
    commands: mpsc::Sender<Job<T>>,
    health: watch::Receiver<Health>,
}

impl<T> Clone for ModelHandle<T> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            queue: self.queue,
            queued: self.queued.clone(),
            commands: self.commands.clone(),
            health: self.health.clone(),
        }
    }
}

impl<T: 'static> ModelThread<T> {
    /// Starts a thread, loads a model on it with `load`, and returns when it is loaded; with [`ThreadOptions::parallel`],
    /// as many threads one after the other. `load` is called again after the model has panicked.
    ///
    /// Blocks while the model loads (seconds): from async code call it through `spawn_blocking`.
    ///
    /// # Errors
    /// What `load` returned, or that the thread could not be started.
    pub fn spawn(
        name: &str,
        options: ThreadOptions,
        load: impl FnMut() -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        let (commands, receiver) = mpsc::channel();
        let (health_sender, health) = watch::channel(Health::Healthy);
        let handle = ModelHandle {
            name: name.into(),
            queue: options.queue.max(1),
            queued: Arc::new(AtomicUsize::new(0)),
            commands,
            health,
        };
        let mut this = Self { handle, stopping: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        let common = Common {
            load: Mutex::new(load),
            commands: Mutex::new(Some(receiver)),
            health: health_sender,
            running: AtomicUsize::new(options.parallel.max(1)),
        };
        let common = Arc::new(common);
        for _ in 0..options.parallel.max(1) {
            let (loaded, wait_loaded) = mpsc::channel();
            let (common, queued, stopping) =
                (common.clone(), this.handle.queued.clone(), this.stopping.clone());
            let owned_name = name.to_string();
            let thread = std::thread::Builder::new()
                .name(format!("model {name}"))
                .spawn(move || {
                    // Made here, not moved here: a model need not be able to change threads.
                    let worker = Worker {
                        name: owned_name,
                        options,
                        common,
                        model: None,
                        failure: None,
                        panics: 0,
                        queued,
                        stopping,
                    };
                    worker.run(loaded);
                })
                .map_err(|e| Error::Unhealthy { model: name.to_string(), reason: e.to_string() })?;
            this.threads.push(thread);
            match wait_loaded.recv() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(Error::Stopped { model: name.to_string() }),
            }
        }
        Ok(this)
    }

    /// A handle to ask it with.
    pub fn handle(&self) -> ModelHandle<T> {
        self.handle.clone()
    }
}

impl<T> Drop for ModelThread<T> {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes threads that wait for work; a busy one sees the flag when it is done.
        for _ in &self.threads {
            let _ = self.handle.commands.send(Box::new(|_| Outcome::Done));
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(model = %self.handle.name, "the model's thread had panicked");
            }
        }
    }
}

/// What the threads of one model share.
struct Common<T, F> {
    load: Mutex<F>,
    /// Taken away when the model stops: whoever still waits is told, by the drop of its channel.
    commands: Mutex<Option<mpsc::Receiver<Job<T>>>>,
    health: watch::Sender<Health>,
    /// Threads that have not ended.
    running: AtomicUsize,
}

struct Worker<T, F> {
    name: String,
    options: ThreadOptions,
    common: Arc<Common<T, F>>,
    model: Option<T>,
    /// Why there is no model, when it will not be loaded again.
    failure: Option<String>,
    /// Panics since the last request that was served.
    panics: u32,
    queued: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl<T, F: FnMut() -> Result<T>> Worker<T, F> {
    fn run(mut self, loaded: mpsc::Sender<Result<()>>) {
        let first = self.try_load();
        let failed = first.is_err();
        let _ = loaded.send(first);
        if failed {
            return;
        }
        while let Some(job) = self.next() {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            self.serve(job);
        }
        *self.common.commands.lock() = None;
        if self.common.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.common.health.send_replace(Health::Stopped);
        }
    }

    /// The next job; `None` when there will be none.
    fn next(&self) -> Option<Job<T>> {
        // One thread waits for work, the others for it.
        let commands = self.common.commands.lock();
        let job = commands.as_ref()?.recv().ok()?;
        (!self.stopping.load(Ordering::Acquire)).then_some(job)
    }

    fn try_load(&mut self) -> Result<()> {
        // A loader of a model with a right hash should not panic; one of a model of the operator's own may.
        self.model = match catch_unwind(AssertUnwindSafe(&mut *self.common.load.lock())) {
            Ok(Ok(model)) => Some(model),
            Ok(Err(error)) => return Err(error),
            Err(panic) => {
                return Err(Error::Panicked { model: self.name.clone(), message: panic_message(&*panic) })
            }
        };
        Ok(())
    }

    fn serve(&mut self, job: Job<T>) {
        if self.model.is_none() && self.failure.is_none() {
            if let Err(error) = self.try_load() {
                self.give_up(error.to_string());
            }
        }
        let target = match (&mut self.model, &self.failure) {
            (Some(model), _) => Ok(model),
            (None, reason) => Err(Error::Unhealthy {
                model: self.name.clone(),
                reason: reason.clone().unwrap_or_else(|| "not loaded".to_string()),
            }),
        };
        let had_model = target.is_ok();
        match job(target) {
            Outcome::Done if had_model => self.panics = 0,
            Outcome::Done => {}
            Outcome::Panicked { message, reply } => {
                // Whatever state the panic left is thrown away with the model.
                self.model = None;
                self.panics += 1;
                tracing::error!(model = self.name, message, panics = self.panics, "the model panicked");
                if self.panics > self.options.max_restarts {
                    self.give_up(format!("it panicked {} times in a row, last: {message}", self.panics));
                }
                reply();
            }
        }
    }

    fn give_up(&mut self, reason: String) {
        tracing::error!(model = self.name, reason, "the model is given up");
        self.common.health.send_replace(Health::Unhealthy { reason: reason.clone() });
        self.failure = Some(reason);
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_string())
}

impl<T: 'static> ModelHandle<T> {
    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is.
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Told of every change of [`ModelHandle::health`].
    pub fn watch_health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Requests waiting, not counting the one that is served.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Runs `work` on the model's thread. When the returned future is dropped before `work` has begun, it never begins.
    ///
    /// # Errors
    /// What `work` returns; [`Error::Overloaded`] when the queue is full; [`Error::Panicked`], [`Error::Unhealthy`] or
    /// [`Error::Stopped`] when the model cannot do it.
    pub async fn call<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.enqueue(work)?.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// As [`ModelHandle::call`], from a thread that is not async.
    ///
    /// # Errors
    /// As [`ModelHandle::call`].
    pub fn call_blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.enqueue(work)?.blocking_recv().unwrap_or_else(|_| Err(self.stopped()))
    }

    fn enqueue<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> Result<R> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<R>>> {
        let took = self
            .queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < self.queue).then_some(n + 1));
        if took.is_err() {
            return Err(Error::Overloaded { model: self.name.to_string(), queue: self.queue });
        }
        let (reply, answer) = oneshot::channel();
        let name = self.name.clone();
        let job: Job<T> = Box::new(move |model| {
            if reply.is_closed() {
                // Nobody waits any more: a deadline passed, or a connection was lost.
                return Outcome::Done;
            }
            let model = match model {
                Ok(model) => model,
                Err(error) => {
                    let _ = reply.send(Err(error));
                    return Outcome::Done;
                }
            };
            match catch_unwind(AssertUnwindSafe(|| work(model))) {
                Ok(result) => {
                    let _ = reply.send(result);
                    Outcome::Done
                }
                Err(panic) => {
                    let message = panic_message(&*panic);
                    let error = Error::Panicked { model: name.to_string(), message: message.clone() };
                    let reply = Box::new(move || {
                        let _ = reply.send(Err(error));
                    });
                    Outcome::Panicked { message, reply }
                }
            }
        });
        if self.commands.send(job).is_err() {
            return Err(self.stopped());
        }
        Ok(answer)
    }

    fn stopped(&self) -> Error {
        Error::Stopped { model: self.name.to_string() }
    }
}

impl ModelHandle<Box<dyn Generator>> {
    /// Asks a language model. When the returned future is dropped, a generation under way ends after the token it is at.
    ///
    /// # Errors
    /// As [`Generator::generate`] and [`ModelHandle::call`].
    pub async fn generate(&self, request: GenerateRequest) -> Result<Generation> {
        struct CancelOnDrop(crate::generate::CancelFlag);
        impl Drop for CancelOnDrop {
            fn drop(&mut self) {
                self.0.cancel();
            }
        }
        let _guard = CancelOnDrop(request.cancel.clone());
        self.call(move |model| model.generate(&request)).await
    }
}

impl ModelHandle<Box<dyn Encoder>> {
    /// Asks a bi-encoder.
    ///
    /// # Errors
    /// As [`Encoder::embed`] and [`ModelHandle::call`].
    pub async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        self.call(move |model| model.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>())).await
    }
}

impl ModelHandle<Box<dyn CrossEncoder>> {
    /// Asks a cross-encoder.
    ///
    /// # Errors
    /// As [`CrossEncoder::score`] and [`ModelHandle::call`].
    pub async fn score_pairs(&self, pairs: Vec<(String, String)>) -> Result<Vec<f32>> {
        self.call(move |model| {
            model.score(&pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>())
        })
        .await
    }
}

impl ModelHandle<Box<dyn QualityScorer>> {
    /// Scores the outputs of a task.
    ///
    /// # Errors
    /// As [`QualityScorer::score`] and [`ModelHandle::call`].
    pub async fn score(&self, query: Query, outputs: Vec<String>) -> Result<Vec<f64>> {
        self.call(move |model| model.score(&query, &outputs)).await
    }

    /// As [`ModelHandle::score`], with the models that answered.
    ///
    /// # Errors
    /// As [`QualityScorer::score_outputs`] and [`ModelHandle::call`].
    pub async fn score_outputs(&self, query: Query, outputs: Vec<Output>) -> Result<Vec<f64>> {
        self.call(move |model| model.score_outputs(&query, &outputs)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// Two requests that wait for each other: served one after the other they would wait for ever.
    #[tokio::test]
    async fn several_threads_serve_at_once_and_all_end() {
        let (thread, loads) = counter(ThreadOptions { parallel: 2, ..ThreadOptions::default() });
        assert_eq!(loads.load(Ordering::SeqCst), 2);
        let handle = thread.handle();
        let both = Arc::new(std::sync::Barrier::new(2));
        let meet = |both: Arc<std::sync::Barrier>| {
            handle.call(move |n| {
                both.wait();
                Ok(*n)
            })
        };
        let met = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            tokio::join!(meet(both.clone()), meet(both.clone()))
        });
        let (first, second) = met.await.expect("both are served at once");
        assert_eq!((first.unwrap(), second.unwrap()), (0, 0));
        let panicked: Result<()> = handle.call(|_| panic!("one of them")).await;
        assert!(panicked.is_err());
        assert_eq!(
            handle.call(|n| Ok(*n)).await.unwrap(),
            0,
            "the other one serves, or this one with a new model"
        );
        tokio::task::spawn_blocking(move || drop(thread)).await.unwrap();
        assert_eq!(handle.health(), Health::Stopped);
    }

    fn counter(options: ThreadOptions) -> (ModelThread<u32>, Arc<AtomicU32>) {
        let loads = Arc::new(AtomicU32::new(0));
        let counted = loads.clone();
        let thread = ModelThread::spawn("counter", options, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(0)
        })
        .unwrap();
        (thread, loads)
    }

    #[tokio::test]
    async fn state_stays_between_calls() {
        let (thread, _) = counter(ThreadOptions::default());
        let handle = thread.handle();
        for expected in 1..=3 {
            let got = handle
                .call(|n| {
                    *n += 1;
                    Ok(*n)
                })
                .await
                .unwrap();
            assert_eq!(got, expected);
        }
        assert_eq!(handle.queued(), 0);
    }

    #[test]
    fn a_failing_loader_fails_the_spawn() {
        let result = ModelThread::<u32>::spawn("m", ThreadOptions::default(), || {
            Err(Error::InvalidRequest("no".into()))
        });
        assert!(matches!(result, Err(Error::InvalidRequest(_))));
        let result = ModelThread::<u32>::spawn("m", ThreadOptions::default(), || panic!("corrupt"));
        assert!(matches!(result, Err(Error::Panicked { message, .. }) if message == "corrupt"));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_model_is_loaded_again() {
        let (thread, loads) = counter(ThreadOptions { queue: 8, max_restarts: 1, parallel: 1 });
        let handle = thread.handle();
        handle
            .call(|n| {
                *n = 7;
                Ok(())
            })
            .await
            .unwrap();
        let error = handle.call::<()>(|_| panic!("bad tensor")).await.unwrap_err();
        assert!(matches!(&error, Error::Panicked { message, .. } if message == "bad tensor"), "{error}");
        assert!(error.is_transient());
        assert_eq!(handle.call(|n| Ok(*n)).await.unwrap(), 0, "a new model");
        assert_eq!(loads.load(Ordering::SeqCst), 2);
        assert_eq!(handle.health(), Health::Healthy);

        for _ in 0..2 {
            handle.call::<()>(|_| panic!("again")).await.unwrap_err();
        }
        assert!(matches!(handle.health(), Health::Unhealthy { .. }));
        let error = handle.call(|n| Ok(*n)).await.unwrap_err();
        assert!(error.to_string().contains("again"), "{error}");
    }

    #[tokio::test]
    async fn a_full_queue_is_an_error_at_once() {
        let (thread, _) = counter(ThreadOptions { queue: 2, max_restarts: 0, parallel: 1 });
        let handle = thread.handle();
        let (release, wait) = mpsc::channel::<()>();
        let (started, wait_started) = mpsc::channel::<()>();
        let busy = handle.clone();
        let busy = tokio::spawn(async move {
            busy.call(move |_| {
                let _ = started.send(());
                let _ = wait.recv();
                Ok(())
            })
            .await
        });
        tokio::task::spawn_blocking(move || wait_started.recv()).await.unwrap().unwrap();
        let first = handle.enqueue(|_| Ok(1)).unwrap();
        let second = handle.enqueue(|_| Ok(2)).unwrap();
        assert!(matches!(handle.enqueue(|_| Ok(3)), Err(Error::Overloaded { queue: 2, .. })));
        drop(first);
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        assert_eq!(second.await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn an_abandoned_request_is_not_served() {
        let (thread, _) = counter(ThreadOptions::default());
        let handle = thread.handle();
        let (release, wait) = mpsc::channel::<()>();
        let blocked = handle
            .enqueue(move |_| {
                let _ = wait.recv();
                Ok(())
            })
            .unwrap();
        let abandoned = handle.enqueue(|n| {
            *n = 99;
            Ok(())
        });
        drop(abandoned.unwrap());
        release.send(()).unwrap();
        blocked.await.unwrap().unwrap();
        assert_eq!(handle.call(|n| Ok(*n)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn dropping_the_thread_stops_it() {
        let (thread, _) = counter(ThreadOptions::default());
        let handle = thread.handle();
        let (release, wait) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel::<()>();
        let busy = handle
            .enqueue(move |_| {
                let _ = begin.send(());
                let _ = wait.recv();
                Ok(())
            })
            .unwrap();
        tokio::task::spawn_blocking(move || begun.recv()).await.unwrap().unwrap();
        let waiting = handle.enqueue(|n| Ok(*n)).unwrap();
        let stopping = thread.stopping.clone();
        let stopper = tokio::task::spawn_blocking(move || drop(thread));
        while !stopping.load(Ordering::SeqCst) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        release.send(()).unwrap();
        stopper.await.unwrap();
        assert!(busy.await.unwrap().is_ok(), "what was begun is finished");
        assert!(waiting.await.is_err(), "what waited is not begun");
        assert!(matches!(handle.call(|n| Ok(*n)).await, Err(Error::Stopped { .. })));
        assert_eq!(handle.health(), Health::Stopped);
    }
}
