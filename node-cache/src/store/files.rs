//! Operations on files that are the same whatever the file means.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustix::fs::{FlockOperation, OFlags};

use super::{
    StoreError, at,
    layout::{self, Layout},
};
use crate::oci::Algorithm;

/// Group may read: the configurator shares the group and reads, never writes.
const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// Creates what is missing, checks what is there, takes the lock.
pub(super) fn prepare(layout: &Layout) -> Result<File, StoreError> {
    let root = layout.root();
    create_folder(root)?;
    check_root(root)?;
    let path = layout.version();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(FILE_MODE).custom_flags(NO_FOLLOW);
    let mut lock = at("cannot open", &path, options.open(&path))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(StoreError::Locked { path: root.to_owned() });
        }
        Err(error) => return at("cannot lock", &path, Err(error.into())),
    }
    let mut found = String::new();
    at("cannot read", &path, lock.read_to_string(&mut found))?;
    // A crash between creation and the first write leaves it empty.
    if found.is_empty() {
        at(
            "cannot write",
            &path,
            lock.rewind().and_then(|()| lock.write_all(layout::VERSION.as_bytes())),
        )?;
        at("cannot sync", &path, lock.sync_all())?;
    } else if found != layout::VERSION {
        return Err(StoreError::Version { path, found: found.trim_end().to_owned() });
    }
    for folder in layout.fixed_folders() {
        create_folder(&folder)?;
    }
    sweep_temporary(&layout.partials())?;
    for algorithm in Algorithm::ALL {
        trim_reserved(&layout.partials().join(algorithm.name()))?;
    }
    Ok(lock)
}

#[expect(clippy::cast_possible_wrap, reason = "the flag is a small positive bit")]
const NO_FOLLOW: i32 = OFlags::NOFOLLOW.bits() as i32;

fn check_root(root: &Path) -> Result<(), StoreError> {
    let metadata = at("cannot inspect", root, fs::symlink_metadata(root))?;
    let wrong = |problem: &str| {
        Err(StoreError::Unsafe { path: root.to_owned(), problem: problem.to_owned() })
    };
    if !metadata.is_dir() {
        return wrong("is not a folder (a symbolic link is not followed); name the folder itself");
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return wrong("belongs to another user; chown it to the user that larder-node runs as");
    }
    if metadata.mode() & 0o022 != 0 {
        return wrong("is writable by others; run chmod go-w on it");
    }
    Ok(())
}

/// Removes what [`write_atomically`] leaves behind when the process dies in it.
fn sweep_temporary(folder: &Path) -> Result<(), StoreError> {
    for entry in at("cannot list", folder, fs::read_dir(folder))? {
        let path = at("cannot list", folder, entry)?.path();
        if path.is_file() {
            at("cannot remove", &path, fs::remove_file(&path))?;
        }
    }
    Ok(())
}

/// Gives back what a killed process had reserved beyond the bytes it wrote.
fn trim_reserved(folder: &Path) -> Result<(), StoreError> {
    for entry in at("cannot list", folder, fs::read_dir(folder))? {
        let path = at("cannot list", folder, entry)?.path();
        if let Ok(Some(file)) = open_regular(&path) {
            let length = at("cannot inspect", &path, file.metadata())?.len();
            at("cannot trim", &path, open_or_create(&path)?.set_len(length))?;
        }
    }
    Ok(())
}

pub(super) fn create_folder(path: &Path) -> Result<(), StoreError> {
    let result = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
    at("cannot create", path, result)
}

/// Opens for reading and writing, creating it; never through a symbolic link.
pub(super) fn open_or_create(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(FILE_MODE).custom_flags(NO_FOLLOW);
    at("cannot open", path, options.open(path))
}

/// Opens a regular file for reading, `None` if there is none. Anything else under that name (a
/// link, a FIFO, a device: T10) is an error.
pub(super) fn open_regular(path: &Path) -> Result<Option<File>, StoreError> {
    let mut options = OpenOptions::new();
    #[expect(clippy::cast_possible_wrap, reason = "the flag is a small positive bit")]
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = match options.read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return at("cannot open", path, Err(error)),
    };
    let metadata = at("cannot inspect", path, file.metadata())?;
    if !metadata.is_file() {
        let problem = "is not a regular file; remove it".to_owned();
        return Err(StoreError::Unsafe { path: path.to_owned(), problem });
    }
    Ok(Some(file))
}

/// Writes a whole file so that either all of it or nothing is there, whatever happens when:
/// temporary file, fsync, rename, fsync of the folder. `scratch` is on the same file system.
pub(super) fn write_atomically(
    scratch: &Path,
    path: &Path,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(scratch);
    create_folder(folder)?;
    let mut file =
        at("cannot create a file in", scratch, tempfile::NamedTempFile::new_in(scratch))?;
    at("cannot write", path, file.write_all(bytes))?;
    let mode = fs::Permissions::from_mode(FILE_MODE);
    at("cannot set the mode of", path, file.as_file().set_permissions(mode))?;
    at("cannot sync", path, file.as_file().sync_all())?;
    at("cannot rename to", path, file.persist(path).map_err(|error| error.error))?;
    sync_folder(folder)
}

pub(super) fn create_empty(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    create_folder(folder)?;
    open_or_create(path).map(drop)
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    at("cannot sync", folder, File::open(folder).and_then(|file| file.sync_all()))
}

/// Removes a file; that it is not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            at("cannot remove", path, Err(error))
        }
        _ => Ok(()),
    }
}
