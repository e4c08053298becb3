//! The store, on a disk and in memory.
#![allow(clippy::unwrap_used)]

use poq_blobs::{BlobId, BlobStore, Slot, StoreError, StoreLimits};
use poq_core::task::Opened;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

const AT: Slot = Slot { network: [3; 32], task: 7, node: 4 };

fn on_disk() -> (tempfile::TempDir, BlobStore) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blobs");
    let store = BlobStore::open(path.to_str().unwrap(), StoreLimits { max_blob: 1_000 }).unwrap();
    (folder, store)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn what_is_put_can_be_had() {
    let (_folder, disk) = on_disk();
    for store in [disk, BlobStore::memory()] {
        let id = store.put("Paris").await.unwrap();
        assert_eq!(id, BlobId::of(b"Paris"));
        assert_eq!(&store.get(&id).await.unwrap()[..], b"Paris");
        assert_eq!(store.put("Paris").await.unwrap(), id, "again");
        assert!(store.contains(&id).await.unwrap());
        let other = BlobId::of(b"Lyon");
        assert!(!store.contains(&other).await.unwrap());
        assert!(matches!(store.get(&other).await, Err(StoreError::NotThere { .. })));
        assert_eq!(store.put("").await.unwrap(), BlobId::of(b""));
        assert_eq!(store.get(&BlobId::of(b"")).await.unwrap().len(), 0);
        store.check().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let (_folder, store) = on_disk();
    store.put(vec![0; 1_000]).await.unwrap();
    let error = store.put(vec![0; 1_001]).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { length: 1_001, limit: 1_000, .. }), "{error}");
}

#[tokio::test]
async fn damage_is_noticed_and_repaired_by_putting_again() {
    let (folder, store) = on_disk();
    let id = store.put("Paris").await.unwrap();
    let [file] = &files(folder.path())[..] else { panic!() };
    for damage in [&b"Pari"[..], b"Lyon!", b"", &[b'x'; 5_000]] {
        std::fs::write(file, damage).unwrap();
        let error = store.get(&id).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. } | StoreError::TooLarge { .. }), "{error}");
        store.put("Paris").await.unwrap();
        assert_eq!(&store.get(&id).await.unwrap()[..], b"Paris");
    }
}

#[tokio::test]
async fn outputs_and_reports_are_found_by_their_task() {
    let (folder, disk) = on_disk();
    for store in [disk, BlobStore::memory()] {
        assert!(matches!(store.output(&AT).await, Err(StoreError::NotThere { .. })));
        let id = store.put_output(&AT, "Paris", [5; 32]).await.unwrap();
        assert_eq!(&store.output(&AT).await.unwrap()[..], b"Paris");
        assert_eq!(store.opening(&AT).await.unwrap(), Opened { hash: id.0, salt: [5; 32] });
        for other in [Slot { task: 8, ..AT }, Slot { node: 5, ..AT }, Slot { network: [4; 32], ..AT }] {
            assert!(matches!(store.output(&other).await, Err(StoreError::NotThere { .. })));
        }
        assert!(matches!(store.report(&AT).await, Err(StoreError::NotThere { .. })));
        let id = store.put_report(&AT, "{}").await.unwrap();
        assert_eq!(store.report(&AT).await.unwrap(), "{}");
        assert_eq!(&store.get(&id).await.unwrap()[..], b"{}");
        // The journal has the last word on which output it is.
        store.put_output(&AT, "Lyon", [6; 32]).await.unwrap();
        assert_eq!(store.opening(&AT).await.unwrap().salt, [6; 32]);
    }
    // A record that nobody can read.
    let record = files(folder.path()).into_iter().find(|path| path.ends_with("4.output.json")).unwrap();
    std::fs::write(&record, "{").unwrap();
    let store =
        BlobStore::open(folder.path().join("blobs").to_str().unwrap(), StoreLimits::default()).unwrap();
    assert!(matches!(store.output(&AT).await, Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn many_writers_of_one_blob_agree() {
    let (folder, store) = on_disk();
    let writers: Vec<_> = (0..32)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.put("Paris").await.unwrap() })
        })
        .collect();
    for writer in writers {
        let id = writer.await.unwrap();
        assert_eq!(&store.get(&id).await.unwrap()[..], b"Paris");
    }
    assert_eq!(files(folder.path()).len(), 1, "nothing is left over");
}

#[tokio::test]
async fn a_sweep_takes_the_old_and_leaves_what_is_needed() {
    let (folder, store) = on_disk();
    let input = store.put("input").await.unwrap();
    let kept = store.put("kept").await.unwrap();
    store.put_output(&AT, "old output", [5; 32]).await.unwrap();
    let age = |needle: &str| {
        for path in files(folder.path()) {
            if path.to_str().unwrap().contains(needle) {
                let past = std::time::SystemTime::now() - Duration::from_secs(3_600);
                std::fs::File::options().write(true).open(&path).unwrap().set_modified(past).unwrap();
            }
        }
    };
    assert_eq!(store.sweep(Duration::from_secs(60), &HashSet::new()).await.unwrap(), Default::default());
    age("");
    // A young record keeps an old blob: two tasks with one answer.
    let young = Slot { task: 8, ..AT };
    store.put_output(&young, "young output", [5; 32]).await.unwrap();
    let shared = BlobId::of(b"young output");
    age(&shared.to_string());
    let swept = store.sweep(Duration::from_secs(60), &HashSet::from([kept])).await.unwrap();
    assert_eq!((swept.blobs, swept.records, swept.bytes), (2, 1, 15));
    assert!(store.contains(&kept).await.unwrap() && store.contains(&shared).await.unwrap());
    assert!(!store.contains(&input).await.unwrap());
    assert!(matches!(store.output(&AT).await, Err(StoreError::NotThere { .. })));
    assert_eq!(&store.output(&young).await.unwrap()[..], b"young output");
    // Putting again makes young.
    age(&kept.to_string());
    store.put("kept").await.unwrap();
    assert_eq!(store.sweep(Duration::from_secs(60), &HashSet::new()).await.unwrap().blobs, 0);
}

#[tokio::test]
async fn addresses() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("a/b");
    let url = format!("file://{}", folder.path().join("c").display());
    for address in [plain.to_str().unwrap(), &url, "memory:"] {
        let store = BlobStore::open(address, StoreLimits::default()).unwrap();
        let id = store.put("x").await.unwrap();
        assert_eq!(&store.get(&id).await.unwrap()[..], b"x");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&plain).unwrap().permissions().mode() & 0o777, 0o700);
    }
    for (address, said) in
        [("", "empty"), ("ftp://x/y", "\"ftp:\" is unknown"), ("file://host/x", "no folder")]
    {
        let error = BlobStore::open(address, StoreLimits::default()).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    let file = folder.path().join("a file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(
        BlobStore::open(file.to_str().unwrap(), StoreLimits::default()),
        Err(StoreError::Address { .. })
    ));
}

#[tokio::test]
async fn what_a_killed_writer_left_is_removed() {
    let (folder, store) = on_disk();
    let id = store.put("Paris").await.unwrap();
    let place = files(folder.path()).remove(0);
    let leftover = |number: u32| PathBuf::from(format!("{}#{number}", place.display()));
    std::fs::write(leftover(1), "Par").unwrap();
    std::fs::write(leftover(2), "Pa").unwrap();
    let past = std::time::SystemTime::now() - Duration::from_secs(7_200);
    for old in [&place, &leftover(1)] {
        std::fs::File::options().write(true).open(old).unwrap().set_modified(past).unwrap();
    }
    drop(store);
    let store =
        BlobStore::open(folder.path().join("blobs").to_str().unwrap(), StoreLimits::default()).unwrap();
    // The old one is gone; the young one may be a write of another process.
    assert!(!leftover(1).exists() && leftover(2).exists());
    assert_eq!(&store.get(&id).await.unwrap()[..], b"Paris");
    assert_eq!(store.sweep(Duration::MAX, &HashSet::new()).await.unwrap(), Default::default());
}

/// Against a real S3-compatible store, say moto's: `AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x
/// POQ_TEST_S3='s3://bucket/prefix?endpoint=http://127.0.0.1:5000&region=us-east-1&allow_http=true'`.
#[cfg(feature = "s3")]
#[tokio::test]
#[ignore = "needs an S3-compatible store: POQ_TEST_S3"]
async fn an_s3_store_does_all_of_it() {
    let address = std::env::var("POQ_TEST_S3").unwrap();
    let store = BlobStore::open(&address, StoreLimits { max_blob: 1_000 }).unwrap();
    let id = store.put("Paris").await.unwrap();
    assert_eq!(store.put("Paris").await.unwrap(), id);
    assert_eq!(&store.get(&id).await.unwrap()[..], b"Paris");
    assert!(matches!(store.get(&BlobId::of(b"Lyon")).await, Err(StoreError::NotThere { .. })));
    store.put_output(&AT, "Rome", [5; 32]).await.unwrap();
    assert_eq!(store.opening(&AT).await.unwrap().salt, [5; 32]);
    store.put_report(&AT, "{}").await.unwrap();
    assert_eq!(&store.report(&AT).await.unwrap()[..], b"{}");
    store.check().await.unwrap();
    assert_eq!(store.sweep(Duration::from_secs(3_600), &HashSet::new()).await.unwrap(), Default::default());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let swept = store.sweep(Duration::from_secs(1), &HashSet::from([id])).await.unwrap();
    assert_eq!((swept.blobs, swept.records), (2, 2));
    assert!(store.contains(&id).await.unwrap());
}

#[cfg(not(feature = "s3"))]
#[test]
fn a_build_without_s3_says_so() {
    let error = BlobStore::open("s3://bucket/x?secret_access_key=hush", StoreLimits::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("--features s3") && !error.contains("hush"), "{error}");
}

#[cfg(feature = "s3")]
#[test]
fn credentials_do_not_belong_in_an_address() {
    for address in ["s3://bucket/x?secret_access_key=hush&region=eu-west-1", "s3://key:hush@bucket/x"] {
        let error = BlobStore::open(address, StoreLimits::default()).unwrap_err().to_string();
        assert!(error.contains("AWS_SECRET_ACCESS_KEY") && !error.contains("=hush"), "{error}");
    }
    let error = BlobStore::open("s3://bucket/x?colour=red", StoreLimits::default()).unwrap_err().to_string();
    assert!(error.contains("colour"), "{error}");
    BlobStore::open(
        "s3://bucket/some/prefix?region=eu-west-1&endpoint=http://127.0.0.1:1&allow_http=true",
        StoreLimits::default(),
    )
    .unwrap();
}
