//! `make image`: Larder's image as an OCI layout.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use larder_e2e::image::static_image::{self, Contents};

/// Makes an OCI layout of static programs and a CA bundle, and nothing else.
///
/// The same programs make the same digest. Prints `DIGEST`; copy the image with
/// `skopeo copy oci:DIR:latest docker://REGISTRY/NAME:TAG`.
#[derive(Parser)]
#[command(name = "image")]
struct Arguments {
    /// A folder that is empty or missing; the layout is written into it
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// A static program, put into / under its own name; the first one is the entry point
    #[arg(long = "binary", value_name = "PATH", required = true)]
    binaries: Vec<PathBuf>,
    /// The certificate authorities that the programs trust, PEM
    #[arg(long, value_name = "PATH", default_value = "/etc/ssl/certs/ca-certificates.crt")]
    ca_bundle: PathBuf,
}

fn main() -> ExitCode {
    let Arguments { output, binaries, ca_bundle } = Arguments::parse();
    match static_image::write(&output, &Contents { binaries, ca_bundle }) {
        Ok(digest) => {
            // safe to ignore: without a terminal there is nobody to tell
            let _ = writeln!(io::stdout(), "{digest}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "image: {error:#}");
            ExitCode::FAILURE
        }
    }
}
