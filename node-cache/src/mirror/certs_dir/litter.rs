//! What a process that was killed left behind: brought to an end by the next one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    CREATED, CertsDir, CertsDirError, GONE, HOSTS, NEW, ORIGINAL, at, entries,
    file::{self, SWAP, TEMPORARY},
    is_folder,
};
use crate::mirror::{mark, plan::Slot};

impl CertsDir {
    /// Removes what a process that died left unfinished.
    pub fn sweep(&self) -> Result<(), CertsDirError> {
        for (name, path) in entries(&self.path)? {
            if let Some(registry) = name.strip_prefix(GONE) {
                self.finish_removal(&path, registry)?;
            } else if name.starts_with(NEW) || name.starts_with(TEMPORARY) {
                discard(&path)?;
            } else if is_folder(&path)
                && let Err(error) = sweep_folder(&path)
            {
                // What cannot be listed or changed is not ours.
                tracing::debug!(%error, "what is unfinished stays");
            }
        }
        Ok(())
    }

    pub(super) fn remove_folder(&self, path: &Path, name: &str) -> Result<(), CertsDirError> {
        let gone = self.path.join(format!("{GONE}{name}"));
        if is_folder(&gone) {
            self.finish_removal(&gone, name)?;
        }
        at("cannot remove", path, fs::rename(path, &gone))?;
        file::sync(&self.path)?;
        self.finish_removal(&gone, name)
    }

    /// Removes a folder that is on its way out. What somebody put into it meanwhile is brought back
    /// without our files.
    fn finish_removal(&self, gone: &Path, name: &str) -> Result<(), CertsDirError> {
        let theirs = match file::read(&gone.join(HOSTS)) {
            Ok(Slot::File(hosts)) => !mark::is_intact(&hosts.bytes),
            // Ours can be read.
            Ok(Slot::Odd(_)) | Err(_) => true,
            Ok(Slot::Absent) => false,
        };
        if theirs {
            file::remove(&gone.join(CREATED))?;
            self.bring_back(gone, name);
            return Ok(());
        }
        match discard(gone) {
            Err(CertsDirError::Io { source, .. })
                if source.kind() == io::ErrorKind::DirectoryNotEmpty =>
            {
                self.bring_back(gone, name);
                Ok(())
            }
            other => other,
        }
    }

    fn bring_back(&self, gone: &Path, name: &str) {
        if let Err(error) = file::place(gone, &self.path.join(name)) {
            // There is a new one already; what is here is somebody else's, so it stays.
            let path = gone.display();
            tracing::warn!(%path, %error, "a folder with foreign files is left over");
        }
    }
}

fn sweep_folder(folder: &Path) -> Result<(), CertsDirError> {
    for (name, path) in entries(folder)? {
        if name == SWAP {
            finish_swap(folder, &path)?;
        } else if name.starts_with(TEMPORARY) {
            file::remove(&path)?;
        }
    }
    Ok(())
}

/// The file under `aside` is ours and came too late, or it came out of the place that ours took. If
/// it is not what we had read there, it belongs there.
fn finish_swap(folder: &Path, aside: &Path) -> Result<(), CertsDirError> {
    let hosts = folder.join(HOSTS);
    let original = file::read(&folder.join(ORIGINAL))?;
    let belongs_there = match (file::read(aside)?, file::read(&hosts)?) {
        (Slot::File(found), place) if !mark::is_intact(&found.bytes) => match place {
            Slot::Absent => true,
            Slot::File(ours) => {
                mark::is_intact(&ours.bytes)
                    && !matches!(&original, Slot::File(known) if known.bytes == found.bytes)
            }
            Slot::Odd(_) => false,
        },
        _ => false,
    };
    if belongs_there {
        at("cannot put back", &hosts, fs::rename(aside, &hosts))?;
        return file::sync(folder);
    }
    file::remove(aside)
}

/// The folder that holds `certs_dir`, and what `certs_dir` is called there while it comes ([`NEW`]) or
/// goes ([`GONE`]).
pub(super) fn beside(certs_dir: &Path, prefix: &str) -> (PathBuf, PathBuf) {
    let parent = certs_dir.parent().unwrap_or(Path::new("/"));
    let name = certs_dir.file_name().unwrap_or_default().to_string_lossy();
    (parent.to_owned(), parent.join(format!("{prefix}{name}")))
}

/// Removes what a process that died while it was making or removing `certs_dir` left beside it.
pub fn sweep_beside(certs_dir: &Path) {
    for prefix in [NEW, GONE] {
        let (_, left) = beside(certs_dir, prefix);
        if left.symlink_metadata().is_ok()
            && let Err(error) = finish_folder(&left, certs_dir)
        {
            tracing::warn!(path = %left.display(), %error, "what is unfinished stays; remove it");
        }
    }
}

/// Removes `certs_dir`, which is at `aside`. If somebody has put something into it meanwhile, it goes
/// back, and is theirs; another process may remove it as well.
pub(super) fn finish_folder(aside: &Path, certs_dir: &Path) -> Result<(), CertsDirError> {
    match discard(aside) {
        Err(CertsDirError::Io { source, .. })
            if source.kind() == io::ErrorKind::DirectoryNotEmpty =>
        {
            file::place(aside, certs_dir)
        }
        Err(CertsDirError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a folder with our files, or a file.
pub(super) fn discard(path: &Path) -> Result<(), CertsDirError> {
    if !is_folder(path) {
        return file::remove(path);
    }
    for (name, path) in entries(path)? {
        let ours = [HOSTS, ORIGINAL, CREATED, SWAP].contains(&name.as_str());
        if ours || name.starts_with(TEMPORARY) {
            file::remove(&path)?;
        }
    }
    at("cannot remove", path, fs::remove_dir(path))
}
