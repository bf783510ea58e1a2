//! What we do not do for an upstream, and why. The texts go to clients.

use super::address::AddressClass;

/// Where an upstream wanted to send us and may not. Hosts are as the URL parser normalised them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Not `http` or `https`, or no URL at all.
    #[error("it leads to something that is neither an http nor an https URL")]
    NotHttp,
    /// To `http`, from `https` or to somebody else.
    #[error("it leads to plain http at {host}")]
    Downgrade { host: String },
    /// `https://user:password@host`.
    #[error("it leads to a URL with credentials in it, at {host}")]
    Userinfo { host: String },
    /// An address that is reserved for this machine, its link or its cloud.
    #[error("it leads to {host}, {}, where only an upstream that is configured there may lead", describe(*class))]
    Address { host: String, class: AddressClass },
    /// A chain of redirects without an end.
    #[error("it redirects more than {limit} times")]
    TooManyHops { limit: usize },
    /// A token service that is not the registry's.
    #[error(
        "the credentials would go to the token service {host}, which is not under the registry's \
         own domain; if it is the right one, add {host} to tokenRealms"
    )]
    ForeignRealm { host: String },
}

fn describe(class: AddressClass) -> &'static str {
    match class {
        AddressClass::Ordinary => "an ordinary address",
        AddressClass::Loopback => "an address of this machine",
        AddressClass::LinkLocal => "a link-local address",
        AddressClass::Metadata => "a cloud's metadata service",
        AddressClass::NotUnicast => "not a unicast address",
    }
}
