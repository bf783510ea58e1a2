//! Walking the files: adding them up, and removing what is of no use any more.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;

use super::{Store, StoreError, ledger::Victim, trust::allocated};
use crate::oci::{Algorithm, Digest, Repository, Tag, UpstreamHost};

/// A link is written before its blob. After this long there is no blob to come.
const DANGLING_LINK: Duration = Duration::from_hours(1);
/// A tag whose manifest was given up still answers where it pointed, for this long.
const DANGLING_TAG: Duration = Duration::from_hours(30 * 24);
/// A download that nobody has resumed for this long will not be.
const ABANDONED: Duration = Duration::from_hours(24);
/// Uses are written down with a delay of seconds; what was used this long before the end of the
/// last process may be in the middle of a pull now.
const RECENT: Duration = Duration::from_mins(2);

impl Store {
    /// Adds up all files. Costs about 10 us per blob.
    pub fn account(&self) -> Result<(), StoreError> {
        self.check_readable()?;
        let walk = self.ledger.lock().begin_walk();
        for algorithm in Algorithm::ALL {
            let folder = self.layout.blobs().join(algorithm.name());
            for shard in self.disk.names(&folder)? {
                self.account_shard(algorithm, &folder.join(shard))?;
            }
            self.account_partials(algorithm)?;
        }
        self.ledger.lock().end_walk(walk);
        {
            let _admitted = self.admission();
            self.trim_quarantine(usize::MAX)?;
        }
        // What is left of the last process's records is of blobs that are gone.
        self.remembered().clear();
        let (accounted, changed) = &self.accounted;
        *accounted.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
        changed.notify_all();
        Ok(())
    }

    fn account_shard(&self, algorithm: Algorithm, folder: &Path) -> Result<(), StoreError> {
        let names = self.disk.names(folder)?;
        // So that nothing is removed between the look at a file and its entry.
        let _admitted = self.admission();
        for name in names {
            let Ok(digest) = Digest::from_parts(algorithm, &name) else {
                continue;
            };
            let Ok(metadata) = fs::symlink_metadata(folder.join(&name)) else {
                continue;
            };
            if !metadata.is_file() {
                continue;
            }
            let (record, read) = match self.remembered().remove(&digest) {
                Some((record, last)) => (Some(record), recently(last).then(Instant::now)),
                None => (None, Some(Instant::now())),
            };
            self.ledger.lock().saw(&digest, allocated(&metadata), record, read);
        }
        Ok(())
    }

    fn account_partials(&self, algorithm: Algorithm) -> Result<(), StoreError> {
        let folder = self.layout.partials().join(algorithm.name());
        let _admitted = self.admission();
        let mut found = HashSet::new();
        for name in self.disk.names(&folder)? {
            if let Ok(digest) = Digest::from_parts(algorithm, &name)
                && let Ok(metadata) = fs::symlink_metadata(folder.join(name))
            {
                let mut ledger = self.ledger.lock();
                if ledger.booked(&digest) == 0 {
                    ledger.book(&digest, allocated(&metadata), Instant::now());
                }
                found.insert(digest);
            }
        }
        self.ledger.lock().keep_partials(algorithm, &found);
        Ok(())
    }

    /// Adds up the small files, and removes links and tags that lead nowhere and downloads that were
    /// abandoned.
    pub fn tidy(&self) -> Result<(), StoreError> {
        self.check_writable()?;
        let abandoned = self.ledger.lock().idle_partials(ABANDONED, Instant::now());
        let victims: Vec<_> = abandoned.into_iter().map(Victim::Partial).collect();
        {
            let _admitted = self.admission();
            self.give_up(&victims)?;
        }
        let repos = self.layout.repos();
        let mut bytes = size_of_folders(&self.layout.blobs()) + own_size(&self.layout.counters());
        for host in self.disk.names(&repos)? {
            bytes += self.tidy_below(&repos.join(&host), &host, "")?;
        }
        self.ledger.lock().set_metadata(bytes);
        Ok(())
    }

    /// Returns the bytes of what stays.
    fn tidy_below(&self, folder: &Path, host: &str, path: &str) -> Result<u64, StoreError> {
        let mut bytes = own_size(folder);
        for name in self.disk.names(folder)? {
            let below = folder.join(&name);
            match name.as_str() {
                "_shared" => bytes += own_size(&below),
                "_links" => bytes += self.tidy_links(&below)?,
                "_tags" => bytes += self.tidy_tags(&below, host, path)?,
                segment => {
                    let path = match path {
                        "" => segment.to_owned(),
                        path => format!("{path}/{segment}"),
                    };
                    bytes += self.tidy_below(&below, host, &path)?;
                }
            }
        }
        Ok(bytes)
    }

    fn tidy_links(&self, folder: &Path) -> Result<u64, StoreError> {
        let mut bytes = own_size(folder);
        for algorithm in Algorithm::ALL {
            let links = folder.join(algorithm.name());
            for name in self.disk.names(&links)? {
                let link = links.join(&name);
                if link.is_dir() {
                    continue;
                }
                let stored = Digest::from_parts(algorithm, &name)
                    .is_ok_and(|digest| self.ledger.lock().has(&digest));
                if !stored && is_older(&link, DANGLING_LINK) {
                    self.disk.remove(&link)?;
                } else {
                    bytes += own_size(&link);
                }
            }
            bytes += own_size(&links);
        }
        Ok(bytes)
    }

    fn tidy_tags(&self, folder: &Path, host: &str, path: &str) -> Result<u64, StoreError> {
        let mut bytes = own_size(folder);
        let place = host.parse::<UpstreamHost>().ok().zip(path.parse::<Repository>().ok());
        for name in self.disk.names(folder)? {
            let file = folder.join(&name);
            if !file.symlink_metadata().is_ok_and(|found| found.is_file()) {
                continue;
            }
            let record = match (&place, name.parse::<Tag>()) {
                (Some((host, repository)), Ok(tag)) => self.tag(host, repository, &tag)?,
                _ => None,
            };
            let stored = record.is_some_and(|record| self.ledger.lock().has(&record.digest));
            if !stored && is_older(&file, DANGLING_TAG) {
                self.disk.remove(&file)?;
            } else {
                bytes += own_size(&file);
            }
        }
        Ok(bytes)
    }
}

/// Whether a use was so short ago that it may belong to a pull that goes on. One in the future
/// counts, because then the clock was moved and nothing is known.
fn recently(last: Timestamp) -> bool {
    let ago = Timestamp::now().duration_since(last);
    Duration::try_from(ago).map_or(true, |ago| ago < RECENT)
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|found| found >= age))
}

fn own_size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| allocated(&metadata))
}

/// What the folders themselves occupy, two levels deep.
fn size_of_folders(root: &Path) -> u64 {
    let below = |folder: &Path| -> Vec<_> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let algorithms = below(root);
    let shards: u64 =
        algorithms.iter().flat_map(|folder| below(folder)).map(|shard| own_size(&shard)).sum();
    own_size(root) + algorithms.iter().map(|folder| own_size(folder)).sum::<u64>() + shards
}
