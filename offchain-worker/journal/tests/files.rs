//! The file: who may hold it, who may read it, and what happens when it is damaged.
#![allow(clippy::unwrap_used)]

use poq_journal::{commitment_of, Duty, End, Error, Identity, Journal, NotSafe, Payload, State};
use std::fs;
use std::path::{Path, PathBuf};

const IDENTITY: Identity = Identity { genesis: [1; 32], first_block: [2; 32], contract: [3; 32] };

fn insert(journal: &Journal, task: u64) -> Result<bool, NotSafe> {
    let duty = Duty::output(task, 3);
    let payload = Payload::output(vec![task as u8; 3_000], [task as u8; 32]);
    let commitment = commitment_of(&IDENTITY.network(), &duty, &payload).unwrap();
    journal.check_and_insert(duty, commitment, payload).map(|safe| safe.is_new())
}

fn written(folder: &Path) -> PathBuf {
    let path = folder.join("journal.redb");
    let journal = Journal::open(&path, IDENTITY).unwrap();
    for task in 1..=30 {
        insert(&journal, task).unwrap();
    }
    path
}

#[test]
fn a_second_holder_is_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    let journal = Journal::open(&path, IDENTITY).unwrap();
    let error = Journal::open(&path, IDENTITY).unwrap_err();
    assert!(
        matches!(&error, Error::Locked { path: of, pid } if *of == path && *pid == Some(std::process::id())),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains(&path.display().to_string()) && text.contains(&std::process::id().to_string()),
        "{text}"
    );
    // A clone is the same holder; the lock goes with the last one.
    let clone = journal.clone();
    drop(journal);
    assert!(Journal::open(&path, IDENTITY).is_err());
    drop(clone);
    Journal::open(&path, IDENTITY).unwrap();
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/poq/journal.redb");
    drop(Journal::open(&path, IDENTITY).unwrap());
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(&folder.path().join("state/poq/journal.redb.lock")), 0o600);
    // Somebody opened it up: it is closed again.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(Journal::open(&path, IDENTITY).unwrap());
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn an_empty_file_is_not_a_new_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    fs::write(&path, b"").unwrap();
    let error = Journal::open(&path, IDENTITY).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { detail, .. } if detail.contains("empty")), "{error:?}");
    assert!(error.to_string().contains(&path.display().to_string()));
    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "it is left as it was");
}

#[test]
fn a_truncated_file_is_refused_wherever_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let whole = fs::read(&path).unwrap();
    let mut cuts: Vec<usize> = (1..40).map(|part| whole.len() * part / 40).collect();
    cuts.extend([
        1,
        7,
        63,
        64,
        127,
        320,
        511,
        512,
        4_095,
        4_096,
        4_097,
        whole.len() - 4_096,
        whole.len() - 1,
    ]);
    for cut in cuts {
        fs::write(&path, &whole[..cut]).unwrap();
        match Journal::open(&path, IDENTITY) {
            Err(Error::Corrupt { .. }) => {}
            Err(error) => panic!("cut at {cut} of {}: {error:?}", whole.len()),
            // Room that the database has set aside and does not use may be missing: nothing is lost.
            Ok(journal) => assert_eq!(journal.open_duties().unwrap().len(), 30, "cut at {cut}"),
        }
    }
}

#[test]
fn a_damaged_file_never_tells_a_wrong_story() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let whole = fs::read(&path).unwrap();
    let reference = {
        let journal = Journal::open(&path, IDENTITY).unwrap();
        journal.open_duties().unwrap()
    };
    let (mut refused, mut unharmed) = (0, 0);
    // Every page from its beginning, and pages' middles.
    for at in (0..whole.len()).step_by(1_361) {
        let mut damaged = whole.clone();
        for byte in damaged.iter_mut().skip(at).take(64) {
            *byte ^= 0x5a;
        }
        fs::write(&path, &damaged).unwrap();
        match Journal::open(&path, IDENTITY) {
            Err(Error::Corrupt { .. }) => refused += 1,
            Err(error) => panic!("damaged at {at}: {error:?}"),
            Ok(journal) => {
                assert_eq!(journal.open_duties().unwrap(), reference, "damaged at {at}");
                unharmed += 1;
            }
        }
    }
    assert!(refused > 20, "{refused} refused, {unharmed} unharmed");
}

#[test]
fn what_is_no_journal_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    fs::write(&path, "remember the milk\n".repeat(1_000)).unwrap();
    let error = Journal::open(&path, IDENTITY).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert!(fs::read_to_string(&path).unwrap().starts_with("remember the milk"));

    let path = folder.path().join("other.redb");
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<u64, u64>::new("accounts")).unwrap().insert(1, 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Journal::open(&path, IDENTITY).unwrap_err();
    assert!(matches!(error, Error::NotAJournal { .. }), "{error:?}");
}

#[test]
fn a_later_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(redb::TableDefinition::<&str, u64>::new("poq-journal"))
        .unwrap()
        .insert("schema", 3)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Journal::open(&path, IDENTITY).unwrap_err();
    assert!(matches!(error, Error::Schema { found: 3, supported: 2, .. }), "{error:?}");
}

#[test]
fn a_database_tool_that_holds_the_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let _holder = redb::Database::open(&path).unwrap();
    let error = Journal::open(&path, IDENTITY).unwrap_err();
    assert!(matches!(error, Error::Locked { pid: None, .. }), "{error:?}");
}

#[test]
fn a_crash_while_creating_leaves_nothing_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    fs::write(folder.path().join("journal.redb.new"), b"half a journal").unwrap();
    let journal = Journal::open(&path, IDENTITY).unwrap();
    assert!(insert(&journal, 1).unwrap());
    assert!(!folder.path().join("journal.redb.new").exists());
}

#[test]
fn a_place_where_nothing_can_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    fs::write(&file, b"").unwrap();
    let error = Journal::open(file.join("journal.redb"), IDENTITY).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert!(error.to_string().contains("a file"), "{error}");
}

#[test]
fn pruning_keeps_the_file_small() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.redb");
    let journal = Journal::open(&path, IDENTITY).unwrap();
    let mut sizes = Vec::new();
    for cycle in 0..8u64 {
        for task in cycle * 20 + 1..=cycle * 20 + 20 {
            let duty = Duty::output(task, 3);
            let payload = Payload::output(vec![task as u8; 20_000], [task as u8; 32]);
            let commitment = commitment_of(&IDENTITY.network(), &duty, &payload).unwrap();
            journal.check_and_insert(duty, commitment, payload).unwrap();
            journal.advance(&duty, State::Final(End::Settled)).unwrap();
        }
        assert_eq!(journal.prune(u64::MAX).unwrap().duties, 20);
        sizes.push(fs::metadata(&path).unwrap().len());
    }
    // Room is used again: eight times the duties take no more of it than two times.
    assert!(sizes[7] <= sizes[1] * 2, "{sizes:?}");
}
