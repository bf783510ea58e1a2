//! A node: a machine with containerd, kubelet and kube-proxy, each of which can go on its own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    cgroup::Cgroup,
    kubeconfig::{self, PROXY, node_user},
    kubelet,
    machine::{Machine, only_child},
    network, runtime, trust,
};
use crate::{
    containerd::Version,
    process::{self, Daemon, Output, eventually},
    snapshot::Snapshot,
    tools,
};

const SOCKET: &str = "/run/containerd/containerd.sock";
const CERTS_DIR: &str = "/etc/containerd/certs.d";
/// How long a program may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);

/// What can be stopped on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Containerd,
    Kubelet,
}

/// A node of a cluster.
pub struct Node {
    name: String,
    number: u8,
    version: Version,
    folder: PathBuf,
    // Dropped in this order: programs, namespaces, cgroups.
    containerd: Option<Daemon>,
    kubelet: Option<Daemon>,
    proxy: Option<Daemon>,
    machine: Machine,
    cgroup: Cgroup,
}

impl Node {
    /// Starts the node of that number (`n1`, `n2`, ...), whose containerd answers when this
    /// returns. Its kubelet is not started yet: it wants the API server.
    pub(super) async fn start(
        folder: &Path,
        number: u8,
        version: Version,
        cluster_ca: &str,
        trusted_ca: &str,
    ) -> Result<Self> {
        let name = format!("n{number}");
        let cgroup = Cgroup::new(&name)?;
        let machine = Machine::start(folder, number).await?;
        let kubelet = kubelet::configuration(&cgroup.root()).to_string();
        let files = [
            ("/etc/hosts", trust::hosts(number, &name)),
            ("/etc/resolv.conf", trust::RESOLVER.to_owned()),
            ("/etc/ssl/certs/ca-certificates.crt", trust::certificates(trusted_ca)?),
            ("/etc/containerd/config.toml", runtime::configuration(version)),
            (&runtime::own_registry_file(), runtime::own_registry()),
            ("/etc/cni/net.d/10-pods.conflist", kubelet::pods(number).to_string()),
            ("/etc/kubernetes/kubelet.yaml", kubelet),
            ("/etc/kubernetes/proxy.yaml", kubelet::proxy(&name).to_string()),
            ("/etc/kubernetes/kubelet.kubeconfig", kubeconfig::text(&node_user(&name), cluster_ca)),
            ("/etc/kubernetes/proxy.kubeconfig", kubeconfig::text(PROXY, cluster_ca)),
        ];
        for (path, text) in files {
            machine.write(path, &text)?;
        }
        let mut node = Self {
            name,
            number,
            version,
            folder: folder.to_owned(),
            containerd: None,
            kubelet: None,
            proxy: None,
            machine,
            cgroup,
        };
        node.start_containerd().await?;
        Ok(node)
    }

    /// `n1`, `n2`, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// Its containerd.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Runs a program on the node to its end, whatever that is.
    pub async fn exec(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        self.machine.output(program, arguments).await
    }

    /// Where a path of the node is for the test, which is outside.
    pub fn seen(&self, path: &str) -> PathBuf {
        self.machine.seen(Path::new(path))
    }

    /// What lies in the node's `/etc/containerd/certs.d` now: names, modes, owners and bytes.
    pub fn certs_dir(&self) -> Result<Snapshot> {
        self.snapshot(CERTS_DIR)
    }

    /// The same of any folder of the node.
    pub fn snapshot(&self, folder: &str) -> Result<Snapshot> {
        Snapshot::of(&self.seen(folder))
    }

    /// Removes an image from containerd, as the kubelet's garbage collection does.
    pub async fn remove_image(&self, image: &str) -> Result<()> {
        self.cri(&["remove", image]).await?;
        Ok(())
    }

    /// Pulls an image through the CRI, without the kubelet.
    pub async fn pull(&self, image: &str) -> Result<()> {
        self.cri(&["pull", "--timeout", "120s", image]).await?;
        Ok(())
    }

    /// SIGKILL to every program on the node whose command line contains that. Returns how many.
    pub async fn kill_all(&self, command: &str) -> Result<usize> {
        let mut pids = Vec::new();
        for entry in fs::read_dir(self.seen("/proc"))?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            // One that has ended meanwhile has none.
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).replace('\0', " ").contains(command) {
                pids.push(pid.to_string());
            }
        }
        let pids: Vec<_> = pids.iter().map(String::as_str).collect();
        if pids.is_empty() {
            return Ok(0);
        }
        self.exec("kill", &[&["-KILL"], &pids[..]].concat()).await?;
        Ok(pids.len())
    }

    /// Starts containerd. It answers when this returns.
    pub async fn start_containerd(&mut self) -> Result<()> {
        ensure!(self.containerd.is_none(), "containerd of {} runs already", self.name);
        let programs = runtime::programs(self.version)?;
        let mut command = self.machine.command(&programs.join("containerd"));
        command.args(["--config", "/etc/containerd/config.toml"]).env("PATH", path(&programs));
        let log = self.folder.join("containerd.log");
        let mut daemon = Daemon::start("containerd", command, &log, &log)?;
        let socket = self.seen(SOCKET);
        eventually("containerd has a socket", PATIENCE, || {
            daemon.check_running()?;
            Ok(socket.exists())
        })
        .await?;
        self.containerd = Some(daemon);
        self.cri(&["wait", "--timeout", "20s"]).await?;
        Ok(())
    }

    /// Starts the kubelet and, the first time, kube-proxy.
    pub fn start_kubelet(&mut self) -> Result<()> {
        ensure!(self.kubelet.is_none(), "the kubelet of {} runs already", self.name);
        let mut command = self.machine.command(&tools::built("kubernetes/kubelet")?);
        command
            .args(["--config", "/etc/kubernetes/kubelet.yaml"])
            .args(["--kubeconfig", "/etc/kubernetes/kubelet.kubeconfig"])
            .args(["--hostname-override", &self.name])
            .args(["--node-ip", &network::node_address(self.number).to_string()]);
        let log = self.folder.join("kubelet.log");
        self.kubelet = Some(Daemon::start("the kubelet", command, &log, &log)?);
        if self.proxy.is_none() {
            let mut command = self.machine.command(&tools::built("kubernetes/kube-proxy")?);
            command.args(["--config", "/etc/kubernetes/proxy.yaml"]);
            let log = self.folder.join("kube-proxy.log");
            self.proxy = Some(Daemon::start("kube-proxy", command, &log, &log)?);
        }
        Ok(())
    }

    /// SIGTERM to containerd, and its end. Pods run on.
    pub async fn stop_containerd(&mut self) -> Result<()> {
        self.stop(Part::Containerd, Signal::TERM).await
    }

    /// Stops containerd and starts it again.
    pub async fn restart_containerd(&mut self) -> Result<()> {
        self.stop_containerd().await?;
        self.start_containerd().await
    }

    /// SIGKILL to containerd, which is then started again.
    pub async fn crash_containerd(&mut self) -> Result<()> {
        self.stop(Part::Containerd, Signal::KILL).await?;
        self.start_containerd().await
    }

    /// SIGTERM to the kubelet, and its end. Pods run on.
    pub async fn stop_kubelet(&mut self) -> Result<()> {
        self.stop(Part::Kubelet, Signal::TERM).await
    }

    /// Stops the kubelet and starts it again.
    pub async fn restart_kubelet(&mut self) -> Result<()> {
        self.stop_kubelet().await?;
        self.start_kubelet()
    }

    /// Pulls the node's cable: neither the API server nor an upstream is reached, and nobody
    /// reaches the node.
    pub async fn disconnect(&self) -> Result<()> {
        network::set_cable(&self.folder, self.number, false).await
    }

    /// Plugs it in again.
    pub async fn connect(&self) -> Result<()> {
        network::set_cable(&self.folder, self.number, true).await
    }

    /// `Err` if a part of it has ended that nobody stopped.
    pub(super) fn check_running(&mut self) -> Result<()> {
        for daemon in [&mut self.containerd, &mut self.kubelet, &mut self.proxy] {
            daemon.as_mut().map_or(Ok(()), Daemon::check_running)?;
        }
        Ok(())
    }

    /// Ends everything that runs on it and removes its cgroups. An error if a process stays.
    pub(super) async fn end(self) -> Result<()> {
        // The programs first: the messages of those that lose containerd help nobody.
        drop((self.kubelet, self.proxy, self.containerd));
        self.machine.end().await?;
        self.cgroup.remove()
    }

    async fn stop(&mut self, part: Part, signal: Signal) -> Result<()> {
        let daemon = match part {
            Part::Containerd => &mut self.containerd,
            Part::Kubelet => &mut self.kubelet,
        };
        let mut daemon = daemon.take().with_context(|| format!("{part:?} is stopped already"))?;
        // The daemon is nsenter, which waits for the program.
        let program = only_child(daemon.pid()).and_then(|pid| i32::try_from(pid).ok());
        let Some(program) = program.and_then(Pid::from_raw) else {
            bail!("{part:?} has ended by itself");
        };
        kill_process(program, signal)?;
        eventually("a stopped program ends", PATIENCE, || Ok(daemon.check_running().is_err())).await
    }

    async fn cri(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.machine.command(&tools::built("cri/larder-cri")?);
        command.args(arguments).args(["--socket", SOCKET]);
        process::run(command).await.with_context(|| format!("on {}", self.name))
    }
}

fn path(programs: &Path) -> String {
    format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", programs.display())
}
