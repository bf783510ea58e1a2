//! What a node is before Kubernetes: its own network, processes and files.
//!
//! One process holds the namespaces. It is the first one of a process namespace, so that when it
//! dies, in whatever way, the kernel ends everything that runs on the node, containers and shims
//! too; with the last process go the mounts and the network. Nothing of it is visible outside.
//!
//! `/etc`, `/var` and `/opt` are overlays, `/run` is memory: everything on the node has its
//! production path, and what is written there lands in the node's folder.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::network;
use crate::process::{self, Daemon, Output, eventually};

/// `$1` is the node's folder. On an overlay itself, containerd could not lay overlays over images;
/// caches and volumes want a real file system under their files.
const SETUP: &str = r#"set -e
mount -t proc proc /proc
for part in etc var opt; do
  mkdir -p "$1/$part" "$1/$part.work"
  mount -t overlay overlay -o "lowerdir=/$part,upperdir=$1/$part,workdir=$1/$part.work" "/$part"
done
mount -t tmpfs -o mode=0755 none /run
for part in containerd kubelet larder; do
  mkdir -p "$1/lib/$part" "/var/lib/$part"
  mount --bind "$1/lib/$part" "/var/lib/$part"
done
rm -rf /etc/containerd /etc/cni /etc/kubernetes
mount --make-rshared /
ip -batch "$1/network"
echo 1 >/proc/sys/net/ipv4/ip_forward
: >"$1/set-up"
sleep infinity &
# The first process of a node has to reap the orphans.
while :; do wait; done
"#;

/// A node's namespaces.
pub(super) struct Machine {
    folder: PathBuf,
    /// `unshare`, which is the parent of the first process inside.
    holder: Daemon,
    /// That process, as it is called outside.
    first: u32,
}

/// A namespace that is held open: the kernel gives the number of one that is gone to the next.
pub(super) struct Namespace {
    kind: &'static str,
    inode: u64,
    _open: File,
}

impl Machine {
    /// Makes one and connects it.
    pub(super) async fn start(folder: &Path, number: u8) -> Result<Self> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("network"), network::inside(number))?;
        // Waits for the cable before it goes on: its end must be named when the script looks.
        let script = format!("while ! [ -e \"$1/plugged\" ]; do sleep 0.02; done\n{SETUP}");
        let mut command = process::command(Path::new("unshare"), folder);
        command
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
            .args(["--propagation", "private", "--", "bash", "-c", &script, "node"])
            .arg(folder);
        let log = folder.join("machine.log");
        let mut holder = Daemon::start("a node's first process", command, &log, &log)?;
        let pid = holder.pid();
        let mut first = None;
        eventually("a node's namespaces (is this root?)", Duration::from_secs(10), || {
            holder.check_running()?;
            first = only_child(pid);
            Ok(first.is_some())
        })
        .await?;
        let first = first.context("a node has a first process")?;
        network::plug(folder, number, first).await?;
        fs::write(folder.join("plugged"), "")?;
        eventually("a node is set up", Duration::from_secs(10), || {
            let ended = holder.check_running();
            ended.with_context(|| process::tail(&log, 10))?;
            Ok(folder.join("set-up").exists())
        })
        .await?;
        Ok(Self { folder: folder.to_owned(), holder, first })
    }

    /// A program on the node. The command ends with the story, and the program with it.
    pub(super) fn command(&self, program: &Path) -> Command {
        let holder = self.holder.pid();
        let mut command = process::command(Path::new("nsenter"), &self.folder);
        command
            .arg(format!("--net=/proc/{holder}/ns/net"))
            .arg(format!("--mount=/proc/{holder}/ns/mnt"))
            .arg(format!("--pid=/proc/{holder}/ns/pid_for_children"))
            .arg("--wdns=/")
            // nsenter starts a child, as one cannot move between process namespaces.
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--"])
            .arg(program);
        command
    }

    /// Runs a program on the node to its end.
    pub(super) async fn output(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(Path::new(program));
        command.args(arguments);
        process::output(command).await
    }

    /// Writes a file of the node, in place if it is there.
    pub(super) fn write(&self, path: &str, text: &str) -> Result<()> {
        let seen = self.seen(Path::new(path));
        fs::create_dir_all(seen.parent().unwrap_or(&seen))?;
        fs::write(&seen, text).with_context(|| format!("writing {path} on the node"))
    }

    /// Where a path of the node is for the test.
    pub(super) fn seen(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.first));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Ends everything on it. When this returns, nobody is left in its namespaces.
    pub(super) async fn end(self) -> Result<()> {
        let namespaces = self.namespaces()?;
        self.holder.kill()?;
        eventually("all processes of a node are gone", Duration::from_secs(20), || {
            Ok(inhabitants(&namespaces)?.is_empty())
        })
        .await
    }

    fn namespaces(&self) -> Result<Vec<Namespace>> {
        let namespace = |kind| -> Result<Namespace> {
            let link = format!("/proc/{}/ns/{kind}", self.first);
            let open = File::open(&link).with_context(|| format!("opening {link}"))?;
            Ok(Namespace { kind, inode: open.metadata()?.ino(), _open: open })
        };
        ["net", "mnt", "pid"].into_iter().map(namespace).collect()
    }
}

/// The processes that live in one of the namespaces.
fn inhabitants(namespaces: &[Namespace]) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("listing processes")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let lives = |namespace: &Namespace| {
            let link = fs::metadata(entry.path().join("ns").join(namespace.kind));
            link.is_ok_and(|link| link.ino() == namespace.inode)
        };
        if namespaces.iter().any(lives) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The program that `nsenter` or `unshare` has started.
pub(super) fn only_child(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
