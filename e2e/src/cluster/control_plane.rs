//! etcd, API server, controller manager and scheduler, in the story's own network namespace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    audit,
    kubeconfig::{self, ADMIN, CONTROLLER_MANAGER, SCHEDULER},
    network::{API_SERVICE, CONTROL_PLANE, SERVICES, api_server},
    pki::{self, Authority},
};
use crate::{
    process::{self, Daemon},
    tools,
};

const ETCD: &str = "http://127.0.0.1:2379";
/// The API server takes 4 s on two idle cores.
const PATIENCE: Duration = Duration::from_mins(1);

/// Further arguments, as `--name=value`.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// Of kube-apiserver.
    pub api_server: Vec<String>,
    /// Of kube-controller-manager.
    pub controller_manager: Vec<String>,
}

/// The running control plane.
pub(super) struct ControlPlane {
    folder: PathBuf,
    arguments: Arguments,
    // Dropped in this order: whoever asks goes before the one who is asked.
    scheduler: Option<Daemon>,
    controller_manager: Option<Daemon>,
    api_server: Option<Daemon>,
    etcd: Daemon,
}

impl ControlPlane {
    /// Starts etcd and the API server, which is ready when this returns.
    pub(super) async fn start(
        folder: &Path,
        authority: &Authority,
        arguments: Arguments,
    ) -> Result<Self> {
        fs::create_dir_all(folder)?;
        pki::token_key(folder)?;
        fs::write(folder.join("ca.crt"), authority.pem())?;
        kubeconfig::write_tokens(&folder.join("tokens.csv"))?;
        for user in [ADMIN, CONTROLLER_MANAGER, SCHEDULER] {
            kubeconfig::write(folder, user, authority.pem())?;
        }
        let own = CONTROL_PLANE.to_string();
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
        let addresses = [&own, API_SERVICE, "127.0.0.1"];
        fs::write(folder.join(audit::POLICY_FILE), audit::POLICY)?;
        authority.certify(folder, "api-server", &[&names[..], &addresses[..]].concat())?;

        // Without syncing its log: what it keeps is not meant to outlive the story.
        let mut etcd = process::command(&tools::built("etcd/server")?, folder);
        etcd.args(["--unsafe-no-fsync", "--log-level=warn", "--data-dir=etcd"])
            .arg(format!("--listen-client-urls={ETCD}"))
            .arg(format!("--advertise-client-urls={ETCD}"))
            .arg("--listen-peer-urls=http://127.0.0.1:2380");
        let etcd = start(folder, "etcd", etcd)?;
        let mut plane = Self {
            folder: folder.to_owned(),
            arguments,
            scheduler: None,
            controller_manager: None,
            api_server: None,
            etcd,
        };
        plane.start_api_server().await?;
        Ok(plane)
    }

    /// Starts the API server. It is ready when this returns.
    pub(super) async fn start_api_server(&mut self) -> Result<()> {
        ensure!(self.api_server.is_none(), "the API server runs already");
        let program = tools::built("kubernetes/kube-apiserver")?;
        let mut command = process::command(&program, &self.folder);
        command
            .arg(format!("--etcd-servers={ETCD}"))
            .arg(format!("--advertise-address={CONTROL_PLANE}"))
            .arg(format!("--secure-port={}", api_server().port()))
            .arg(format!("--service-cluster-ip-range={SERVICES}"))
            .args(["--tls-cert-file=api-server.crt", "--tls-private-key-file=api-server.key"])
            .args(["--token-auth-file=tokens.csv", "--authorization-mode=Node,RBAC"])
            .args(["--enable-admission-plugins=NodeRestriction", "--allow-privileged=true"])
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .args([
                "--service-account-key-file=sa.pub",
                "--service-account-signing-key-file=sa.key",
            ])
            .arg("--kubelet-preferred-address-types=InternalIP")
            .arg(format!("--audit-policy-file={}", audit::POLICY_FILE))
            .arg(format!("--audit-log-path={}", audit::LOG_FILE))
            .args(&self.arguments.api_server);
        let mut daemon = start(&self.folder, "kube-apiserver", command)?;
        let client = super::api::client(&fs::read_to_string(self.folder.join("ca.crt"))?)?;
        let started = std::time::Instant::now();
        loop {
            daemon.check_running()?;
            let url = format!("https://{}/readyz", api_server());
            let answer = client.get(url).bearer_auth(kubeconfig::token(ADMIN)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
            ensure!(started.elapsed() < PATIENCE, "the API server is not ready after {PATIENCE:?}");
            tokio::time::sleep(process::POLL).await;
        }
        self.api_server = Some(daemon);
        Ok(())
    }

    /// SIGKILL to the API server: connections are refused from now on.
    pub(super) fn stop_api_server(&mut self) -> Result<()> {
        self.api_server.take().context("the API server is stopped already")?.kill()
    }

    /// Starts what decides: controllers and the scheduler.
    pub(super) fn start_deciders(&mut self) -> Result<()> {
        let program = tools::built("kubernetes/kube-controller-manager")?;
        let mut command: Command = process::command(&program, &self.folder);
        command
            .arg("--kubeconfig=system-kube-controller-manager.kubeconfig")
            .args(["--use-service-account-credentials=true", "--root-ca-file=ca.crt"])
            .args(["--service-account-private-key-file=sa.key", "--leader-elect=false"])
            .arg("--bind-address=127.0.0.1")
            .args(&self.arguments.controller_manager);
        let manager = start(&self.folder, "kube-controller-manager", command)?;
        self.controller_manager = Some(manager);
        let mut command =
            process::command(&tools::built("kubernetes/kube-scheduler")?, &self.folder);
        command
            .args(["--kubeconfig=system-kube-scheduler.kubeconfig", "--leader-elect=false"])
            .arg("--bind-address=127.0.0.1");
        self.scheduler = Some(start(&self.folder, "kube-scheduler", command)?);
        Ok(())
    }

    /// The admin's file, for kubectl and Helm.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.folder.join(format!("{ADMIN}.kubeconfig"))
    }

    /// What Larder has asked the API server for.
    pub(super) fn audited(&self) -> Result<Vec<audit::Request>> {
        audit::read(&self.folder.join(audit::LOG_FILE))
    }

    /// `Err` if a part of it has ended that nobody stopped.
    pub(super) fn check_running(&mut self) -> Result<()> {
        self.etcd.check_running()?;
        let parts = [&mut self.api_server, &mut self.controller_manager, &mut self.scheduler];
        for part in parts {
            part.as_mut().map_or(Ok(()), Daemon::check_running)?;
        }
        Ok(())
    }
}

fn start(folder: &Path, name: &str, command: Command) -> Result<Daemon> {
    let log = folder.join(format!("{name}.log"));
    Daemon::start(name, command, &log, &log)
}
