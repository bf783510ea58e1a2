//! What somebody put into the folder of the store.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::*;

/// Something that writes into a store.
type Write<'a> = &'a dyn Fn(&Store) -> Result<(), StoreError>;

/// A store's folder, and a folder of somebody else with one file.
struct Ground {
    _folder: tempfile::TempDir,
    root: PathBuf,
    outside: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("store"), folder.path().join("outside"));
        for path in [&root, &outside] {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(outside.join("precious"), "precious").unwrap();
        Self { _folder: folder, root, outside }
    }

    fn is_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(&self.outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["precious"]);
        assert_eq!(fs::read(self.outside.join("precious")).unwrap(), b"precious");
    }
}

fn is_named(error: &StoreError, path: &Path) {
    let message = error.to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(message.contains("symbolic link") && message.contains("remove it"), "{message}");
}

#[test]
fn t10_a_link_in_the_place_of_a_folder_is_named_and_not_followed() {
    for name in [
        "blobs",
        "blobs/sha256",
        "partial",
        "partial/sha512",
        "quarantine",
        "repos",
        "larder-layout",
    ] {
        let ground = Ground::new();
        let planted = ground.root.join(name);
        fs::create_dir_all(planted.parent().unwrap()).unwrap();
        symlink(&ground.outside, &planted).unwrap();
        is_named(&open(&ground.root).unwrap_err(), &planted);
        ground.is_untouched();
    }
}

#[test]
fn t10_a_link_deeper_in_the_store_is_named_and_not_followed() {
    let (host, repository, tag) = place();
    let digest = digest(b"content");
    let now = Timestamp::now();
    let record = TagRecord { digest: digest.clone(), checked_at: now, modified_at: now };
    let fill = |store: &Store| {
        let partial = store.partial(&digest)?;
        partial.write_at(0, b"content")?;
        store.commit(&partial)
    };
    let shard = format!("blobs/sha256/{}", &digest.hex()[..2]);
    let cases: [(&str, Write<'_>); 7] = [
        (&shard, &|store| store.put(&digest, b"content")),
        (&shard, &fill),
        ("partial/sha256", &fill),
        ("repos/docker.io", &|store| store.link(&host, &repository, &digest)),
        ("repos/docker.io/library/nginx/_links", &|store| store.link(&host, &repository, &digest)),
        ("repos/docker.io/library", &|store| store.set_tag(&host, &repository, &tag, &record)),
        ("repos/docker.io/library/nginx", &|store| store.mark_shared(&host, &repository)),
    ];
    for (name, write) in cases {
        let ground = Ground::new();
        let store = open(&ground.root).unwrap();
        let planted = ground.root.join(name);
        let _ = fs::remove_dir(&planted);
        fs::create_dir_all(planted.parent().unwrap()).unwrap();
        symlink(&ground.outside, &planted).unwrap();
        is_named(&write(&store).unwrap_err(), &planted);
        store.account().unwrap();
        store.tidy().unwrap();
        store.keep_floor().unwrap();
        ground.is_untouched();
    }
}

#[test]
fn t10_a_folder_that_others_could_write_is_refused_wherever_it_is() {
    for name in ["", "blobs", "partial/sha256", "repos", "quarantine"] {
        let ground = Ground::new();
        drop(open(&ground.root).unwrap());
        let path = ground.root.join(name);
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let message = open(&ground.root).unwrap_err().to_string();
        assert!(message.contains("chmod go-w"), "{name}: {message}");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        let message = open(&ground.root).unwrap_err().to_string();
        let named = message.contains(path.to_str().unwrap().trim_end_matches('/'));
        assert!(named && message.contains("user 12345") && message.contains("chown"), "{message}");
    }
}

#[test]
fn t10_what_has_a_second_name_elsewhere_is_not_written_to() {
    let (host, repository, _) = place();
    let digest = digest(b"content");
    let ground = Ground::new();
    let precious = ground.outside.join("precious");
    let store = open(&ground.root).unwrap();
    fs::hard_link(&precious, store.layout.partial(&digest)).unwrap();
    let partial = store.partial(&digest).unwrap();
    assert_eq!(partial.length().unwrap(), 0, "its bytes are somebody else's");
    partial.write_at(0, b"content").unwrap();
    store.commit(&partial).unwrap();
    assert!(store.blob(&digest).unwrap().is_some());
    let link = store.layout.link(&host, &repository, &digest);
    store.link(&host, &repository, &digest).unwrap();
    fs::remove_file(&link).unwrap();
    fs::hard_link(&precious, &link).unwrap();
    store.link(&host, &repository, &digest).unwrap();
    drop(store);
    // The counters of this process would have gone into it, were it a database.
    fs::remove_file(ground.root.join("counters.redb")).unwrap();
    let empty = ground.outside.parent().unwrap().join("empty");
    fs::write(&empty, "").unwrap();
    fs::hard_link(&empty, ground.root.join("counters.redb")).unwrap();
    let store = open(&ground.root).unwrap();
    store.put(&super::digest(b"more"), b"more").unwrap();
    store.write_counters();
    drop(store);
    assert_eq!(fs::metadata(&empty).unwrap().size(), 0);
    fs::remove_file(ground.root.join("larder-layout")).unwrap();
    fs::hard_link(&empty, ground.root.join("larder-layout")).unwrap();
    let message = open(&ground.root).unwrap_err().to_string();
    assert!(message.contains("larder-layout has a second name"), "{message}");
    assert_eq!(fs::metadata(&empty).unwrap().size(), 0);
    ground.is_untouched();
}

#[test]
fn t10_special_files_among_tags_links_and_blobs_stop_neither_tidying_nor_the_catalog() {
    let (host, repository, tag) = place();
    let ground = Ground::new();
    let store = open(&ground.root).unwrap();
    let image = digest(b"{}");
    store.put(&image, b"{}").unwrap();
    store.link(&host, &repository, &image).unwrap();
    let now = Timestamp::now();
    let record = TagRecord { digest: image, checked_at: now, modified_at: now };
    store.set_tag(&host, &repository, &tag, &record).unwrap();
    let at = |path: &str| ground.root.join("repos/docker.io/library/nginx").join(path);
    let hex = "0".repeat(64);
    for fifo in ["_tags/fifo".to_owned(), format!("_links/sha256/{hex}")] {
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at(&fifo), kind, rustix::fs::Mode::RUSR, 0).unwrap();
    }
    fs::create_dir(at("_tags/folder")).unwrap();
    fs::create_dir(at(&format!("_links/sha256/{}", "1".repeat(64)))).unwrap();
    fs::create_dir(ground.root.join("quarantine/folder")).unwrap();
    symlink("..", at("loop")).unwrap();
    symlink(at("_tags/1.27"), at("_tags/link")).unwrap();
    store.account().unwrap();
    store.tidy().unwrap();
    let catalog = store.catalog(100).unwrap();
    let tags: Vec<_> = catalog.iter().map(|entry| entry.tag.as_str()).collect();
    assert_eq!(tags, ["1.27"]);
    store.trim_quarantine(0).unwrap();
}
