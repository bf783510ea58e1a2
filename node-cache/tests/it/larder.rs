//! The server under test: `larder-node serve` as a process on a temporary folder.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use larder_e2e::disk::Mounts;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

mod answer;
mod call;
mod config;
mod log;
mod metrics;
mod store;

pub use answer::{Answer, End};
pub use call::Call;
pub use config::{NodeConfig, Upstream};
pub use log::Log;
pub use metrics::Metrics;
pub use store::{Store, files_below};

/// How long the server may take until it serves.
const START: Duration = Duration::from_secs(20);

/// A server with its folder. The folder, the configuration and the log outlive the process.
#[derive(Debug)]
pub struct Larder {
    folder: TempDir,
    launcher: Vec<String>,
    child: Option<Child>,
    pull: SocketAddr,
    admin: SocketAddr,
    log: Log,
    mounts: Option<Mounts>,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
}

/// Why a server did not start.
#[derive(Debug)]
pub struct StartFailed {
    pub status: Option<ExitStatus>,
    pub log: String,
}

impl Larder {
    /// Starts a server with these upstreams and waits until it serves.
    pub async fn serving(upstreams: impl IntoIterator<Item = Upstream>) -> Self {
        Self::with(NodeConfig::new(upstreams)).await
    }

    /// Starts a server with this configuration and waits until it serves.
    pub async fn with(config: NodeConfig) -> Self {
        let mut larder = Self::stopped(&config);
        larder.start().await;
        larder
    }

    /// A folder with a configuration, and no process yet.
    pub fn stopped(config: &NodeConfig) -> Self {
        let folder = tempfile::Builder::new().prefix("larder-it-").tempdir().unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let larder = Self {
            folder,
            launcher: Vec::new(),
            child: None,
            pull: nowhere,
            admin: nowhere,
            log: Log::default(),
            mounts: None,
            flags: Vec::new(),
            environment: Vec::new(),
        };
        larder.write_config(config);
        larder
    }

    /// From the next start on, the process sees the disk that is mounted there.
    pub fn on(&mut self, mounts: Mounts) {
        self.mounts = Some(mounts);
    }

    /// From the next start on, the process has this variable.
    pub fn set(&mut self, variable: &str, value: &str) {
        self.environment.push((variable.to_owned(), value.to_owned()));
    }

    /// Starts the process through another program that takes its command line and `exec`s it.
    #[allow(dead_code, reason = "for tests/it/load.rs")]
    pub fn through(mut self, launcher: &[&str]) -> Self {
        self.launcher = launcher.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts the process; panics if it does not come up.
    pub async fn start(&mut self) {
        if let Err(failed) = self.try_start().await {
            panic!("larder-node did not start ({:?}):\n{}", failed.status, failed.log);
        }
    }

    /// Starts the process and waits until it serves or ends.
    pub async fn try_start(&mut self) -> Result<(), StartFailed> {
        assert!(self.child.is_none(), "already running");
        self.log.begin();
        let mut child = self.spawn();
        self.log.follow(child.stderr.take().unwrap());
        let serving = async {
            loop {
                if let Some(addresses) = self.log.serving() {
                    return Ok(addresses);
                }
                if let Some(status) = child.try_wait().unwrap() {
                    sleep(Duration::from_millis(100)).await;
                    return Err(Some(status));
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        match timeout(START, serving).await {
            Ok(Ok((pull, admin))) => {
                (self.pull, self.admin, self.child) = (pull, admin, Some(child));
                Ok(())
            }
            Ok(Err(status)) => Err(StartFailed { status, log: self.log.text() }),
            Err(_) => Err(StartFailed { status: None, log: self.log.text() }),
        }
    }

    /// Flags of every `serve` that is started from now on.
    pub fn flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(ToString::to_string).collect();
    }

    fn spawn(&self) -> Child {
        // Another binary with the same contract, for trying out the tests themselves.
        let binary = std::env::var_os("LARDER_TEST_BINARY")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_larder-node").into());
        let mut command = match (self.mounts, self.launcher.split_first()) {
            (Some(mounts), _) => mounts.command(Path::new(&binary), self.folder()).into(),
            (None, None) => Command::new(binary),
            (None, Some((program, arguments))) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
        };
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--log", "json", "--instance", "test", "--config"])
            .arg(self.config_path())
            .args(&self.flags)
            .envs(self.environment.iter().map(|(variable, value)| (variable, value)))
            .env("RUST_LOG", "info,larder_node=debug,larder_node_cache=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for proxy in ["http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(proxy).env_remove(proxy.to_uppercase());
        }
        command.spawn().unwrap()
    }

    /// `kill -9`, and waits until the process is gone.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// The id of the process; panics if it has ended by itself.
    #[allow(dead_code, reason = "for tests/it/load.rs")]
    pub fn id(&mut self) -> u32 {
        let child = self.child.as_mut().unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            panic!("larder-node has ended by itself: {status}");
        }
        child.id().unwrap()
    }

    /// Sends SIGTERM and does not wait.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends any signal.
    pub fn signal(&self, signal: Signal) {
        send(self.child.as_ref().unwrap(), signal);
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        match timeout(Duration::from_mins(1), child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(late) => panic!("the process did not end within a minute: {late}"),
        }
    }

    /// SIGTERM, waits, starts again.
    pub async fn restart(&mut self) {
        self.terminate();
        self.ended().await;
        self.start().await;
    }

    pub fn get(&self, path: &str) -> Call {
        Call::new(self.pull, "GET", path)
    }

    pub fn head(&self, path: &str) -> Call {
        Call::new(self.pull, "HEAD", path)
    }

    pub fn call(&self, method: &str, path: &str) -> Call {
        Call::new(self.pull, method, path)
    }

    /// Sends these very bytes to the pull port.
    pub async fn raw(&self, bytes: &[u8]) -> Answer {
        Call::raw(self.pull, bytes).send().await
    }

    /// `GET` at the admin port.
    pub fn admin(&self, path: &str) -> Call {
        Call::new(self.admin, "GET", path)
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin("/metrics").send().await.text())
    }

    pub fn pull_address(&self) -> SocketAddr {
        self.pull
    }

    /// The folder that holds the store, the configuration and nothing else.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data folder as the test sees it.
    pub fn store_path(&self) -> PathBuf {
        let path = self.folder().join("store");
        self.mounts.map_or(path.clone(), |mounts| mounts.seen(&path))
    }

    pub fn store(&self) -> Store {
        Store::at(self.store_path())
    }

    pub fn config_path(&self) -> PathBuf {
        self.folder().join("config/node.yaml")
    }

    /// Writes the configuration and the files that it names, atomically.
    pub fn write_config(&self, config: &NodeConfig) {
        let folder = self.folder().join("config");
        std::fs::create_dir_all(&folder).unwrap();
        for (name, content) in config.files() {
            std::fs::write(folder.join(name), content).unwrap();
        }
        self.write_config_text(&config.text(&self.folder().join("store")));
    }

    /// Replaces the configuration by any text, atomically.
    pub fn write_config_text(&self, text: &str) {
        let next = self.folder().join("config/.next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.config_path()).unwrap();
    }

    pub fn log(&self) -> &Log {
        &self.log
    }
}

/// Sends a signal to a process that was not waited for.
pub fn send(child: &Child, signal: Signal) {
    let id = child.id().unwrap();
    let id = rustix::process::Pid::from_raw(id.cast_signed()).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}

impl Drop for Larder {
    fn drop(&mut self) {
        // Dead before its folder is removed: what it still writes would keep the folder.
        if let Some(mut child) = self.child.take() {
            let _ = child.start_kill();
            for _ in 0..400 {
                if !matches!(child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if std::thread::panicking() {
            eprintln!("--- the end of the server's log ---\n{}", self.log.tail(60));
        }
    }
}

/// Waits until `holds`, at most `seconds`.
pub async fn eventually(seconds: u64, holds: impl AsyncFn() -> bool) -> bool {
    let holding = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(seconds), holding).await.is_ok()
}
