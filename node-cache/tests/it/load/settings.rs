//! How large a test is, and that it is alone.

use std::io::Write;

use larder_e2e::soak::Soak;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Mutex, MutexGuard};

/// Two of these tests at once would measure each other. libtest has no such setting.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Waits for its turn, and raises the limit of file descriptors as far as is allowed.
pub async fn alone() -> MutexGuard<'static, ()> {
    let turn = ALONE.lock().await;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    turn
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")),
        Err(_) => default,
    }
}

/// Prints a measurement although the test passes: libtest captures only what macros print.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "    {line}");
}

/// A line of the table that `make soak` prints: so many clients or requests, and no failure. A test
/// that fails drops its case, which counts as one.
pub fn ended(mut soak: Soak, runs: usize) {
    soak.note_all(runs);
    soak.end().unwrap();
}
