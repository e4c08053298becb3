//! Threads that share the work of one operation.
//!
//! A token costs hundreds of operations of some 20 to 500 µs each, so handing out work must cost far less than a
//! microsecond: helpers look out for it actively for a while before they sleep. Work is handed out in small pieces, one after
//! the other, so that a helper which the system has taken off its core holds up nothing but the piece it is at, and one that
//! comes late is not waited for.

use parking_lot::Mutex;
use std::{
    any::Any,
    cell::{RefCell, UnsafeCell},
    panic::{catch_unwind, resume_unwind, AssertUnwindSafe},
    sync::{
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        Arc, OnceLock,
    },
    thread::Thread,
    time::{Duration, Instant},
};

/// How long an idle helper looks out for work before it sleeps: longer than the gap between two operations of one model,
/// shorter than anybody would notice in a processor's load.
const LOOK_OUT: Duration = Duration::from_micros(200);

/// Set in the state while a job takes helpers.
const OPEN: u64 = 1 << 31;
/// One helper at work.
const HELPER: u64 = 1;
/// The helpers at work.
const HELPERS: u64 = OPEN - 1;
/// One job later.
const JOB: u64 = 1 << 32;

/// A job's function, its lifetime forgotten: see `Pool::run` for why it lives long enough.
type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// The number of jobs so far, whether the last still takes helpers, and how many are at it.
    state: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    /// Pieces of the job, and the next that nobody has taken.
    pieces: AtomicUsize,
    next: AtomicUsize,
    sleepers: AtomicUsize,
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
}

// SAFETY: `job` is written only by the thread that holds `Pool::turn`, while no job is open and no helper is at work; helpers
// read it only after they have been counted in while the job was open. The state's acquire and release order the two.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is to something `Sync`.
unsafe impl Send for Shared {}

impl Shared {
    /// Takes pieces until there are none.
    fn work(&self, job: &(dyn Fn(usize) + Sync)) {
        let pieces = self.pieces.load(Ordering::Relaxed);
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                return;
            }
            job(piece);
        }
    }

    /// Helps with the job that is open, if one is; false when none is.
    fn help(&self) -> bool {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            if state & OPEN == 0 {
                return false;
            }
            match self.state.compare_exchange_weak(state, state + HELPER, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // SAFETY: the job was open when this helper was counted in, and its owner waits until all are counted out.
        let job = unsafe { (*self.job.get()).map(|job| &*job) };
        if let Some(job) = job {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work(job))) {
                // The others need not go on.
                self.next.store(usize::MAX / 2, Ordering::Relaxed);
                *self.panicked.lock() = Some(panic);
            }
        }
        self.state.fetch_sub(HELPER, Ordering::AcqRel);
        true
    }

    fn look_out(&self) {
        let mut since = Instant::now();
        let mut looks = 0u32;
        while !self.stop.load(Ordering::Relaxed) {
            if self.help() {
                since = Instant::now();
                // Nothing is left of this job; it closes in a moment.
                while self.state.load(Ordering::Acquire) & OPEN != 0
                    && self.next.load(Ordering::Relaxed) >= self.pieces.load(Ordering::Relaxed)
                {
                    std::hint::spin_loop();
                }
                continue;
            }
            std::hint::spin_loop();
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(64) && since.elapsed() > LOOK_OUT {
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                // A job that was opened before this thread was counted as asleep woke nobody.
                if self.state.load(Ordering::SeqCst) & OPEN == 0 && !self.stop.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
                since = Instant::now();
            }
        }
    }
}

thread_local! {
    /// The pool of whoever computes on this thread, where it has its own.
    static OWN: RefCell<Option<Arc<Pool>>> = const { RefCell::new(None) };
}

/// The calling thread and some helpers.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<(Thread, Option<std::thread::JoinHandle<()>>)>,
    /// Whose turn it is: one job at a time.
    turn: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads, the caller's included. Threads that cannot be started are done without.
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            pieces: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            panicked: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let helpers = (1..threads.max(1))
            .filter_map(|number| {
                let shared = shared.clone();
                let helper = std::thread::Builder::new()
                    .name(format!("poq-compute-{number}"))
                    .spawn(move || shared.look_out());
                match helper {
                    Ok(handle) => Some((handle.thread().clone(), Some(handle))),
                    Err(error) => {
                        tracing::warn!(%error, "a compute thread could not be started");
                        None
                    }
                }
            })
            .collect();
        Self { shared, helpers, turn: Mutex::new(()) }
    }

    /// The pool that whoever computes on this thread computes with: its own (see [`Pool::with`]), else that which all models of
    /// this process share: as many threads as `RAYON_NUM_THREADS` says (see
    /// [`configure_threads`](super::super::configure_threads)), or as there are cores.
    pub(crate) fn current() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Pool>> = OnceLock::new();
        if let Some(own) = OWN.with_borrow(Option::clone) {
            return own;
        }
        let shared = SHARED.get_or_init(|| {
            let asked =
                std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
            let cores = || std::thread::available_parallelism().map_or(1, usize::from);
            Arc::new(Self::new(asked.unwrap_or_else(cores)))
        });
        shared.clone()
    }

    /// Does this with `pool` for [`Pool::current`].
    pub(crate) fn with<T>(pool: Arc<Self>, work: impl FnOnce() -> T) -> T {
        /// Puts back what was there, also when `work` panics.
        struct Before(Option<Arc<Pool>>);
        impl Drop for Before {
            fn drop(&mut self) {
                OWN.set(self.0.take());
            }
        }
        let _before = Before(OWN.replace(Some(pool)));
        work()
    }

    /// How many threads can be at work.
    pub(crate) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `job` with each of `0..pieces`, on all threads, and returns when all are done.
    ///
    /// Where another model is at work on the helpers, the calling thread does all of it alone: more threads than cores would
    /// only slow both down.
    ///
    /// # Panics
    /// When `job` panics.
    pub(crate) fn run(&self, pieces: usize, job: &(dyn Fn(usize) + Sync)) {
        let turn = if self.helpers.is_empty() || pieces < 2 { None } else { self.turn.try_lock() };
        let Some(_turn) = turn else {
            (0..pieces).for_each(job);
            return;
        };
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The pointer is used by helpers that are counted in while the job is open; below,
        // the job is closed and this thread waits, also when it panics, until they are counted out. `job` lives as long.
        let forgotten =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(job) };
        // SAFETY: no job is open, no helper is at work, and this thread has the turn.
        unsafe { *shared.job.get() = Some(std::ptr::from_ref(forgotten)) };
        shared.next.store(0, Ordering::Relaxed);
        shared.pieces.store(pieces, Ordering::Relaxed);
        shared.state.fetch_add(JOB | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            self.helpers.iter().for_each(|(thread, _)| thread.unpark());
        }
        let result = catch_unwind(AssertUnwindSafe(|| shared.work(job)));
        if result.is_err() {
            shared.next.store(usize::MAX / 2, Ordering::Relaxed);
        }
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0u32;
        while shared.state.load(Ordering::Acquire) & HELPERS != 0 {
            std::hint::spin_loop();
            looks += 1;
            // A helper that is not running needs a core.
            if looks.is_multiple_of(1 << 14) {
                std::thread::yield_now();
            }
        }
        let theirs = shared.panicked.lock().take();
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        if let Some(panic) = theirs {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for (thread, handle) in &mut self.helpers {
            thread.unpark();
            if let Some(handle) = handle.take() {
                let _ = handle.join();
            }
        }
    }
}

/// A slice that several threads write to, each to its own part.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    owner: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out parts only through `slice`, whose callers promise that they are disjoint.
unsafe impl<T: Send> Sync for Parts<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// The whole, to be given out in parts.
    pub(crate) fn new(whole: &'a mut [T]) -> Self {
        Self { start: whole.as_mut_ptr(), len: whole.len(), owner: std::marker::PhantomData }
    }

    /// The elements from `from` on, `count` of them.
    ///
    /// # Safety
    /// No two parts that are alive at the same time may overlap.
    ///
    /// # Panics
    /// When the part is not within the whole.
    #[allow(clippy::mut_from_ref)] // that is what it is for
    pub(crate) unsafe fn slice(&self, from: usize, count: usize) -> &'a mut [T] {
        assert!(from <= self.len && count <= self.len - from, "a part beyond the whole");
        // SAFETY: within the slice that `new` borrowed for 'a; disjoint from other parts, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for pieces in [0, 1, 2, 7, 100] {
                for _ in 0..200 {
                    let counts: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(pieces, &|i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn helpers_that_fell_asleep_are_woken() {
        let pool = Pool::new(3);
        for _ in 0..5 {
            std::thread::sleep(LOOK_OUT * 20);
            let ids = Mutex::new(std::collections::HashSet::new());
            // Each piece waits until all three threads have come.
            let deadline = Instant::now() + Duration::from_secs(20);
            pool.run(3, &|_| {
                ids.lock().insert(std::thread::current().id());
                while ids.lock().len() < 3 && Instant::now() < deadline {
                    std::thread::yield_now();
                }
            });
            assert_eq!(ids.lock().len(), 3);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        for bad in [0, 50] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, &|i| assert_ne!(i, bad, "piece {i}"));
            }));
            assert!(caught.is_err());
            let sum = AtomicUsize::new(0);
            pool.run(10, &|i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.load(Ordering::Relaxed), 45);
        }
    }

    #[test]
    fn two_callers_at_once_both_get_their_work_done() {
        let pool = Pool::new(2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let sum = AtomicUsize::new(0);
                        pool.run(9, &|i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                        assert_eq!(sum.load(Ordering::Relaxed), 36);
                    }
                });
            }
        });
    }

    #[test]
    fn parts_are_those_of_the_whole() {
        let mut whole = vec![0u32; 10];
        let parts = Parts::new(&mut whole);
        Pool::new(2).run(5, &|i| {
            // SAFETY: the parts [2i, 2i + 2) do not overlap.
            unsafe { parts.slice(2 * i, 2) }.fill(i as u32);
        });
        assert_eq!(whole, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    }
}
