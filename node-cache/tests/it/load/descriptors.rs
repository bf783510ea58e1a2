//! F-limits: a process that may open few files.

use std::time::Duration;

use larder_e2e::soak::Soak;
use tokio::{net::TcpStream, time::sleep};

use super::{
    clients::Download,
    process::Process,
    settings::{alone, ended, tell},
};
use crate::{
    faulty::Origin,
    larder::{Larder, NodeConfig, Upstream, eventually},
};

const HOST: &str = "reg.test";
const APP: &str = "team/app";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_out_of_file_descriptors_neither_spins_nor_dies_and_recovers() {
    const LIMIT: usize = 256;
    let _turn = alone().await;
    let soak = Soak::of("load-descriptors", 1, 1);
    let origin = Origin::start().await;
    let blob = origin.blob(APP, 1, 1 << 20);
    let config = NodeConfig::new([Upstream::at(HOST, &origin)]);
    let limit = format!("--nofile={LIMIT}:{LIMIT}");
    let mut larder = Larder::stopped(&config).through(&["prlimit", &limit, "--"]);
    larder.start().await;
    let process = Process(larder.id());
    let path = format!("/v2/{APP}/blobs/{}?ns={HOST}", blob.digest);
    let address = larder.pull_address();
    let pull = async || -> std::io::Result<()> {
        Download::start(address, &path, blob.bytes.clone()).await?.finish().await
    };
    pull().await.unwrap();

    // More than it can take; the rest waits in the kernel's queue.
    let mut idle = Vec::new();
    for _ in 0..2 * LIMIT {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let refused = || larder.log().lines_with("cannot accept a connection").len();
    assert!(eventually(5, async || refused() > 0).await, "the limit was not reached");
    let (before, cpu) = (refused(), process.cpu());
    sleep(Duration::from_secs(2)).await;
    let (refusals, cpu) = (refused() - before, process.cpu_since(cpu));
    tell(&format!("out of descriptors for 2 s: {cpu:?} of CPU, {refusals} lines of log"));
    assert!(cpu < Duration::from_millis(500), "{cpu:?} of CPU in 2 s: it spins");
    assert!(refusals <= 40, "{refusals} lines of log in 2 s");

    drop(idle);
    assert!(eventually(5, async || pull().await.is_ok()).await, "no pull after the crowd left");
    assert_eq!(larder.log().lines_with("panicked"), Vec::<String>::new());
    larder.id();
    ended(soak, 2 * LIMIT);
}
