//! Reading and replacing small files in a folder that others write to as well.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
};

use rustix::fs::OFlags;

use super::{CertsDirError, at};
use crate::mirror::{
    hosts_toml,
    plan::{Content, Meta, Slot},
};

/// Whatever begins with this is unfinished and may be removed.
pub(super) const TEMPORARY: &str = ".larder-tmp-";

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

/// Replaces `path`: either all of the new file is there or the old one, whatever happens when.
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
        other => at("cannot remove", path, other),
    }
}

pub(super) fn sync(folder: &Path) -> Result<(), CertsDirError> {
    at("cannot sync", folder, File::open(folder).and_then(|folder| folder.sync_all()))
}
