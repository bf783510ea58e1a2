//! Programs of a story: daemons that end with it, and tools that run once.

use std::{
    fs::{self, OpenOptions},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often something is asked that offers no event.
pub const POLL: Duration = Duration::from_millis(20);

/// A command with a clean environment and its home in `home`, on a leash: the kernel kills it when
/// the thread that starts it ends, so that even a killed test leaves nothing running.
///
/// Whoever starts it must therefore outlive it: a story's one thread, not a pool's.
pub fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    clean(&mut command, home);
    command
}

/// As [`command`], with mounts of its own and an empty `/run`: whatever it mounts, and what it
/// leaves in `/run`, is gone when it is.
pub fn command_with_own_mounts(program: &Path, home: &Path) -> Command {
    const EMPTY_RUN: &str = r#"mount -t tmpfs none /run && exec "$0" "$@""#;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .args(["unshare", "--mount", "--propagation", "private", "--"])
        .args(["sh", "-c", EMPTY_RUN])
        .arg(program);
    clean(&mut command, home);
    command
}

fn clean(command: &mut Command, home: &Path) {
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("DOCKER_CONFIG", home)
        .env("XDG_RUNTIME_DIR", home)
        .current_dir(home)
        .stdin(Stdio::null());
}

/// A program that runs until it is told to stop. Dropping it kills it.
pub struct Daemon {
    name: String,
    child: Child,
}

impl Daemon {
    /// Starts it with its output appended to files.
    pub fn start(name: &str, mut command: Command, stdout: &Path, stderr: &Path) -> Result<Self> {
        let append = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.with_context(|| format!("opening {}", path.display()))
        };
        command.stdout(append(stdout)?).stderr(append(stderr)?);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `Err` if it has ended, which nobody asked for.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended by itself: {status}", self.name),
            None => Ok(()),
        }
    }

    /// SIGKILL. Returns when it is dead.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and how it ended. One that is still there after `patience` is an error (and is
    /// killed).
    pub async fn terminate(mut self, patience: Duration) -> Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process has an id")?, Signal::TERM)?;
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if asked.elapsed() > patience {
                bail!("{} is still running {patience:?} after SIGTERM", self.name);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails only for a process that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a tool printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a tool to its end, whatever that is. It is killed if the caller stops waiting.
pub async fn output(command: Command) -> Result<Output> {
    let what = describe(&command);
    let mut command = tokio::process::Command::from(command);
    let output =
        command.kill_on_drop(true).output().await.with_context(|| format!("starting {what}"))?;
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a tool that must succeed. Returns its standard output.
pub async fn run(command: Command) -> Result<String> {
    let what = describe(&command);
    let output = output(command).await?;
    if !output.status.success() {
        bail!("{what}: {}\n{}{}", output.status, output.stdout, output.stderr);
    }
    Ok(output.stdout)
}

/// Waits until `ready` says so.
pub async fn eventually(
    what: &str,
    patience: Duration,
    mut ready: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    while !ready()? {
        if started.elapsed() > patience {
            bail!("{what}: not within {patience:?}");
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// The last lines of a log, for a message.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<String> = text.lines().map(shorten).collect();
    let end = all.get(all.len().saturating_sub(lines)..);
    end.unwrap_or_default().join("\n")
}

/// Registries and containerd write lines of a kilobyte, of which the first words count.
fn shorten(line: &str) -> String {
    const SHOWN: usize = 300;
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or(line)),
        None => line.to_owned(),
    }
}

fn describe(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    let shown: Vec<_> = arguments.skip_while(|argument| !argument.starts_with('/')).collect();
    shown.join(" ")
}
