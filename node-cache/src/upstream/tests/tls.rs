//! Certificates of both sides.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{
    fake::{Fake, ok, redirect, start_on},
    *,
};
use crate::upstream::ErrorClass;

/// A certificate authority.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
struct Certified {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn certify(&self, name: &str) -> Certified {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        Certified { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }
}

/// A server with a certificate, which asks for client certificates of `clients` if there is one.
fn acceptor(server: &Certified, clients: Option<&Authority>) -> TlsAcceptor {
    let verifier: Arc<dyn ClientCertVerifier> = match clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der()).unwrap();
            let provider = Arc::new(default_provider());
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
        }
    };
    let key = PrivateKeyDer::try_from(server.key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.certificate.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn secure(authority: &Authority, name: &str) -> Fake {
    start_on("127.0.0.1", Some(acceptor(&authority.certify(name), None)), |_| ok("in")).await
}

fn trusting(registry: &Fake, authority: &Authority) -> Upstream {
    let ca = authority.certificate.pem();
    upstream_with(&[&registry.url("")], "  tls: {caFile: ca}\n", &[("ca", &ca)])
}

#[tokio::test]
async fn t23_a_private_authority_is_trusted_once_it_is_configured() {
    let authority = Authority::new();
    let registry = secure(&authority, "127.0.0.1").await;
    assert_eq!(body(&trusting(&registry, &authority), get()).await, "in");

    let plain = upstream(&[&registry.url("")]);
    let reason = unavailable(&plain, get()).await;
    assert!(reason.contains("UnknownIssuer"), "{reason}");
    assert_eq!(plain.errors(ErrorClass::Tls), 1);
}

#[tokio::test]
async fn t23_a_certificate_of_another_name_or_authority_is_refused() {
    let authority = Authority::new();
    let misnamed = secure(&authority, "127.0.0.9").await;
    let upstream = trusting(&misnamed, &authority);
    let reason = unavailable(&upstream, get()).await;
    assert!(reason.contains("certificate"), "{reason}");
    assert_eq!(upstream.errors(ErrorClass::Tls), 1);

    let foreign = secure(&Authority::new(), "127.0.0.1").await;
    assert!(unavailable(&trusting(&foreign, &authority), get()).await.contains("certificate"));
    assert_eq!(misnamed.seen().len() + foreign.seen().len(), 0);
}

#[tokio::test]
async fn t23_there_is_no_fallback_to_plain_http() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut first_bytes = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            first_bytes.push(stream.read_u8().await.unwrap());
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            assert_eq!(first_bytes, [22], "only ever a TLS handshake");
        }
    });
    let upstream = upstream(&[&url]);
    unavailable(&upstream, get()).await;
    assert_eq!(upstream.errors(ErrorClass::Tls), 1);
    assert!(!server.is_finished());
    server.abort();
}

#[tokio::test]
async fn t23_insecure_is_a_setting_of_one_upstream() {
    let registry = secure(&Authority::new(), "elsewhere.example").await;
    let more = "  tls: {insecureReason: \"a lab\"}\n";
    assert_eq!(body(&upstream_with(&[&registry.url("")], more, &[]), get()).await, "in");
    assert!(send(&upstream(&[&registry.url("")]), get()).await.is_err());
}

#[tokio::test]
async fn t03_a_redirect_from_https_to_http_is_refused() {
    let authority = Authority::new();
    let sink = start_on("127.0.0.2", None, |_| ok("in")).await;
    let location = sink.url("/");
    let tls = acceptor(&authority.certify("127.0.0.1"), None);
    let registry = start_on("127.0.0.1", Some(tls), move |_| redirect(&location)).await;
    let reason = denied(&trusting(&registry, &authority), get()).await;
    assert!(reason.contains("to plain http at 127.0.0.2"), "{reason}");
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_the_registry_and_not_where_it_redirects_to() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let tls = acceptor(&authority.certify("127.0.0.2"), Some(&clients));
    let store = start_on("127.0.0.2", Some(tls), |_| ok("stored")).await;
    let location = store.url("/");
    let tls = acceptor(&authority.certify("127.0.0.1"), Some(&clients));
    let registry = start_on("127.0.0.1", Some(tls), move |seen| {
        if seen.target.contains("/blobs/") { redirect(&location) } else { ok("in") }
    })
    .await;

    assert!(send(&trusting(&registry, &authority), get()).await.is_err());
    let client = clients.certify("client.example");
    let files = [
        ("ca", authority.certificate.pem()),
        ("crt", client.certificate.pem()),
        ("key", client.key.serialize_pem()),
    ];
    let files: Vec<_> = files.iter().map(|(name, pem)| (*name, pem.as_str())).collect();
    let more = "  tls: {caFile: ca, clientCertFile: crt, clientKeyFile: key}\n";
    let known = upstream_with(&[&registry.url("")], more, &files);
    assert_eq!(body(&known, get()).await, "in");
    assert!(send(&known, blob(None)).await.is_err());
    assert_eq!(store.seen().len(), 0);
}
