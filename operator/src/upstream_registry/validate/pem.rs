//! Certificates and keys, as a node will take them.

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

/// What a node would not take must not get there: it would leave the registry out, where what was
/// good before is to stay in force.
pub(super) fn check_authorities(pem: &[u8]) -> Result<(), &'static str> {
    const NONE: &str = "holds no PEM certificate (-----BEGIN CERTIFICATE-----)";
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.ok().filter(|found| !found.is_empty()).ok_or(NONE)?;
    let mut store = RootCertStore::empty();
    for certificate in found {
        store.add(certificate).map_err(|_| "holds a PEM block that is no X.509 certificate")?;
    }
    Ok(())
}

/// Whether a node can show this certificate: it is one, and the key is its own.
pub(super) fn fit_together(certificate: &[u8], private: &[u8]) -> bool {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let (Ok(chain), Ok(key)) = (chain, PrivateKeyDer::from_pem_slice(private)) else {
        return false;
    };
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GARBAGE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn certificate() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn authorities_are_certificates_every_one_of_them() {
        let (good, _) = certificate();
        assert_eq!(check_authorities(good.as_bytes()), Ok(()));
        for (bad, problem) in [
            (String::new(), "holds no PEM certificate"),
            ("junk".to_owned(), "holds no PEM certificate"),
            (GARBAGE.to_owned(), "no X.509 certificate"),
            (format!("{good}{GARBAGE}"), "no X.509 certificate"),
        ] {
            let found = check_authorities(bad.as_bytes()).unwrap_err();
            assert!(found.contains(problem), "{bad}: {found}");
        }
    }

    #[test]
    fn a_client_certificate_fits_its_own_key_only() {
        let ((certificate, key), (other, _)) = (certificate(), certificate());
        assert!(fit_together(certificate.as_bytes(), key.as_bytes()));
        for (certificate, key) in [
            (&*other, &*key),
            (GARBAGE, &key),
            ("", &key),
            (&certificate, GARBAGE),
            (&certificate, ""),
        ] {
            assert!(!fit_together(certificate.as_bytes(), key.as_bytes()), "{certificate}{key}");
        }
    }
}
