//! Runs the commands of Markdown pages in order, as their reader would.
//!
//! The commands are the lines of the pages' own `sh` blocks, all run by one shell in one folder, so that a variable, a folder
//! or a file of one is there for the next. A comment on the line before a block says what is special about it:
//!
//! ```text
//! <!-- walkthrough: skip, REASON -->                       not run
//! <!-- walkthrough: background until "TEXT", REASON -->    goes on beside the next command, which starts once it has printed TEXT;
//!                                                          it may end by itself, but not in failure
//! <!-- walkthrough: output -->                             before another block: what the `sh` block above it prints
//! ```
//!
//! In an output block `…` stands for any text. Its lines must appear in that order; others may stand between them.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// How often it is looked whether a command has ended.
const POLL: Duration = Duration::from_millis(50);
/// How long what runs in the background may take to stop when it is asked to.
const STOPPING: Duration = Duration::from_secs(20);
/// How many of the last lines of a command's output are shown where it succeeded.
const SHOWN: usize = 12;
/// What shells of other names are called in a fence's first word: such blocks would be commands that nobody runs.
const OTHER_SHELLS: [&str; 5] = ["bash", "shell", "console", "zsh", "shell-session"];

/// Why pages cannot be run, or a run failed before its end.
#[derive(Debug, thiserror::Error)]
pub enum WalkthroughError {
    /// A page says something that is not understood.
    #[error("{page}:{line}: {problem}")]
    Page {
        /// The page.
        page: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The shell, or a file of the run.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the operating system says.
        source: std::io::Error,
    },
}

/// What is to be done with a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// Each command must succeed before the next one starts.
    Run,
    /// Not run.
    Skip {
        /// Why.
        reason: String,
    },
    /// Goes on beside the next ones, until the end of the walkthrough at the latest.
    Background {
        /// The text in its output after which the reader goes on.
        until: String,
    },
}

/// One command, which may have several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its first line on the page, from 1.
    pub line: usize,
    /// What is run.
    pub text: String,
}

/// What a page says that a block prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its first line on the page, from 1.
    pub line: usize,
    /// The lines, with `…` for any text.
    pub lines: Vec<String>,
}

/// A block of commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The page's name, as it was given.
    pub page: String,
    /// Its commands.
    pub steps: Vec<Step>,
    /// What to do with them.
    pub how: How,
    /// What they print, as the page says.
    pub expected: Vec<Expected>,
}

/// Reads the blocks of a page.
///
/// # Errors
/// Where a marker is not understood, has no block, gives no reason, or a block is not a whole number of commands.
pub fn parse(page: &str, text: &str) -> Result<Vec<Block>, WalkthroughError> {
    let problem = |line: usize, problem: String| WalkthroughError::Page { page: page.into(), line, problem };
    let mut blocks: Vec<Block> = Vec::new();
    let mut marker: Option<(usize, String)> = None;
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim();
        if let Some(said) = trimmed.strip_prefix("<!-- walkthrough:") {
            let said = said
                .strip_suffix("-->")
                .ok_or_else(|| problem(number, "a marker is one line that ends with -->".into()))?;
            if marker.is_some() {
                return Err(problem(number, "two markers for one block".into()));
            }
            marker = Some((number, said.trim().to_owned()));
            continue;
        }
        let Some(info) = trimmed.strip_prefix("```") else {
            if let (Some((at, _)), false) = (&marker, trimmed.is_empty()) {
                return Err(problem(*at, "no block follows this marker".into()));
            }
            continue;
        };
        let kind = info.split_whitespace().next().unwrap_or_default();
        let indent = line.len() - line.trim_start().len();
        let mut body = Vec::new();
        loop {
            match lines.next() {
                Some((_, inner)) if inner.trim() == "```" => break,
                Some((at, inner)) => body.push((at, inner.get(indent..).unwrap_or_default())),
                None => return Err(problem(number, "the block does not end".into())),
            }
        }
        let marker = marker.take();
        if let Some((at, "output")) = marker.as_ref().map(|(at, said)| (*at, said.as_str())) {
            let block =
                blocks.last_mut().filter(|block| block.how == How::Run && kind != "sh").ok_or_else(|| {
                    problem(at, "an output needs a block of commands above it that is run".into())
                })?;
            let lines = body.iter().map(|(_, line)| (*line).to_owned()).filter(|l| !l.trim().is_empty());
            block.expected.push(Expected { line: number, lines: lines.collect() });
            continue;
        }
        if OTHER_SHELLS.contains(&kind) {
            return Err(problem(number, format!("commands are in blocks of `sh`, not of `{kind}`")));
        }
        if kind != "sh" {
            match marker {
                Some((at, _)) => return Err(problem(at, "this marker is for blocks of `sh`".into())),
                None => continue,
            }
        }
        let how = match &marker {
            None => How::Run,
            Some((at, said)) => how(said).ok_or_else(|| {
                problem(*at, format!("`{said}` is neither `skip, REASON`, nor `background until \"TEXT\", REASON`, nor `output`"))
            })?,
        };
        let steps = split(&body).map_err(|(line, text)| problem(line, text))?;
        if matches!(how, How::Background { .. }) && steps.len() != 1 {
            return Err(problem(number, "a block in the background is one command".into()));
        }
        blocks.push(Block { page: page.into(), steps, how, expected: Vec::new() });
    }
    match marker {
        Some((at, _)) => Err(problem(at, "no block follows this marker".into())),
        None => Ok(blocks),
    }
}

/// What a marker says. `None` where it is not understood or gives no reason.
fn how(said: &str) -> Option<How> {
    if let Some(rest) = said.strip_prefix("background until \"") {
        let (until, reason) = rest.split_once("\",")?;
        return (!until.is_empty() && !reason.trim().is_empty())
            .then(|| How::Background { until: until.to_owned() });
    }
    let (word, reason) = said.split_once(',')?;
    let reason = reason.trim();
    (word.trim() == "skip" && !reason.is_empty()).then(|| How::Skip { reason: reason.to_owned() })
}

/// Splits a block into commands. The shell itself tells where one ends: here-documents, quotes, loops.
fn split(body: &[(usize, &str)]) -> Result<Vec<Step>, (usize, String)> {
    let mut steps = Vec::new();
    let mut open: Option<Step> = None;
    let mut complaint = String::new();
    for (line, text) in body {
        let step = match open.take() {
            Some(step) => Step { text: format!("{}\n{text}", step.text), ..step },
            None if text.trim().is_empty() || text.trim_start().starts_with('#') => continue,
            None => Step { line: *line, text: (*text).to_owned() },
        };
        let checked = Command::new("bash").args(["-n", "-c", &step.text]).output();
        let checked = checked.map_err(|e| (*line, format!("bash cannot be run: {e}")))?;
        complaint = String::from_utf8_lossy(&checked.stderr).trim().to_owned();
        // An open here-document is only a warning to it.
        if checked.status.success() && complaint.is_empty() && !step.text.ends_with('\\') {
            steps.push(step);
        } else {
            open = Some(step);
        }
    }
    match open {
        Some(step) => Err((step.line, format!("not a whole command: {complaint}"))),
        None => Ok(steps),
    }
}

/// The first line of what a page says that does not appear in the output in its place.
fn missing<'a>(expected: &'a Expected, output: &str) -> Option<&'a str> {
    let mut lines = output.lines().map(squeeze);
    expected
        .lines
        .iter()
        .find(|wanted| {
            let pattern = squeeze(wanted);
            !lines.any(|line| matches(&pattern, &line))
        })
        .map(String::as_str)
}

/// Columns are as wide as their contents: one space is as good as several.
fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let Some(last) = pattern.split('…').skip(1).last() else { return rest.is_empty() };
    let between = pattern.split('…').count().saturating_sub(2);
    for part in parts.take(between) {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// How a walkthrough went.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Commands that did what the page says.
    pub passed: usize,
    /// Commands that did not.
    pub failed: usize,
    /// Commands after a failed one.
    pub not_run: usize,
    /// Commands of blocks that are marked to be skipped.
    pub skipped: usize,
}

/// Where and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that the commands run in.
    pub folder: PathBuf,
    /// Where commands and outputs are kept; outside of `folder`.
    pub scratch: PathBuf,
    /// How long one command may take.
    pub timeout: Duration,
}

/// One shell that runs commands one after the other.
struct Shell {
    process: Child,
    input: ChildStdin,
    options: Options,
    started: usize,
}

/// How a command went.
enum End {
    Done(i32),
    TimedOut,
}

/// A command that runs or has run.
struct Started {
    output: PathBuf,
    status: PathBuf,
}

impl Started {
    fn output(&self) -> String {
        fs::read(&self.output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn status(&self) -> Option<i32> {
        fs::read_to_string(&self.status).ok()?.trim().parse().ok()
    }
}

impl Shell {
    fn start(options: Options) -> Result<Shell, WalkthroughError> {
        let io = |source| WalkthroughError::Io { what: "the shell".into(), source };
        let mut process = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(&options.folder)
            .stdin(Stdio::piped())
            // A group of its own: at the end everything that was left running is told to stop.
            .process_group(0)
            .spawn()
            .map_err(io)?;
        let input =
            process.stdin.take().ok_or_else(|| io(std::io::Error::other("it has no standard input")))?;
        Ok(Shell { process, input, options, started: 0 })
    }

    fn say(&mut self, line: &str) -> Result<(), WalkthroughError> {
        let io = |source| WalkthroughError::Io { what: "the shell".into(), source };
        writeln!(self.input, "{line}").and_then(|()| self.input.flush()).map_err(io)
    }

    fn step(&mut self, text: &str, background: bool) -> Result<Started, WalkthroughError> {
        self.started += 1;
        let at = |kind: &str| self.options.scratch.join(format!("{:03}.{kind}", self.started));
        let (script, output, status, partial) = (at("sh"), at("out"), at("status"), at("partial"));
        let io = |source| WalkthroughError::Io { what: script.display().to_string(), source };
        let mut file = File::create(&script).map_err(io)?;
        writeln!(file, "{text}").map_err(io)?;
        // Renamed, so that a status is there whole or not at all.
        let run = format!(
            "source {script} >{output} 2>&1 </dev/null; echo $? >{partial}; mv {partial} {status}",
            script = quoted(&script),
            output = quoted(&output),
            partial = quoted(&partial),
            status = quoted(&status),
        );
        // At the end the command is to stop by itself; the shell around it waits until it has.
        self.say(&if background { format!("{{ trap : TERM; {run}; }} &") } else { run })?;
        Ok(Started { output, status })
    }

    /// Waits until `done` tells that it is over.
    fn wait(&mut self, step: &Started, done: impl Fn(&Started) -> bool) -> End {
        let begun = Instant::now();
        loop {
            if let Some(status) = step.status() {
                return End::Done(status);
            }
            if done(step) {
                return End::Done(0);
            }
            // A command may end the shell itself (`exit`, `set -e`).
            if let Ok(Some(status)) = self.process.try_wait() {
                return End::Done(status.code().unwrap_or(-1));
            }
            if begun.elapsed() > self.options.timeout {
                return End::TimedOut;
            }
            sleep(POLL);
        }
    }

    /// Ends everything that the commands left running: asks first, as an administrator would.
    fn stop(mut self) {
        let _ = self.say("trap '' TERM; kill -TERM 0; wait");
        drop(self.input);
        let begun = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) && begun.elapsed() < STOPPING {
            sleep(POLL);
        }
        // Also where the shell itself has ended: what it started may live on.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("bash").args(["-c", "kill -KILL -- \"$0\" 2>/dev/null", &group]).status();
        let _ = self.process.wait();
    }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Runs all blocks, and prints commands, the end of what they print, and times. Stops at the first failure.
///
/// # Errors
/// Where the shell cannot be run or a file cannot be written.
pub fn run(blocks: &[Block], options: Options) -> Result<Summary, WalkthroughError> {
    let timeout = options.timeout;
    let mut shell = Shell::start(options)?;
    let mut summary = Summary::default();
    let mut running: Vec<(String, Started)> = Vec::new();
    for block in blocks {
        if let How::Skip { reason } = &block.how {
            for step in &block.steps {
                println!("\n{}:{}  skipped ({reason})\n$ {}", block.page, step.line, step.text);
            }
            summary.skipped += block.steps.len();
            continue;
        }
        if summary.failed > 0 {
            summary.not_run += block.steps.len();
            continue;
        }
        let mut printed = String::new();
        for (index, step) in block.steps.iter().enumerate() {
            let place = format!("{}:{}", block.page, step.line);
            println!("\n{place}\n$ {}", step.text);
            let begun = Instant::now();
            let (started, end) = match &block.how {
                How::Background { until } => {
                    let started = shell.step(&step.text, true)?;
                    let end = shell.wait(&started, |step| step.output().contains(until.as_str()));
                    (started, end)
                }
                _ => {
                    let started = shell.step(&step.text, false)?;
                    let end = shell.wait(&started, |_| false);
                    (started, end)
                }
            };
            let output = started.output();
            printed.push_str(&output);
            let mut why = match end {
                End::Done(0) => None,
                End::Done(status) => Some(format!("exit status {status}")),
                End::TimedOut => Some(format!("not done within {} s", timeout.as_secs())),
            };
            if let How::Background { until } = &block.how {
                if why.is_none() && !output.contains(until.as_str()) {
                    why = Some(format!("ended without printing {until:?}"));
                }
            }
            if index + 1 == block.steps.len() && why.is_none() {
                why = block.expected.iter().find_map(|expected| {
                    missing(expected, &printed)
                        .map(|line| format!("{}:{} says that it prints {line:?}", block.page, expected.line))
                });
            }
            show(&output, why.is_some());
            let took = begun.elapsed().as_secs_f64();
            match why {
                None => {
                    summary.passed += 1;
                    println!("-- {took:.1} s");
                }
                Some(why) => {
                    summary.failed += 1;
                    println!("-- FAILED after {took:.1} s: {why}");
                    summary.not_run += block.steps.len() - index - 1;
                    break;
                }
            }
            if matches!(block.how, How::Background { .. }) {
                running.push((place, started));
            }
        }
    }
    for (place, started) in &running {
        if let Some(status) = started.status().filter(|status| *status != 0) {
            println!("\n{place} ended by itself, with exit status {status}:");
            show(&started.output(), true);
            summary.failed += 1;
            summary.passed = summary.passed.saturating_sub(1);
        } else if summary.failed > 0 {
            println!("\n{place}, in the background, printed:");
            show(&started.output(), true);
        }
    }
    shell.stop();
    Ok(summary)
}

fn show(output: &str, all: bool) {
    let lines: Vec<&str> = output.lines().collect();
    let from = if all { 0 } else { lines.len().saturating_sub(SHOWN) };
    if from > 0 {
        println!("  … {from} lines");
    }
    for line in &lines[from..] {
        println!("  {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str) -> Vec<Block> {
        parse("page.md", text).unwrap()
    }

    fn refused(text: &str) -> String {
        parse("page.md", text).unwrap_err().to_string()
    }

    fn walk(text: &str) -> (Summary, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let options = Options {
            folder: folder.path().into(),
            scratch: scratch.path().into(),
            timeout: Duration::from_secs(20),
        };
        (run(&blocks(text), options).unwrap(), folder)
    }

    #[test]
    fn a_block_is_as_many_commands_as_the_shell_says() {
        let text = "```sh\n# a comment\none  # two\n\ncat >f <<'END'\n```x\n$y\nEND\nfor i in 1 2; do\n  echo $i\ndone\na \\\n  b\n```\n";
        let steps: Vec<_> = blocks(text)[0].steps.iter().map(|s| (s.line, s.text.clone())).collect();
        let texts =
            ["one  # two", "cat >f <<'END'\n```x\n$y\nEND", "for i in 1 2; do\n  echo $i\ndone", "a \\\n  b"];
        assert_eq!(steps, [3, 5, 9, 12].into_iter().zip(texts.map(String::from)).collect::<Vec<_>>());
        assert!(refused("```sh\necho 'open\n```").starts_with("page.md:2: not a whole command"));
    }

    #[test]
    fn only_sh_is_run_and_other_shells_are_refused() {
        assert!(blocks("```toml\na = 1\n```\n```text\nls\n```\n").is_empty());
        assert!(refused("```console\n$ ls\n```").contains("not of `console`"));
    }

    #[test]
    fn markers_are_understood_or_refused() {
        let skipped = blocks("<!-- walkthrough: skip, an hour -->\n\n```sh\nx\n```\n");
        assert_eq!(skipped[0].how, How::Skip { reason: "an hour".into() });
        let background =
            blocks("<!-- walkthrough: background until \"up, on 1\", goes on -->\n```sh\nx\n```");
        assert_eq!(background[0].how, How::Background { until: "up, on 1".into() });
        for (text, why) in [
            ("<!-- walkthrough: skip -->\n```sh\nx\n```", "neither"),
            ("<!-- walkthrough: skip,  -->\n```sh\nx\n```", "neither"),
            ("<!-- walkthrough: background, why -->\n```sh\nx\n```", "neither"),
            ("<!-- walkthrough: skip, why -->\ntext\n```sh\nx\n```", "no block follows"),
            ("<!-- walkthrough: skip, why -->", "no block follows"),
            ("<!-- walkthrough: skip, why -->\n```toml\nx\n```", "for blocks of `sh`"),
            ("<!-- walkthrough: output -->\n```text\nx\n```", "needs a block of commands"),
            ("<!-- walkthrough: background until \"a\", b -->\n```sh\nx\ny\n```", "is one command"),
            ("```sh\nx\n", "does not end"),
        ] {
            assert!(refused(text).contains(why), "{text:?}: {}", refused(text));
        }
    }

    #[test]
    fn outputs_are_compared_by_their_words() {
        let expected = |lines: &[&str]| Expected {
            line: 1,
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        };
        let output = "fee   0.5 UNIT\nnode 7  paid 0.25\nend\n";
        assert_eq!(missing(&expected(&["fee 0.5 UNIT", "end"]), output), None);
        assert_eq!(missing(&expected(&["fee … UNIT", "node … paid …", "…"]), output), None);
        assert_eq!(missing(&expected(&["…paid 0.25"]), output), None);
        assert_eq!(missing(&expected(&["end", "fee 0.5 UNIT"]), output), Some("fee 0.5 UNIT"));
        assert_eq!(missing(&expected(&["fee 0.6 UNIT"]), output), Some("fee 0.6 UNIT"));
        assert_eq!(missing(&expected(&["fee 0.5"]), output), Some("fee 0.5"));
        assert_eq!(missing(&expected(&["node … got …"]), output), Some("node … got …"));
    }

    #[test]
    fn one_shell_runs_everything_in_order() {
        let (summary, folder) = walk(
            "```sh\nx=1; umask 077\nmkdir in && cd in\n```\n```sh\necho $x >file\n```\n<!-- walkthrough: output -->\n```text\n```\n\
             ```sh\ncat file; pwd\n```\n<!-- walkthrough: output -->\n```text\n1\n…/in\n```\n",
        );
        assert_eq!(summary, Summary { passed: 4, ..Summary::default() });
        assert_eq!(fs::read_to_string(folder.path().join("in/file")).unwrap(), "1\n");
    }

    #[test]
    fn what_fails_stops_the_walk() {
        let (summary, _) = walk("```sh\ntrue\nfalse\necho\n```\n```sh\necho\n```\n");
        assert_eq!(summary, Summary { passed: 1, failed: 1, not_run: 2, skipped: 0 });
        let (summary, _) = walk("```sh\necho a\n```\n<!-- walkthrough: output -->\n```text\nb\n```\n");
        assert_eq!(summary, Summary { failed: 1, ..Summary::default() });
        let (summary, _) = walk("```sh\nexit 3\n```\n```sh\necho\n```\n");
        assert_eq!(summary, Summary { failed: 1, not_run: 1, ..Summary::default() });
    }

    #[test]
    fn what_runs_in_the_background_is_waited_for_and_stopped() {
        let (summary, folder) = walk(
            "<!-- walkthrough: background until \"ready\", a server -->\n```sh\nbash -c 'trap \"echo bye >bye; exit\" TERM; \
             sleep 0.3; echo ready; while :; do sleep 0.05; done'\n```\n```sh\necho next\n```\n",
        );
        assert_eq!(summary, Summary { passed: 2, ..Summary::default() });
        assert!(folder.path().join("bye").exists());
        let (summary, _) =
            walk("<!-- walkthrough: background until \"ready\", a server -->\n```sh\necho no\n```\n```sh\necho\n```\n");
        assert_eq!(summary, Summary { failed: 1, not_run: 1, ..Summary::default() });
        let (summary, _) = walk(
            "<!-- walkthrough: background until \"ready\", a server -->\n```sh\n(echo ready; sleep 0.3; exit 1)\n```\n```sh\nsleep 1\n```\n",
        );
        assert_eq!(summary, Summary { passed: 1, failed: 1, ..Summary::default() });
        // A request that waits for its answer ends when it has it.
        let (summary, _) = walk(
            "<!-- walkthrough: background until \"ready\", a request -->\n```sh\necho ready\n```\n```sh\nsleep 0.3\n```\n",
        );
        assert_eq!(summary, Summary { passed: 2, ..Summary::default() });
    }
}
