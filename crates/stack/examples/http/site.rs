//! The files of a directory, read once, with the heads that go in front of them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;

/// Files that are read at most, and how deep directories may lie.
const PAGES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 16;

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its part of the answer's head: lines about the body.
    pub(crate) fields: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// All pages by their paths.
#[derive(Debug, Default)]
pub(crate) struct Site {
    pages: Vec<Page>,
    places: HashMap<Vec<u8>, usize>,
    bytes: usize,
}

impl Site {
    /// Reads all files below `root`, of at most `bytes_max` bytes together. Links and names that begin with a dot are left out.
    pub(crate) fn read(root: &Path, bytes_max: usize) -> anyhow::Result<Self> {
        let mut site = Self::default();
        site.add_directory(root, b"/", bytes_max, 0)?;
        Ok(site)
    }

    /// The page at `path`, by its number.
    pub(crate) fn find(&self, path: &[u8]) -> Option<usize> {
        self.places.get(path).copied()
    }

    pub(crate) fn page(&self, number: usize) -> &Page {
        &self.pages[number]
    }

    fn add_directory(&mut self, directory: &Path, path: &[u8], bytes_max: usize, depth: usize) -> anyhow::Result<()> {
        anyhow::ensure!(depth < DEPTH_MAX, "{} lies too deep", directory.display());
        let entries = fs::read_dir(directory).with_context(|| format!("can't read {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let (kind, name) = (entry.file_type()?, entry.file_name());
            if name.as_bytes().starts_with(b".") {
                continue;
            }
            let mut path = [path, name.as_bytes()].concat();
            if kind.is_dir() {
                path.push(b'/');
                self.add_directory(&entry.path(), &path, bytes_max, depth + 1)?;
            } else if kind.is_file() {
                self.add_file(&entry.path(), path, bytes_max)?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, file: &Path, path: Vec<u8>, bytes_max: usize) -> anyhow::Result<()> {
        let body = fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
        self.bytes += body.len();
        anyhow::ensure!(self.bytes <= bytes_max, "the files have more than {bytes_max} bytes: see --memory");
        anyhow::ensure!(self.pages.len() < PAGES_MAX, "there are more than {PAGES_MAX} files");
        let kind = content_type(file);
        let fields = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len()).into_bytes();
        self.pages.push(Page { fields, body });
        let number = self.pages.len() - 1;
        if let Some(directory) = path.strip_suffix(b"/index.html") {
            self.places.insert([directory, b"/"].concat(), number);
        }
        self.places.insert(path, number);
        Ok(())
    }
}

fn content_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" | "htm" => "text/html; charset=utf-8",
        "txt" | "md" => "text/plain; charset=utf-8",
        "css" => "text/css",
        "js" => "text/javascript",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}
