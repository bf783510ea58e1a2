//! Following the configuration file.
