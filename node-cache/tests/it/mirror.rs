//! `larder-node configure` beside a real server: containerd's files come, go, and survive.

mod colon;
mod exit;
mod foreign;
mod kill;
mod mount;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use larder_e2e::soak::Soak;
use rustix::process::Signal;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::larder::{Larder, NodeConfig, Upstream, eventually, send};

const CORP: &str = "server = \"https://up.test\"\n# nearest\n[host.\"https://corp.test\"]\n";
const DEFAULT: &str = "[host.\"https://default.test\"]\n";
const HOSTS: [&str; 5] = ["corp.test", "certs.test", "new.test", "port.test:5000", "last.test"];

/// A process that was told to end has ended, on a machine that has other things to do. How long it
/// really takes is for `exit.rs`.
const STOPPED: Duration = Duration::from_secs(20);

/// A server, and a `certs.d` that somebody used before.
struct Node {
    larder: Larder,
    certs: PathBuf,
    state: PathBuf,
}

impl Node {
    async fn start() -> Self {
        let upstreams = HOSTS.map(|host| Upstream::new(host).endpoint("http://127.0.0.1:9"));
        let mut larder = Larder::stopped(&NodeConfig::new(upstreams));
        let state = larder.folder().join("state.json");
        larder.flags(&["--mirror-state", state.to_str().unwrap()]);
        larder.start().await;
        let certs = larder.folder().join("certs.d");
        for (path, text) in [
            ("corp.test/hosts.toml", CORP),
            ("certs.test/ca.crt", "pem"),
            ("_default/hosts.toml", DEFAULT),
        ] {
            fs::create_dir_all(certs.join(path).parent().unwrap()).unwrap();
            fs::write(certs.join(path), text).unwrap();
        }
        let node = Self { larder, certs, state };
        node.containerd(2, &node.certs.display().to_string());
        node
    }

    /// Writes containerd's configuration.
    fn containerd(&self, version: u8, config_path: &str) {
        let plugin = if version == 2 { "grpc.v1.cri" } else { "cri.v1.images" };
        let text = format!(
            "version = {version}\n[plugins.\"io.containerd.{plugin}\".registry]\n  \
             config_path = \"{config_path}\"\n"
        );
        fs::write(self.larder.folder().join("containerd.toml"), text).unwrap();
    }

    /// Writes a field of the section `containerd` of our own configuration.
    fn set(&self, field: &str, value: &serde_json::Value) {
        let text = fs::read_to_string(self.larder.config_path()).unwrap();
        let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
        document["containerd"][field] = value.clone();
        self.larder.write_config_text(&format!("{document:#}\n"));
    }

    /// What the state file says.
    fn state(&self) -> serde_json::Value {
        let text = fs::read(&self.state).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn command(&self, command: &str, flags: &[&str]) -> Command {
        let mut process = Command::new(env!("CARGO_BIN_EXE_larder-node"));
        process.arg(command).arg("--certs-dir").arg(&self.certs).args(flags);
        if command == "configure" {
            process
                .arg("--config")
                .arg(self.larder.config_path())
                .arg("--state")
                .arg(&self.state)
                .args(["--instance", "test", "--mirror"])
                .arg(format!("http://{}", self.larder.pull_address()));
        }
        if command == "configure" && !flags.contains(&"--containerd-config") {
            process.arg("--containerd-config").arg(self.larder.folder().join("containerd.toml"));
        }
        process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process.kill_on_drop(true);
        process
    }

    fn configure(&self) -> Child {
        let path = self.larder.folder().join("configure.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        self.command("configure", &[]).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// What the configurators logged.
    fn log(&self) -> String {
        fs::read_to_string(self.larder.folder().join("configure.log")).unwrap_or_default()
    }

    /// Runs a command to its end: its code and what it said.
    async fn run(&self, command: &str, flags: &[&str]) -> (Option<i32>, String) {
        let output = self.command(command, flags).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    fn hosts(&self, folder: &str) -> Vec<String> {
        let text = fs::read_to_string(self.certs.join(folder).join("hosts.toml"));
        hosts_of(&text.unwrap_or_default())
    }

    fn is_mirrored(&self) -> bool {
        let mirror = format!("http://{}", self.larder.pull_address());
        self.hosts("corp.test") == [&mirror, "https://corp.test"]
            && ["new.test", "port.test_5000_", "last.test"]
                .iter()
                .all(|folder| self.hosts(folder) == [&mirror, "https://default.test"])
    }

    async fn report(&self) -> serde_json::Value {
        self.larder.admin("/report").send().await.json()["mirror"].clone()
    }
}

/// The hosts that containerd would ask, in order; panics on what it would not read.
fn hosts_of(text: &str) -> Vec<String> {
    let document: toml_edit::DocumentMut = text.parse().unwrap();
    let hosts = document.get("host").and_then(toml_edit::Item::as_table);
    hosts.map(|hosts| hosts.iter().map(|(name, _)| name.to_owned()).collect()).unwrap_or_default()
}

/// Every file and folder below, with its bytes. What goes while it looks is not there.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut tree = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tree.extend(self::tree(&path));
            tree.insert(path, None);
        } else if let Ok(bytes) = fs::read(&path) {
            tree.insert(path, Some(bytes));
        }
    }
    tree
}

async fn ended(mut child: Child, within: Duration) -> ExitStatus {
    timeout(within, child.wait()).await.expect("the process did not end").unwrap()
}

#[tokio::test]
async fn the_files_come_when_the_cache_answers_and_go_when_the_configurator_does() {
    let node = Node::start().await;
    let before = tree(&node.certs);
    assert_eq!(node.report().await["state"], "Unknown");
    let child = node.configure();
    assert!(eventually(20, async || node.is_mirrored()).await, "{}", node.log());
    assert_eq!(tree(&node.certs.join("certs.test")).len(), 1, "certificates are left alone");
    let told = async || node.report().await["state"] == "Mirrored";
    assert!(eventually(20, told).await, "{}", node.log());
    let report = node.report().await;
    assert_eq!(report["reason"], "ForeignMirror", "{report:#}");
    assert_eq!(report["hosts"].as_array().unwrap().len(), 4, "{report:#}");
    send(&child, Signal::TERM);
    let status = ended(child, STOPPED).await;
    assert_eq!(status.code(), Some(0), "{}", node.log());
    assert_eq!(tree(&node.certs), before);
}

#[tokio::test]
async fn the_files_go_while_the_cache_hangs() {
    let node = Node::start().await;
    let before = tree(&node.certs);
    let child = node.configure();
    assert!(eventually(20, async || node.is_mirrored()).await, "{}", node.log());
    let stopped = Instant::now();
    node.larder.signal(Signal::STOP);
    let gone = eventually(20, async || tree(&node.certs) == before).await;
    let took = stopped.elapsed();
    node.larder.signal(Signal::CONT);
    // 3.0 to 4.0 s on an idle machine.
    assert!(gone && took < Duration::from_secs(8), "{took:?}\n{}", node.log());
    assert!(eventually(20, async || node.is_mirrored()).await, "{}", node.log());
    send(&child, Signal::INT);
    assert_eq!(ended(child, STOPPED).await.code(), Some(0), "{}", node.log());
    assert_eq!(tree(&node.certs), before);
}

#[tokio::test]
async fn upstreams_and_files_are_followed() {
    let node = Node::start().await;
    let child = node.configure();
    assert!(eventually(20, async || node.is_mirrored()).await, "{}", node.log());
    fs::remove_dir_all(node.certs.join("new.test")).unwrap();
    assert!(eventually(20, async || node.is_mirrored()).await, "{}", node.log());
    let upstream = Upstream::new("later.test").endpoint("http://127.0.0.1:9");
    node.larder.write_config(&NodeConfig::new([upstream]));
    let followed = async || {
        node.certs.join("later.test/hosts.toml").exists() && !node.certs.join("new.test").exists()
    };
    assert!(eventually(20, followed).await, "{}", node.log());
    assert_eq!(node.hosts("corp.test"), ["https://corp.test"]);
    send(&child, Signal::TERM);
    assert_eq!(ended(child, STOPPED).await.code(), Some(0), "{}", node.log());
}

#[tokio::test]
async fn once_says_what_it_did_and_ends_with_a_code() {
    let mut node = Node::start().await;
    let before = tree(&node.certs);
    let (code, said) = node.run("configure", &["--dry-run"]).await;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("+[host.\"http://127.0.0.1") && said.contains("@@"), "{said}");
    assert_eq!(tree(&node.certs), before);
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("certs.test: ") && said.contains("wrote "), "{said}");
    assert!(node.is_mirrored());
    let (code, said) = node.run("withdraw", &["--instance", "other"]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(node.is_mirrored());
    let (code, said) = node.run("withdraw", &["--instance", "test"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(tree(&node.certs), before);
    fs::remove_dir_all(node.certs.join("certs.test")).unwrap();
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(0), "{said}");
    node.larder.kill().await;
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("MirrorUnreachable"), "{said}");
    assert_eq!(node.hosts("corp.test"), ["https://corp.test"], "what leads nowhere is taken away");
}

/// A pod's configurator is root without capabilities.
#[tokio::test]
async fn folders_and_files_of_another_user_stop_no_other_registry() {
    let node = Node::start().await;
    let certs = &node.certs;
    let own = |name: &str, mode: u32| {
        std::os::unix::fs::chown(certs.join(name), Some(12345), Some(12345)).unwrap();
        fs::set_permissions(certs.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    // Not configured and not readable; configured and not writable; a file that cannot be copied
    // with its owner.
    fs::create_dir(certs.join("secret.test")).unwrap();
    own("secret.test", 0o700);
    fs::create_dir(certs.join("last.test")).unwrap();
    fs::write(certs.join("last.test/hosts.toml"), DEFAULT).unwrap();
    own("last.test", 0o755);
    own("corp.test/hosts.toml", 0o644);
    let before = tree(certs);
    let bare = async |command: &str, flags: &[&str]| {
        let real = node.command(command, flags);
        let mut process = Command::new("setpriv");
        process.args(["--inh-caps=-all", "--bounding-set=-all"]);
        process.arg(real.as_std().get_program()).args(real.as_std().get_args());
        let output = process.output().await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = bare("configure", &["--once"]).await;
    assert_eq!(code, Some(5), "{said}");
    for (folder, others) in
        [("new.test", "https://default.test"), ("port.test_5000_", "https://default.test")]
    {
        assert_eq!(node.hosts(folder).last().unwrap(), others, "{said}");
        assert_eq!(node.hosts(folder).len(), 2, "{said}");
    }
    assert!(said.contains("last.test: ") && said.contains("corp.test: "), "{said}");
    assert!(
        said.contains("belongs to user 12345") && said.contains("larder-node runs as"),
        "{said}"
    );
    assert_eq!(node.hosts("corp.test"), ["https://corp.test"]);
    let not_read = "secret.test: cannot inspect";
    assert!(said.contains(not_read) && said.contains("if it holds a file of Larder"), "{said}");
    let (code, said) = bare("withdraw", &["--any"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(not_read), "{said}");
    assert_eq!(tree(certs), before, "{said}");
}

/// A drop-in may say what the configuration itself does not.
#[tokio::test]
async fn what_containerd_imports_counts() {
    let node = Node::start().await;
    let folder = node.larder.folder();
    let section = format!(
        "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"{}\"\n",
        node.certs.display()
    );
    let imports = format!("version = 3\nimports = [\"{}/conf.d/*.toml\"]\n", folder.display());
    fs::write(folder.join("containerd.toml"), imports).unwrap();
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(3), "{said}");
    fs::create_dir(folder.join("conf.d")).unwrap();
    fs::write(folder.join("conf.d/larder.toml"), section).unwrap();
    let (code, said) = node.run("configure", &["--once"]).await;
    assert_eq!(code, Some(5), "effective, but for the folder with certificates: {said}");
}
