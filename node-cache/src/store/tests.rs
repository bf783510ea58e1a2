mod planted;
mod room;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use jiff::Timestamp;
use larder_crds::{ByteSize, node::MinFree};

use super::*;
use crate::oci::{Algorithm, Tag};

fn limits(capacity: u64) -> Limits {
    let capacity = ByteSize::from_bytes(capacity);
    Limits { capacity, min_free: MinFree::Bytes(ByteSize::from_bytes(0)) }
}

fn open_with(root: &Path, capacity: u64) -> Result<Store, StoreError> {
    let store = Store::open(root, limits(capacity))?;
    if store.state() != StoreState::Locked {
        store.account()?;
    }
    Ok(store)
}

fn open(root: &Path) -> Result<Store, StoreError> {
    open_with(root, 1 << 30)
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn place() -> (UpstreamHost, Repository, Tag) {
    let repository = "library/nginx".parse().unwrap();
    ("docker.io".parse().unwrap(), repository, "1.27".parse().unwrap())
}

#[test]
fn a_committed_download_is_a_trusted_blob_and_its_partial_file_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).unwrap();
    let digest = digest(b"content");
    let partial = store.partial(&digest).unwrap();
    store.reserve(&partial, 7).unwrap();
    assert_eq!(partial.length().unwrap(), 0, "reserving does not move the frontier");
    partial.write_at(0, b"content").unwrap();
    store.commit(&partial).unwrap();

    let blob = store.blob(&digest).unwrap().unwrap();
    assert!(blob.trusted);
    assert_eq!(&blob.content.read_at(2, 100).unwrap()[..], b"ntent");
    assert!(!store.layout.partial(&digest).exists());
}

#[test]
fn f05_a_blob_that_was_written_to_or_replaced_is_not_trusted_any_more() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).unwrap();
    let digest = digest(b"content");
    let path = store.layout.blob(&digest);
    store.put(&digest, b"content").unwrap();
    assert!(store.blob(&digest).unwrap().unwrap().trusted);

    // ctime has the kernel's tick as its resolution; a write within the same tick is not seen.
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(&path, b"c0ntent").unwrap();
    assert!(!store.blob(&digest).unwrap().unwrap().trusted, "written in place");

    store.put(&digest, b"content").unwrap();
    fs::copy(&path, root.path().join("copy")).unwrap();
    fs::rename(root.path().join("copy"), &path).unwrap();
    assert!(!store.blob(&digest).unwrap().unwrap().trusted, "replaced");
}

#[test]
fn trust_and_use_counts_are_there_for_the_next_process() {
    let root = tempfile::tempdir().unwrap();
    let (host, repository, _) = place();
    let digest = digest(b"content");
    let store = open(root.path()).unwrap();
    store.put(&digest, b"content").unwrap();
    store.usage().record(&host, &repository, &digest, Timestamp::now());
    store.write_counters();
    drop(store);

    let store = open(root.path()).unwrap();
    assert!(store.blob(&digest).unwrap().unwrap().trusted);
    store.usage().record(&host, &repository, &digest, Timestamp::now());
    assert_eq!(store.usage().get(&host, &repository, &digest).unwrap().pulls, 2);
}

#[test]
fn f01_what_a_killed_process_had_not_written_down_is_hashed_once_more() {
    let root = tempfile::tempdir().unwrap();
    let digest = digest(b"content");
    open(root.path()).unwrap().put(&digest, b"content").unwrap();
    let store = open(root.path()).unwrap();
    let blob = store.blob(&digest).unwrap().unwrap();
    assert!(!blob.trusted);
    store.trust(&digest, &blob);
    assert!(store.blob(&digest).unwrap().unwrap().trusted);
}

#[test]
fn counters_that_cannot_be_read_are_moved_aside_and_begin_anew() {
    let root = tempfile::tempdir().unwrap();
    let digest = digest(b"content");
    let counters = root.path().join("counters.redb");
    let store = open(root.path()).unwrap();
    store.put(&digest, b"content").unwrap();
    store.write_counters();
    drop(store);
    let good = fs::read(&counters).unwrap();
    let mut flipped = good.clone();
    for at in (0..flipped.len()).step_by(97) {
        flipped[at] ^= 0x55;
    }
    for damage in [b"not a database".to_vec(), flipped, good[..good.len() / 2].to_vec()] {
        fs::write(&counters, damage).unwrap();
        let store = open(root.path()).unwrap();
        assert!(!store.blob(&digest).unwrap().unwrap().trusted, "nothing is known of it");
        assert!(root.path().join("counters.redb.bad").exists());
        fs::remove_file(root.path().join("counters.redb.bad")).unwrap();
    }
}

#[test]
fn t10_counters_that_are_a_link_are_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = root.path().join("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    std::os::unix::fs::symlink(&elsewhere, root.path().join("counters.redb")).unwrap();
    let store = open(root.path()).unwrap();
    store.put(&digest(b"content"), b"content").unwrap();
    store.write_counters();
    assert_eq!(fs::read(&elsewhere).unwrap(), b"precious");
}

#[test]
fn f14_a_second_process_on_the_same_folder_reads_and_does_not_write_until_the_first_has_gone() {
    let root = tempfile::tempdir().unwrap();
    let (first, second) = (digest(b"first"), digest(b"second"));
    let one = open(root.path()).unwrap();
    one.put(&first, b"first").unwrap();
    let two = open(root.path()).unwrap();
    assert_eq!(two.state(), StoreState::Locked);
    assert!(two.blob(&first).unwrap().is_some());
    assert!(matches!(two.put(&second, b"second"), Err(StoreError::NotWritable)));
    assert!(matches!(two.attach(), Err(StoreError::Locked { .. })));
    drop(one);
    assert!(two.attach().unwrap());
    two.account().unwrap();
    two.put(&second, b"second").unwrap();
    assert_eq!(two.state(), StoreState::Ready);
}

#[test]
fn a_folder_that_is_deleted_underneath_is_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("store");
    let store = open(&path).unwrap();
    let digest = digest(b"content");
    store.put(&digest, b"content").unwrap();
    fs::remove_dir_all(&path).unwrap();
    assert!(store.blob(&digest).unwrap().is_none());
    assert!(store.attach().unwrap(), "the lock was on a file that is gone");
    store.account().unwrap();
    assert_eq!(store.measure().blobs, 0);
    store.put(&digest, b"content").unwrap();
    assert!(store.blob(&digest).unwrap().is_some());
}

#[test]
fn t10_a_folder_that_others_could_write_is_refused_with_the_command_that_mends_it() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let message = open(root.path()).unwrap_err().to_string();
    assert!(message.contains("chmod go-w"), "{message}");

    let link = root.path().join("link");
    std::os::unix::fs::symlink("/tmp", &link).unwrap();
    let message = open(&link).unwrap_err().to_string();
    assert!(message.contains("is not a folder"), "{message}");
}

#[test]
fn t10_planted_links_and_special_files_are_neither_followed_nor_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).unwrap();
    let digest = digest(b"content");
    let path = store.layout.blob(&digest);
    fs::create_dir_all(path.parent().unwrap()).unwrap();

    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    assert!(store.blob(&digest).is_err(), "symbolic link");
    fs::remove_file(&path).unwrap();

    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let message = store.blob(&digest).unwrap_err().to_string();
    assert!(message.contains("not a regular file"), "{message}");
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    assert!(store.blob(&digest).is_err(), "folder");
}

#[test]
fn a_folder_of_another_layout_version_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("larder-layout"), "larder-layout 2\n").unwrap();
    let message = open(root.path()).unwrap_err().to_string();
    assert!(message.contains("larder-layout 2"), "{message}");
    assert!(!root.path().join("blobs").exists());
}

#[test]
fn f01_temporary_files_of_a_killed_process_are_swept_and_partial_downloads_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let wanted = digest(b"content");
    let store = open(root.path()).unwrap();
    store.partial(&wanted).unwrap().write_at(0, b"con").unwrap();
    fs::write(root.path().join("partial/.tmpXYZ"), b"half").unwrap();
    drop(store);
    let store = open(root.path()).unwrap();
    assert!(!root.path().join("partial/.tmpXYZ").exists());
    assert_eq!(store.partial(&wanted).unwrap().length().unwrap(), 3);
}

#[test]
fn quarantine_takes_the_file_out_of_the_way_and_stays_small() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).unwrap();
    let digest = digest(b"content");
    for _ in 0..20 {
        store.put(&digest, b"c0ntent").unwrap();
        store.quarantine_blob(&digest).unwrap();
        assert!(store.blob(&digest).unwrap().is_none());
    }
    assert_eq!(fs::read_dir(root.path().join("quarantine")).unwrap().count(), 8);
}

#[test]
fn t08_links_and_tags_belong_to_one_repository() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).unwrap();
    let (host, repository, tag) = place();
    let digest = digest(b"content");
    let other: Repository = "library/other".parse().unwrap();
    store.link(&host, &repository, &digest).unwrap();
    assert!(store.has_link(&host, &repository, &digest).unwrap());
    assert!(!store.has_link(&host, &other, &digest).unwrap());

    let now = Timestamp::now();
    let record = TagRecord { digest, checked_at: now, modified_at: now };
    store.set_tag(&host, &repository, &tag, &record).unwrap();
    assert_eq!(store.tag(&host, &repository, &tag).unwrap(), Some(record));
    assert_eq!(store.tag(&host, &other, &tag).unwrap(), None);
    store.remove_tag(&host, &repository, &tag).unwrap();
    assert_eq!(store.tag(&host, &repository, &tag).unwrap(), None);
}

#[test]
fn a_damaged_tag_record_counts_as_none() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).unwrap();
    let (host, repository, tag) = place();
    let path = store.layout.tag(&host, &repository, &tag);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for damage in ["", "{", r#"{"digest":"sha256:x","checkedAt":"","modifiedAt":""}"#] {
        fs::write(&path, damage).unwrap();
        assert_eq!(store.tag(&host, &repository, &tag).unwrap(), None, "{damage}");
    }
}

#[test]
fn the_catalog_lists_tags_with_the_size_of_what_they_name() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).unwrap();
    let (host, repository, tag) = place();
    let layer = digest(b"layer");
    store.put(&layer, b"layer").unwrap();
    let manifest = format!(
        r#"{{"config":{{"digest":"sha256:{}"}},"layers":[{{"digest":"{layer}"}}]}}"#,
        "0".repeat(64)
    );
    let image = digest(manifest.as_bytes());
    store.put(&image, manifest.as_bytes()).unwrap();
    let now = Timestamp::now();
    let record = TagRecord { digest: image.clone(), checked_at: now, modified_at: now };
    store.set_tag(&host, &repository, &tag, &record).unwrap();
    store.usage().record(&host, &repository, &image, now);

    let catalog = store.catalog(10).unwrap();
    assert_eq!(catalog.len(), 1);
    assert_eq!((&*catalog[0].repository, &*catalog[0].tag), ("library/nginx", "1.27"));
    assert_eq!(catalog[0].size, manifest.len() as u64 + 5);
    assert_eq!(catalog[0].pulls, 1);
    assert_eq!(store.catalog(0).unwrap(), []);

    let usage = store.measure();
    assert_eq!((usage.blobs, usage.state), (2, StoreState::Ready));
    assert!(usage.used > 0 && usage.free > 0);
}

#[test]
fn the_catalog_lists_what_was_pulled_by_digest_alone_without_a_tag() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).unwrap();
    let (host, repository, tag) = place();
    let now = Timestamp::now();
    let stored = |text: &str| {
        let digest = digest(text.as_bytes());
        store.put(&digest, text.as_bytes()).unwrap();
        store.link(&host, &repository, &digest).unwrap();
        store.usage().record(&host, &repository, &digest, now);
        digest
    };
    let config = stored(r#"{"os":"linux"}"#);
    let index = |number: u8, child: &Digest| {
        stored(&format!(r#"{{"number":{number},"manifests":[{{"digest":"{child}"}}]}}"#))
    };
    let manifest = |number: u8| {
        stored(&format!(r#"{{"number":{number},"config":{{"digest":"{config}"}},"layers":[]}}"#))
    };
    // As containerd does: the index, then the manifest for its platform, each by its digest.
    let [tagged, untagged, alone] = [index(1, &manifest(1)), index(2, &manifest(2)), manifest(3)];
    let record = TagRecord { digest: tagged.clone(), checked_at: now, modified_at: now };
    store.set_tag(&host, &repository, &tag, &record).unwrap();
    // Not any more, and never asked for in this repository.
    let gone = stored("gone");
    fs::remove_file(store.layout.blob(&gone)).unwrap();
    let other: Repository = "library/other".parse().unwrap();
    store.usage().record(&host, &other, &alone, now);
    // The configuration is no manifest; nothing asks for it as one.
    store.usage.forget(&host, &repository, &config);

    let catalog = store.catalog(100).unwrap();
    let listed: Vec<_> = catalog.iter().map(|e| (e.tag.as_str(), e.digest.clone())).collect();
    let mut expected = vec![("", untagged.to_string()), ("", alone.to_string())];
    expected.sort();
    expected.push(("1.27", tagged.to_string()));
    assert_eq!(listed, expected);
    let seen: Timestamp = catalog[0].last_modified.parse().unwrap();
    assert!(seen.duration_since(now).abs() < jiff::SignedDuration::from_mins(1), "{seen}");
    assert_eq!((catalog[0].pulls, catalog[1].pulls), (1, 1));
    assert_eq!(store.catalog(2).unwrap().len(), 2);
}
