//! A colon-separated `config_path` that containerd reads as one name: made to lead to the folder.
//!
//! ```text
//! config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"
//! /etc/containerd/certs.d:/etc/docker/certs.d -> /etc/containerd/certs.d
//! /etc/containerd/certs.d:/etc/docker/.larder-created
//! ```

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

use super::{CREATED, CertsDir, CertsDirError, Change, Kind, at, file, nothing};
use crate::mirror::plan::{Content, Meta, Slot};

const RECORD: &str = ".larder-repair";

impl CertsDir {
    /// Makes the literal path `config_path` lead to this folder. Says whether it does now; what
    /// somebody else has there is left alone.
    pub fn repair(&self, config_path: &str) -> Result<bool, CertsDirError> {
        let link = Path::new(config_path);
        if !is_colon_path(link) {
            return Ok(false);
        }
        if link.symlink_metadata().is_ok() {
            return Ok(self.is_at(link));
        }
        let Some(parent) = link.parent() else {
            return Ok(false);
        };
        let missing =
            parent.ancestors().take_while(|path| path.symlink_metadata().is_err()).count();
        // First the record, so that whatever follows is found again.
        let record = format!("{config_path}\n{missing}\n");
        if file::read(&self.path.join(RECORD))? == Slot::Absent {
            let content = Content { bytes: record.into_bytes(), meta: Meta::default() };
            file::replace(&self.path.join(RECORD), &content)?;
        }
        at("cannot make", parent, fs::create_dir_all(parent))?;
        let marker = parent.join(CREATED);
        file::remove(&marker)?;
        file::create(&marker, &nothing())?;
        at("cannot make", link, symlink(&self.named, link))?;
        file::sync(parent)?;
        Ok(true)
    }

    /// Whether `path` leads to this folder.
    pub fn is_at(&self, path: &Path) -> bool {
        fs::canonicalize(path).is_ok_and(|target| target == self.path)
    }

    /// What [`undo_repair`](Self::undo_repair) changes, for people.
    pub fn preview_undo_repair(&self) -> Option<Change> {
        let path = self.repaired().filter(|link| link.is_symlink() && self.is_at(link))?;
        let before = fs::read_link(&path).ok()?.display().to_string();
        Some(Change { kind: Kind::Link, path, before: Some(before), after: None })
    }

    /// The repaired path, if one was.
    pub fn repaired(&self) -> Option<PathBuf> {
        self.record().map(|(link, _)| link)
    }

    /// Takes the repair away.
    pub fn undo_repair(&self) -> Result<(), CertsDirError> {
        let Some((link, made)) = self.record() else {
            return file::remove(&self.path.join(RECORD));
        };
        if link.is_symlink() && self.is_at(&link) {
            file::remove(&link)?;
        }
        if let Some(parent) = link.parent() {
            match file::remove(&parent.join(CREATED)) {
                Err(CertsDirError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotADirectory => {}
                other => other?,
            }
            // Only what we made, and only what is empty.
            for folder in parent.ancestors().take(made) {
                if fs::remove_dir(folder).is_err() && folder.symlink_metadata().is_ok() {
                    break;
                }
            }
        }
        file::remove(&self.path.join(RECORD))
    }

    fn record(&self) -> Option<(PathBuf, usize)> {
        let Ok(Slot::File(content)) = file::read(&self.path.join(RECORD)) else {
            return None;
        };
        let text = String::from_utf8(content.bytes).ok()?;
        let mut lines = text.lines();
        let link = PathBuf::from(lines.next()?);
        let made = lines.next()?.parse().ok()?;
        is_colon_path(&link).then_some((link, made))
    }
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
