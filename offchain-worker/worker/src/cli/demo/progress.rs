//! What the demonstration tells while it works: a bar on a terminal, plain lines elsewhere. All on standard error.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Progress of the whole run.
pub(super) struct Progress {
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// From now on.
    pub(super) fn new() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Progress { started: Instant::now(), bar }
    }

    /// How long it has been going on.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What is being done now.
    pub(super) fn stage(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => self.line(what),
        }
    }

    /// Something that happened.
    pub(super) fn line(&self, what: &str) {
        let text = format!("[{:>6.1}s] {what}", self.started.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// From now on there is a bar of so many tasks.
    pub(super) fn tasks(&self, count: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(count);
            bar.set_position(0);
            let style = ProgressStyle::with_template(
                "{spinner} [{elapsed}] [{bar:30}] {pos}/{len} tasks final  {msg}",
            );
            if let Ok(style) = style {
                bar.set_style(style);
            }
        }
    }

    /// One more task is final.
    pub(super) fn task_done(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// It is over.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
