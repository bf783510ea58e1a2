//! The inputs of the fuzz targets, without the fuzzer: what was once found stays repaired.

use std::{fs, path::Path};

#[path = "../../fuzz/src/lib.rs"]
mod properties;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 10] = [
    ("challenge", properties::challenge),
    ("config", properties::config),
    ("containerd_config", properties::containerd_config),
    ("digest", properties::digest),
    ("hosts_toml", properties::hosts_toml),
    ("manifest", properties::manifest),
    ("ns", properties::ns),
    ("path", properties::path),
    ("range", properties::range),
    ("token", properties::token),
];

fn names_in(folder: &Path) -> Vec<String> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = entries.map(|entry| name(entry).into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn t08_every_input_of_the_corpus_keeps_the_properties_of_its_parser() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    assert_eq!(names_in(&corpus), TARGETS.map(|(name, _)| name), "a folder without a target here");
    let mut broken = Vec::new();
    for (target, holds) in TARGETS {
        let inputs = names_in(&corpus.join(target));
        assert!(inputs.len() >= 8, "{target} has {} inputs", inputs.len());
        for input in inputs {
            let bytes = fs::read(corpus.join(target).join(&input)).unwrap();
            // With every cut as well: a parser's worst inputs end too early.
            for end in 0..=bytes.len() {
                let part = &bytes[..end];
                if std::panic::catch_unwind(|| holds(part)).is_err() {
                    broken.push(format!("{target}/{input}, the first {end} bytes"));
                    break;
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
