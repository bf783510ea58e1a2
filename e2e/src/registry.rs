//! A real registry, and what it was asked.

mod access_log;

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

pub use access_log::Request;

use crate::{
    certificates::Certificates,
    cluster::Certificate,
    process::{self, Daemon, eventually},
    tools,
};

/// Which program serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// distribution 3.1.2, the current one.
    Distribution,
    /// docker-registry 2.8.2, Debian's and the world's most deployed.
    DockerRegistry,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Distribution => "distribution 3.1.2",
            Self::DockerRegistry => "docker-registry 2.8.2",
        })
    }
}

/// An upstream registry with storage of its own.
pub struct Registry {
    kind: Kind,
    folder: PathBuf,
    address: SocketAddr,
    daemon: Option<Daemon>,
}

impl Registry {
    /// Starts an empty one on a free port. Answers when this returns.
    pub async fn start(kind: Kind, folder: &Path) -> Result<Self> {
        Self::start_at(kind, folder, free_address()?, None).await
    }

    /// Starts an empty one on an address, with TLS if there is a certificate. Answers when this
    /// returns.
    pub async fn start_at(
        kind: Kind,
        folder: &Path,
        address: SocketAddr,
        certificate: Option<&Certificate>,
    ) -> Result<Self> {
        let tls = certificate.map_or_else(String::new, |Certificate { certificate, key }| {
            format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display())
        });
        fs::create_dir_all(folder.join("storage"))?;
        let mut registry = Self { kind, folder: folder.to_owned(), address, daemon: None };
        registry.configure(&tls)?;
        registry.start_again().await?;
        Ok(registry)
    }

    /// Starts it again with what it has, on `ip` and behind TLS: it shows the server's certificate
    /// and wants to see one of the same authority.
    pub async fn move_behind_tls(&mut self, ip: IpAddr, certificates: &Certificates) -> Result<()> {
        self.stop()?;
        self.address.set_ip(ip);
        let [certificate, key, ca] = ["server.cert", "server.key", "ca.crt"]
            .map(|name| certificates.file(name).display().to_string());
        let tls = format!(", tls: {{certificate: {certificate}, key: {key}, clientcas: [{ca}]}}");
        self.configure(&tls)?;
        self.start_again().await
    }

    /// Starts it again with what it has, at another address, with the same certificate.
    pub async fn move_to(&mut self, address: SocketAddr) -> Result<()> {
        self.stop()?;
        let file = self.folder.join("config.yml");
        let (old, new) = (format!("\"{}\"", self.address), format!("\"{address}\""));
        fs::write(&file, fs::read_to_string(&file)?.replace(&old, &new))?;
        self.address = address;
        self.start_again().await
    }

    fn configure(&self, tls: &str) -> Result<()> {
        let storage = self.folder.join("storage");
        let text = format!(
            "version: 0.1\n\
             log: {{level: error, accesslog: {{disabled: false}}}}\n\
             storage:\n  \
               filesystem: {{rootdirectory: {}}}\n  \
               cache: {{blobdescriptor: inmemory}}\n\
             http: {{addr: \"{}\"{tls}}}\n",
            storage.display(),
            self.address
        );
        Ok(fs::write(self.folder.join("config.yml"), text)?)
    }

    /// Starts it again with what it has; from now on only a user of the file `htpasswd` is answered,
    /// whose one line that is (bcrypt alone is taken).
    pub async fn ask_for_password(&mut self, htpasswd: &str) -> Result<()> {
        self.stop()?;
        let users = self.folder.join("htpasswd");
        fs::write(&users, format!("{htpasswd}\n"))?;
        let file = self.folder.join("config.yml");
        let text = fs::read_to_string(&file)?;
        if !text.contains("htpasswd") {
            let auth =
                format!("auth: {{htpasswd: {{realm: stories, path: {}}}}}\n", users.display());
            fs::write(&file, text + &auth)?;
        }
        self.start_again().await
    }

    /// Starts it again on its port, with what it had.
    pub async fn start_again(&mut self) -> Result<()> {
        let program = match self.kind {
            Kind::Distribution => tools::built("distribution/registry")?,
            Kind::DockerRegistry => tools::debian("docker-registry")?,
        };
        let mut command = process::command(&program, &self.folder);
        // distribution would send its traces to port 4318 of whoever listens there.
        command.args(["serve", "config.yml"]).env("OTEL_TRACES_EXPORTER", "none");
        let errors = self.folder.join("errors.log");
        let mut daemon = Daemon::start("the registry", command, &self.access_log(), &errors)?;
        eventually("the registry listens", Duration::from_secs(10), || {
            daemon.check_running()?;
            Ok(TcpStream::connect(self.address).is_ok())
        })
        .await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Stops it: from now on connections are refused.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.take().context("the registry is stopped already")?.kill()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its repositories lie on disk.
    pub fn repository_folder(&self, repository: &str) -> PathBuf {
        self.folder.join("storage/docker/registry/v2/repositories").join(repository)
    }

    /// What it has answered, once all of that is in its log: it writes a line after the last byte
    /// has left, so a client can be ahead of it.
    pub async fn requests(&self) -> Result<Vec<Request>> {
        let mut before = None;
        loop {
            let text = fs::read_to_string(self.access_log())?;
            if before.as_ref() == Some(&text) {
                return access_log::parse(&text);
            }
            before = Some(text);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Checks that since `earlier` requests every one of `digests` was sent exactly once, and that
    /// no client came past Larder.
    pub async fn sent_once<'a>(
        &self,
        earlier: usize,
        digests: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        let requests = self.requests().await?;
        let requests = requests.get(earlier..).context("requests do not vanish")?;
        for digest in digests {
            let gets: Vec<_> = requests.iter().filter(|request| request.sent(digest)).collect();
            ensure!(gets.len() == 1, "{digest} was sent {} times: {gets:#?}", gets.len());
        }
        let strangers: Vec<_> =
            requests.iter().filter(|request| request.is_from_a_client()).collect();
        ensure!(strangers.is_empty(), "clients went past Larder: {strangers:#?}");
        Ok(())
    }

    fn access_log(&self) -> PathBuf {
        self.folder.join("access.log")
    }
}

/// A port that nobody in this network namespace uses.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("a free port")?;
    Ok(listener.local_addr()?)
}
