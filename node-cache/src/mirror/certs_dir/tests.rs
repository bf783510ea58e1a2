mod changed;
mod colon_path;
mod folder;
mod race;
mod roots;

use std::{
    collections::BTreeMap,
    fs::Permissions,
    os::unix::fs::{PermissionsExt, symlink},
};

use larder_crds::node::ExistingHosts;
use tempfile::TempDir;

use super::*;
use crate::{
    mirror::{
        mark,
        round::{self, Outcome, Round},
    },
    oci::UpstreamHost,
};

const MIRROR: &str = "http://127.0.0.1:5055";
const FOREIGN: &str =
    "server = \"https://up.test\"\n\n# ours\n[host.\"https://corp.test\"]\n  ca = \"/ca\"\n";
const OTHER: &str = "[host.\"https://other.test\"]\n";

/// A `certs.d` with a configurator that is started anew for every round, unless it says `again`.
struct Case {
    folder: TempDir,
    instance: &'static str,
    existing: ExistingHosts,
    roots: Vec<PathBuf>,
}

impl Case {
    fn new() -> Self {
        let case = Self::without_folder();
        fs::create_dir(case.certs()).unwrap();
        case
    }

    fn without_folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, instance: "one", existing: ExistingHosts::Prepend, roots: Vec::new() }
    }

    fn certs(&self) -> PathBuf {
        self.folder.path().join("certs.d")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.certs().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn get(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn try_round(&self, takeover: bool, hosts: &[&str]) -> Result<Outcome, CertsDirError> {
        let hosts: Vec<UpstreamHost> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let (certs_dir, instance) = (self.certs(), self.instance);
        let existing = self.existing;
        let roots = &self.roots;
        Round { certs_dir: &certs_dir, roots, instance, mirror: MIRROR, existing, takeover }
            .write(&hosts)
    }

    fn write(&self, hosts: &[&str]) -> Outcome {
        self.try_round(true, hosts).unwrap()
    }

    fn again(&self, hosts: &[&str]) -> Outcome {
        self.try_round(false, hosts).unwrap()
    }

    fn withdraw(&self) -> Outcome {
        round::withdraw(&self.certs(), &Owner::Any, false).unwrap()
    }

    /// Every file below, with its text; folders end with a slash.
    fn tree(&self) -> BTreeMap<String, String> {
        let mut tree = BTreeMap::new();
        let mut todo = vec![self.folder.path().to_owned()];
        while let Some(folder) = todo.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.folder.path()).unwrap().display().to_string();
                if path.is_symlink() {
                    tree.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
                } else if path.is_dir() {
                    tree.insert(name + "/", String::new());
                    todo.push(path);
                } else {
                    let text = if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                    tree.insert(name, String::from_utf8(text).unwrap());
                }
            }
        }
        tree
    }

    /// Whether `name` has our entry in front of the hosts of `original`.
    #[track_caller]
    fn is_mirrored(&self, name: &str, original: Option<&str>) {
        let text = self.get(name);
        let mark = mark::parse(text.as_bytes()).unwrap_or_else(|| panic!("{name}: {text:?}"));
        assert!(mark.intact && mark.instance == self.instance, "{text}");
        let merged = crate::mirror::hosts_toml::merge(original.map(str::as_bytes), MIRROR);
        assert_eq!(mark::body(text.as_bytes()), merged.unwrap().as_bytes());
    }

    /// Writes twice, withdraws, and expects the beginning.
    #[track_caller]
    fn comes_and_goes(&self, host: &str, file: &str, original: Option<&str>) {
        let before = self.tree();
        assert_eq!(self.write(&[host]).mirrored, [host]);
        self.is_mirrored(file, original);
        assert_eq!(self.again(&[host]).changes, [], "a second round changes nothing");
        self.withdraw();
        assert_eq!(self.tree(), before);
    }

    /// Refuses with `why`, and touches nothing.
    #[track_caller]
    fn is_left_alone(&self, host: &str, why: &str) {
        let before = self.tree();
        let outcome = self.write(&[host]);
        assert_eq!(outcome.mirrored, [] as [String; 0]);
        assert!(outcome.left[0].1.contains(why), "{:?}", outcome.left);
        assert_eq!(self.tree(), before);
        self.withdraw();
        assert_eq!(self.tree(), before);
    }
}

#[test]
fn a_registry_without_a_folder_gets_one_and_loses_it() {
    Case::new().comes_and_goes("docker.io", "docker.io/hosts.toml", None);
}

#[test]
fn a_port_is_written_without_a_colon() {
    Case::new().comes_and_goes("reg.test:5000", "reg.test_5000_/hosts.toml", None);
}

#[test]
fn a_folder_with_a_colon_is_used_if_it_is_the_only_one() {
    let case = Case::new();
    case.put("reg.test:5000/hosts.toml", FOREIGN);
    case.comes_and_goes("reg.test:5000", "reg.test:5000/hosts.toml", Some(FOREIGN));
    case.put("reg.test_5000_/hosts.toml", OTHER);
    case.comes_and_goes("reg.test:5000", "reg.test_5000_/hosts.toml", Some(OTHER));
}

#[test]
fn a_mirror_of_somebody_else_is_asked_after_the_cache_and_comes_back() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    case.comes_and_goes("docker.io", "docker.io/hosts.toml", Some(FOREIGN));
}

#[test]
fn an_empty_folder_stays() {
    let case = Case::new();
    fs::create_dir(case.path("docker.io")).unwrap();
    case.comes_and_goes("docker.io", "docker.io/hosts.toml", None);
}

#[test]
fn the_mirror_for_all_registries_is_asked_after_the_cache() {
    let case = Case::new();
    case.put("_default/hosts.toml", FOREIGN);
    case.comes_and_goes("docker.io", "docker.io/hosts.toml", Some(FOREIGN));
    case.write(&["docker.io"]);
    case.put("_default/hosts.toml", OTHER);
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(OTHER));
}

#[test]
fn a_mirror_for_all_with_a_file_beside_it_is_left_alone() {
    let case = Case::new();
    case.put("_default/hosts.toml", "[host.\"https://corp.test\"]\n  ca = \"corp.pem\"\n");
    case.is_left_alone("docker.io", "corp.pem");
}

#[test]
fn certificates_without_a_hosts_toml_are_left_alone() {
    for name in ["ca.crt", "client.cert", "client.key"] {
        for folder in ["docker.io", "_default"] {
            let case = Case::new();
            case.put(&format!("{folder}/{name}"), "pem");
            case.is_left_alone("docker.io", "certificate files");
        }
    }
}

#[test]
fn whoever_wants_mirrors_left_alone_gets_that() {
    for name in ["docker.io/hosts.toml", "_default/hosts.toml", "_default/ca.crt"] {
        let case = Case { existing: ExistingHosts::Leave, ..Case::new() };
        case.put(name, FOREIGN);
        case.is_left_alone("docker.io", "");
    }
    let case = Case { existing: ExistingHosts::Leave, ..Case::new() };
    case.comes_and_goes("docker.io", "docker.io/hosts.toml", None);
}

#[test]
fn a_change_of_mind_to_leave_mirrors_alone_withdraws() {
    let mut case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    case.write(&["docker.io"]);
    case.existing = ExistingHosts::Leave;
    assert_eq!(case.again(&["docker.io"]).left.len(), 1);
    assert_eq!(case.tree(), before);
}

#[test]
fn what_is_not_a_plain_file_or_folder_is_left_alone_and_named() {
    let case = Case::new();
    fs::create_dir_all(case.path("docker.io/hosts.toml")).unwrap();
    case.is_left_alone("docker.io", "a folder");
    let case = Case::new();
    case.put("elsewhere", OTHER);
    fs::create_dir(case.path("docker.io")).unwrap();
    symlink("../elsewhere", case.path("docker.io/hosts.toml")).unwrap();
    case.is_left_alone("docker.io", "symbolic link");
    let case = Case::new();
    fs::create_dir(case.path("docker.io")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    let path = case.path("docker.io/hosts.toml");
    rustix::fs::mknodat(rustix::fs::CWD, path, fifo, 0o644.into(), 0).unwrap();
    case.is_left_alone("docker.io", "not a regular file");
    let case = Case::new();
    case.put("docker.io", "a file");
    case.is_left_alone("docker.io", "not a folder");
    let case = Case::new();
    fs::create_dir(case.path("other")).unwrap();
    symlink("other", case.path("docker.io")).unwrap();
    case.is_left_alone("docker.io", "symbolic link");
    let case = Case::new();
    case.put("docker.io/hosts.toml", &"\n".repeat((1 << 20) + 1));
    case.is_left_alone("docker.io", "1 MiB");
    let case = Case::new();
    case.put("docker.io/hosts.toml", "[host");
    case.is_left_alone("docker.io", "not valid TOML");
}

#[test]
fn a_file_that_would_be_too_large_with_our_entry_is_left_alone() {
    for size in [1 << 20, (1 << 20) - 200] {
        let case = Case::new();
        let comment = format!("#{}\n", "x".repeat(size - FOREIGN.len() - 2));
        case.put("docker.io/hosts.toml", &format!("{comment}{FOREIGN}"));
        case.is_left_alone("docker.io", "1 MiB");
    }
    let case = Case::new();
    let comment = format!("#{}\n", "x".repeat((1 << 20) - 8192));
    case.put("docker.io/hosts.toml", &format!("{FOREIGN}{comment}"));
    let before = case.tree();
    case.write(&["docker.io"]);
    let (certs_dir, anybody) = (case.certs(), Owner::Any);
    assert_eq!(case.again(&["docker.io"]).changes, []);
    round::withdraw(&certs_dir, &anybody, false).unwrap();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_newer_instance_takes_over_and_the_older_one_leaves_it_in_peace() {
    let mut case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    case.write(&["docker.io", "ghcr.io"]);
    case.instance = "two";
    case.write(&["docker.io", "ghcr.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(FOREIGN));
    case.instance = "one";
    assert_eq!(case.again(&["docker.io", "ghcr.io"]).changes, []);
    let older = Owner::Instance("one".to_owned());
    assert_eq!(round::withdraw(&case.certs(), &older, false).unwrap().changes, []);
    case.instance = "two";
    case.is_mirrored("docker.io/hosts.toml", Some(FOREIGN));
    case.is_mirrored("ghcr.io/hosts.toml", None);
    let newer = Owner::Instance("two".to_owned());
    round::withdraw(&case.certs(), &newer, false).unwrap();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_dry_run_touches_nothing_and_shows_everything() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    let hosts = ["docker.io".parse().unwrap(), "ghcr.io".parse().unwrap()];
    let (certs_dir, existing) = (case.certs(), ExistingHosts::Prepend);
    let (instance, mirror, roots) = ("one", MIRROR, &[]);
    let round = Round { certs_dir: &certs_dir, roots, instance, mirror, existing, takeover: true };
    let preview = round.preview(&hosts).unwrap();
    assert_eq!(case.tree(), before);
    assert_eq!(round.write(&hosts).unwrap(), preview);
    let written = case.tree();
    let preview = round::withdraw(&certs_dir, &Owner::Any, true).unwrap();
    assert_eq!(case.tree(), written);
    assert_eq!(case.withdraw(), preview);
    assert_eq!(case.tree(), before);
}

#[test]
fn the_mode_of_a_mirror_with_secrets_is_kept() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let path = case.path("docker.io/hosts.toml");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    case.write(&["docker.io", "ghcr.io"]);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&case.path("docker.io/hosts.toml.larder-original")), 0o600);
    assert_eq!(mode(&case.path("ghcr.io/hosts.toml")), 0o644);
    assert_eq!(mode(&case.path("ghcr.io")), 0o755);
    case.withdraw();
    assert_eq!(mode(&path), 0o600);
}
