//! The first line of a mirror file of ours: whose it is, and whether it was edited since.

use crate::oci::{Algorithm, Digest};

const PREFIX: &str = "# larder.dev instance=";
const HASH: &str = " sha256=";
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What the first line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which configurator wrote the file.
    pub instance: String,
    /// Whether the rest is what it wrote.
    pub intact: bool,
}

/// The mark of a file; `None` for a file that is not ours. A byte order mark in front, which some
/// editors put there, makes it no less ours.
pub fn parse(file: &[u8]) -> Option<Mark> {
    let plain = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    let (line, rest) = split(plain);
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let (instance, hash) = line.strip_prefix(PREFIX)?.rsplit_once(HASH)?;
    let whole = plain.len() == file.len();
    let intact = whole && Digest::of(Algorithm::Sha256, rest).hex() == hash;
    Some(Mark { instance: instance.to_owned(), intact })
}

/// Whether the file is ours and as it was written.
pub fn is_intact(file: &[u8]) -> bool {
    parse(file).is_some_and(|mark| mark.intact)
}

/// The file with this body.
pub fn seal(instance: &str, body: &str) -> String {
    let hash = Digest::of(Algorithm::Sha256, body.as_bytes());
    format!("{PREFIX}{instance}{HASH}{}\n{body}", hash.hex())
}

/// What comes after the first line.
pub fn body(file: &[u8]) -> &[u8] {
    split(file).1
}

fn split(file: &[u8]) -> (&[u8], &[u8]) {
    match file.iter().position(|&byte| byte == b'\n') {
        Some(end) => (&file[..end], &file[end + 1..]),
        None => (file, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_intact_and_names_its_instance() {
        for body in ["", "a = 1\n", "\r\n", "# larder.dev instance=x sha256=y\n"] {
            let mark = parse(seal("pod-1", body).as_bytes()).unwrap();
            assert_eq!(mark, Mark { instance: "pod-1".to_owned(), intact: true });
            assert_eq!(super::body(seal("pod-1", body).as_bytes()), body.as_bytes());
        }
    }

    #[test]
    fn an_edited_file_is_still_ours_but_not_intact() {
        let edited = seal("pod-1", "a = 1\n") + "b = 2\n";
        assert!(!parse(edited.as_bytes()).unwrap().intact);
        let cut = seal("pod-1", "a = 1\n").replace("a = 1\n", "");
        assert!(!parse(cut.as_bytes()).unwrap().intact);
        let saved = format!("\u{feff}{}", seal("pod-1", "a = 1\n"));
        assert!(!parse(saved.as_bytes()).unwrap().intact);
    }

    #[test]
    fn a_file_of_somebody_else_has_no_mark() {
        for text in
            ["", "\n", "server = \"x\"\n", "# larder.dev\n", "\n# larder.dev instance=a sha256=b"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(b"\xff\xfe"), None);
    }
}
