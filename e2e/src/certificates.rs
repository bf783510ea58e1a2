//! A private certificate authority, and what it has issued.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// The certificate of an authority that no system trusts, of one server, and of one client, as PEM
/// files under the names that containerd knows.
#[derive(Clone, Debug)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Issues them anew into `folder`, for a server at `address`.
    pub fn issue(folder: &Path, address: IpAddr) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        fs::write(folder.join("ca.crt"), params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        for (name, subject) in [("server", address.to_string()), ("client", "node".to_owned())] {
            let key = KeyPair::generate()?;
            let certificate = CertificateParams::new([subject])?.signed_by(&key, &issuer)?;
            fs::write(folder.join(format!("{name}.cert")), certificate.pem())?;
            fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// `ca.crt`, `server.cert`, `server.key`, `client.cert` or `client.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Copies what a client needs: the authority, and the client's certificate with its key.
    pub fn hand_out(&self, folder: &Path) -> Result<()> {
        for name in ["ca.crt", "client.cert", "client.key"] {
            fs::copy(self.file(name), folder.join(name))?;
        }
        Ok(())
    }
}
