//! The written size budget of the contract.

use std::path::{Path, PathBuf};

/// The highest budget that may be written, in bytes. Chains take more (`substrate-contracts-node` 256 KiB), but every byte of
/// code is paid for as a storage deposit and loaded on every call: a contract that nears the limit has to be made smaller.
pub const MAX_BUDGET: usize = 144 * 1024;

/// How many bytes the contract's code may take, and where that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Upper bound of the code's size, in bytes (at most [`MAX_BUDGET`]).
    pub bytes: usize,
    /// The file that says so: whoever exceeds the budget should know where to argue.
    pub file: PathBuf,
}

/// Why a budget could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// The file cannot be read.
    #[error("cannot read the size budget {file}: {source}", file = file.display())]
    Read {
        /// The budget file.
        file: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file does not hold one number.
    #[error("the size budget {file} must hold one number of bytes, beside comments that start with #; found {found:?}", file = file.display())]
    Format {
        /// The budget file.
        file: PathBuf,
        /// Its contents without the comments.
        found: String,
    },
    /// The number is out of range.
    #[error("the size budget {file} says {bytes} bytes; it must be between 1 and {MAX_BUDGET}", file = file.display())]
    Range {
        /// The budget file.
        file: PathBuf,
        /// What it says.
        bytes: usize,
    },
}

impl Budget {
    /// Reads a budget file: one number of bytes, and comments that start with `#`.
    ///
    /// # Errors
    /// When the file cannot be read, holds something else, or a number outside `1..=MAX_BUDGET`.
    pub fn read(file: &Path) -> Result<Self, BudgetError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| BudgetError::Read { file: file.to_owned(), source })?;
        let words: Vec<&str> = text
            .lines()
            .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
            .collect();
        let bytes = match words.as_slice() {
            [number] => number.replace('_', "").parse().ok(),
            _ => None,
        }
        .ok_or_else(|| BudgetError::Format { file: file.to_owned(), found: words.join(" ") })?;
        if !(1..=MAX_BUDGET).contains(&bytes) {
            return Err(BudgetError::Range { file: file.to_owned(), bytes });
        }
        Ok(Self { bytes, file: file.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<usize, BudgetError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("size-budget.txt");
        std::fs::write(&file, text).unwrap();
        Budget::read(&file).map(|budget| budget.bytes)
    }

    #[test]
    fn one_number_and_comments() {
        assert_eq!(read("# bytes\n65_536 # measured 61,000\n").unwrap(), 65_536);
        assert!(matches!(read("# nothing\n"), Err(BudgetError::Format { .. })));
        assert!(matches!(read("64 KiB"), Err(BudgetError::Format { .. })));
        let above = MAX_BUDGET + 1;
        assert!(matches!(read(&above.to_string()), Err(BudgetError::Range { bytes, .. }) if bytes == above));
        assert!(matches!(read("0"), Err(BudgetError::Range { .. })));
        assert!(matches!(Budget::read(Path::new("nowhere.txt")), Err(BudgetError::Read { .. })));
    }
}
