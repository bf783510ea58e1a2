//! Talking to the API server: as kubectl does, and by plain requests, which cost a hundredth.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use reqwest::{Certificate, Client, StatusCode};
use serde_json::Value;

use super::{
    kubeconfig::{ADMIN, token},
    network::api_server,
};
use crate::{
    process::{self, Output},
    tools,
};

/// The admin's access to the API server.
pub(super) struct Api {
    client: Client,
    folder: std::path::PathBuf,
    kubeconfig: std::path::PathBuf,
}

impl Api {
    pub(super) fn new(folder: &Path, kubeconfig: &Path, ca_pem: &str) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (folder, kubeconfig) = (folder.to_owned(), kubeconfig.to_owned());
        Ok(Self { client: client(ca_pem)?, folder, kubeconfig })
    }

    /// An object or a list by its path; `None` if there is none.
    pub(super) async fn get(&self, path: &str) -> Result<Option<Value>> {
        let url = format!("https://{}{path}", api_server());
        let asked = self.client.get(url).bearer_auth(token(ADMIN)).send().await;
        let answer = asked.with_context(|| format!("asking for {path}"))?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "GET {path}: {status}: {text}");
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// What kubectl says, and how it ends.
    pub(super) async fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        process::output(self.command(arguments)?).await
    }

    /// `kubectl VERB -f` of a manifest.
    pub(super) async fn manifest(&self, arguments: &[&str], yaml: &str) -> Result<Output> {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile_in(&self.folder)?;
        fs::write(file.path(), yaml)?;
        let mut command = self.command(arguments)?;
        command.arg("--filename").arg(file.path());
        process::output(command).await
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = process::command(&tools::built("kubernetes/kubectl")?, &self.folder);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        Ok(command)
    }
}

/// A client that trusts the cluster's authority alone.
pub(super) fn client(ca_pem: &str) -> Result<Client> {
    let authority = Certificate::from_pem(ca_pem.as_bytes())?;
    let builder = Client::builder().tls_certs_only([authority]).no_proxy();
    Ok(builder.timeout(Duration::from_secs(10)).build()?)
}

/// The standard output of a kubectl that had to succeed.
pub(super) fn succeeded(arguments: &[&str], output: Output) -> Result<String> {
    let Output { status, stdout, stderr } = output;
    ensure!(status.success(), "kubectl {}: {status}\n{stdout}{stderr}", arguments.join(" "));
    Ok(stdout)
}
