//! A memory cgroup of our own, of version 1 or 2. Needs root.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";

/// Removed when dropped; whoever was in it must have ended.
#[derive(Debug)]
pub struct MemoryCgroup {
    folder: PathBuf,
    is_v2: bool,
}

impl MemoryCgroup {
    pub fn with_limit(bytes: u64) -> Self {
        let is_v2 = Path::new(V2).join("cgroup.controllers").exists();
        let parent = if is_v2 { V2 } else { V1 };
        if is_v2 {
            // Refused if it is on already and in use.
            let _ = fs::write(Path::new(V2).join("cgroup.subtree_control"), "+memory");
        }
        let folder = Path::new(parent).join(format!("larder-load-{}", std::process::id()));
        fs::create_dir(&folder)
            .unwrap_or_else(|error| panic!("{}, as root: {error}", folder.display()));
        let group = Self { folder, is_v2 };
        let limit = if is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(group.folder.join(limit), bytes.to_string()).unwrap();
        if !is_v2 {
            // Version 1 counts socket buffers only where they have a limit, and apart.
            fs::write(group.folder.join("memory.kmem.tcp.limit_in_bytes"), "4294967296").unwrap();
        }
        group
    }

    /// The words that start a program inside, for [`crate::larder::Larder::through`].
    pub fn launcher(&self) -> [String; 4] {
        let enter = r#"echo $$ >"$0" && exec "$@""#.to_owned();
        let procs = self.folder.join("cgroup.procs").to_str().unwrap().to_owned();
        ["sh".to_owned(), "-c".to_owned(), enter, procs]
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap()
    }

    fn counter(&self, file: &str, key: &str) -> u64 {
        let text = self.read(file);
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {key} in {file}: {text}")).trim().parse().unwrap()
    }

    /// Processes that the kernel killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
        self.counter(file, "oom_kill")
    }

    /// Memory of socket buffers in bytes.
    pub fn sockets(&self) -> u64 {
        if self.is_v2 {
            return self.counter("memory.stat", "sock");
        }
        self.read("memory.kmem.tcp.usage_in_bytes").trim().parse().unwrap()
    }

    /// Memory in use in bytes, the page cache included.
    pub fn usage(&self) -> u64 {
        let file = if self.is_v2 { "memory.current" } else { "memory.usage_in_bytes" };
        self.read(file).trim().parse().unwrap()
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // A killed process leaves its cgroup a moment after it was waited for.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} could not be removed", self.folder.display());
    }
}
