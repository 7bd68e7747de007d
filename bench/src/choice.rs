//! What the command line chooses to measure.

use anyhow::{Result, bail};

/// Whoever is compared with others.
pub(crate) trait Named {
    /// Its name, on the command line and in the tables.
    fn name(&self) -> &'static str;
}

/// Those of `all` that are named, in their own order, or every one where none is named. `what` says what each is.
///
/// # Errors
/// A name is none of theirs.
pub(crate) fn choose<P: Named>(what: &str, all: &[&'static P], names: &[String]) -> Result<Vec<&'static P>> {
    names.iter().try_for_each(|name| require_known(what, all, name))?;
    let named = |peer: &&P| names.is_empty() || names.iter().any(|name| name == peer.name());
    Ok(all.iter().copied().filter(named).collect())
}

/// Fails if none of `all` has that name.
pub(crate) fn require_known<P: Named>(what: &str, all: &[&P], name: &str) -> Result<()> {
    let known: Vec<&str> = all.iter().map(|peer| peer.name()).collect();
    if !known.contains(&name) {
        bail!("no {what} is called {name:?}; there are {}", known.join(", "));
    }
    Ok(())
}

/// Whether `--only` lets this pass; without it everything does.
pub(crate) fn selects<G: PartialEq>(only: &[G], group: G) -> bool {
    only.is_empty() || only.contains(&group)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Peer(&'static str);

    impl Named for Peer {
        fn name(&self) -> &'static str {
            self.0
        }
    }

    const ALL: [&Peer; 3] = [&Peer("a"), &Peer("b"), &Peer("c")];

    fn chosen(names: &[&str]) -> Result<Vec<&'static str>> {
        let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
        Ok(choose("proxy", &ALL, &names)?.iter().map(|peer| peer.0).collect())
    }

    #[test]
    fn those_named_come_in_the_order_of_the_table() {
        assert_eq!(chosen(&[]).unwrap(), ["a", "b", "c"]);
        assert_eq!(chosen(&["c", "a"]).unwrap(), ["a", "c"]);
        assert_eq!(chosen(&["a", "d"]).unwrap_err().to_string(), "no proxy is called \"d\"; there are a, b, c");
    }
}
