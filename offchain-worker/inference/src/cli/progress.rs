//! What an installation is doing, for people.

use crate::install::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use std::io::IsTerminal;

/// Progress bars on a terminal, lines in a log.
pub(super) struct Bars {
    bars: MultiProgress,
    current: Mutex<Option<ProgressBar>>,
    name: Mutex<String>,
    interactive: bool,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self {
            bars: MultiProgress::new(),
            current: Mutex::new(None),
            name: Mutex::new(String::new()),
            interactive: std::io::stderr().is_terminal(),
        }
    }

    pub(super) fn clear(&self) {
        self.step_done();
    }
}

impl Progress for Bars {
    fn begin(&self, name: &str) {
        *self.name.lock() = name.to_string();
    }

    fn step(&self, what: &str, total: Option<u64>) {
        self.step_done();
        let line = format!("{}: {what}", self.name.lock());
        if !self.interactive {
            match total {
                Some(total) => eprintln!("{line} ({:.1} MB)", total as f64 / 1e6),
                None => eprintln!("{line}"),
            }
            return;
        }
        let (bar, template) = match total {
            Some(total) => {
                (ProgressBar::new(total), "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            }
            None => (ProgressBar::new_spinner(), "{msg} {spinner} {elapsed}"),
        };
        let bar = self.bars.add(bar).with_message(line);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        *self.current.lock() = Some(bar);
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*self.current.lock() {
            bar.inc(bytes);
        }
    }

    fn step_done(&self) {
        if let Some(bar) = self.current.lock().take() {
            bar.finish_and_clear();
        }
    }

    fn note(&self, message: &str) {
        self.step_done();
        eprintln!("{message}");
    }
}
