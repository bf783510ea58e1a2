//! Plain HTTP, in the steps that containerd takes.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, Response, StatusCode};

use crate::{digest::Hashing, image::Image};

/// By which the upstream would know that it came past Larder.
pub const RAW_USER_AGENT: &str = "e2e-raw/1";

const DIGEST: &str = "docker-content-digest";
const ACCEPT: &str =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, */*";

/// A client of the pull API that names the upstream with `?ns=`.
pub struct Raw {
    client: Client,
    server: SocketAddr,
    namespace: String,
}

impl Raw {
    /// Asks `server` for images of `namespace`.
    pub fn new(server: SocketAddr, namespace: &str) -> Result<Self> {
        let client = Client::builder().user_agent(RAW_USER_AGENT).no_proxy().build()?;
        Ok(Self { client, server, namespace: namespace.to_owned() })
    }

    /// The digest that a tag has: what a HEAD says.
    pub async fn resolve(&self, repository: &str, tag: &str) -> Result<String> {
        let answer = self.ask(Method::HEAD, &format!("{repository}/manifests/{tag}")).await?;
        ensure!(
            answer.status() == StatusCode::OK,
            "{repository}:{tag} is answered {}",
            answer.status()
        );
        let digest = answer.headers().get(DIGEST).context("no Docker-Content-Digest")?;
        Ok(digest.to_str()?.to_owned())
    }

    /// Fetches both platforms of an image and hashes every body.
    pub async fn pull(&self, repository: &str, tag: &str, wanted: &Image) -> Result<()> {
        let index = self.resolve(repository, tag).await?;
        ensure!(index == wanted.index.digest, "{repository}:{tag} is {index}");
        self.fetch(&format!("{repository}/manifests/{index}"), &index).await?;
        let manifest = &wanted.manifest.digest;
        self.fetch(&format!("{repository}/manifests/{manifest}"), manifest).await?;
        for blob in wanted.blobs() {
            let path = format!("{repository}/blobs/{}", blob.digest);
            self.fetch(&path, &blob.digest).await?;
        }
        Ok(())
    }

    /// Fetches a manifest by digest and hashes it.
    pub async fn fetch_manifest(&self, repository: &str, digest: &str) -> Result<()> {
        self.fetch(&format!("{repository}/manifests/{digest}"), digest).await
    }

    /// GETs a body and checks that it hashes to `digest`.
    async fn fetch(&self, path: &str, digest: &str) -> Result<()> {
        let mut answer = self.ask(Method::GET, path).await?;
        ensure!(answer.status() == StatusCode::OK, "{path} is answered {}", answer.status());
        let mut hashing = Hashing::new(std::io::sink());
        while let Some(chunk) =
            answer.chunk().await.with_context(|| format!("the body of {path}"))?
        {
            std::io::Write::write_all(&mut hashing, &chunk)?;
        }
        let (_, hash) = hashing.finish();
        ensure!(hash == digest, "{path} has a body of {hash}");
        Ok(())
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Response> {
        let url =
            format!("http://{}/v2/{path}?ns={}", self.server, self.namespace.replace(':', "%3A"));
        let request = self.client.request(method, &url).header("accept", ACCEPT);
        let answer = tokio::time::timeout(Duration::from_mins(1), request.send()).await;
        answer
            .with_context(|| format!("no answer: {url}"))?
            .with_context(|| format!("asking {url}"))
    }
}
