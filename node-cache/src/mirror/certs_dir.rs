//! containerd's folder of mirrors: the only code that writes there.
//!
//! ```text
//! <certs.d>/.larder-created                      the folder is ours and goes when it is empty
//! <certs.d>/../.larder-tmp-new-certs.d           certs.d itself, on its way in
//! <certs.d>/../.larder-tmp-gone-certs.d          certs.d itself, on its way out
//! <certs.d>/.larder-repair                       the colon path that was repaired (repair.rs)
//! <certs.d>/.larder-tmp-new-*, .larder-tmp-gone-* a folder that comes or goes
//! <certs.d>/.larder-edited-<registry>-<hash>     a file of ours that somebody made unreadable
//! <certs.d>/<registry>/hosts.toml                ours if its first line says so (mark.rs)
//! <certs.d>/<registry>/hosts.toml.larder-original what was there before
//! <certs.d>/<registry>/.larder-created           the folder is ours and goes as a whole
//! <certs.d>/<registry>/.larder-swap              a file on its way in, or another on its way out
//! <certs.d>/<registry>/.larder-tmp-*             unfinished
//! ```
//!
//! Every step is one rename or one unlink, so that containerd finds something that it accepts
//! whenever it looks, and a process that dies in between leaves what the next one understands. A
//! folder comes and goes by one rename because an empty one already hides `_default`.
//!
//! Others write here as well, and do not wait for our lock. So a file of theirs is never replaced or
//! removed without a look at what came out, and goes back if it is not what was read before
//! (file.rs, litter.rs).
//!
//! A file of ours that is not TOML any more is written anew, or withdrawn as if it was whole:
//! containerd ignores it, so nothing that is in force is lost. What somebody may have written into
//! it is not either: all of it is kept in `.larder-edited-*`, here and not beside it, where it would
//! keep a folder that hides `_default`.

mod entry;
mod file;
mod litter;
mod repair;
mod search;

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{fs::FlockOperation, io::Errno};

use super::plan::{self, Content, Meta, Owner, Undo};
pub use entry::Entry;
use file::TEMPORARY;
pub use litter::sweep_beside;
pub use repair::{preview_repair, preview_undo_repairs_of, undo_repairs_of};
use search::observe_folder;

const HOSTS: &str = "hosts.toml";
const ORIGINAL: &str = "hosts.toml.larder-original";
const CREATED: &str = ".larder-created";
/// A folder that is being made.
const NEW: &str = ".larder-tmp-new-";
/// A folder that is being removed.
const GONE: &str = ".larder-tmp-gone-";

/// How long another configurator may be at work, which takes it a few milliseconds.
const PATIENCE: Duration = Duration::from_millis(700);

/// Why the folder as a whole cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertsDirError {
    /// It is there, but not as it has to be.
    #[error("{} {problem}", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Somebody else writes to the same file at the same time; theirs is what is there.
    #[error("{} was changed by somebody else at the same moment", path.display())]
    Changed {
        /// The file or folder.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CertsDirError {
    /// Whether the file system takes no writes.
    pub fn is_read_only(&self) -> bool {
        let read_only = io::ErrorKind::ReadOnlyFilesystem;
        matches!(self, Self::Io { source, .. } if source.kind() == read_only)
    }

    /// Whether the folder went away under us: as a mount point it does not come back by itself.
    pub fn is_dead_mount(&self) -> bool {
        let dead = [Errno::NOENT, Errno::STALE];
        matches!(self, Self::Io { source, .. }
            if dead.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error())))
    }
}

fn at<T>(action: &'static str, path: &Path, done: io::Result<T>) -> Result<T, CertsDirError> {
    done.map_err(|source| CertsDirError::Io { action, path: path.to_owned(), source })
}

/// The folder, and the right to change it until this is dropped.
#[derive(Debug)]
pub struct CertsDir {
    path: PathBuf,
    named: PathBuf,
    /// Folders in which containerd looks before it looks here.
    before: Vec<PathBuf>,
    /// Folders in which it looks for what it does not find here.
    after: Vec<PathBuf>,
    _lock: File,
}

/// What would be, or was, done to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is.
    pub kind: Kind,
    /// The file.
    pub path: PathBuf,
    /// Its text before; `None` if it was not there.
    pub before: Option<String>,
    /// Its text after; `None` if it is not there any more.
    pub after: Option<String>,
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with a text.
    File,
    /// A folder, whose text is empty.
    Folder,
    /// A symbolic link, whose text is its target.
    Link,
}

/// The folders of a `certs.d` that have something of ours.
#[derive(Clone, Debug, Default)]
pub struct Ours {
    /// Their names.
    pub names: Vec<String>,
    /// What could not be looked into, and why. We make no such folder, but somebody may have taken
    /// one of ours.
    pub unread: Vec<(String, String)>,
}

impl CertsDir {
    /// Opens the folder, waiting for another configurator; `None` if there is none.
    pub fn open(named: &Path) -> Result<Option<Self>, CertsDirError> {
        // The folder may be a link, as containerd follows it; what is in it may not.
        let path = match fs::canonicalize(named) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return at("cannot find", named, Err(error)),
        };
        let unusable =
            |problem: String| Err(CertsDirError::Unusable { path: named.to_owned(), problem });
        let metadata = at("cannot inspect", &path, fs::metadata(&path))?;
        if !metadata.is_dir() {
            return unusable("is not a folder; remove it, or name the folder".to_owned());
        }
        let me = rustix::process::geteuid().as_raw();
        if metadata.uid() != 0 && metadata.uid() != me {
            return unusable(format!(
                "belongs to user {}; chown it to root, or to the user that larder-node runs as",
                metadata.uid()
            ));
        }
        if metadata.nlink() == 0 {
            // A mount of a folder that was removed where it comes from: nothing can be made in it.
            return at("cannot use", named, Err(Errno::NOENT.into()));
        }
        let lock = at("cannot open", &path, File::open(&path))?;
        let started = Instant::now();
        while let Err(error) = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return at("cannot lock", &path, Err(error.into()));
            }
            if started.elapsed() > PATIENCE {
                let problem = "is locked by another process; end the other configurator";
                return unusable(problem.to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let named = named.to_owned();
        Ok(Some(Self { path, named, before: Vec::new(), after: Vec::new(), _lock: lock }))
    }

    /// With the other folders that containerd searches. If this one is not among `roots`, it is the
    /// only one.
    #[must_use]
    pub fn among(mut self, roots: &[PathBuf]) -> Self {
        let is_here = |root: &PathBuf| {
            *root == self.named || fs::canonicalize(root).is_ok_and(|path| path == self.path)
        };
        if let Some(at) = roots.iter().position(is_here) {
            self.before = roots[..at].to_vec();
            self.after = roots[at + 1..].to_vec();
        }
        self
    }

    /// Opens the folder, making it if there is none.
    pub fn create(named: &Path) -> Result<Self, CertsDirError> {
        sweep_beside(named);
        if let Some(found) = Self::open(named)? {
            return Ok(found);
        }
        if named.is_symlink() {
            let problem = "is a symbolic link to nothing; make the folder or remove the link";
            let path = named.to_owned();
            return Err(CertsDirError::Unusable { path, problem: problem.to_owned() });
        }
        let (parent, temporary) = litter::beside(named, NEW);
        litter::discard(&temporary)?;
        make_folder(&temporary, &[(CREATED, &nothing())])?;
        file::place(&temporary, named)?;
        file::sync(&parent)?;
        Self::open(named)?.ok_or_else(|| CertsDirError::Io {
            action: "cannot open",
            path: named.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    /// The folders that have something of ours.
    pub fn ours(&self) -> Result<Ours, CertsDirError> {
        let mut ours = Ours::default();
        for (name, path) in entries(&self.path)? {
            if name.starts_with(TEMPORARY) || !is_folder(&path) {
                continue;
            }
            match observe_folder(&path) {
                Ok(seen) if plan::undo(&seen, None, &Owner::Any) == Undo::Nothing => {}
                Ok(_) => ours.names.push(name),
                Err(error) => ours.unread.push((name, error.to_string())),
            }
        }
        Ok(ours)
    }

    /// Removes the folder itself if we made it and nobody uses it.
    pub fn remove_if_ours(self) -> Result<(), CertsDirError> {
        let marker = self.path.join(CREATED);
        let alone = entries(&self.path)?.iter().all(|(name, _)| name == CREATED);
        if !alone || marker.symlink_metadata().is_err() {
            return Ok(());
        }
        // Out of the way first: who dies between the marker and the folder would leave a folder that
        // nobody takes for ours.
        let (parent, aside) = litter::beside(&self.named, GONE);
        let is_free = !self.named.is_symlink() && litter::discard(&aside).is_ok();
        if is_free && fs::rename(&self.named, &aside).is_ok() {
            litter::finish_folder(&aside, &self.named)?;
            return file::sync(&parent);
        }
        file::remove(&marker)?;
        match fs::remove_dir(&self.path) {
            // Somebody uses it after all, or it is a mount point of our own pod: it stays.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
                ) =>
            {
                Ok(())
            }
            other => at("cannot remove", &self.path, other),
        }
    }
}

fn make_folder(path: &Path, files: &[(&str, &Content)]) -> Result<(), CertsDirError> {
    at("cannot make", path, DirBuilder::new().mode(0o755).create(path))?;
    for (name, content) in files {
        file::create(&path.join(name), content)?;
    }
    file::sync(path)
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, CertsDirError> {
    let mut all = Vec::new();
    for entry in at("cannot list", folder, fs::read_dir(folder))? {
        let entry = at("cannot list", folder, entry)?;
        all.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    all.sort();
    Ok(all)
}

fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

fn nothing() -> Content {
    Content { bytes: Vec::new(), meta: Meta::default() }
}

#[cfg(test)]
mod tests;
