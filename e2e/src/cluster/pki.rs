//! The certificate authorities of a cluster.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// One that signs certificates of servers.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A server's certificate and key, as files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM, PKCS 8.
    pub key: PathBuf,
}

impl Authority {
    /// A new one. `name` is its subject: a server's must differ, or Go takes it for self-signed.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// Its own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for those names and addresses, written to `NAME.crt` and `NAME.key`.
    pub fn certify(&self, folder: &Path, name: &str, names: &[&str]) -> Result<Certificate> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = Certificate {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        write(&files.certificate, &certificate.pem())?;
        write(&files.key, &key.serialize_pem())?;
        Ok(files)
    }
}

/// A key with which the control plane signs the tokens of service accounts: `sa.key`, `sa.pub`.
pub(super) fn token_key(folder: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    write(&folder.join("sa.key"), &key.serialize_pem())?;
    write(&folder.join("sa.pub"), &key.public_key_pem())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
