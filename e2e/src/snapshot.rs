//! A folder as it is, to be compared with what it is later.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use rustix::fs::FileType;

/// Names, kinds, modes, owners and contents of everything below a folder, and the folder's own.
/// Times and inodes are not part of it: restoring a file changes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Entry>);

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    /// With the kind.
    mode: u32,
    owner: (u32, u32),
    /// Of a file its bytes, of a link its target.
    content: Vec<u8>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = String::from_utf8_lossy(&self.content);
        write!(f, "{:o} {:?} {content:?}", self.mode, self.owner)
    }
}

impl Snapshot {
    /// What is there now; nothing if the folder is missing.
    pub fn of(folder: &Path) -> Result<Self> {
        let mut entries = BTreeMap::new();
        let mut pending = Vec::new();
        if folder.symlink_metadata().is_ok() {
            pending.push(folder.to_owned());
        }
        while let Some(path) = pending.pop() {
            let found = path.symlink_metadata().with_context(|| path.display().to_string())?;
            let content = if found.is_dir() {
                for entry in fs::read_dir(&path)? {
                    pending.push(entry?.path());
                }
                Vec::new()
            } else if found.is_symlink() {
                fs::read_link(&path)?.as_os_str().as_bytes().to_owned()
            } else {
                fs::read(&path)?
            };
            let entry = Entry { mode: found.mode(), owner: (found.uid(), found.gid()), content };
            entries.insert(path.strip_prefix(folder)?.to_owned(), entry);
        }
        Ok(Self(entries))
    }

    /// The bytes of a file that is in it.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        let entry = self.0.get(Path::new(path))?;
        let is_file = FileType::from_raw_mode(entry.mode) == FileType::RegularFile;
        is_file.then_some(entry.content.as_slice())
    }

    /// Checks that the folder is as it was, and names what is not.
    pub fn check(&self, folder: &Path) -> Result<()> {
        let now = Self::of(folder)?;
        let paths: BTreeSet<_> = self.0.keys().chain(now.0.keys()).collect();
        let different = paths.into_iter().filter(|path| self.0.get(*path) != now.0.get(*path));
        let changes: Vec<_> = different
            .map(|path| {
                let (was, is) = (self.0.get(path), now.0.get(path));
                format!("{}: was {was:?}, is {is:?}", path.display())
            })
            .collect();
        ensure!(changes.is_empty(), "{} changed:\n{}", folder.display(), changes.join("\n"));
        Ok(())
    }
}

/// One line per entry.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, entry) in &self.0 {
            writeln!(f, "{}: {entry:?}", path.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    type Deed = fn(&Path) -> std::io::Result<()>;

    #[test]
    fn whatever_changes_below_a_folder_is_named() {
        let deeds: [(&str, Deed); 6] = [
            ("a/file: was", |root| fs::write(root.join("a/file"), "other")),
            ("a/file: was", |root| {
                fs::set_permissions(root.join("a/file"), fs::Permissions::from_mode(0o600))
            }),
            ("a/new: was None", |root| fs::write(root.join("a/new"), "")),
            ("link: was", |root| {
                fs::remove_file(root.join("link"))?;
                symlink("elsewhere", root.join("link"))
            }),
            ("empty: was", |root| fs::remove_dir(root.join("empty"))),
            ("empty: was", |root| {
                fs::remove_dir(root.join("empty"))?;
                fs::write(root.join("empty"), "")
            }),
        ];
        for (named, deed) in deeds {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path();
            fs::create_dir_all(root.join("a")).unwrap();
            fs::create_dir_all(root.join("empty")).unwrap();
            fs::write(root.join("a/file"), "text").unwrap();
            fs::set_permissions(root.join("a/file"), fs::Permissions::from_mode(0o640)).unwrap();
            symlink("a", root.join("link")).unwrap();
            let before = Snapshot::of(root).unwrap();
            before.check(root).unwrap();
            deed(root).unwrap();
            let error = before.check(root).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
