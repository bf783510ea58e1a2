//! Files that import others.

use super::*;

#[test]
fn the_edit_for_2_x_with_imports_is_a_drop_in_that_wins() {
    let drop_ins = "/etc/containerd/conf.d";
    for text in [
        default_2(4, "'conf.d/*.toml'", BUILT_IN),
        default_2(3, "'/etc/containerd/conf.d/*.toml'", BUILT_IN),
        "version = 3\nimports = ['conf.d/*.toml']".to_owned(),
    ] {
        let edit = edit(root(&text));
        let mut parts = edit.splitn(2, "\n\n");
        assert!(
            parts.next().unwrap().ends_with(&format!("{drop_ins}/zz-larder.toml with")),
            "{edit}"
        );
        let drop_in = parts.next().unwrap().split("\n\nThen").next().unwrap();
        let files = [(ROOT, &*text), ("/etc/containerd/conf.d/zz-larder.toml", drop_in)];
        assert_eq!(inspected(&files, CERTS), Verdict::Effective, "{drop_in}");
    }
}

#[test]
fn later_files_override_and_files_that_files_import_come_last() {
    let text = format!("version = 3\nimports = ['b/*.toml', 'a.toml']\n{}", images("/root"));
    let files = |nested: &str, a: &str, b: &str| {
        let b = format!("version = 3\nimports = ['../nested.toml']\n{b}");
        let files = [
            (ROOT, text.as_str()),
            ("/etc/containerd/a.toml", a),
            ("/etc/containerd/b/1.toml", &b),
            ("/etc/containerd/nested.toml", nested),
        ];
        inspected(&files, CERTS)
    };
    let (ours, other) = (format!("version = 3\n{}", images(CERTS)), "version = 3\n");
    assert_eq!(files(&ours, other, &images("/b")), Verdict::Effective);
    assert_eq!(files(other, &ours, &images("/b")), Verdict::Effective);
    assert_eq!(files(other, other, &images(CERTS)), Verdict::Effective);
    let verdict = files(&ours.replace(CERTS, "/nested"), &ours, "");
    assert!(matches!(&verdict, Verdict::Elsewhere { path, .. } if path == Path::new("/nested")));
    assert!(edit(verdict).contains("/etc/containerd/nested.toml"));
}

#[test]
fn a_drop_in_of_a_lower_version_counts_with_its_own_key() {
    let text = "version = 4\nimports = ['conf.d/*.toml']\n";
    for drop_in in
        [format!("version = 2\n{}", cri(CERTS)), format!("version = 3\n{}", images(CERTS))]
    {
        let files = [(ROOT, text), ("/etc/containerd/conf.d/x.toml", &*drop_in)];
        assert_eq!(inspected(&files, CERTS), Verdict::Effective, "{drop_in}");
    }
}

#[test]
fn a_drop_in_of_a_higher_version_is_named() {
    let drop_in = format!("version = 3\n{}", images(CERTS));
    let files = [
        (ROOT, "version = 2\nimports = ['conf.d/*.toml']"),
        ("/etc/containerd/conf.d/x.toml", &*drop_in),
    ];
    assert!(problem(inspected(&files, CERTS)).contains("conf.d/x.toml has version 3"));
}

#[test]
fn a_drop_in_with_a_cri_section_removes_config_path_on_1_x_but_not_on_2_x() {
    let drop_in_2 = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'x'\n";
    let text = format!("version = 2\nimports = ['conf.d/*.toml']\n{}", cri(CERTS));
    let files = [(ROOT, &*text), ("/etc/containerd/conf.d/x.toml", drop_in_2)];
    let edit = edit(inspected(&files, CERTS));
    assert!(edit.starts_with("To /etc/containerd/conf.d/x.toml add"), "{edit}");
    assert!(edit.contains("assumes containerd 1.x"), "{edit}");

    let text = format!("version = 3\nimports = ['conf.d/*.toml']\n{}", images(CERTS));
    let files = [(ROOT, &*text), ("/etc/containerd/conf.d/x.toml", drop_in_2)];
    assert_eq!(inspected(&files, CERTS), Verdict::Effective);
}

#[test]
fn imports_in_a_circle_end() {
    let text = format!("version = 3\nimports = ['config.toml', './a.toml']\n{}", images(CERTS));
    let files = [(ROOT, &*text), ("/etc/containerd/a.toml", "imports = ['config.toml', 'a.toml']")];
    assert_eq!(inspected(&files, CERTS), Verdict::Effective);
}

#[test]
fn more_than_100_files_are_refused() {
    let text = format!("version = 3\nimports = ['conf.d/*.toml']\n{}", images(CERTS));
    let names: Vec<_> = (0..100).map(|n| format!("/etc/containerd/conf.d/{n}.toml")).collect();
    let mut files = vec![(ROOT, text.as_str())];
    files.extend(names.iter().map(|name| (name.as_str(), "version = 3")));
    assert!(problem(inspected(&files, CERTS)).contains("more than 100 files"));
    files.pop();
    assert_eq!(inspected(&files, CERTS), Verdict::Effective);
}
