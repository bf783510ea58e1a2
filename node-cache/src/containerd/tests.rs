//! Configurations as they are found on nodes, shortened to their structure.

mod distributions;
mod imports;

use std::collections::BTreeMap;

use proptest::prelude::*;

use self::distributions::{EKS_2, KUBEADM_1_7, default_2};
use super::*;

const ROOT: &str = "/etc/containerd/config.toml";
const CERTS: &str = "/etc/containerd/certs.d";
const BUILT_IN: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";

/// `files` by name; a pattern `FOLDER/*.toml` lists those directly in the folder.
fn inspected(files: &[(&str, &str)], certs_dir: &str) -> Verdict {
    inspection(files, certs_dir).verdict
}

fn inspection(files: &[(&str, &str)], certs_dir: &str) -> Inspection {
    let files: BTreeMap<_, _> =
        files.iter().map(|(path, text)| (PathBuf::from(path), *text)).collect();
    let read = |path: &Path| {
        let folder = files.keys().any(|file| file.parent() == Some(path));
        let text = files.get(path).map(|text| text.as_bytes().to_vec());
        Ok(text.or(folder.then(Vec::new)))
    };
    let list = |pattern: &Path| {
        let inside = |file: &&PathBuf| file.parent() == pattern.parent();
        files.keys().filter(inside).cloned().collect()
    };
    let files = Files { read: &read, list: &list, resolve: &|_| None };
    inspect(Path::new(ROOT), Path::new(certs_dir), &files)
}

fn root(text: &str) -> Verdict {
    inspected(&[(ROOT, text)], CERTS)
}

fn images(path: &str) -> String {
    format!("[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '{path}'\n")
}

fn cri(path: &str) -> String {
    format!("[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"{path}\"\n")
}

fn edit(verdict: Verdict) -> String {
    match verdict {
        Verdict::Missing { edit }
        | Verdict::Colon { edit, .. }
        | Verdict::Elsewhere { edit, .. } => edit,
        other => panic!("{other:?} has no edit"),
    }
}

fn problem(verdict: Verdict) -> String {
    match verdict {
        Verdict::Unreadable { message } => message,
        other => panic!("{other:?} is not unreadable"),
    }
}

#[test]
fn the_key_of_the_files_own_version_counts_and_no_other() {
    for (version, text, reason) in [
        (2, cri(CERTS), ""),
        (2, images(CERTS), "ConfigPathMissing"),
        (3, images(CERTS), ""),
        (3, cri(CERTS), "ConfigPathMissing"),
        (4, images(CERTS), ""),
        (1, cri(CERTS), "ConfigUnreadable"),
        (5, images(CERTS), "ConfigUnreadable"),
    ] {
        let verdict = root(&format!("version = {version}\n{text}"));
        assert_eq!(verdict.reason(), reason, "version {version}, {text}");
    }
}

#[test]
fn slashes_and_dots_do_not_make_another_folder() {
    for path in
        ["/etc/containerd/certs.d/", "/etc//containerd/./certs.d", "/etc/x/../containerd/certs.d"]
    {
        assert_eq!(root(&format!("version = 3\n{}", images(path))), Verdict::Effective, "{path}");
        let text = format!("version = 3\n{}", images(CERTS));
        assert_eq!(inspected(&[(ROOT, &text)], path), Verdict::Effective, "{path}");
    }
}

#[test]
fn a_list_is_one_folder_for_the_transfer_service_whatever_is_in_it() {
    for path in [BUILT_IN, "/etc/containerd/certs.d:", ":/etc/containerd/certs.d"] {
        let verdict = root(&format!("version = 3\n{}", images(path)));
        assert!(
            matches!(&verdict, Verdict::Colon { path: said, .. } if said == path),
            "{verdict:?}"
        );
        assert!(edit(verdict).contains("colonPathRepair: true"));
        assert_eq!(root(&format!("version = 2\n{}", cri(path))), Verdict::Effective, "{path}");
    }
    let verdict = root(&format!("version = 2\n{}", cri("/a:/b")));
    assert_eq!(verdict.reason(), "ConfigPathElsewhere");
}

#[test]
fn a_list_is_split_when_a_setting_excludes_the_transfer_service() {
    for (setting, local) in [
        ("use_local_image_pull = true", true),
        ("use_local_image_pull = false", false),
        ("discard_unpacked_layers = true", true),
        ("discard_unpacked_layers = false", false),
        ("disable_snapshot_annotations = false", true),
        ("disable_snapshot_annotations = true", false),
        ("max_concurrent_downloads = 10", true),
        ("max_concurrent_downloads = 3", false),
        ("image_pull_with_sync_fs = true", true),
        ("registry.auths.\"https://r.example\" = {username = \"u\"}", true),
    ] {
        let text = format!(
            "version = 3\n[plugins.'io.containerd.cri.v1.images']\n{setting}\n\
             registry.config_path = '{BUILT_IN}'\n"
        );
        let wanted = if local { "" } else { "ColonConfigPath" };
        assert_eq!(root(&text).reason(), wanted, "{setting}");
    }
}

#[test]
fn the_folders_that_containerd_searches_are_those_of_a_list_that_it_splits() {
    let roots = |text: &str| inspection(&[(ROOT, text)], CERTS).roots;
    let both = [PathBuf::from(CERTS), PathBuf::from("/etc/docker/certs.d")];
    assert_eq!(roots(&format!("version = 2\n{}", cri(BUILT_IN))), both);
    assert_eq!(roots(EKS_2), both);
    assert_eq!(roots(&format!("version = 2\n{}", cri(CERTS))), [] as [PathBuf; 0]);
    assert_eq!(roots(&format!("version = 3\n{}", images(BUILT_IN))), [] as [PathBuf; 0]);
    assert_eq!(roots(&format!("version = 2\n{}", cri("/a:/b"))), [] as [PathBuf; 0]);
    let twisted = format!("version = 2\n{}", cri(":/x/../a/:/etc//containerd/certs.d:"));
    assert_eq!(roots(&twisted), [Path::new("/a"), Path::new(CERTS)]);
}

#[test]
fn a_list_in_a_file_of_version_2_depends_on_the_release_unless_a_setting_tells() {
    let judged = |setting: &str| {
        let text = format!("version = 2\n[plugins.'{}']\n{setting}\n", document::CRI);
        inspection(&[(ROOT, &(text + &cri(BUILT_IN)))], CERTS)
    };
    let unknown = judged("");
    assert_eq!(unknown.verdict, Verdict::Effective);
    let Caution { path, message: caution } = unknown.caution.unwrap();
    assert_eq!(path, BUILT_IN);
    for part in ["before 2.1", "containerd --version", "colonPathRepair", CERTS] {
        assert!(caution.contains(part), "{caution}");
    }
    let local = judged("use_local_image_pull = true");
    assert_eq!((local.verdict, local.caution), (Verdict::Effective, None));
    let transfer = judged("use_local_image_pull = false");
    assert_eq!((transfer.verdict.reason(), transfer.caution), ("ColonConfigPath", None));
    // What was written for 1.x outlives the update to 2.x.
    assert!(judged("systemd_cgroup = false").caution.is_some());
    assert_eq!(inspection(&[(ROOT, &format!("version = 2\n{}", cri(CERTS)))], CERTS).caution, None);
}

#[test]
fn every_edit_of_a_single_file_makes_the_verdict_effective_when_it_is_pasted() {
    for version in [2, 3, 4] {
        let text = format!("version = {version}\n");
        let edit = edit(root(&text));
        let paste = edit.split("\n\n").nth(1).unwrap();
        assert_eq!(root(&format!("{text}\n{paste}\n")), Verdict::Effective, "{edit}");
        assert!(edit.contains(ROOT) && edit.contains("restart containerd"), "{edit}");
    }
    // Where the table is there, a second one would be refused: only the line is to paste.
    for text in [KUBEADM_1_7.to_owned(), default_2(3, "", ""), default_2(4, "", BUILT_IN)] {
        let edit = edit(root(&text));
        let line = edit.split("\n\n").nth(1).unwrap();
        assert_eq!(line, format!("config_path = \"{CERTS}\""));
        let old =
            ["config_path = \"\"", "config_path = ''", &format!("config_path = '{BUILT_IN}'")]
                .into_iter()
                .fold(text, |text, old| text.replace(old, line));
        assert_eq!(root(&old), Verdict::Effective, "{old}");
    }
}

#[test]
fn no_edit_for_version_2_is_a_drop_in_because_1_x_would_lose_the_cri_section() {
    let text = "version = 2\nimports = ['/etc/containerd/conf.d/*.toml']";
    assert!(!edit(root(text)).contains("zz-larder"));
}

#[test]
fn without_a_file_the_edit_creates_one_that_is_effective() {
    let other = [("/etc/containerd/other", "")];
    let edit = edit(inspected(&other, CERTS));
    let file = edit.split_once("\n\n").unwrap().1.split("\n\nThen").next().unwrap();
    assert_eq!(root(file), Verdict::Effective, "{edit}");
    assert_eq!(inspected(&[("/etc/hosts", "")], CERTS), Verdict::NotContainerd);
}

#[test]
fn legacy_mirrors_must_go_before_config_path_can_come() {
    let mirrors = "[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'docker.io']\n\
                   endpoint = ['https://mirror.example']\n";
    let verdict = root(&format!("version = 2\n{mirrors}"));
    assert_eq!(verdict.reason(), "ConfigPathMissing");
    let edit = edit(verdict);
    assert!(edit.starts_with("First remove registry.mirrors from /etc/containerd/config.toml"));
    assert!(edit.contains(CERTS), "{edit}");

    let message = problem(root(&format!("version = 2\n{}{mirrors}", cri(CERTS))));
    assert!(message.contains("registry.mirrors") && message.contains("not start"), "{message}");
    let tls =
        "[plugins.'io.containerd.grpc.v1.cri'.registry.configs.'r.example'.tls]\nca_file = '/x'";
    let message = problem(root(&format!("version = 2\n{}{tls}", cri(CERTS))));
    assert!(message.contains("registry.configs.<host>.tls"), "{message}");
    // Credentials are deprecated but allowed.
    let auth = tls.replace(".tls]", ".auth]").replace("ca_file", "username");
    assert_eq!(root(&format!("version = 2\n{}{auth}", cri(CERTS))), Verdict::Effective);
}

#[test]
fn what_containerd_refuses_is_named_with_file_and_place() {
    for (text, wanted) in [
        ("version = 3\n[plugins\n", "/etc/containerd/config.toml, line 2, column 9"),
        ("version = 3\na = 1\na = 2", "/etc/containerd/config.toml, line 3, column 1"),
        ("version = '3'", "/etc/containerd/config.toml: version is not a number"),
        ("version = 3\nimports = 'x'", "imports is not a list of strings"),
        ("version = 3\nimports = ['gone.toml']", "/etc/containerd/gone.toml is imported but"),
        ("version = 3\ndisabled_plugins = ['io.containerd.grpc.v1.cri']", "disabled_plugins"),
        (
            "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = ['x']",
            "config_path is not a string",
        ),
    ] {
        let message = problem(root(text));
        assert!(message.contains(wanted), "{text}: {message}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_cause() {
    let read = |_: &Path| Err(io::Error::from(io::ErrorKind::PermissionDenied));
    let files = Files { read: &read, list: &|_| Vec::new(), resolve: &|_| None };
    let verdict = inspect(Path::new(ROOT), Path::new(CERTS), &files).verdict;
    assert_eq!(problem(verdict), format!("cannot read {ROOT}: permission denied"));
}

#[test]
fn messages_say_what_was_found_and_repeat_the_edit() {
    let verdict = root(&default_2(4, "", BUILT_IN));
    let message = verdict.message();
    assert!(message.contains(BUILT_IN) && message.ends_with(&edit(verdict)), "{message}");
    let verdict = root("version = 2");
    assert!(verdict.message().ends_with(&edit(verdict)));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let read = |_: &Path| Ok(Some(bytes.clone()));
        let files = Files { read: &read, list: &|_| Vec::new(), resolve: &|_| None };
        let verdict = inspect(Path::new(ROOT), Path::new(CERTS), &files).verdict;
        prop_assert!(!verdict.message().is_empty());
    }

    #[test]
    fn no_toml_of_the_right_words_makes_it_panic(
        lines in proptest::collection::vec(
            proptest::sample::select(vec![
                "version = 2", "version = 3", "version = -1", "imports = ['*', '', '/']",
                "imports = [1]", "[plugins]", "[plugins.'io.containerd.cri.v1.images']",
                "plugins = 1", "[plugins.'io.containerd.cri.v1.images'.registry]",
                "[plugins.'io.containerd.grpc.v1.cri'.registry]", "config_path = ':'",
                "config_path = ''", "config_path = '\u{e9}:/x'", "registry = 1", "mirrors = 1",
                "mirrors = {a = 1}", "configs = {a = 1, b = {tls = 1}}", "[[plugins]]", "é = '",
            ]),
            0..8,
        )
    ) {
        let text = lines.join("\n");
        let read = |_: &Path| Ok(Some(text.clone().into_bytes()));
        let list = |_: &Path| vec![PathBuf::from("/a"), PathBuf::new()];
        let files = Files { read: &read, list: &list, resolve: &|_| None };
        let verdict = inspect(Path::new(ROOT), Path::new(CERTS), &files).verdict;
        prop_assert!(!verdict.message().is_empty());
        prop_assert_eq!(verdict.reason().is_empty(), verdict == Verdict::Effective);
    }
}
