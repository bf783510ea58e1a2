//! The bounds of the store, on a real file system.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use larder_e2e::{
    disk::{Disk, Format},
    soak::Soak,
};
use rustix::io::Errno;

use super::{super::disk::faults::Fault, *};

const MIB: u64 = 1 << 20;

/// Bytes with a digest of their own.
fn content(number: u8, len: u64) -> (Digest, Vec<u8>) {
    let bytes = vec![number; usize::try_from(len).unwrap()];
    (digest(&bytes), bytes)
}

fn fill(store: &Store, (digest, bytes): &(Digest, Vec<u8>)) -> Result<(), StoreError> {
    let partial = store.partial(digest)?;
    store.reserve(&partial, bytes.len() as u64)?;
    partial.write_at(0, bytes)?;
    store.commit(&partial)
}

/// Everything below, as `du` counts it.
fn allocated_below(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).unwrap();
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    own + fs::read_dir(path).unwrap().map(|e| allocated_below(&e.unwrap().path())).sum::<u64>()
}

/// As if the last minute had passed.
fn forget_reads(store: &Store) {
    store.ledger.lock().age_everything();
}

#[test]
fn what_is_worth_least_is_given_up_for_what_comes() {
    let root = tempfile::tempdir().unwrap();
    let store = open_with(root.path(), 64 * MIB).unwrap();
    let blobs: Vec<_> = (0..5).map(|number| content(number, 10 * MIB)).collect();
    for blob in &blobs {
        fill(&store, blob).unwrap();
    }
    store.count_use(&blobs[0].0);
    forget_reads(&store);
    fill(&store, &content(9, 20 * MIB)).unwrap();
    let stored: Vec<_> = blobs.iter().map(|b| store.blob(&b.0).unwrap().is_some()).collect();
    assert!(stored[0], "it was used twice");
    assert_eq!(stored.iter().filter(|stored| **stored).count(), 3, "{stored:?}");
    assert_eq!(store.measure().evicted, 2);
    assert!(allocated_below(root.path()) <= 64 * MIB);
}

#[test]
fn nothing_is_given_up_that_was_read_within_a_minute_or_is_open() {
    let root = tempfile::tempdir().unwrap();
    let store = open_with(root.path(), 64 * MIB).unwrap();
    let (old, new) = (content(1, 40 * MIB), content(2, 40 * MIB));
    fill(&store, &old).unwrap();
    assert!(matches!(fill(&store, &new), Err(StoreError::Full { .. })), "just stored");
    assert_eq!(store.state(), StoreState::Full);

    let open = store.blob(&old.0).unwrap().unwrap();
    forget_reads(&store);
    assert!(matches!(fill(&store, &new), Err(StoreError::Full { .. })), "open");
    drop(open);
    assert!(matches!(fill(&store, &new), Err(StoreError::Full { .. })), "just read");
    forget_reads(&store);
    fill(&store, &new).unwrap();
    assert!(store.blob(&old.0).unwrap().is_none());
}

#[test]
fn what_can_never_fit_costs_nothing_that_is_stored() {
    let root = tempfile::tempdir().unwrap();
    let store = open_with(root.path(), 64 * MIB).unwrap();
    let (small, pinned) = (content(1, 10 * MIB), content(2, 10 * MIB));
    fill(&store, &small).unwrap();
    fill(&store, &pinned).unwrap();
    forget_reads(&store);
    let partial = store.partial(&digest(b"large")).unwrap();
    assert!(matches!(store.reserve(&partial, 64 * MIB), Err(StoreError::Full { .. })));
    let open = store.blob(&pinned.0).unwrap();
    assert!(matches!(store.reserve(&partial, 55 * MIB), Err(StoreError::Full { .. })));
    drop(open);
    assert_eq!(store.measure().evicted, 0);
}

#[test]
fn an_unfinished_download_that_nobody_is_at_goes_first() {
    let root = tempfile::tempdir().unwrap();
    let store = open_with(root.path(), 64 * MIB).unwrap();
    let blob = content(1, 20 * MIB);
    fill(&store, &blob).unwrap();
    let abandoned = digest(b"abandoned");
    let partial = store.partial(&abandoned).unwrap();
    store.reserve(&partial, 20 * MIB).unwrap();
    partial.write_at(0, &vec![7; 20 << 20]).unwrap();
    store.keep(&partial).unwrap();
    drop(partial);
    forget_reads(&store);
    fill(&store, &content(2, 30 * MIB)).unwrap();
    assert!(store.leftover(&abandoned).unwrap().is_none());
    assert!(store.blob(&blob.0).unwrap().is_some());
}

#[test]
fn space_that_is_reserved_counts_and_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let store = open_with(root.path(), 64 * MIB).unwrap();
    let before = store.measure().used;
    let partial = store.partial(&digest(b"a")).unwrap();
    store.reserve(&partial, 40 * MIB).unwrap();
    assert!(store.measure().used >= before + 40 * MIB);
    let other = store.partial(&digest(b"b")).unwrap();
    assert!(matches!(store.reserve(&other, 40 * MIB), Err(StoreError::Full { .. })));
    store.discard(&partial).unwrap();
    assert!(store.measure().used < before + MIB);
    store.reserve(&other, 40 * MIB).unwrap();
    other.write_at(0, b"little").unwrap();
    store.keep(&other).unwrap();
    assert!(store.measure().used < before + MIB, "what was reserved beyond the bytes");
}

#[test]
fn a_smaller_capacity_takes_effect_with_the_next_round() {
    let root = tempfile::tempdir().unwrap();
    let store = open_with(root.path(), 256 * MIB).unwrap();
    for number in 0..6 {
        fill(&store, &content(number, 20 * MIB)).unwrap();
    }
    store.set_limits(limits(64 * MIB));
    store.keep_floor().unwrap();
    assert_eq!(store.measure().evicted, 0, "all of it was read within the last minute");
    forget_reads(&store);
    store.keep_floor().unwrap();
    assert!(store.measure().used <= 64 * MIB);
}

fn free_on(folder: &Path) -> u64 {
    let disk = rustix::fs::statvfs(folder).unwrap();
    disk.f_bavail * disk.f_frsize
}

#[tokio::test]
async fn what_is_to_stay_free_on_the_disk_stays_free() {
    let folder = tempfile::tempdir().unwrap();
    let (media, mounted) = (folder.path().join("media"), folder.path().join("disk"));
    fs::create_dir(&media).unwrap();
    let disk = Disk::mounted(Format::Tmpfs(128), &media, &mounted).await.unwrap();
    let root = disk.root().join("store");
    let floor = free_on(&disk.root()) - 30 * MIB;
    let open = |min_free| {
        let store = Store::open(&root, Limits { min_free, ..limits(1 << 30) }).unwrap();
        store.account().unwrap();
        store
    };
    let blobs: Vec<_> = (0..6).map(|number| content(number, 10 * MIB)).collect();
    // 77 % of 128 MiB leave 29.4 MiB.
    for min_free in [MinFree::Bytes(ByteSize::from_bytes(floor)), MinFree::Percent(77)] {
        let store = open(min_free);
        fill(&store, &blobs[0]).unwrap();
        fill(&store, &blobs[1]).unwrap();
        assert!(matches!(fill(&store, &blobs[2]), Err(StoreError::Full { .. })), "{min_free:?}");
        let put = store.put(&blobs[2].0, &blobs[2].1);
        assert!(matches!(put, Err(StoreError::Full { .. })), "{min_free:?}");
        assert_eq!(store.state(), StoreState::Full);
        assert!(free_on(&root) >= floor - MIB, "{min_free:?}");
        // What may go goes, one for one.
        forget_reads(&store);
        fill(&store, &blobs[3]).unwrap();
        assert_eq!(store.measure().blobs, 2, "{min_free:?}");
        assert!(free_on(&root) >= floor - MIB, "{min_free:?}");
        // Others fill the disk.
        fs::write(disk.root().join("others"), vec![1; 12 << 20]).unwrap();
        forget_reads(&store);
        store.keep_floor().unwrap();
        assert_eq!(store.measure().blobs, 1, "{min_free:?}");
        assert!(free_on(&root) >= floor - MIB, "{min_free:?}");
        drop(store);
        fs::remove_file(disk.root().join("others")).unwrap();
        fs::remove_dir_all(&root).unwrap();
    }
    let store = open(MinFree::Bytes(ByteSize::from_bytes(0)));
    for blob in &blobs {
        fill(&store, blob).unwrap();
    }
    assert!(free_on(&root) < floor - 20 * MIB, "the capacity alone does not keep it");
    assert_eq!(store.measure().evicted, 0);
    drop(store);
    disk.removed().await.unwrap();
}

#[test]
fn the_ledger_agrees_with_the_disk_after_every_kind_of_end() {
    let root = tempfile::tempdir().unwrap();
    let store = open_with(root.path(), 128 * MIB).unwrap();
    for number in 0..4 {
        fill(&store, &content(number, u64::from(number) * 3 * MIB + 17)).unwrap();
    }
    store.put(&digest(b"manifest"), b"manifest").unwrap();
    store.quarantine_blob(&content(1, 3 * MIB + 17).0).unwrap();
    let partial = store.partial(&digest(b"half")).unwrap();
    store.reserve(&partial, 9 * MIB).unwrap();
    partial.write_at(0, &vec![1; 5 << 20]).unwrap();
    store.keep(&partial).unwrap();
    let wrong = store.partial(&digest(b"wrong")).unwrap();
    wrong.write_at(0, b"right").unwrap();
    store.keep(&wrong).unwrap();
    store.quarantine_partial(&wrong).unwrap();
    let before = store.measure();
    store.account().unwrap();
    let after = store.measure();
    assert_eq!((before.used, before.blobs), (after.used, after.blobs));
    let content = allocated_below(&root.path().join("blobs"))
        + allocated_below(&root.path().join("partial"))
        + allocated_below(&root.path().join("quarantine"));
    assert!(after.used <= content && content <= after.used + MIB, "{after:?} {content}");
}

#[test]
fn a_walk_finds_what_others_put_there_and_misses_what_they_took() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).unwrap();
    let (taken, given) = (content(1, MIB), content(2, MIB));
    fill(&store, &taken).unwrap();
    fs::remove_file(store.layout.blob(&taken.0)).unwrap();
    let path = store.layout.blob(&given.0);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, &given.1).unwrap();
    store.account().unwrap();
    assert_eq!(store.measure().blobs, 1);
    assert!(!store.blob(&given.0).unwrap().unwrap().trusted);
}

#[test]
fn links_and_tags_that_lead_nowhere_are_removed_when_they_are_old() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).unwrap();
    let (host, repository, tag) = place();
    let (stored, gone) = (digest(b"stored"), digest(b"gone"));
    store.put(&stored, b"stored").unwrap();
    for digest in [&stored, &gone] {
        store.link(&host, &repository, digest).unwrap();
    }
    let now = Timestamp::now();
    let record = TagRecord { digest: gone.clone(), checked_at: now, modified_at: now };
    store.set_tag(&host, &repository, &tag, &record).unwrap();
    store.tidy().unwrap();
    assert!(store.has_link(&host, &repository, &gone).unwrap(), "a blob may be on its way");

    let old = fs::FileTimes::new()
        .set_modified(std::time::SystemTime::now() - std::time::Duration::from_hours(24 * 31));
    for path in [
        store.layout.link(&host, &repository, &gone),
        store.layout.link(&host, &repository, &stored),
        store.layout.tag(&host, &repository, &tag),
    ] {
        fs::File::options().write(true).open(path).unwrap().set_times(old).unwrap();
    }
    store.tidy().unwrap();
    assert!(!store.has_link(&host, &repository, &gone).unwrap());
    assert!(store.has_link(&host, &repository, &stored).unwrap());
    assert_eq!(store.tag(&host, &repository, &tag).unwrap(), None);
}

/// Room for one of the blobs below beside 4 MiB that are kept for small files.
const SMALL: u64 = 8 * MIB;

/// One download, one manifest, and something given up for them.
fn cycle(store: &Store) -> Vec<Result<(), StoreError>> {
    let (host, repository, tag) = place();
    let large = content(7, 2 * MIB);
    forget_reads(store);
    let now = Timestamp::now();
    let record = TagRecord { digest: large.0.clone(), checked_at: now, modified_at: now };
    vec![
        store.link(&host, &repository, &large.0),
        fill(store, &large),
        store.put(&digest(b"manifest"), b"manifest"),
        store.set_tag(&host, &repository, &tag, &record),
        store.blob(&large.0).map(drop),
    ]
}

#[test]
fn f03_f04_whichever_operation_of_a_fill_and_an_eviction_fails_nothing_wrong_is_kept() {
    let mut soak = Soak::of("faults", 1, 1);
    for fault in [
        Fault::Once(Errno::IO),
        Fault::Once(Errno::NOSPC),
        Fault::FromThenOn(Errno::IO),
        Fault::FromThenOn(Errno::NOSPC),
        Fault::Short,
    ] {
        let mut nth = 0;
        loop {
            let root = tempfile::tempdir().unwrap();
            let store = open_with(root.path(), SMALL).unwrap();
            fill(&store, &content(1, 3 * MIB)).unwrap();
            store.disk.faults.plan(nth, fault);
            let results = cycle(&store);
            let reached = store.disk.faults.passed() > nth;
            store.disk.faults.mend();
            if matches!(fault, Fault::Short) {
                for result in results {
                    result.unwrap();
                }
            }
            check_everything(&store, root.path(), nth, fault);
            if !reached {
                assert!(nth > 20, "the faults never came to an end: {nth}");
                break;
            }
            soak.note_all(1);
            nth += 1;
        }
    }
    soak.end().unwrap();
}

/// Every file under `blobs` is what its name says, the bounds hold, the ledger is right, and the
/// store works again.
fn check_everything(store: &Store, root: &Path, nth: u64, fault: Fault) {
    let context = format!("operation {nth}, {fault:?}");
    let stored = store.ledger.lock().after(None, 100);
    for digest in stored {
        if let Some(blob) = store.blob(&digest).unwrap() {
            let len = usize::try_from(blob.size).unwrap();
            let bytes = blob.content.read_at(0, len).unwrap();
            assert_eq!(super::digest(&bytes), digest, "{context}");
        }
    }
    assert!(allocated_below(root) <= SMALL, "{context}");
    let before = store.measure().used;
    store.account().unwrap();
    let after = store.measure().used;
    assert!(before.abs_diff(after) <= MIB, "{context}: ledger {before}, disk {after}");
    store.health.wrote::<()>(&Ok(()), std::time::Instant::now());
    forget_reads(store);
    let last = content(8, MIB);
    fill(store, &last).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(store.blob(&last.0).unwrap().unwrap().trusted, "{context}");
}
