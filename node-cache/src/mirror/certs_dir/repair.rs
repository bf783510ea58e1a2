//! A colon-separated `config_path` that containerd reads as one name: made to lead to the folder.
//!
//! ```text
//! config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"
//! /etc/containerd/certs.d:/etc/docker/certs.d -> /etc/containerd/certs.d
//! /etc/containerd/certs.d:/etc/docker/.larder-created
//! ```
//!
//! What was made is on record in the folder. The record goes when somebody replaces the folder; then
//! the mark beside the link tells that the link is ours, and how many folders above it are.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

use super::{CREATED, CertsDir, CertsDirError, Change, Kind, at, file, is_folder};
use crate::mirror::plan::{Content, Meta, Slot};

const RECORD: &str = ".larder-repair";
/// Nobody nests a list of folders deeper.
const DEPTH: usize = 16;
/// Nobody has more there; it is looked at once a second.
const ENTRIES: usize = 256;

/// A repair: its link, and how many of the folders above it were made for it.
type Repair = (PathBuf, usize);

impl CertsDir {
    /// Makes the literal path `config_path` lead to this folder, and takes away what was made for
    /// another one. Says whether it does now; what somebody else has there is left alone.
    pub fn repair(&self, config_path: &str) -> Result<bool, CertsDirError> {
        let link = Path::new(config_path);
        self.undo_repairs_but(Some(link))?;
        if !is_colon_path(link) {
            return Ok(false);
        }
        if link.symlink_metadata().is_ok() {
            if let Some(made) = self.made_for(link) {
                self.note(config_path, made)?;
            }
            return Ok(self.is_at(link));
        }
        let Some(parent) = link.parent() else {
            return Ok(false);
        };
        let missing =
            parent.ancestors().take_while(|path| path.symlink_metadata().is_err()).count();
        // First the record, so that whatever follows is found again.
        self.note(config_path, missing)?;
        let made = self.record().map_or(missing, |(_, made)| made);
        at("cannot make", parent, fs::create_dir_all(parent))?;
        let marker = parent.join(CREATED);
        file::remove(&marker)?;
        file::create(&marker, &text(format!("{made}\n")))?;
        at("cannot make", link, symlink(&self.named, link))?;
        file::sync(parent)?;
        Ok(true)
    }

    fn note(&self, config_path: &str, made: usize) -> Result<(), CertsDirError> {
        let path = self.path.join(RECORD);
        if file::read(&path)? != Slot::Absent {
            return Ok(());
        }
        file::replace(&path, &text(format!("{config_path}\n{made}\n")))
    }

    /// Whether `path` leads to this folder.
    pub fn is_at(&self, path: &Path) -> bool {
        fs::canonicalize(path).is_ok_and(|target| target == self.path)
    }

    /// What [`undo_repair`](Self::undo_repair) changes, for people.
    pub fn preview_undo_repair(&self) -> Vec<Change> {
        self.preview_undo_repairs_but(None)
    }

    /// The same of what was made for any path but this one.
    pub fn preview_undo_repairs_but(&self, wanted: Option<&Path>) -> Vec<Change> {
        let repairs = self.repairs().into_iter().map(|(link, _)| link);
        let others = repairs.filter(|link| Some(link.as_path()) != wanted);
        others.filter(|link| self.is_link_here(link)).map(removal).collect()
    }

    /// Whether a path was repaired.
    pub fn is_repaired(&self) -> bool {
        !self.repairs().is_empty()
    }

    /// Takes the repair away.
    pub fn undo_repair(&self) -> Result<(), CertsDirError> {
        self.undo_repairs_but(None)?;
        file::remove(&self.path.join(RECORD))
    }

    fn undo_repairs_but(&self, wanted: Option<&Path>) -> Result<(), CertsDirError> {
        for (link, made) in self.repairs() {
            if Some(link.as_path()) == wanted {
                continue;
            }
            if self.is_link_here(&link) {
                file::remove(&link)?;
            }
            remove_surroundings(&link, made)?;
            if self.record().is_some_and(|(recorded, _)| recorded == link) {
                file::remove(&self.path.join(RECORD))?;
            }
        }
        Ok(())
    }

    fn is_link_here(&self, link: &Path) -> bool {
        link.is_symlink() && (self.is_at(link) || leads_to(link, &self.named))
    }

    /// The one on record, and those that lost it.
    fn repairs(&self) -> Vec<Repair> {
        let mut repairs = beside(&self.named);
        if let Some((link, made)) = self.record() {
            repairs.retain(|(other, _)| *other != link);
            repairs.push((link, made));
        }
        repairs
    }

    fn record(&self) -> Option<Repair> {
        let Ok(Slot::File(content)) = file::read(&self.path.join(RECORD)) else {
            return None;
        };
        let text = String::from_utf8(content.bytes).ok()?;
        let mut lines = text.lines();
        let link = PathBuf::from(lines.next()?);
        let made = lines.next()?.parse().ok()?;
        is_colon_path(&link).then_some((link, made))
    }

    /// How many folders were made for a link that is ours.
    fn made_for(&self, link: &Path) -> Option<usize> {
        leads_to(link, &self.named).then(|| mark_beside(link)).flatten()
    }
}

/// Takes away every repair that leads to a folder which is not there any more.
pub fn undo_repairs_of(missing: &Path) -> Result<(), CertsDirError> {
    for (link, made) in beside(missing) {
        file::remove(&link)?;
        remove_surroundings(&link, made)?;
    }
    Ok(())
}

/// What [`undo_repairs_of`] changes, for people.
pub fn preview_undo_repairs_of(missing: &Path) -> Vec<Change> {
    beside(missing).into_iter().map(|(link, _)| removal(link)).collect()
}

/// Links of ours to `certs_dir` in lists of folders that it begins: `certs.d:/another`.
fn beside(certs_dir: &Path) -> Vec<Repair> {
    let (Some(parent), Some(name)) = (certs_dir.parent(), certs_dir.file_name()) else {
        return Vec::new();
    };
    let first = format!("{}:", name.to_string_lossy());
    let mut found = Vec::new();
    let mut left = ENTRIES;
    let mut below = vec![(parent.to_owned(), 0)];
    while let Some((folder, depth)) = below.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if depth == 0 && !entry.file_name().to_string_lossy().starts_with(&first) {
                continue;
            }
            if left == 0 {
                return found;
            }
            left -= 1;
            let path = entry.path();
            if is_folder(&path) && depth < DEPTH {
                below.push((path, depth + 1));
            } else if leads_to(&path, certs_dir)
                && let Some(made) = mark_beside(&path)
            {
                found.push((path, made));
            }
        }
    }
    found
}

/// Whether `link` is a link with just this target.
fn leads_to(link: &Path, target: &Path) -> bool {
    fs::read_link(link).is_ok_and(|found| found == target)
}

fn mark_beside(link: &Path) -> Option<usize> {
    let Ok(Slot::File(content)) = file::read(&link.with_file_name(CREATED)) else {
        return None;
    };
    String::from_utf8(content.bytes).ok()?.trim().parse().ok()
}

/// Takes away the mark beside a link that is gone, and the folders that were made for it.
fn remove_surroundings(link: &Path, made: usize) -> Result<(), CertsDirError> {
    let Some(parent) = link.parent() else {
        return Ok(());
    };
    match file::remove(&parent.join(CREATED)) {
        Err(CertsDirError::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {}
        other => other?,
    }
    // Only what we made, and only what is empty.
    for folder in parent.ancestors().take(made) {
        if fs::remove_dir(folder).is_err() && folder.symlink_metadata().is_ok() {
            break;
        }
    }
    Ok(())
}

fn removal(link: PathBuf) -> Change {
    let before = fs::read_link(&link).ok().map(|target| target.display().to_string());
    Change { kind: Kind::Link, path: link, before, after: None }
}

fn text(text: String) -> Content {
    Content { bytes: text.into_bytes(), meta: Meta::default() }
}

/// What [`CertsDir::repair`] changes, for people; `None` if it has nothing to change.
pub fn preview_repair(certs_dir: &Path, config_path: &str) -> Option<Change> {
    let path = PathBuf::from(config_path);
    let after = Some(certs_dir.display().to_string());
    let free = is_colon_path(&path) && path.symlink_metadata().is_err();
    free.then_some(Change { kind: Kind::Link, path, before: None, after })
}

/// Absolute, without detours, and with the colon that makes it a path that nobody else has.
fn is_colon_path(path: &Path) -> bool {
    path.is_absolute()
        && path.to_string_lossy().contains(':')
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}
