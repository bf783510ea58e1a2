//! The one layer through which the store touches the disk. What it does is the same whatever the
//! file means, and every call can be made to fail in tests.

#[cfg(test)]
pub(crate) mod faults;

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use rustix::fs::{FallocateFlags, OFlags};
use tempfile::NamedTempFile;

use super::error::{StoreError, at};

/// Group may read: the configurator shares the group and reads, never writes.
const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// A FIFO without a writer must not hang the open.
#[expect(clippy::cast_possible_wrap, reason = "the flags are small positive bits")]
const LOOK_ONLY: i32 = (OFlags::NOFOLLOW.bits() | OFlags::NONBLOCK.bits()) as i32;

/// The disk that a store is on. Below its root no symbolic link is followed; how the root itself is
/// reached is the administrator's affair.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    root: Arc<Path>,
    #[cfg(test)]
    pub(super) faults: faults::Faults,
}

/// The room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes in all.
    pub(super) size: u64,
    /// Bytes free for an unprivileged user.
    pub(super) free: u64,
    /// Bytes of its smallest allocation.
    pub(super) block: u64,
    /// Whether at least a twentieth of its inodes is free, which is where the kubelet begins to
    /// evict pods; true where there is no such number.
    pub(super) inodes_left: bool,
}

impl Disk {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            #[cfg(test)]
            faults: faults::Faults::default(),
        }
    }

    /// Every operation passes here first.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests inject faults here")]
    fn gate(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn gate(&self) -> io::Result<()> {
        self.faults.pass()
    }

    /// Creates a folder of the store and what is missing above it.
    pub(super) fn create_folder(&self, path: &Path) -> Result<(), StoreError> {
        self.check_folders(path)?;
        if path.is_dir() {
            return Ok(());
        }
        let create = || DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path);
        let created = self.gate().and_then(|()| create());
        at("cannot create", path, created.map_err(|error| self.explain(error)))
    }

    /// A folder that was deleted while it is a mount point, as in a pod, is still there, and nothing
    /// can be made in it.
    fn explain(&self, error: io::Error) -> io::Error {
        let deleted = || self.root.metadata().is_ok_and(|root| root.nlink() == 0);
        if error.kind() != io::ErrorKind::NotFound || !deleted() {
            return error;
        }
        let problem = format!(
            "{} was deleted while it was mounted here; delete this pod, its successor makes it anew",
            self.root.display()
        );
        io::Error::new(error.kind(), problem)
    }

    /// Refuses a path that leads out of the store: somebody put a symbolic link, or anything else,
    /// in the place of a folder (T10). What is not there yet is fine.
    fn check_folders(&self, path: &Path) -> Result<(), StoreError> {
        let below = |folder: &&Path| *folder != &*self.root && folder.starts_with(&self.root);
        for folder in path.ancestors().take_while(below) {
            match folder.symlink_metadata() {
                Ok(found) if found.is_dir() => {}
                Ok(found) if found.is_symlink() => return unsafe_path(folder, LINK),
                Ok(_) => return unsafe_path(folder, "is not a folder; remove it"),
                // A file further up, which has its turn.
                Err(error) if is_absence(&error) => {}
                Err(error) => return at("cannot inspect", folder, Err(error)),
            }
        }
        Ok(())
    }

    /// Opens for reading and writing, creating it and its folder; never through a symbolic link,
    /// and nothing that has a second name elsewhere.
    pub(super) fn open_or_create(&self, path: &Path) -> Result<File, StoreError> {
        let folder = path.parent().unwrap_or(path);
        self.check_folders(folder)?;
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(FILE_MODE).custom_flags(LOOK_ONLY);
            self.gate()?;
            options.open(path)
        };
        let file = match open() {
            // Somebody removed the folder, perhaps the whole store.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_folder(folder)?;
                opened(path, open())?
            }
            result => opened(path, result)?,
        };
        check_regular(path, &file)?;
        if at("cannot inspect", path, file.metadata())?.nlink() > 1 {
            return unsafe_path(path, "has a second name, a hard link, elsewhere; remove this one");
        }
        Ok(file)
    }

    /// Gives up a file that has a second name elsewhere, where its bytes stay: what is written here
    /// must not be written there.
    pub(super) fn part_with_other_names(&self, path: &Path) -> Result<(), StoreError> {
        self.check_folders(path.parent().unwrap_or(path))?;
        match path.symlink_metadata() {
            Ok(found) if found.is_file() && found.nlink() > 1 => self.remove(path),
            _ => Ok(()),
        }
    }

    /// Opens a regular file for reading, `None` if there is none. Anything else under that name (a
    /// link, a FIFO, a device: T10) is an error.
    pub(super) fn open_regular(&self, path: &Path) -> Result<Option<File>, StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(LOOK_ONLY);
        self.check_folders(path.parent().unwrap_or(path))?;
        let file = match self.gate().and_then(|()| options.open(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return opened(path, Err(error)).map(Some),
        };
        check_regular(path, &file)?;
        Ok(Some(file))
    }

    /// Opens for reading and writing what is there, taking it for a lock: it may have further
    /// names, because a lock is not written to.
    pub(super) fn open_lock(&self, path: &Path) -> Result<File, StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(FILE_MODE).custom_flags(LOOK_ONLY);
        let file = opened(path, self.gate().and_then(|()| options.open(path)))?;
        check_regular(path, &file)?;
        Ok(file)
    }

    pub(super) fn metadata(&self, path: &Path, file: &File) -> Result<Metadata, StoreError> {
        at("cannot inspect", path, self.gate().and_then(|()| file.metadata()))
    }

    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
    pub(super) fn read_at(&self, file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = BytesMut::zeroed(len);
        let filled = self.read_into(file, offset, &mut buffer)?;
        buffer.truncate(filled);
        Ok(buffer.freeze())
    }

    /// The same into a buffer; how many bytes of it are filled.
    pub(super) fn read_into(
        &self,
        file: &File,
        offset: u64,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.gate()?;
            match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    pub(super) fn write_at(
        &self,
        path: &Path,
        file: &File,
        mut offset: u64,
        mut bytes: &[u8],
    ) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let written = self.write_some(file, offset, bytes);
            match written {
                Ok(0) => return at("cannot write", path, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    offset += count as u64;
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return at("cannot write", path, Err(error)),
            }
        }
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests inject faults here")]
    fn write_some(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    #[cfg(test)]
    fn write_some(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let allowed = self.faults.pass_write(bytes.len())?;
        file.write_at(&bytes[..allowed], offset)
    }

    /// Reserves space for the first `len` bytes without changing the length.
    pub(super) fn reserve(&self, path: &Path, file: &File, len: u64) -> Result<(), StoreError> {
        if len == 0 {
            return Ok(());
        }
        at("cannot reserve space for", path, self.gate())?;
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, len) {
            // The file system cannot reserve; the writes themselves will tell.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            result => at("cannot reserve space for", path, result.map_err(Into::into)),
        }
    }

    pub(super) fn set_len(&self, path: &Path, file: &File, len: u64) -> Result<(), StoreError> {
        at("cannot set the length of", path, self.gate().and_then(|()| file.set_len(len)))
    }

    pub(super) fn sync(&self, path: &Path, file: &File) -> Result<(), StoreError> {
        at("cannot sync", path, self.gate().and_then(|()| file.sync_all()))
    }

    pub(super) fn sync_folder(&self, folder: &Path) -> Result<(), StoreError> {
        let sync = || File::open(folder).and_then(|file| file.sync_all());
        at("cannot sync", folder, self.gate().and_then(|()| sync()))
    }

    /// `false` if there is nothing under the old name.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<bool, StoreError> {
        match self.gate().and_then(|()| fs::rename(from, to)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            result => at("cannot rename to", to, result).map(|()| true),
        }
    }

    /// Removes a file; that it is not there is fine.
    pub(super) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match self.gate().and_then(|()| fs::remove_file(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => at("cannot remove", path, result),
        }
    }

    /// Names in a folder, sorted; none if it is not there, or is a symbolic link to one. Names that
    /// are not text are not ours.
    pub(super) fn names(&self, folder: &Path) -> Result<Vec<String>, StoreError> {
        if folder.is_symlink() {
            return Ok(Vec::new());
        }
        let entries = match self.gate().and_then(|()| fs::read_dir(folder)) {
            Err(error) if is_absence(&error) => return Ok(Vec::new()),
            entries => at("cannot list", folder, entries)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            if let Ok(name) = at("cannot list", folder, entry)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The first half of writing a whole file so that either all of it or nothing is there,
    /// whatever happens when: a temporary file in `scratch`, on the same file system, synced.
    pub(super) fn write_temporary(
        &self,
        scratch: &Path,
        path: &Path,
        bytes: &[u8],
    ) -> Result<NamedTempFile, StoreError> {
        self.create_folder(path.parent().unwrap_or(scratch))?;
        self.create_folder(scratch)?;
        let created = self.gate().and_then(|()| NamedTempFile::new_in(scratch));
        let file = at("cannot create a file in", scratch, created)?;
        self.write_at(path, file.as_file(), 0, bytes)?;
        let mode = fs::Permissions::from_mode(FILE_MODE);
        at("cannot set the mode of", path, file.as_file().set_permissions(mode))?;
        self.sync(path, file.as_file())?;
        Ok(file)
    }

    /// The second half: it gets its name. The folder is to be synced after that.
    pub(super) fn persist(&self, file: NamedTempFile, path: &Path) -> Result<File, StoreError> {
        let named = self.gate().and_then(|()| file.persist(path).map_err(|error| error.error));
        at("cannot rename to", path, named)
    }

    /// Both halves and the sync.
    pub(super) fn write_atomically(
        &self,
        scratch: &Path,
        path: &Path,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let file = self.write_temporary(scratch, path, bytes)?;
        self.persist(file, path)?;
        self.sync_folder(path.parent().unwrap_or(scratch))
    }

    pub(super) fn room(&self, folder: &Path) -> Result<Room, StoreError> {
        let looked = self.gate().and_then(|()| Ok(rustix::fs::statvfs(folder)?));
        let disk = at("cannot inspect", folder, looked)?;
        Ok(Room {
            size: disk.f_blocks * disk.f_frsize,
            free: disk.f_bavail * disk.f_frsize,
            block: disk.f_frsize.max(512),
            inodes_left: disk.f_files == 0 || disk.f_favail >= disk.f_files / 20,
        })
    }

    /// Lets the kernel forget what it has in memory of a file, so that the next read sees the disk.
    pub(super) fn drop_cached(file: &File) {
        // Advice: that it is not taken costs nothing but the freshness of the look.
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }
}

const LINK: &str = "is a symbolic link, which is not followed; remove it";

fn check_regular(path: &Path, file: &File) -> Result<(), StoreError> {
    if at("cannot inspect", path, file.metadata())?.is_file() {
        return Ok(());
    }
    unsafe_path(path, "is not a regular file; remove it")
}

/// With what it means when a file that was not to be followed cannot be opened.
fn opened(path: &Path, result: io::Result<File>) -> Result<File, StoreError> {
    use rustix::io::Errno;
    match &result {
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            unsafe_path(path, LINK)
        }
        // A folder, a device without a driver, a socket.
        Err(error)
            if [Errno::ISDIR, Errno::NXIO, Errno::NODEV]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            unsafe_path(path, "is not a regular file; remove it")
        }
        _ => at("cannot open", path, result),
    }
}

fn unsafe_path<T>(path: &Path, problem: &str) -> Result<T, StoreError> {
    Err(StoreError::Unsafe { path: path.to_owned(), problem: problem.to_owned() })
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_root_that_was_deleted_under_its_mount_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let held = File::open(folder.path()).unwrap();
        folder.close().unwrap();
        // Leads to the deleted folder, as a mount does.
        let root = format!("/proc/self/fd/{}/.", held.as_raw_fd());
        let disk = Disk::new(Path::new(&root));
        let error = disk.create_folder(&Path::new(&root).join("blobs")).unwrap_err().to_string();
        assert!(
            error.contains("was deleted while it was mounted here; delete this pod"),
            "{error}"
        );
    }
}
