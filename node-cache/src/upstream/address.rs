//! Which addresses a redirect or a token service may be at (T4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

/// What an address is, as far as it matters for where an upstream may send us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressClass {
    /// Public or private unicast. Private ranges are allowed: that is where `MinIO` lives.
    Ordinary,
    /// This machine.
    Loopback,
    /// This link: 169.254.0.0/16 and `fe80::/10`.
    LinkLocal,
    /// The instance metadata service of a cloud, which hands out credentials.
    Metadata,
    /// Unspecified (which Linux connects to loopback), multicast, broadcast or reserved.
    NotUnicast,
}

/// How far redirects and token services may lead from an endpoint. Each endpoint may send us to
/// its own kind of address and to ordinary ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// Ordinary addresses only.
    Ordinary,
    /// Also this machine, because the endpoint is there.
    Loopback,
    /// Also this link, because the endpoint is there.
    LinkLocal,
}

impl Reach {
    /// How many there are; [`Reach::index`] is below.
    pub(super) const COUNT: usize = 3;

    /// A number below [`Reach::COUNT`].
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Ordinary => 0,
            Self::Loopback => 1,
            Self::LinkLocal => 2,
        }
    }

    /// The reach of an endpoint that answered from `peer`, the other end of the connection, which
    /// is `None` if that says nothing about the endpoint because a proxy may be there.
    ///
    /// The address that was dialled decides, not one that its name could resolve to: otherwise an
    /// upstream that controls its DNS could name 127.0.0.1 beside its real address.
    pub(super) fn of_endpoint(endpoint: &Url, peer: Option<IpAddr>) -> Self {
        match peer.map_or_else(|| class_of_host(endpoint), class_of) {
            AddressClass::Loopback => Self::Loopback,
            AddressClass::LinkLocal => Self::LinkLocal,
            AddressClass::Ordinary | AddressClass::Metadata | AddressClass::NotUnicast => {
                Self::Ordinary
            }
        }
    }

    /// Whether an address of that class may be dialled.
    pub(super) fn permits(self, class: AddressClass) -> bool {
        match class {
            AddressClass::Ordinary => true,
            AddressClass::Loopback => self == Self::Loopback,
            AddressClass::LinkLocal => self == Self::LinkLocal,
            AddressClass::Metadata | AddressClass::NotUnicast => false,
        }
    }
}

/// The class of a URL's host as far as its spelling tells: of an IP address (the URL parser has
/// already normalised `127.1`, `0x7f000001` and the like) or of a name that means one by
/// convention. Other names are [`AddressClass::Ordinary`] until they are resolved.
pub(super) fn class_of_host(url: &Url) -> AddressClass {
    let host = bare_host(url);
    if let Ok(address) = host.parse() {
        return class_of(address);
    }
    match host {
        "localhost" => AddressClass::Loopback,
        name if name.ends_with(".localhost") => AddressClass::Loopback,
        "metadata.google.internal" | "metadata.goog" => AddressClass::Metadata,
        _ => AddressClass::Ordinary,
    }
}

/// The host without the brackets of IPv6 and without the dot of a fully qualified name.
pub(super) fn bare_host(url: &Url) -> &str {
    let host = url.host_str().unwrap_or_default();
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address,
        None => host.strip_suffix('.').unwrap_or(host),
    }
}

/// The class of an address, also if it hides an IPv4 address in an IPv6 one.
pub(super) fn class_of(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(address) => class_of_v4(address),
        IpAddr::V6(address) => class_of_v6(address),
    }
}

fn class_of_v4(address: Ipv4Addr) -> AddressClass {
    match address.octets() {
        // AWS, GCP, Azure and others; ECS and EKS credentials; Alibaba; Oracle; Azure's wire server.
        [169, 254, 169, 254]
        | [169, 254, 170, 2 | 23]
        | [100, 100, 100, 200]
        | [192, 0, 0, 192]
        | [168, 63, 129, 16] => AddressClass::Metadata,
        [127, ..] => AddressClass::Loopback,
        [169, 254, ..] => AddressClass::LinkLocal,
        [0 | 224..=255, ..] => AddressClass::NotUnicast,
        _ => AddressClass::Ordinary,
    }
}

fn class_of_v6(address: Ipv6Addr) -> AddressClass {
    // AWS (instances, then EKS), GCP.
    const METADATA: [Ipv6Addr; 3] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    if address.is_unspecified() || address.is_multicast() {
        return AddressClass::NotUnicast;
    }
    if address.is_loopback() {
        return AddressClass::Loopback;
    }
    if address.segments()[0] & 0xffc0 == 0xfe80 {
        return AddressClass::LinkLocal;
    }
    if METADATA.contains(&address) {
        return AddressClass::Metadata;
    }
    embedded_v4(address).map_or(AddressClass::Ordinary, class_of_v4)
}

/// The IPv4 address that a translator or the kernel would take out of `address`.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // Compatible ::/96, mapped ::ffff:0:0/96, translated ::ffff:0:0:0/96 and NAT64
        // 64:ff9b::/96.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // 6to4 2002::/16.
        | [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(host: &str) -> AddressClass {
        class_of_host(&Url::parse(&format!("http://{host}/")).unwrap())
    }

    #[test]
    fn t04_every_spelling_of_an_address_is_recognised() {
        use AddressClass::{LinkLocal, Loopback, Metadata, NotUnicast, Ordinary};
        for (host, expected) in [
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("127.1", Loopback),
            ("127.0.1", Loopback),
            ("0x7f.1", Loopback),
            ("0x7f000001", Loopback),
            ("2130706433", Loopback),
            ("017700000001", Loopback),
            ("0177.0.0.01", Loopback),
            ("127.0.0.1.", Loopback),
            ("%31%32%37.0.0.1", Loopback),
            ("１２７.０.０.１", Loopback),
            ("①②⑦.0.0.1", Loopback),
            ("127。0。0。1", Loopback),
            ("localhost", Loopback),
            ("LOCALHOST.", Loopback),
            ("registry.localhost", Loopback),
            ("ⓛocalhost", Loopback),
            ("[::1]", Loopback),
            ("[0:0:0:0:0:0:0:1]", Loopback),
            ("[::ffff:127.0.0.1]", Loopback),
            ("[::ffff:7f00:1]", Loopback),
            ("[::127.0.0.1]", Loopback),
            ("[::ffff:0:127.0.0.1]", Loopback),
            ("[64:ff9b::127.0.0.1]", Loopback),
            ("[2002:7f00:1::]", Loopback),
            ("169.254.0.1", LinkLocal),
            ("169.254.169.253", LinkLocal),
            ("0xa9fe0001", LinkLocal),
            ("[fe80::1]", LinkLocal),
            ("[febf:ffff::1]", LinkLocal),
            ("[::ffff:169.254.1.1]", LinkLocal),
            ("169.254.169.254", Metadata),
            ("0xa9fea9fe", Metadata),
            ("2852039166", Metadata),
            ("0251.0376.0251.0376", Metadata),
            ("169.254.43518", Metadata),
            ("169.16689662", Metadata),
            ("[::ffff:169.254.169.254]", Metadata),
            ("[::ffff:a9fe:a9fe]", Metadata),
            ("[::169.254.169.254]", Metadata),
            ("[64:ff9b::a9fe:a9fe]", Metadata),
            ("[2002:a9fe:a9fe::1]", Metadata),
            ("169.254.170.2", Metadata),
            ("169.254.170.23", Metadata),
            ("100.100.100.200", Metadata),
            ("192.0.0.192", Metadata),
            ("168.63.129.16", Metadata),
            ("[fd00:ec2::254]", Metadata),
            ("[fd00:0ec2:0::0:254]", Metadata),
            ("[fd00:ec2::23]", Metadata),
            ("[fd20:ce::254]", Metadata),
            ("metadata.google.internal", Metadata),
            ("Metadata.Google.Internal.", Metadata),
            ("metadata.goog", Metadata),
            ("0.0.0.0", NotUnicast),
            ("0", NotUnicast),
            ("0.1.2.3", NotUnicast),
            ("[::]", NotUnicast),
            ("[::ffff:0.0.0.0]", NotUnicast),
            ("224.0.0.1", NotUnicast),
            ("239.255.255.250", NotUnicast),
            ("240.0.0.1", NotUnicast),
            ("255.255.255.255", NotUnicast),
            ("[ff02::1]", NotUnicast),
            ("[::ffff:224.0.0.1]", NotUnicast),
            ("8.8.8.8", Ordinary),
            ("10.0.0.1", Ordinary),
            ("172.16.0.1", Ordinary),
            ("192.168.1.1", Ordinary),
            ("100.64.0.1", Ordinary),
            ("126.255.255.255", Ordinary),
            ("128.0.0.1", Ordinary),
            ("169.253.255.255", Ordinary),
            ("[2001:db8::1]", Ordinary),
            ("[fd00::1]", Ordinary),
            ("[fec0::1]", Ordinary),
            ("[::ffff:10.0.0.1]", Ordinary),
            ("registry.example.com", Ordinary),
            ("localhost.example.com", Ordinary),
            ("mylocalhost", Ordinary),
        ] {
            assert_eq!(class(host), expected, "{host}");
        }
    }

    #[test]
    fn t04_an_endpoint_opens_its_own_kind_of_address_and_no_other() {
        use AddressClass::{LinkLocal, Loopback, Metadata, NotUnicast, Ordinary};
        let all = [Ordinary, Loopback, LinkLocal, Metadata, NotUnicast];
        for (reach, permitted) in [
            (Reach::Ordinary, &[Ordinary][..]),
            (Reach::Loopback, &[Ordinary, Loopback]),
            (Reach::LinkLocal, &[Ordinary, LinkLocal]),
        ] {
            for class in all {
                assert_eq!(reach.permits(class), permitted.contains(&class), "{reach:?} {class:?}");
            }
        }
    }

    #[test]
    fn t04_the_dialled_address_decides_the_reach_of_an_endpoint() {
        let reach = |url: &str, peer: Option<&str>| {
            let peer = peer.map(|address| address.parse().unwrap());
            Reach::of_endpoint(&Url::parse(url).unwrap(), peer)
        };
        assert_eq!(reach("https://reg.example.com", Some("127.0.0.1")), Reach::Loopback);
        assert_eq!(reach("https://reg.example.com", Some("192.0.2.1")), Reach::Ordinary);
        assert_eq!(reach("https://reg.example.com", Some("169.254.169.254")), Reach::Ordinary);
        assert_eq!(reach("http://169.254.7.7", Some("169.254.7.7")), Reach::LinkLocal);
        assert_eq!(reach("https://reg.example.com", None), Reach::Ordinary);
        assert_eq!(reach("http://localhost:5000", None), Reach::Loopback);
        assert_eq!(reach("http://[::1]:5000", None), Reach::Loopback);
    }

    proptest! {
        #[test]
        fn t04_a_hidden_v4_address_has_the_class_of_the_plain_one(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            // ::0.0.0.1 is the loopback address of IPv6 itself.
            prop_assume!(bits > 1);
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for v6 in [
                v4.to_ipv6_mapped(),
                v4.to_ipv6_compatible(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(class_of(v6.into()), class_of(v4.into()), "{}", v6);
            }
        }
    }
}
