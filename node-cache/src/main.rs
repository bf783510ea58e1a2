//! `larder-node`: see [`larder_node_cache`] for how it is built.

use std::process::ExitCode;

use clap::Parser;
use larder_node_cache::{
    app,
    args::{Cli, Command},
    telemetry,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Command::Serve(args) = Cli::parse().command;
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the log may be what could not be set up")]
            {
                eprintln!("larder-node: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(args: larder_node_cache::args::ServeArgs) -> anyhow::Result<()> {
    telemetry::init(args.log, &args.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(app::serve(args));
    // A read from a hung disk must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}
