//! Stories of pulls, told with real parts: containerd 1.6, 1.7 and 2.4, skopeo, crane,
//! distribution 3.1.2, docker-registry 2.8.2 and `larder-node`.
//!
//! Each test is a sentence. `on_every_containerd!` makes one test per release of it, in a module
//! that is named after the release, so that a failure says which one it was.

/// One test per containerd release for each story.
macro_rules! on_every_containerd {
    ($($story:ident)*) => {
        on_every_containerd!(@ containerd_1_6 V1_6 $($story)*);
        on_every_containerd!(@ containerd_1_7 V1_7 $($story)*);
        on_every_containerd!(@ containerd_2_4 V2_4 $($story)*);
    };
    (@ $module:ident $version:ident $($story:ident)*) => {
        mod $module {
            $(#[test]
            fn $story() -> larder_e2e::sandbox::Told {
                crate::told_with(larder_e2e::containerd::Version::$version, super::$story)
            })*
        }
    };
}

mod clients;
mod clock;
mod config_path;
mod conformance;
mod crash;
mod crowd;
mod failing_upstream;
mod foreign;
mod ground;
mod hang;
mod kill;
mod node;
mod pull;
mod shelf;
mod tags;

use node::told_with;
