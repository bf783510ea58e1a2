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
fn the_entries_of_others_outlive_the_copy_that_we_keep_of_them() {
    let kept = "docker.io/hosts.toml.larder-original";
    let case = Case::new();
    case.put("docker.io/hosts.toml", OTHER);
    case.write(&["docker.io"]);
    fs::remove_file(case.path(kept)).unwrap();
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(OTHER));
    assert_eq!(case.get(kept).trim(), OTHER.trim());

    fs::remove_file(case.path(kept)).unwrap();
    round::withdraw(&case.certs(), &Owner::Any, false).unwrap();
    assert_eq!(case.get("docker.io/hosts.toml").trim(), OTHER.trim());
}

#[test]
fn a_mirror_that_was_written_over_ours_is_the_new_original() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    case.write(&["docker.io"]);
    case.put("docker.io/hosts.toml", OTHER);
    let before = case.tree();
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(OTHER));
    case.withdraw();
    assert_eq!(case.get("docker.io/hosts.toml"), OTHER);
    assert_ne!(case.tree(), before, "the old original is gone");
    assert!(!case.path("docker.io/hosts.toml.larder-original").exists());
}

#[test]
fn a_mirror_that_was_written_over_ours_survives_withdrawing() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    case.write(&["docker.io", "ghcr.io"]);
    case.put("docker.io/hosts.toml", OTHER);
    case.put("ghcr.io/hosts.toml", OTHER);
    case.withdraw();
    let tree = case.tree();
    let names: Vec<_> = tree.keys().filter(|name| name.contains("larder")).collect();
    assert_eq!(names, [] as [&String; 0]);
    assert_eq!(case.get("docker.io/hosts.toml"), OTHER);
    assert_eq!(case.get("ghcr.io/hosts.toml"), OTHER);
}

#[test]
fn what_a_person_wrote_into_our_file_is_kept() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    case.write(&["docker.io", "ghcr.io"]);
    for name in ["docker.io", "ghcr.io"] {
        let file = format!("{name}/hosts.toml");
        case.put(&file, &(case.get(&file) + OTHER));
    }
    case.again(&["docker.io", "ghcr.io"]);
    let body = String::from_utf8(mark::body(case.get("docker.io/hosts.toml").as_bytes()).to_vec());
    assert!(body.unwrap().contains("https://other.test"));
    case.withdraw();
    for (name, has_foreign) in [("docker.io", true), ("ghcr.io", false)] {
        let text = case.get(&format!("{name}/hosts.toml"));
        assert!(text.contains("https://other.test") && !text.contains(MIRROR), "{text}");
        assert_eq!(text.contains("https://corp.test"), has_foreign, "{text}");
    }
}

#[test]
fn a_change_of_our_own_entry_is_taken_back() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    case.write(&["docker.io"]);
    let text = case.get("docker.io/hosts.toml");
    case.put("docker.io/hosts.toml", &text.replace("\"1s\"", "\"9s\""));
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(FOREIGN));
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_file_that_was_deleted_is_written_again() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    case.write(&["docker.io", "ghcr.io"]);
    for name in ["docker.io", "ghcr.io"] {
        fs::remove_file(case.path(name).join(HOSTS)).unwrap();
    }
    case.again(&["docker.io", "ghcr.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(FOREIGN));
    case.is_mirrored("ghcr.io/hosts.toml", None);
    fs::remove_dir_all(case.path("ghcr.io")).unwrap();
    case.again(&["docker.io", "ghcr.io"]);
    case.is_mirrored("ghcr.io/hosts.toml", None);
    for name in ["docker.io", "ghcr.io"] {
        fs::remove_file(case.path(name).join(HOSTS)).unwrap();
    }
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_registry_that_was_taken_out_is_withdrawn() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    case.write(&["docker.io", "ghcr.io"]);
    case.again(&["ghcr.io"]);
    assert_eq!(case.get("docker.io/hosts.toml"), FOREIGN);
    case.is_mirrored("ghcr.io/hosts.toml", None);
    case.again(&[]);
    assert_eq!(case.tree(), before);
}

#[test]
fn a_file_that_somebody_put_into_our_folder_keeps_it() {
    let case = Case::new();
    case.write(&["docker.io"]);
    case.put("docker.io/notes.txt", "mine");
    case.withdraw();
    let names: Vec<String> = case.tree().into_keys().collect();
    assert_eq!(names, ["certs.d/", "certs.d/docker.io/", "certs.d/docker.io/notes.txt"]);
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

#[test]
fn what_a_dead_process_left_unfinished_is_removed() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    case.put("_default/hosts.toml", OTHER);
    let before = case.tree();
    let litter = || {
        case.put(".larder-tmp-new-ghcr.io/hosts.toml", "half");
        case.put(".larder-tmp-gone-quay.io/.larder-created", "");
        case.put("docker.io/.larder-tmp-hosts.toml", "half");
        case.put("docker.io/hosts.toml.larder-original", FOREIGN);
    };
    litter();
    case.withdraw();
    assert_eq!(case.tree(), before);
    litter();
    case.comes_and_goes_after_litter();
    assert_eq!(case.tree(), before);
}

impl Case {
    fn comes_and_goes_after_litter(&self) {
        self.write(&["docker.io", "ghcr.io"]);
        self.is_mirrored("docker.io/hosts.toml", Some(FOREIGN));
        self.is_mirrored("ghcr.io/hosts.toml", Some(OTHER));
        self.withdraw();
    }
}

#[test]
fn a_folder_that_was_being_removed_comes_back_for_a_file_of_somebody_else() {
    let case = Case::new();
    case.put(".larder-tmp-gone-docker.io/notes.txt", "mine");
    case.put(".larder-tmp-gone-docker.io/.larder-created", "");
    case.withdraw();
    assert_eq!(case.get("docker.io/notes.txt"), "mine");
    assert!(!case.path("docker.io/.larder-created").exists());
}

#[test]
fn a_missing_certs_d_is_made_and_removed() {
    let case = Case::without_folder();
    case.comes_and_goes("docker.io", "docker.io/hosts.toml", None);
    case.write(&["docker.io"]);
    case.put("quay.io/hosts.toml", OTHER);
    case.withdraw();
    assert_eq!(case.get("quay.io/hosts.toml"), OTHER);
}

#[test]
fn a_certs_d_behind_a_link_is_followed() {
    let case = Case::without_folder();
    fs::create_dir(case.folder.path().join("real")).unwrap();
    symlink("real", case.certs()).unwrap();
    case.comes_and_goes("docker.io", "docker.io/hosts.toml", None);
}

#[test]
fn a_certs_d_that_is_none_is_an_error_for_all() {
    let case = Case::without_folder();
    fs::write(case.certs(), "").unwrap();
    let error = case.try_round(true, &["docker.io"]).unwrap_err();
    assert!(error.to_string().contains("is not a folder"), "{error}");
    let case = Case::without_folder();
    symlink("nowhere", case.certs()).unwrap();
    let error = case.try_round(true, &["docker.io"]).unwrap_err();
    assert!(error.to_string().contains("link to nothing"), "{error}");
}

#[test]
fn a_certs_d_of_somebody_else_is_an_error_for_all() {
    let case = Case::new();
    if std::os::unix::fs::chown(case.certs(), Some(12345), None).is_err() {
        return; // Only root can give a folder away.
    }
    let error = case.try_round(true, &["docker.io"]).unwrap_err();
    assert!(error.to_string().contains("belongs to user 12345"), "{error}");
}

#[test]
fn a_certs_d_that_was_replaced_is_filled_again() {
    let case = Case::new();
    case.write(&["docker.io"]);
    fs::remove_dir_all(case.certs()).unwrap();
    fs::create_dir(case.certs()).unwrap();
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", None);
}

#[test]
fn a_colon_path_leads_to_the_folder_until_it_is_withdrawn() {
    let case = Case::new();
    let before = case.tree();
    let link = format!("{}:/etc/docker/certs.d", case.certs().display());
    case.write(&["docker.io"]);
    for _ in 0..2 {
        assert!(CertsDir::open(&case.certs()).unwrap().unwrap().repair(&link).unwrap());
        assert!(Path::new(&link).join("docker.io/hosts.toml").is_file());
    }
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_colon_path_that_somebody_else_made_is_left_alone() {
    let case = Case::new();
    let link = format!("{}:/certs.d", case.certs().display());
    fs::create_dir_all(&link).unwrap();
    let before = case.tree();
    assert!(!CertsDir::open(&case.certs()).unwrap().unwrap().repair(&link).unwrap());
    assert!(!CertsDir::open(&case.certs()).unwrap().unwrap().repair("/etc/../x:y").unwrap());
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_colon_path_is_forgotten_when_the_list_becomes_another_one() {
    let case = Case::new();
    let before = case.tree();
    case.write(&["docker.io"]);
    let list = |more: &str| format!("{}:{more}", case.certs().display());
    let (one, other) = (list("/etc/docker/certs.d"), list("/etc/other/deep/certs.d"));
    let repair = |list: &str| CertsDir::open(&case.certs()).unwrap().unwrap().repair(list).unwrap();
    for (now, then) in [(&one, &other), (&other, &one), (&one, &other)] {
        assert!(repair(now));
        assert!(Path::new(now).join("docker.io/hosts.toml").is_file());
        assert!(Path::new(then).symlink_metadata().is_err(), "{then} is left");
    }
    assert!(!Path::new(&list("/etc/other")).exists(), "a folder of {other} is left");
    // One that is no path at all ends it as well.
    assert!(!repair("/etc/../x:y"));
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_colon_path_is_taken_away_although_the_folder_with_its_record_was_replaced() {
    for again in [true, false] {
        let case = Case::new();
        let before = case.tree();
        let link = format!("{}:/etc/docker/certs.d", case.certs().display());
        let repair = || CertsDir::open(&case.certs()).unwrap().unwrap().repair(&link).unwrap();
        case.write(&["docker.io"]);
        assert!(repair());
        fs::remove_dir_all(case.certs()).unwrap();
        fs::create_dir(case.certs()).unwrap();
        if again {
            case.again(&["docker.io"]);
            assert!(repair());
        }
        case.withdraw();
        assert_eq!(case.tree(), before, "with a round between: {again}");
    }
}

#[test]
fn a_colon_path_is_taken_away_when_the_folder_is_gone() {
    let case = Case::new();
    let link = format!("{}:/etc/docker/certs.d", case.certs().display());
    case.write(&["docker.io"]);
    assert!(CertsDir::open(&case.certs()).unwrap().unwrap().repair(&link).unwrap());
    fs::remove_dir_all(case.certs()).unwrap();
    let preview = round::withdraw(&case.certs(), &Owner::Any, true).unwrap();
    assert_eq!(preview.changes.len(), 1);
    assert!(Path::new(&link).is_symlink());
    assert_eq!(case.withdraw().changes, preview.changes);
    assert_eq!(case.tree(), BTreeMap::new());
}

#[test]
fn a_link_beside_the_folder_that_somebody_else_made_stays() {
    let case = Case::new();
    let folder = PathBuf::from(format!("{}:/theirs", case.certs().display()));
    fs::create_dir_all(&folder).unwrap();
    symlink(case.certs(), folder.join("certs.d")).unwrap();
    symlink("nowhere", folder.join("other")).unwrap();
    let before = case.tree();
    case.write(&["docker.io"]);
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn a_folder_whose_maker_was_killed_is_swept_from_beside_it() {
    let beside = |case: &Case| {
        let path = case.folder.path().join(".larder-tmp-new-certs.d");
        fs::create_dir(&path).unwrap();
        fs::write(path.join(CREATED), "").unwrap();
        path
    };
    // Somebody else has made the folder since.
    let case = Case::new();
    let left = beside(&case);
    case.write(&["docker.io"]);
    assert!(!left.exists());
    // Nobody has, and it is taken away by hand.
    let case = Case::without_folder();
    let left = beside(&case);
    case.withdraw();
    assert!(!left.exists());
    assert_eq!(case.tree(), BTreeMap::new());
}

/// `certs.d` as the first or second of two roots; the other is `other.d`.
fn among(ours_is_first: bool) -> Case {
    let mut case = Case::new();
    let other = case.folder.path().join("other.d");
    fs::create_dir(&other).unwrap();
    case.roots = vec![case.certs(), other];
    if !ours_is_first {
        case.roots.reverse();
    }
    case
}

#[test]
fn what_the_second_root_has_for_a_registry_is_asked_after_the_cache() {
    for name in ["docker.io", "_default"] {
        let case = among(true);
        case.put(&format!("../other.d/{name}/hosts.toml"), FOREIGN);
        case.comes_and_goes("docker.io", "docker.io/hosts.toml", Some(FOREIGN));
        case.write(&["docker.io"]);
        case.put(&format!("../other.d/{name}/hosts.toml"), OTHER);
        case.again(&["docker.io"]);
        case.is_mirrored("docker.io/hosts.toml", Some(OTHER));
    }
    let case = among(true);
    case.put("../other.d/reg.test:5000/hosts.toml", FOREIGN);
    case.put("../other.d/_default/hosts.toml", OTHER);
    case.comes_and_goes("reg.test:5000", "reg.test_5000_/hosts.toml", Some(FOREIGN));
    case.put("_default/hosts.toml", "[host.\"https://nearer.test\"]\n");
    let nearer = Some("[host.\"https://nearer.test\"]\n");
    case.comes_and_goes("reg.test:5000", "reg.test_5000_/hosts.toml", nearer);
}

#[test]
fn what_the_second_root_has_is_left_alone_where_mirrors_are() {
    for name in ["docker.io/hosts.toml", "_default/hosts.toml", "docker.io/ca.crt"] {
        let case = Case { existing: ExistingHosts::Leave, ..among(true) };
        case.put(&format!("../other.d/{name}"), FOREIGN);
        case.is_left_alone("docker.io", "other.d/");
    }
    let case = among(true);
    case.put("../other.d/docker.io/hosts.toml", "[host.\"https://a\"]\n  ca = \"a.pem\"\n");
    case.is_left_alone("docker.io", "a.pem");
}

#[test]
fn what_comes_to_the_second_root_later_is_noticed() {
    let case = Case { existing: ExistingHosts::Leave, ..among(true) };
    case.write(&["docker.io"]);
    case.put("../other.d/docker.io/hosts.toml", FOREIGN);
    assert!(case.again(&["docker.io"]).left[0].1.contains("Prepend"));
    assert!(!case.path("docker.io").exists(), "ours would hide it");
}

#[test]
fn a_first_root_that_hides_ours_is_named() {
    for name in ["docker.io", "_default"] {
        let case = among(false);
        assert_eq!(case.write(&["docker.io"]).mirrored, ["docker.io"]);
        fs::create_dir(case.folder.path().join("other.d").join(name)).unwrap();
        let outcome = case.again(&["docker.io"]);
        assert_eq!(outcome.mirrored, [] as [&str; 0]);
        let why = &outcome.left[0].1;
        assert!(why.contains("other.d/") && why.contains("certsDir"), "{why}");
        assert!(!case.path("docker.io").exists(), "what is never read is withdrawn");
    }
    let case = among(false);
    symlink("nowhere", case.folder.path().join("other.d/docker.io")).unwrap();
    fs::create_dir(case.folder.path().join("other.d/ghcr.io")).unwrap();
    case.comes_and_goes("docker.io", "docker.io/hosts.toml", None);
}

#[test]
fn the_other_spelling_of_a_port_that_comes_later_is_asked_after_the_cache() {
    let mut case = Case::new();
    case.write(&["reg.test:5000"]);
    case.put("reg.test:5000/hosts.toml", FOREIGN);
    let theirs = case.tree();
    case.again(&["reg.test:5000"]);
    case.is_mirrored("reg.test_5000_/hosts.toml", Some(FOREIGN));
    case.existing = ExistingHosts::Leave;
    assert!(case.again(&["reg.test:5000"]).left[0].1.contains("reg.test:5000"));
    assert!(!case.path("reg.test_5000_").exists(), "ours would hide it");
    assert_eq!(case.get("reg.test:5000/hosts.toml"), FOREIGN);
    case.existing = ExistingHosts::Prepend;
    case.write(&["reg.test:5000"]);
    case.is_mirrored("reg.test:5000/hosts.toml", Some(FOREIGN));
    case.withdraw();
    let names = |tree: BTreeMap<String, String>| {
        tree.into_keys().filter(|name| !name.contains("_5000_")).collect::<Vec<_>>()
    };
    assert_eq!(names(case.tree()), names(theirs));
}

#[test]
fn certificates_under_the_other_spelling_that_come_later_end_the_mirror() {
    let case = Case::new();
    case.write(&["reg.test:5000"]);
    case.put("reg.test:5000/ca.crt", "pem");
    assert!(case.again(&["reg.test:5000"]).left[0].1.contains("certificate files"));
    assert!(!case.path("reg.test_5000_").exists());
}

impl Case {
    /// The copies of files that could not be read, by text.
    fn copies(&self) -> Vec<String> {
        let tree = self.tree();
        let copies = tree.iter().filter(|(name, _)| name.starts_with("certs.d/.larder-edited-"));
        copies.map(|(_, text)| text.clone()).collect()
    }
}

#[test]
fn our_file_broken_by_hand_is_written_anew_and_what_was_in_it_is_kept() {
    for original in [None, Some(FOREIGN)] {
        let case = Case::new();
        if let Some(original) = original {
            case.put("docker.io/hosts.toml", original);
        }
        let before = case.tree();
        case.write(&["docker.io"]);
        let broken = case.get("docker.io/hosts.toml") + "[host.\"https://mine.test\"\n";
        case.put("docker.io/hosts.toml", &broken);
        let outcome = case.again(&["docker.io"]);
        assert_eq!((outcome.mirrored.len(), outcome.left), (1, Vec::new()));
        case.is_mirrored("docker.io/hosts.toml", original);
        assert_eq!(case.copies(), std::slice::from_ref(&broken));
        // The same again makes no second copy, another one does.
        case.put("docker.io/hosts.toml", &broken);
        case.again(&["docker.io"]);
        assert_eq!(case.copies().len(), 1);
        case.put("docker.io/hosts.toml", &format!("{broken}["));
        case.again(&["docker.io"]);
        assert_eq!(case.copies().len(), 2);
        case.withdraw();
        let mut left = case.tree();
        left.retain(|name, _| !name.contains("/.larder-edited-"));
        assert_eq!(left, before);
    }
}

#[test]
fn our_file_broken_by_hand_is_withdrawn_and_what_was_in_it_is_kept() {
    for original in [None, Some(FOREIGN)] {
        for broken in ["\n[host", "\n\u{0}", "\na = 1\na = 2\n"] {
            let case = Case::new();
            if let Some(original) = original {
                case.put("docker.io/hosts.toml", original);
            }
            let before = case.tree();
            case.write(&["docker.io"]);
            let broken = case.get("docker.io/hosts.toml") + broken;
            case.put("docker.io/hosts.toml", &broken);
            let outcome = case.withdraw();
            assert_eq!((outcome.left, outcome.failed), (Vec::new(), Vec::new()));
            assert_eq!(case.copies(), [broken]);
            let mut left = case.tree();
            left.retain(|name, _| !name.contains("/.larder-edited-"));
            assert_eq!(left, before);
        }
    }
}

#[test]
fn our_file_as_an_editor_of_windows_saves_it_is_written_anew() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    case.write(&["docker.io"]);
    let text = case.get("docker.io/hosts.toml").replace('\n', "\r\n");
    case.put("docker.io/hosts.toml", &format!("\u{feff}{text}"));
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(FOREIGN));
    case.withdraw();
    assert_eq!(case.tree(), before);
}

#[test]
fn an_entry_for_the_cache_that_somebody_wrote_is_named_and_stays() {
    for folder in ["docker.io", "_default"] {
        let case = Case::new();
        let text = format!("[host.\"{MIRROR}\"]\n{OTHER}");
        case.put(&format!("{folder}/hosts.toml"), &text);
        case.is_left_alone("docker.io", "written by hand; Larder cannot withdraw it");
        case.is_left_alone("docker.io", "remove that entry");
    }
}

#[test]
fn what_somebody_writes_at_the_same_moment_stays() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let want = |instance| super::super::plan::Want {
        instance,
        mirror: MIRROR,
        existing: ExistingHosts::Prepend,
        takeover: true,
    };
    let host = "docker.io".parse().unwrap();
    // Instead of the file that was read: another, none, and one of another kind.
    let somebody: [&dyn Fn(); 3] = [
        &|| case.put("docker.io/hosts.toml", OTHER),
        &|| fs::remove_file(case.path("docker.io/hosts.toml")).unwrap(),
        &|| symlink("nowhere", case.path("docker.io/hosts.toml")).unwrap(),
    ];
    for at_the_same_moment in somebody {
        let dir = CertsDir::open(&case.certs()).unwrap().unwrap();
        let entry = dir.entry(&host).unwrap();
        let plan = entry.plan(&want("one")).unwrap();
        at_the_same_moment();
        let theirs = fs::read_link(case.path("docker.io/hosts.toml")).map_err(|_| ());
        let text = case.get("docker.io/hosts.toml");
        let error = entry.apply(&plan).unwrap_err();
        assert!(matches!(error, CertsDirError::Changed { .. }), "{error}");
        assert_eq!(case.get("docker.io/hosts.toml"), text);
        assert_eq!(fs::read_link(case.path("docker.io/hosts.toml")).map_err(|_| ()), theirs);
        assert!(!case.path("docker.io/.larder-swap").exists());
        assert!(!case.path("docker.io").join(ORIGINAL).exists(), "it was put aside for nothing");
    }
    fs::remove_file(case.path("docker.io/hosts.toml")).unwrap();
    case.put("docker.io/hosts.toml", OTHER);
    case.comes_and_goes("docker.io", "docker.io/hosts.toml", Some(OTHER));
}

#[test]
fn what_somebody_writes_while_we_withdraw_stays() {
    // Without anything of theirs before, with an empty folder, with a file, with an edit.
    for case in 0..4 {
        let (kind, case) = (case, Case::new());
        match kind {
            1 => fs::create_dir(case.path("docker.io")).unwrap(),
            2 => case.put("docker.io/hosts.toml", FOREIGN),
            _ => {}
        }
        case.write(&["docker.io"]);
        if kind == 3 {
            case.put("docker.io/hosts.toml", &(case.get("docker.io/hosts.toml") + FOREIGN));
        }
        let dir = CertsDir::open(&case.certs()).unwrap().unwrap();
        let entry = dir.entry_named("docker.io").unwrap();
        let undo = entry.undo(&Owner::Any);
        case.put("docker.io/hosts.toml", OTHER);
        let done = entry.withdraw(&undo);
        if kind > 0 {
            assert!(matches!(done, Err(CertsDirError::Changed { .. })), "{kind}: {done:?}");
        }
        assert_eq!(case.get("docker.io/hosts.toml"), OTHER, "{kind}");
        drop(dir);
        assert_eq!(case.withdraw().failed, []);
        let names: Vec<_> = case.tree().into_keys().collect();
        assert_eq!(names, ["certs.d/", "certs.d/docker.io/", "certs.d/docker.io/hosts.toml"]);
        assert_eq!(case.get("docker.io/hosts.toml"), OTHER, "{kind}");
    }
}

#[test]
fn a_folder_that_somebody_makes_at_the_same_moment_stays() {
    let case = Case::new();
    let dir = CertsDir::open(&case.certs()).unwrap().unwrap();
    let host = "docker.io".parse().unwrap();
    let entry = dir.entry(&host).unwrap();
    let want = super::super::plan::Want {
        instance: "one",
        mirror: MIRROR,
        existing: ExistingHosts::Prepend,
        takeover: true,
    };
    let plan = entry.plan(&want).unwrap();
    fs::create_dir(case.path("docker.io")).unwrap();
    let before = case.tree();
    let error = entry.apply(&plan).unwrap_err();
    assert!(matches!(error, CertsDirError::Changed { .. }), "{error}");
    assert_eq!(case.tree(), before);
}

#[test]
fn what_came_out_of_its_place_when_a_process_was_killed_goes_back_if_it_is_new() {
    let case = Case::new();
    case.put("docker.io/hosts.toml", FOREIGN);
    let before = case.tree();
    case.write(&["docker.io"]);
    let ours = case.get("docker.io/hosts.toml");
    // Killed after the exchange, nobody had interfered.
    case.put("docker.io/.larder-swap", FOREIGN);
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(FOREIGN));
    // Killed before it.
    case.put("docker.io/.larder-swap", &ours);
    case.withdraw();
    assert_eq!(case.tree(), before);
    // Killed after it, and somebody had been faster.
    case.write(&["docker.io"]);
    case.put("docker.io/.larder-swap", OTHER);
    case.again(&["docker.io"]);
    case.is_mirrored("docker.io/hosts.toml", Some(OTHER));
    case.put("docker.io/.larder-swap", FOREIGN);
    case.withdraw();
    assert_eq!(case.tree(), before);
    // Killed while the file was taken away, and somebody had been faster.
    fs::rename(case.path("docker.io/hosts.toml"), case.path("docker.io/.larder-swap")).unwrap();
    case.withdraw();
    assert_eq!(case.tree(), before);
}
