//! Images of static programs and nothing else, as Larder's own is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{
    layer::{Codec, Writer},
    layout::{self, this_platform},
};

/// The tag of the image in its layout.
pub const TAG: &str = "latest";

/// Where Go, OpenSSL and rustls look for the certificates that they trust.
const CA_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// What goes into the image.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Static programs of this machine's platform; each lands in `/` under its own name. The first
    /// one is the entry point.
    pub binaries: Vec<PathBuf>,
    /// PEM file of the certificate authorities to trust.
    pub ca_bundle: PathBuf,
}

/// Writes an OCI layout with one image into `folder`, which must be empty or missing. The same
/// contents make the same digest: no times, no owners. Returns the manifest's digest.
///
/// Each program has a layer of its own, so that a release that changes one ships one.
pub fn write(folder: &Path, contents: &Contents) -> Result<String> {
    let occupied = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!occupied, "{} is not empty: name a new folder, or remove it", folder.display());
    let binaries: Vec<_> =
        contents.binaries.iter().map(|path| binary(path)).collect::<Result<_>>()?;
    let (entry_point, _) = binaries.first().context("an image needs at least one program")?;
    let ca_bundle = fs::read(&contents.ca_bundle)
        .with_context(|| format!("reading the CA bundle {}", contents.ca_bundle.display()))?;
    let is_pem = String::from_utf8_lossy(&ca_bundle).contains("-----BEGIN CERTIFICATE-----");
    ensure!(is_pem, "{} holds no PEM certificate", contents.ca_bundle.display());

    layout::create(folder)?;
    let mut certificates = Writer::new(folder, Codec::Gzip)?;
    certificates.file(Path::new(CA_BUNDLE), 0o644, &ca_bundle)?;
    let mut layers = vec![certificates.finish()?];
    for (name, bytes) in &binaries {
        let mut layer = Writer::new(folder, Codec::Gzip)?;
        layer.file(Path::new(name), 0o755, bytes)?;
        layers.push(layer.finish()?);
    }
    let config = json!({ "Entrypoint": [format!("/{entry_point}")], "WorkingDir": "/" });
    let manifest = layout::manifest(folder, this_platform(), &config, &layers)?;
    let digest = manifest["digest"].as_str().context("a manifest has a digest")?.to_owned();
    layout::finish(folder, &[layout::tagged(manifest, TAG)])?;
    Ok(digest)
}

/// The name and the bytes of a program that runs in an image without libraries.
fn binary(path: &Path) -> Result<(String, Vec<u8>)> {
    let bytes =
        fs::read(path).with_context(|| format!("reading the program {}", path.display()))?;
    let interpreted = asks_for_interpreter(&bytes);
    let interpreted =
        interpreted.with_context(|| format!("{} is no 64-bit ELF program", path.display()))?;
    ensure!(
        !interpreted,
        "{} is linked dynamically, and the image has no libraries: build it for \
         {}-unknown-linux-musl",
        path.display(),
        std::env::consts::ARCH
    );
    let name = path.file_name().and_then(|name| name.to_str());
    Ok((name.context("a program's name is UTF-8")?.to_owned(), bytes))
}

/// Whether an ELF program names a dynamic linker (`PT_INTERP`). `None` if it is not one.
fn asks_for_interpreter(program: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = program.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    // Class 2 is 64 bit, data 1 is little-endian: all that Larder is built for.
    program.starts_with(b"\x7fELF\x02\x01").then_some(())?;
    let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut headers = (0..count).map(|index| {
        let at = start.checked_add(size * index).and_then(|at| usize::try_from(at).ok());
        number(at?, 4)
    });
    headers.try_fold(false, |found, kind| Some(found || kind? == u64::from(INTERPRETER)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{program, verify};

    fn contents(folder: &Path) -> Contents {
        let binary = folder.join("waiter");
        fs::write(&binary, program::waiting().unwrap()).unwrap();
        let ca_bundle = folder.join("ca.pem");
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        fs::write(&ca_bundle, pem).unwrap();
        Contents { binaries: vec![binary], ca_bundle }
    }

    #[test]
    fn the_same_programs_make_the_same_digest_and_every_blob_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let contents = contents(folder.path());
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let digest = write(&one, &contents).unwrap();
        assert_eq!(write(&two, &contents).unwrap(), digest);
        let blobs = verify(&one).unwrap();
        // Two layers, configuration, manifest.
        assert_eq!((blobs.len(), blobs.contains(&digest)), (4, true));
    }

    #[test]
    fn a_dynamic_program_and_a_script_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let good = contents(folder.path());
        let refused = |binary: &Path| {
            let contents = Contents { binaries: vec![binary.to_owned()], ..good.clone() };
            format!("{:#}", write(&folder.path().join("image"), &contents).unwrap_err())
        };
        let shell = refused(Path::new("/bin/sh"));
        assert!(shell.contains("/bin/sh is linked dynamically"), "{shell}");
        let script = refused(&good.ca_bundle);
        assert!(script.contains("is no 64-bit ELF program"), "{script}");
        assert!(!folder.path().join("image").exists());
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let error = write(folder.path(), &contents(folder.path())).unwrap_err();
        assert!(format!("{error}").contains("is not empty"), "{error}");
    }
}
