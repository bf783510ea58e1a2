//! Taking the folder for this process, and going without it while that cannot be done.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::FlockOperation;

use super::{
    Store, StoreError, StoreState,
    counters::{Changes, Counters, Remembered},
    error::{Class, at},
    layout,
};
use crate::oci::Algorithm;

impl Store {
    /// Takes the folder, if this process does not have it: at start, when it was read-only or in
    /// use, and after somebody removed it underneath. Creates what is missing. Leftovers of
    /// unfinished writes are removed; unfinished downloads are kept, they will be resumed.
    /// Returns whether it was taken just now.
    pub fn attach(&self) -> Result<bool, StoreError> {
        if self.is_attached() {
            return Ok(false);
        }
        let attached = self.take_folder();
        *self.detached() = match &attached {
            Ok(_) => None,
            Err(error) => Some(match (error, error.class()) {
                (StoreError::Locked { .. }, _) => StoreState::Locked,
                (_, Class::ReadOnly) => StoreState::ReadOnly,
                (_, Class::Full) => StoreState::Full,
                _ => StoreState::Failing,
            }),
        };
        *self.lock() = Some(attached?);
        self.open_counters();
        Ok(true)
    }

    /// Whether the folder that this process has is still the one under that name.
    fn is_attached(&self) -> bool {
        let held = self.lock().as_ref().and_then(|file| file.metadata().ok());
        let found = fs::symlink_metadata(self.layout.version()).ok();
        match (held, found) {
            (Some(held), Some(found)) => held.ino() == found.ino() && held.dev() == found.dev(),
            _ => false,
        }
    }

    fn take_folder(&self) -> Result<File, StoreError> {
        let (layout, disk) = (&self.layout, &self.disk);
        let root = layout.root();
        if root.symlink_metadata().is_err() {
            disk.create_folder(root)?;
        }
        check_folder(root)?;
        self.check_version()?;
        let path = layout.version();
        let mut lock = disk.open_lock(&path)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked { path: root.to_owned() });
            }
            Err(error) => return at("cannot lock", &path, Err(error.into())),
        }
        // A crash between creation and the first write leaves it empty.
        let found = at("cannot inspect", &path, lock.metadata())?;
        if found.len() == 0 {
            if found.nlink() > 1 {
                let problem = "has a second name, a hard link, elsewhere; remove this one";
                return Err(StoreError::Unsafe { path, problem: problem.to_owned() });
            }
            let written = lock.rewind().and_then(|()| lock.write_all(layout::VERSION.as_bytes()));
            at("cannot write", &path, written)?;
            disk.sync(&path, &lock)?;
        }
        for folder in layout.fixed_folders() {
            disk.create_folder(&folder)?;
            check_folder(&folder)?;
        }
        self.sweep_temporary(&layout.partials())?;
        for algorithm in Algorithm::ALL {
            self.trim_reserved(&layout.partials().join(algorithm.name()))?;
        }
        Ok(lock)
    }

    /// Refuses a folder that another version wrote, which also may be read by nobody else.
    fn check_version(&self) -> Result<(), StoreError> {
        const ENOUGH: u64 = 64;
        let path = self.layout.version();
        let Some(file) = self.disk.open_regular(&path)? else {
            return Ok(());
        };
        let mut found = String::new();
        at("cannot read", &path, file.take(ENOUGH).read_to_string(&mut found))?;
        if found.is_empty() || found == layout::VERSION {
            return Ok(());
        }
        Err(StoreError::Version { path, found: found.trim_end().to_owned() })
    }

    /// Removes what a killed process was writing atomically.
    fn sweep_temporary(&self, folder: &Path) -> Result<(), StoreError> {
        for name in self.disk.names(folder)? {
            let path = folder.join(name);
            if path.is_file() {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Gives back what a killed process had reserved beyond the bytes it wrote.
    fn trim_reserved(&self, folder: &Path) -> Result<(), StoreError> {
        for name in self.disk.names(folder)? {
            let path = folder.join(name);
            // What is not a file of its own has nothing of ours reserved.
            if let Ok(Some(_)) = self.disk.open_regular(&path)
                && let Ok(file) = self.disk.open_or_create(&path)
            {
                let length = self.disk.metadata(&path, &file)?.len();
                self.disk.set_len(&path, &file, length)?;
            }
        }
        Ok(())
    }

    /// Soft state: whatever is wrong with it is reported, and it begins anew.
    fn open_counters(&self) {
        let path = self.layout.counters();
        *self.counters() = None;
        let aside = path.with_extension("redb.bad");
        match self.disk.open_regular(&path) {
            Ok(Some(file)) if file.metadata().is_ok_and(|found| found.nlink() > 1) => {
                tracing::warn!(path = %path.display(), moved_to = %aside.display(),
                    "the counters have a second name, a hard link, elsewhere; they begin anew");
                // If this fails, nothing of the other name may be written to.
                if self.disk.rename(&path, &aside).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "counts and trust will not survive a restart");
                return;
            }
        }
        let opened = Counters::open(&path).or_else(|error| {
            tracing::warn!(%error, path = %path.display(), moved_to = %aside.display(),
                "the counters cannot be read; they begin anew");
            // If this fails, so does the next attempt, which says why.
            let _ = self.disk.rename(&path, &aside);
            Counters::open(&path)
        });
        match opened {
            Ok((counters, Remembered { blobs, images, scrubbed })) => {
                *self.remembered() = blobs;
                self.usage.remember(images);
                *self.scrubbed() = scrubbed;
                *self.counters() = Some(counters);
            }
            Err(error) => {
                tracing::warn!(%error, "counts and trust will not survive a restart");
            }
        }
    }

    /// Writes down what has changed since the last call. What cannot be written now is kept for the
    /// next time.
    pub fn write_counters(&self) {
        let mut counters = self.counters();
        let Some(open) = counters.as_ref() else {
            return;
        };
        if self.check_writable().is_err() {
            return;
        }
        let changes = Changes {
            blobs: self.ledger.lock().take_changes(),
            images: self.usage.take_changes(),
            scrubbed: self.scrubbed().clone(),
        };
        let scrubbed = changes.scrubbed.clone();
        let known = *self.written_cursor() == scrubbed;
        if changes.blobs.is_empty() && changes.images.is_empty() && known {
            return;
        }
        if let Err(error) = open.write(&changes, jiff::Timestamp::now()) {
            tracing::warn!(%error, "the counters cannot be written; they are opened again");
            self.ledger.lock().put_back(changes.blobs.into_iter().map(|(digest, _)| digest));
            self.usage.put_back(changes.images.into_iter().map(|(key, _)| key));
            // After an error of the disk a handle of redb refuses everything.
            *counters = None;
            *counters = Counters::open(&self.layout.counters()).ok().map(|(open, _)| open);
            return;
        }
        *self.written_cursor() = scrubbed;
    }
}

/// Refuses a folder into which others could put files.
fn check_folder(folder: &Path) -> Result<(), StoreError> {
    let metadata = at("cannot inspect", folder, fs::symlink_metadata(folder))?;
    let wrong = |problem: String| Err(StoreError::Unsafe { path: folder.to_owned(), problem });
    if !metadata.is_dir() {
        let problem = "is not a folder (a symbolic link is not followed); name the folder itself";
        return wrong(problem.to_owned());
    }
    let (owner, me) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != me {
        let problem = format!(
            "belongs to user {owner}, and larder-node runs as user {me}; chown it, with what is in \
             it, to {me}"
        );
        return wrong(problem);
    }
    if metadata.mode() & 0o022 != 0 {
        return wrong("is writable by others; run chmod go-w on it".to_owned());
    }
    Ok(())
}
