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

use super::{CREATED, CertsDir, CertsDirError, at, file};
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
            return Ok(fs::canonicalize(link).is_ok_and(|target| target == self.path));
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
        file::create(&marker, &Content { bytes: Vec::new(), meta: Meta::default() })?;
        at("cannot make", link, symlink(&self.named, link))?;
        file::sync(parent)?;
        Ok(true)
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
        let leads_here =
            link.is_symlink() && fs::canonicalize(&link).is_ok_and(|target| target == self.path);
        if leads_here {
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

/// Absolute, without detours, and with the colon that makes it a path that nobody else has.
fn is_colon_path(path: &Path) -> bool {
    path.is_absolute()
        && path.to_string_lossy().contains(':')
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}
