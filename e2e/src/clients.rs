//! Clients that are not containerd: skopeo, crane and plain HTTP.

mod raw;

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, ensure};

pub use raw::{RAW_USER_AGENT, Raw};

use crate::{
    image::{self, Image},
    process, tools,
};

/// Copies `HOST:PORT/REPOSITORY:TAG`, all platforms, into a layout in `folder` with skopeo, and
/// checks that `wanted` came.
pub async fn skopeo_copy(reference: &str, folder: &Path, wanted: &Image) -> Result<()> {
    let layout = folder.join("skopeo");
    let mut command = process::command(&tools::debian("skopeo")?, folder);
    command
        .args(["copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--quiet"])
        .arg(format!("docker://{reference}"))
        .arg(format!("oci:{}:copy", layout.display()));
    process::run(command).await?;
    check(&layout, wanted).with_context(|| format!("what skopeo copied of {reference}"))
}

/// The same with crane.
pub async fn crane_pull(reference: &str, folder: &Path, wanted: &Image) -> Result<()> {
    let layout = folder.join("crane");
    let mut command = process::command(&tools::built("crane/crane")?, folder);
    command.args(["pull", "--format=oci", reference]).arg(&layout);
    process::run(command).await?;
    check(&layout, wanted).with_context(|| format!("what crane pulled of {reference}"))
}

fn check(layout: &Path, wanted: &Image) -> Result<()> {
    let copied = image::verify(layout)?;
    let copied: BTreeSet<_> = copied.iter().map(String::as_str).collect();
    ensure!(copied == wanted.all(), "{copied:#?} instead of {:#?}", wanted.all());
    Ok(())
}
