//! An account's history as a table that a spreadsheet opens.

use crate::server::Shared;
use poq_index::ledger::WHATS;
use poq_index::read::{EntryInfo, HistoryFilter};
use poq_index::Error;
use std::fmt::Write as _;

/// How many movements are read at a time.
const PAGE: u32 = 2_000;

/// What the columns are called.
pub(crate) const HEADER: &str =
    "time_utc,block,event,part,movement,what,in,out,not_cash,unit,node,task,pool\r\n";

/// A time as ISO 8601 has it, in UTC, by the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
fn iso(at: u64) -> String {
    let (days, rest) = (at / 86_400_000, at % 86_400_000);
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (seconds, millis) = (rest / 1_000, rest % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// An amount in whole units, every digit of it.
fn units(amount: &str, decimals: u8) -> String {
    let decimals = usize::from(decimals);
    if decimals == 0 {
        return amount.to_owned();
    }
    let digits = format!("{amount:0>width$}", width = decimals.saturating_add(1));
    let (whole, rest) = digits.split_at(digits.len().saturating_sub(decimals));
    format!("{whole}.{rest}")
}

/// A movement's row. Every cell is a number, a time, an address, or one of this program's own words: nothing that a spreadsheet runs.
fn line(entry: &EntryInfo, decimals: u8, symbol: &str) -> String {
    let amount = units(&entry.amount, decimals);
    let (inward, outward, other) = match entry.cash {
        1 => (amount.as_str(), "", ""),
        -1 => ("", amount.as_str(), ""),
        _ => ("", "", amount.as_str()),
    };
    let words = WHATS.iter().find(|(name, _, _)| *name == entry.what).map_or("", |(_, _, words)| *words);
    let optional = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let mut text = String::new();
    let _ = write!(
        text,
        "{},{},{},{},{},\"{words}\",{inward},{outward},{other},{},{},{},{}\r\n",
        iso(entry.at),
        entry.block,
        entry.index,
        entry.part,
        entry.what,
        quoted(symbol),
        optional(entry.node.map(u64::from)),
        optional(entry.task),
        entry.pool.as_deref().unwrap_or_default(),
    );
    text
}

/// The chain's own word for its money, so that it is nothing but text to a spreadsheet.
fn quoted(text: &str) -> String {
    let text: String = text.chars().filter(|c| c.is_alphanumeric() || *c == '_' || *c == ' ').collect();
    format!("\"{text}\"")
}

/// An account's whole history, page by page, the newest first.
pub(crate) fn rows(
    shared: Shared,
    account: String,
    mut filter: HistoryFilter,
) -> impl futures::Stream<Item = Result<String, Error>> + Send {
    async_stream::try_stream! {
        yield HEADER.to_owned();
        let identity = shared.reads().identity().clone();
        loop {
            let (typed, asked) = (account.clone(), filter.clone());
            let page = shared.ask(move |reads, conn| reads.entries(conn, &typed, &asked, PAGE)).await?;
            let Some(last) = page.last() else { break };
            filter.before = Some(format!("{}-{}-{}", last.block, last.index, last.part));
            yield page.iter().map(|entry| line(entry, identity.decimals, &identity.symbol)).collect();
            if u32::try_from(page.len()).unwrap_or(0) < PAGE {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_amounts_keep_every_digit() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(iso(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(iso(1_767_225_600_007), "2026-01-01T00:00:00.007Z");
        assert_eq!(iso(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(units("1", 12), "0.000000000001");
        assert_eq!(units("1234500000000", 12), "1.234500000000");
        assert_eq!(units("7", 0), "7");
    }

    #[test]
    fn a_row_has_as_many_cells_as_the_header() {
        let entry = EntryInfo {
            block: 1,
            index: 2,
            part: 3,
            at: 0,
            what: "fee".into(),
            cash: -1,
            amount: "5".into(),
            node: None,
            task: Some(4),
            pool: None,
        };
        // One of the cells has a comma in its words.
        let line = line(&entry, 0, "=1+1\"");
        assert_eq!(
            line,
            "1970-01-01T00:00:00.000Z,1,2,3,fee,\"a task's fee, into escrow\",,5,,\"11\",,4,\r\n"
        );
        assert_eq!(line.split(',').count() - 1, HEADER.split(',').count());
    }
}
