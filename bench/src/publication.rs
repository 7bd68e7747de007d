//! Where what a run found out goes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

/// Files for a report.
#[derive(Debug, Args)]
pub(crate) struct Publication {
    /// Where to write every measurement.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where to write the report, besides standard output.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

impl Publication {
    /// Prints a report, and writes what is wanted of it.
    pub(crate) fn publish(&self, markdown: &str, json: &Value) -> Result<()> {
        println!("{markdown}");
        if let Some(path) = &self.markdown {
            write(path, markdown)?;
        }
        if let Some(path) = &self.json {
            write(path, &(serde_json::to_string_pretty(json)? + "\n"))?;
        }
        Ok(())
    }
}

/// Writes a file anew.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
