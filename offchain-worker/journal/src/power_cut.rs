//! A disk that loses power: what was not synced may be there, may not, or may be there in part.

use crate::journal::{builder, initialise, open_error};
use crate::{commitment_of, Duty, Identity, Journal, Payload};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redb::StorageBackend;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;
const IDENTITY: Identity = Identity { genesis: [1; 32], first_block: [2; 32], contract: [3; 32] };

#[derive(Clone, Debug)]
enum Unsynced {
    Write(usize, Vec<u8>),
    Resize(usize),
}

#[derive(Debug, Default)]
struct Platter {
    synced: Vec<u8>,
    seen: Vec<u8>,
    unsynced: Vec<Unsynced>,
    /// Operations until the power goes.
    fuse: Option<usize>,
    /// Says that it has synced, and has not.
    lies: bool,
}

#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platter>>);

fn apply(image: &mut Vec<u8>, operation: &Unsynced) {
    match operation {
        Unsynced::Resize(length) => image.resize(*length, 0),
        Unsynced::Write(offset, data) => {
            let end = offset + data.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            image[*offset..end].copy_from_slice(data);
        }
    }
}

impl Disk {
    fn with(image: Vec<u8>, fuse: Option<usize>) -> Disk {
        Disk(Arc::new(Mutex::new(Platter {
            synced: image.clone(),
            seen: image,
            unsynced: Vec::new(),
            fuse,
            lies: false,
        })))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    fn powered(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let mut platter = self.platter();
        match &mut platter.fuse {
            Some(0) => return Err(io::Error::other("no power")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(platter)
    }

    /// What is on the disk when the power comes back: all that was synced, and of the rest whatever the disk got to,
    /// sector by sector.
    fn after_power_cut(&self, random: &mut StdRng) -> Vec<u8> {
        let platter = self.platter();
        let mut image = platter.synced.clone();
        for operation in &platter.unsynced {
            match operation {
                Unsynced::Resize(_) if random.random_bool(0.5) => apply(&mut image, operation),
                Unsynced::Resize(_) => {}
                Unsynced::Write(offset, data) => {
                    let whole = random.random_bool(0.4);
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if whole || random.random_bool(0.4) {
                            apply(&mut image, &Unsynced::Write(offset + index * SECTOR, sector.to_vec()));
                        }
                    }
                }
            }
        }
        image
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.platter();
        let start = offset as usize;
        let source = platter.seen.get(start..start + out.len());
        out.copy_from_slice(source.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.powered()?;
        platter.seen.resize(len as usize, 0);
        platter.unsynced.push(Unsynced::Resize(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.powered()?;
        if platter.lies {
            return Ok(());
        }
        let unsynced = std::mem::take(&mut platter.unsynced);
        for operation in &unsynced {
            apply(&mut platter.synced, operation);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.powered()?;
        let operation = Unsynced::Write(offset as usize, data.to_vec());
        apply(&mut platter.seen, &operation);
        platter.unsynced.push(operation);
        Ok(())
    }
}

fn open(disk: &Disk) -> Result<Journal, crate::Error> {
    let path = Path::new("a disk in memory");
    let database = builder().create_with_backend(disk.clone()).map_err(|error| open_error(error, path))?;
    Journal::start(path, database, IDENTITY, None)
}

fn promise(task: u64) -> (Duty, [u8; 32], Payload) {
    let duty = Duty::output(task, 3);
    // From well under a page to several pages.
    let payload = Payload::output(vec![task as u8; 1 + (task as usize * 997) % 20_000], [task as u8; 32]);
    (duty, commitment_of(&IDENTITY.network(), &duty, &payload).unwrap(), payload)
}

/// A journal that was laid out and opened once.
fn blank() -> Vec<u8> {
    let disk = Disk::default();
    let database = builder().create_with_backend(disk.clone()).unwrap();
    initialise(&database, Path::new("a disk in memory")).unwrap();
    drop(database);
    drop(open(&disk).unwrap());
    let image = disk.platter().synced.clone();
    image
}

/// Inserts tasks 1 to 20 until the power goes; how many were acknowledged, and whether the journal could be opened.
fn insert_until_dark(disk: &Disk) -> (u64, bool) {
    let Ok(journal) = open(disk) else { return (0, false) };
    for task in 1..=20 {
        let (duty, commitment, payload) = promise(task);
        match journal.check_and_insert(duty, commitment, payload) {
            Ok(safe) => assert!(safe.is_new()),
            Err(_) => return (task - 1, true),
        }
    }
    (20, true)
}

/// How many operations that takes.
fn operations(blank: &[u8]) -> usize {
    let disk = Disk::with(blank.to_vec(), Some(usize::MAX));
    assert_eq!(insert_until_dark(&disk), (20, true));
    let left = disk.platter().fuse.unwrap();
    usize::MAX - left
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let blank = blank();
    let total = operations(&blank);
    let (mut cut_at_open, mut acknowledged_in_all) = (0, 0);
    for trial in 0..300 {
        let mut random = StdRng::seed_from_u64(trial);
        let disk = Disk::with(blank.clone(), Some(random.random_range(0..total)));
        let (acknowledged, opened) = insert_until_dark(&disk);
        cut_at_open += u64::from(!opened);
        acknowledged_in_all += acknowledged;
        let image = disk.after_power_cut(&mut random);
        let journal = open(&Disk::with(image, None)).unwrap_or_else(|error| panic!("trial {trial}: {error}"));
        let found = journal.open_duties().unwrap();
        // The one that was under way may be there or not; nothing else.
        assert!((acknowledged..=acknowledged + 1).contains(&(found.len() as u64)), "trial {trial}");
        for record in found {
            let (duty, commitment, payload) = promise(record.duty.task);
            assert_eq!(
                (record.duty, record.commitment, record.payload),
                (duty, commitment, payload),
                "trial {trial}"
            );
        }
        // And the journal goes on: what was there is the same, what was not is new.
        let before = journal.open_duties().unwrap().len() as u64;
        for task in 1..=20 {
            let (duty, commitment, payload) = promise(task);
            assert_eq!(journal.check_and_insert(duty, commitment, payload).unwrap().is_new(), task > before);
        }
    }
    assert!(acknowledged_in_all > 1_000, "the cuts came too early to test anything: {acknowledged_in_all}");
    assert!(cut_at_open < 150, "{cut_at_open}");
}

/// Shows that the test above can fail: on a disk that acknowledges syncs and does not do them, promises get lost.
#[test]
fn a_disk_that_lies_loses_promises() {
    let blank = blank();
    let total = operations(&blank);
    let lost = (0..50)
        .filter(|trial| {
            let mut random = StdRng::seed_from_u64(*trial);
            let disk = Disk::with(blank.clone(), Some(random.random_range(total / 2..total)));
            disk.platter().lies = true;
            let (acknowledged, _) = insert_until_dark(&disk);
            match open(&Disk::with(disk.after_power_cut(&mut random), None)) {
                Ok(journal) => (journal.open_duties().unwrap().len() as u64) < acknowledged,
                Err(_) => true,
            }
        })
        .count();
    assert!(lost > 40, "{lost} of 50");
}
