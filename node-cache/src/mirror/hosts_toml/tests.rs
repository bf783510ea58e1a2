use proptest::prelude::*;

use super::*;

const MIRROR: &str = "http://127.0.0.1:5055";
const ENTRY: &str = "[host.\"http://127.0.0.1:5055\"]\n  capabilities = [\"pull\", \"resolve\"]\n  \
                     dial_timeout = \"1s\"\n";

fn merged(original: &str) -> Result<String, Unmergeable> {
    merge(Some(original.as_bytes()), MIRROR)
}

#[test]
fn without_an_original_there_is_our_entry_alone() {
    assert_eq!(merge(None, MIRROR).unwrap(), ENTRY);
    assert_eq!(merged("").unwrap(), ENTRY);
}

#[test]
fn our_entry_stands_behind_the_root_keys_and_in_front_of_every_table() {
    for (before, after) in [
        ("server = \"https://a\"\n", ""),
        ("server = \"https://a\"", ""),
        ("", "[host.\"https://a\"]\n"),
        ("# licence\n", "[host.\"https://a\"] # nearest\n  ca = \"/a.pem\"\n"),
        ("server = \"https://a\"\n[header]\n", ""),
        ("x = \"\"\"\n[host.y]\n\"\"\"\n", "[host.\"https://a\"]\n"),
        ("", "  [host.\"https://a\".header]\n  x = [\"1\"]\n[host.\"https://a\"]\n[host.b]\n"),
        ("", "[host]\n[host.\"https://a\"]\n"),
        ("", "[other]\nx = 1\n[host.\"https://a\"]\n"),
    ] {
        // A table of the root comes behind ours as well, or the root keys would not be the root's.
        let original = format!("{before}{after}");
        let text = merged(&original).unwrap();
        let place = text.find(ENTRY).unwrap();
        assert!(!text[..place].lines().any(|line| line == "[header]"), "{text}");
        let rest = text.replacen(ENTRY, "", 1);
        assert!(alike(Some(rest.as_bytes()), Some(original.as_bytes())), "{text}");
        let document: toml_edit::DocumentMut = text.parse().unwrap();
        assert_eq!(document.get("server").is_some(), before.contains("server"), "{text}");
    }
}

#[test]
fn windows_line_ends_are_read_and_a_byte_order_mark_is_refused_as_containerd_does() {
    let original = "server = \"https://a\"\r\n[host.\"https://b\"]\r\n  x = 1\r\n";
    let marked = format!("\u{feff}{original}");
    assert_eq!(merged(&marked), Err(Unmergeable::ByteOrderMark));
    let text = merged(original).unwrap();
    assert_eq!(Parsed::of(&text).unwrap().hosts, [MIRROR, "https://b"]);
}

#[test]
fn what_cannot_be_merged_says_what_is_wrong() {
    use Unmergeable as U;
    for (original, problem) in [
        ("host = { \"https://a\" = {} }\n", U::Inline),
        ("host.\"https://a\".capabilities = [\"pull\"]\n", U::Inline),
        ("[host]\n\"https://a\".capabilities = [\"pull\"]\n", U::Inline),
        ("[host]\n\"https://a\" = { capabilities = [\"pull\"] }\n", U::Inline),
        ("host = \"https://a\"\n", U::HostIsNoTable),
        ("[[host]]\nx = 1\n", U::HostIsNoTable),
        ("[host.\"http://127.0.0.1:5055\"]\n", U::NamesMirror(MIRROR.to_owned())),
        ("[host.\"HTTPS://127.0.0.1:5055/\"]\n", U::NamesMirror(MIRROR.to_owned())),
        ("server = \"http://127.0.0.1:5055\"\n", U::NamesMirror(MIRROR.to_owned())),
    ] {
        assert_eq!(merged(original), Err(problem), "{original}");
    }
    for original in ["[host", "server = https://a\n", "a = 1\na = 2\n", "\u{0}"] {
        assert!(matches!(merged(original), Err(U::NotToml(_))), "{original:?}");
    }
    assert_eq!(merge(Some(b"a = \"\xff\"\n"), MIRROR), Err(U::NotText));
    assert_eq!(merge(Some(&vec![b'\n'; MAX_SIZE + 1]), MIRROR), Err(U::TooLarge));
}

#[test]
fn a_file_that_containerd_ignores_is_left_alone_with_the_key_that_is_wrong() {
    for (original, wrong) in [
        ("[host.\"https://c\"]\ncapabilities = [\"fly\"]\n", "host.\"https://c\".capabilities"),
        ("[host.\"https://c\"]\ndial_timeout = \"1 s\"\n", "host.\"https://c\".dial_timeout"),
        ("[host.\"https://c\"]\nskip_verify = \"yes\"\n", "host.\"https://c\".skip_verify"),
        ("server = 1\n", "server"),
        ("capabilities = \"pull\"\n", "capabilities"),
        ("[host.\"https://c\"]\nca = 1\n", "host.\"https://c\".ca"),
        ("[host.\"https://c\"]\nheader = 1\n", "host.\"https://c\".header"),
    ] {
        match merged(original) {
            Err(Unmergeable::Ignored { key, .. }) => assert_eq!(key, wrong),
            other => panic!("{original}: {other:?}"),
        }
    }
    let good = "[host.\"https://c\"]\ncapabilities = [\"Pull\"]\ndial_timeout = \"1m1.5s\"\n\
                client = [[\"/c\", \"/k\"]]\nheader = {a = \"b\"}\n";
    assert!(merged(good).is_ok() || matches!(merged(good), Err(Unmergeable::Inline)), "{good}");
}

#[test]
fn a_file_name_that_means_another_file_elsewhere_is_found() {
    for (original, name) in [
        ("ca = \"a.pem\"\n", Some("a.pem")),
        ("[host.\"https://a\"]\nca = [\"/x\", \"b.pem\"]\n", Some("b.pem")),
        ("[host.\"https://a\"]\nclient = [[\"c.cert\", \"/c.key\"]]\n", Some("c.cert")),
        ("[host.\"https://a\"]\nca = \"/etc/a.pem\"\n", None),
        ("server = \"https://a\"\n", None),
    ] {
        assert_eq!(relative_file(original.as_bytes()).as_deref(), name, "{original}");
    }
}

/// A `hosts.toml` as people write them.
fn any_original() -> impl Strategy<Value = String> {
    let root = prop::sample::select(vec![
        "",
        "# by hand\n",
        "server = \"https://up.test\"\n\n",
        "server = \"https://up.test\" # last resort\n# host tables:\n",
        "capabilities = [\"pull\"]\nskip_verify = true\n",
    ]);
    let body = prop::sample::select(vec![
        "",
        "  capabilities = [\"pull\"]\n",
        "  ca = \"/etc/ca.pem\"\n  # why\n  override_path = true\n",
        "\n  dial_timeout = \"2s\" # slow\n\n",
    ]);
    let nested = prop::bool::ANY;
    let hosts = prop::collection::vec(("[a-z]{1,6}", body, nested), 0..5);
    (root, hosts, prop::bool::ANY).prop_map(|(root, hosts, windows)| {
        let mut text = root.to_owned();
        for (index, (name, body, nested)) in hosts.iter().enumerate() {
            text = format!("{text}[host.\"https://{name}{index}.test\"]\n{body}");
            if *nested {
                let header = "header]\n  x = [\"y\"]\n";
                text = format!("{text}[host.\"https://{name}{index}.test\".{header}");
            }
        }
        if windows { text.replace('\n', "\r\n") } else { text }
    })
}

proptest! {
    #[test]
    fn ours_comes_first_and_the_others_keep_their_order_and_text(original in any_original()) {
        let text = merged(&original).unwrap();
        let before = Parsed::of(&original).unwrap();
        let after = Parsed::of(&text).unwrap();
        prop_assert_eq!(&after.hosts[0], MIRROR);
        prop_assert_eq!(&after.hosts[1..], &before.hosts[..]);
        prop_assert_eq!(after.server, before.server);
        let tables = |text: &str| {
            let document: toml_edit::DocumentMut = text.parse().unwrap();
            let mut root = document.as_table().clone();
            if let Some(Item::Table(hosts)) = root.get_mut("host") {
                hosts.remove(MIRROR);
                let names = hosts.iter().map(|(name, item)| (name.to_owned(), item.to_string()));
                let names: Vec<_> = names.collect();
                root.remove("host");
                return (root.len(), names);
            }
            (root.len(), Vec::new())
        };
        prop_assert_eq!(tables(&text), tables(&original));
    }

    #[test]
    fn what_was_merged_is_stripped_to_what_it_was(original in any_original()) {
        let text = merged(&original).unwrap();
        for mirror in [Some(MIRROR), None] {
            let left = strip(text.as_bytes(), mirror).unwrap();
            let left = left.as_deref().map(str::as_bytes);
            prop_assert!(alike(left, Some(original.as_bytes())), "{:?}", left);
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_produce_what_does_not_parse(bytes: Vec<u8>) {
        if let Ok(text) = merge(Some(&bytes), MIRROR) {
            prop_assert!(Parsed::of(&text).is_ok());
        }
        let _ = strip(&bytes, None);
    }
}
