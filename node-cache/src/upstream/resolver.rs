//! Name resolution for redirects and token services: what is looked up is what is dialled (T4).

use std::{fmt, io, net::SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{
    address::{Reach, class_of},
    refusal::Refusal,
};

/// Resolves names with the system's resolver and leaves out addresses beyond a [`Reach`]. As the
/// connector dials what it is handed, a second answer of the name server cannot slip in.
///
/// Behind an HTTP or `socks5h` proxy the names of the destinations are resolved by the proxy,
/// which is then the one who keeps its own metadata service from us.
#[derive(Debug)]
pub(super) struct FilteringResolver {
    pub(super) reach: Reach,
    /// Names of the configured proxies, which may be anywhere.
    pub(super) proxies: Vec<String>,
}

/// Every address of a name is out of reach.
#[derive(Debug)]
pub(super) struct OutOfReach(pub(super) Refusal);

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for OutOfReach {}

impl Resolve for FilteringResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let trusted = self.proxies.contains(&host);
        let reach = self.reach;
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let reachable = if trusted { found } else { within(reach, &host, found)? };
            Ok(Box::new(reachable.into_iter()) as Addrs)
        })
    }
}

/// The addresses within reach; at least one.
fn within(
    reach: Reach,
    host: &str,
    found: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
    let (inside, outside): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| reach.permits(class_of(address.ip())));
    match outside.first() {
        Some(address) if inside.is_empty() => {
            let class = class_of(address.ip());
            let host = format!("{host} ({})", address.ip());
            tracing::debug!(host, ?class, "a redirect or token service is out of reach");
            Err(Box::new(OutOfReach(Refusal::Address { host, class })))
        }
        None if inside.is_empty() => {
            Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into())
        }
        _ => Ok(inside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::address::AddressClass;

    fn filtered(reach: Reach, addresses: &[&str]) -> Result<Vec<String>, Refusal> {
        let found =
            addresses.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect();
        match within(reach, "cdn.example", found) {
            Ok(inside) => Ok(inside.iter().map(|address| address.ip().to_string()).collect()),
            Err(error) => Err(error.downcast::<OutOfReach>().unwrap().0),
        }
    }

    #[test]
    fn t04_resolved_addresses_out_of_reach_are_not_dialled() {
        let all = ["127.0.0.1", "::1", "192.0.2.1", "10.0.0.1", "169.254.169.254", "fe80::1"];
        let ordinary = Ok(vec!["192.0.2.1".to_owned(), "10.0.0.1".to_owned()]);
        assert_eq!(filtered(Reach::Ordinary, &all), ordinary);
        assert_eq!(filtered(Reach::Loopback, &all).unwrap().len(), 4);
        for (address, class) in [
            ("127.0.0.1", AddressClass::Loopback),
            ("::ffff:127.0.0.1", AddressClass::Loopback),
            ("169.254.169.254", AddressClass::Metadata),
            ("fe80::1", AddressClass::LinkLocal),
            ("0.0.0.0", AddressClass::NotUnicast),
        ] {
            let host = format!("cdn.example ({address})");
            assert_eq!(
                filtered(Reach::Ordinary, &[address]),
                Err(Refusal::Address { host, class })
            );
        }
        assert!(filtered(Reach::Loopback, &["169.254.169.254"]).is_err());
    }

    #[tokio::test]
    async fn t04_a_name_of_loopback_is_refused_and_a_proxys_name_is_not() {
        let name = || "localhost".parse::<Name>().unwrap();
        let mut resolver = FilteringResolver { reach: Reach::Ordinary, proxies: Vec::new() };
        assert!(resolver.resolve(name()).await.is_err_and(|error| error.is::<OutOfReach>()));
        resolver.proxies.push("localhost".to_owned());
        assert!(resolver.resolve(name()).await.unwrap().count() > 0);
    }
}
