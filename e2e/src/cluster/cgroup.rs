//! A node's cgroups: its kubelet keeps the pods of all others' for orphans, and ends them.
//!
//! Everything is named after the process that made it, so that the next one can tell what a killed
//! one has left.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

const HIERARCHIES: &str = "/sys/fs/cgroup";
const PREFIX: &str = "larder-e2e-";
/// How long the kernel may take to count the dead of a node out.
const PATIENCE: Duration = Duration::from_secs(10);

/// One cgroup of that name in every v1 hierarchy (or in the one of v2). Removed with all below it
/// when this is dropped.
#[derive(Debug)]
pub(super) struct Cgroup {
    name: String,
}

impl Cgroup {
    /// Makes it, after all that dead processes have left.
    pub(super) fn new(node: &str) -> Result<Self> {
        sweep()?;
        let cgroup = Self { name: format!("{PREFIX}{}-{node}", process::id()) };
        for hierarchy in hierarchies()? {
            let path = hierarchy.join(&cgroup.name);
            if let Err(error) = fs::create_dir(&path)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(error).with_context(|| format!("creating {}", path.display()));
            }
            // A new cpuset is empty, and nothing can run in an empty one.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(allowed) = fs::read_to_string(hierarchy.join(file)) {
                    fs::write(path.join(file), allowed)
                        .with_context(|| format!("writing {file} of {}", path.display()))?;
                }
            }
        }
        Ok(cgroup)
    }

    /// As the kubelet is told.
    pub(super) fn root(&self) -> String {
        format!("/{}", self.name)
    }

    /// Removes it with all below it, once nothing runs there any more.
    pub(super) fn remove(&self) -> Result<()> {
        remove(&self.name)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Whoever wants to know calls `remove`; the next boot tries again.
        let _ = self.remove();
    }
}

/// Those of this process that are still there.
pub(super) fn left() -> Result<Vec<PathBuf>> {
    let ours = format!("{PREFIX}{}-", process::id());
    let mut left = Vec::new();
    for hierarchy in hierarchies()? {
        let below = fs::read_dir(&hierarchy).into_iter().flatten().flatten();
        let named = below.filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours));
        left.extend(named.map(|entry| entry.path()));
    }
    Ok(left)
}

/// Removes what processes have left that are gone.
fn sweep() -> Result<()> {
    for hierarchy in hierarchies()? {
        for entry in fs::read_dir(&hierarchy).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            if maker.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                remove(&name)?;
            }
        }
    }
    Ok(())
}

fn remove(name: &str) -> Result<()> {
    let asked = Instant::now();
    for hierarchy in hierarchies()? {
        let path = hierarchy.join(name);
        while let Err(error) = remove_below(&path) {
            if asked.elapsed() > PATIENCE {
                bail!("removing {}: {error}", path.display());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Depth first. The files of a cgroup vanish with it and cannot be removed.
fn remove_below(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// The mount points of all hierarchies: below one tmpfs in v1, that itself in v2.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(HIERARCHIES);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = fs::read_dir(root).with_context(|| format!("listing {HIERARCHIES}"))?;
    let folders = entries.flatten().filter(|entry| {
        // `cpu,cpuacct` has links from both of its names.
        entry.file_type().is_ok_and(|kind| kind.is_dir())
    });
    Ok(folders.map(|entry| entry.path()).collect())
}
