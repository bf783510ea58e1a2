//! `larder-node`: see [`larder_node_cache`] for how it is built.

use std::process::ExitCode;

use clap::Parser;
use larder_node_cache::{
    app,
    args::{Cli, Command, LogArgs},
    mirror::{agent, once, once::Exit},
    own::{self, Owner},
    telemetry,
};
use rustix::fs::{Gid, Uid};

/// For looks at the disk. As many as a disk can use at once; each costs memory of its own, and
/// tokio's 512 cost 30 MiB more with 256 open streams.
const BLOCKING_THREADS: usize = 32;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the log may be what could not be set up")]
            {
                eprintln!("larder-node: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Serve(args) => {
            let log = args.log.clone();
            let done = |()| Exit::Effective;
            block_on(&log, async { app::serve(args).await.map(done) })
        }
        Command::Configure(args) => {
            let log = args.log.clone();
            if args.once || args.dry_run {
                return block_on(&log, once::configure(args));
            }
            let done = |()| Exit::Effective;
            block_on(&log, async { agent::run(args).await.map(done) })
        }
        Command::Withdraw(args) => {
            telemetry::init(args.log.log, &args.log.log_level)?;
            once::withdraw(&args)
        }
        Command::Own(args) => {
            telemetry::init(args.log.log, &args.log.log_level)?;
            let owner = Owner { uid: Uid::from_raw(args.uid), gid: Gid::from_raw(args.gid) };
            let done = own::give(&args.data, owner)?;
            tracing::info!(
                changed = done.changed,
                skipped = done.skipped,
                "the store has its owner"
            );
            Ok(Exit::Effective)
        }
    }
}

fn block_on<T>(log: &LogArgs, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    telemetry::init(log.log, &log.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let result = runtime.block_on(work);
    // A read from a hung disk must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}
