//! The OCI conformance suite, read-only, through Larder in front of distribution 3.1.2.
//!
//! The suite first fills distribution itself, in the way it likes; then it is told what is there
//! and asks Larder for all of it. It is judged by the counts that it prints: in read-only mode it
//! always ends with a Go panic after them (it has no data for its range test), and with success if
//! its own configuration is unreadable.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use larder_e2e::{
    larder::{Larder, Upstream},
    process,
    registry::{Kind, Registry},
    sandbox::{Sandbox, Told, story},
    tools,
};
use reqwest::{Client, Method, StatusCode};

/// No port: the suite names it in the path.
const HOST: &str = "conformance.test";
const REPOSITORY: &str = "conformance/repo1";
/// What a good registry reaches; distribution as a proxy of itself reaches 91 of these.
const AT_LEAST: usize = 93;
const DIGEST: &str = "docker-content-digest";
/// distribution hides OCI manifests from whoever says only `*/*`.
const ACCEPT: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";

#[test]
fn the_conformance_suite_finds_nothing_wrong_with_version_1_1() -> Told {
    story(async |sandbox| {
        let stage = Stage::set(sandbox).await?;
        stage.run(sandbox, "1.1").await
    })
}

/// The coming version makes the digest header of manifests mandatory, but the suite looks for it
/// where a read-only run has nothing (distribution, which sends it, fails as well): that check is
/// switched off there and made here.
#[test]
fn the_conformance_suite_finds_nothing_wrong_with_the_coming_version() -> Told {
    story(async |sandbox| {
        let stage = Stage::set(sandbox).await?;
        stage.run(sandbox, "dev").await?;
        for reference in stage.contents.tags.iter().chain(&stage.contents.manifests) {
            for method in [Method::HEAD, Method::GET] {
                stage.check_digest_header(method, reference).await?;
            }
        }
        Ok(())
    })
}

/// A distribution with all that the suite pushes, and Larder in front of it.
struct Stage {
    larder: Larder,
    /// Ends with the stage.
    _registry: Registry,
    contents: Contents,
    client: Client,
}

/// What the suite can be told to ask for.
struct Contents {
    tags: Vec<String>,
    manifests: Vec<String>,
    blobs: Vec<String>,
    subjects: Vec<String>,
}

impl Stage {
    async fn set(sandbox: &Sandbox) -> Result<Self> {
        let registry = Registry::start(Kind::Distribution, &sandbox.folder("up")?).await?;
        let pushing = sandbox.folder("push")?;
        let address = registry.address().to_string();
        // It fails what distribution lacks (referrers, sha512, foreign layers); that it pushed is
        // seen from what is there.
        suite(&pushing, &address, "1.1", REPOSITORY, &[]).await?;
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        let contents = Contents::of(&registry, &client).await?;
        let upstream = Upstream::at(HOST, registry.address());
        let larder = Larder::start(&sandbox.folder("larder")?, &[upstream]).await?;
        Ok(Self { larder, _registry: registry, contents, client })
    }

    async fn run(&self, sandbox: &Sandbox, version: &str) -> Result<()> {
        let contents = &self.contents;
        let mut settings = vec![
            ("OCI_API_PUSH", "false".to_owned()),
            ("OCI_RO_DATA_TAGS", contents.tags.join(" ")),
            ("OCI_RO_DATA_MANIFESTS", contents.manifests.join(" ")),
            ("OCI_RO_DATA_BLOBS", contents.blobs.join(" ")),
            ("OCI_RO_DATA_REFERRERS", contents.subjects.join(" ")),
        ];
        if version == "dev" {
            settings.push(("OCI_API_MANIFESTS_DIGEST_HEADER", "false".to_owned()));
        }
        let reading = sandbox.folder("read")?;
        let repository = format!("{HOST}/{REPOSITORY}");
        let server = self.larder.address().to_string();
        let printed = suite(&reading, &server, version, &repository, &settings).await?;

        // Each failed check is followed by its reasons.
        let wrong = |line: &&str| line.ends_with(": FAIL") || line.trim_start().starts_with("- ");
        let failures = printed.lines().filter(wrong).collect::<Vec<_>>().join("\n");
        let (passed, failed) = (count(&printed, "Pass")?, count(&printed, "FAIL")?);
        let errors = count(&printed, "Error")?;
        ensure!(
            failed == 0 && errors == 0,
            "{passed} passed, {failed} failed, {errors} errors\n{failures}"
        );
        // A HEAD and a GET for everything that was named, and eight for the repository as a whole.
        let named = contents.tags.len() + contents.manifests.len() + contents.blobs.len();
        let wanted = (2 * named + 8).max(AT_LEAST);
        ensure!(passed >= wanted, "{passed} of {wanted} checks passed\n{printed}");
        Ok(())
    }

    async fn check_digest_header(&self, method: Method, reference: &str) -> Result<()> {
        let server = self.larder.address();
        let url = format!("http://{server}/v2/{HOST}/{REPOSITORY}/manifests/{reference}");
        let answer = self.client.request(method, &url).header("accept", ACCEPT).send().await?;
        ensure!(answer.status() == StatusCode::OK, "{url} is answered {}", answer.status());
        let digest = answer.headers().get(DIGEST).with_context(|| format!("{url}: no digest"))?;
        let digest = digest.to_str()?.to_owned();
        let by_digest = reference.contains(':');
        let known =
            if by_digest { digest == reference } else { self.contents.manifests.contains(&digest) };
        ensure!(known, "{url} has the digest {digest}");
        Ok(())
    }
}

impl Contents {
    /// Read from distribution's storage: no API lists manifests without a tag, or blobs.
    async fn of(registry: &Registry, client: &Client) -> Result<Self> {
        let repository = registry.repository_folder(REPOSITORY);
        let base = format!("http://{}/v2/{REPOSITORY}", registry.address());
        let digests = |folder: PathBuf, algorithm: &str| -> Result<Vec<String>> {
            let names = names(&folder.join(algorithm))?;
            Ok(names.iter().map(|hex| format!("{algorithm}:{hex}")).collect())
        };
        let tags = names(&repository.join("_manifests/tags"))?;
        let manifests = digests(repository.join("_manifests/revisions"), "sha256")?;
        let mut subjects = Vec::new();
        for manifest in &manifests {
            let answer =
                client.get(format!("{base}/manifests/{manifest}")).header("accept", ACCEPT);
            let text = answer.send().await?.error_for_status()?.text().await?;
            let manifest: serde_json::Value = serde_json::from_str(&text)?;
            subjects.extend(manifest["subject"]["digest"].as_str().map(str::to_owned));
        }
        subjects.sort();
        subjects.dedup();
        let mut blobs = Vec::new();
        let layers = repository.join("_layers");
        for blob in [digests(layers.clone(), "sha256")?, digests(layers, "sha512")?].concat() {
            // One with sha512 is answered 500 by distribution itself.
            if client.get(format!("{base}/blobs/{blob}")).send().await?.status() == StatusCode::OK {
                blobs.push(blob);
            }
        }
        let contents = Self { tags, manifests, blobs, subjects };
        contents.check_complete()?;
        Ok(contents)
    }

    /// A suite that pushed little would find little.
    fn check_complete(&self) -> Result<()> {
        let Self { tags, manifests, blobs, subjects } = self;
        let sha512 = blobs.iter().filter(|blob| blob.starts_with("sha512:")).count();
        let counts = [tags.len(), manifests.len(), blobs.len() - sha512, sha512, subjects.len()];
        let expected = [10, 30, 60, 10, 1];
        let enough = counts.iter().zip(expected).all(|(count, least)| *count >= least);
        ensure!(enough, "tags, manifests, sha256 blobs, sha512 blobs, subjects: {counts:?}");
        Ok(())
    }
}

/// Runs the suite and returns what it printed, which must hold its verdict.
async fn suite(
    home: &Path,
    server: &str,
    version: &str,
    repository: &str,
    settings: &[(&str, String)],
) -> Result<String> {
    let mut command = process::command(&tools::built("conformance/conformance")?, home);
    command
        .env("OCI_REGISTRY", server)
        .env("OCI_TLS", "disabled")
        .env("OCI_VERSION", version)
        .env("OCI_REPO1", repository)
        .env("OCI_REPO2", "conformance/repo2")
        .env("OCI_API_TAGS_DELETE", "false")
        .env("OCI_API_MANIFESTS_DELETE", "false")
        .env("OCI_API_BLOBS_DELETE", "false")
        .env("OCI_RESULTS_DIR", home)
        .envs(settings.iter().map(|(name, value)| (name, value)));
    let output = process::output(command).await?;
    let as_ever = output.stderr.contains("ReportResultsYAML");
    ensure!(output.status.code() != Some(2) || as_ever, "{}", output.stderr);
    ensure!(output.stdout.contains("OCI Conformance Result:"), "no verdict:\n{}", output.stderr);
    Ok(output.stdout)
}

/// A line of the verdict: `  Pass..........................:        268`
fn count(printed: &str, what: &str) -> Result<usize> {
    let (_, verdict) = printed.split_once("OCI Conformance Result:").context("no verdict")?;
    let line = verdict.lines().find(|line| line.trim_start().starts_with(&format!("{what}.")));
    let line = line.with_context(|| format!("no count of {what} in {verdict}"))?;
    let (_, number) = line.rsplit_once(' ').context("a line ends with its count")?;
    number.parse().with_context(|| format!("a count in {line}"))
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
