//! The program of images that run.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};

const SOURCE: &str = include_str!("wait.c");

/// A static program of some hundred kilobytes that waits for SIGTERM, or ends at once when its
/// first argument is `done`. Made by the C compiler that
/// a Rust toolchain needs anyway: a static Rust program would need another target.
pub fn waiting() -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let (source, program) = (folder.path().join("wait.c"), folder.path().join("wait"));
    fs::write(&source, SOURCE)?;
    let made = Command::new("cc")
        .args(["-static", "-Os", "-s", "-o"])
        .args([&program, &source])
        .output()
        .context("starting cc (Debian: gcc, libc6-dev)")?;
    ensure!(made.status.success(), "cc: {}", String::from_utf8_lossy(&made.stderr));
    Ok(fs::read(&program)?)
}
