//! A folder as it was: to see whether it is so again.

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Everything below a folder, by path; empty if the folder is missing, and with an entry of its
/// own (the empty path) if it is there. Times do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Folder,
    File(Vec<u8>),
    Link(PathBuf),
}

impl Snapshot {
    /// The bytes of a file that is in it.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        match &self.0.get(Path::new(path))?.content {
            Content::File(bytes) => Some(bytes),
            Content::Folder | Content::Link(_) => None,
        }
    }

    /// Every path in it.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}

/// One line per entry, files with their text.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, Entry { mode, owner: (user, group), content }) in &self.0 {
            write!(f, "{mode:o} {user}:{group} ./{}", path.display())?;
            match content {
                Content::Folder => writeln!(f, "/")?,
                Content::Link(target) => writeln!(f, " -> {}", target.display())?,
                Content::File(bytes) => writeln!(f, "\n{}", String::from_utf8_lossy(bytes))?,
            }
        }
        Ok(())
    }
}

/// Takes one.
pub(super) fn take(folder: &Path) -> Result<Snapshot> {
    let mut entries = BTreeMap::new();
    if folder.exists() {
        add(folder, folder, &mut entries)?;
    }
    Ok(Snapshot(entries))
}

fn add(root: &Path, path: &Path, entries: &mut BTreeMap<PathBuf, Entry>) -> Result<()> {
    let reading = || format!("reading {}", path.display());
    let metadata = fs::symlink_metadata(path).with_context(reading)?;
    let content = if metadata.is_dir() {
        for entry in fs::read_dir(path).with_context(reading)? {
            add(root, &entry?.path(), entries)?;
        }
        Content::Folder
    } else if metadata.is_symlink() {
        Content::Link(fs::read_link(path).with_context(reading)?)
    } else {
        Content::File(fs::read(path).with_context(reading)?)
    };
    let owner = (metadata.uid(), metadata.gid());
    let entry = Entry { mode: metadata.mode() & 0o7777, owner, content };
    entries.insert(path.strip_prefix(root).unwrap_or(path).to_owned(), entry);
    Ok(())
}
