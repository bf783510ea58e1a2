//! The log.

use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::args::LogFormat;

/// Sends the log to standard error. `level` is a level or a list of filters.
pub fn init(format: LogFormat, level: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Pretty => builder.init(),
    }
    Ok(())
}
