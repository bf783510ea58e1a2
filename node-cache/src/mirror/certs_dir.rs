//! containerd's folder of mirrors: the only code that writes there.
//!
//! ```text
//! <certs.d>/.larder-created                      the folder is ours and goes when it is empty
//! <certs.d>/.larder-repair                       the colon path that was repaired (repair.rs)
//! <certs.d>/.larder-tmp-*                        unfinished
//! <certs.d>/<registry>/hosts.toml                ours if its first line says so (mark.rs)
//! <certs.d>/<registry>/hosts.toml.larder-original what was there before
//! <certs.d>/<registry>/.larder-created           the folder is ours and goes as a whole
//! ```
//!
//! Every step is one rename or one unlink, so that containerd finds something that it accepts
//! whenever it looks, and a process that dies in between leaves what the next one understands. A
//! folder comes and goes by one rename because an empty one already hides `_default`.

mod file;
mod repair;

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;

use super::{
    folder,
    plan::{self, Content, Meta, Owner, Plan, Refusal, Seen, SeenFolder, Slot, Undo, Want},
};
use crate::oci::UpstreamHost;
use file::TEMPORARY;

const HOSTS: &str = "hosts.toml";
const ORIGINAL: &str = "hosts.toml.larder-original";
const CREATED: &str = ".larder-created";

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
    /// Whether the folder went away under us: as a mount point it does not come back by itself.
    pub fn is_dead_mount(&self) -> bool {
        use rustix::io::Errno;
        let dead = [Errno::NOENT, Errno::ROFS, Errno::STALE];
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
    _lock: File,
}

/// What would be, or was, done to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// Its text before; `None` if it was not there.
    pub before: Option<String>,
    /// Its text after; `None` if it is not there any more.
    pub after: Option<String>,
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
        let lock = at("cannot open", &path, File::open(&path))?;
        let started = Instant::now();
        while let Err(error) = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return at("cannot lock", &path, Err(error.into()));
            }
            if started.elapsed() > PATIENCE {
                let problem = "is locked by another process; end the other configurator";
                return unusable(problem.to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Some(Self { path, named: named.to_owned(), _lock: lock }))
    }

    /// Opens the folder, making it if there is none.
    pub fn create(named: &Path) -> Result<Self, CertsDirError> {
        if let Some(found) = Self::open(named)? {
            return Ok(found);
        }
        if named.is_symlink() {
            let problem = "is a symbolic link to nothing; make the folder or remove the link";
            let path = named.to_owned();
            return Err(CertsDirError::Unusable { path, problem: problem.to_owned() });
        }
        let parent = named.parent().unwrap_or(Path::new("/"));
        let name = named.file_name().unwrap_or_default().to_string_lossy();
        let temporary = parent.join(format!("{TEMPORARY}{name}"));
        discard(&temporary)?;
        make_folder(
            &temporary,
            &[(CREATED, &Content { bytes: Vec::new(), meta: Meta::default() })],
        )?;
        at("cannot make", named, fs::rename(&temporary, named))?;
        file::sync(parent)?;
        Self::open(named)?.ok_or_else(|| CertsDirError::Io {
            action: "cannot open",
            path: named.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    /// Removes what a process that died left unfinished.
    pub fn sweep(&self) -> Result<(), CertsDirError> {
        for (name, path) in entries(&self.path)? {
            if let Some(registry) = name.strip_prefix(TEMPORARY) {
                self.finish_removal(&path, registry)?;
            } else if is_folder(&path) {
                // What cannot be listed or changed is not ours.
                for (name, path) in entries(&path).unwrap_or_default() {
                    if name.starts_with(TEMPORARY)
                        && let Err(error) = file::remove(&path)
                    {
                        tracing::debug!(%error, "an unfinished file stays");
                    }
                }
            }
        }
        Ok(())
    }

    /// Names of the folders that have something of ours.
    pub fn ours(&self) -> Result<Vec<String>, CertsDirError> {
        let mut names = Vec::new();
        for (name, path) in entries(&self.path)? {
            if name.starts_with(TEMPORARY) || !is_folder(&path) {
                continue;
            }
            let seen = match observe_folder(&path) {
                Ok(seen) => seen,
                // We make no folder that we cannot look into.
                Err(error) => {
                    tracing::debug!(%error, "not looked into");
                    continue;
                }
            };
            if plan::undo(&seen, None, &Owner::Any) != Undo::Nothing {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The name of the registry's folder: the one that containerd would use, or would if it was
    /// there.
    pub fn folder_of(&self, host: &UpstreamHost) -> String {
        let names = folder::candidates(host);
        let there = names.iter().find(|name| self.path.join(name).symlink_metadata().is_ok());
        there.or(names.first()).cloned().unwrap_or_default()
    }

    /// Decides what is to be done for `host`.
    pub fn plan(
        &self,
        host: &UpstreamHost,
        want: &Want<'_>,
    ) -> Result<Result<Plan, Refusal>, CertsDirError> {
        let path = self.path.join(self.folder_of(host));
        let mut seen = Seen { default: self.default_folder()?, ..Seen::default() };
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return at("cannot inspect", &path, Err(error)),
            Ok(found) if found.is_dir() => seen.folder = Some(observe_folder(&path)?),
            Ok(found) => {
                let what = if found.is_symlink() { "a symbolic link" } else { "not a folder" };
                let fix = "replace it by a folder or remove it";
                seen.odd = Some(format!("{} is {what} and left alone; {fix}", path.display()));
            }
        }
        Ok(plan::plan(&seen, want))
    }

    /// Carries out a plan.
    pub fn apply(&self, host: &UpstreamHost, plan: &Plan) -> Result<(), CertsDirError> {
        let name = self.folder_of(host);
        let path = self.path.join(&name);
        match plan {
            Plan::Keep => Ok(()),
            Plan::Create(hosts) => {
                let temporary = self.path.join(format!("{TEMPORARY}{name}"));
                discard(&temporary)?;
                let created = Content { bytes: Vec::new(), meta: Meta::default() };
                make_folder(&temporary, &[(HOSTS, hosts), (CREATED, &created)])?;
                at("cannot make", &path, fs::rename(&temporary, &path))?;
                file::sync(&self.path)
            }
            Plan::Write { original, hosts } => {
                if let Some(original) = original {
                    file::replace(&path.join(ORIGINAL), original)?;
                }
                file::replace(&path.join(HOSTS), hosts)
            }
        }
    }

    /// What a plan changes, for people.
    pub fn preview(&self, host: &UpstreamHost, plan: &Plan) -> Vec<Change> {
        let path = self.path.join(self.folder_of(host));
        let hosts = match plan {
            Plan::Keep => return Vec::new(),
            Plan::Create(hosts) | Plan::Write { hosts, .. } => hosts,
        };
        let path = path.join(HOSTS);
        vec![Change { before: lossy(&path), after: Some(text(hosts)), path }]
    }

    /// Decides how to withdraw from the folder `name`.
    pub fn undo(&self, name: &str, owner: &Owner) -> Result<Undo, CertsDirError> {
        let seen = observe_folder(&self.path.join(name))?;
        Ok(plan::undo(&seen, self.default_folder()?.as_ref(), owner))
    }

    /// What withdrawing changes, for people.
    pub fn preview_undo(&self, name: &str, undo: &Undo) -> Vec<Change> {
        let path = self.path.join(name).join(HOSTS);
        let after = match undo {
            Undo::Nothing | Undo::Leftovers | Undo::Leave(_) => return Vec::new(),
            Undo::Folder | Undo::Hosts => None,
            Undo::Restore => lossy(&self.path.join(name).join(ORIGINAL)),
            Undo::Rewrite(content) => Some(text(content)),
        };
        vec![Change { before: lossy(&path), after, path }]
    }

    /// Brings the folder `name` back to what it was.
    pub fn withdraw(&self, name: &str, undo: &Undo) -> Result<(), CertsDirError> {
        let path = self.path.join(name);
        match undo {
            Undo::Nothing | Undo::Leave(_) => return Ok(()),
            Undo::Leftovers => {}
            Undo::Folder => return self.remove_folder(&path, name),
            Undo::Hosts => file::remove(&path.join(HOSTS))?,
            Undo::Restore => {
                let (from, to) = (path.join(ORIGINAL), path.join(HOSTS));
                at("cannot restore", &to, fs::rename(from, &to))?;
            }
            Undo::Rewrite(content) => file::replace(&path.join(HOSTS), content)?,
        }
        // The original stands: what is still beside it means nothing any more.
        file::sync(&path)?;
        file::remove(&path.join(ORIGINAL))?;
        file::remove(&path.join(CREATED))?;
        file::sync(&path)
    }

    /// Removes the folder itself if we made it and nobody uses it.
    pub fn remove_if_ours(self) -> Result<(), CertsDirError> {
        let marker = self.path.join(CREATED);
        let alone = entries(&self.path)?.iter().all(|(name, _)| name == CREATED);
        if !alone || marker.symlink_metadata().is_err() {
            return Ok(());
        }
        file::remove(&marker)?;
        at("cannot remove", &self.path, fs::remove_dir(&self.path))
    }

    fn default_folder(&self) -> Result<Option<SeenFolder>, CertsDirError> {
        // containerd follows a link here, and nothing is written there.
        match fs::canonicalize(self.path.join(folder::DEFAULT)) {
            Ok(path) if path.is_dir() => observe_folder(&path).map(Some),
            _ => Ok(None),
        }
    }

    fn remove_folder(&self, path: &Path, name: &str) -> Result<(), CertsDirError> {
        let temporary = self.path.join(format!("{TEMPORARY}{name}"));
        discard(&temporary)?;
        at("cannot remove", path, fs::rename(path, &temporary))?;
        file::sync(&self.path)?;
        self.finish_removal(&temporary, name)
    }

    /// Removes a folder or file under a temporary name. What somebody put into it meanwhile is
    /// brought back without our files.
    fn finish_removal(&self, temporary: &Path, name: &str) -> Result<(), CertsDirError> {
        match discard(temporary) {
            Err(CertsDirError::Io { source, .. })
                if source.kind() == io::ErrorKind::DirectoryNotEmpty =>
            {
                let path = self.path.join(name);
                if let Err(error) = fs::rename(temporary, &path) {
                    // There is a new one already; what is here is somebody else's, so it stays.
                    let path = temporary.display();
                    tracing::warn!(%path, %error, "a folder with foreign files is left over");
                }
                Ok(())
            }
            other => other,
        }
    }
}

/// Removes a folder with our files, or a file.
fn discard(path: &Path) -> Result<(), CertsDirError> {
    if !is_folder(path) {
        return file::remove(path);
    }
    for (name, path) in entries(path)? {
        if [HOSTS, ORIGINAL, CREATED].contains(&name.as_str()) || name.starts_with(TEMPORARY) {
            file::remove(&path)?;
        }
    }
    at("cannot remove", path, fs::remove_dir(path))
}

fn make_folder(path: &Path, files: &[(&str, &Content)]) -> Result<(), CertsDirError> {
    at("cannot make", path, DirBuilder::new().mode(0o755).create(path))?;
    for (name, content) in files {
        file::create(&path.join(name), content)?;
    }
    file::sync(path)
}

fn observe_folder(path: &Path) -> Result<SeenFolder, CertsDirError> {
    let hosts = file::read(&path.join(HOSTS))?;
    let original = file::read(&path.join(ORIGINAL))?;
    let mut seen = SeenFolder { hosts, original, ..SeenFolder::default() };
    for (name, _) in entries(path)? {
        match name.as_str() {
            HOSTS | ORIGINAL => {}
            CREATED => seen.created = true,
            name if name.starts_with(TEMPORARY) => {}
            name => {
                seen.others = true;
                let extension = Path::new(name).extension().and_then(|end| end.to_str());
                seen.certs |= matches!(extension, Some("crt" | "cert" | "key"));
            }
        }
    }
    Ok(seen)
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

fn text(content: &Content) -> String {
    String::from_utf8_lossy(&content.bytes).into_owned()
}

fn lossy(path: &Path) -> Option<String> {
    match file::read(path) {
        Ok(Slot::File(content)) => Some(text(&content)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
