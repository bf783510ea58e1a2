//! Where a redirect may lead (design.md section 5).

use reqwest::Url;

use super::{
    address::{Reach, bare_host, class_of_host},
    refusal::Refusal,
};

/// How many redirects are followed for one request.
pub(super) const MAX_HOPS: usize = 5;
/// A `Location` beyond this is refused. Signed URLs of object stores have 1 to 2 KiB.
const MAX_LOCATION: usize = 8 << 10;

/// The URL that `location` names, seen from the answer of `from`, if it may be followed. Names
/// are not resolved here: the resolver of the client that dials them checks their addresses.
pub(super) fn next_hop(from: &Url, location: &[u8], reach: Reach) -> Result<Url, Refusal> {
    let location = std::str::from_utf8(location).map_err(|_| Refusal::NotHttp)?;
    if location.len() > MAX_LOCATION {
        return Err(Refusal::NotHttp);
    }
    let mut url = from.join(location).map_err(|_| Refusal::NotHttp)?;
    url.set_fragment(None);
    check_target(&url, reach)?;
    if from.scheme() == "https" && url.scheme() != "https" {
        return Err(Refusal::Downgrade { host: shown_host(&url) });
    }
    Ok(url)
}

/// What holds for every URL that an upstream names: `http` or `https`, no credentials in it, and
/// no address out of reach.
pub(super) fn check_target(url: &Url, reach: Reach) -> Result<(), Refusal> {
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Refusal::NotHttp);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::Userinfo { host: shown_host(url) });
    }
    let class = class_of_host(url);
    if !reach.permits(class) {
        return Err(Refusal::Address { host: shown_host(url), class });
    }
    Ok(())
}

/// The host as error messages show it: at most 100 bytes (the URL parser leaves only ASCII).
pub(super) fn shown_host(url: &Url) -> String {
    bare_host(url).chars().take(100).collect()
}

/// Whether both URLs are served from one place: scheme, host and port.
pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::address::AddressClass;

    const FROM: &str = "https://reg.example.com/v2/a/blobs/sha256:0?x=1";

    fn hop(from: &str, location: &str, reach: Reach) -> Result<String, Refusal> {
        next_hop(&Url::parse(from).unwrap(), location.as_bytes(), reach).map(String::from)
    }

    #[test]
    fn ordinary_redirects_are_followed() {
        for (location, expected) in [
            ("https://cdn.example.net/b?sig=1", "https://cdn.example.net/b?sig=1"),
            ("//cdn.example.net/b", "https://cdn.example.net/b"),
            ("/elsewhere", "https://reg.example.com/elsewhere"),
            ("sibling", "https://reg.example.com/v2/a/blobs/sibling"),
            // Without slashes it is relative within the same scheme.
            ("https:10.9.9.9", "https://reg.example.com/v2/a/blobs/10.9.9.9"),
            ("https://10.1.2.3:9000/minio", "https://10.1.2.3:9000/minio"),
            ("https://cdn.example.net/b#part", "https://cdn.example.net/b"),
        ] {
            assert_eq!(hop(FROM, location, Reach::Ordinary).as_deref(), Ok(expected));
        }
        let upgraded = hop("http://reg.example.com/", "https://cdn.example.net/", Reach::Ordinary);
        assert_eq!(upgraded.as_deref(), Ok("https://cdn.example.net/"));
    }

    #[test]
    fn t03_t04_hostile_redirects_are_refused() {
        use AddressClass::{LinkLocal, Loopback, Metadata, NotUnicast};
        let address = |host: &str, class| Refusal::Address { host: host.to_owned(), class };
        for (location, refusal) in [
            ("http://cdn.example.net/b", Refusal::Downgrade { host: "cdn.example.net".into() }),
            ("http:/cdn", Refusal::Downgrade { host: "cdn".into() }),
            ("https://u:p@cdn.example.net/", Refusal::Userinfo { host: "cdn.example.net".into() }),
            ("https://u@127.0.0.1/", Refusal::Userinfo { host: "127.0.0.1".into() }),
            ("https://:p@cdn.example.net/", Refusal::Userinfo { host: "cdn.example.net".into() }),
            ("ftp://cdn.example.net/", Refusal::NotHttp),
            ("file:///etc/shadow", Refusal::NotHttp),
            ("javascript:alert(1)", Refusal::NotHttp),
            ("https://", Refusal::NotHttp),
            ("https://a b/", Refusal::NotHttp),
            ("https://169.254.169.254/latest/", address("169.254.169.254", Metadata)),
            ("//169.254.169.254", address("169.254.169.254", Metadata)),
            ("\\\\169.254.169.254\\x", address("169.254.169.254", Metadata)),
            ("https://0xa9.0xfe.0xa9.0xfe/", address("169.254.169.254", Metadata)),
            ("ht\ntps://2852039166/", address("169.254.169.254", Metadata)),
            ("https://[::ffff:a9fe:a9fe]/", address("::ffff:a9fe:a9fe", Metadata)),
            ("https://[fe80::1]/", address("fe80::1", LinkLocal)),
            ("https://127.1/", address("127.0.0.1", Loopback)),
            ("https://localhost/", address("localhost", Loopback)),
            ("https://0/", address("0.0.0.0", NotUnicast)),
        ] {
            assert_eq!(hop(FROM, location, Reach::Ordinary), Err(refusal), "{location}");
        }
        let long = format!("https://cdn.example.net/{}", "a".repeat(MAX_LOCATION));
        assert_eq!(hop(FROM, &long, Reach::Ordinary), Err(Refusal::NotHttp));
        let latin1 = next_hop(&Url::parse(FROM).unwrap(), b"https://\xe4/", Reach::Ordinary);
        assert_eq!(latin1, Err(Refusal::NotHttp));
    }

    #[test]
    fn t04_a_loopback_endpoint_leads_to_loopback_and_not_to_the_link() {
        let from = "http://127.0.0.1:5000/v2/";
        assert!(hop(from, "http://127.0.0.2:9000/", Reach::Loopback).is_ok());
        assert!(hop(from, "http://169.254.1.1/", Reach::Loopback).is_err());
        assert!(hop(from, "http://169.254.169.254/", Reach::Loopback).is_err());
        assert!(hop(from, "http://169.254.169.254/", Reach::LinkLocal).is_err());
    }

    proptest! {
        #[test]
        fn t04_no_location_leads_out_of_reach(location in "(https?:)?[/\\\\]{0,3}[ -~]{0,12}(127\\.0\\.0\\.1|0xa9fea9fe|169\\.254\\.169\\.254|\\[::1\\]|localhost)?[ -~]{0,8}") {
            let from = Url::parse(FROM).unwrap();
            if let Ok(url) = next_hop(&from, location.as_bytes(), Reach::Ordinary) {
                prop_assert_eq!(url.scheme(), "https");
                prop_assert_eq!(class_of_host(&url), AddressClass::Ordinary);
                prop_assert!(url.username().is_empty() && url.password().is_none());
            }
        }
    }
}
