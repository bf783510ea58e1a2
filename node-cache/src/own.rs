//! `larder-node own`: gives the store's folder to the server's user. It runs before the server, as
//! root with no capability but `CHOWN`, because the kubelet's `fsGroup` does not touch hostPath.
//!
//! Only what has another owner is changed: a chown to the same user bumps the ctime of a file, by
//! which the server recognises what it has verified, and every blob would be hashed again.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, openat, statat},
    io::Errno,
};

/// Who gets the folder.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// User.
    pub uid: Uid,
    /// Group.
    pub gid: Gid,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Files and folders that had another owner.
    pub changed: u64,
    /// What was left alone: hard links from elsewhere, other file systems.
    pub skipped: u64,
}

/// Why the folder could not be given away.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The folder is not one.
    #[error("{path} is not a folder; name a folder, or remove what is there")]
    NotAFolder {
        /// Its name.
        path: String,
    },
    /// The operating system refuses.
    #[error("cannot give {path} to uid {uid}: {source}")]
    Io {
        /// Of what.
        path: String,
        /// To whom.
        uid: u32,
        /// Why.
        source: io::Error,
    },
}

/// Gives `folder` and everything in it to `owner`. Links are not followed, and no other file system
/// is entered.
pub fn give(folder: &Path, owner: Owner) -> Result<Done, OwnError> {
    let name = folder.display().to_string();
    let failed = |errno: Errno| OwnError::Io {
        path: name.clone(),
        uid: owner.uid.as_raw(),
        source: errno.into(),
    };
    let found = statat(CWD, folder, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return Err(OwnError::NotAFolder { path: name });
    }
    let folder = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes())
        .map_err(|_| OwnError::NotAFolder { path: name.clone() })?;
    let mut walk = Walk { owner, device: found.st_dev, done: Done::default() };
    walk.folder(CWD, &folder, &found).map_err(failed)?;
    Ok(walk.done)
}

struct Walk {
    owner: Owner,
    device: u64,
    done: Done,
}

impl Walk {
    fn folder(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        found: &Stat,
    ) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(parent, name, flags, Mode::empty());
        let mut lent = false;
        let opened = match open() {
            // Root without further capabilities reads only what is its own.
            Err(Errno::ACCESS) => {
                let root = Owner { uid: Uid::ROOT, gid: Gid::ROOT };
                set(parent, name, root)?;
                lent = true;
                open()
            }
            opened => opened,
        };
        let inside = opened.and_then(|folder| self.entries(&folder));
        if lent || self.is_foreign(found) {
            set(parent, name, self.owner)?;
            self.done.changed += u64::from(self.is_foreign(found));
        }
        inside
    }

    fn entries(&mut self, folder: &OwnedFd) -> rustix::io::Result<()> {
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let found = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => found,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            if found.st_dev != self.device {
                self.done.skipped += 1;
                continue;
            }
            let kind = FileType::from_raw_mode(found.st_mode);
            if kind == FileType::Directory {
                self.folder(folder.as_fd(), name, &found)?;
            } else if self.is_foreign(&found) {
                // A second name of somebody else's file: it would be given away there as well.
                if kind == FileType::RegularFile && found.st_nlink > 1 {
                    self.done.skipped += 1;
                    continue;
                }
                set(folder.as_fd(), name, self.owner)?;
                self.done.changed += 1;
            }
        }
        Ok(())
    }

    fn is_foreign(&self, found: &Stat) -> bool {
        found.st_uid != self.owner.uid.as_raw() || found.st_gid != self.owner.gid.as_raw()
    }
}

fn set(parent: BorrowedFd<'_>, name: &CStr, owner: Owner) -> rustix::io::Result<()> {
    chownat(parent, name, Some(owner.uid), Some(owner.gid), AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
    };

    use super::*;

    fn us() -> Owner {
        Owner { uid: Uid::from_raw(50555), gid: Gid::from_raw(50555) }
    }

    // These need root, as all tests of `make test` do.
    #[test]
    fn only_what_has_another_owner_is_changed_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join("store").join(name);
        fs::create_dir_all(at("blobs/sha256")).unwrap();
        fs::write(at("blobs/sha256/ours"), "x").unwrap();
        fs::write(at("blobs/sha256/theirs"), "x").unwrap();
        lchown(at("blobs/sha256/ours"), Some(50555), Some(50555)).unwrap();
        fs::create_dir(at("private")).unwrap();
        fs::write(at("private/file"), "x").unwrap();
        fs::set_permissions(at("private"), Permissions::from_mode(0o700)).unwrap();
        for path in [at("private/file"), at("private")] {
            lchown(path, Some(1234), Some(1234)).unwrap();
        }
        let outside = folder.path().join("outside");
        fs::write(&outside, "x").unwrap();
        symlink(&outside, at("link")).unwrap();
        fs::hard_link(&outside, at("hard")).unwrap();
        let before = fs::metadata(at("blobs/sha256/ours")).unwrap();

        let done = give(&folder.path().join("store"), us()).unwrap();

        // store, blobs, sha256, theirs, private, file, link
        assert_eq!(done, Done { changed: 7, skipped: 1 });
        let after = fs::metadata(at("blobs/sha256/ours")).unwrap();
        assert_eq!((before.ctime(), before.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
        for name in ["blobs/sha256/theirs", "private/file", "private", "link", ""] {
            assert_eq!(fs::symlink_metadata(at(name)).unwrap().uid(), 50555, "{name}");
        }
        assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
        assert_eq!(
            give(&folder.path().join("store"), us()).unwrap(),
            Done { changed: 0, skipped: 1 }
        );
    }

    #[test]
    fn a_link_or_a_file_in_the_place_of_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "x").unwrap();
        symlink("/etc", &link).unwrap();
        for path in [file, link] {
            let error = give(&path, us()).unwrap_err().to_string();
            assert!(error.contains("is not a folder"), "{error}");
        }
        let missing = give(&folder.path().join("missing"), us()).unwrap_err().to_string();
        assert!(missing.contains("No such file"), "{missing}");
    }
}
