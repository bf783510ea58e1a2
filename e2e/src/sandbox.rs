//! A place of its own for each story.
//!
//! A story runs on one thread that has moved into a fresh network namespace with nothing but
//! loopback: no packet can leave the machine (a containerd whose mirror fails would ask real DNS
//! servers for the registry), and every port is free. What the thread starts, other threads and
//! processes, is born into that namespace; it is gone with the last of them.

use std::{
    any::Any,
    env, fmt,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Command, Stdio, id as own_pid},
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::{
    process::{self, tail},
    soak::Soak,
};

/// A story that is not over by then hangs.
const PATIENCE: Duration = Duration::from_mins(5);
/// The same for one that `make soak` tells many times over.
const SOAK_PATIENCE: Duration = Duration::from_hours(3);

/// Of the folders, before the id of the process that tells.
const PREFIX: &str = "larder-e2e-";
/// The variable that keeps the folder of a failed story.
const KEEP: &str = "LARDER_KEEP";

/// What one story has to itself.
pub struct Sandbox {
    folder: TempDir,
}

impl Sandbox {
    /// A new folder in the story's temporary folder.
    ///
    /// Short paths: a Unix socket's may have 107 bytes.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    /// Gives the story's network [`ELSEWHERE`] as a second address.
    pub async fn has_an_address_elsewhere(&self) -> Result<()> {
        let mut command = process::command(Path::new("ip"), self.folder.path());
        command.args(["address", "add", &format!("{ELSEWHERE}/32"), "dev", "lo"]);
        process::run(command).await?;
        Ok(())
    }
}

/// From the block for documentation, so nobody's: an address that programs do not take for this
/// machine's loopback, where other rules hold (containerd tries plain HTTP there).
pub const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// How a story ends. An error is printed as it is: stories fail by what they saw, not by where they
/// are in the program.
pub type Told = Result<(), Failure>;

/// What went wrong, and the ends of all logs of the story.
pub struct Failure(String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells a story in a sandbox.
///
/// The temporary folder is removed afterwards, unless it failed and `LARDER_KEEP` is set.
pub fn story<F>(tell: F) -> Told
where
    F: AsyncFnOnce(&Sandbox) -> Result<()> + Send,
{
    story_of(if Soak::is_full() { SOAK_PATIENCE } else { PATIENCE }, tell)
}

/// As [`story`], for one that may take another time.
pub(crate) fn story_of<F>(patience: Duration, tell: F) -> Told
where
    F: AsyncFnOnce(&Sandbox) -> Result<()> + Send,
{
    let _turn = Turn::take();
    let name = thread::current().name().unwrap_or("story").to_owned();
    thread::scope(|scope| {
        let teller =
            thread::Builder::new().name(name).spawn_scoped(scope, || tell_alone(patience, tell))?;
        teller.join().map_err(|panic| anyhow!("{}", message(&*panic)))?
    })
    .map_err(|error: anyhow::Error| Failure(format!("{error:#}")))
}

fn tell_alone<F>(patience: Duration, tell: F) -> Result<()>
where
    F: AsyncFnOnce(&Sandbox) -> Result<()>,
{
    enter_own_network().context("a network namespace of its own")?;
    let folder = tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", own_pid())).tempdir()?;
    let mut sandbox = Sandbox { folder };
    // One thread only: processes are tied to the thread that starts them (process::command).
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let told = tokio::time::timeout(patience, tell(&sandbox)).await;
            told.unwrap_or_else(|_| Err(anyhow!("the story hangs: not over after {patience:?}")))
        })
    }));
    let told = told.unwrap_or_else(|panic| Err(anyhow!("{}", message(&*panic))));
    told.map_err(|error| {
        let logs = logs(sandbox.folder.path());
        sandbox.folder.disable_cleanup(env::var_os(KEEP).is_some());
        anyhow!("{error:#}\n{logs}")
    })
}

/// Removes the folders of stories that were killed. Not those that somebody wants to keep.
pub(crate) fn sweep() {
    if env::var_os(KEEP).is_some() {
        return;
    }
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let teller = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        if teller.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
            // safe to ignore: the next one tries again
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The ends of the `*.log` files in the folders of a sandbox.
fn logs(folder: &Path) -> String {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let files = entries(folder).into_iter().flat_map(|part| entries(&part));
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let ends: Vec<_> =
        logs.map(|path| format!("--- {}\n{}", path.display(), tail(&path, 30))).collect();
    ends.join("\n")
}

pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "panicked",
    }
}

/// Moves the calling thread into a network namespace with only loopback.
///
/// A helper process makes it; the thread joins and lets the helper go. (`unshare` on the thread
/// itself is an unsafe call in rustix.)
fn enter_own_network() -> Result<()> {
    let mut helper = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && echo up && read -r _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting unshare")?;
    let joined = (|| {
        let mut answer = String::new();
        let stdout = helper.stdout.take().context("stdout is piped")?;
        BufReader::new(stdout).read_line(&mut answer)?;
        ensure!(answer == "up\n", "no namespace (is this root? end-to-end stories need it)");
        let namespace = File::open(format!("/proc/{}/ns/net", helper.id()))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    })();
    drop(helper.stdin.take());
    helper.wait()?;
    joined
}

/// The right to tell a story now. Many cores would otherwise start dozens of containerds at once.
struct Turn;

const AT_ONCE: usize = 4;
static TELLING: Mutex<usize> = Mutex::new(0);
static DONE: Condvar = Condvar::new();

impl Turn {
    fn take() -> Self {
        let telling = TELLING.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = DONE.wait_while(telling, |telling| *telling >= AT_ONCE);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TELLING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        DONE.notify_one();
    }
}
