//! Reading and replacing small files in a folder that others write to as well.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
};

use rustix::{
    fs::{CWD, OFlags, RenameFlags, renameat_with},
    io::Errno,
};

use super::{CertsDirError, at};
use crate::mirror::{
    hosts_toml,
    plan::{Content, Meta, Slot},
};

/// Whatever begins with this is unfinished and may be removed.
pub(super) const TEMPORARY: &str = ".larder-tmp-";
/// A file on its way into the place of another, or the other on its way out: the one name under
/// which something of somebody else may be found after a process was killed.
pub(super) const SWAP: &str = ".larder-swap";

#[expect(clippy::cast_possible_wrap, reason = "the flags are small positive bits")]
const CAREFULLY: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32;

/// What is under `path`. Only a regular file is opened: not a link to somebody's secret, not a
/// FIFO that never ends.
pub(super) fn read(path: &Path) -> Result<Slot, CertsDirError> {
    let odd = |what: &str| Ok(Slot::Odd(format!("{} is {what}", path.display())));
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Slot::Absent),
        Err(error) => return at("cannot inspect", path, Err(error)),
    };
    if found.is_symlink() {
        return odd("a symbolic link, which is not followed; replace it by the file itself");
    }
    if found.is_dir() {
        return odd("a folder, so that every pull fails; remove it");
    }
    if !found.is_file() {
        return odd("not a regular file; remove it");
    }
    if found.size() > hosts_toml::MAX_SIZE as u64 {
        return odd("larger than 1 MiB; make it smaller");
    }
    let file = OpenOptions::new().read(true).custom_flags(CAREFULLY).open(path);
    let file = at("cannot open", path, file)?;
    let metadata = at("cannot inspect", path, file.metadata())?;
    if !metadata.is_file() {
        return odd("not a regular file; remove it");
    }
    let mut bytes = Vec::new();
    let most = hosts_toml::MAX_SIZE as u64 + 1;
    at("cannot read", path, file.take(most).read_to_end(&mut bytes))?;
    let owner = Some((metadata.uid(), metadata.gid()));
    let meta = Meta { mode: metadata.mode() & 0o7777, owner };
    Ok(Slot::File(Content { bytes, meta }))
}

/// Puts `content` under `path` if `expected` is what is there. What somebody else wrote there in the
/// meantime stays, and the answer is [`CertsDirError::Changed`].
pub(super) fn exchange(
    path: &Path,
    expected: &Slot,
    content: &Content,
) -> Result<(), CertsDirError> {
    let folder = path.parent().unwrap_or(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!("{TEMPORARY}{name}"));
    remove(&temporary)?;
    create(&temporary, content)?;
    let done = match expected {
        Slot::File(expected) => {
            let aside = folder.join(SWAP);
            at("cannot rename to", &aside, fs::rename(&temporary, &aside))?;
            let done = swap(&aside, path, expected);
            // After any other error it may be theirs that lies aside: the next sweep finds out.
            if matches!(done, Err(CertsDirError::Changed { .. })) {
                remove(&aside)?;
            }
            done
        }
        Slot::Absent | Slot::Odd(_) => {
            let done = place(&temporary, path);
            if done.is_err() {
                remove(&temporary)?;
            }
            done
        }
    };
    sync(folder)?;
    done
}

/// Renames `from` to `to`, where nothing may be.
pub(super) fn place(from: &Path, to: &Path) -> Result<(), CertsDirError> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST | Errno::NOTEMPTY) => changed(to),
        Err(error) if lacks_flags(error) => {
            if to.symlink_metadata().is_ok() {
                return changed(to);
            }
            at("cannot rename to", to, fs::rename(from, to))
        }
        other => at("cannot rename to", to, other.map_err(io::Error::from)),
    }
}

/// Brings the file `aside` to `path` and removes `expected`, which was there. If it was something
/// else, both are as before.
///
/// A writer that opened the old file before and writes into it afterwards is not noticed.
pub(super) fn swap(aside: &Path, path: &Path, expected: &Content) -> Result<(), CertsDirError> {
    let new = read(aside)?;
    match renameat_with(CWD, aside, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        Err(Errno::NOENT) => return changed(path),
        Err(error) if lacks_flags(error) => {
            if !is(&read(path)?, expected) {
                return changed(path);
            }
            return at("cannot rename to", path, fs::rename(aside, path));
        }
        Err(error) => return at("cannot exchange", path, Err(error.into())),
    }
    if is(&read(aside)?, expected) {
        return remove(aside);
    }
    let back = || {
        let done = renameat_with(CWD, aside, CWD, path, RenameFlags::EXCHANGE);
        at("cannot put back", path, done.map_err(io::Error::from))
    };
    back()?;
    if read(aside)? != new {
        // A second one was faster still: of the two, the newer is to be seen.
        back()?;
    }
    changed(path)
}

/// Removes `expected` from `path`; anything else stays, and so does nothing.
pub(super) fn take_away(path: &Path, expected: &Content) -> Result<(), CertsDirError> {
    let aside = path.parent().unwrap_or(path).join(SWAP);
    match fs::rename(path, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => at("cannot remove", path, other)?,
    }
    if is(&read(&aside)?, expected) {
        return remove(&aside);
    }
    match place(&aside, path) {
        Err(CertsDirError::Changed { .. }) => {
            // There is a newer one.
            remove(&aside)?;
            changed(path)
        }
        Err(error) => Err(error),
        Ok(()) => changed(path),
    }
}

fn is(found: &Slot, expected: &Content) -> bool {
    matches!(found, Slot::File(content) if content == expected)
}

fn changed<T>(path: &Path) -> Result<T, CertsDirError> {
    Err(CertsDirError::Changed { path: path.to_owned() })
}

/// File systems over a network or in user space often know no flags of rename.
fn lacks_flags(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

/// Replaces `path`, where nobody else writes: either all of the new file is there or the old one,
/// whatever happens when.
pub(super) fn replace(path: &Path, content: &Content) -> Result<(), CertsDirError> {
    let folder = path.parent().unwrap_or(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!("{TEMPORARY}{name}"));
    remove(&temporary)?;
    create(&temporary, content)?;
    at("cannot rename to", path, fs::rename(&temporary, path))?;
    sync(folder)
}

/// Writes a file that is not there yet.
pub(super) fn create(path: &Path, content: &Content) -> Result<(), CertsDirError> {
    let mut options = OpenOptions::new();
    // Nobody else may read it until it has the mode that it shall have.
    options.write(true).create_new(true).mode(0o600).custom_flags(CAREFULLY);
    let mut file = at("cannot create", path, options.open(path))?;
    at("cannot write", path, file.write_all(&content.bytes))?;
    if let Some((user, group)) = content.meta.owner {
        let metadata = at("cannot inspect", path, file.metadata())?;
        if (metadata.uid(), metadata.gid()) != (user, group) {
            at("cannot set the owner of", path, fchown(&file, Some(user), Some(group)))?;
        }
    }
    let mode = Permissions::from_mode(content.meta.mode);
    at("cannot set the mode of", path, file.set_permissions(mode))?;
    at("cannot sync", path, file.sync_all())
}

/// Removes a file; that it is not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), CertsDirError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // On a read-only file system that is said before the file is looked for.
        Err(error)
            if error.kind() == io::ErrorKind::ReadOnlyFilesystem
                && path.symlink_metadata().is_err() =>
        {
            Ok(())
        }
        other => at("cannot remove", path, other),
    }
}

pub(super) fn sync(folder: &Path) -> Result<(), CertsDirError> {
    at("cannot sync", folder, File::open(folder).and_then(|folder| folder.sync_all()))
}
