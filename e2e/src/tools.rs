//! Where the programs of a story are.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// A program that `e2e/setup.sh` built, as `TOOL/PROGRAM` (`crane/crane`).
pub fn built(program: &str) -> Result<PathBuf> {
    let path = checkout().join("target/tools").join(program);
    ensure!(path.exists(), "{} is missing: run e2e/setup.sh", path.display());
    Ok(path)
}

/// A program of a Debian package that `e2e/setup.sh` installed.
pub fn debian(program: &str) -> Result<PathBuf> {
    let path = Path::new("/usr/bin").join(program);
    ensure!(path.exists(), "{} is missing: run e2e/setup.sh", path.display());
    Ok(path)
}

/// The library that puts another clock under a program (Debian's libfaketime).
pub fn faketime() -> Result<PathBuf> {
    let libraries = fs::read_dir("/usr/lib")?.flatten();
    let mut paths = libraries.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    paths.find(|path| path.exists()).context("libfaketime is missing: run e2e/setup.sh")
}

/// The `larder-node` that cargo built beside the running program, or the one that the variable
/// `LARDER_NODE` names (another build, under the same stories).
pub fn larder_node() -> Result<PathBuf> {
    match env::var_os("LARDER_NODE") {
        Some(path) => there(PathBuf::from(path)),
        None => there(beside_this_program()?.join("larder-node")),
    }
}

/// The `larder-operator` that cargo built beside the running program.
pub fn larder_operator() -> Result<PathBuf> {
    there(beside_this_program()?.join("larder-operator"))
}

/// A program of `make image`, which runs in an image without libraries.
pub fn static_program(name: &str) -> Result<PathBuf> {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from);
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let path = target.join(triple).join("release").join(name);
    ensure!(path.exists(), "{} is missing: run `make programs`", path.display());
    Ok(path)
}

fn there(path: PathBuf) -> Result<PathBuf> {
    ensure!(path.exists(), "{} is missing: run `cargo build --workspace`", path.display());
    Ok(path)
}

/// Where built images are kept from run to run, in the folder that `e2e/setup.sh` uses too.
pub fn image_cache() -> Result<PathBuf> {
    let from = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = match (from("LARDER_CACHE"), from("XDG_CACHE_HOME")) {
        (Some(cache), _) => cache,
        (None, Some(caches)) => caches.join("larder"),
        (None, None) => {
            from("HOME").context("neither HOME nor LARDER_CACHE is set")?.join(".cache/larder")
        }
    };
    Ok(cache.join("images"))
}

/// `target/debug`: of a binary its own folder, of a test binary the one above `deps`.
fn beside_this_program() -> Result<PathBuf> {
    let program = env::current_exe().context("where does this program lie?")?;
    let folder = program.parent().context("a program lies in a folder")?;
    Ok(match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().unwrap_or(folder),
        _ => folder,
    }
    .to_owned())
}

fn checkout() -> &'static Path {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder)
}
