//! What of the peers is installed, and in which versions.

use std::collections::BTreeMap;

/// Versions by peer.
pub(crate) struct Installed {
    versions: BTreeMap<&'static str, Option<String>>,
}

impl Installed {
    /// Takes what each said of itself, and tells of those that said nothing.
    pub(crate) fn new(versions: impl Iterator<Item = (&'static str, Option<String>)>) -> Self {
        let versions: BTreeMap<_, _> = versions.collect();
        for (name, _) in versions.iter().filter(|(_, version)| version.is_none()) {
            eprintln!("{name} isn't installed: its cells stay empty");
        }
        Self { versions }
    }

    /// Why a peer can't be measured, if it can't.
    pub(crate) fn lacks(&self, peer: &str) -> Option<&'static str> {
        self.versions.get(peer).is_none_or(Option::is_none).then_some("not installed")
    }

    /// A peer's version, or why there is none.
    pub(crate) fn version(&self, peer: &str) -> String {
        self.versions.get(peer).cloned().flatten().unwrap_or_else(|| "not installed".to_owned())
    }
}
