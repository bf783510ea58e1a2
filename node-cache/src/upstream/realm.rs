//! Where tokens may be asked for, and who may see the credentials (design.md section 5, T2).

use std::net::IpAddr;

use reqwest::Url;

use super::{
    address::{Reach, bare_host},
    redirect::{check_target, shown_host},
    refusal::Refusal,
};
use crate::oci::UpstreamHost;

/// The realm of a challenge that `endpoint` made, as a URL that may be asked. `credentials` says
/// whether they would be sent there; `listed` is the upstream's `tokenRealms`.
pub(super) fn check_realm(
    realm: &str,
    endpoint: &Url,
    reach: Reach,
    credentials: bool,
    listed: &[UpstreamHost],
) -> Result<Url, Refusal> {
    let mut url = Url::parse(realm).map_err(|_| Refusal::NotHttp)?;
    url.set_fragment(None);
    check_target(&url, reach)?;
    let plain = url.scheme() != "https";
    if plain && endpoint.scheme() == "https" {
        return Err(Refusal::Downgrade { host: shown_host(&url) });
    }
    let trusted = is_own(&url, endpoint) || is_listed(&url, listed);
    if credentials && !trusted {
        return Err(Refusal::ForeignRealm { host: shown_host(&url) });
    }
    // An endpoint without TLS may have its own token service without TLS, and nobody else's.
    if plain && !trusted {
        return Err(Refusal::Downgrade { host: shown_host(&url) });
    }
    Ok(url)
}

/// Whether the realm belongs to whoever runs the registry: the same host, or the same registrable
/// domain. Addresses, single labels and public suffixes have no domain to share.
fn is_own(realm: &Url, endpoint: &Url) -> bool {
    let (realm, endpoint) = (bare_host(realm), bare_host(endpoint));
    if realm == endpoint {
        return true;
    }
    match (registrable_domain(realm), registrable_domain(endpoint)) {
        (Some(realm), Some(endpoint)) => realm == endpoint,
        _ => false,
    }
}

fn registrable_domain(host: &str) -> Option<&str> {
    // The list would read 10.0.0.1 as the domain 0.1.
    if host.parse::<IpAddr>().is_ok() {
        return None;
    }
    psl::domain_str(host)
}

/// A listed host without a port stands for all of its ports.
fn is_listed(realm: &Url, listed: &[UpstreamHost]) -> bool {
    // The URL's own spelling, so that IPv6 keeps its brackets.
    let host = realm.host_str().unwrap_or_default();
    let host = host.strip_suffix('.').unwrap_or(host);
    let port = realm.port_or_known_default().unwrap_or_default();
    let spelled = [host.parse::<UpstreamHost>(), format!("{host}:{port}").parse()];
    spelled.into_iter().flatten().any(|spelling| listed.contains(&spelling))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::address::AddressClass;

    fn check(
        realm: &str,
        endpoint: &str,
        credentials: bool,
        listed: &[&str],
    ) -> Result<(), Refusal> {
        let endpoint = Url::parse(endpoint).unwrap();
        let listed: Vec<UpstreamHost> = listed.iter().map(|host| host.parse().unwrap()).collect();
        check_realm(realm, &endpoint, Reach::of_endpoint(&endpoint, None), credentials, &listed)
            .map(drop)
    }

    #[test]
    fn credentials_go_to_the_registrys_own_domain_and_to_listed_hosts() {
        for (realm, endpoint, listed) in [
            ("https://auth.docker.io/token", "https://registry-1.docker.io", &[][..]),
            ("https://reg.example.com/token?x=1", "https://reg.example.com", &[]),
            ("https://reg.example.com:8443/token", "https://reg.example.com", &[]),
            ("https://reg.example.com./token", "https://reg.example.com", &[]),
            ("https://sso.example.co.uk/", "https://reg.example.co.uk", &[]),
            // To the URL parser a backslash is a slash: the host is the registry's own.
            ("https://reg.example.com\\@evil.net/", "https://reg.example.com", &[]),
            ("https://auth.corp/", "https://auth.corp", &[]),
            ("https://auth.reg.corp/", "https://reg.corp", &[]),
            ("http://10.0.0.1:5001/auth", "http://10.0.0.1:5000", &[]),
            ("https://10.0.0.1/auth", "http://10.0.0.1:5000", &[]),
            ("http://localhost:5001/", "http://localhost:5000", &[]),
            ("https://sso.example.net/", "https://reg.example.com", &["sso.example.net"]),
            ("https://sso.example.net:8443/", "https://reg.example.com", &["sso.example.net"]),
            ("https://sso.example.net:8443/", "https://reg.example.com", &["sso.example.net:8443"]),
            ("https://sso.example.net/", "https://reg.example.com", &["sso.example.net:443"]),
            ("https://SSO.example.net./", "https://reg.example.com", &["sso.example.net"]),
            ("https://index.docker.io/", "https://reg.example.com", &["index.docker.io"]),
            ("https://[2001:db8::1]/", "https://reg.example.com", &["[2001:db8::1]"]),
        ] {
            assert_eq!(check(realm, endpoint, true, listed), Ok(()), "{realm} for {endpoint}");
        }
    }

    /// Realms, endpoints, `tokenRealms` and the host that the refusal names.
    #[rustfmt::skip]
    const FOREIGN: &[(&str, &str, &[&str], &str)] = &[
        ("https://evil.example.net/t", "https://reg.example.com", &[], "evil.example.net"),
        ("https://reg.example.com.evil.net/", "https://reg.example.com", &[], "reg.example.com.evil.net"),
        ("https://example.org/", "https://reg.example.com", &[], "example.org"),
        ("https://evilexample.com/", "https://reg.example.com", &[], "evilexample.com"),
        // Under a public suffix everybody can have a name.
        ("https://evil.github.io/", "https://corp.github.io", &[], "evil.github.io"),
        ("https://evil.co.uk/", "https://reg.co.uk", &[], "evil.co.uk"),
        ("https://evil.s3.amazonaws.com/", "https://corp.s3.amazonaws.com", &[], "evil.s3.amazonaws.com"),
        ("https://evil.公司.cn/", "https://reg.公司.cn", &[], "evil.xn--55qx5d.cn"),
        ("https://com/", "https://reg.example.com", &[], "com"),
        ("https://github.io/", "https://corp.github.io", &[], "github.io"),
        // Names without a registrable domain, and addresses, are equal or foreign.
        ("https://auth/", "https://registry", &[], "auth"),
        ("https://auth.local/", "https://reg.local", &[], "auth.local"),
        ("https://10.0.0.2/", "https://10.0.0.1", &[], "10.0.0.2"),
        ("https://9.0.0.1/", "https://10.0.0.1", &[], "9.0.0.1"),
        ("https://[2001:db8::2]/", "https://[2001:db8::1]", &[], "2001:db8::2"),
        // Letters that look alike are another name.
        ("https://auth.d\u{43e}cker.io/", "https://registry-1.docker.io", &[], "auth.xn--dcker-jye.io"),
        ("https://sso.example.net:9/", "https://reg.example.com", &["sso.example.net:8443"], "sso.example.net"),
        ("https://a.sso.example.net/", "https://reg.example.com", &["sso.example.net"], "a.sso.example.net"),
    ];

    #[test]
    fn t02_credentials_never_go_to_a_foreign_realm() {
        for (realm, endpoint, listed, host) in FOREIGN {
            let foreign = Refusal::ForeignRealm { host: (*host).to_owned() };
            assert_eq!(check(realm, endpoint, true, listed), Err(foreign), "{realm}");
            let anonymously = check(realm, endpoint, false, listed);
            assert_eq!(anonymously, Ok(()), "anonymously: {realm}");
        }
    }

    #[test]
    fn t02_t04_some_realms_are_refused_even_anonymously() {
        let registry = "https://reg.example.com";
        let down = |host: &str| Refusal::Downgrade { host: host.to_owned() };
        let userinfo = |host: &str| Refusal::Userinfo { host: host.to_owned() };
        let address = |host: &str, class| Refusal::Address { host: host.to_owned(), class };
        for credentials in [false, true] {
            for (realm, endpoint, refusal) in [
                ("http://reg.example.com/token", registry, down("reg.example.com")),
                ("http://sso.example.net/", registry, down("sso.example.net")),
                ("https://u:p@reg.example.com/", registry, userinfo("reg.example.com")),
                ("https://reg.example.com@evil.net/", registry, userinfo("evil.net")),
                ("/token", registry, Refusal::NotHttp),
                ("//reg.example.com/token", registry, Refusal::NotHttp),
                ("", registry, Refusal::NotHttp),
                ("Registry Realm", registry, Refusal::NotHttp),
                ("ftp://reg.example.com/", registry, Refusal::NotHttp),
                ("https://127.0.0.1/", registry, address("127.0.0.1", AddressClass::Loopback)),
                ("https://2130706433/", registry, address("127.0.0.1", AddressClass::Loopback)),
                (
                    "https://169.254.169.254/",
                    "http://127.0.0.1:5000",
                    address("169.254.169.254", AddressClass::Metadata),
                ),
            ] {
                assert_eq!(check(realm, endpoint, credentials, &[]), Err(refusal), "{realm}");
            }
        }
    }
}
