//! `larder-operator`: see [`larder_operator`] for how it is built.

use clap::Parser;
use larder_operator::{
    app,
    args::{Cli, Command},
    telemetry,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run(args) => {
            telemetry::init(args.log.log, &args.log.log_level)?;
            app::run(args).await
        }
        Command::Uninstall(args) => {
            telemetry::init(args.log.log, &args.log.log_level)?;
            app::uninstall(args).await
        }
        Command::Crds => {
            #[expect(clippy::print_stdout, reason = "it is what the command is for")]
            for definition in larder_crds::resources::definitions() {
                print!("---\n{}", serde_yaml::to_string(&definition)?);
            }
            Ok(())
        }
    }
}
