//! Results on standard output: tables for people, one JSON document for scripts.

use crate::cli::args::Output;
use comfy_table::{presets, CellAlignment, ContentArrangement, Table};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// Writes results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    json: bool,
}

impl Output {
    /// The printer that the flags ask for.
    pub(crate) fn printer(self) -> Printer {
        Printer { json: self.json }
    }
}

impl Printer {
    /// Writes the JSON or the text, as asked for; only that one is made.
    pub(crate) fn print(
        self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let text = if self.json { format!("{:#}", json()) } else { text() };
        write_out(&text)
    }
}

/// Writes a line to standard output. A reader that has gone away (`poq … | head`) is no error.
pub(crate) fn write_out(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{newline}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// A table; numbers stand on the right. As wide as it needs to be unless there is a terminal that it must fit into.
pub(crate) fn table<H: Into<String>>(header: impl IntoIterator<Item = H>, right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(if std::io::stdout().is_terminal() {
        ContentArrangement::Dynamic
    } else {
        ContentArrangement::Disabled
    });
    table.set_header(header.into_iter().map(Into::into).collect::<Vec<String>>());
    for index in right {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Names and values, the names aligned.
pub(crate) fn pairs<N: AsRef<str>>(lines: &[(N, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.as_ref().chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(N, String)| {
        let value = value.replace('\n', &format!("\n{:width$}  ", ""));
        format!("{:width$}  {value}", name.as_ref())
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A block time for people.
pub(crate) fn time(millis: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis);
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_aligned() {
        assert_eq!(pairs(&[("a", "1".into()), ("long", "2\n3".into())]), "a     1\nlong  2\n      3");
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(time(1_767_225_600_000), "2026-01-01T00:00:00Z");
    }
}
