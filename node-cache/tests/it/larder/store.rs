//! The files of a store (formats.md 6), read from outside.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::eventually;

/// The folder of a store.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub(super) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn blob(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap();
        self.root.join("blobs").join(algorithm).join(&hex[..2]).join(hex)
    }

    fn partial_path(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap();
        self.root.join("partial").join(algorithm).join(hex)
    }

    pub fn has(&self, digest: &str) -> bool {
        self.blob(digest).is_file()
    }

    /// The length of an unfinished download.
    pub fn partial(&self, digest: &str) -> Option<u64> {
        fs::metadata(self.partial_path(digest)).ok().map(|found| found.len())
    }

    /// Whether the blob is there within a few seconds: fsync and rename follow off the client's
    /// path.
    pub async fn gets(&self, digest: &str) -> bool {
        eventually(10, async || self.has(digest)).await
    }

    fn repository(&self, host: &str, repository: &str) -> PathBuf {
        self.root.join("repos").join(host).join(repository)
    }

    pub fn has_link(&self, host: &str, repository: &str, digest: &str) -> bool {
        self.link_path(host, repository, digest).is_file()
    }

    pub fn has_tag(&self, host: &str, repository: &str, tag: &str) -> bool {
        self.tag_path(host, repository, tag).is_file()
    }

    /// Unfinished downloads, and files that are being written.
    pub fn partials(&self) -> Vec<String> {
        files_below(&self.root.join("partial"))
    }

    pub fn link_path(&self, host: &str, repository: &str, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap();
        self.repository(host, repository).join("_links").join(algorithm).join(hex)
    }

    pub fn tag_path(&self, host: &str, repository: &str, tag: &str) -> PathBuf {
        self.repository(host, repository).join("_tags").join(tag)
    }

    /// File names in quarantine.
    pub fn quarantined(&self) -> Vec<String> {
        files_below(&self.root.join("quarantine"))
    }

    /// Every file of the store, relative to its root.
    pub fn files(&self) -> Vec<String> {
        files_below(&self.root)
    }
}

/// The files below a folder, relative to it, sorted.
pub fn files_below(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                let relative = path.strip_prefix(root).unwrap_or(&path);
                files.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    files
}
