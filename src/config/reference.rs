//! The tables of the reference page, from the table of keys.

use std::fmt::Write as _;

use super::raw::{Key, SECTIONS, Section};

/// One Markdown section for each table of the file, as `docs/configuration.md` has them.
pub(crate) fn reference() -> String {
    SECTIONS.iter().map(section).collect::<Vec<_>>().join("\n")
}

fn section(section: &Section) -> String {
    let mut text =
        format!("### `{}`\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n", section.header);
    for key in section.keys.iter().filter(|key| key.kind != "a table") {
        let Key { name, kind, about, .. } = key;
        writeln!(text, "| `{name}` | {kind} | {} | {about} |", default(key)).expect("writing to a string never fails");
    }
    text
}

/// The default as it would be written in the file.
fn default(key: &Key) -> String {
    match key.default {
        "" => String::new(),
        bare if bare.parse::<u32>().is_ok() || bare.parse::<bool>().is_ok() => format!("`{bare}`"),
        text => format!("`\"{text}\"`"),
    }
}
