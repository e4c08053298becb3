//! One process at a time.
//!
//! The lock is the operating system's on an open file, so it goes when its holder does, however it ends; the process
//! number inside is only there to be shown. The file stays: removing it would let two processes lock two files of the
//! same name.

use crate::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Holds a journal's lock until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn acquire(journal: &Path) -> Result<Lock, Error> {
        let path = lock_path(journal);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file =
            options.open(&path).map_err(|source| Error::io("open the lock file", &path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked { path: journal.to_owned(), pid: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path, source)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()))
            .and_then(|()| file.flush());
        written.map_err(|source| Error::io("write to the lock file", &path, source))?;
        Ok(Lock { _file: file })
    }
}

fn lock_path(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    // A process number has few digits; whatever else is there is not read.
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
