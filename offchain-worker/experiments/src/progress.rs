//! What an experiment tells while it works: a bar on a terminal, now and then a line in a log. All on standard error.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// How far a stage of an experiment is.
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    /// Those that were there before.
    skipped: u64,
    stage: String,
    started: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

/// Between two lines of a log.
const PAUSE: Duration = Duration::from_secs(30);

impl Progress {
    /// `total` of `what` are to be done.
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let template = "{msg} {wide_bar} {pos}/{len} [{elapsed}, {eta} to go]";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let now = Instant::now();
        Self { what, total, done: 0, skipped: 0, stage: String::new(), started: now, told: now, bar }
    }

    pub(crate) fn stage(&mut self, stage: &str) {
        self.stage = stage.to_string();
        match &self.bar {
            Some(bar) => bar.set_message(self.stage.clone()),
            None => self.tell(),
        }
    }

    /// So many are there already.
    pub(crate) fn skip(&mut self, count: u64) {
        self.skipped += count;
        if let Some(bar) = &self.bar {
            bar.inc(count);
        }
    }

    pub(crate) fn step(&mut self) {
        self.done += 1;
        match &self.bar {
            Some(bar) => bar.inc(1),
            None if self.told.elapsed() >= PAUSE => self.tell(),
            None => {}
        }
    }

    pub(crate) fn finish(self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => eprintln!(
                "{} {} made in {:.0} s, {} were there",
                self.done,
                self.what,
                self.started.elapsed().as_secs_f64(),
                self.skipped
            ),
        }
    }

    fn tell(&mut self) {
        self.told = Instant::now();
        eprintln!(
            "[{:>6.0} s] {}/{} {}  {}",
            self.started.elapsed().as_secs_f64(),
            self.done + self.skipped,
            self.total,
            self.what,
            self.stage
        );
    }
}
